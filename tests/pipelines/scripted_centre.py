"""A contact centre that does what a test says, and a bucket that tells everything that happens to it.

The centre answers where `WebexClient` and `MediaClient` would, without HTTP; the bucket is S3, made by moto.
"""

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal, cast
from urllib.parse import unquote

from botocore.exceptions import ClientError
from pydantic import SecretStr

from include.domain.errors import TransientError
from include.domain.interval import epoch_ms
from include.domain.object_keys import Kind, ObjectKey
from include.http.connection_pool import ConnectionPool, Endpoint
from include.storage.object_store import ObjectStore, StoredCopy, StoredObject
from include.webex.http_client import Refused
from include.webex.media import DownloadBroken, DownloadExpired, DownloadGone, Look
from tests.builders import a_connection
from tests.sources import Pieces

Trouble = Literal["none", "no URL", "purged", "unavailable", "refused", "nonsense"]
LISTED_AGAIN = timedelta(days=14)
_HOST = "https://media.example/"


@dataclass
class ScriptedCapture:
    """One file of a contact task.

    Attributes:
        size_bytes: Its content is made from its name and size.
        is_offered: The API tells it.
        trouble: What a download meets; "no URL": there is nothing to download yet.
    """

    kind: Kind
    capture_id: str
    size_bytes: int
    is_offered: bool = True
    trouble: Trouble = "none"

    @property
    def content(self) -> bytes:
        """A file that passes the check of its format."""
        if self.kind == "transcript":
            return b'{"utterances": "%s"}' % (self.capture_id.encode() * self.size_bytes)
        sound = hashlib.sha256(self.capture_id.encode()).digest() * (self.size_bytes // 32 + 2)
        sound = sound[: 8 + self.size_bytes]
        body = b"WAVE" + sound
        return b"RIFF" + struct.pack("<I", len(body)) + body + bytes(44)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def is_whole(self) -> bool:
        """A download now gives the whole file."""
        return self.is_offered and self.trouble == "none"


@dataclass
class ScriptedContactTask:
    """One contact task; it is listed from `listed_time` on."""

    task_id: str
    created_time: datetime
    listed_time: datetime
    last_updated_time: datetime
    capture_requested: bool | None
    status: str
    is_refused: bool = False
    captures: dict[str, ScriptedCapture] = field(default_factory=dict[str, ScriptedCapture])

    def to_json(self) -> dict[str, Any]:
        attributes = {
            "createdTime": epoch_ms(self.created_time),
            "lastUpdatedTime": epoch_ms(self.last_updated_time),
            "captureRequested": self.capture_requested,
            "status": self.status,
            "channelType": "telephony",
        }
        return {"id": self.task_id, "attributes": attributes}


class ScriptedCentre:
    """GET /v1/tasks and POST /v1/captures/query over scripted contact tasks.

    Attributes:
        failing_queries: So many captures queries fail as in an outage.
        listed: Which contact tasks were listed since somebody emptied it.
        listed_young: Those that were ever listed while their hour was to be listed again.
        told: What the last query told of each contact task that was asked about; None is a refusal.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.connection = a_connection()
        self.contact_tasks: dict[str, ScriptedContactTask] = {}
        self.failing_queries = 0
        self.listed: set[str] = set()
        self.listed_young: set[str] = set()
        self.told: dict[str, list[ScriptedCapture] | None] = {}

    def get(self, path: str, parameters: dict[str, Any]) -> dict[str, Any]:
        assert path == "/v1/tasks"
        until_ms = parameters.get("to", epoch_ms(self.now))
        found = [
            task
            for task in self.contact_tasks.values()
            if task.listed_time <= self.now
            and parameters["from"] <= epoch_ms(task.created_time) < until_ms
        ]
        found.sort(key=lambda task: task.created_time)
        page = found[: parameters["pageSize"]]
        self.listed |= {task.task_id for task in page}
        self.listed_young |= {
            task.task_id for task in page if self.now - task.created_time < LISTED_AGAIN
        }
        return {"data": [task.to_json() for task in page]}

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path == "/v1/captures/query"
        self.now += timedelta(seconds=1)  # no two checks at one moment
        if self.failing_queries:
            self.failing_queries -= 1
            raise TransientError("The API is in trouble.")
        asked = [self.contact_tasks[task_id] for task_id in body["query"]["taskIds"]]
        if any(task.is_refused for task in asked):
            self.told |= {task.task_id: None for task in asked}
            raise Refused("The API refuses the query.")
        self.told |= {
            task.task_id: [
                replace(capture) for capture in task.captures.values() if capture.is_offered
            ]
            for task in asked
        }
        return {"data": [self._entry(task) for task in asked]}

    def _entry(self, task: ScriptedContactTask) -> dict[str, Any]:
        members: dict[str, list[dict[str, Any]]] = {"recording": [], "transcription": []}
        for capture in task.captures.values():
            if not capture.is_offered:
                continue
            url = f"{_HOST}{task.task_id}/{capture.capture_id}?signed={epoch_ms(self.now)}"
            url_or_none = None if capture.trouble == "no URL" else url
            element = {"id": capture.capture_id, "fileName": f"{capture.capture_id}.wav"}
            if capture.kind == "recording":
                attributes = {**element, "filePath": url_or_none, "segment": False}
                element = {"id": capture.capture_id, "attributes": attributes}
            else:
                element |= {"fileName": f"{capture.capture_id}.json", "filePath": url_or_none}
            member = "recording" if capture.kind == "recording" else "transcription"
            members[member].append(element)
        return {"taskId": task.task_id, **members}

    # The media host

    def open(self, download_url: SecretStr) -> "ScriptedDownload":
        capture = self._capture_of(download_url)
        content = b"<html>" if capture.trouble == "nonsense" else capture.content
        return ScriptedDownload(content)

    def look(self, download_url: SecretStr) -> Look:
        download = ScriptedDownload(self._capture_of(download_url).content)
        return Look(download.size_bytes, download.etag)

    def _capture_of(self, download_url: SecretStr) -> ScriptedCapture:
        path = download_url.get_secret_value().removeprefix(_HOST).partition("?")[0]
        task_id, _, capture_id = path.partition("/")
        capture = self.contact_tasks[task_id].captures[capture_id]
        if capture.trouble == "purged" or not capture.is_offered:
            raise DownloadGone("404")
        if capture.trouble == "unavailable":
            raise DownloadBroken("503")
        if capture.trouble == "refused":
            raise DownloadExpired("403")
        return capture


class ScriptedDownload:
    """An open download of known bytes."""

    def __init__(self, content: bytes) -> None:
        self._pieces = Pieces([content[:20], content[20:]])
        self.size_bytes = len(content)
        self.etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'

    def __enter__(self) -> "ScriptedDownload":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """There is no connection to close."""

    def readinto(self, view: memoryview, /) -> int:
        return self._pieces.readinto(view)


class Killed(BaseException):
    """The process ended between two writes; nothing of ours may catch it."""


class MockedAnswer:
    """What a PUT request was answered."""

    def __init__(self, status: int, code: str = "", etag: str = "") -> None:
        self.status = status
        self.headers = {"etag": etag}
        self._body = f"<Error><Code>{code}</Code></Error>".encode()

    def __enter__(self) -> "MockedAnswer":
        return self

    def __exit__(self, *_: object) -> None:
        """There is no connection to give back."""

    def read(self, limit: int) -> bytes:
        return self._body[:limit]


class MockedConnections:
    """PUT requests through an S3 client that moto mocks in this process: thousands of walks need no server."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def request(
        self, endpoint: Endpoint, method: str, target: str, headers: Any, body: Any = b""
    ) -> MockedAnswer:
        path, _, query = target.partition("?")
        assert (method, query) == ("PUT", ""), "the walks have small objects only"
        key = unquote(path).removeprefix(f"/{self._bucket}").removeprefix("/")
        names = {"if-match": "IfMatch", "if-none-match": "IfNoneMatch"}
        conditions = {names[name]: value for name, value in headers.items() if name in names}
        try:
            stored = self._client.put_object(
                Bucket=self._bucket, Key=key, Body=bytes(body), **conditions
            )
        except ClientError as error:
            told: Any = error.response
            return MockedAnswer(told["ResponseMetadata"]["HTTPStatusCode"], told["Error"]["Code"])
        return MockedAnswer(200, etag=stored["ETag"])


