"""An S3 server (moto) behind a door that breaks chosen requests.

Unlike moto alone, the door keeps connections open, and refuses a body that is not what its checksums say, as
S3 does. What goes wrong, goes wrong at the socket: nothing of the archive is replaced.
"""

import base64
import binascii
import hashlib
import io
import select
import socket
import struct
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

Application = Callable[[dict[str, Any], Callable[..., Any]], Any]

ELSEWHERE = "http://elsewhere.invalid/"
WRONG_BYTE_REFUSED = "wrong byte, the store refuses it"
WRONG_BYTE_BY_ETAG = "wrong byte, the store's ETag tells"
WRONG_BYTE_BY_CHECKSUM = "wrong byte, the store's checksum tells"
WRONG_BYTE_WITH_CHECKSUM_REPEATED = "wrong byte, the checksum is repeated, the ETag tells"
WRONG_BYTE_BEHIND_THE_CHECK = "wrong byte behind the store's check, the ETag tells"
WRONG_BYTE_UNTOLD = "wrong byte, nothing tells"
WRONG_BYTES_STORED = (
    WRONG_BYTE_BY_ETAG,
    WRONG_BYTE_BY_CHECKSUM,
    WRONG_BYTE_WITH_CHECKSUM_REPEATED,
    WRONG_BYTE_BEHIND_THE_CHECK,
    WRONG_BYTE_UNTOLD,
)
# Of stores that take any bytes, whatever checksum comes with them.
_UNCHECKING = {WRONG_BYTE_BY_ETAG, WRONG_BYTE_WITH_CHECKSUM_REPEATED}
_HTML = b"<html><body>The gateway is out of order.</body></html>"
_SECONDS_TO_STALL = 5.0
_ERRORS = {
    "429, seconds": (429, "TooManyRequests"),
    "429, date": (429, "TooManyRequests"),
    "429": (429, "TooManyRequests"),
    "500": (500, "InternalError"),
    "503": (503, "ServiceUnavailable"),
    "SlowDown": (503, "SlowDown"),
    "disk full": (507, "InsufficientStorage"),
    "403": (403, "AccessDenied"),
    "403, key pair expired": (403, "ExpiredToken"),
    "403, clock": (403, "RequestTimeTooSkewed"),
    "404, bucket": (404, "NoSuchBucket"),
    "404, upload": (404, "NoSuchUpload"),
    "409": (409, "ConditionalRequestConflict"),
    "redirect": (307, "TemporaryRedirect"),
    "error in 200": (200, "InternalError"),
}
_RIGHT_CHECKSUMS = {
    "x-amz-checksum-sha256": lambda body: _base64(hashlib.sha256(body).digest()),
    "x-amz-checksum-crc32": lambda body: _base64(binascii.crc32(body).to_bytes(4, "big")),
}


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    target: str
    body: bytes = b""

    @property
    def stage(self) -> str:
        """What the archive does by it."""
        if self.method == "PUT":
            return self._written
        if self.method == "POST":
            return "upload create" if "uploads" in self.query else "complete"
        if self.method == "DELETE":
            return "abort" if "uploadId" in self.query else "removal"
        if self.method == "GET" and not self.key:
            return "open uploads" if "uploads" in self.query else "listing"
        return f"{'look at' if self.method == 'HEAD' else 'read of'} {_kind_of(self.key)}"

    @property
    def _written(self) -> str:
        if not self.key:
            return "new bucket"
        if "partNumber" in self.query:
            return "part"
        if self.key.endswith("/probe"):
            return "probe"
        return "single PUT" if self.key.startswith("captures/") else _kind_of(self.key)


