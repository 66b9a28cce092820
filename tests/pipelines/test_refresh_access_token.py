"""The only code that spends a refresh token, against the sandbox and a web server with odd answers."""

import json
import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr

from include.domain.errors import (
    AlreadyRefused,
    ArchiveError,
    PermanentError,
    TokenRejected,
    TransientError,
)
from include.pipelines.refresh_access_token import (
    MAX_ATTEMPTS,
    MAX_WAIT_SECONDS,
    HelperTokens,
    refresh_access_token,
    utc_now,
    wait_for_access_token,
)
from include.sandbox.server import Sandbox
from include.webex.connection import WebexConnection
from include.webex.token_helper import TokenHelper
from include.webex.tokens import TokenPair, seed_of
from tests.builders import (
    NOW,
    MemoryTokenStore,
    RecordingSleep,
    a_connection,
    a_connection_to,
    a_token_pair,
)
from tests.webex.web_server import a_server, reply

ORG_B = "11111111-2222-4333-8444-555555555555"
ANSWER = {
    "access_token": "a-new-access-token",
    "expires_in": 1_209_599,
    "refresh_token": "a-new-refresh-token",
    "refresh_token_expires_in": 7_775_999,
    "token_type": "Bearer",
}


def now() -> datetime:
    return NOW


def refresh(
    connection: WebexConnection, store: MemoryTokenStore, sleep: RecordingSleep | None = None
) -> TokenPair:
    return refresh_access_token(connection, store, now, sleep or RecordingSleep())


def token_requests(sandbox: Sandbox) -> dict[str, int]:
    return sandbox.requests()["counts"].get("token", {})


def no_secret_in(error: BaseException, *secrets: str) -> bool:
    told = "".join(traceback.format_exception(error)) + repr(error)
    return not any(secret in told for secret in secrets)


def test_a_fresh_pair_costs_no_request(start_sandbox: Callable[..., Sandbox]):
    sandbox = start_sandbox()
    connection = a_connection_to(sandbox)
    store = MemoryTokenStore(a_token_pair(connection))

    pair = refresh(connection, store)

    assert pair == a_token_pair(connection)
    assert token_requests(sandbox) == {}
    assert store.writes == 0


@pytest.mark.parametrize(
    ("lifetime", "left", "is_fresh"),
    [
        (timedelta(days=14), timedelta(days=4, seconds=1), True),
        (timedelta(days=14), timedelta(days=4), False),
        (timedelta(hours=12), timedelta(hours=6, seconds=1), True),
        (timedelta(hours=12), timedelta(hours=6), False),
        (timedelta(hours=12), timedelta(seconds=-1), False),
    ],
)
def test_a_pair_is_refreshed_long_before_it_ends(
    lifetime: timedelta, left: timedelta, *, is_fresh: bool
):
    pair = a_token_pair(a_connection(), lifetime=lifetime, expires_time=NOW + left)

    assert pair.is_fresh(NOW) is is_fresh


def test_the_first_refresh_token_buys_the_first_pair(start_sandbox: Callable[..., Sandbox]):
    sandbox = start_sandbox()
    connection, store = a_connection_to(sandbox), MemoryTokenStore()

    pair = refresh(connection, store)

    assert token_requests(sandbox) == {"200": 1}
    assert TokenPair.from_json(store.text or "") == pair
    # The answer's own numbers, one second less than documented; none is assumed.
    assert pair.expires_time == NOW + timedelta(days=14, seconds=-1)
    assert pair.refresh_token_expires_time == NOW + timedelta(days=90, seconds=-1)
    assert pair.is_fresh(NOW)
    assert refresh(connection, store) == pair
    assert token_requests(sandbox) == {"200": 1}


def expired(connection: WebexConnection, **changes: Any) -> TokenPair:
    return a_token_pair(connection, expires_time=NOW - timedelta(days=1), **changes)


