"""Faults that can be switched on while the sandbox runs."""

import random
from dataclasses import dataclass, fields
from typing import Any, Literal, cast, get_args

from include.sandbox.answers import Answer, html_answer, json_answer, retry_after_header, s3_refusal

Endpoint = Literal["token", "applications", "tasks", "captures", "search", "subscriptions", "media"]

KINDS = {
    "throttle": "429 with Retry-After in seconds (retry_after_seconds)",
    "throttle_no_header": "429 without Retry-After",
    "throttle_http_date": "429 with Retry-After as an HTTP date",
    "http_401": "401: the access token is not accepted",
    "http_403": "403",
    "http_404": "404",
    "http_500": "500 with an HTML body",
    "http_502": "502 with an HTML body",
    "http_503": "503 with an HTML body",
    "http_504": "504 with an HTML body",
    "json_error_in_200": "200 with an error document in JSON",
    "html_in_200": "200 with an HTML page",
    "graphql_errors_in_200": "200 with GraphQL's errors[] and without data",
    "redirect": "302 to another place (location)",
    "expired_url": "403 of S3: Request has expired",
    "purged": "404 of S3: NoSuchKey",
    "reset_before_headers": "the connection is reset (RST), the request is not processed",
    "reset_after_processing": "processed, then the connection is reset without an answer",
    "reset_mid_body": "reset after part of the body",
    "short_body": "right Content-Length, closed after part of the body",
    "short_body_chunked": "no Content-Length, ends cleanly after part of the body",
    "empty_body": "the right status with Content-Length 0",
    "extra_bytes": "no Content-Length, 1,000 bytes too many",
    "stall_before_headers": "sleeps (seconds), then answers whole",
    "stall": "sleeps (seconds) after part of the body, then sends the rest",
}

_ANSWERED_INSTEAD = (
    "throttle",
    "http_",
    "json_error_in_200",
    "html_in_200",
    "graphql_errors_in_200",
    "redirect",
    "expired_url",
    "purged",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: where, what and how often.

    Without ``probability`` and ``times`` it strikes always. ``after`` leaves the first
    matching requests alone; ``match`` wants the text somewhere in the path, the query or
    (API only) the request's body. ``share`` is the part of a body sent before the strike.
    """

    endpoint: Endpoint
    kind: str
    probability: float = 1.0
    times: int | None = None
    after: int = 0
    match: str = ""
    seconds: float = 30.0
    share: float = 0.5
    retry_after_seconds: int = 1
    location: str = "http://redirected.invalid/"

    @property
    def is_answered_instead(self) -> bool:
        """Whether the request is not processed but answered by the fault."""
        return self.kind.startswith(_ANSWERED_INSTEAD)

    def answer(self, now_ms: int) -> Answer:
        """What is sent in place of the endpoint's own answer."""
        reason = f"fault: {self.kind}"
        if self.kind.startswith("throttle"):
            form = {"throttle": "seconds", "throttle_http_date": "date"}.get(self.kind, "absent")
            content = {"code": 429, "message": "Too many requests. Rate limit exceeded."}
            answer = json_answer(content, 429, reason)
            answer.headers.update(retry_after_header(form, self.retry_after_seconds, now_ms))
            return answer
        if self.kind.startswith(("http_", "html_in_")):
            return html_answer(int(self.kind[-3:]), reason)
        if self.kind in ("json_error_in_200", "graphql_errors_in_200"):
            error = {"error": {"key": "500", "message": [{"description": reason}]}}
            errors = {"errors": [{"message": reason}], "data": None}
            return json_answer(error if self.kind == "json_error_in_200" else errors)
        if self.kind == "redirect":
            return Answer(302, b"", {"Location": self.location}, reason)
        if self.kind == "expired_url":
            return s3_refusal(403, "AccessDenied", "Request has expired", {})
        return s3_refusal(404, "NoSuchKey", "The specified key does not exist.", {})


def parse_fault(content: object) -> Fault:
    """A fault from its JSON object.

    Raises:
        ValueError: It has an unknown member, endpoint or kind, or a value of a wrong type.
    """
    if not isinstance(content, dict):
        raise ValueError("A fault is a JSON object.")  # noqa: TRY004 - a bad request, not a bug
    members = cast("dict[str, Any]", content)
    known = {field.name for field in fields(Fault)}
    if unknown := sorted(members.keys() - known):
        raise ValueError(f"Unknown members {unknown}; a fault has {sorted(known)}.")
    if members.get("endpoint") not in get_args(Endpoint):
        raise ValueError(f"endpoint must be one of {list(get_args(Endpoint))}.")
    if members.get("kind") not in KINDS:
        raise ValueError(f"kind must be one of {list(KINDS)}.")
    for name in ("probability", "times", "after", "seconds", "share", "retry_after_seconds"):
        value = members.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ValueError(f"{name} must be a number, not negative.")
    for name in ("match", "location"):
        if not isinstance(members.get(name, ""), str):
            raise ValueError(f"{name} must be text.")  # noqa: TRY004 - a bad request, not a bug
    return Fault(**members)


@dataclass(slots=True)
class _ArmedFault:
    fault: Fault
    chance: random.Random
    met: int = 0
    struck: int = 0

    def strikes(self) -> bool:
        """Whether this matching request is struck; counts it."""
        fault = self.fault
        self.met += 1
        if self.met <= fault.after or (fault.times is not None and self.struck >= fault.times):
            return False
        if self.chance.random() >= fault.probability:
            return False
        self.struck += 1
        return True


class FaultBoard:
    """The faults in force. The same requests in the same order meet the same faults."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._armed: list[_ArmedFault] = []

    def replace(self, faults: list[Fault]) -> None:
        """Put these faults in force instead of the present ones; none ends them."""
        self._armed = [
            _ArmedFault(
                fault,
                random.Random(f"{self._seed}:{place}"),  # noqa: S311 - chance, not a secret
            )
            for place, fault in enumerate(faults)
        ]

    def choose(self, endpoint: Endpoint, target: str) -> Fault | None:
        """The fault this request meets, if any: the first in the list that strikes."""
        for armed in self._armed:
            fault = armed.fault
            if fault.endpoint == endpoint and fault.match in target and armed.strikes():
                return fault
        return None

    def report(self) -> list[dict[str, Any]]:
        """Every fault in force, and how often it was met and struck."""
        return [
            {field.name: getattr(armed.fault, field.name) for field in fields(Fault)}
            | {"met": armed.met, "struck": armed.struck}
            for armed in self._armed
        ]
