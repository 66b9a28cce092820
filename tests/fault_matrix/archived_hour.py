"""One contact task with one capture, archived as the DAGs do it, through whatever fault is in force."""

import functools
import gc
import io
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import boto3.session
from botocore.config import Config
from botocore.retries import standard
from botocore.retries.quota import RetryQuota
from pydantic import SecretStr

from include.domain.errors import (
    ArchiveError,
    CapturesFailed,
    PermanentError,
    TransientError,
)
from include.domain.interval import HOUR, Interval, epoch_ms, from_epoch_ms
from include.domain.object_keys import KeyLayout
from include.http.connection_pool import ConnectionPool
from include.pipelines import archive_captures
from include.pipelines.archive import WORKING_FILES_LIVE, Archive
from include.pipelines.refresh_access_token import refresh_access_token, wait_for_access_token
from include.pipelines.verify_archive import verify_bucket
from include.sandbox.scenario import Scenario
from include.sandbox.server import Sandbox
from include.storage.object_store import ObjectStore
from include.webex.http_client import WebexClient
from include.webex.media import MediaClient
from include.webex.tokens import request_token_pair
from tests.archived import ArchivedHours, assert_complete, truth_with_all
from tests.builders import CountingBudget, MemoryTokenStore, a_connection_to
from tests.chained import assert_published, assert_sound
from tests.fault_matrix.s3_door import FaultyS3

# Held, so that all bytes are the same at every run; in 2039, since the S3 server has a clock of its own, which
# must not be ahead.
NOW_MS = 2_199_999_600_000
SMALL_BYTES = 20_000
PART_BYTES = 1 << 20
LARGE_BYTES = 5 * PART_BYTES // 2  # three parts, and a MiB before and after a break in the middle
AIRFLOW_TASKS = ("refresh_access_token", "plan_shards", "archive_shard", "publish_tables")
AIRFLOW_RETRIES = 1  # of three: the second and the third would tell nothing new
S3_ATTEMPTS = 3  # of five
READ_SECONDS = 10.0  # far more than anything takes here; where something stalls, far less is waited
SECONDS_TO_STALL = 0.4
_SECONDS_TO_LET_GO = 5.0
_ONE_RECORDING: dict[str, Any] = {
    "now_ms": NOW_MS,
    "requests_per_minute": 0,
    "tasks_per_hour": 1,
    "tied_share": 0.0,
    "abandoned_share": 0.0,
    "captured_share": 1.0,
    "telephony_weight": 1.0,
    "email_weight": 0.0,
    "chat_weight": 0.0,
    "social_weight": 0.0,
    "call_seconds_max": 60,
    "consult_share": 0.0,
    "va_share": 0.0,
    "screen_share": 0.0,
    "transcript_share": 0.0,
    "owner_missing_share": 0.0,
    "queue_missing_share": 0.0,
}
_buckets = itertools.count(1)


@dataclass
class Run:
    """What came of one DAG run.

    Attributes:
        failures: What each failed attempt of an Airflow task raised, in order, with the Airflow task's name.
        finished: The results of the Airflow tasks that succeeded.
        is_green: All did.
    """

    failures: list[tuple[str, ArchiveError]] = field(default_factory=list[tuple[str, ArchiveError]])
    finished: dict[str, Any] = field(default_factory=dict[str, Any])
    is_green: bool = True

    def do(self, name: str, action: Callable[[], Any]) -> None:
        """One Airflow task, unless it has succeeded, with the retries that the DAGs and `fail_fast` give it."""
        if name in self.finished:
            return
        for _ in range(1 + AIRFLOW_RETRIES):
            try:
                self.finished[name] = action()
            except TransientError as error:
                self.failures.append((name, error))
            except (PermanentError, CapturesFailed) as error:
                self.failures.append((name, error))
                break
            else:
                return
        self.is_green = False


