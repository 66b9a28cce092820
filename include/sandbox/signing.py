"""Download URLs: signed for one object and a time, in the manner of S3."""

import hmac
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from urllib.parse import parse_qsl, quote, unquote, urlencode

_STAMP = "%Y%m%dT%H%M%SZ"
_NAMES = {
    "X-Amz-Algorithm",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Credential",
}

BUCKET = "wxcc-sandbox-media-storage-recording"


class UrlRefusedError(Exception):
    """A download URL that S3 would refuse; ``code`` is S3's word for why."""

    def __init__(self, code: str, message: str, details: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details or {}


class UrlSigner:
    """Signs and checks URLs with a key derived from the seed; keeps nothing.

    The algorithm is simpler than the one it names: the client only passes the URL on.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"download urls", "sha256")

    def sign(self, host: str, quoted_path: str, now_ms: int, life_seconds: int) -> str:
        """The query string that opens a path, as it stands in the URL, for GET."""
        pairs, query = _parameters(now_ms // 1_000, life_seconds)
        return f"{query}&X-Amz-Signature={self._signature(host, quoted_path, pairs)}"

    def check(self, host: str, quoted_path: str, query: str, now_ms: int) -> None:
        """Accept a URL that was signed here, unaltered and in time.

        Raises:
            UrlRefusedError: As S3 answers (inferred): AccessDenied, SignatureDoesNotMatch.
        """
        pairs = parse_qsl(query, keep_blank_values=True)
        found = dict(pairs)
        signature = found.get("X-Amz-Signature")
        if signature is None or not _NAMES.issubset(found):
            raise UrlRefusedError("AccessDenied", "Access Denied")
        signed = [pair for pair in pairs if pair[0] != "X-Amz-Signature"]
        wanted = self._signature(host, quoted_path, signed)
        if not hmac.compare_digest(wanted.encode(), signature.encode()):
            raise UrlRefusedError(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. "
                "Check your key and signing method.",
            )
        begins = datetime.strptime(found["X-Amz-Date"], _STAMP).replace(tzinfo=UTC)
        life_seconds = int(found["X-Amz-Expires"])
        ends_ms = int(begins.timestamp() + life_seconds) * 1_000
        if now_ms >= ends_ms:
            details = {
                "X-Amz-Expires": str(life_seconds),
                "Expires": _iso(ends_ms),
                "ServerTime": _iso(now_ms),
            }
            raise UrlRefusedError("AccessDenied", "Request has expired", details)

    def _signature(self, host: str, quoted_path: str, pairs: list[tuple[str, str]]) -> str:
        # As in S3, it does not matter how a client quotes what needs no quoting.
        path = unquote(quoted_path)
        text = "\n".join(("GET", host.lower(), path, *(f"{k}={v}" for k, v in sorted(pairs))))
        return hmac.new(self._key, text.encode(), sha256).hexdigest()


def object_path(org_id: str, contact_task_id: str, object_id: str, file_name: str) -> str:
    """The quoted path of an object's URL: bucket, then the key layout reported of Webex."""
    return f"{BUCKET}/{org_id}/{contact_task_id}/{object_id}/{quote(file_name, safe='')}"


@lru_cache(maxsize=16)
def _parameters(now_seconds: int, life_seconds: int) -> tuple[list[tuple[str, str]], str]:
    """What all URLs of one second and life have in common."""
    stamp = datetime.fromtimestamp(now_seconds, UTC).strftime(_STAMP)
    pairs = [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Date", stamp),
        ("X-Amz-SignedHeaders", "host"),
        ("X-Amz-Expires", str(life_seconds)),
        ("X-Amz-Credential", f"AKIASANDBOX/{stamp[:8]}/us-east-1/s3/aws4_request"),
    ]
    return pairs, urlencode(pairs)


def _iso(instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
