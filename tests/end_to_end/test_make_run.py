"""What `make run` does, on a real scheduler: archive six hours, lose workers on the way, start again."""

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.domain.interval import HOUR, epoch_ms, hour_of
from include.sandbox.scenario import Scenario
from include.sandbox.server import Sandbox
from tests.archived import assert_complete, truth_with_all
from tests.end_to_end.launcher import ROOT, Watched, airflow_of, archived_hours, launched, wait_for

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.timeout(500),
    pytest.mark.filterwarnings("default"),
]

CONTACT_TASKS_PER_HOUR = 60
SANDBOX = ("--tasks-per-hour", str(CONTACT_TASKS_PER_HOUR))


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("make-run")


def recordings_in_the_bucket(state: Path) -> int:
    return sum(1 for _ in (state / ".local" / "s3").rglob("*.wav"))


def test_six_hours_are_archived_although_running_airflow_tasks_are_killed(state):
    """kill -9 in the middle of copying, then Airflow's own retry: nothing twice, nothing missing."""
    # Slow enough that there is a middle.
    slow = [{"endpoint": "media", "kind": "stall", "probability": 0.2, "seconds": 1}]
    with launched(state, *SANDBOX, "--exit", "--faults", json.dumps(slow)) as (process, log):
        watched = Watched(process)
        wait_for(lambda: recordings_in_the_bucket(state) >= 10, 240, log, watched)
        running = watched.airflow_tasks()
        for airflow_task in running:
            airflow_task.kill()
        killed_at = recordings_in_the_bucket(state)
        wait_for(lambda: process.poll() is not None, 400, log, watched)
        status = process.wait()

    said = log.read_text()
    assert running, "no Airflow task was running, so nothing was tried"
    assert status == 0, said[-3000:]
    assert "6 of 6 hours archived" in said
    assert "No difference." in said
    assert recordings_in_the_bucket(state) > killed_at
    assert watched.left_over() == []


def test_the_archive_is_complete_for_one_who_knows_only_the_bucket(state):
    """Row by row and byte by byte, against a sandbox of the same seed; hours young enough to grow are left out."""
    now = hour_of(datetime.now(UTC))
    first, last = now - 6 * HOUR, now - 3 * HOUR
    with (
        archived_hours(state, first, 3) as archived,
        Sandbox(Scenario(tasks_per_hour=CONTACT_TASKS_PER_HOUR)) as sandbox,
    ):
        assert_complete(archived, truth_with_all(sandbox, epoch_ms(first), epoch_ms(last)))


def test_make_verify_finds_nothing_wrong_in_it_and_then_the_one_object_that_is_damaged(state):
    """What `make run` keeps is served for as long as the verification takes."""
    verify = [sys.executable, "-m", "tools.verify_bucket", "--state", str(state)]
    whole = subprocess.run(
        verify, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    recording = min((state / ".local" / "s3").rglob("*.wav"))
    body = recording.read_bytes()
    recording.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    damaged = subprocess.run(
        verify, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    recording.write_bytes(body)

    assert (whole.returncode, whole.stderr) == (0, ""), whole.stdout
    assert "Nothing is missing, nothing was altered." in whole.stdout
    assert damaged.returncode == 1
    assert "another SHA-256" in damaged.stdout
    assert "1 findings." in damaged.stdout


def test_a_second_run_starts_from_what_the_first_left_and_stays_up_until_ctrl_c(state):
    before = recordings_in_the_bucket(state)
    started = time.monotonic()
    with launched(state, *SANDBOX) as (process, log):
        watched = Watched(process)
        wait_for(lambda: "Stays up until Ctrl-C" in log.read_text(), 240, log, watched)
        seconds = time.monotonic() - started
        said = log.read_text()
        airflow = airflow_of(said)
        form = airflow.request("GET", "/ui/connections/hook_meta")
        webex = airflow.request("GET", "/api/v2/connections/webex_contact_center")
        tested = airflow.request(
            "POST",
            "/api/v2/connections/test",
            {
                **{
                    name: webex[name]
                    for name in ("connection_id", "conn_type", "host", "login", "extra")
                },
                "password": webex["password"],
            },
        )
        process.send_signal(signal.SIGINT)
        status = process.wait(60)

    said = log.read_text()
    assert "No difference." in said
    assert recordings_in_the_bucket(state) >= before
    assert (status, watched.left_over()) == (0, [])
    fields = next(meta for meta in form if meta["connection_type"] == "webex_contact_center")
    assert set(fields["extra_fields"]) >= {"org_id", "refresh_token", "media_hosts"}
    assert tested["status"], tested
    print(f"the second run reported after {seconds:.0f} s")
