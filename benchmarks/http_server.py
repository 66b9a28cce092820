"""A small HTTP/1.1 server that costs so little that it is never what a benchmark measures."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote

_BUFFER_BYTES = 1 << 19
_MAX_LINE_BYTES = 1 << 16


class Incoming(ABC):
    """Bytes that arrive, without a copy of them: a view is good until the next call."""

    @abstractmethod
    def some(self, most: int) -> memoryview:
        """The next bytes, at least one and not more than ``most``; none at the end."""

    def line(self) -> bytes:
        """The next line without its end; empty also at the end of the stream."""
        found = bytearray()
        while (byte := self.some(1)) and byte != b"\n" and len(found) < _MAX_LINE_BYTES:
            found += byte
        return bytes(found).rstrip(b"\r")


class FromSocket(Incoming):
    """What a peer sends, through one buffer that is used again and again."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._stop = 0

    def some(self, most: int) -> memoryview:
        """As `Incoming.some`."""
        self._refill()
        begin, self._start = self._start, min(self._stop, self._start + most)
        return self._view[begin : self._start]

    def line(self) -> bytes:
        """As `Incoming.line`."""
        found = b""
        while len(found) < _MAX_LINE_BYTES and self._refill():
            end = self._buffer.find(b"\n", self._start, self._stop)
            stop = end if end >= 0 else self._stop
            found += bytes(self._view[self._start : stop])
            self._start = min(stop + 1, self._stop)
            if end >= 0:
                break
        return found.rstrip(b"\r")

    def _refill(self) -> bool:
        """Whether there are bytes; waits for some where there are none."""
        if self._start == self._stop:
            self._start, self._stop = 0, self._connection.recv_into(self._buffer)
        return self._start < self._stop


class OfLength(Incoming):
    """The next so many bytes of another stream."""

    def __init__(self, inner: Incoming, size_bytes: int) -> None:
        self._inner, self._left = inner, size_bytes

    def some(self, most: int) -> memoryview:
        """As `Incoming.some`."""
        found = self._inner.some(min(most, self._left)) if self._left else memoryview(b"")
        self._left -= len(found)
        return found


class Dechunked(Incoming):
    """What lies in the chunks of another stream: HTTP's own, or those of S3's signed and trailing bodies."""

    def __init__(self, inner: Incoming, trailers: dict[str, str]) -> None:
        self._inner, self._trailers = inner, trailers
        self._left = 0
        self._is_first, self._is_over = True, False

    def some(self, most: int) -> memoryview:
        """As `Incoming.some`; what follows the last chunk goes to the trailers."""
        if not self._left and not self._is_over:
            if not self._is_first:
                self._inner.line()  # the end of the chunk before
            self._is_first = False
            self._left = int(self._inner.line().split(b";")[0] or b"0", 16)
            if not self._left:
                self._is_over = True
                self._trailers.update(_headers(self._inner))
        found = self._inner.some(min(most, self._left)) if self._left else memoryview(b"")
        self._left -= len(found)
        return found


@dataclass
class Request:
    """A request whose body has not been read yet."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    connection: socket.socket
    body: Incoming
    trailers: dict[str, str] = field(default_factory=dict[str, str])
    is_continue_expected: bool = False

    def pieces(self) -> Iterator[memoryview]:
        """The body as it arrives; each piece is good until the next one."""
        if self.is_continue_expected:
            self.is_continue_expected = False
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while piece := self.body.some(_BUFFER_BYTES):
            yield piece

    def content(self) -> bytes:
        """The whole body."""
        return b"".join(bytes(piece) for piece in self.pieces())


@dataclass(frozen=True)
class Response:
    """An answer; of a file, ``start`` to ``stop`` are sent without passing through this process."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    file: Path | None = None
    start: int = 0
    stop: int = 0
    length: int | None = None
    """What a HEAD announces."""


Handler = Callable[[Request], Response]


class HttpServer:
    """Answers on a loopback port, each connection in a thread of its own, until the process ends."""

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> None:
        self._handler, self._tls = handler, tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Accept connections for ever."""
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A client that is done, killed or does not trust us is no event here: who counts bytes will tell.
        with contextlib.suppress(OSError), connection:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                incoming = FromSocket(connection)
                while request := _read_request(incoming, connection):
                    response = self._handler(request)
                    for _ in request.pieces():  # what the handler left would be the next request
                        pass
                    _send(connection, request, response)


def _read_request(incoming: Incoming, connection: socket.socket) -> Request | None:
    parts = incoming.line().decode("latin-1").split(" ")
    if len(parts) != 3:
        return None
    path, _, query = parts[1].partition("?")
    headers = _headers(incoming)
    trailers: dict[str, str] = {}
    body: Incoming = OfLength(incoming, int(headers.get("content-length", "0")))
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = Dechunked(incoming, trailers)
    if "aws-chunked" in headers.get("content-encoding", ""):
        body = Dechunked(body, trailers)
    return Request(
        method=parts[0],
        path=unquote(path),
        query={name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()},
        headers=headers,
        connection=connection,
        body=body,
        trailers=trailers,
        is_continue_expected=headers.get("expect", "").lower() == "100-continue",
    )


def _headers(incoming: Incoming) -> dict[str, str]:
    found: dict[str, str] = {}
    while line := incoming.line():
        name, _, value = line.decode("latin-1").partition(":")
        found[name.strip().lower()] = value.strip()
    return found


def _send(connection: socket.socket, request: Request, response: Response) -> None:
    length = response.stop - response.start if response.file else len(response.body)
    if response.length is not None:
        length = response.length
    lines = [f"HTTP/1.1 {response.status} {'OK' if response.status < 300 else 'Refused'}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    lines += [] if response.status == 204 else [f"Content-Length: {length}"]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    if request.method == "HEAD" or response.file is None:
        connection.sendall(head if request.method == "HEAD" else head + response.body)
        return
    with response.file.open("rb") as file:
        connection.sendall(head, socket.MSG_MORE) if not isinstance(
            connection, ssl.SSLSocket
        ) else connection.sendall(head)
        connection.sendfile(file, response.start, length)
