"""The only place that sends API requests: budget, bearer token, retries and what each answer means."""

import json
import logging
import random
import re
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, NoReturn, cast
from urllib.parse import urlencode, urlsplit

import tenacity
from pydantic import SecretStr

from include.domain.contact_centre import JsonObject
from include.domain.errors import PermanentError, TokenRejected, TransientError
from include.domain.redaction import redact
from include.http.connection_pool import (
    Address,
    Answer,
    ConnectionPool,
    ConnectTimeout,
    Endpoint,
    system_addresses,
)
from include.webex.connection import CONNECTION_ID, WebexConnection
from include.webex.json_answers import parse_json_object, read_body
from include.webex.json_fields import Fields, text
from include.webex.rate_budget import MAX_PAUSE_SECONDS, RateBudget

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 6
# Far longer than any storm of 429 seen; then Airflow's retries of the Airflow task begin.
MAX_THROTTLED_SECONDS = 7200
_MAX_BACKOFF_SECONDS = 60
_TIMEOUT_SECONDS = (10.0, 60.0)
_DEFAULT_RETRY_AFTER_SECONDS = 60.0  # documented for 429 without a header by Cisco's own samples
_MAX_ANSWER_BYTES = (
    16 << 20
)  # 16 KiB for each contact task of a full page; its JSON takes up to 30 times that
_MAX_EXPLANATION_BYTES = 64 << 10
USER_AGENT = "webex-contact-center-archive"
_SETTING = f"the host of the connection {CONNECTION_ID}"
_READ = frozenset({200})
# Documented: 200 after a PATCH, 201 after a POST, 204 after a DELETE; which of them comes is all the same.
_WRITTEN = frozenset({200, 201, 202, 204})
_UNPLAIN = re.compile(r"[^A-Za-z0-9_-]")
# How graphql-java begins to tell that it is the query that is wrong; anything else may pass.
_FAULTY_QUERY = re.compile(r"Validation ?Error|Invalid ?Syntax|FieldUndefined", re.IGNORECASE)


class Throttled(TransientError):
    """429: the request was not processed; ``retry_after_seconds`` says when the next may be sent."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("Webex still throttles this client id (429): lower requests_per_minute.")
        self.retry_after_seconds = retry_after_seconds


class TooLarge(PermanentError):
    """413: the answer would be too large; ask for less."""


class Refused(PermanentError):
    """400, 422 or a faulty query: the request itself is refused; a smaller one may tell which part of it.

    Attributes:
        explanation: What the API says about it. It may hold anything, so it is read but never shown.
    """

    def __init__(self, message: str, explanation: str = "") -> None:
        super().__init__(message)
        self.explanation = SecretStr(explanation)


class Forbidden(PermanentError):
    """403: the token may not do this."""


class NotFound(PermanentError):
    """404: the path is unknown, or what it names is not there (any more)."""


class Redirected(TransientError):
    """3xx: never followed. It may be a load balancer's during maintenance; if it stays, a setting is wrong."""


class Unauthorized(PermanentError):
    """401: the access token is not accepted (any more)."""