@pytest.mark.parametrize("rotate", [True, False], ids=["rotated", "kept"])
@pytest.mark.parametrize("omit", [True, False], ids=["not told", "told"])
def test_an_expired_pair_costs_one_request_and_leaves_a_usable_refresh_token(
    start_sandbox: Callable[..., Sandbox], *, rotate: bool, omit: bool
):
    sandbox = start_sandbox(
        rotate_refresh_token=rotate and not omit,
        omit_refresh_token=omit,
        revoke_old_refresh_token=True,
    )
    connection = a_connection_to(sandbox)
    first = connection.refresh_token
    store = MemoryTokenStore()
    refresh(connection, store)
    old = TokenPair.from_json(store.text or "")
    store.write(expired(connection, refresh_token=old.refresh_token).to_json())

    pair = refresh(connection, store)

    assert token_requests(sandbox) == {"200": 2}
    assert (pair.refresh_token == first) is (omit or not rotate)
    assert (pair.refresh_token != old.refresh_token) is (rotate and not omit)
    assert pair.access_token.get_secret_value() in (store.text or "")


class CountingServer:
    """A token endpoint that answers as told and remembers the forms."""

    def __init__(self, *answers: tuple[int, object]) -> None:
        self.forms: list[dict[str, list[str]]] = []
        self._answers = list(answers)

    def __call__(self, handler: Any) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.forms.append(parse_qs(body.decode()))
        status, content = self._answers[min(len(self.forms), len(self._answers)) - 1]
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        reply(handler, status, text)

    @property
    def spent(self) -> list[str]:
        return [form["refresh_token"][0] for form in self.forms]


def test_the_request_is_the_documented_form():
    server = CountingServer((200, ANSWER))
    with a_server(server) as url:
        refresh(a_connection(token_url=f"{url}/v1/access_token"), MemoryTokenStore())

    assert server.forms == [
        {
            "grant_type": ["refresh_token"],
            "client_id": ["a-client-id"],
            "client_secret": ["a-client-secret"],
            "refresh_token": ["the-first-refresh-token"],
        }
    ]


@pytest.mark.parametrize(
    "answer",
    [
        {**ANSWER, "expires_in": "1209599"},
        {**ANSWER, "refresh_token": None, "refresh_token_expires_in": None},
        {**ANSWER, "refresh_token": "", "refresh_token_expires_in": "soon"},
        {"access_token": "a-new-access-token", "expires_in": 60, "new": {"a": 1}},
    ],
    ids=["numbers as text", "nulls", "empty", "only what is needed"],
)
def test_an_odd_but_usable_answer_is_taken(answer: dict[str, Any]):
    with a_server(CountingServer((200, answer))) as url:
        pair = refresh(a_connection(token_url=url), MemoryTokenStore())

    assert pair.access_token.get_secret_value() == "a-new-access-token"
    assert pair.refresh_token.get_secret_value() in {
        "a-new-refresh-token",
        "the-first-refresh-token",
    }
    assert pair.expires_time > NOW


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>", b"", b"[]", b"null", b"[" * 200_000, b"\xff", {},
        {**ANSWER, "access_token": None}, {**ANSWER, "access_token": ""},
        {**ANSWER, "access_token": 5}, {**ANSWER, "expires_in": 0}, {**ANSWER, "expires_in": True},
        {**ANSWER, "expires_in": -5}, {**ANSWER, "expires_in": 1e300}, {**ANSWER, "expires_in": "x"},
        {**ANSWER, "expires_in": None}, {**ANSWER, "expires_in": float("nan")},
    ],
    ids=lambda answer: repr(answer)[:30],
)  # fmt: skip
def test_a_200_without_a_token_is_tried_again_and_stores_nothing(answer: object):
    server, store, sleep = CountingServer((200, answer)), MemoryTokenStore(), RecordingSleep()
    with a_server(server) as url, pytest.raises(TransientError, match="access_token"):
        refresh(a_connection(token_url=url), store, sleep)

    assert len(server.forms) == MAX_ATTEMPTS
    assert store.is_empty


