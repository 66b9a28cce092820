"""An HTTP server that gives one S3 answer to everything: the troubles that no real server shows on demand."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from xml.sax.saxutils import escape


@contextmanager
def a_server_that_answers(
    status: int, code: str = "", *, body: bytes | None = None, missing_bytes: int = 0
) -> Iterator[str]:
    """Its URL, while the block runs. `missing_bytes` are announced and never come."""
    content = body if body is not None else f"<Error><Code>{escape(code)}</Code></Error>".encode()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which answers the client's "Expect: 100-continue" at once

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) + missing_bytes))
            self.send_header("ETag", '"0"')
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - names of http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