class WatchedStore(ObjectStore):
    """A bucket whose objects have the centre's time, that kills its process when told to.

    Attributes:
        writes: So many were there.
        captures: The SHA-256 of every object that was ever stored under ``captures/``.
        writes_left: The process is killed before the write after these; None is never.
    """

    def __init__(self, client: Any, bucket: str, centre: ScriptedCentre) -> None:
        connections = cast("ConnectionPool", MockedConnections(client, bucket))
        super().__init__(client, bucket, connections=connections)
        self._centre = centre
        self._written: dict[str, datetime] = {}
        self.captures: dict[str, set[str]] = {}
        self.writes_left: int | None = None
        self.writes = 0

    @contextmanager
    def killed_after(self, writes: int) -> Iterator[None]:
        self.writes_left = writes
        try:
            yield
        finally:
            self.writes_left = None

    def _count(self) -> None:
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                raise Killed
        self.writes += 1

    def _put(self, key: ObjectKey, body: Any, checksum: Any, condition: Any) -> str:
        self._count()
        etag = super()._put(key, body, checksum, condition)
        self._written[key] = self._centre.now
        if key.startswith("captures/"):
            digest = hashlib.sha256(body).hexdigest()
            self.captures.setdefault(key, set()).add(digest)
        return etag

    def write_stream(
        self,
        key: ObjectKey,
        source: Any,
        condition: Any = None,
        approve: Any = None,
    ) -> StoredCopy:
        self._written[key] = self._centre.now
        return super().write_stream(key, source, condition, approve)

    def delete(self, keys: Any) -> None:
        for key in keys:
            self._count()
            assert not key.startswith("captures/"), "a capture is removed"
            super().delete([key])

    def list(self, prefix: str, start_after: str = "") -> Iterator[StoredObject]:
        return map(self._dated, super().list(prefix, start_after))

    def head(self, key: ObjectKey) -> StoredObject | None:
        found = super().head(key)
        return self._dated(found) if found else None

    def _dated(self, found: StoredObject) -> StoredObject:
        return replace(found, last_modified=self._written[found.key])
