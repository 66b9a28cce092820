"""The API client and the rate budget with a stop-watch around each call."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from include.domain.contact_centre import JsonObject
from include.webex.http_client import WebexClient
from include.webex.rate_budget import RateBudget


@dataclass
class TimedBudget:
    """A budget that adds up how long it made its callers wait."""

    inner: RateBudget
    seconds: float = 0.0

    def acquire(self) -> None:
        """As the budget's own."""
        started = time.monotonic()
        self.inner.acquire()
        self.seconds += time.monotonic() - started

    def pause(self, seconds: float) -> None:
        """As the budget's own."""
        self.inner.pause(seconds)


@dataclass
class TimedClient(WebexClient):
    """A client that adds up how long its callers waited for answers, the wait for the budget included."""

    seconds: float = 0.0

    def get(self, path: str, parameters: Mapping[str, str | int]) -> JsonObject:
        """As the client's own."""
        with self._timed():
            return super().get(path, parameters)

    def post(self, path: str, body: JsonObject) -> JsonObject:
        """As the client's own."""
        with self._timed():
            return super().post(path, body)

    @contextmanager
    def _timed(self) -> Generator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - started
