"""What an endpoint gives back, and the shapes in which Webex and S3 say no."""

import gzip
import json
from dataclasses import dataclass, field
from email.utils import formatdate
from html import escape
from typing import Any, cast
from uuid import uuid4

from include.sandbox.bodies import Body

HTML_PAGE = b"<html><head><title>%d</title></head><body><h1>%s</h1></body></html>"


class RefusalError(Exception):
    """A request that the API refuses; the message tells why, without secrets."""

    def __init__(
        self, status: int, reason: str, *, code: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.code = code
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response before it is sent. ``start`` and ``stop`` cut a streamed body (Range)."""

    status: int
    body: bytes | Body = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    reason: str = ""
    start: int = 0
    stop: int | None = None

    @property
    def size_bytes(self) -> int:
        """The length of what is to be sent."""
        if isinstance(self.body, bytes):
            return len(self.body)
        return (self.body.size_bytes if self.stop is None else self.stop) - self.start


def json_answer(content: object, status: int = 200, reason: str = "") -> Answer:
    """An answer in compact JSON."""
    body = json.dumps(content, separators=(",", ":")).encode()
    return Answer(status, body, {"Content-Type": "application/json"}, reason)


def compressed(answer: Answer, above_bytes: int, accept_encoding: str) -> Answer:
    """The answer in gzip where it is larger than so many bytes and the client takes gzip."""
    offered = {each.split(";")[0].strip() for each in accept_encoding.lower().split(",")}
    if answer.size_bytes <= above_bytes or "gzip" not in offered:
        return answer
    packed = gzip.compress(cast("bytes", answer.body), compresslevel=1)
    return Answer(answer.status, packed, answer.headers | {"Content-Encoding": "gzip"})


def html_answer(status: int, text: str) -> Answer:
    """A load balancer's page."""
    page = HTML_PAGE % (status, escape(text).encode())
    return Answer(status, page, {"Content-Type": "text/html"}, text)


def api_refusal(refusal: RefusalError, shape: str, tracking_id: str | None) -> Answer:
    """An API error in one of the shapes that are documented or reported."""
    tracking_id = tracking_id or str(uuid4())
    content: dict[str, Any] | None = None
    if shape == "api":
        message = [{"description": refusal.reason}]
        content = {
            "trackingId": tracking_id,
            "error": {"key": str(refusal.status), "message": message},
        }
    elif shape == "result":
        # Documented: ErrorResult of subscriptions and event types has an integer key.
        message = [{"description": refusal.reason}]
        content = {
            "trackingId": tracking_id,
            "error": {"key": refusal.status, "message": message},
        }
    elif shape == "wrapper":
        content = {
            "message": refusal.reason,
            "errors": [{"description": refusal.reason}],
            "trackingId": f"ROUTER_{tracking_id}",
        }
    elif shape == "gateway":
        content = {
            "code": refusal.status,
            "message": refusal.reason,
            "trackingId": f"GTWY_{tracking_id}",
        }
    if content is not None:
        answer = json_answer(content, refusal.status, refusal.reason)
    elif shape == "html":
        answer = html_answer(refusal.status, refusal.reason)
    else:
        answer = Answer(refusal.status, reason=refusal.reason)
    answer.headers.update(refusal.headers)
    answer.headers["trackingid"] = tracking_id
    return answer


def token_refusal(refusal: RefusalError, shape: str) -> Answer:
    """A token endpoint's error; two shapes are reported, others come from what stands before it."""
    if shape != "oauth":
        return api_refusal(refusal, shape, None)
    content = {"error": refusal.code, "error_description": refusal.reason}
    return json_answer(content, refusal.status, refusal.reason)


def s3_refusal(status: int, code: str, message: str, details: dict[str, str]) -> Answer:
    """S3's error document (inferred: standard behaviour of S3)."""
    rows = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in details.items())
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>{rows}"
        "<RequestId>5A9DB0X5A9DB0X00</RequestId></Error>"
    )
    return Answer(status, text.encode(), {"Content-Type": "application/xml"}, f"{code}: {message}")


def retry_after_header(form: str, seconds: int, now_ms: int) -> dict[str, str]:
    """``Retry-After`` in one of its forms; documented are seconds."""
    if form == "seconds":
        return {"Retry-After": str(seconds)}
    if form == "date":
        return {"Retry-After": formatdate(now_ms / 1_000 + seconds, usegmt=True)}
    return {}
