"""A server that speaks bytes, as a test tells it; for what no web server does on purpose."""

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any


class Caller:
    """One connection, as the server has it.

    Attributes:
        number: How many there were before.
    """

    def __init__(self, connected: socket.socket, number: int) -> None:
        self.number = number
        self._socket = connected
        self._stream = connected.makefile("rb")

    def head(self) -> tuple[str, dict[str, str]]:
        """The line and the headers of the next request; an empty line when the caller has left."""
        line = self._stream.readline().decode().strip()
        headers: dict[str, str] = {}
        while header := self._stream.readline().decode().strip():
            name, _, value = header.partition(": ")
            headers[name.lower()] = value
        return line, headers

    def request(self) -> tuple[str, dict[str, str], bytes]:
        """As `head`, and the body."""
        line, headers = self.head()
        return line, headers, self._stream.read(int(headers.get("content-length", 0)))

    def send(self, answer: bytes) -> None:
        self._socket.sendall(answer)

    def wait_for_end(self, seconds: float = 5.0) -> None:
        """Until the caller leaves, or the time is up."""
        with suppress(OSError):
            select.select([self._socket], [], [], seconds)

    def reset(self) -> None:
        """Leave so that the caller's next read fails, not only ends."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


class RawServer:
    """Its port, and how many connections were made to it."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.lock = threading.Lock()

    def url(self, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}"


@contextmanager
def a_raw_server(
    serve: Callable[[Caller], None], *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Iterator[RawServer]:
    """Calls `serve` for each connection in a thread of its own, and closes the connection after it."""
    found = RawServer()

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with found.lock:
                number, found.connections = found.connections, found.connections + 1
            with suppress(OSError):  # the caller left, as it may
                secured = tls.wrap_socket(self.request, server_side=True) if tls else self.request
                caller = Caller(secured, number)
                try:
                    serve(caller)
                finally:
                    caller.close()

    class Server(ThreadingTCPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        request_queue_size = 64

        def shutdown_request(self, request: Any) -> None:
            """Nothing: the handler closed it, and a second end would hide a reset."""

    with Server((host, 0), Handler) as server:
        found.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def answer_of(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """An answer with the length of its body."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
