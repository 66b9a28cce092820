"""A sandbox, a bucket and the clients between them; real HTTP, the sandbox's clock."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from include.domain.interval import HOUR, Interval, epoch_ms, from_epoch_ms
from include.domain.object_keys import KeyLayout
from include.domain.personal_data import PersonalData
from include.http.connection_pool import Answer, ConnectionPool, Endpoint
from include.pipelines import archive_captures as pipeline
from include.pipelines import recheck_captures
from include.pipelines.archive import Archive
from include.sandbox.scenario import Scenario
from include.sandbox.server import Sandbox
from include.storage.object_store import PART_BYTES, ObjectStore
from include.webex.connection import WebexConnection
from include.webex.http_client import WebexClient
from include.webex.media import MediaClient
from include.webex.tokens import request_token_pair
from tests.archived import ArchivedHours, truth_with_all
from tests.s3_servers import S3Server, moto_server

NOW_MS = 1_789_380_000_000  # 2026-09-14T10:00:00Z
_buckets = itertools.count(1)


@pytest.fixture(autouse=True)
def _sockets(socket_enabled):
    """These tests talk to the sandbox and to an S3 server on this machine."""


class UncountedBudget:
    def __init__(self) -> None:
        self.granted = 0

    def acquire(self) -> None:
        self.granted += 1

    def pause(self, seconds: float) -> None:
        """The fake sleep of the client is enough."""


class ToldConnections(ConnectionPool):
    """Connections that tell the hooks of an S3 client of the requests which do not pass through it."""

    def __init__(self, s3: Any) -> None:
        super().__init__()
        self._events = s3.meta.events

    def request(
        self, endpoint: Endpoint, method: str, target: str, headers: Any, body: Any = b""
    ) -> Answer:
        operation = "UploadPart" if "partNumber=" in target else "PutObject"
        told = SimpleNamespace(method=method, url=f"http://{endpoint.authority}{target}")
        self._events.emit(f"before-send.s3.{operation}", request=told)
        answer = super().request(endpoint, method, target, headers, body)
        self._events.emit(f"response-received.s3.{operation}")
        return answer


@dataclass
class Centre:
    """One contact centre, one bucket, and the steps of a run between them."""

    sandbox: Sandbox
    s3: Any
    bucket: str
    connection: WebexConnection
    client: WebexClient
    media: MediaClient
    slept: list[float] = field(default_factory=list)
    seconds_ahead: float = 0
    """How far the clock of the runs is ahead of the sandbox's."""
    part_bytes: int = PART_BYTES
    personal_data: PersonalData = field(default_factory=PersonalData)
    sensitive_prefix: str = ""

    @property
    def now(self) -> datetime:
        return from_epoch_ms(self.sandbox.now_ms()) + timedelta(seconds=self.seconds_ahead)

    def hour(self, hours_ago: int) -> Interval:
        start = from_epoch_ms(NOW_MS) - hours_ago * HOUR
        return Interval(start, start + HOUR)

    def archive(self, run_id: str = "run") -> Archive:
        return Archive(
            store=ObjectStore(
                self.s3, self.bucket, self.part_bytes, connections=ToldConnections(self.s3)
            ),
            keys=KeyLayout(self.connection.org_id, sensitive_prefix=self.sensitive_prefix),
            run_id=run_id,
            personal_data=self.personal_data,
            now=lambda: self.now,
            sleep=self.slept.append,
        )

    def run(
        self,
        interval: Interval,
        options: pipeline.ArchiveOptions | None = None,
        run_id: str = "run",
    ) -> None:
        """What the DAG does, one step after the other; a failed shard does not stop the rest."""
        options, archive = options or pipeline.ArchiveOptions(), self.archive(run_id)
        shards = pipeline.plan_shards(interval, self.client, archive, options)
        for shard in shards:
            try:
                pipeline.archive_shard(shard, self.client, self.media, archive, options)
            except pipeline.CapturesFailed:
                continue
        pipeline.publish_tables(interval, archive, shards)

    def recheck(self, run_id: str = "recheck") -> int:
        """What the DAG `recheck_captures` does now; how many shards there were."""
        archive = self.archive(run_id)
        options = pipeline.ArchiveOptions(look_for_changes=True)
        shards = recheck_captures.plan_recheck(self.client, archive)
        for shard in shards:
            try:
                pipeline.archive_shard(shard, self.client, self.media, archive, options)
            except pipeline.CapturesFailed:
                continue
        if shards:
            recheck_captures.publish_recheck(archive, shards)
        return len(shards)

    def recheck_hourly(self, hours: int) -> None:
        """Let so many hours pass, with a recheck after each."""
        for _ in range(hours):
            self.sandbox.advance(3600)
            self.recheck()

    def truth(self, interval: Interval, **flags: Any) -> list[dict[str, Any]]:
        return truth_with_all(
            self.sandbox, epoch_ms(interval.start), epoch_ms(interval.end), **flags
        )

    @property
    def archived(self) -> ArchivedHours:
        return ArchivedHours(self.s3, self.bucket)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


@pytest.fixture
def s3(s3_server, socket_enabled):
    return boto3.client(
        "s3",
        endpoint_url=s3_server.endpoint_url,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        region_name=s3_server.region,
    )


@pytest.fixture
def open_centre(s3) -> Iterator[Callable[..., Centre]]:
    with ExitStack() as stack:

        def open_(**knobs: Any) -> Centre:
            scenario = Scenario(**dict[str, Any](now_ms=NOW_MS, requests_per_minute=0) | knobs)
            sandbox = stack.enter_context(Sandbox(scenario))
            fields = sandbox.airflow_connection()
            connection = WebexConnection.from_fields(
                host=fields["host"],
                login=fields["login"],
                password=fields["password"],
                extra=fields["extra"],
            )
            first = connection.refresh_token
            assert first
            pair = request_token_pair(connection, first, lambda: from_epoch_ms(sandbox.now_ms()))
            bucket = f"archive-{next(_buckets)}"
            s3.create_bucket(Bucket=bucket)
            centre = Centre(
                sandbox=sandbox,
                s3=s3,
                bucket=bucket,
                connection=connection,
                client=WebexClient(connection, lambda _spent: pair.access_token, UncountedBudget()),
                media=MediaClient(connection.media_hosts),
            )
            centre.client.sleep = centre.slept.append
            stack.callback(centre.client.close)
            stack.callback(centre.media.close)
            sandbox.reset_requests()
            return centre

        yield open_
