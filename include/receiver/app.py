"""The receiver of capture events: an ASGI app of one path.

A delivery is answered only after its hint is in the bucket. What arrives while one object is being written
becomes the next one, so that the store is asked a few times a second however many events there are.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from datetime import datetime
from typing import Any

from include.domain.errors import ArchiveError
from include.domain.interval import utc_now
from include.receiver.events import Dropped, read_event
from include.storage.hints import Hint

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
PATH = "/wxcc/events"
MAX_BODY_BYTES = 64 << 10
MAX_READING_BYTES = 64 << 20  # of all bodies that are being read: nobody has signed those yet
MAX_BODY_SECONDS = 4.0  # Webex waits five
MAX_WAITING = 5_000
MAX_BATCH = 2_000
MAX_REMEMBERED = 100_000
_GATHER_SECONDS = 0.02


class Busy(Exception):
    """More is being read, or waiting for the store, than may lie in memory."""


class _TooLarge(Exception):
    """A body is larger than any event."""


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
                    # An error of ours is a sentence; another may hold anything.
                    reason = error if isinstance(error, ArchiveError) else type(error).__name__
                    log.warning("%d hints could not be kept: %s", len(batch), reason)
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


class _DropLog:
    """Tells of dropped deliveries, once a second at most: anybody may send them."""

    def __init__(self) -> None:
        self._count = 0
        self._next = 0.0

    def add(self, reason: Dropped) -> None:
        self._count += 1
        if (now := time.monotonic()) >= self._next:
            log.warning("Deliveries were dropped (%d), the last because %s.", self._count, reason)
            self._count, self._next = 0, now + 1


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
        self._drops = _DropLog()
        self._reading_bytes = 0
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
        if status in {408, 413, 503}:  # the rest of the body was not read
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: Message, receive: Callable[[], Awaitable[Message]]) -> int:
        if scope["path"].rstrip("/") != PATH or scope["method"] != "POST":
            return 405 if scope["path"].rstrip("/") == PATH else 404
        try:
            async with asyncio.timeout(MAX_BODY_SECONDS):
                body = await self._read(receive)
        except TimeoutError:
            return 408
        except _TooLarge:
            return 413
        except Busy:
            return 503
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            event = read_event(body, headers, self._secret, self._org_id, self._now())
        except Dropped as reason:
            # As Cisco advises: a refusal would tell a forger something, and Webex disables what fails.
            self._drops.add(reason)
            return 204
        return await self._keep(event.event_id, event.hint)

    async def _read(self, receive: Callable[[], Awaitable[Message]]) -> bytes:
        """The whole body; it is counted as it comes."""
        body = bytearray()
        try:
            while True:
                message = await receive()
                chunk = message.get("body", b"")
                body += chunk
                self._reading_bytes += len(chunk)
                if len(body) > MAX_BODY_BYTES:
                    raise _TooLarge
                if self._reading_bytes > MAX_READING_BYTES:
                    raise Busy
                if not message.get("more_body", False):  # nor has a client that hung up
                    return bytes(body)
                del message, chunk  # a slow client's would lie in memory twice
        finally:
            self._reading_bytes -= len(body)

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
        except Exception:  # noqa: BLE001 - the queue has told of it; Webex may send it again
            if self._seen.get(event_id) is kept:
                del self._seen[event_id]
            return 503
        return 204
