"""HTTP/1.1 over sockets: bytes go from the socket into the caller's buffer and from there out again.

The libraries that people use hand out new bytes for every piece and spend 250 µs on a request's headers; with
files of 200 KB that is more than the copy itself (docs/decisions/0013-data-path.md has the figures). So the
sockets are Python's, the headers are parsed by httptools (llhttp), and nothing is done that a copy does not
need: no redirects, no cookies, no credentials, no decoding.
"""

import math
import os
import select
import socket
import ssl
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from threading import Lock
from types import TracebackType
from typing import Any, NamedTuple

import certifi
import httptools

_HEAD_BYTES = 64 << 10
# So much is received before anything else is done with it: threads that take turns more often spend a fifth of
# their time on it (docs/decisions/0013-data-path.md).
_RECEIVE_BYTES = 4 << 20
_SEND_BYTES = 1 << 20
# A body that trickles in more slowly than this holds up a copy for hours, and never trips a time-out of reads.
_MIN_BYTES_PER_SECOND = 16 << 10

_one_decrypts = Lock()

Address = tuple[socket.AddressFamily, Any]  # what `connect` takes, as `getaddrinfo` gives it


class Endpoint(NamedTuple):
    """Where a request goes: ``http`` or ``https``, the host as a URL has it, without brackets, and the port."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"
        )


class ConnectTimeout(TimeoutError):
    """No address of the host accepted a connection in time."""


class BadAnswer(ConnectionError):
    """What came is not HTTP, or the body ended before its announced length."""


def system_addresses(host: str, port: int) -> list[Address]:
    """The addresses of a host, as the system's resolver gives them.

    Raises:
        OSError: It knows none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def new_tls() -> ssl.SSLContext:
    """Trusts the system's authorities (SSL_CERT_FILE adds one's own) and those of certifi; to be changed further."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def default_tls() -> ssl.SSLContext:
    """As `new_tls`, one for all: to read the authorities takes 0.06 s of processor time."""
    return _tls_of(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=1)
def _tls_of(_cert_file: str | None, _cert_dir: str | None) -> ssl.SSLContext:
    return new_tls()


class ConnectionPool:
    """Sends requests over connections that it keeps for the next one; for any number of threads.

    A host is resolved once for a connection, and the connection goes to an address that was returned. Nothing
    is read from the environment, so no proxy is used.

    Args:
        resolve: Gives the addresses of a host and a port; what it raises passes through.
        connect_seconds: How long one address may take to accept a connection.
        read_seconds: How long the next bytes, or the next MiB that is sent, may take.
        tls: Makes the TLS settings when the first https connection is made.
        is_resending: Whether a request is sent again where a kept connection ends without a byte of an answer.

    Raises (every request and every read of an answer):
        ConnectTimeout: No connection in time.
        TimeoutError: No bytes in time, or a body below 16 KiB/s.
        OSError: Any other trouble on the way; the request may have taken effect.
    """

    def __init__(
        self,
        resolve: Callable[[str, int], Sequence[Address]] = system_addresses,
        *,
        connect_seconds: float = 10.0,
        read_seconds: float = 60.0,
        tls: Callable[[], ssl.SSLContext] = default_tls,
        is_resending: bool = True,
    ) -> None:
        self._is_resending = is_resending
        self.connect_seconds = connect_seconds
        self.read_seconds = read_seconds
        self._resolve = resolve
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._idle: defaultdict[Endpoint, deque[Connection]] = defaultdict(deque)
        self._lock = Lock()
        weakref.finalize(self, _close_all, self._idle)

    def request(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | memoryview = b"",
    ) -> "Answer":
        """Send a request; its answer, of which the body is not yet read.

        A kept connection that the server has closed meanwhile is replaced by a new one; one that ends while
        the request is on its way too, once, unless the pool is told not to send anything again.

        Args:
            endpoint: Where to.
            method: GET, PUT and so on.
            target: Path and query, encoded.
            headers: Besides Host and Content-Length.
            body: Whole; sent without being copied.

        Raises:
            ValueError: A header or the target has a character that may not be there.
        """
        head = _request_head(endpoint, method, target, headers, len(body))
        has_no_body = method == "HEAD"
        kept = self._kept(endpoint)
        if kept:
            try:
                return Answer(self, kept, kept.exchange(head, body), has_no_body=has_no_body)
            except TimeoutError:
                kept.close()
                raise
            except OSError:
                kept.close()
                if kept.has_answered or not self._is_resending:
                    raise
        connection = self._connect(endpoint)
        try:
            return Answer(
                self, connection, connection.exchange(head, body), has_no_body=has_no_body
            )
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the kept connections; what nobody closes is closed with the last reference."""
        _close_all(self._idle)

    def keep(self, connection: "Connection") -> None:
        """Take back a connection whose answer was read to its end."""
        self._idle[connection.endpoint].append(connection)

    def _kept(self, endpoint: Endpoint) -> "Connection | None":
        kept = self._idle[endpoint]
        while kept:
            try:
                connection = kept.pop()
            except IndexError:  # another thread was faster
                break
            if connection.is_quiet():
                return connection
            connection.close()
        return None

    def _connect(self, endpoint: Endpoint) -> "Connection":
        failure: OSError = OSError(f"{endpoint.host} has no address")
        for family, address in self._resolve(endpoint.host, endpoint.port):
            plain = socket.socket(family, socket.SOCK_STREAM)
            try:
                plain.settimeout(self.connect_seconds)
                _connect_in_time(plain, address)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                secured = self._secured(plain, endpoint)
                secured.settimeout(self.read_seconds)
                return Connection(endpoint, secured)
            except OSError as error:
                plain.close()
                failure = error
            except BaseException:
                plain.close()
                raise
        raise failure

    def _secured(self, plain: socket.socket, endpoint: Endpoint) -> socket.socket:
        if endpoint.scheme != "https":
            return plain
        with self._lock:
            self._tls = self._tls or self._make_tls()
        return self._tls.wrap_socket(plain, server_hostname=endpoint.host)


