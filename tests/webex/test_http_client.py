"""What each answer of the API means, over real HTTP with the sandbox's faults."""

import gzip
import logging
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.errors import ArchiveError, PermanentError, TokenRejected, TransientError
from include.sandbox.server import Sandbox
from include.webex import http_client
from include.webex.http_client import Refused, Throttled, TooLarge, WebexClient
from tests.builders import (
    NOW_MS,
    ORG_ID,
    CountingBudget,
    CurrentTokens,
    RecordingSleep,
    a_client_of,
    a_connection,
    an_access_token,
)
from tests.webex.web_server import a_server, reply

pytestmark = pytest.mark.enable_socket  # to the sandbox and to servers of the test

QUERY = {"from": NOW_MS - 3_600_000, "pageSize": 5, "orgId": ORG_ID}
SECRET = "a-token-that-nobody-may-see-77"


def ask(client: WebexClient) -> dict[str, Any]:
    return client.get("/v1/tasks", QUERY)


def slept(client: WebexClient) -> list[float]:
    assert isinstance(client.sleep, RecordingSleep)
    return client.sleep.seconds


def granted(client: WebexClient) -> int:
    assert isinstance(client.budget, CountingBudget)
    return client.budget.granted


def paused(client: WebexClient) -> list[float]:
    assert isinstance(client.budget, CountingBudget)
    return client.budget.pauses


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


def a_client_at(url: str, **changes: Any) -> WebexClient:
    return WebexClient(
        a_connection(host=url),
        CurrentTokens(SECRET, SECRET + "-2"),
        CountingBudget(),
        RecordingSleep(),
        **changes,
    )


@pytest.fixture
def client(start_sandbox: Callable[..., Sandbox]) -> Iterator[tuple[Sandbox, WebexClient]]:
    sandbox = start_sandbox()
    found = a_client_of(sandbox)
    yield sandbox, found
    found.close()


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [("throttle", 7, 8), ("throttle_no_header", 60, 61), ("throttle_http_date", 0, 8)],
    ids=["in seconds", "without a header", "as a date"],
)
def test_a_throttled_request_waits_as_told_and_is_repeated(
    client: tuple[Sandbox, WebexClient], kind: str, least: float, most: float
):
    sandbox, webex = client
    sandbox.set_faults([{"endpoint": "tasks", "kind": kind, "times": 2, "retry_after_seconds": 7}])

    assert len(ask(webex)["data"]) == 5

    assert len(slept(webex)) == 2
    assert all(least <= seconds <= most for seconds in slept(webex))
    assert paused(webex) == slept(webex), "all who share the budget wait"
    assert granted(webex) == 3


def test_a_date_in_retry_after_is_waited_for():
    header = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)

    assert 95 < http_client.retry_after_seconds(header) <= 100


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 60), ("", 60), ("soon", 60), ("-3", 60), ("1.5", 60), ("²", 60), ("0", 0), (" 12 ", 12),
        ("Mon, 01 Jan 1990 00:00:00 GMT", 0), ("Mon, 01 Jan 1990 00:00:00", 0),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", 60),
    ],
)  # fmt: skip
def test_every_retry_after_gives_a_time(header: str | None, seconds: float):
    assert http_client.retry_after_seconds(header) == seconds


@given(st.text(st.characters(max_codepoint=255)))
def test_no_retry_after_breaks_the_client(header: str):
    assert http_client.retry_after_seconds(header) >= 0


def test_throttling_that_does_not_end_is_given_up_after_two_hours(
    client: tuple[Sandbox, WebexClient],
):
    sandbox, webex = client
    sandbox.set_faults([{"endpoint": "tasks", "kind": "throttle", "retry_after_seconds": 120}])

    with pytest.raises(Throttled, match="requests_per_minute"):
        ask(webex)

    assert 7_200 <= sum(slept(webex)) <= 7_200 + 121


def test_a_wait_longer_than_ten_minutes_is_not_believed(client: tuple[Sandbox, WebexClient]):
    sandbox, webex = client
    fault = {"endpoint": "tasks", "kind": "throttle", "times": 1, "retry_after_seconds": 90_000}
    sandbox.set_faults([fault])

    ask(webex)

    assert slept(webex)[0] <= 601


