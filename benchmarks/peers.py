"""Who copies a set of captures: the archive, and what people would use in its place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.capture_sets import CaptureSet
from benchmarks.laboratory import Cost, Laboratory, RunFailedError

CONCURRENT = 8


@dataclass(frozen=True)
class Task:
    """One copy of a set into a bucket of its own."""

    laboratory: Laboratory
    captures: CaptureSet
    bucket: str

    @property
    def urls(self) -> list[str]:
        """The download URLs, in order."""
        media_url = self.laboratory.webex_url
        return [self.captures.url(media_url, number) for number in range(self.captures.count)]

    def written(self, name: str, lines: list[str]) -> Path:
        """A list for the peer."""
        file = self.laboratory.directory / f"{self.bucket}-{name}"
        file.write_text("\n".join(lines) + "\n")
        return file


@dataclass(frozen=True)
class Peer:
    """A program that is measured.

    Attributes:
        name: In the report.
        version: Prints its version; None for our own.
        command: What is run; what it prepares is not measured.
        check: Says what is wrong with what it did, from what it printed.
    """

    name: str
    version: tuple[str, ...] | None
    command: Callable[[Task], list[str]]
    check: Callable[[Task, str], list[str]]

    @property
    def is_installed(self) -> bool:
        """Whether it can be run here."""
        return self.version is None or shutil.which(self.version[0], path=_path()) is not None

    def told_version(self) -> str:
        """The first line of what it says about itself."""
        if self.version is None:
            return ""
        told = subprocess.run(
            self.version, capture_output=True, text=True, check=True, env={"PATH": _path()}
        )
        return told.stdout.splitlines()[0].strip()

    def run(self, laboratory: Laboratory, captures: CaptureSet, bucket: str) -> Cost:
        """Copy the set into an empty bucket.

        Raises:
            RunFailedError: It failed, or did not do all of its work.
        """
        task = Task(laboratory, captures, bucket)
        cost, output = laboratory.measure(self.command(task))
        wrong = self.check(task, output)
        if wrong:
            raise RunFailedError(f"{self.name}: {'; '.join(wrong[:3])} ({len(wrong)} in all)")
        return cost


def _path() -> str:
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))


def _delivered(task: Task, _output: str) -> list[str]:
    """Every byte must have arrived, whatever the peer says."""
    answer = task.laboratory.ask(f"{task.laboratory.s3_url}/benchmark-arrived/{task.bucket}")
    arrived = {
        int(Path(key).stem): [(size_bytes, crc32) for size_bytes, crc32 in pieces]
        for key, pieces in json.loads(answer).items()
    }
    return task.captures.faults(task.laboratory.directory, arrived)


def _nothing_delivered(task: Task, _output: str) -> list[str]:
    answer = task.laboratory.ask(f"{task.laboratory.s3_url}/benchmark-arrived/{task.bucket}")
    return [] if json.loads(answer) == {} else ["an empty shard copied something"]


def _write_plan(task: Task) -> None:
    laboratory = task.laboratory
    laboratory.measure(
        [
            *(sys.executable, "-m", "benchmarks.prepare_plan", laboratory.s3_url),
            *(task.bucket, str(task.captures.count)),
        ]
    )
    download_url = task.captures.url(laboratory.webex_url, 0).replace("0000000.wav", "{:07d}.wav")
    laboratory.ask(f"{laboratory.webex_url}/benchmark/download-url", download_url.encode())


def _archive_shard(task: Task, count: int) -> list[str]:
    _write_plan(task)
    command = [sys.executable, "-m", "benchmarks.archive_shard_peer"]
    command += ["--webex-url", task.laboratory.webex_url, "--s3-url", task.laboratory.s3_url]
    return [*command, "--bucket", task.bucket, "--count", str(count)]


def _csv(task: Task) -> str:
    lines = [f"{url},{number:07d}.wav" for number, url in enumerate(task.urls)]
    return str(task.written("urls.csv", lines))


def _rclone(task: Task) -> list[str]:
    remote = f":s3,provider=Other,env_auth=true,endpoint='{task.laboratory.s3_url}':{task.bucket}/captures"
    command = ["rclone", "copyurl", "--urls", _csv(task), remote, "--config", ""]
    command += ["--transfers", str(CONCURRENT), "--retries", "1", "--low-level-retries", "1"]
    # What the archive does not do either: create the bucket, look at what it sent.
    command += ["--s3-no-check-bucket", "--s3-no-head", "--s3-use-unsigned-payload=true"]
    ca_file = task.laboratory.ca_file
    return [*command, "--ca-cert", str(ca_file)] if ca_file else command


def _requests_boto3(task: Task) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.requests_boto3_peer"]
    return [*command, task.laboratory.s3_url, task.bucket, _csv(task)]


def _curl_get(task: Task) -> list[str]:
    lines = [line for url in task.urls for line in (f'url = "{url}"', 'output = "/dev/null"')]
    config = task.written("get.conf", lines)
    return [*_CURL, "--write-out", "%{size_download}\\n", "--config", str(config)]


def _curl_put(task: Task) -> list[str]:
    lines: list[str] = []
    for number in range(task.captures.count):
        file = task.captures.file(task.laboratory.directory, number)
        lines += [
            f'url = "{task.laboratory.s3_url}/{task.bucket}/captures/{file.name}"',
            f'upload-file = "{file}"',
            'output = "/dev/null"',
        ]
    config = task.written("put.conf", lines)
    return [*_CURL, "--header", "Expect:", "--config", str(config)]


_CURL = ("curl", "--silent", "--show-error", "--fail")


def _received(task: Task, output: str) -> list[str]:
    received = sum(int(line) for line in output.split())
    is_whole = received == task.captures.total_bytes
    return [] if is_whole else [f"{received} of {task.captures.total_bytes} bytes received"]


def _openssl(task: Task) -> list[str]:
    directory, captures = task.laboratory.directory, task.captures
    files = [str(captures.file(directory, number)) for number in range(captures.count)]
    return ["openssl", "dgst", "-sha256", *files]


def _hashed(task: Task, output: str) -> list[str]:
    count = output.count("\n")
    return [] if count == task.captures.count else [f"{count} of {task.captures.count} hashed"]


OURS = Peer(
    "archive_shard", None, lambda task: _archive_shard(task, task.captures.count), _delivered
)
OURS_EMPTY = Peer(
    "archive_shard, empty", None, lambda task: _archive_shard(task, 0), _nothing_delivered
)
RCLONE = Peer("rclone copyurl", ("rclone", "version"), _rclone, _delivered)
REQUESTS_BOTO3 = Peer("requests + boto3", None, _requests_boto3, _delivered)
CURL_GET = Peer("curl GET", ("curl", "--version"), _curl_get, _received)
CURL_PUT = Peer("curl PUT", ("curl", "--version"), _curl_put, _delivered)
OPENSSL = Peer("openssl dgst", ("openssl", "version"), _openssl, _hashed)
PEERS = (OURS, OURS_EMPTY, RCLONE, REQUESTS_BOTO3, CURL_GET, CURL_PUT, OPENSSL)
