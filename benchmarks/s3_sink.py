"""An S3 server that drops the captures it is given, and tells afterwards what arrived.

It keeps the CRC-32 and the length of each piece of an object under ``captures/``, and the bytes of
every other object (plans, tables). A bucket is there as soon as it is named.
"""

from __future__ import annotations

import base64
import itertools
import json
import threading
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from xml.etree.ElementTree import fromstring  # of our own clients
from xml.sax.saxutils import escape

from benchmarks.http_server import Request, Response

_XML = {"Content-Type": "application/xml"}
_S3 = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_DROPPED = "captures/"
_MAX_KEYS = 1000


@dataclass(frozen=True)
class Piece:
    """A body as it arrived."""

    size_bytes: int
    crc32: int
    content: bytes | None
    checksums: dict[str, str]


@dataclass(frozen=True)
class Stored:
    """An object; its content only where it is no capture."""

    pieces: tuple[Piece, ...]
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return sum(piece.size_bytes for piece in self.pieces)

    @property
    def etag(self) -> str:
        """Never 32 hex digits, so that nobody takes it for an MD5."""
        digests = "".join(f"{piece.crc32:08x}" for piece in self.pieces[:4])
        return f'"crc32-{digests}-{self.size_bytes}-{len(self.pieces)}"'


class S3Sink:
    """Buckets in memory; requests are not authenticated."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[str, dict[str, Stored]] = {}
        self._uploads: dict[str, dict[int, Piece]] = {}
        self._upload_ids = itertools.count(1)

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        bucket, _, key = request.path.lstrip("/").partition("/")
        if bucket == "benchmark-arrived":
            return self._arrived(key)
        objects = self._buckets.setdefault(bucket, {})
        if not key:
            return self._of_bucket(request, bucket, objects)
        if "uploadId" in request.query or "uploads" in request.query:
            return self._of_upload(request, objects, key)
        if request.method == "PUT":
            return self._put(request, objects, key)
        return _of_object(request, objects, key)

    def _put(self, request: Request, objects: dict[str, Stored], key: str) -> Response:
        refusal = _refusal(request, objects.get(key))
        if refusal:
            return refusal
        piece = _receive(request, is_kept=not key.startswith(_DROPPED))
        with self._lock:
            # Looked at again: of two writers at once, one is too late.
            refusal = _refusal(request, objects.get(key)) or _refusal_of_bytes(piece)
            if refusal:
                return refusal
            stored = objects[key] = Stored((piece,))
        return Response(headers={"ETag": stored.etag, **piece.checksums})

    def _arrived(self, bucket: str) -> Response:
        """What arrived in a bucket, which is forgotten with it."""
        found = {
            key: [(piece.size_bytes, piece.crc32) for piece in stored.pieces]
            for key, stored in self._buckets.pop(bucket, {}).items()
            if key.startswith(_DROPPED)
        }
        return Response(body=json.dumps(found).encode())

    def _of_bucket(self, request: Request, bucket: str, objects: dict[str, Stored]) -> Response:
        if request.method == "GET" and "uploads" in request.query:
            return _xml(f"<ListMultipartUploadsResult {_S3}/>")
        if request.method != "GET":
            return Response()
        after = request.query.get("continuation-token") or request.query.get("start-after", "")
        prefix = request.query.get("prefix", "")
        most = min(_MAX_KEYS, int(request.query.get("max-keys", _MAX_KEYS)))
        keys = sorted(key for key in list(objects) if key.startswith(prefix) and key > after)
        shown = keys[:most]
        rows = "".join(_listed(key, objects[key]) for key in shown)
        is_cut = len(keys) > len(shown)
        token = ""
        if is_cut and shown:
            token = f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>"
        return _xml(
            f"<ListBucketResult {_S3}><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(shown)}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>{token}{rows}</ListBucketResult>"
        )

    def _of_upload(self, request: Request, objects: dict[str, Stored], key: str) -> Response:
        upload_id = request.query.get("uploadId", "")
        if request.method == "POST" and not upload_id:
            upload_id = f"upload-{next(self._upload_ids)}"
            self._uploads[upload_id] = {}
            return _xml(
                f"<InitiateMultipartUploadResult {_S3}><Key>{escape(key)}</Key>"
                f"<UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>"
            )
        parts = self._uploads.get(upload_id)
        if parts is None:
            return _error(404, "NoSuchUpload")
        if request.method == "PUT":
            piece = _receive(request, is_kept=not key.startswith(_DROPPED))
            parts[int(request.query["partNumber"])] = piece
            headers = {"ETag": Stored((piece,)).etag, **piece.checksums}
            return _refusal_of_bytes(piece) or Response(headers=headers)
        if request.method == "DELETE":
            del self._uploads[upload_id]
            return Response(204)
        with self._lock:
            refusal = _refusal(request, objects.get(key))
            if not refusal:
                objects[key] = _joined(request, self._uploads.pop(upload_id))
        return refusal or _xml(
            f"<CompleteMultipartUploadResult {_S3}><Key>{escape(key)}</Key>"
            f"<ETag>{escape(objects[key].etag)}</ETag></CompleteMultipartUploadResult>"
        )


def _joined(request: Request, parts: dict[int, Piece]) -> Stored:
    """The parts that the request names, in its order."""
    named = fromstring(request.content())  # noqa: S314 - as above
    numbers = [int(each.text or "") for each in named.iter() if each.tag.endswith("PartNumber")]
    return Stored(tuple(parts[number] for number in numbers))


def _of_object(request: Request, objects: dict[str, Stored], key: str) -> Response:
    if request.method == "DELETE":
        objects.pop(key, None)
        return Response(204)
    stored = objects.get(key)
    if stored is None:
        return Response(404) if request.method == "HEAD" else _error(404, "NoSuchKey")
    headers = {
        "ETag": stored.etag,
        "Last-Modified": format_datetime(stored.modified, usegmt=True),
        "Content-Type": "application/octet-stream",
    }
    if request.method == "HEAD":
        return Response(headers=headers, length=stored.size_bytes)
    contents = [piece.content for piece in stored.pieces]
    if None in contents:
        return _error(501, "NotImplemented")  # nobody who copies needs to read a capture back
    return Response(headers=headers, body=b"".join(content or b"" for content in contents))


def _receive(request: Request, *, is_kept: bool) -> Piece:
    size_bytes = crc32 = 0
    kept = bytearray()
    for view in request.pieces():
        size_bytes += len(view)
        crc32 = zlib.crc32(view, crc32)
        if is_kept:
            kept += view
    checksums = {
        name: value
        for name, value in (request.headers | request.trailers).items()
        if name.startswith("x-amz-checksum-") and name != "x-amz-checksum-algorithm"
    }
    return Piece(size_bytes, crc32, bytes(kept) if is_kept else None, checksums)


def _refusal_of_bytes(piece: Piece) -> Response | None:
    """A refusal where the one checksum that is computed anyway is another than the client says."""
    told = piece.checksums.get("x-amz-checksum-crc32")
    is_right = told in {None, base64.b64encode(piece.crc32.to_bytes(4, "big")).decode()}
    return None if is_right else _error(400, "BadDigest")


def _refusal(request: Request, there: Stored | None) -> Response | None:
    if "if-none-match" in request.headers and there is not None:
        return _error(412, "PreconditionFailed")
    if_match = request.headers.get("if-match")
    if if_match is not None and (there is None or there.etag != if_match):
        return _error(412, "PreconditionFailed") if there else _error(404, "NoSuchKey")
    return None


def _listed(key: str, stored: Stored) -> str:
    modified = f"{stored.modified:%Y-%m-%dT%H:%M:%S}.000Z"
    return (
        f"<Contents><Key>{escape(key)}</Key><LastModified>{modified}</LastModified>"
        f"<ETag>{escape(stored.etag)}</ETag><Size>{stored.size_bytes}</Size></Contents>"
    )


def _xml(text: str) -> Response:
    return Response(headers=_XML, body=f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode())


def _error(status: int, code: str) -> Response:
    return Response(status, f"<Error><Code>{code}</Code></Error>".encode(), _XML)
