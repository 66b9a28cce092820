"""Builders of values and small fakes; a test names only what matters to it."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from include.domain.contact_centre import Capture, ContactTask
from include.domain.errors import TransientError
from include.domain.interval import HOUR, Interval, from_epoch_ms
from include.sandbox.server import Sandbox
from include.webex.connection import WebexConnection
from include.webex.http_client import TooLarge, WebexClient
from include.webex.tokens import TokenPair, request_token_pair, seed_of

NOW_MS = 1_789_380_000_000  # 2026-09-14T10:00:00Z
NOW = from_epoch_ms(NOW_MS)
ORG_ID = "97cdbf45-ebe2-4687-8341-44d5c7abf101"


def a_contact_task(**changes: Any) -> ContactTask:
    fields: dict[str, Any] = {
        "task_id": "fb53f6d1-5535-4ac8-b081-53834e17d6f5",
        "created_time": NOW - HOUR,
        "channel_type": "telephony",
        "status": "completed",
        "last_updated_time": NOW - HOUR / 2,
        "capture_requested": True,
    }
    return ContactTask(**fields | changes)


def a_capture(**changes: Any) -> Capture:
    fields: dict[str, Any] = {
        "kind": "recording",
        "capture_id": "fb53f6d1-5535-4ac8-b081-53834e17d6f5",
        "download_url": SecretStr("https://bucket.s3.amazonaws.com/a.wav?X-Amz-Signature=5ec7e7"),
        "file_name": "combinedRecordings.wav",
    }
    return Capture(**fields | changes)


def a_connection(**changes: Any) -> WebexConnection:
    """A usable connection to nowhere; fields as of the Airflow connection."""
    fields: dict[str, Any] = {
        "host": "us1",
        "login": "a-client-id",
        "password": "a-client-secret",
    }
    extra: dict[str, Any] = {"org_id": ORG_ID, "refresh_token": "the-first-refresh-token"}
    for name, value in changes.items():
        (fields if name in {*fields, "schema", "port"} else extra)[name] = value
    return WebexConnection.from_fields(**fields, extra=extra)


def a_connection_to(sandbox: Sandbox, **changes: Any) -> WebexConnection:
    given = sandbox.airflow_connection()
    fields = {name: given[name] for name in ("host", "login", "password")} | given["extra"]
    return a_connection(**fields | changes)


def a_token_pair(connection: WebexConnection, **changes: Any) -> TokenPair:
    fields: dict[str, Any] = {
        "access_token": SecretStr("an-access-token"),
        "refresh_token": SecretStr("a-refresh-token"),
        "expires_time": NOW + timedelta(days=13),
        "lifetime": timedelta(days=14),
        "refresh_token_expires_time": NOW + timedelta(days=90),
        "seed": seed_of(connection),
    }
    return TokenPair(**fields | changes)


class CountingBudget:
    """Grants every request at once and counts them; notes the pauses."""

    def __init__(self) -> None:
        self.granted = 0
        self.pauses: list[float] = []

    def acquire(self) -> None:
        self.granted += 1

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


class RecordingSleep:
    """A clock that is moved by sleeping: remembers each sleep and takes none."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


class CurrentTokens:
    """Gives the first token, and after each refusal the next one, as `wait_for_access_token` does."""

    def __init__(self, *tokens: str) -> None:
        self.left = list(tokens)
        self.refused: list[str | None] = []

    def __call__(self, spent: SecretStr | None) -> SecretStr:
        self.refused.append(spent.get_secret_value() if spent else None)
        if not self.left:
            raise TransientError("There is no other access token.")
        return SecretStr(self.left.pop(0))


def an_access_token(sandbox: Sandbox) -> str:
    connection = a_connection_to(sandbox)
    assert connection.refresh_token is not None
    pair = request_token_pair(connection, connection.refresh_token, lambda: NOW)
    return pair.access_token.get_secret_value()


def a_client_of(
    sandbox: Sandbox,
    tokens: Callable[[SecretStr | None], SecretStr] | None = None,
    **changes: Any,
) -> WebexClient:
    """A client that never really sleeps; its budget and sleep are fakes to look at."""
    return WebexClient(
        a_connection_to(sandbox, **changes),
        tokens or CurrentTokens(an_access_token(sandbox)),
        CountingBudget(),
        RecordingSleep(),
    )


class FakeListing:
    """GET /v1/tasks over plain (id, createdTime) pairs, with the cut at the page size and no cursor.

    Attributes:
        before_answer: Called with the listing and the number of the request: may insert rows.
        rows_max: 413 above so many rows; 0 is never.
        answer_order: Reorders a page.
        newest_first: Sorts before the cut, against the documents.
    """

    def __init__(
        self,
        rows: list[tuple[str, int]],
        *,
        now_ms: int = NOW_MS,
        from_inclusive: bool = False,
        to_inclusive: bool = False,
        rows_max: int = 0,
        requests_max: int = 1_000,
        before_answer: Callable[["FakeListing", int], None] | None = None,
        answer_order: Callable[[list[Any]], list[Any]] = lambda page: page,
        newest_first: bool = False,
    ) -> None:
        self.connection = a_connection()
        self.rows = list(rows)
        self.requests: list[dict[str, Any]] = []
        self._now_ms = now_ms
        self._from_inclusive = from_inclusive
        self._to_inclusive = to_inclusive
        self._rows_max = rows_max
        self._requests_max = requests_max
        self._before_answer = before_answer
        self._answer_order = answer_order
        self._newest_first = newest_first

    def get(self, path: str, parameters: dict[str, Any]) -> dict[str, Any]:
        assert path == "/v1/tasks"
        assert len(self.requests) < self._requests_max, "the walk loops"
        self.requests.append(dict(parameters))
        if self._before_answer:
            self._before_answer(self, len(self.requests))
        from_ms, to_ms = parameters["from"], parameters.get("to", self._now_ms)
        assert from_ms <= self._now_ms, "asks about the future"
        first_ms = from_ms if self._from_inclusive else from_ms + 1
        until_ms = to_ms + 1 if self._to_inclusive else to_ms
        found = [row for row in self.rows if first_ms <= row[1] < until_ms]
        found.sort(key=lambda row: row[1], reverse=self._newest_first)
        page = found[: parameters["pageSize"]]
        if self._rows_max and len(page) > self._rows_max:
            raise TooLarge("413")
        data = [{"id": name, "attributes": {"createdTime": ms}} for name, ms in page]
        return {"meta": {}, "data": self._answer_order(data)}


class MemoryTokenStore:
    """A token store in memory; counts what happens to it."""

    def __init__(self, pair: TokenPair | str | None = None) -> None:
        self.text = pair.to_json() if isinstance(pair, TokenPair) else pair
        self.reads = 0
        self.writes = 0

    def read(self) -> str | None:
        self.reads += 1
        return self.text

    def write(self, text: str) -> None:
        self.writes += 1
        self.text = text

    def lock(self) -> AbstractContextManager[None]:
        return nullcontext()

    @property
    def is_empty(self) -> bool:
        """Nothing but what the store was tried with."""
        return not (self.text or "").strip()

    @property
    def content(self) -> dict[str, Any]:
        return json.loads(self.text or "null")


def an_interval(minutes: int = 60, *, end: datetime = NOW) -> Interval:
    return Interval((end - timedelta(minutes=minutes)).astimezone(UTC), end)
