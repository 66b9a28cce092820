"""Receives capture events in Airflow's API server, with what the Airflow connections say, and wakes up the recheck."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from botocore.config import Config

from include.domain.errors import ArchiveError
from include.domain.interval import utc_now
from include.domain.object_keys import KeyLayout
from include.domain.redaction import redact
from include.receiver.app import PATH, Receiver
from include.storage.hints import Hint, write_hints
from include.storage.object_store import CONNECTION_ID as STORE_CONNECTION_ID
from include.webex.connection import CONNECTION_ID as WEBEX_CONNECTION_ID
from include.webex.subscriptions import CAPTURE_EVENTS_CONNECTION_ID
from plugins.capture_events import CAPTURE_HINTS, find_capture_events_connection
from plugins.connections import find_connection
from plugins.store_hook import get_store
from plugins.webex_hook import WebexContactCenterHook

log = logging.getLogger(__name__)

WAKE_UP_SECONDS = 20.0
_READ_AGAIN_SECONDS = 60.0
_CONNECTION_IDS = (CAPTURE_EVENTS_CONNECTION_ID, WEBEX_CONNECTION_ID, STORE_CONNECTION_ID)
# Webex waits five seconds, so a store in trouble is told before.
_STORE_CONFIG = Config(
    connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 1}
)


class WakeUp:
    """Calls something soon after it was asked for, but not again before some seconds have passed.

    Whatever is asked for meanwhile is answered by one more call, so that the last one is never forgotten.

    Args:
        call: Runs in a thread; its errors are logged.
        seconds: Between two calls.
    """

    def __init__(self, call: Callable[[], object], seconds: float = WAKE_UP_SECONDS) -> None:
        self._call = call
        self._seconds = seconds
        self._is_asked = False
        self._caller: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Have it called; from the event loop only."""
        self._is_asked = True
        if self._caller is None:
            self._caller = asyncio.create_task(self._call_while_asked())

    async def _call_while_asked(self) -> None:
        try:
            while self._is_asked:
                self._is_asked = False
                try:
                    await asyncio.to_thread(self._call)
                except Exception as error:  # noqa: BLE001 - whatever it is, the hourly run comes
                    # No traceback: that of a database may have its URL.
                    log.warning(
                        "recheck_captures could not be woken up (%s); its hourly run comes: %s",
                        type(error).__name__,
                        redact(str(error)),
                    )
                await asyncio.sleep(self._seconds)
        finally:
            self._caller = None


class CaptureEvents:
    """The ASGI app of one path; it follows the three connections that it needs."""

    def __init__(self) -> None:
        self._receiver: Receiver | None = None
        self._connections: list[str | None] | None = None
        self._read_time = -_READ_AGAIN_SECONDS
        self._lock = asyncio.Lock()
        self._wake_up = WakeUp(register_hints)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
        """Answer as the receiver does; 404 without a connection, 503 while one cannot be read."""
        async with self._lock:
            if time.monotonic() - self._read_time >= _READ_AGAIN_SECONDS:
                await self._read_connections()
        if self._receiver is None:
            status = 503 if self._connections is None else 404
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._receiver({**scope, "path": PATH}, receive, send)

    async def _read_connections(self) -> None:
        loop = asyncio.get_running_loop()
        self._read_time = time.monotonic()
        try:
            found = await asyncio.to_thread(_uris)
            if found == self._connections:
                return
            self._receiver = await asyncio.to_thread(_receiver, loop, self._wake_up)
            self._connections = found
        except Exception as error:  # noqa: BLE001 - it goes on as it did, and tries again
            # An error of ours is a sentence; another may hold a secret.
            reason = error if isinstance(error, ArchiveError) else type(error).__name__
            log.warning("The connections of the receiver of events are not usable: %s", reason)


def register_hints() -> None:
    """Tell Airflow that there are hints, so that recheck_captures runs now; for a process with Airflow's database."""
    # Here and not above: each Airflow task loads the plugin.
    from airflow.assets.manager import AssetManager  # noqa: PLC0415
    from airflow.serialization.definitions.assets import SerializedAssetUniqueKey  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415

    key = SerializedAssetUniqueKey(CAPTURE_HINTS.name, CAPTURE_HINTS.uri)
    with create_session() as session:
        AssetManager().register_asset_change(asset=key, source_is_api=True, session=session)


def _uris() -> list[str | None]:
    found = [find_connection(connection_id) for connection_id in _CONNECTION_IDS]
    return [connection.get_uri() if connection else None for connection in found]


def _receiver(loop: asyncio.AbstractEventLoop, wake_up: WakeUp) -> Receiver | None:
    events = find_capture_events_connection()
    if events is None:
        return None
    org_id = WebexContactCenterHook().get_conn().org_id
    store, prefix = get_store(_STORE_CONFIG)
    keys = KeyLayout(org_id, prefix)

    def write(hints: Sequence[Hint]) -> None:
        write_hints(store, keys, hints, utc_now())
        loop.call_soon_threadsafe(wake_up.ask)

    return Receiver(events.secret.get_secret_value(), org_id, write)