OAUTH = {"error": "invalid_grant", "error_description": "The refresh token is expired."}
WRAPPER = {"message": "POST failed: HTTP/1.1 400", "errors": [{"description": "x"}]}
CLIENT = {"error": "invalid_client"}
CLIENT_WRAPPER = {
    "message": "Invalid client credentials",
    "errors": [{"description": "The provided clientSecret is invalid"}],
}


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize(
    ("body", "remedy"),
    [
        (OAUTH, "extra field refresh_token"),
        (WRAPPER, "extra field refresh_token"),
        (b"<html>", "extra field refresh_token"),
        (CLIENT, "login and password"),
        (CLIENT_WRAPPER, "login and password"),
    ],
    ids=["oauth", "wrapper", "html", "client, oauth", "client, wrapper"],
)
def test_a_refusal_is_final_and_names_the_remedy(status: int, body: object, remedy: str):
    server, store = CountingServer((status, body)), MemoryTokenStore()
    with a_server(server) as url, pytest.raises(TokenRejected, match=remedy) as raised:
        refresh(a_connection(token_url=url), store)

    assert len(server.forms) == 1
    assert store.is_empty
    assert no_secret_in(raised.value, "the-first-refresh-token", "a-client-secret")


@pytest.mark.parametrize("shape", ["oauth", "wrapper"])
@pytest.mark.parametrize(
    ("changes", "remedy"),
    [({"refresh_token": "wrong"}, "extra field refresh_token"), ({"password": "no"}, "login and password")],
    ids=["refresh token", "client secret"],
)  # fmt: skip
def test_the_sandbox_refuses_wrong_credentials(
    start_sandbox: Callable[..., Sandbox], shape: str, changes: dict[str, str], remedy: str
):
    sandbox = start_sandbox(token_error=shape)

    with pytest.raises(TokenRejected, match=remedy):
        refresh(a_connection_to(sandbox, **changes), MemoryTokenStore())


@pytest.mark.parametrize(
    "kind",
    ["throttle", "http_500", "http_502", "http_503", "http_504", "reset_before_headers",
     "reset_mid_body", "short_body", "html_in_200", "empty_body"],
)  # fmt: skip
def test_trouble_is_retried_and_then_transient(start_sandbox: Callable[..., Sandbox], kind: str):
    sandbox = start_sandbox(rotate_refresh_token=False)
    connection, store = a_connection_to(sandbox), MemoryTokenStore()
    fault = {"endpoint": "token", "kind": kind}
    sandbox.set_faults([fault])
    sleep = RecordingSleep()

    with pytest.raises(TransientError) as raised:
        refresh(connection, store, sleep)

    assert len(sleep.seconds) == MAX_ATTEMPTS - 1
    assert sum(sleep.seconds) <= 20
    assert store.is_empty
    assert connection.refresh_token is not None
    assert no_secret_in(raised.value, connection.refresh_token.get_secret_value())

    sandbox.set_faults([{**fault, "times": 2}])
    assert refresh(connection, store).is_fresh(NOW)


def test_an_answer_lost_on_its_way_is_asked_for_with_the_same_refresh_token(
    start_sandbox: Callable[..., Sandbox],
):
    sandbox = start_sandbox(rotate_refresh_token=True)
    sandbox.set_faults([{"endpoint": "token", "kind": "reset_after_processing", "times": 1}])
    connection, store = a_connection_to(sandbox), MemoryTokenStore()

    assert refresh(connection, store).is_fresh(NOW)
    assert token_requests(sandbox) == {"reset": 1, "200": 1}