def a_server_that_answers(*statuses: int, retry_after: int = 0) -> AbstractContextManager[str]:
    """With these one after the other, the last for ever."""
    left = list(statuses)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        status = left.pop(0) if len(left) > 1 else left[0]
        reply(handler, status, b'{"data": []}', Retry_After=retry_after)

    return a_server(answer)


def test_a_retry_after_of_nothing_is_followed_ever_more_slowly():
    """Otherwise a server that asks for no wait for an hour would get thousands of requests."""
    with a_server_that_answers(429) as url:
        webex = a_client_at(url)

        with pytest.raises(Throttled):
            ask(webex)

        assert sum(slept(webex)) >= http_client.MAX_THROTTLED_SECONDS
        assert granted(webex) < 400
        webex.close()


def test_being_throttled_uses_up_no_attempt():
    """An hour of 429 between troubles must not fail a run."""
    storm = [429] * 60
    with a_server_that_answers(
        500, 500, *storm, *[500] * 5, *storm, 503, 200, retry_after=30
    ) as url:
        webex = a_client_at(url)

        assert ask(webex) == {"data": []}
        assert len(paused(webex)) == len(storm) * 2
        webex.close()


class BudgetOutOfReach(CountingBudget):
    """Cannot be counted the first times, and never be paused."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)

    def acquire(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        super().acquire()

    def pause(self, seconds: float) -> None:
        raise TransientError("The store is away.")


def test_a_budget_out_of_reach_is_tried_again_and_nothing_is_sent_meanwhile():
    with a_server_that_answers(429, 200) as url:
        webex = a_client_at(url)
        away = TransientError("The store is away.")
        webex.budget = BudgetOutOfReach(away, away)

        assert ask(webex) == {"data": []}
        assert granted(webex) == 2
        assert len(slept(webex)) == 3

        webex.budget = BudgetOutOfReach(PermanentError("The store refuses us."))
        with pytest.raises(PermanentError, match="refuses us"):
            ask(webex)
        webex.close()


TROUBLES = [
    "http_500", "http_502", "http_503", "http_504", "html_in_200", "json_error_in_200",
    "reset_before_headers", "reset_after_processing", "reset_mid_body", "short_body",
    "short_body_chunked", "empty_body",
]  # fmt: skip


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_trouble_that_passes_is_waited_out(client: tuple[Sandbox, WebexClient], kind: str):
    sandbox, webex = client
    sandbox.set_faults([{"endpoint": "tasks", "kind": kind, "times": 2}])

    assert len(ask(webex)["data"]) == 5

    assert len(slept(webex)) == 2
    assert granted(webex) == 3


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_trouble_that_stays_ends_in_a_transient_error(
    client: tuple[Sandbox, WebexClient], kind: str
):
    sandbox, webex = client
    token = webex.read_access_token(None)
    webex.read_access_token = lambda spent: token
    sandbox.set_faults([{"endpoint": "tasks", "kind": kind}])

    with pytest.raises(TransientError) as raised:
        ask(webex)

    assert granted(webex) == http_client.MAX_ATTEMPTS
    assert len(slept(webex)) == http_client.MAX_ATTEMPTS - 1
    assert sum(slept(webex)) <= 1 + 2 + 4 + 8 + 16
    assert len({*slept(webex)}) == len(slept(webex)), "drawn at random"
    assert token.get_secret_value() not in everything_said(raised.value)


@pytest.mark.parametrize(
    ("kind", "error", "sentence"),
    [
        ("http_403", PermanentError, "cjp:config_read"),
        ("http_404", PermanentError, "data centre"),
    ],
)
def test_a_refusal_is_not_repeated_and_names_the_remedy(
    client: tuple[Sandbox, WebexClient], kind: str, error: type[ArchiveError], sentence: str
):
    sandbox, webex = client
    sandbox.set_faults([{"endpoint": "tasks", "kind": kind}])

    with pytest.raises(error, match=sentence):
        ask(webex)

    assert granted(webex) == 1
    assert slept(webex) == []


def test_a_redirect_is_trouble_first_and_a_wrong_setting_if_it_stays(
    client: tuple[Sandbox, WebexClient],
):
    """Load balancers redirect to a sorry page; a wrong data centre does so for ever. None is followed."""
    sandbox, webex = client
    sandbox.set_faults([{"endpoint": "tasks", "kind": "redirect", "times": 1}])
    assert ask(webex)["data"] is not None

    sandbox.set_faults([{"endpoint": "tasks", "kind": "redirect"}])
    with pytest.raises(PermanentError, match=r"302.*check the host"):
        ask(webex)
    assert granted(webex) == 2 + http_client.MAX_ATTEMPTS


@pytest.mark.parametrize("body", ["api", "wrapper", "gateway", "html", "empty"])
def test_a_bad_request_is_refused_whatever_its_body(
    start_sandbox: Callable[..., Sandbox], body: str
):
    webex = a_client_of(start_sandbox(error_body=body))

    with pytest.raises(Refused, match="400"):
        webex.post("/v1/captures/query", {"query": {}})

    assert granted(webex) == 1
    webex.close()


def test_an_answer_too_large_says_so(start_sandbox: Callable[..., Sandbox]):
    webex = a_client_of(start_sandbox(rows_max=2))

    with pytest.raises(TooLarge, match="413"):
        ask(webex)
    webex.close()


def test_a_refused_access_token_is_read_again_once(start_sandbox: Callable[..., Sandbox]):
    """Another Airflow task may have refreshed it."""
    sandbox = start_sandbox()
    tokens = CurrentTokens("an-old-token", an_access_token(sandbox))
    webex = a_client_of(sandbox, tokens)

    assert ask(webex)["data"]
    ask(webex)

    assert tokens.refused == [None, "an-old-token"]
    assert granted(webex) == 3
    webex.close()


@pytest.mark.parametrize("tokens", [("one-old-token",), ("one-old-token", "another-old-token")])
def test_tokens_refused_twice_stop_the_run(
    start_sandbox: Callable[..., Sandbox], tokens: tuple[str, ...]
):
    webex = a_client_of(start_sandbox(), CurrentTokens(*tokens))

    with pytest.raises(TokenRejected, match="refresh_access_token") as raised:
        ask(webex)

    assert granted(webex) == len(tokens)
    assert not any(token in everything_said(raised.value) for token in tokens)
    webex.close()


def test_an_answer_of_another_org_stops_the_run():
    body = b'{"meta":{"orgId":"00000000-0000-4000-8000-000000000000"},"data":[]}'
    with a_server(lambda handler: reply(handler, 200, body)) as url:
        webex = a_client_at(url)

        with pytest.raises(PermanentError, match="org_id"):
            ask(webex)

        assert granted(webex) == 1
        webex.close()


@pytest.mark.parametrize(
    "meta", [b'{"orgId":"%s"}' % ORG_ID.upper().encode(), b'{"orgId":null}', b"{}", b"[]", b"null"]
)
def test_an_answer_of_this_org_or_without_any_is_taken(meta: bytes):
    with a_server(lambda handler: reply(handler, 200, b'{"meta":%s,"data":[]}' % meta)) as url:
        webex = a_client_at(url)

        assert ask(webex)["data"] == []
        webex.close()


@pytest.mark.parametrize(
    ("host", "setting"),
    [("https://nowhere.example.invalid", "host of the connection webex_contact_center")],
)
def test_a_host_name_that_nobody_has_is_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, host: str, setting: str
):
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)  # the machine's resolver may be away
    webex = a_client_at(host)

    with pytest.raises(PermanentError, match=setting):
        ask(webex)

    assert granted(webex) == 1


def test_a_host_name_that_cannot_be_one_is_a_wrong_setting():
    webex = a_client_at("https://*.example.com")

    with pytest.raises(PermanentError, match="host of the connection"):
        ask(webex)

    assert granted(webex) == 1


def test_a_resolver_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch):
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    with pytest.raises(TransientError, match="cannot be reached"):
        ask(a_client_at("https://nowhere.example.invalid"))


def test_a_refused_port_may_open_again():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"

    webex = a_client_at(url)
    with pytest.raises(TransientError, match="cannot be reached"):
        ask(webex)

    assert granted(webex) == http_client.MAX_ATTEMPTS


def test_a_request_carries_the_token_and_no_netrc(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    """requests would let ~/.netrc replace the bearer token."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    seen: list[dict[str, str]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append({name.lower(): value for name, value in handler.headers.items()})
        members = gzip.compress(b'{"data"') + gzip.compress(b":[]}")
        reply(handler, 200, members, Content_Encoding="gzip")

    with a_server(answer) as url:
        webex = a_client_at(url)
        assert ask(webex) == {"data": []}
        webex.close()

    assert seen[0]["authorization"] == f"Bearer {SECRET}"
    assert seen[0]["trackingid"].startswith("wxcc-archive_")
    assert "gzip" in seen[0]["accept-encoding"]