class ContactCentre:
    """A sandbox with one contact task in the hour before last."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        start = from_epoch_ms(NOW_MS) - 2 * HOUR
        self.hour = Interval(start, start + HOUR)
        self.truth = truth_with_all(sandbox, epoch_ms(start), epoch_ms(start + HOUR))
        self.whole_sha256 = {each["sha256"] for task in self.truth for each in task["captures"]}
        assert len(self.truth) == 1
        assert self.whole_sha256, "the hour must have a capture"


@contextmanager
def contact_centre(**knobs: Any) -> Iterator[ContactCentre]:
    """Start it; knobs say what its capture is."""
    with Sandbox(Scenario(**_ONE_RECORDING | knobs)) as sandbox:
        yield ContactCentre(sandbox)


@dataclass(frozen=True)
class Begun:
    """What Airflow tasks that have succeeded already left: in the bucket, and for those that follow.

    A fault that strikes later does not concern them, so most cases begin behind them.
    """

    objects: dict[str, bytes] = field(default_factory=dict[str, bytes])
    finished: dict[str, Any] = field(default_factory=dict[str, Any])
    token_pair: str | None = None


class ArchivedHour:
    """A new bucket, and the clients of a process that archives into it."""

    def __init__(
        self,
        centre: ContactCentre,
        s3: FaultyS3,
        begun: Begun = Begun(),  # noqa: B008 - frozen
        *,
        read_seconds: float = READ_SECONDS,
        is_refreshed_meanwhile: bool = False,
    ) -> None:
        self._centre = centre
        self._is_refreshed_meanwhile = is_refreshed_meanwhile
        self.slept: list[float] = []
        self._connection = a_connection_to(centre.sandbox)
        self._begun = begun
        self._tokens = MemoryTokenStore(begun.token_pair)
        self.budget = CountingBudget()
        self._client = WebexClient(
            self._connection,
            self._access_token,
            self.budget,
            sleep=self.slept.append,
            timeout_seconds=(READ_SECONDS, read_seconds),
        )
        self._media = MediaClient(
            self._connection.media_hosts, (READ_SECONDS, read_seconds), sleep=self.slept.append
        )
        self._faulty_s3 = s3
        self._s3 = _s3_client(s3.endpoint_url, read_seconds)
        _repeat_at_once(self._s3)
        self.bucket = f"archive-{next(_buckets)}"
        s3.create_bucket(self.bucket, begun.objects)
        connections = ConnectionPool(connect_seconds=READ_SECONDS, read_seconds=read_seconds)
        self._store = ObjectStore(
            self._s3, self.bucket, PART_BYTES, connections, sleep=self.slept.append
        )
        self._connections = connections
        self._archive = Archive(
            self._store,
            KeyLayout(self._connection.org_id),
            "archive_captures.scheduled",
            now=_now,
            sleep=self.slept.append,
        )

    def close(self) -> None:
        self._client.close()
        self._media.close()
        self._connections.close()
        self._s3.close()

    def _access_token(self, spent: SecretStr | None) -> SecretStr:
        if spent and self._is_refreshed_meanwhile:
            assert self._connection.refresh_token
            pair = request_token_pair(self._connection, self._connection.refresh_token, _now)
            self._tokens.write(pair.to_json())
        return wait_for_access_token(
            self._connection, self._tokens, spent, now=_now, sleep=self.slept.append
        )

    def run(self, cleared: Run | None = None) -> Run:
        """The DAG `refresh_access_token`, and then `archive_captures`; of a run that was cleared, what failed."""
        run = Run(finished=dict(cleared.finished if cleared else self._begun.finished))
        self._do(run, AIRFLOW_TASKS)
        return run

    def _do(self, run: Run, airflow_tasks: Sequence[str]) -> None:
        options = archive_captures.ArchiveOptions()
        hour, client, media, archive = self._centre.hour, self._client, self._media, self._archive

        def archive_shards() -> None:
            for shard in run.finished["plan_shards"]:
                archive_captures.archive_shard(shard, client, media, archive, options)

        def publish_tables() -> None:
            archive_captures.publish_tables(hour, archive, run.finished["plan_shards"])

        actions: dict[str, Callable[[], Any]] = {
            "refresh_access_token": lambda: refresh_access_token(
                self._connection, self._tokens, now=_now, sleep=self.slept.append
            ),
            "plan_shards": lambda: archive_captures.plan_shards(hour, client, archive, options),
            "archive_shard": archive_shards,
            "publish_tables": publish_tables,
        }
        for name in airflow_tasks:
            run.do(name, actions[name])
            if name == "plan_shards" and name not in run.finished:
                return  # nothing follows an Airflow task that failed, but publishing after a shard

    def begun(self, *airflow_tasks: str) -> Begun:
        """What the first Airflow tasks leave, when they are run now."""
        run = Run()
        self._do(run, airflow_tasks)
        return Begun(self._faulty_s3.objects(self.bucket), run.finished, self._tokens.text)

    # What is there afterwards, seen by somebody else

    @property
    def archived(self) -> ArchivedHours:
        return ArchivedHours(_Contents(self._faulty_s3), self.bucket)

    @property
    def open_uploads(self) -> list[str]:
        return self._faulty_s3.open_uploads(self.bucket)

    def sweep(self) -> None:
        """As the next run does a day later."""
        self._archive.sweep(self._archive.now() + WORKING_FILES_LIVE * 1.1)

    def sweep_uploads(self) -> None:
        """The same, of uploads only."""
        started_before = self._archive.now() + WORKING_FILES_LIVE
        self._store.abort_uploads(self._archive.keys.captures(), started_before)

    def findings(self) -> list[str]:
        """What a verification of the bucket finds, which reads every byte."""
        found = verify_bucket(self._archive, None)
        return sorted({finding.kind for finding in found.findings})

    def assert_complete(self) -> None:
        """The bucket holds the truth, byte for byte, and nothing else."""
        archived = self.archived
        assert_complete(archived, self._centre.truth)
        assert_sound(archived, self._centre.whole_sha256)
        assert_published(archived)
        assert archived.working_files == []
        assert self.open_uploads == []

    def assert_nothing_wrong(self) -> None:
        """Whatever is visible is whole and told as it is."""
        assert_sound(self.archived, self._centre.whole_sha256)

    def outcomes(self) -> list[tuple[str, str]]:
        """Outcome and last error of the captures that the tables tell."""
        return [(row["outcome"], row["last_error"] or "") for row in self.archived.rows("captures")]


def _now() -> datetime:
    return from_epoch_ms(NOW_MS)


@functools.cache
def _s3_client(endpoint_url: str, read_seconds: float) -> Any:
    """As the connection `wxcc_store` makes it; making one takes longer than most requests."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id="an-access-key",
        aws_secret_access_key="a-secret-key",
        region_name="us-east-1",
        config=Config(
            connect_timeout=READ_SECONDS,
            read_timeout=read_seconds,
            retries={"mode": "standard", "total_max_attempts": S3_ATTEMPTS},
        ),
    )


