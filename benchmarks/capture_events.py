"""Loads the receiver of capture events that runs alone, as a process, from another process.

Among the events are some of each kind that must be refused or dropped: forged, malformed, too large.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.archive_shard_peer import open_archive
from benchmarks.capture_sets import org_id
from benchmarks.laboratory import (
    ACCESS_KEY,
    PROJECT,
    SECRET_KEY,
    Laboratory,
    RunFailedError,
    open_laboratory,
)
from include.domain.interval import epoch_ms, utc_now
from include.receiver.app import MAX_BODY_BYTES, PATH
from include.storage.hints import read_hints
from tools.local_processes import reserve_port

DELIVERIES = 200_000  # twice as many as the receiver remembers
CONNECTIONS = 64
BUCKET = "events"
SECRET = "the secret of the benchmark's events".replace(" ", "-")
HEADING = "Capture events, by the receiver that runs alone"
_EVERY = 50  # of so many deliveries one is forged, one malformed and one too large
_SECONDS_TO_START = 60
_SECONDS_TO_STOP = 20


@dataclass
class Sent:
    """What became of a load, told by the process that sent it.

    Attributes:
        seconds: From the first delivery to the last answer.
        answered: The numbers of the events that were answered 2xx, and are to be in the bucket for that.
        statuses: How many deliveries of each kind were answered with what; nothing where the receiver was gone.
        milliseconds: How long the answer of each delivery took.
    """

    seconds: float = 0.0
    answered: list[int] = field(default_factory=list[int])
    statuses: Counter[str] = field(default_factory=Counter[str])
    milliseconds: list[float] = field(default_factory=list[float])


@dataclass(frozen=True)
class ReceiverProcess:
    """A receiver that takes events."""

    process: subprocess.Popen[bytes]
    port: int

    def peak_mib(self) -> float | None:
        """The most memory that it ever had; None where the system does not tell."""
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        except OSError:
            return None
        [peak_kib] = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(peak_kib) / 1024

    def load(self, laboratory: Laboratory, first: int, count: int) -> subprocess.Popen[str]:
        """Begin to send so many deliveries; `sent` has what came of it."""
        command = [sys.executable, "-m", "benchmarks.capture_events", "--port", str(self.port)]
        return subprocess.Popen(
            [*command, "--first", str(first), "--count", str(count)],
            cwd=PROJECT,
            env=laboratory.environment,
            stdout=subprocess.PIPE,
            text=True,
        )


def sent(load: subprocess.Popen[str]) -> Sent:
    """Wait for the end of a load.

    Raises:
        RunFailedError: Its process failed.
    """
    output, _ = load.communicate()
    if load.returncode:
        raise RunFailedError(f"the sender of events ended with {load.returncode}")
    told = json.loads(output)
    return Sent(**{**told, "statuses": Counter(told["statuses"])})


@contextlib.contextmanager
def receiver_process(laboratory: Laboratory) -> Iterator[ReceiverProcess]:
    """Run the receiver until the block ends, with the bucket `events`.

    Raises:
        RunFailedError: It does not start.
    """
    port = reserve_port(8090)
    extra = {
        "endpoint_url": laboratory.s3_url,
        "region_name": "us-east-1",
        "service_config": {"s3": {"bucket_name": BUCKET}},
    }
    store = {"login": ACCESS_KEY, "password": SECRET_KEY, "extra": extra}
    events = {"host": f"https://hooks.example.com{PATH}", "password": SECRET}
    process = subprocess.Popen(
        [sys.executable, "-m", "include.receiver", "--org-id", org_id(), "--port", str(port)],
        cwd=PROJECT,
        env={
            **laboratory.environment,
            "AIRFLOW_CONN_WXCC_STORE": json.dumps(store),
            "AIRFLOW_CONN_WXCC_CAPTURE_EVENTS": json.dumps(events),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(process, f"http://127.0.0.1:{port}{PATH}")
        yield ReceiverProcess(process, port)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_STOP)
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - ours
        except urllib.error.HTTPError:  # of a GET: 405
            return
        except OSError:
            time.sleep(0.05)
    raise RunFailedError("the receiver of events does not start")


def hinted(laboratory: Laboratory) -> tuple[Counter[int], int]:
    """How often each event is in the bucket, and the number of objects; the bucket is empty afterwards."""
    archive = open_archive(laboratory.s3_url, BUCKET)
    found: Counter[int] = Counter()
    objects = 0
    while True:
        batches, hints = read_hints(archive.store, archive.keys)
        if not batches:
            return found, objects
        found.update(int(hint.task_id) for hint in hints)
        objects += len(batches)
        archive.store.delete(batches)


def measure_events(count: int = DELIVERIES, parts: int = 8) -> dict[str, list[dict[str, object]]]:
    """What a receiver stands, in parts one after the other, so that it shows whether its memory grows.

    Raises:
        RunFailedError: An event that was answered is not in the bucket, or another one is.
    """
    rows: list[dict[str, object]] = []
    with open_laboratory() as laboratory, receiver_process(laboratory) as receiver:
        for part in range(parts):
            told = sent(receiver.load(laboratory, part * count // parts, count // parts))
            found, objects = hinted(laboratory)
            _check(told, found)
            rows.append(_row(part + 1, told, objects, receiver))
            print(rows[-1], file=sys.stderr, flush=True)
    return {HEADING: rows}


def _check(told: Sent, found: Counter[int]) -> None:
    answered = Counter(told.answered)
    lost, more = (answered - found).total(), (found - answered).total()
    if lost or more:
        raise RunFailedError(
            f"{lost} events were answered and are not in the bucket, {more} are there twice or unanswered"
        )
    unexpected = told.statuses.keys() - {
        "genuine 204", "forged 204", "malformed 204", "too large 413"
    }  # fmt: skip
    if unexpected:
        raise RunFailedError(f"deliveries were answered {', '.join(sorted(unexpected))}")


def _row(part: int, told: Sent, objects: int, receiver: ReceiverProcess) -> dict[str, object]:
    told.milliseconds.sort()
    peak = receiver.peak_mib()
    return {
        "part": part,
        "events": len(told.answered),
        "lost": 0,
        "events/s": len(told.answered) / told.seconds,
        "other deliveries": told.statuses.total() - len(told.answered),
        "objects": objects,
        "ms, median": told.milliseconds[len(told.milliseconds) // 2],
        "ms, 99 of 100": told.milliseconds[len(told.milliseconds) * 99 // 100],
        "ms, slowest": told.milliseconds[-1],
        "peak MiB so far": "" if peak is None else peak,
    }


def main() -> None:
    """Send events over many connections, each answered before the next, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--first", type=int, default=0, help="the number of the first event")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--secret", default=SECRET)
    chosen = parser.parse_args()
    told = asyncio.run(_send_all(chosen))
    print(json.dumps(vars(told)))