def _connect_in_time(plain: socket.socket, address: Any) -> None:  # noqa: ANN401 - of any family
    try:
        plain.connect(address)
    except TimeoutError:
        raise ConnectTimeout from None


def _close_all(idle: Mapping[Endpoint, "deque[Connection]"]) -> None:
    for kept in idle.values():
        while kept:
            kept.pop().close()


class Head:
    """The status and the headers of an answer, names in lower case."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_keep_alive = False
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        """Called by the parser, which forgets both once the body is there."""
        self.status = self.parser.get_status_code()
        self.is_keep_alive = self.parser.should_keep_alive()


class Connection:
    """One socket to one endpoint, and what was received and not yet taken."""

    def __init__(self, endpoint: Endpoint, connected: socket.socket) -> None:
        self.endpoint = endpoint
        self.has_answered = False
        self._socket = connected
        self._buffer = bytearray(_HEAD_BYTES)
        self._rest = memoryview(b"")
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def is_quiet(self) -> bool:
        """Whether nothing came since the last answer: neither bytes that nobody asked for nor the end."""
        # What TLS has decrypted already, the system does not know of.
        is_decrypted = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0
        return not self._rest and not is_decrypted and not self._poll.poll(0)

    def exchange(self, head: bytes, body: bytes | memoryview) -> Head:
        """Send a request and read the head of its answer."""
        self.has_answered = False
        self._rest = memoryview(b"")
        failure: OSError | None = None
        try:
            self._send(head, memoryview(body))
        except TimeoutError:
            raise
        except OSError as error:
            failure = error  # a server that refuses early closes early; its answer may be there
        deadline = time.monotonic() + (self._socket.gettimeout() or 0.0)
        try:
            found = self._answer_head(deadline)
            while found.status < 200:  # 100 Continue, 103 Early Hints
                found = self._answer_head(deadline)
        except OSError as error:
            raise (failure or error) from None
        found.is_keep_alive = found.is_keep_alive and failure is None
        return found

    def _send(self, head: bytes, body: memoryview) -> None:
        sent = 0
        if not isinstance(self._socket, ssl.SSLSocket):  # which cannot
            sent = self._socket.sendmsg([head, body[:_SEND_BYTES]])
        if sent < len(head):
            self._socket.sendall(head[sent:])
        for start in range(max(sent - len(head), 0), len(body), _SEND_BYTES):
            self._socket.sendall(body[start : start + _SEND_BYTES])

    def _answer_head(self, deadline: float) -> Head:
        have = len(self._rest)
        self._buffer[:have] = self._rest
        end = self._buffer.find(b"\r\n\r\n", 0, have)
        while end < 0:
            if have == _HEAD_BYTES:
                raise BadAnswer("the headers of the answer are too long")
            if time.monotonic() > deadline:
                raise TimeoutError("the headers of the answer do not end")
            received = self._socket.recv_into(memoryview(self._buffer)[have:])
            if not received:
                raise BadAnswer("the connection was closed before an answer")
            self.has_answered = True
            end = self._buffer.find(b"\r\n\r\n", max(0, have - 3), have + received)
            have += received
        found = Head()
        try:
            found.parser.feed_data(bytes(self._buffer[: end + 4]))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise BadAnswer("the answer is not HTTP") from None
        del found.parser  # the two know each other, and would wait for the garbage collector
        self._rest = memoryview(self._buffer)[end + 4 : have]
        return found

    def receive_into(self, view: memoryview) -> int:
        """Put the next bytes into the view; 0 when the server has closed."""
        if self._rest:
            count = min(len(view), len(self._rest))
            view[:count] = self._rest[:count]
            self._rest = self._rest[count:]
            return count
        if isinstance(self._socket, ssl.SSLSocket) and (count := self._records_into(view)):
            return count
        return self._socket.recv_into(view)

    def _records_into(self, view: memoryview) -> int:
        """Put all that TLS has without waiting into the view, in one turn.

        Python hands out one record of 16 KiB at a time and lets another thread go on meanwhile: threads that
        decrypt by turns spend a tenth of all on taking them (docs/decisions/0013-data-path.md).
        """
        have = 0
        seconds = self._socket.gettimeout()
        with _one_decrypts:
            self._socket.settimeout(0)
            try:
                while have < len(view) and (count := self._socket.recv_into(view[have:])):
                    have += count
            except ssl.SSLWantReadError:
                pass
            finally:
                self._socket.settimeout(seconds)
        return have


class Answer:
    """The answer to one request. Close it; a connection whose body was read to its end is kept.

    Attributes:
        status: The HTTP status.
        headers: Names in lower case; of a name that comes twice, the last value.
        length: How many bytes the body has, or None where that is not announced.
        body_seconds: How long the body may take in all, however steadily it comes; to be set before it is read.
    """

    def __init__(
        self, pool: ConnectionPool, connection: Connection, head: Head, *, has_no_body: bool
    ) -> None:
        self.status = head.status
        self.headers = head.headers
        self._pool = pool
        self._connection = connection
        self._is_keep_alive = head.is_keep_alive
        self._is_closed = False
        self._received = 0
        self._waited_seconds = 0.0
        self._failure: OSError | None = None
        self.body_seconds = math.inf
        self._chunks = None if has_no_body else _chunks_of(head)
        announced = head.headers.get("content-length", "")
        self.length: int | None = int(announced) if announced.isdecimal() else None
        if has_no_body or head.status in {204, 304}:
            self.length = 0
        elif self._chunks:
            self.length = None
        self._is_whole = self.length == 0

    def __enter__(self) -> "Answer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back, or close it when something of the body is left."""
        if self._is_closed:  # the connection may be another request's by now
            return
        self._is_closed = True
        connection_is_usable = (
            self._is_whole
            and self._is_keep_alive
            and (self.length is not None or self._chunks is not None)
        )
        if connection_is_usable:
            self._pool.keep(self._connection)
        else:
            self._connection.close()

    def readinto(self, view: memoryview) -> int:
        """Put the next bytes of the body into the view, 4 MiB if it has room for them; 0 at its end.

        What came before a failure is given first; the failure is raised to who asks for more.

        Raises:
            BadAnswer: The body ended before its announced length.
        """
        if self._failure is not None:
            raise self._failure
        view = view[: self._wanted(len(view))]
        have = 0
        started = time.monotonic()
        try:
            while have < len(view) and not self._is_whole:
                allowed = self._pool.read_seconds + self._received / _MIN_BYTES_PER_SECOND
                if self._waited_seconds > min(allowed, self.body_seconds):
                    raise TimeoutError(
                        f"only {self._received} bytes in {self._waited_seconds:.0f} s"
                    )
                count = self._received_into(view[have:])
                now = time.monotonic()
                self._waited_seconds += now - started
                started = now
                have += count or 0
                self._received += count or 0
                self._is_whole = count == 0 or self._received == self.length
        except OSError as error:
            if not have:
                raise
            self._failure = error
        return have

    def _received_into(self, view: memoryview) -> int | None:
        """How many bytes of the body; None for something else between them, 0 for its end."""
        if self._chunks:
            return self._chunks.readinto(self._connection, view)
        count = self._connection.receive_into(view)
        if count == 0 and self.length is not None:
            raise BadAnswer(f"the body ended after {self._received} of {self.length} bytes")
        return count

    def _wanted(self, room: int) -> int:
        left = math.inf if self.length is None else self.length - self._received
        return int(min(room, left, _RECEIVE_BYTES))

    def read(self, limit: int) -> bytes:
        """The body, or its first bytes where it is longer."""
        body = bytearray(limit)
        have = 0
        with memoryview(body) as view:
            while have < limit and (count := self.readinto(view[have:])):
                have += count
        return bytes(body[:have])