@pytest.mark.parametrize("has_another", [True, False], ids=["with another", "with no other"])
def test_an_answer_lost_after_rotating_costs_the_line_only_where_nothing_else_is_left(
    start_sandbox: Callable[..., Sandbox], *, has_another: bool
):
    """The first pair's refresh token is dead when its answer is lost; the connection's own may not be."""
    sandbox = start_sandbox(rotate_refresh_token=True, revoke_old_refresh_token=True)
    connection, store = a_connection_to(sandbox), MemoryTokenStore()
    assert connection.refresh_token is not None
    spent = a_connection_to(sandbox).refresh_token if has_another else connection.refresh_token
    assert spent is not None
    store.write(expired(connection, refresh_token=spent).to_json())
    sandbox.set_faults([{"endpoint": "token", "kind": "reset_after_processing", "times": 1}])

    if has_another:
        assert refresh(connection, store).is_fresh(NOW)
        assert token_requests(sandbox) == {"reset": 1, "400": 1, "200": 1}
        return
    with pytest.raises(TokenRejected, match="already spent") as raised:
        refresh(connection, store)
    assert token_requests(sandbox) == {"reset": 1, "400": 1}
    assert no_secret_in(raised.value, spent.get_secret_value())


@pytest.mark.parametrize("status", [302, 404, 405, 415])
def test_a_wrong_address_is_a_wrong_setting(status: int):
    with (
        a_server(CountingServer((status, b""))) as url,
        pytest.raises(PermanentError, match="token_url"),
    ):
        refresh(a_connection(token_url=url), MemoryTokenStore())


def test_a_refused_port_is_transient_and_names_the_setting():
    with a_server(CountingServer((200, ANSWER))) as url:
        pass

    with pytest.raises(TransientError, match="token_url"):
        refresh(a_connection(token_url=url), MemoryTokenStore())


class FailingStore(MemoryTokenStore):
    """Fails between the answer and the write, as a killed process does."""

    def write(self, text: str) -> None:
        raise OSError("killed")


def test_a_death_before_the_write_keeps_the_old_pair_and_the_next_run_succeeds(
    start_sandbox: Callable[..., Sandbox],
):
    sandbox = start_sandbox(rotate_refresh_token=True)
    connection = a_connection_to(sandbox)
    assert connection.refresh_token is not None
    old = expired(connection, refresh_token=connection.refresh_token).to_json()
    store = FailingStore(old)

    with pytest.raises(OSError, match="killed"):
        refresh(connection, store)
    assert store.text == old

    assert refresh(connection, MemoryTokenStore(store.text)).is_fresh(NOW)


def test_the_pair_is_written_before_anyone_gets_it(start_sandbox: Callable[..., Sandbox]):
    connection, store = a_connection_to(start_sandbox()), MemoryTokenStore()

    pair = refresh(connection, store)

    assert (store.writes, store.text) == (2, pair.to_json())  # the first tries the store


class ShadowedStore(MemoryTokenStore):
    """As Airflow's, where an environment variable hides what was written."""

    def write(self, text: str) -> None:
        self.writes += 1


def test_a_shadowed_variable_is_told(start_sandbox: Callable[..., Sandbox]):
    connection = a_connection_to(start_sandbox())
    store = ShadowedStore(expired(connection))

    with pytest.raises(PermanentError, match="AIRFLOW_VAR_WXCC_TOKEN"):
        refresh(connection, store)


def test_a_new_first_refresh_token_in_the_connection_takes_over():
    server = CountingServer((200, ANSWER))
    with a_server(server) as url:
        before = a_connection(token_url=url)
        store = MemoryTokenStore(a_token_pair(before))
        after = a_connection(token_url=url, refresh_token="a-newer-first-token")

        pair = refresh(after, store)

    assert server.spent == ["a-newer-first-token"]
    assert pair.seed == seed_of(after)


