"""`make test`: every check of the project, four at a time, in a home of its own; reports all failures."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
AT_ONCE = 4  # which keeps two cores busy: those of the scheduler mostly wait
SECONDS_FOR_ONE_CHECK = 780
# What a person's machine may have set and a check must not depend on.
_SCRUBBED = (
    "AIRFLOW",
    "AWS_",
    "WXCC_",
    # PYTHONDONTWRITEBYTECODE: each of Airflow's processes would take 5 s more to start.
    "PYTHON",
    "PYTEST_",
    "COVERAGE_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "VIRTUAL_ENV",
)


@dataclass(frozen=True)
class Check:
    """One command; a check of tests also measures which lines of include/ it ran."""

    name: str
    command: tuple[str, ...]


def _slow_tests(name: str, *arguments: str) -> Check:
    """Tests of lines that others run too, or other processes do: measuring would double their time."""
    return Check(name, (sys.executable, "-m", "pytest", "-q", *arguments))


def _tests(name: str, *arguments: str, unmeasured: str = "include/sandbox/*") -> Check:
    """Tests that measure; the sandbox is measured by its own, which run all of it in a tenth of the time."""
    coverage = (sys.executable, "-m", "coverage", "run", "--parallel-mode", f"--omit={unmeasured}")
    return Check(name, (*coverage, "-m", "pytest", "-q", *arguments))


_KILLS_AND_RUNS_AT_ONCE = (
    "tests/pipelines/test_killed_anywhere.py",
    "tests/pipelines/test_at_once.py",
)
_WALKS_AND_YEARS = (
    "tests/pipelines/test_capture_states_model.py",
    "tests/pipelines/test_a_year.py",
)
_LONG_PIPELINE_TESTS = (
    "tests/pipelines/test_receiver_process.py",
    "tests/pipelines/test_token_years.py",
    "tests/pipelines/test_capture_events.py::test_a_recheck_that_is_killed_forgets_no_hint",
    "tests/pipelines/test_capture_events.py::test_lost_repeated_disordered_and_forged_events_change_nothing",
    "tests/pipelines/test_recheck_captures.py::test_looks_come_closer_and_an_alarm_is_raised_before_the_purge",
    "tests/pipelines/test_publication.py::test_a_partition_that_is_always_changed_ends_in_a_later_try",
    "tests/pipelines/test_verify_archive.py::test_every_damage_is_found",
    "tests/pipelines/test_recheck_captures.py::test_whatever_was_ever_offered_or_listed_is_archived_in_the_end",
    "tests/pipelines/test_preview_backfill.py::test_a_quiet_fortnight_is_listed_in_full_and_its_captures_are_estimated",
    "tests/pipelines/test_preview_backfill.py::test_a_busy_month_is_estimated_with_an_honest_range",
    "tests/pipelines/test_preview_backfill.py::test_of_a_quiet_year_whole_days_are_listed",
    "tests/pipelines/test_capture_events.py::test_a_recording_of_this_hour_is_archived_by_its_hint_and_the_hour_is_still_completed",
)
_LONG_UNIT_TESTS = (
    "tests/domain/test_object_keys.py::test_a_hundred_thousand_hostile_ids_and_names_stay_under_their_prefix",
    "tests/domain/test_capture_state.py::test_every_contact_task_has_a_state",
    "tests/webex/test_hostile_answers.py",
    "tests/tools",
    "tests/docs",
    "tests/benchmarks",
)


def _except(*tests: str) -> tuple[str, ...]:
    return tuple(f"--deselect={test}" for test in tests)


# The longest first. Tests of one kind share a process: those of Airflow set its home before they import it.
CHECKS = (
    _slow_tests("end-to-end tests of backfills", "tests/end_to_end/test_backfill.py"),
    _slow_tests("end-to-end tests of make run", "tests/end_to_end/test_make_run.py"),
    _tests(
        "pipeline tests",
        "tests/pipelines",
        *_except(*_KILLS_AND_RUNS_AT_ONCE, *_WALKS_AND_YEARS, *_LONG_PIPELINE_TESTS),
    ),
    _slow_tests("tests of kills and of runs at once", *_KILLS_AND_RUNS_AT_ONCE),
    _slow_tests("fault matrix", "tests/fault_matrix"),
    _slow_tests("DAG tests", "tests/dags"),
    _slow_tests("tests of walks and of years", *_WALKS_AND_YEARS, *_LONG_PIPELINE_TESTS),
    _tests("unit tests", "tests/domain", "tests/http", "tests/webex", *_except(*_LONG_UNIT_TESTS)),
    _slow_tests("browser tests", "tests/end_to_end/test_connect_page.py"),
    _tests("storage tests", "tests/storage"),
    _slow_tests("end-to-end tests of alerts", "tests/end_to_end/test_alerts.py"),
    _slow_tests("tests of tools and documents, long unit tests", *_LONG_UNIT_TESTS),
    _tests("sandbox tests", "tests/sandbox", unmeasured=""),
    Check("types", (str(BIN / "pyright"),)),
    Check("lint", (str(BIN / "ruff"), "check", ".")),
    Check("format", (str(BIN / "ruff"), "format", "--check", ".")),
    Check("layers", (str(BIN / "lint-imports"),)),
    Check("spelling", (str(BIN / "codespell"),)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; 0 when all pass and the coverage is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="TEXT", help="only checks with this in their name")
    only = parser.parse_args(arguments).only
    checks = [check for check in CHECKS if not only or only in check.name]
    with tempfile.TemporaryDirectory(prefix="wxcc-checks-") as home:
        environment = _environment(Path(home))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            failed = [
                name for name in pool.map(lambda check: _run(check, environment), checks) if name
            ]
        if not only:
            failed += [name for name in [_coverage(environment)] if name]
    print(f"\nFailed: {', '.join(failed)}." if failed else "\nAll checks passed.")
    return 1 if failed else 0


def _environment(home: Path) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.upper().startswith(_SCRUBBED)
    }
    return {
        **kept,
        "HOME": str(home),
        "COVERAGE_FILE": str(home / "coverage"),
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(PROJECT),
    }


def _run(check: Check, environment: Mapping[str, str]) -> str | None:
    """Print what a check says when it is done, whole; its name when it failed."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            check.command,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS_FOR_ONE_CHECK,
            check=False,
        )
        output, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        output, status = late.stdout or b"", f"no end after {SECONDS_FOR_ONE_CHECK} s"
    verdict = "passed" if status == 0 else f"FAILED ({status})"
    print(f"\n=== {check.name}: {verdict}, {time.monotonic() - started:.0f} s", flush=True)
    print(output.decode(errors="replace").strip(), flush=True)
    return None if status == 0 else check.name


def _coverage(environment: Mapping[str, str]) -> str | None:
    subprocess.run(
        (sys.executable, "-m", "coverage", "combine", "--quiet"),
        cwd=PROJECT,
        env=environment,
        check=False,
    )
    report = Check("coverage of include/", (sys.executable, "-m", "coverage", "report"))
    return _run(report, environment)


if __name__ == "__main__":
    sys.exit(main())