@dataclass(frozen=True)
class Answer:
    """One answer as it goes out."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


@dataclass(frozen=True)
class S3Fault:
    """What goes wrong at which stage; so often, or always."""

    stage: str
    kind: str
    times: int | None = None


class FaultyS3:
    """What is behind the door, and the fault in force."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._fault: S3Fault | None = None
        self._lock = threading.Lock()
        self._told_etags: dict[str, str] = {}
        self.struck = 0
        self.endpoint_url = ""

    def set_fault(self, fault: S3Fault | None) -> None:
        """Put a fault in force instead of the present one, and count anew."""
        with self._lock:
            self._fault, self.struck = fault, 0

    def strike(self, stage: str) -> str:
        """The kind of the fault that this request meets, or nothing."""
        with self._lock:
            fault = self._fault
            if fault is None or fault.stage != stage:
                return ""
            if fault.times is not None and self.struck >= fault.times:
                return ""
            self.struck += 1
            return fault.kind

    def answer(self, request: Request, kind: str) -> Answer:
        """What the store answers, right or wrong."""
        if kind == "HTML in 200":
            return Answer(200, {"Content-Type": "text/html"}, _HTML)
        if kind == "empty 200":
            return Answer(200)
        if kind in _ERRORS:
            return _error(kind)
        if kind == WRONG_BYTE_REFUSED:
            request = replace(request, body=_flipped(request.body))
        if not self._is_unchecking and (refusal := _refused_by_checksum(request)):
            return refusal
        if kind in WRONG_BYTES_STORED:
            stored = replace(request, body=_flipped(request.body))
            return self._telling(kind, request, stored, self._call(stored))
        if request.stage == "complete":
            request = replace(request, body=self._with_true_etags(request.body))
        answer = self._call(request)
        return answer if self._is_unchecking else _confirmed(request, answer)

    @property
    def _is_unchecking(self) -> bool:
        return self._fault is not None and self._fault.kind in _UNCHECKING

    def _telling(self, kind: str, sent: Request, stored: Request, answer: Answer) -> Answer:
        """What a store that stored other bytes says of them."""
        if answer.status != 200 or kind == WRONG_BYTE_BY_ETAG:
            return answer
        if kind == WRONG_BYTE_BY_CHECKSUM:
            return _confirmed(stored, answer)
        if kind in {WRONG_BYTE_WITH_CHECKSUM_REPEATED, WRONG_BYTE_BEHIND_THE_CHECK}:
            return _confirmed(sent, answer)
        told = hashlib.md5(sent.body, usedforsecurity=False).hexdigest()
        self._told_etags[told] = answer.headers["etag"].strip('"')
        return _confirmed(sent, replace(answer, headers={**answer.headers, "etag": f'"{told}"'}))

    def _with_true_etags(self, body: bytes) -> bytes:
        """A store that lies about a part still knows it when the upload is completed."""
        for told, true in self._told_etags.items():
            body = body.replace(told.encode(), true.encode())
        return body

    # What is behind the door, without passing it

    def create_bucket(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Make one that holds these already."""
        _moto().create_bucket(bucket, "us-east-1")
        for key, body in objects.items():
            _moto().put_object(bucket, key, body)

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Everything that the bucket holds."""
        keys: Any = _moto().buckets[bucket].keys
        return {key: keys[key].value for key in keys}

    def open_uploads(self, bucket: str) -> list[str]:
        """The keys of the uploads that were begun, and neither completed nor aborted."""
        return [upload.key_name for upload in _moto().buckets[bucket].multiparts.values()]

    def empty(self) -> None:
        """Forget every bucket, and what moto keeps of them."""
        _moto().reset()
        for model in vars(sys.modules["moto.s3.models"]).values():
            if isinstance(model, type):
                getattr(model, "instances_tracked", []).clear()
        self._told_etags.clear()

    def _call(self, request: Request) -> Answer:
        path, _, query = request.target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": urllib.parse.unquote(path, "latin-1"),
            "QUERY_STRING": query,
            "REQUEST_URI": request.target,
            "RAW_URI": request.target,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(urllib.parse.urlsplit(self.endpoint_url).port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_LENGTH": str(len(request.body)),
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(request.body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in request.headers.items():
            environ.setdefault(f"HTTP_{name.upper().replace('-', '_')}", value)
        started: list[Any] = []
        pieces = self._application(environ, lambda *arguments: started.extend(arguments))
        body = b"".join(pieces)
        headers = {name.lower(): value for name, value in started[1]}
        return Answer(int(started[0].split()[0]), headers, body)


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def serve(self) -> None:
        request = self._request()
        store = cast("_Server", self.server).store
        kind = store.strike(request.stage)
        length = int(self.headers.get("Content-Length") or 0)
        if kind == "reset while sending":
            self.rfile.read(length // 2)
            self._reset()
            return
        request = replace(request, body=self.rfile.read(length))
        if kind == "reset before headers":
            self._reset()
            return
        if kind == "stall":
            self._wait_for_the_client()
            return
        answer = store.answer(request, kind)
        if kind == "reset after processing":
            self._reset()
            return
        self._send(answer, kind)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve  # noqa: N815 - names of http.server

    def _request(self) -> Request:
        parts = urllib.parse.urlsplit(self.path)
        bucket, _, key = urllib.parse.unquote(parts.path).lstrip("/").partition("/")
        return Request(
            method=self.command,
            bucket=bucket,
            key=key,
            query=dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            target=self.path,
        )

    def _send(self, answer: Answer, kind: str) -> None:
        body = b"" if self.command == "HEAD" else answer.body
        headers = {"content-length": str(len(answer.body)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} Told"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if kind in {"short body", "reset mid-body", "stall mid-body"}:
            self.wfile.write(head + body[: len(body) // 2])
            if kind == "reset mid-body":
                time.sleep(0.02)  # otherwise the reset may overtake what was written
                self._reset()
            elif kind == "stall mid-body":
                self._wait_for_the_client()
            self.close_connection = True
            return
        self.wfile.write(head + body + (b"X" * 100 if kind == "extra bytes" else b""))

    def _reset(self) -> None:
        """Lingering for zero seconds turns the close into a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _wait_for_the_client(self) -> None:
        select.select([self.connection], [], [], _SECONDS_TO_STALL)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, store: FaultyS3) -> None:
        self.store = store
        super().__init__(("127.0.0.1", 0), _Handler)

    def shutdown_request(self, request: Any) -> None:
        """Close at once: an orderly end first would hide a reset."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is what some faults are about."""


@contextmanager
def faulty_s3() -> Iterator[FaultyS3]:
    """Run moto's S3 behind the door, with parts of any size."""
    from moto.moto_server.werkzeug_app import create_backend_app

    store = FaultyS3(create_backend_app("s3"))
    server = _Server(store)
    store.endpoint_url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    settings: Any = sys.modules["moto.s3.models"]
    least_part = settings.S3_UPLOAD_PART_MIN_SIZE
    settings.S3_UPLOAD_PART_MIN_SIZE = 1  # moto has it from its environment, else as S3
    store.answer(
        Request("GET", "", "", {}, {"host": "127.0.0.1"}, "/"), ""
    )  # it imports the rest now
    try:
        yield store
    finally:
        settings.S3_UPLOAD_PART_MIN_SIZE = least_part
        server.shutdown()
        thread.join()
        server.server_close()


def _moto() -> Any:
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]


def _kind_of(key: str) -> str:
    folders = {
        "captures": "capture",
        "tables": "table",
        "manifests": "manifest",
        "_work": "working file",
        "due": "due marker",
    }
    return folders.get(key.partition("/")[0], "something else")


def _error(kind: str) -> Answer:
    status, code = _ERRORS[kind]
    headers = {"content-type": "application/xml"}
    if kind == "429, seconds":
        headers["retry-after"] = "1"
    if kind == "429, date":
        headers["retry-after"] = formatdate(time.time() + 1, usegmt=True)
    if kind == "redirect":
        headers["location"] = ELSEWHERE
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>A fault.</Message></Error>"
    return Answer(status, headers, body.encode())


def _refused_by_checksum(request: Request) -> Answer | None:
    """As S3 does; moto takes any body for what was announced."""
    for name, checksum_of in _RIGHT_CHECKSUMS.items():
        if request.headers.get(name, checksum_of(request.body)) != checksum_of(request.body):
            return _refusal("BadDigest")
    announced = request.headers.get("x-amz-content-sha256", "")
    if len(announced) == 64 and announced != hashlib.sha256(request.body).hexdigest():
        return _refusal("XAmzContentSHA256Mismatch")
    return None


def _refusal(code: str) -> Answer:
    return Answer(
        400, {"content-type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode()
    )


def _confirmed(request: Request, answer: Answer) -> Answer:
    """With the checksum of what was stored, as S3 repeats it."""
    if request.method != "PUT" or answer.status != 200:
        return answer
    told = {
        name: checksum_of(request.body)
        for name, checksum_of in _RIGHT_CHECKSUMS.items()
        if name in request.headers
    }
    return replace(answer, headers={**answer.headers, **told})


def _flipped(body: bytes) -> bytes:
    """Another bit in the middle."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