@pytest.mark.parametrize(
    ("headers", "body", "told"),
    [
        ({"trackingid": "GTWY_1"}, b"", "GTWY_1"),
        ({}, b'{"trackingId":"ROUTER_2-a"}', "ROUTER_2-a"),
        ({}, b'{"trackingId":"<b> +1 212 555 Bearer 0a1b2c3d"}', "tracking id bBearer"),
        ({}, b"[]", "answered 400:"),
        ({}, b"\xff\xfe", "answered 400:"),
        ({}, b"[" * 200_000, "answered 400:"),
    ],
    ids=["header", "body", "cleaned", "list", "not text", "nested too deep"],
)
def test_the_tracking_id_is_the_only_thing_quoted(
    headers: dict[str, str | int], body: bytes, told: str
):
    with a_server(lambda handler: reply(handler, 400, body, **headers)) as url:
        webex = a_client_at(url)

        with pytest.raises(Refused, match=told.replace("+", r"\+")):
            ask(webex)
        webex.close()


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b"{}", b'{"data":{}}', b'{"data":null}', b"{", b"", b"[" * 200_000, b"\xff"],
    ids=["list", "null", "no data", "object", "null data", "half", "empty", "nested", "not text"],
)
def test_a_200_that_is_no_answer_is_a_trouble(body: bytes):
    with a_server(lambda handler: reply(handler, 200, body)) as url:
        webex = a_client_at(url)

        with pytest.raises(TransientError, match="200"):
            ask(webex)
        webex.close()


