"""`make run`: six hours of a sandbox contact centre, archived by Airflow on this machine.

Starts the Webex sandbox, an S3 server, PostgreSQL and Airflow, on loopback; archives the last six complete
hours; shows what an analyst finds and compares it with what the sandbox holds; stays up until
Ctrl-C. Run again, it starts from what the last run left in `.airflow/` and `.local/`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from tools import archive_report, local_airflow, local_s3
from tools.archive_report import Archived, Bucket, Comparison, Hour
from tools.local_airflow import AirflowApi, AirflowApiError
from tools.local_connections import (
    FINAL_STATES,
    archive_progress,
    key_hour,
    last_complete_hours,
    sandbox_connection,
    store_connection,
)
from tools.local_postgres import LocalPostgres, PostgresError
from tools.local_processes import ComponentDiedError, Components, reserve_port, tail
from tools.progress import Progress

PROJECT = Path(__file__).resolve().parent.parent
BUCKET = "webex-contact-center"
HOURS = 6
UI_PORT, SANDBOX_PORT, S3_PORT, POSTGRES_PORT = 8080, 8808, 8809, 8810
POOL, POOL_SLOTS = "wxcc_api", 4
ARCHIVE, REFRESH = "archive_captures", "refresh_access_token"
RECHECK = "recheck_captures"
START_SECONDS = 120
ARCHIVE_SECONDS = 900
DIFFERENCES_SHOWN = 10
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_T = TypeVar("_T")


class LauncherError(RuntimeError):
    """Something keeps `make run` from its end; the message is for the person who typed it."""


class StopRequestedError(BaseException):
    """SIGINT, SIGTERM or SIGHUP came; like KeyboardInterrupt, no `except Exception` stops it."""


@dataclass(frozen=True)
class Places:
    """Where the files of a run lie, and which DAGs it runs."""

    dags: Path
    airflow_home: Path
    local: Path

    @property
    def objects(self) -> Path:
        """What the S3 server keeps."""
        return self.local / "s3"

    @property
    def logs(self) -> Path:
        """One log per component."""
        return self.local / "logs"


class LocalRun:
    """One run of the launcher: what it started, and the steps in their order."""

    def __init__(self, places: Places, sandbox_options: list[str]) -> None:
        self.places = places
        self.sandbox_options = sandbox_options
        self.components = Components(places.logs)
        self.progress = Progress(sys.stdout)
        self.ui_port, sandbox_port, s3_port, postgres_port = (
            reserve_port(preferred) for preferred in (UI_PORT, SANDBOX_PORT, S3_PORT, POSTGRES_PORT)
        )
        self.sandbox_url = f"http://127.0.0.1:{sandbox_port}"
        self.s3_url = f"http://127.0.0.1:{s3_port}"
        self.postgres = LocalPostgres(places.airflow_home, postgres_port)
        self.bucket = Bucket(self.s3_url, BUCKET)
        places.airflow_home.mkdir(parents=True, exist_ok=True)
        self.password = local_airflow.password(places.airflow_home)
        self.airflow = AirflowApi(f"http://127.0.0.1:{self.ui_port}", self.password)
        self.hours = last_complete_hours(datetime.now(UTC), HOURS)

    def archive(self) -> Comparison:
        """Do everything up to the comparison; every component runs when this returns.

        Raises:
            LauncherError: A step failed or took too long.
            PostgresError: There is no database.
            ComponentDiedError: A component ended by itself.
        """
        self._start_servers()
        self._start_airflow()
        self._set_up_airflow()
        # Before the scheduler starts: what an earlier launcher left running waits for the token.
        refresh = self._trigger_refresh()
        self._start_scheduler()
        self._wait_for_refresh(refresh)
        hours = self._archive_hours()
        return self._report(hours)

    def stay_up(self) -> NoReturn:
        """Have what comes late archived too, and wait for a signal.

        Raises:
            ComponentDiedError: A component ended by itself.
        """
        self.airflow.set_paused(RECHECK, is_paused=False)
        while True:
            time.sleep(1)
            self.components.raise_if_one_died()

    def stop(self) -> None:
        """End every process; a second Ctrl-C does not interrupt it, it takes seconds at most."""
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self.progress.show("Stopping.")
        self.components.stop(first=("scheduler", "triggerer"), last=("postgres",))
        self.progress.finish("Stopped. Nothing is left running; everything archived is kept.")

    def _start_servers(self) -> None:
        repaired = local_s3.repair_persisted_objects(self.places.objects)
        if repaired:
            self.progress.finish(f"Removed {len(repaired)} half-written files of a killed run.")
        clean = local_s3.clean_environment()
        self.progress.show("Starting PostgreSQL.")
        self.postgres.prepare()
        self.components.start("postgres", self.postgres.command(), clean)
        s3_port = int(self.s3_url.rpartition(":")[2])
        self.components.start(
            "s3-server",
            local_s3.ministack_command(),
            {**clean, **local_s3.ministack_environment(self.places.objects, s3_port)},
        )
        sandbox_port = self.sandbox_url.rpartition(":")[2]
        self.components.start(
            "sandbox",
            [
                *(sys.executable, "-m", "include.sandbox"),
                *("--host", "127.0.0.1", "--port", sandbox_port, *self.sandbox_options),
            ],
            {**clean, "PYTHONPATH": str(PROJECT)},
        )

    def _airflow_environment(self) -> dict[str, str]:
        return local_airflow.airflow_environment(
            local_s3.clean_environment(),
            home=self.places.airflow_home,
            database_url=self.postgres.url,
            project=PROJECT,
            dags=self.places.dags,
            port=self.ui_port,
        )

    def _start_airflow(self) -> None:
        environment = self._airflow_environment()
        version = importlib.metadata.version("apache-airflow-core")
        self._wait(self.postgres.is_ready, "Starting PostgreSQL.", START_SECONDS)
        if not local_airflow.is_migrated(self.postgres.files, version):
            self._migrate(environment)
            local_airflow.remember_migrated(self.postgres.files, version)
        self.components.start("api-server", local_airflow.API_SERVER, environment)
        self.components.start("dag-processor", local_airflow.DAG_PROCESSOR, environment)
        self._wait(self.airflow.is_ready, "Starting Airflow's API server.", START_SECONDS)

    def _migrate(self, environment: dict[str, str]) -> None:
        self.places.logs.mkdir(parents=True, exist_ok=True)
        log_path = self.places.logs / "database.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                local_airflow.MIGRATE,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait(
                lambda: process.poll() is not None, "Creating Airflow's database.", START_SECONDS
            )
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            raise LauncherError(
                f"Airflow could not create its database. {log_path} ends with:\n{tail(log_path)}"
            )

    def _set_up_airflow(self) -> None:
        self._wait(self._servers_answer, "Starting the sandbox and the S3 server.", START_SECONDS)
        self.bucket.create()
        self.airflow.put_connection(sandbox_connection(_get_json(self.sandbox_url, "connection")))
        self.airflow.put_connection(store_connection(self.s3_url, BUCKET))
        self.airflow.put_pool(POOL, POOL_SLOTS, "Airflow tasks that may use the Webex API at once")
        # Its tokens are those of a sandbox that is gone; the connection has the first one of this.
        self.airflow.delete_variable("wxcc_token")
        self._wait(self._has_dags, "Waiting for Airflow to read the DAGs.", START_SECONDS)
        # Until its runs are made: a scheduler that makes the same run at the same moment dies of it.
        self.airflow.set_paused(ARCHIVE, is_paused=True)

    def _servers_answer(self) -> bool:
        try:
            _get_json(self.sandbox_url, "connection")
            with urllib.request.urlopen(f"{self.s3_url}{local_s3.HEALTH_PATH}", timeout=5):  # noqa: S310 - http to loopback
                return True
        except (OSError, urllib.error.URLError):
            return False

    def _has_dags(self) -> bool:
        if {ARCHIVE, REFRESH, RECHECK} <= self.airflow.dag_ids().keys():
            return True
        for name, trace in self.airflow.import_errors().items():
            raise LauncherError(f"Airflow cannot load {name}:\n{trace}")
        return False

    def _start_scheduler(self) -> None:
        environment = self._airflow_environment()
        # Later than the connections: it goes on with what an earlier launcher left running.
        self.components.start("scheduler", local_airflow.SCHEDULER, environment)
        self._wait(self._is_healthy, "Starting Airflow's scheduler.", START_SECONDS)
        # Later than the rest: only events need it, and two cores are busy with the start.
        self.components.start("triggerer", local_airflow.TRIGGERER, environment)
        self.progress.finish(f"Airflow is up: {self.airflow.url}")

    def _is_healthy(self) -> bool:
        return self.airflow.health().get("scheduler") == "healthy"

    def _trigger_refresh(self) -> str:
        self.airflow.set_paused(REFRESH, is_paused=False)
        return self.airflow.trigger(REFRESH, "make run")

    def _wait_for_refresh(self, run_id: str) -> None:
        state = self._wait(
            lambda: _final_state(self.airflow.run_state(REFRESH, run_id)),
            f"Waiting for {REFRESH}.",
            START_SECONDS,
        )
        if state != "success":
            raise LauncherError(self._explain_failure(REFRESH))

    def _archive_hours(self) -> list[Hour]:
        for hour in self.hours:
            self.airflow.ensure_run(ARCHIVE, _iso(hour), _iso(hour + timedelta(hours=1)))
        self.airflow.set_paused(ARCHIVE, is_paused=False)
        first, last = self.hours[0], self.hours[-1]
        deadline = time.monotonic() + ARCHIVE_SECONDS
        while True:
            self.components.raise_if_one_died()
            runs = self.airflow.runs(ARCHIVE, _iso(first), _iso(last))
            retried = len(self.airflow.airflow_tasks(ARCHIVE, "up_for_retry"))
            self.progress.show(archive_progress(runs, HOURS, _kept(self.places.objects), retried))
            if len(runs) == HOURS and all(_final_state(run["state"]) for run in runs):
                break
            if time.monotonic() > deadline:
                raise LauncherError(
                    f"After {ARCHIVE_SECONDS} s the hours are not archived. "
                    f"Airflow's logs say why: {_relative(self.places.airflow_home / 'logs')}"
                )
            time.sleep(1)
        failed = [run["logical_date"] for run in runs if run["state"] != "success"]
        if failed:
            raise LauncherError(self._explain_failure(ARCHIVE, f" for {', '.join(failed)}"))
        self.progress.finish(archive_progress(runs, HOURS, _kept(self.places.objects)))
        return [
            Hour(
                start=datetime.fromisoformat(run["data_interval_start"]),
                end=datetime.fromisoformat(run["data_interval_end"]),
                archived_from=datetime.fromisoformat(run["start_date"]),
            )
            for run in runs
        ]

    def _explain_failure(self, dag_id: str, detail: str = "") -> str:
        failures = "\n".join(f"    {line}" for line in self.airflow.airflow_tasks(dag_id, "failed"))
        return (
            f"{dag_id} failed{detail}. Its failed Airflow tasks:\n{failures or '    (none)'}\n"
            f"Their logs: {self.places.airflow_home / 'logs'}, or {self.airflow.url} while it is up."
        )

    def _report(self, hours: list[Hour]) -> Comparison:
        self.progress.show("Reading the bucket and comparing it with the sandbox.")
        tables = {name: self.bucket.table(name) for name in archive_report.TABLES}
        found = {name: table for name, table in tables.items() if table is not None}
        sizes = self.bucket.sizes("captures/")
        sizes_in_hours = {key: size for key, size in sizes.items() if key_hour(key) in self.hours}
        comparison = archive_report.compare_with_truth(
            _truth(self.sandbox_url, hours[0].start, hours[-1].end),
            hours,
            Archived(
                archive_report.in_hours(tables["contact_tasks"], "created_time", hours),
                archive_report.in_hours(tables["captures"], "task_created_time", hours),
                sizes_in_hours,
                self.bucket.sha256s(sizes_in_hours),
            ),
        )
        self.progress.finish(
            f"Archived {hours[0].start:%Y-%m-%d %H:%M} to {hours[-1].end:%H:%M} UTC."
        )
        print()
        for name, table in found.items():
            detail = f" ({archive_report.outcome_counts(table)})" if name == "captures" else ""
            print(f"  {name:<14} {table.num_rows:>8,} rows{detail}")
        print(f"  {'objects':<14} {len(sizes):>8,}, {sum(sizes.values()) / 1e6:,.1f} MB")
        if len(found) == len(tables):
            print("\nDuckDB, over the Parquet files in the bucket:\n")
            for line in [
                *archive_report.QUERY.splitlines(),
                "",
                *archive_report.query_lines(found),
            ]:
                print(f"  {line}".rstrip())
        print()
        _print_comparison(comparison)
        folder = local_s3.bucket_directory(self.places.objects, BUCKET)
        print(
            f"\n  Airflow   {self.airflow.url}  (user {local_airflow.USER}, password {self.password})"
        )
        print(f"  Sandbox   {self.sandbox_url}")
        print(f"  S3        {self.s3_url}, bucket {BUCKET}; its files: {_relative(folder)}")
        print(f"  Logs      {_relative(self.places.logs)}\n", flush=True)
        return comparison

    def _wait(self, condition: Callable[[], _T], text: str, seconds: float) -> _T:
        """Return what `condition` returns as soon as that is true."""
        deadline = time.monotonic() + seconds
        while True:
            self.components.raise_if_one_died()
            self.progress.show(text)
            if result := condition():
                return result
            if time.monotonic() > deadline:
                raise LauncherError(
                    f"Gave up after {seconds:.0f} s: {text} Logs: {_relative(self.places.logs)}"
                )
            time.sleep(0.25)


def main(arguments: list[str] | None = None) -> int:
    """Run; return the exit status."""
    options, sandbox_options = _parse(arguments)
    places = Places(
        dags=options.dags.resolve(),
        airflow_home=options.state.resolve() / ".airflow",
        local=options.state.resolve() / ".local",
    )
    _raise_on_signals()
    try:
        with _only_one(places.local) as note:
            run = LocalRun(places, sandbox_options)
            note(f"{run.airflow.url} (process {os.getpid()})")
            return _archive_and_stay(run, stays_up=not options.exit)
    except (LauncherError, PostgresError) as error:
        print(error, file=sys.stderr)
        return 1


def _archive_and_stay(run: LocalRun, *, stays_up: bool) -> int:
    status = 1
    try:
        try:
            comparison = run.archive()
            status = 1 if comparison.differences else 0
        except (LauncherError, PostgresError) as error:
            run.progress.interrupt()
            print(error, file=sys.stderr, flush=True)
        if stays_up:
            print(f"Stays up until Ctrl-C: {run.airflow.url}", flush=True)
            run.stay_up()
    except (ComponentDiedError, AirflowApiError, OSError) as error:
        run.progress.interrupt()
        print(error, file=sys.stderr, flush=True)
        status = 1
    except StopRequestedError:
        # Before the report nothing is proven yet.
        run.progress.interrupt()
    finally:
        run.stop()
    return status


def _parse(arguments: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m tools.run_locally",
        description="Archive six hours of the sandbox with Airflow. "
        "Options that are not listed here go to the sandbox (python -m include.sandbox --help).",
    )
    parser.add_argument(
        "--exit",
        action="store_true",
        help="stop after the report; exit status 0 only if everything matches",
    )
    parser.add_argument("--dags", type=Path, default=PROJECT / "dags", help="folder of the DAGs")
    parser.add_argument(
        "--state", type=Path, default=PROJECT, help="folder that holds .airflow and .local"
    )
    return parser.parse_known_args(arguments)


@contextlib.contextmanager
def _only_one(local: Path) -> Iterator[Callable[[str], None]]:
    """Hold the lock of this folder; yields what notes down who holds it."""
    local.mkdir(parents=True, exist_ok=True)
    with (local / "run.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise LauncherError(
                f"`make run` is already running here: {lock.read().strip()}. "
                "Stop it with Ctrl-C where it runs."
            ) from None
        lock.truncate(0)

        def note(text: str) -> None:
            lock.write(text)
            lock.flush()

        yield note
        lock.truncate(0)


def _raise_on_signals() -> None:
    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise StopRequestedError

    for number in STOP_SIGNALS:
        signal.signal(number, stop)


def _final_state(state: str) -> str | None:
    return state if state in FINAL_STATES else None


def _get_json(url: str, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/sandbox/{path}", timeout=10) as answer:  # noqa: S310 - http to loopback
        return json.load(answer)


def _truth(url: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
    # The flags with which archive_captures asks unless told otherwise.
    flags = {"include_va": "true", "include_screen": "true"}
    query = urllib.parse.urlencode(
        {"from": _milliseconds(start), "to": _milliseconds(end), **flags}
    )
    with urllib.request.urlopen(f"{url}/sandbox/truth?{query}", timeout=120) as answer:  # noqa: S310 - http to loopback
        return [json.loads(line) for line in answer if line.strip()]


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _kept(directory: Path) -> tuple[int, int]:
    """Return the number and the bytes of the objects kept on disk: no request, so as not to disturb."""
    sizes: list[int] = []
    for folder, _, names in os.walk(directory):
        for name in names:
            if not name.endswith((".tmp", ".meta.json")):
                with contextlib.suppress(FileNotFoundError):
                    sizes.append((Path(folder) / name).stat().st_size)
    return len(sizes), sum(sizes)


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _print_comparison(comparison: Comparison) -> None:
    print(
        f"Compared with what the sandbox holds: {comparison.contact_tasks:,} contact tasks, "
        f"{comparison.captures:,} captures byte for byte ({comparison.size_bytes / 1e6:,.1f} MB)"
    )
    if comparison.not_yet_offered:
        print(
            f"  {comparison.not_yet_offered:,} captures were not offered yet when their hour was archived"
        )
    if comparison.purged:
        print(f"  {comparison.purged:,} captures were purged before they could be copied")
    if not comparison.differences:
        print("  No difference.")
        return
    print(f"  {len(comparison.differences):,} DIFFERENCES:")
    for difference in comparison.differences[:DIFFERENCES_SHOWN]:
        print(f"    {difference}")
    if len(comparison.differences) > DIFFERENCES_SHOWN:
        print("    …")


if __name__ == "__main__":
    sys.exit(main())
