"""The receiver of capture events: an ASGI app of one path.

A delivery is answered only after its hint is in the bucket. What arrives while one object is being written
becomes the next one, so that the store is asked a few times a second however many events there are.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from datetime import datetime
from typing import Any

from include.domain.errors import ArchiveError
from include.domain.interval import utc_now
from include.receiver.events import Malformed, NotOurs, read_event
from include.storage.hints import Hint

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
PATH = "/wxcc/events"
MAX_BODY_BYTES = 64 << 10
MAX_BODY_SECONDS = 4.0  # Webex waits five
MAX_WAITING = 5_000
MAX_BATCH = 2_000
MAX_REMEMBERED = 100_000
_GATHER_SECONDS = 0.02


class Busy(Exception):
    """More is waiting for the store than may lie in memory."""


class HintQueue:
    """Writes hints in batches, one at a time, from the event loop that uses it.

    Args:
        write: Makes hints durable; runs in a thread, and its errors pass through to whoever waits.
    """

    def __init__(self, write: Callable[[Sequence[Hint]], object]) -> None:
        self._write = write
        self._waiting: list[tuple[Hint, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    def add(self, hint: Hint) -> asyncio.Future[None]:
        """Have a hint written; the future is done when it is durable.

        Raises:
            Busy: Too many wait already.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise Busy
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((hint, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all())
        return future

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(_GATHER_SECONDS)
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                failure: Exception | None = None
                try:
                    await asyncio.to_thread(self._write, [hint for hint, _ in batch])
                except Exception as error:  # noqa: BLE001 - whoever waits is to know of any
                    failure = error
                for _, future in batch:
                    if future.done():
                        continue
                    if failure:
                        future.set_exception(failure)
                        future.exception()  # also where nobody waits any more
                    else:
                        future.set_result(None)
        finally:
            self._writer = None


class Receiver:
    """The ASGI app.

    Args:
        secret: The subscription's.
        org_id: Whose events are ours.
        write: Makes hints durable.
        now: The clock.
    """

    def __init__(
        self,
        secret: str,
        org_id: str,
        write: Callable[[Sequence[Hint]], object],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._secret = secret.encode()
        self._org_id = org_id
        self._hints = HintQueue(write)
        self._now = now
        self._seen: OrderedDict[str, asyncio.Future[None]] = OrderedDict()

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer one request; requests of other kinds than HTTP are closed by the server."""
        if scope["type"] != "http":
            return
        status = await self._answer(scope, receive)
        headers = [(b"content-length", b"0")]
        if status in {408, 413}:  # the rest of the body was not read
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: Message, receive: Callable[[], Awaitable[Message]]) -> int:
        if scope["path"].rstrip("/") != PATH or scope["method"] != "POST":
            return 405 if scope["path"].rstrip("/") == PATH else 404
        try:
            body = await asyncio.wait_for(_body(receive), MAX_BODY_SECONDS)
        except TimeoutError:
            return 408
        if body is None:
            return 413
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            event = read_event(body, headers, self._secret, self._org_id, self._now())
        except NotOurs as reason:
            # As Cisco advises: a refusal would tell a forger something, and Webex disables what fails.
            log.warning("A delivery was dropped: %s.", reason)
            return 204
        except Malformed as reason:
            log.warning("A signed delivery was refused: %s.", reason)
            return 400
        return await self._keep(event.event_id, event.hint)

    async def _keep(self, event_id: str, hint: Hint) -> int:
        kept = self._seen.get(event_id)
        try:
            if kept is None:
                kept = self._seen[event_id] = self._hints.add(hint)
                while (
                    len(self._seen) > MAX_REMEMBERED
                ):  # a repeat of those is one more hint: harmless
                    self._seen.popitem(last=False)
            # Also a repeat is answered only when the first is durable; one that hangs up ends no other.
            await asyncio.shield(kept)
        except Busy:
            return 503
        except ArchiveError as error:
            if self._seen.get(event_id) is kept:
                del self._seen[event_id]
            log.warning("A hint could not be kept: %s", error)
            return 503
        return 204


async def _body(receive: Callable[[], Awaitable[Message]]) -> bytes | None:
    """The whole body, or None where it is too large; it is counted as it comes."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)
