"""`make run` as a person starts it, with what a test needs to watch and to kill it."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import boto3
import psutil

from tests.archived import ArchivedHours
from tests.s3_servers import ministack_server
from tools.local_airflow import AirflowApi
from tools.run_locally import BUCKET

ROOT = Path(__file__).parents[2]
# An Airflow task that runs; the worker above it has "LocalExecutor" in its title.
RUNNING_AIRFLOW_TASK = re.compile(r"airflow worker -- [0-9a-f-]{36}")


@contextlib.contextmanager
def launched(state: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    log = state / "launcher.log"
    command = [sys.executable, "-m", "tools.run_locally", "--state", str(state), *options]
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
        self._process = process
        self._launcher = psutil.Process(process.pid)
        self._seen: set[psutil.Process] = set()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

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
        found = []
        for process in self.look():
            with contextlib.suppress(psutil.NoSuchProcess):  # it may end between the two looks
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def wait_for(condition, seconds: float, log: Path, watched: Watched, *, was_killed: bool = False):
    """Wait for no longer than it can still come true: a launcher that ends by itself has failed."""
    deadline = time.monotonic() + seconds
    problem = f"not within {seconds} s"
    while time.monotonic() < deadline:
        watched.look()
        has_ended = watched.has_ended()
        if condition():
            return
        if has_ended and not was_killed:
            problem = "the launcher has ended"
            break
        time.sleep(0.1)
    raise AssertionError(f"{problem}; the launcher said:\n{log.read_text()[-3000:]}")


def airflow_of(said: str) -> AirflowApi:
    """Airflow's REST API at the address, and with the password, that the launcher printed."""
    [(url, password)] = re.findall(r"Airflow +(http://\S+)  \(user admin, password (\S+)\)", said)
    return AirflowApi(url, password)


@contextlib.contextmanager
def archived_hours(state: Path, first: datetime, count: int) -> Iterator[ArchivedHours]:
    """What the bucket of a stopped launcher holds of `count` hours of creation."""
    with ministack_server(state / ".local" / "s3") as server:
        s3 = boto3.client(
            "s3",
            endpoint_url=server.endpoint_url,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=server.region,
        )
        archived = ArchivedHours(s3, BUCKET)
        archived.keep_hours(first, count)
        yield archived