async def _send_all(chosen: argparse.Namespace) -> Sent:
    told = Sent()
    numbers = iter(range(chosen.first, chosen.first + chosen.count))
    begun = time.monotonic()
    senders = (_send(chosen, numbers, told) for _ in range(chosen.connections))
    await asyncio.gather(*senders)
    told.seconds = time.monotonic() - begun
    return told


async def _send(chosen: argparse.Namespace, numbers: Iterator[int], told: Sent) -> None:
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    for number in numbers:
        kind, request = _request(number, chosen.secret)
        try:
            streams = streams or await asyncio.open_connection(chosen.host, chosen.port)
            reader, writer = streams
            begun = time.monotonic()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):  # the receiver is gone
            break
        told.milliseconds.append((time.monotonic() - begun) * 1_000)
        status = int(head[9:12])
        told.statuses[f"{kind} {status}"] += 1
        if kind == "genuine" and status // 100 == 2:
            told.answered.append(number)
        if b"connection: close" in head.lower():  # it did not read all
            writer.close()
            streams = None
    if streams:
        streams[1].close()


def _request(number: int, secret: str) -> tuple[str, bytes]:
    kinds = {1: "forged", 2: "malformed", 3: "too large"}
    kind = kinds.get(number % _EVERY, "genuine")
    now_ms = epoch_ms(utc_now())
    event = {
        "id": f"event-{number}",
        "specversion": "1.0",
        "type": "capture:available",
        "source": "/com/cisco/wxcc/benchmark",
        "comciscoorgid": org_id(),
        "comciscotimestamp": str(now_ms),
        "datacontenttype": "application/json",
        "data": {"taskId": str(number), "filePath": "/v1/captures/query", "createdTime": now_ms},
    }
    body = json.dumps(event).encode()
    if kind == "malformed":
        body = body[:-1]
    if kind == "too large":
        body += b" " * MAX_BODY_BYTES
    key = secret[::-1] if kind == "forged" else secret
    digest = hmac.digest(key.encode(), body, "sha256").hex()
    return kind, (
        f"POST {PATH} HTTP/1.1\r\nHost: receiver\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nX-WebexCC-Signature: {digest}\r\n\r\n"
    ).encode() + body


if __name__ == "__main__":
    main()