@dataclass
class WebexClient:
    """Sends API requests as one org, within the rate budget of the client id.

    All retries of API requests are here; docs/operations.md, "What is tried again", has the table.

    - 429: the rate budget pauses for Retry-After, for all who share it, and the request is repeated for
      two hours. It counts as no attempt of what follows.
    - 3xx, 5xx, 408, 425, a broken connection, an answer that is none, a rate budget out of reach: six attempts,
      with waits of at most 1, 2, 4, 8 and 16 seconds between them, drawn at random.
    - 401: the access token is read again once, since another Airflow task may have refreshed it.
    - Everything else, an answer of another org included, is never repeated.

    Attributes:
        read_access_token: Gives the current access token; after a 401 it is called with the refused one,
            which it must not give again.
        sleep: Waits between attempts; the tests' clock takes its place.
        timeout_seconds: How long to wait for a connection, and for the headers or the next bytes of an answer.
        body_seconds: How long the body of an answer may take, however steadily it drips.
    """

    connection: WebexConnection
    read_access_token: Callable[[SecretStr | None], SecretStr]
    budget: RateBudget
    sleep: Callable[[float], None] = time.sleep
    timeout_seconds: tuple[float, float] = _TIMEOUT_SECONDS
    body_seconds: float = 120.0

    def __post_init__(self) -> None:
        base = urlsplit(self.connection.base_url)
        port = base.port or (443 if base.scheme == "https" else 80)
        self._endpoint = Endpoint(base.scheme, base.hostname or "", port)
        self._base_path = base.path
        connect_seconds, read_seconds = self.timeout_seconds
        self._connections = ConnectionPool(
            self._addresses,
            connect_seconds=connect_seconds,
            read_seconds=read_seconds,
            is_resending=False,  # the budget counts each request
        )
        self._access_token: SecretStr | None = None

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def get(self, path: str, parameters: Mapping[str, str | int]) -> JsonObject:
        """GET a path of the API; the answer's JSON object. See `request`."""
        return self._request("GET", path, params=dict(parameters), read=list_answer)

    def post(self, path: str, body: JsonObject) -> JsonObject:
        """POST a JSON body to a path of the API; the answer's JSON object. See `request`.

        Raises:
            Refused: 400 or 422.
            TooLarge: 413.
            TokenRejected: 401 with the newest access token.
            PermanentError: 403, 404, a redirect or an answer of another org.
            TransientError: Still failing when attempts or time are used up.
        """
        return self._request("POST", path, json_body=body, read=list_answer)

    def post_query(self, path: str, query: str, parameters: Mapping[str, str | int]) -> JsonObject:
        """POST a GraphQL query to a path of the API; the answer's JSON object, whose ``data`` is an object.

        An answer that tells any error is none, since it may lack a part.

        Raises:
            Refused: 400, 422, or a 200 that tells that the query is faulty.
            ArchiveError: As of `post`.
        """
        return self._request(
            "POST", path, params=dict(parameters), json_body={"query": query}, read=query_answer
        )

    def write(
        self,
        method: Literal["POST", "PATCH", "DELETE"],
        path: str,
        body: JsonObject | None = None,
        parameters: Mapping[str, str | int] | None = None,
    ) -> JsonObject:
        """Change something of the org; the answer's JSON object, empty where the answer has none.

        Where an answer is lost the request is sent again, so what it makes may be there twice.

        Raises:
            NotFound: 404.
            Forbidden: 403.
            ArchiveError: As of `post`.
        """
        return self._request(
            method,
            path,
            params=dict(parameters or {}),
            json_body=body,
            read=written_answer,
            statuses=_WRITTEN,
        )

    def _request(
        self,
        method: str,
        path: str,
        params: dict[str, str | int] | None = None,
        json_body: JsonObject | None = None,
        *,
        read: Callable[[bytes, str], JsonObject],
        statuses: frozenset[int] = _READ,
    ) -> JsonObject:
        if self._access_token is None:  # outside the retries: it waits a bounded time of its own
            self._access_token = self.read_access_token(None)

        def send() -> JsonObject:
            answer = read(self._send(method, path, params, json_body, statuses), path)
            self._check_org(answer, path)
            return answer

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_trouble),
            stop=tenacity.stop_after_attempt(MAX_ATTEMPTS),
            wait=_backoff,
            sleep=self.sleep,
            before_sleep=_log_retry,
            reraise=True,
        )
        patience = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Throttled),
            stop=_has_waited_long_enough,
            wait=_throttled_seconds,
            sleep=self.sleep,
            before_sleep=self._pause_all,
            reraise=True,
        )
        # One in the other: being throttled uses up no attempt, and trouble no patience with a 429.
        try:
            return patience(attempts, self._send_with_current_token, send)
        except Redirected as redirect:
            raise PermanentError(str(redirect)) from None

    def _pause_all(self, state: tenacity.RetryCallState) -> None:
        """The next request of anybody would be refused too, and might lengthen the pause."""
        if state.next_action:
            with suppress(TransientError):  # the store is out of reach: to acquire tells so
                self.budget.pause(state.next_action.sleep)
        _log_retry(state)

    def _send_with_current_token(self, send: Callable[[], JsonObject]) -> JsonObject:
        try:
            return send()
        except Unauthorized as refusal:
            try:
                self._access_token = self.read_access_token(self._access_token)
            except TransientError:  # nobody stored another one: this one is refused for good
                raise TokenRejected(str(refusal)) from None
        try:
            return send()
        except Unauthorized as refusal:
            raise TokenRejected(str(refusal)) from None

    def _send(
        self,
        method: str,
        path: str,
        params: dict[str, str | int] | None,
        body: JsonObject | None,
        statuses: frozenset[int],
    ) -> bytes:
        """The content of an answer with one of these statuses."""
        self.budget.acquire()
        try:
            with self._answer(method, path, params, body) as answer:
                answer.body_seconds = self.body_seconds
                is_answer = answer.status in statuses
                content = read_body(
                    answer, _MAX_ANSWER_BYTES if is_answer else _MAX_EXPLANATION_BYTES
                )
                if not is_answer:
                    _raise_for_status(answer, content, path, self.connection.base_url)
                if len(content) > _MAX_ANSWER_BYTES:
                    raise TooLarge(f"{path} answered more than {_MAX_ANSWER_BYTES >> 20} MiB.")
        # ValueError: a header that cannot be encoded; its text would quote the token.
        except (OSError, ValueError) as error:
            raise TransientError(
                f"The answer of {path} broke off ({type(error).__name__})."
            ) from None
        return content

    def _answer(
        self, method: str, path: str, params: dict[str, str | int] | None, body: JsonObject | None
    ) -> Answer:
        """The answer to a request, of which the body is not yet read; a redirect is one too.

        Raises:
            ArchiveError: The host is out of reach.
            TimeoutError: It is not, and does not answer.
        """
        assert self._access_token is not None
        target = f"{self._base_path}{path}"
        headers = {
            "Authorization": f"Bearer {self._access_token.get_secret_value()}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "TrackingId": f"wxcc-archive_{uuid.uuid4()}",
            "User-Agent": USER_AGENT,
        }
        content = b""
        if params:
            target += f"?{urlencode(params)}"
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body, allow_nan=False).encode()
        try:
            return self._connections.request(self._endpoint, method, target, headers, content)
        except OSError as error:
            if isinstance(error, TimeoutError) and not isinstance(error, ConnectTimeout):
                raise
            raise unreachable(self.connection.base_url, _SETTING, error) from None

    def _addresses(self, host: str, port: int) -> Sequence[Address]:
        try:
            return system_addresses(host, port)
        except UnicodeError:  # no name at all
            raise unusable_address(self.connection.base_url, _SETTING) from None

    def _check_org(self, answer: JsonObject, path: str) -> None:
        org_id = Fields(answer).nested("meta").take("orgId", text)
        if org_id and org_id.lower() != self.connection.org_id:
            raise PermanentError(
                f"{path} answered for another org: the extra field org_id of the connection {CONNECTION_ID} "
                "is not the org that the token was made for. Correct org_id or generate the pair in that org."
            )