def test_the_stored_token_is_spent_first_and_the_connections_own_when_it_is_refused(
    caplog: pytest.LogCaptureFixture,
):
    server = CountingServer((400, OAUTH), (200, ANSWER))
    with a_server(server) as url, caplog.at_level(logging.WARNING):
        connection = a_connection(token_url=url)
        store = MemoryTokenStore(expired(connection))

        refresh(connection, store)

    assert server.spent == ["a-refresh-token", "the-first-refresh-token"]
    assert "Webex refuses the refresh token (400)" in caplog.text
    assert "a-refresh-token" not in caplog.text


def test_without_a_first_token_the_stored_line_goes_on():
    server = CountingServer((200, ANSWER))
    with a_server(server) as url:
        made_with = a_connection(token_url=url)
        connection = a_connection(token_url=url, refresh_token="")

        refresh(connection, MemoryTokenStore(expired(made_with)))

    assert server.spent == ["a-refresh-token"]


def test_without_any_refresh_token_the_error_says_where_to_get_one():
    with pytest.raises(PermanentError, match="Org Authorizations"):
        refresh(a_connection(refresh_token=None), MemoryTokenStore())


OTHERS = [
    {"org_id": ORG_B},
    {"login": "another-app"},
    {"token_url": "https://token.example.com/"},
]


@pytest.mark.parametrize("other", OTHERS, ids=["org", "app", "token endpoint"])
def test_a_pair_made_for_another_is_neither_spent_nor_handed_out(other: dict[str, str]):
    server = CountingServer((200, ANSWER))
    with a_server(server) as url:
        connection = a_connection(token_url=url)
        foreign = a_token_pair(a_connection(**{"token_url": url, **other}))
        store = MemoryTokenStore(foreign)

        with pytest.raises(PermanentError, match="made for another"):
            wait_for_access_token(connection, store, None, now, RecordingSleep())
        refresh(connection, store)

    assert server.spent == ["the-first-refresh-token"]


DAMAGED = [
    "{", "[]", "null", "5", "{}", "[" * 200_000,
    *(
        json.dumps({**json.loads(a_token_pair(a_connection()).to_json()), name: value})
        for name, value in [
            ("access_token", 5), ("access_token", ""), ("refresh_token", None), ("expires_time", "soon"),
            ("expires_time", "2026-09-14T10:00:00"), ("expires_time", 5), ("lifetime_seconds", "x"),
            ("lifetime_seconds", 1e300), ("refresh_token_expires_time", "2026-09-14"), ("seed", None),
        ]
    ),
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: text[-40:])
def test_a_damaged_pair_is_told_and_replaced_when_the_connection_can(text: str):
    with pytest.raises(PermanentError, match="wxcc_token"):
        TokenPair.from_json(text)
    with pytest.raises(PermanentError, match="wxcc_token"):
        refresh(a_connection(refresh_token=None), MemoryTokenStore(text))
    with a_server(CountingServer((200, ANSWER))) as url:
        assert refresh(a_connection(token_url=url), MemoryTokenStore(text)).is_fresh(NOW)


def test_a_pair_reads_back_as_it_was_written():
    for changes in ({}, {"refresh_token_expires_time": None}):
        pair = a_token_pair(a_connection(), **changes)

        assert TokenPair.from_json(pair.to_json()) == pair
    assert "an-access-token" not in repr(a_token_pair(a_connection()))


def test_a_usable_token_is_handed_out_without_waiting():
    connection, sleep = a_connection(), RecordingSleep()
    store = MemoryTokenStore(a_token_pair(connection, expires_time=NOW + timedelta(minutes=1)))

    token = wait_for_access_token(connection, store, None, now, sleep)

    assert token.get_secret_value() == "an-access-token"
    assert sleep.seconds == []


