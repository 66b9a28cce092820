"""moto behind a hand that changes what it is told and what it says: stores that no S3 server is on demand."""

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import make_server

from include.storage.object_store import ObjectStore
from tests.storage.buckets import s3_client

MANY = 1000


class OddStore:
    """An S3 server that knows no checksums, as many do, and damages what it is given when it is told to.

    Attributes:
        damages: How many of the next bodies of PUT requests it keeps with a wrong byte.
        etag: What it says instead of the MD5, where that is wanted.
        before_put: Called before each PUT takes effect, with its number.
        seen: The methods of all requests.
    """

    def __init__(self) -> None:
        self.damages = 0
        self.etag: str | None = None
        self.before_put: Callable[[int], None] = lambda _: None
        self.seen: list[str] = []
        self.endpoint_url = ""
        self._app: Any = create_backend_app("s3")

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        for name in [name for name in environ if name.startswith("HTTP_X_AMZ_CHECKSUM")]:
            del environ[name]
        if method == "PUT" and environ.get("CONTENT_LENGTH", "0") != "0":
            self.seen.append(method)
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            self.before_put(self.seen.count("PUT"))
            if self.damages > 0:
                self.damages -= 1
                body = body[:-1] + bytes([body[-1] ^ 1])
            environ["wsgi.input"] = io.BytesIO(body)
        elif method != "PUT":
            self.seen.append(method)

        def told(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            def said(name: str, value: str) -> str:
                return self.etag if self.etag and name.lower() == "etag" else value

            return start(
                status,
                [
                    (name, said(name, value))
                    for name, value in headers
                    if not name.lower().startswith("x-amz-checksum")
                ],
                *rest,
            )

        return self._app(environ, told)

    def store(self, bucket: str, part_bytes: int = 5 << 20) -> ObjectStore:
        """A new bucket of it."""
        client = s3_client(self.endpoint_url)
        client.create_bucket(Bucket=bucket)
        return ObjectStore(client, bucket, part_bytes)


@contextmanager
def an_odd_store() -> Iterator[OddStore]:
    found = OddStore()
    server = make_server("127.0.0.1", 0, found, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    found.endpoint_url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