QUERY_ERRORS = {
    "a fault of its own": (
        b'{"errors":[{"message":"Exception while fetching data"}],"data":{}}',
        TransientError,
    ),
    "part of an answer": (b'{"errors":[{}],"data":{"taskDetails":{"tasks":[]}}}', TransientError),
    "no object": (b'{"data":[]}', TransientError),
    "nothing": (b'{"data":null}', TransientError),
    "no JSON": (b"<html>", TransientError),
    "an unknown field": (
        b'{"errors":[{"message":"Validation error (FieldUndefined@[a/b])"}]}',
        Refused,
    ),
    "a class": (b'{"errors":[{"extensions":{"classification":"ValidationError"}}]}', Refused),
    "bad syntax": (b'{"errors":[{"message":"Invalid Syntax : offending token"}]}', Refused),
}


@pytest.mark.parametrize(("body", "error"), QUERY_ERRORS.values(), ids=QUERY_ERRORS)
def test_a_query_answered_200_with_errors_is_no_answer(body: bytes, error: type[ArchiveError]):
    """A part of an answer must never look like all of it; only a faulty query is not repeated."""
    with a_server(lambda handler: reply(handler, 200, body)) as url:
        webex = a_client_at(url)

        with pytest.raises(error, match="200"):
            webex.post_query("/search", "{ taskDetails }", {})

        assert granted(webex) == (1 if error is Refused else http_client.MAX_ATTEMPTS)
        webex.close()


@pytest.mark.parametrize("told", ["http_400", "graphql"])
def test_why_a_query_is_refused_can_be_read_but_is_never_shown(
    start_sandbox: Callable[..., Sandbox], told: str
):
    webex = a_client_of(start_sandbox(search_query_error=told))

    with pytest.raises(Refused) as raised:
        webex.post_query("/search", "{ someone { phone } }", {"orgId": ORG_ID})

    assert "someone" in raised.value.explanation.get_secret_value()
    assert "someone" not in repr(raised.value.__dict__) + str(raised.value)
    webex.close()