@pytest.mark.parametrize(
    ("left", "said"), [(None, "is missing"), (timedelta(seconds=30), "has ended")]
)
def test_waiting_for_a_token_is_bounded_and_says_so(
    left: timedelta | None, said: str, caplog: pytest.LogCaptureFixture
):
    connection, sleep = a_connection(), RecordingSleep()
    pair = a_token_pair(connection, expires_time=NOW + left) if left else None

    with pytest.raises(TransientError, match=said) as raised:
        wait_for_access_token(connection, MemoryTokenStore(pair), None, now, sleep)

    assert sum(sleep.seconds) == MAX_WAIT_SECONDS
    assert "un-pause" in str(raised.value)
    assert caplog.text.count("waiting for the DAG refresh_access_token") == 1


def test_a_token_that_comes_while_waiting_is_taken():
    connection, store = a_connection(), MemoryTokenStore()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            store.write(a_token_pair(connection).to_json())

    token = wait_for_access_token(connection, store, None, now, sleep)

    assert token.get_secret_value() == "an-access-token"
    assert len(slept) == 3


def test_the_refused_token_is_not_handed_out_again_and_not_waited_for():
    connection, sleep = a_connection(), RecordingSleep()
    store = MemoryTokenStore(a_token_pair(connection))

    with pytest.raises(TransientError):
        wait_for_access_token(connection, store, SecretStr("an-access-token"), now, sleep)
    other = wait_for_access_token(connection, store, SecretStr("an-older-token"), now, sleep)

    assert other.get_secret_value() == "an-access-token"
    assert sleep.seconds == []


def test_the_clock_is_aware_and_in_utc():
    assert utc_now().utcoffset() == timedelta(0)


def test_no_error_of_the_token_endpoint_is_of_another_kind(start_sandbox: Callable[..., Sandbox]):
    """A redirect must not carry the client secret elsewhere."""
    sandbox = start_sandbox()
    sandbox.set_faults([{"endpoint": "token", "kind": "redirect"}])

    with pytest.raises(ArchiveError, match="302"):
        refresh(a_connection_to(sandbox), MemoryTokenStore())


APPLICATION_URL = "/v1/applications/Y2lzY29zcGFyazovL3VzL0FQUExJQ0FUSU9OL2EtY2xpZW50LWlk/token"
GONE = (400, OAUTH)
GIVEN = (200, ANSWER)
HELPER_ANSWER = (200, {**ANSWER, "access_token": "a-helper-token", "refresh_token": "helper-2"})


class Webex:
    """Answers by who asks: the service app or the helper at the token endpoint, or the applications endpoint."""

    def __init__(self, **answers: list[tuple[int, object]]) -> None:
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self._answers = answers

    def __call__(self, handler: Any) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        if handler.path == APPLICATION_URL:
            who, what = "application", handler.headers["Authorization"]
            self.bodies.append(json.loads(body))
        else:
            form = parse_qs(body)
            who = {"a-client-id": "service_app", "helper-id": "helper"}[form["client_id"][0]]
            what = form["refresh_token"][0]
        self.asked.append((who, what))
        answers = self._answers.get(who, [(500, b"")])
        status, content = answers.pop(0) if len(answers) > 1 else answers[0]
        reply(handler, status, json.dumps(content).encode() if content else b"")


def a_helper(connection: WebexConnection, store: MemoryTokenStore, **extra: object) -> HelperTokens:
    extra = {"refresh_token": "helper-1", **extra}
    helper = TokenHelper.from_fields(connection, login="helper-id", password="hs", extra=extra)
    return HelperTokens(helper, store)