class _Chunks:
    """A body in chunks (Transfer-Encoding), whose length only its end tells."""

    def __init__(self, head: Head) -> None:
        self._pieces: deque[memoryview] = deque()
        self._is_complete = False
        self._answers = 0
        self._scratch = bytearray(_HEAD_BYTES)
        self._parser = httptools.HttpResponseParser(self)
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.headers.items())
        self._parser.feed_data(f"HTTP/1.1 {head.status} OK\r\n{lines}\r\n".encode("latin-1"))

    def on_message_begin(self) -> None:
        """Called by the parser, which takes what comes after the body for another answer."""
        self._answers += 1

    def on_body(self, piece: bytes) -> None:
        """Called by the parser."""
        self._pieces.append(memoryview(piece))

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._is_complete = True

    def readinto(self, connection: Connection, view: memoryview) -> int | None:
        if not self._pieces:
            if self._is_complete:
                return 0
            count = connection.receive_into(memoryview(self._scratch))
            if not count:
                raise BadAnswer("the body ended before its last chunk")
            try:
                self._parser.feed_data(bytes(self._scratch[:count]))
            except httptools.HttpParserError:
                raise BadAnswer("the chunks of the body are not HTTP") from None
            if self._answers > 1:
                raise BadAnswer("more came than the chunks of the body")
            if not self._pieces:
                return 0 if self._is_complete else None
        piece = self._pieces.popleft()
        count = min(len(piece), len(view))
        view[:count] = piece[:count]
        if count < len(piece):
            self._pieces.appendleft(piece[count:])
        return count


def _chunks_of(head: Head) -> _Chunks | None:
    encoding = head.headers.get("transfer-encoding", "").lower()
    if not encoding or encoding == "identity":
        return None
    if encoding != "chunked":
        raise BadAnswer("the body is encoded for its transfer in a way that is not understood")
    return _Chunks(head)


def _request_head(
    endpoint: Endpoint, method: str, target: str, headers: Mapping[str, str], body_bytes: int
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {endpoint.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if method in {"PUT", "POST", "PATCH"}:
        lines.append(f"Content-Length: {body_bytes}")
    # Of ASCII, which `encode` sees to, all but control characters is printable; so no line has an end inside.
    if " " in target or not "".join(lines).isprintable():
        raise ValueError("a character that may not be in the head of a request")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
