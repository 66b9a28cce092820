"""What `make run` does, on a real scheduler: archive six hours, lose workers on the way, start again."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import boto3
import psutil
import pytest

from include.domain.interval import HOUR, epoch_ms, hour_of
from include.sandbox.scenario import Scenario
from include.sandbox.server import Sandbox
from tests.archived import ArchivedHours, assert_complete, truth_with_all
from tests.s3_servers import ministack_server
from tools.run_locally import BUCKET

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.timeout(500),
    pytest.mark.filterwarnings("default"),
]

ROOT = Path(__file__).parents[2]
CONTACT_TASKS_PER_HOUR = 60
# An Airflow task that runs; the worker above it has "LocalExecutor" in its title.
RUNNING_AIRFLOW_TASK = re.compile(r"airflow worker -- [0-9a-f-]{36}")


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("make-run")


@contextlib.contextmanager
def launched(state: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    log = state / "launcher.log"
    command = [sys.executable, "-m", "tools.run_locally", "--state", str(state), *options]
    command += ["--tasks-per-hour", str(CONTACT_TASKS_PER_HOUR)]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


class Watched:
    """A launcher and every process that it was seen to have, however deep below it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._launcher = psutil.Process(process.pid)
        self._seen: set[psutil.Process] = set()

    def look(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen |= set(self._launcher.children(recursive=True))
        return [process for process in self._seen if process.is_running()]

    def airflow_tasks(self) -> list[psutil.Process]:
        found = []
        for process in self.look():
            with contextlib.suppress(psutil.NoSuchProcess):
                if RUNNING_AIRFLOW_TASK.fullmatch(" ".join(process.cmdline()).strip()):
                    found.append(process)
        return found

    def left_over(self) -> list[psutil.Process]:
        return [process for process in self.look() if process.status() != psutil.STATUS_ZOMBIE]


def wait_for(condition, seconds: float, log: Path, watched: Watched):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        watched.look()
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s; the launcher said:\n{log.read_text()[-3000:]}")


def recordings_in_the_bucket(state: Path) -> int:
    return sum(1 for _ in (state / ".local" / "s3").rglob("*.wav"))


def test_six_hours_are_archived_although_running_airflow_tasks_are_killed(state):
    """kill -9 in the middle of copying, then Airflow's own retry: nothing twice, nothing missing."""
    # Slow enough that there is a middle.
    slow = [{"endpoint": "media", "kind": "stall", "probability": 0.2, "seconds": 1}]
    with launched(state, "--exit", "--faults", json.dumps(slow)) as (process, log):
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
        ministack_server(state / ".local" / "s3") as server,
        Sandbox(Scenario(tasks_per_hour=CONTACT_TASKS_PER_HOUR)) as sandbox,
    ):
        s3 = boto3.client(
            "s3",
            endpoint_url=server.endpoint_url,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=server.region,
        )
        archived = ArchivedHours(s3, BUCKET)
        hours = [
            f"created_date={hour:%Y-%m-%d}" for hour in (first, first + HOUR, first + 2 * HOUR)
        ]
        wanted = tuple(f"{hour:%H}" for hour in (first, first + HOUR, first + 2 * HOUR))
        archived.keys = [
            key
            for key in archived.keys
            if any(
                f"{date}/{hour}.parquet" in key or f"{date}/created_hour={hour}/" in key
                for date, hour in zip(hours, wanted, strict=True)
            )
        ]
        assert_complete(archived, truth_with_all(sandbox, epoch_ms(first), epoch_ms(last)))


def test_a_second_run_starts_from_what_the_first_left_and_stays_up_until_ctrl_c(state):
    before = recordings_in_the_bucket(state)
    started = time.monotonic()
    with launched(state) as (process, log):
        watched = Watched(process)
        wait_for(lambda: "Stays up until Ctrl-C" in log.read_text(), 240, log, watched)
        seconds = time.monotonic() - started
        said = log.read_text()
        [url] = re.findall(r"Airflow +(http://127\.0\.0\.1:\d+)", said)
        [password] = re.findall(r"password (\S+)\)", said)
        token = _post(f"{url}/auth/token", {"username": "admin", "password": password})[
            "access_token"
        ]
        form = _get(f"{url}/ui/connections/hook_meta", token)
        webex = _get(f"{url}/api/v2/connections/webex_contact_center", token)
        tested = _post(
            f"{url}/api/v2/connections/test",
            {
                **{
                    name: webex[name]
                    for name in ("connection_id", "conn_type", "host", "login", "extra")
                },
                "password": webex["password"],
            },
            token,
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


def _get(url: str, token: str):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _post(url: str, body: dict, token: str = ""):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