def test_the_helper_integration_buys_a_pair_when_every_refresh_token_is_dead():
    webex = Webex(service_app=[GONE], helper=[HELPER_ANSWER], application=[GIVEN])
    with a_server(webex) as url:
        connection = a_connection(token_url=f"{url}/v1/access_token")
        store, helper_store = MemoryTokenStore(expired(connection)), MemoryTokenStore()
        helper = a_helper(connection, helper_store)

        pair = refresh_access_token(connection, store, now, RecordingSleep(), helper=helper)

    assert webex.asked == [
        ("service_app", "a-refresh-token"),
        ("service_app", "the-first-refresh-token"),
        ("helper", "helper-1"),
        ("application", "Bearer a-helper-token"),
    ]
    assert webex.bodies == [
        {
            "clientId": "a-client-id",
            "clientSecret": "a-client-secret",
            "targetOrgId": "Y2lzY29zcGFyazovL3VzL09SR0FOSVpBVElPTi8"
            "5N2NkYmY0NS1lYmUyLTQ2ODctODM0MS00NGQ1YzdhYmYxMDE",
        }
    ]
    assert store.text == pair.to_json()
    assert pair.descends_from(connection)
    assert helper_store.content["refresh_token"] == "helper-2"


def test_a_helper_token_that_is_refused_is_refreshed_once():
    webex = Webex(
        service_app=[GONE],
        helper=[HELPER_ANSWER, (200, {**ANSWER, "access_token": "newer"})],
        application=[(401, WRAPPER), GIVEN],
    )
    with a_server(webex) as url:
        connection = a_connection(token_url=f"{url}/v1/access_token", refresh_token="")
        helper = a_helper(connection, MemoryTokenStore())
        refresh_access_token(connection, MemoryTokenStore(), now, RecordingSleep(), helper=helper)

    assert webex.asked == [
        ("helper", "helper-1"),
        ("application", "Bearer a-helper-token"),
        ("helper", "helper-2"),
        ("application", "Bearer newer"),
    ]


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (400, WRAPPER, "extra field org_id"),
        (400, CLIENT_WRAPPER, "check login and password of the connection webex_contact_center"),
        (401, WRAPPER, "put a new refresh token of it into the connection webex_token_helper"),
        (403, WRAPPER, "in Control Hub"),
        (404, WRAPPER, "extra field application_id"),
        (302, None, "extra field token_url"),
    ],
)
def test_what_the_applications_endpoint_refuses_is_one_sentence(
    status: int, body: object, sentence: str
):
    webex = Webex(service_app=[GONE], helper=[HELPER_ANSWER], application=[(status, body)])
    with a_server(webex) as url:
        connection = a_connection(token_url=f"{url}/v1/access_token")
        helper = a_helper(connection, MemoryTokenStore())
        with pytest.raises(TokenRejected, match=sentence) as raised:
            refresh_access_token(
                connection, MemoryTokenStore(), now, RecordingSleep(), helper=helper
            )

    assert no_secret_in(raised.value, "a-helper-token", "helper-1", "a-client-secret")


def test_trouble_of_the_applications_endpoint_is_no_refusal():
    webex = Webex(service_app=[GONE], helper=[HELPER_ANSWER], application=[(503, None)])
    with a_server(webex) as url:
        connection = a_connection(token_url=f"{url}/v1/access_token")
        helper = a_helper(connection, MemoryTokenStore())
        with pytest.raises(TransientError, match="503"):
            refresh_access_token(
                connection, MemoryTokenStore(), now, RecordingSleep(), helper=helper
            )


def test_a_refusal_is_told_once_a_day_until_the_credentials_change():
    server, note, store = CountingServer(GONE), MemoryTokenStore(), MemoryTokenStore()
    with a_server(server) as url:
        connection = a_connection(token_url=url)

        def run(at: datetime = NOW, *, is_asked: bool = False, **changes: Any) -> type[Exception]:
            with pytest.raises((TokenRejected, AlreadyRefused)) as raised:
                refresh_access_token(
                    a_connection(token_url=url, **changes),
                    store,
                    lambda: at,
                    RecordingSleep(),
                    refused_note=note,
                    is_asked=is_asked,
                )
            assert "the refresh token (400)" in str(raised.value)
            return raised.type

        day = timedelta(days=1)
        assert run() is TokenRejected
        assert run(NOW + day / 2) is AlreadyRefused
        assert len(server.forms) == 1
        assert run(NOW + day / 2, is_asked=True) is TokenRejected  # a person triggered it
        assert run(NOW + day, is_asked=False) is AlreadyRefused
        assert run(NOW + 2 * day) is TokenRejected
        assert run(NOW + 2 * day, password="another") is TokenRejected
        assert run(NOW + 2 * day, password="another", refresh_token="new") is TokenRejected
        assert len(server.forms) == 5
        assert no_secret_in(Exception(note.text), "the-first-refresh-token", "a-client-secret")
    assert connection.refresh_token