def test_a_query_names_its_org_and_is_answered(start_sandbox: Callable[..., Sandbox]):
    webex = a_client_of(start_sandbox())
    query = f"{{ task(from: {NOW_MS - 1}, to: {NOW_MS}) {{ tasks {{ id }} }} }}"

    assert webex.post_query("/search", query, {"orgId": ORG_ID}) == {
        "data": {"task": {"tasks": []}}
    }
    with pytest.raises(PermanentError, match="403"):
        webex.post_query("/search", query, {"orgId": "11111111-2222-4333-8444-555555555555"})
    webex.close()


@pytest.mark.parametrize("with_length", [True, False], ids=["with its length", "without"])
def test_an_answer_that_drips_is_cut_off(with_length: bool):
    """Each byte is in time, the whole would take an hour."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if with_length:
            handler.send_header("Content-Length", "36000")
        handler.end_headers()
        with suppress(OSError):
            for _ in range(36_000):
                handler.wfile.write(b" ")
                time.sleep(0.1)

    with a_server(drip) as url:
        webex = a_client_at(url)
        webex.body_seconds = 0.15
        begun = time.monotonic()

        with pytest.raises(TransientError):
            ask(webex)

        assert granted(webex) == http_client.MAX_ATTEMPTS
        assert time.monotonic() - begun < 10
        webex.close()


@pytest.mark.parametrize(
    "line", [b"A: header\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["headers", "promises"]
)
def test_an_answer_that_never_begins_is_given_up(line: bytes):
    def drip(handler: BaseHTTPRequestHandler) -> None:
        if line.startswith(b"A"):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        with suppress(OSError):
            for _ in range(100):
                handler.wfile.write(line)
                time.sleep(0.05)

    with a_server(drip) as url:
        webex = a_client_at(url, timeout_seconds=(2.0, 0.15))

        with pytest.raises(TransientError, match="broke off"):
            ask(webex)

        assert granted(webex) == http_client.MAX_ATTEMPTS
        webex.close()


@pytest.mark.parametrize("status", [408, 425, 500, 599])
def test_these_statuses_may_pass(status: int):
    with a_server(lambda handler: reply(handler, status, b"")) as url:
        webex = a_client_at(url)

        with pytest.raises(TransientError, match=str(status)):
            ask(webex)

        assert granted(webex) == http_client.MAX_ATTEMPTS
        webex.close()


@pytest.mark.parametrize("status", [201, 204, 405, 410, 451])
def test_any_other_status_is_permanent(status: int):
    with a_server(lambda handler: reply(handler, status, b"")) as url:
        webex = a_client_at(url)

        with pytest.raises(PermanentError, match=str(status)):
            ask(webex)

        assert granted(webex) == 1
        webex.close()


def test_an_answer_that_does_not_unpack_is_a_trouble():
    with a_server(lambda handler: reply(handler, 200, b"not gzip", Content_Encoding="gzip")) as url:
        webex = a_client_at(url)

        with pytest.raises(TransientError, match="broke off"):
            ask(webex)
        webex.close()


@pytest.mark.parametrize("token", ["to\nken-in-two-lines", "tok\N{EURO SIGN}n-beyond-latin"])
def test_a_token_that_cannot_be_sent_is_not_quoted(token: str):
    with a_server(lambda handler: reply(handler, 200, b'{"data":[]}')) as url:
        webex = WebexClient(
            a_connection(host=url), CurrentTokens(token), CountingBudget(), RecordingSleep()
        )

        with pytest.raises(TransientError) as raised:
            ask(webex)

        assert token not in everything_said(raised.value)
        webex.close()


def test_the_log_of_a_retry_tells_why_and_no_secret(
    client: tuple[Sandbox, WebexClient], caplog: pytest.LogCaptureFixture
):
    sandbox, webex = client
    sandbox.set_faults([{"endpoint": "tasks", "kind": "http_503", "times": 1}])

    with caplog.at_level(logging.DEBUG):
        ask(webex)

    assert "Attempt 1 failed, another follows: /v1/tasks answered 503" in caplog.text
    assert "Bearer" not in caplog.text
