"""HTTP/1.1 as uvicorn speaks it, except that a client which dawdles with the head of a request is cut off."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_HEAD_SECONDS = 5.0  # a sender that wants an answer within five has long sent it


class ImpatientHttp(H11Protocol):
    """Closes a connection whose next request has no complete head so long after it was opened or began.

    uvicorn itself waits without end, and a thousand silent connections are all that a receiver has.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The head of the first request is to come."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Some of a head or of a body, or more than one of each."""
        if self._head_timer is None:
            self._await_head()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:  # the head is complete, or is none
            self._end_wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._end_wait()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(MAX_HEAD_SECONDS, self.transport.close)

    def _end_wait(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
        self._head_timer = None