def test_trouble_alarms_nobody_while_a_quarter_of_the_life_is_left():
    with a_server(CountingServer((503, b""))) as url:
        connection = a_connection(token_url=url)

        def pair(left: timedelta) -> TokenPair:
            return a_token_pair(connection, expires_time=NOW + left)

        early, late = pair(timedelta(days=3.6)), pair(timedelta(days=3.4))
        assert refresh(connection, MemoryTokenStore(early)) == early
        with pytest.raises(TransientError, match="503"):
            refresh(connection, MemoryTokenStore(late))


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ((503, None), ["a-refresh-token"] * 2),
        (GONE, ["a-refresh-token", "the-first-refresh-token"]),
    ],
    ids=["trouble", "refusals"],
)
def test_a_refresh_begins_nothing_after_five_minutes(answer: Any, asked: list[str]):
    """However slowly each answer drips: the lock in Redis ends after ten, and another process would begin."""
    webex, minutes = Webex(service_app=[answer], helper=[HELPER_ANSWER]), [0]

    def answer_slowly(handler: Any) -> None:
        minutes[0] += 3
        webex(handler)

    with a_server(answer_slowly) as url:
        connection = a_connection(token_url=f"{url}/v1/access_token")
        with pytest.raises(TransientError, match="answers too slowly"):
            refresh_access_token(
                connection,
                MemoryTokenStore(expired(connection)),
                lambda: NOW + timedelta(minutes=minutes[0]),
                RecordingSleep(),
                helper=a_helper(connection, MemoryTokenStore()),
            )

    assert webex.asked == [("service_app", token) for token in asked]


def test_a_shadowed_variable_is_told_before_anything_is_spent():
    server = CountingServer(GIVEN)
    with a_server(server) as url:
        connection = a_connection(token_url=url)
        with pytest.raises(PermanentError, match="AIRFLOW_VAR_WXCC_TOKEN"):
            refresh(connection, ShadowedStore(expired(connection)))

    assert server.forms == []


def test_the_next_run_after_a_kill_takes_no_notice_of_the_trial():
    store = MemoryTokenStore("\n")
    with a_server(CountingServer(GIVEN)) as url:
        refresh(a_connection(token_url=url), store)

    assert store.content["access_token"] == "a-new-access-token"


def test_an_integration_is_told_to_connect():
    connection = a_connection(
        kind="integration", redirect_uri="https://a.example/wxcc/callback", refresh_token=""
    )

    with pytest.raises(PermanentError, match="/wxcc/connect"):
        refresh(connection, MemoryTokenStore())
    with a_server(CountingServer(GONE)) as url:
        connection = replace(connection, token_url=url)
        with pytest.raises(TokenRejected, match="/wxcc/connect"):
            refresh(connection, MemoryTokenStore(expired(connection)))


def test_a_wall_is_known_by_the_longest_life_that_webex_gave():
    pair = a_token_pair(a_connection(), refresh_token_lifetime=timedelta(days=90))
    short = replace(
        pair,
        refresh_token_lifetime=timedelta(days=20),
        refresh_token_expires_time=NOW + timedelta(days=20),
    ).after(pair)

    assert not pair.is_refresh_token_ending(NOW + timedelta(days=59))
    assert pair.is_refresh_token_ending(NOW + timedelta(days=61))
    assert short.is_refresh_token_ending(NOW)
    assert TokenPair.from_json(short.to_json()) == short
