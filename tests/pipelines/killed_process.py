"""Runs DAG runs in child processes and kills each at a chosen write; started by test_killed_anywhere.

It has everything imported, and no threads, so that a child is a fork and costs little. It reads one run as
a line of JSON and answers with one line: how the child ended, the writes that it came to, and the results of
the Airflow tasks that it finished.
"""

import contextlib
import dataclasses
import importlib.abc
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import boto3.session

from include.domain.interval import HOUR, Interval, from_epoch_ms
from include.pipelines.refresh_access_token import refresh_access_token
from include.webex.connection import WebexConnection
from include.webex.http_client import WebexClient
from include.webex.media import MediaClient
from include.webex.refresh_lock import refresh_lock_on_this_machine
from include.webex.tokens import request_token_pair
from tests.pipelines.conftest import Centre, UncountedBudget
from tests.pipelines.dag_runs import AirflowTasks, archive_hours, recheck

Moment = Literal["before", "after"]
Dag = Literal["archive_captures", "recheck_captures", "refresh_access_token"]
WRITES = {
    "PutObject",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "DeleteObject",
}
TOKEN_WRITE = "the token file"
ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a child does, where, and at which write it is killed, if at any."""

    dag: Dag
    now_ms: int
    hour_ms: int
    webex: dict[str, Any]
    s3: dict[str, Any]
    bucket: str
    part_bytes: int
    token_file: str = ""
    kill_at: str | None = None
    moment: Moment = "before"


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a child ended."""

    was_killed: bool
    writes: list[str]
    finished: dict[str, Any]


class FileTokenStore:
    """A token store as the Airflow variable is one: what is written is there whole, or not at all."""

    def __init__(
        self, path: Path, at_write: Callable[[Moment], None] = lambda moment: None
    ) -> None:
        self._path = path
        self._at_write = at_write

    def read(self) -> str | None:
        return self._path.read_text() if self._path.exists() else None

    def lock(self) -> contextlib.AbstractContextManager[None]:
        return refresh_lock_on_this_machine("a killed client", self._path.parent)

    def write(self, text: str) -> None:
        self._at_write("before")
        new = self._path.with_suffix(".new")
        new.write_text(text)
        new.replace(self._path)
        self._at_write("after")


class WritePoints:
    """Names every write of this process, the same in each run, and kills the process at one of them."""

    def __init__(
        self, kill_at: str | None, moment: Moment, note: Callable[[str], None] = lambda write: None
    ) -> None:
        self._kill_at, self._moment, self._note = kill_at, moment, note
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._sent = threading.local()

    def watch(self, s3: Any) -> None:
        s3.meta.events.register_first("before-send.s3", self._before_send)
        s3.meta.events.register_first("response-received.s3", self._after_answer)

    def at_token_write(self, moment: Moment) -> None:
        if moment == "before":
            self._seen[TOKEN_WRITE] += 1
            self._note(f"{TOKEN_WRITE} #{self._seen[TOKEN_WRITE]}")
        self._at(f"{TOKEN_WRITE} #{self._seen[TOKEN_WRITE]}", moment)

    def _before_send(self, request: Any, event_name: str, **_: Any) -> None:
        operation = event_name.rpartition(".")[2]
        self._sent.write = None
        if operation not in WRITES:
            return
        url = urllib.parse.urlsplit(request.url)
        key = urllib.parse.unquote(url.path).split("/", 2)[2]  # after the bucket
        part = urllib.parse.parse_qs(url.query).get("partNumber", [""])[0]
        name = " ".join(filter(None, (operation, key, part)))
        with self._lock:
            self._seen[name] += 1
            self._sent.write = f"{name} #{self._seen[name]}"
        self._note(self._sent.write)
        self._at(self._sent.write, "before")

    def _after_answer(self, **_: Any) -> None:
        """The store has done it, and this process has not been told yet."""
        if self._sent.write:
            self._at(self._sent.write, "after")

    def _at(self, write: str, moment: Moment) -> None:
        if (write, moment) == (self._kill_at, self._moment):
            os.kill(os.getpid(), signal.SIGKILL)


class HeldClock:
    """Of the sandbox, a child needs the time only."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms


def s3_client(s3: dict[str, Any]) -> Any:
    return _session.client("s3", **s3)


_session = boto3.session.Session()


def _run(run: Run, note: Callable[[str, Any], None]) -> None:
    """What a child does."""
    points = WritePoints(run.kill_at, run.moment, lambda write: note("write", write))
    s3 = s3_client(run.s3)
    points.watch(s3)
    connection = WebexConnection.from_fields(**run.webex)
    clock = HeldClock(run.now_ms)

    def now() -> datetime:
        return from_epoch_ms(run.now_ms)

    if run.dag == "refresh_access_token":
        store = FileTokenStore(Path(run.token_file), points.at_token_write)
        refresh_access_token(connection, store, now)
        return
    assert connection.refresh_token
    pair = request_token_pair(connection, connection.refresh_token, now)
    centre = Centre(
        sandbox=clock,  # pyright: ignore[reportArgumentType] - nothing else of it is used here
        s3=s3,
        bucket=run.bucket,
        connection=connection,
        client=WebexClient(connection, lambda _spent: pair.access_token, UncountedBudget()),
        media=MediaClient(connection.media_hosts),
        part_bytes=run.part_bytes,
    )
    tasks = AirflowTasks(note=lambda name, result: note("finished", [name, result]))
    if run.dag == "archive_captures":
        start = from_epoch_ms(run.hour_ms)
        archive_hours(centre, Interval(start, start + HOUR), tasks)
    else:
        recheck(centre, tasks)


def _fork(run: Run) -> Ended:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        # Never back into the loop below, whatever happens.
        try:
            os.close(reading)
            _run(run, lambda kind, what: _send(writing, [kind, what]))
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - told to the one who waits
            _send(writing, ["error", repr(error)])
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = [json.loads(line) for line in pipe]
    _, status = os.waitpid(pid, 0)
    errors = [what for kind, what in told if kind == "error"]
    if errors:
        raise RuntimeError(errors[0])
    return Ended(
        was_killed=os.waitstatus_to_exitcode(status) == -signal.SIGKILL,
        writes=[what for kind, what in told if kind == "write"],
        finished=dict(what for kind, what in told if kind == "finished"),
    )


def _send(pipe: int, what: Any) -> None:
    os.write(pipe, json.dumps(what).encode() + b"\n")


class KilledProcess:
    """This module as a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, run: Run) -> Ended:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(dataclasses.asdict(run)), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "The process that forks has died: see its error above."
        return Ended(**json.loads(answer))


@contextlib.contextmanager
def killed_process() -> Iterator[KilledProcess]:
    """Start it, and end it with the block."""
    command = [sys.executable, "-m", "tests.pipelines.killed_process"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield KilledProcess(process)
        assert process.stdin
        process.stdin.close()


class NoPandas(importlib.abc.MetaPathFinder):
    """As in production: where it is installed, pyarrow imports it, in each child anew."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


if __name__ == "__main__":
    sys.meta_path.insert(0, NoPandas())
    # Before any fork: it reads the description of S3, which takes a third of a second and is kept.
    _session.client("s3", region_name="us-east-1")
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(_fork(Run(**json.loads(line))))), flush=True)
