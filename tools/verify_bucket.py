"""`make verify`: verifies an archive from its bucket alone, without Airflow and without Webex.

Which bucket: `--bucket` (with the credentials that boto3 finds), else the connection in the environment
variable `AIRFLOW_CONN_WXCC_STORE`, else what `make run` keeps in `.local/`. Nothing is written.

Exit status: 0 when all is as it should be, 1 when something is not, 2 when it could not be verified.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from botocore.config import Config

from include.domain.errors import ArchiveError, PermanentError
from include.domain.findings import Finding
from include.domain.interval import Interval
from include.domain.object_keys import KeyLayout
from include.pipelines.archive import Archive
from include.pipelines.verify_archive import find_foreign_objects, orgs_of, verify_bucket
from include.storage.environment_connection import STORE_VARIABLE, Place
from tools import local_s3
from tools.local_processes import reserve_port

PROJECT = Path(__file__).resolve().parent.parent
LOCAL_BUCKET = "webex-contact-center"
FINDINGS_SHOWN = 200
START_SECONDS = 30
_CLIENT_CONFIG = Config(
    connect_timeout=10,
    read_timeout=60,
    max_pool_connections=32,
    retries={"mode": "standard", "total_max_attempts": 5},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify, and print what was found."""
    options = _parse(arguments)
    try:
        interval = _interval(options.begin, options.end)
        with _place(options) as place:
            return _verify(place, interval, options.percent, options.hash)
    except ArchiveError as error:
        print(f"Not verified: {error}", file=sys.stderr)
        return 2


def _verify(
    place: Place, interval: Interval | None, percent: float, held_sha256: str | None
) -> int:
    store = place.open(_CLIENT_CONFIG)
    store.check()
    orgs = orgs_of(store, place.prefix)
    findings: list[Finding] = []
    for org_id in orgs:
        keys = KeyLayout(org_id, place.prefix, place.sensitive_prefix)
        archive = Archive(store, keys, "verify")
        verified = verify_bucket(archive, interval, sha256_percent=percent, held_sha256=held_sha256)
        findings += verified.findings
        print(f"org {org_id}: {verified.summary}")
        gaps = verified.gaps()
        if gaps:
            print(f"  Never archived in between: {gaps} hours (give FROM and TO to list them).")
    if interval is None:
        findings += find_foreign_objects(store, place.prefix, orgs, place.sensitive_prefix)
    if not orgs and not findings:
        print(f"The bucket {store.bucket} holds no archive under the prefix '{place.prefix}'.")
        return 2
    for finding in findings[:FINDINGS_SHOWN]:
        print(f"- {finding.sentence}\n  To mend it: {finding.remedy}.")
    if len(findings) > FINDINGS_SHOWN:
        print(f"… and {len(findings) - FINDINGS_SHOWN} more")
    print(f"{len(findings)} findings." if findings else "Nothing is missing, nothing was altered.")
    return 1 if findings else 0


@contextlib.contextmanager
def _place(options: argparse.Namespace) -> Iterator[Place]:
    if options.bucket:
        client = {"endpoint_url": options.endpoint_url} if options.endpoint_url else {}
        yield Place(options.bucket, options.prefix or "", client, options.sensitive_prefix or "")
    elif os.environ.get(STORE_VARIABLE):
        yield Place.from_connection(os.environ[STORE_VARIABLE])
    else:
        with _local_server(options.state) as place:
            yield place


@contextlib.contextmanager
def _local_server(state: Path) -> Iterator[Place]:
    """Serve what `make run` keeps, also while it is up: this server only reads."""
    objects = state / ".local" / "s3"
    if not local_s3.bucket_directory(objects, LOCAL_BUCKET).exists():
        raise PermanentError(
            f"There is nothing to verify: set {STORE_VARIABLE}, or give BUCKET=…, or run `make run` first."
        )
    with (state / ".local" / "run.lock").open("a+") as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        local_s3.repair_persisted_objects(objects)
        fcntl.flock(lock, fcntl.LOCK_UN)
    port = reserve_port(8810)
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        local_s3.ministack_command(),
        env={**local_s3.clean_environment(), **local_s3.ministack_environment(objects, port)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(f"{url}{local_s3.HEALTH_PATH}", server)
        yield Place(
            LOCAL_BUCKET,
            client={
                "endpoint_url": url,
                "region_name": local_s3.REGION,
                "aws_access_key_id": local_s3.ACCESS_KEY,
                "aws_secret_access_key": local_s3.SECRET_KEY,
            },
        )
    finally:
        server.kill()
        server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - http to loopback
                return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise PermanentError("The local S3 server does not start.") from None
            time.sleep(0.1)


def _interval(begin: str | None, end: str | None) -> Interval | None:
    if not begin and not end:
        return None
    if not begin or not end:
        raise PermanentError("Give both ends of the range: FROM=… and TO=…, such as 2026-11-01T00.")
    try:
        return Interval(_instant(begin), _instant(end))
    except ValueError:
        raise PermanentError(
            "FROM or TO is not a date and time: write it as in 2026-11-01T00:00."
        ) from None


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make verify", description=__doc__)
    parser.add_argument(
        "--from", dest="begin", help="the first hour to verify, UTC; default: all there are"
    )
    parser.add_argument("--to", dest="end", help="the first instant after the range, UTC")
    parser.add_argument(
        "--percent",
        type=float,
        default=100.0,
        help="of how many objects every byte is read; default: 100",
    )
    parser.add_argument("--hash", help="the SHA-256 of a manifest that you were told before")
    parser.add_argument(
        "--bucket", help="the bucket, reached with the credentials that boto3 finds"
    )
    parser.add_argument("--prefix", help="with --bucket: the prefix of the archive in it")
    parser.add_argument(
        "--sensitive-prefix", help="with --bucket: where under the prefix sensitive captures lie"
    )
    parser.add_argument("--endpoint-url", help="with --bucket: a store other than AWS")
    parser.add_argument("--state", type=Path, default=PROJECT, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