def _raise_for_status(answer: Answer, content: bytes, path: str, base_url: str) -> NoReturn:
    """Raise what a status means; nobody else looks at one. The body is never quoted, it may hold anything."""
    status = answer.status
    tracking = _tracking_id(answer, content)
    if status == 429:
        raise Throttled(retry_after_seconds(answer.headers.get("retry-after")))
    if status >= 500 or status in {408, 425}:
        raise TransientError(f"{path} answered {status}{tracking}.")
    if status == 401:
        raise Unauthorized(
            f"{path} answered 401{tracking}: the access token is not accepted. Run refresh_access_token; if this "
            f"stays, the host of the connection {CONNECTION_ID} is not your org's data centre or the service app "
            "is no longer authorised in Control Hub."
        )
    if status in {400, 422}:
        raise Refused(
            f"{path} answered {status}{tracking}: the API refuses the request.",
            content[:_MAX_EXPLANATION_BYTES].decode(errors="replace"),
        )
    if status == 413:
        raise TooLarge(f"{path} answered 413{tracking}: the answer would be too large.")
    if status == 403:
        raise Forbidden(
            f"{path} answered 403{tracking}: the token may not read this org. Check that the service app has the "
            "scope cjp:config_read and is authorised in Control Hub for the org, and check the host of the connection "
            f"{CONNECTION_ID} and its extra field org_id."
        )
    error_type = NotFound if status == 404 else PermanentError
    raise (Redirected if 300 <= status < 400 else error_type)(
        f"{path} answered {status}{tracking}: {base_url} is not the API of your org's data centre; "
        f"check the host of the connection {CONNECTION_ID}."
    )