class _AtOnce(standard.BaseRetryBackoff):
    """No wait between two attempts."""

    def delay_amount(self, context: Any) -> int:
        return 0


def _repeat_at_once(client: Any) -> None:
    """Have botocore repeat requests as ever, but without waiting, and with all the patience of a new client."""
    conditions = standard.StandardRetryConditions(max_attempts=S3_ATTEMPTS)
    quota: Any = standard.RetryQuotaChecker(RetryQuota())
    handler: Any = standard.RetryHandler(
        retry_policy=standard.RetryPolicy(conditions, _AtOnce()),
        retry_event_adapter=standard.RetryEventAdapter(),
        retry_quota=quota,
    )
    events, event, name = client.meta.events, "needs-retry.s3", "retry-config-s3"
    events.unregister(event, unique_id=name)
    events.register(event, handler.needs_retry, unique_id=name)


@dataclass
class _Contents:
    """What an S3 client would tell of the store, without asking it over HTTP."""

    store: FaultyS3

    def get_paginator(self, _operation: str) -> "_Contents":
        return self

    def paginate(self, *, Bucket: str) -> list[dict[str, Any]]:  # noqa: N803 - boto3's name
        return [{"Contents": [{"Key": key} for key in sorted(self.store.objects(Bucket))]}]

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        return {"Body": io.BytesIO(self.store.objects(Bucket)[Key])}


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fails when threads or open files (sockets among them) are left behind."""
    before = _open_things()
    yield
    deadline = time.monotonic() + _SECONDS_TO_LET_GO
    gc.collect()  # a client closes what it keeps with its last reference, which may be in a circle
    while _are_more(before) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not _are_more(before), f"{before} threads and files before, {_open_things()} after"


def _are_more(before: tuple[int, int]) -> bool:
    return any(now > then for now, then in zip(_open_things(), before, strict=True))


def _open_things() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/dev/fd"))  # noqa: PTH208 - it is no folder of files