def _tracking_id(answer: Answer, content: bytes) -> str:
    """What Cisco's support asks for, from the header or the body (both seen); nothing else of the body."""
    tracking_id: object = answer.headers.get("trackingid")
    if not tracking_id:
        tracking_id = Fields(parse_json_object(content) or {}).as_told("trackingId")
    plain = _UNPLAIN.sub("", redact(str(tracking_id or "")[:1000]))[:80]
    return f" (tracking id {plain})" if plain else ""


def _json_object(content: bytes, path: str) -> JsonObject:
    """The JSON object of a 200; HTML, an error body or half an object is a server's trouble, not an answer."""
    answer = parse_json_object(content)
    if answer is None:
        raise TransientError(f"{path} answered 200 with something that is not a JSON object.")
    return answer


def list_answer(content: bytes, path: str) -> JsonObject:
    """The JSON object of a 200 whose ``data`` is a list; anything else may pass."""
    answer = _json_object(content, path)
    data = Fields(answer).as_told("data")
    if not isinstance(data, list):
        raise TransientError(f"{path} answered 200 without a list of data.")
    return {**answer, "data": cast("object", data)}


def written_answer(content: bytes, _path: str) -> JsonObject:
    """The JSON object of an answer to a change; empty where it has none, since the change is made all the same."""
    return parse_json_object(content) or {}


def query_answer(content: bytes, path: str) -> JsonObject:
    """The JSON object of a 200 to a GraphQL query, without errors; anything else may pass or is refused."""
    answer = _json_object(content, path)
    errors = Fields(answer).as_told("errors")
    if errors:
        explanation = json.dumps(errors)
        if _FAULTY_QUERY.search(explanation):
            raise Refused(f"{path} answered 200, and that the query is faulty.", explanation)
        raise TransientError(f"{path} answered 200 with errors of its own.")
    if not isinstance(Fields(answer).as_told("data"), dict):
        raise TransientError(f"{path} answered 200 without an object of data.")
    return answer


def retry_after_seconds(header: str | None) -> float:
    """Seconds to wait, from either form of Retry-After (documented: seconds; HTTP allows a date)."""
    text = (header or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return _DEFAULT_RETRY_AFTER_SECONDS
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


_backoff = tenacity.wait_random_exponential(multiplier=1, max=_MAX_BACKOFF_SECONDS)


def _is_trouble(error: BaseException) -> bool:
    return isinstance(error, TransientError) and not isinstance(error, Throttled)


def _has_waited_long_enough(state: tenacity.RetryCallState) -> bool:
    # The waits count even where a clock that is not the machine's served them.
    return max(state.seconds_since_start or 0.0, state.idle_for) >= MAX_THROTTLED_SECONDS


def _throttled_seconds(state: tenacity.RetryCallState) -> float:
    """What Retry-After asks for, and never less than a growing backoff: it may ask for 0 for hours."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, Throttled) else 0.0
    return max(min(asked, MAX_PAUSE_SECONDS), _backoff(state)) + random.uniform(0, 1)  # noqa: S311 - no secret


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("Attempt %d failed, another follows: %s", state.attempt_number, error)


def unreachable(url: str, setting: str, error: OSError) -> TransientError | PermanentError:
    """What a failed connection means: a host name that does not exist is a setting, the rest may pass."""
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
        return unusable_address(url, setting)
    return TransientError(
        f"{url} cannot be reached ({type(error).__name__}): check the network and {setting}."
    )


def unusable_address(url: str, setting: str) -> PermanentError:
    """The host name is none, or nobody has it."""
    return PermanentError(f"The host of {url} does not exist: check {setting}.")
