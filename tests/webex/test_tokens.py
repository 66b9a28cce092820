"""One request to the token endpoint: what is sent, how long an answer may take, and what is made of it."""

import gzip
import json
import socket
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from include.domain.errors import ArchiveError, PermanentError, TokenRejected, TransientError
from include.pipelines.refresh_access_token import MAX_DURATION
from include.sandbox.faults import KINDS
from include.sandbox.server import Sandbox
from include.webex.authorization import ConsentRequest, exchange_code
from include.webex.refresh_lock import MAX_WAIT_SECONDS
from include.webex.token_helper import HelperTokenRefused, TokenHelper, request_service_app_pair
from include.webex.tokens import (
    DEFAULT_TIME_OUTS,
    TimeOuts,
    TokenPair,
    read_token_answer,
    request_token_pair,
    tells_token_expiry,
)
from tests.builders import NOW, a_connection, a_connection_to
from tests.http.certificates import an_authority
from tests.http.raw_server import Caller, RawServer, a_raw_server, answer_of

pytestmark = pytest.mark.enable_socket  # to servers of the test
QUICK = TimeOuts(connect_seconds=2.0, read_seconds=0.3, body_seconds=0.3)
ANSWER = {
    "access_token": "a-new-access-token",
    "expires_in": 1_209_599,
    "refresh_token": "a-new-refresh-token",
}
GIVEN = answer_of(json.dumps(ANSWER).encode(), Content_Type="application/json")
SPENT = SecretStr("a-spent-token")
SECRETS = ("a-client-secret", "a-spent-token", "a-new-access-token", "a-new-refresh-token")


def ask(url: str, time_outs: TimeOuts = QUICK, path: str = "/v1/access_token") -> TokenPair:
    connection = a_connection(token_url=url + path)
    return request_token_pair(connection, SPENT, lambda: NOW, time_outs)


def tells_no_secret(error: BaseException) -> bool:
    told = "".join(traceback.format_exception(error)) + repr(error)
    return not any(secret in told for secret in SECRETS)


def serving(answer: bytes) -> Callable[[Caller], None]:
    """The same answer to the first request of each connection."""

    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(answer)
        caller.wait_for_end()

    return serve


# What is sent


@contextmanager
def a_listening_server(answer: bytes = GIVEN) -> Iterator[tuple[RawServer, list[tuple]]]:
    """Remembers line, headers and body of each request."""
    heard: list[tuple[str, dict[str, str], bytes]] = []

    def serve(caller: Caller) -> None:
        heard.append(caller.request())
        caller.send(answer)

    with a_raw_server(serve) as server:
        yield server, heard


def test_every_character_of_a_form_arrives_as_it_is():
    odd = "a&b=c+d%20e é€\r\n\0'\""
    connection = {"kind": "integration", "redirect_uri": "https://a.example/wxcc/callback"}
    with a_listening_server() as (server, heard):
        exchange_code(
            a_connection(token_url=server.url(), password=odd, **connection),
            ConsentRequest(SecretStr("state"), SecretStr(odd), NOW),
            SecretStr("the-code"),
            lambda: NOW,
        )

    line, headers, body = heard[0]
    assert line == "POST / HTTP/1.1"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(body.decode("ascii"), strict_parsing=True) == {
        "grant_type": ["authorization_code"],
        "client_id": ["a-client-id"],
        "client_secret": [odd],
        "code": ["the-code"],
        "code_verifier": [odd],
        "redirect_uri": ["https://a.example/wxcc/callback"],
    }


@pytest.mark.parametrize(
    ("path", "target"),
    [("", "/"), ("/v1/access_token", "/v1/access_token"), ("/é/a%20b;c=d", "/%C3%A9/a%20b;c=d")],
)
def test_the_path_of_the_setting_is_the_path_that_is_asked(path: str, target: str):
    with a_listening_server() as (server, heard):
        ask(server.url(), path=path)

    assert heard[0][0] == f"POST {target} HTTP/1.1"


def test_the_id_of_an_application_leads_nowhere_else():
    with a_listening_server() as (server, heard):
        request_service_app_pair(
            a_connection(token_url=f"{server.url()}/v1/access_token"),
            "../a?b#c d",
            SecretStr("a-helper-token"),
            lambda: NOW,
        )

    assert heard[0][0] == "POST /v1/applications/..%2Fa%3Fb%23c%20d/token HTTP/1.1"


@pytest.mark.parametrize("odd", ["a\r\nCookie: b", "é", "\ud800"], ids=ascii)
def test_what_cannot_be_sent_is_told_without_it(odd: str):
    def ask_with(secret: str, token: str) -> None:
        connection = a_connection(token_url=server.url(), password=secret)
        request_service_app_pair(connection, "an-id", SecretStr(token), lambda: NOW)
        request_token_pair(connection, SPENT, lambda: NOW)

    with a_listening_server() as (server, heard):
        for secret, token in (("a-client-secret", odd), ("\ud800", "a-helper-token")):
            with pytest.raises(TransientError, match=r"broke off \((Unicode|Value)") as raised:
                ask_with(secret, token)
            assert odd not in str(raised.value)

    assert all(line.startswith("POST /v1/applications/an-id/") for line, _, _ in heard)
    assert not any("cookie" in headers for _, headers, _ in heard)


def test_nothing_of_the_environment_decides_where_secrets_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Neither a proxy nor the login that a ~/.netrc has for the host."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with a_listening_server() as (server, heard), a_listening_server() as (proxy, passed):
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url())
        ask(server.url())

    assert (len(heard), passed) == (1, [])
    assert "authorization" not in heard[0][1]


def test_a_certificate_is_checked_before_a_secret_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    authority, tls = an_authority(tmp_path, "127.0.0.1")
    lines: list[str] = []

    def serve(caller: Caller) -> None:
        lines.append(caller.request()[0])
        caller.send(GIVEN)

    with a_raw_server(serve, tls=tls) as server:
        with pytest.raises(TransientError, match=r"cannot be reached \(SSLCert.*token_url"):
            ask(server.url(scheme="https"))
        assert lines == []

        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert ask(server.url(scheme="https"), DEFAULT_TIME_OUTS).expires_time > NOW
        with pytest.raises(TransientError, match="SSLCert"):
            ask(server.url("localhost", scheme="https"))
        assert len(lines) == 1


def test_a_host_that_nobody_has_is_a_setting(monkeypatch: pytest.MonkeyPatch):
    def resolve(*_args: object, **_kwargs: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)  # the machine's resolver may be away

    with pytest.raises(PermanentError, match=r"does not exist.*extra field token_url"):
        ask("https://webexapis.example")


# What is sent once


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "closed"])
def test_what_may_be_spent_is_not_sent_again_unseen(*, is_reset: bool):
    """Also where the server had promised to keep the connection: the caller decides, and says so."""
    forms: list[bytes] = []

    def serve(caller: Caller) -> None:
        while True:
            forms.append(caller.request()[2])
            if len(forms) > 1:
                break
            caller.send(GIVEN)
        if is_reset:
            caller.reset()

    with a_raw_server(serve) as server:
        assert ask(server.url()).refresh_token.get_secret_value() == "a-new-refresh-token"
        with pytest.raises(TransientError, match="token_url"):
            ask(server.url())

    # A connection that the client closes after its answer is read to its end, as an empty request.
    assert len([form for form in forms if form]) == 2


# What takes too long


def dripping(beginning: bytes, drop: bytes) -> Callable[[Caller], None]:
    """The beginning of an answer, and then drops without end."""

    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(beginning)
        while True:
            caller.send(drop)
            time.sleep(0.05)

    return serve


DRIPS = {
    "no answer": serving(b""),
    "half a head": serving(b"HTTP/1.1 200"),
    "half a body": serving(GIVEN[:-9]),
    "headers": dripping(b"HTTP/1.1 200 OK\r\nA: ", b"a"),
    "promises": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": dripping(b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "a steady body": dripping(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 4096),
    "a body with a length": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", b" "),
    "chunks": dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "gzip": dripping(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", gzip.compress(b"", mtime=0)
    ),
    "a refusal": dripping(b"HTTP/1.1 400 Bad Request\r\n\r\n", b"{"),
}


@pytest.mark.parametrize("kind", DRIPS)
def test_an_answer_that_drips_is_given_up_in_bounded_time(kind: str):
    with a_raw_server(DRIPS[kind]) as server:
        start = time.monotonic()
        with pytest.raises(TransientError, match="broke off") as raised:
            ask(server.url())
        assert time.monotonic() - start < 3
        assert server.connections == 1

    assert tells_no_secret(raised.value)


def test_the_whole_refresh_is_shorter_than_its_lock():
    """The lock in Redis ends by itself; a refresh that goes on would be the second at once."""
    connect, read, body = DEFAULT_TIME_OUTS
    addresses = 8
    # Headers and body may each end one read after their limit.
    slowest = addresses * 2 * connect + read + 2 * read + body + read

    assert MAX_DURATION.total_seconds() + slowest < MAX_WAIT_SECONDS


# What comes


@pytest.mark.parametrize("encoding", ["identity", "gzip", "chunked"])
def test_of_thirty_megabytes_one_is_read(encoding: str):
    piece = b" " * (1 << 20)
    sent: list[int] = []

    def serve(caller: Caller) -> None:
        caller.request()
        headers = {
            "identity": f"Content-Length: {30 << 20}",
            "gzip": "Content-Encoding: gzip",
            "chunked": "Transfer-Encoding: chunked",
        }[encoding]
        caller.send(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode())
        for _ in range(30):
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if encoding == "chunked" else piece
            caller.send(gzip.compress(piece, 1) if encoding == "gzip" else framed)
            sent.append(1)

    with a_raw_server(serve) as server:
        tracemalloc.start()
        try:
            with pytest.raises(TransientError, match="without access_token"):
                ask(server.url(), DEFAULT_TIME_OUTS)
            assert tracemalloc.get_traced_memory()[1] < 12 << 20
        finally:
            tracemalloc.stop()
    if encoding != "gzip":
        assert len(sent) < 30


def test_headers_without_end_are_no_answer():
    with (
        a_raw_server(serving(b"HTTP/1.1 200 OK\r\n" + b"A: a\r\n" * (1 << 20))) as server,
        pytest.raises(TransientError),
    ):
        ask(server.url())


DEEP = b'{"access_token": "a", "expires_in": 60, "refresh_token": "b", "x": %b}'
ODD_BUT_USABLE = {
    "nested 10,000 deep": answer_of(DEEP % (b"[" * 10_000 + b"]" * 10_000)),
    "no content type": GIVEN.replace(b"Content-Type: application/json\r\n", b""),
    "called HTML": GIVEN.replace(b"application/json", b"text/html"),
    "an octet stream, packed": answer_of(
        gzip.compress(json.dumps(ANSWER).encode()), Content_Encoding="gzip"
    ),
    "with a byte order mark": answer_of(b"\xef\xbb\xbf" + json.dumps(ANSWER).encode()),
    "with what is no UTF-8": answer_of(json.dumps(ANSWER).encode()[:-1] + b', "org": "\xff\xfe"}'),
    "after a promise": b"HTTP/1.1 100 Continue\r\n\r\n" + GIVEN,
    "until the end of the connection": b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(ANSWER).encode(),
}


@pytest.mark.parametrize("kind", ODD_BUT_USABLE)
def test_an_odd_answer_with_a_pair_in_it_is_taken(kind: str):
    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(ODD_BUT_USABLE[kind])

    with a_raw_server(serve) as server:
        pair = ask(server.url())

    assert pair.access_token.get_secret_value() in {"a", "a-new-access-token"}


NO_ANSWERS = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n",
    "two lengths": GIVEN.replace(b"Content-Type", b"Content-Length: 5\r\nContent-Type"),
    "a length that is none": GIVEN.replace(b"Content-Length: ", b"Content-Length: 9" + b"9" * 5000),
    "an unknown transfer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: br\r\n\r\n{}",
    "chunks that are none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}",
    "gzip that is none": answer_of(json.dumps(ANSWER).encode(), Content_Encoding="gzip"),
    "packed as nobody asked": answer_of(b"\x8b\x02\x80{}\x03", Content_Encoding="br"),
    "half of gzip": answer_of(
        gzip.compress(json.dumps(ANSWER).encode())[:-20], Content_Encoding="gzip"
    ),
    "a sign-in page": answer_of(b"<html>a-new-access-token", Content_Type="text/html"),
    "a text": answer_of(b'"a-new-access-token"'),
    "a list of the pair": answer_of(json.dumps([ANSWER]).encode()),
    "an error in 200": answer_of(b'{"error": {"error": ["invalid_client"]}}'),
    "no body": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("kind", NO_ANSWERS)
def test_what_is_no_answer_may_pass(kind: str):
    with (
        a_raw_server(serving(NO_ANSWERS[kind])) as server,
        pytest.raises(TransientError) as raised,
    ):
        ask(server.url())

    assert tells_no_secret(raised.value)


SECONDS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=8),
    st.integers(1, 10**7).map(str), st.floats(0.1, 1e7).map(str), st.just("9" * 5000),
    st.lists(st.integers(), max_size=2), st.just({"seconds": 60}),
)  # fmt: skip


@settings(max_examples=60)
@given(SECONDS, SECONDS)
def test_only_a_plausible_number_of_seconds_is_one(life: object, refresh_life: object):
    """Infinity, NaN, billions of years and below nothing are none; text is, where it is a number."""
    answer = {**ANSWER, "expires_in": life, "refresh_token_expires_in": refresh_life}
    body = json.dumps(answer).encode()
    try:
        pair = read_token_answer(200, body, a_connection(), SPENT, NOW)
    except TransientError:
        return
    assert timedelta(0) <= pair.lifetime < timedelta(days=3660)
    assert float(str(life)) == pytest.approx(pair.lifetime.total_seconds(), abs=1e-5)
    assert TokenPair.from_json(pair.to_json()) == pair


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["invalid_client", "invalid_grant", *SECRETS]),
    lambda value: st.lists(value, max_size=3)
    | st.dictionaries(st.sampled_from(["error", "errors", "message", "description"]), value),
    max_leaves=8,
)  # fmt: skip
REFUSALS = st.one_of(
    st.binary(max_size=20),
    VALUES.map(lambda value: json.dumps(value).encode()),
    # The name of the first makes it a refusal of the client.
    st.sampled_from([SECRETS, SECRETS[1:]]).map(lambda told: json.dumps({"errors": told}).encode()),
)


@settings(max_examples=60)
@given(
    st.integers(201, 599) | st.sampled_from([400, 401, 403]),
    REFUSALS,
)
def test_any_refusal_is_one_sentence_that_quotes_nothing(status: int, body: bytes):
    expected = (
        TokenRejected
        if status in {400, 401, 403}
        else TransientError
        if status in {408, 425, 429} or status >= 500
        else PermanentError
    )

    with pytest.raises(ArchiveError) as raised:
        read_token_answer(status, body, a_connection(), SPENT, NOW)

    assert raised.type is expected
    assert str(status) in str(raised.value)
    assert not any(secret in str(raised.value) for secret in SECRETS)


# What the sandbox can say


@pytest.mark.parametrize("shape", ["oauth", "wrapper", "html", "empty"])
def test_whatever_the_shape_of_a_refusal_a_person_is_told_what_to_do(
    start_sandbox: Callable[..., Sandbox], shape: str
):
    sandbox = start_sandbox(token_error=shape)
    for changes in (
        {},
        {"password": "a-wrong-secret"},
        {"login": "nobody"},
        {"login": "nobody", "password": "a-wrong-secret"},
    ):
        connection = a_connection_to(sandbox, **changes)
        with pytest.raises(TokenRejected, match="login and password") as raised:
            request_token_pair(connection, SecretStr("a-dead-token"), lambda: NOW)
        assert not any(
            secret in str(raised.value)
            for secret in ("a-dead-token", connection.client_secret.get_secret_value())
        )


BROKEN_OFF = (TransientError, "broke off")
UNREACHABLE = (TransientError, "cannot be reached")
NO_PAIR = (TransientError, "without access_token")
LATER = (TransientError, "it is tried again later")
A_PAIR = None
AT_APPLICATIONS: dict[str, tuple[type[ArchiveError], str] | None] = {
    "throttle": LATER, "throttle_no_header": LATER, "throttle_http_date": LATER,
    "http_401": (HelperTokenRefused, "spark:applications_token"),
    "http_403": (TokenRejected, "Control Hub"),
    "http_404": (PermanentError, "application_id"),
    "http_500": LATER, "http_502": LATER, "http_503": LATER, "http_504": LATER,
    "json_error_in_200": NO_PAIR, "html_in_200": NO_PAIR, "graphql_errors_in_200": NO_PAIR,
    "redirect": (PermanentError, "token_url"),
    "expired_url": (TokenRejected, "Control Hub"), "purged": (PermanentError, "application_id"),
    "reset_before_headers": UNREACHABLE, "reset_after_processing": UNREACHABLE,
    "reset_mid_body": BROKEN_OFF, "short_body": BROKEN_OFF,
    "short_body_chunked": NO_PAIR, "empty_body": NO_PAIR, "extra_bytes": NO_PAIR,
    "stall_before_headers": A_PAIR, "stall": A_PAIR,
}  # fmt: skip


def test_every_fault_at_the_applications_endpoint_is_told_or_outlasted(
    start_sandbox: Callable[..., Sandbox],
):
    """The fault matrix has them at the token endpoint; this is the last step of the recovery."""
    sandbox = start_sandbox()
    connection = a_connection_to(sandbox)
    given = sandbox.helper_connection()
    fields = {name: given[name] for name in ("login", "password", "extra")}
    helper = TokenHelper.from_fields(connection, **fields)
    first = SecretStr(given["extra"]["refresh_token"])
    token = request_token_pair(helper.connection, first, lambda: NOW).access_token
    assert AT_APPLICATIONS.keys() == KINDS.keys()

    for kind, expected in AT_APPLICATIONS.items():
        sandbox.set_faults([{"endpoint": "applications", "kind": kind, "seconds": 0.05}])
        with pytest.raises(expected[0], match=expected[1]) if expected else nullcontext() as raised:
            request_service_app_pair(connection, helper.application_id, token, lambda: NOW)
        assert token.get_secret_value() not in str(raised and raised.value), kind


def test_only_webex_itself_tells_when_a_token_ends(start_sandbox: Callable[..., Sandbox]):
    """A sign-in page with 200 must not be taken for Webex accepting the token."""
    sandbox = start_sandbox()
    connection = a_connection_to(sandbox)
    first = SecretStr(sandbox.airflow_connection()["extra"]["refresh_token"])
    token = request_token_pair(connection, first, lambda: NOW).access_token

    assert tells_token_expiry(connection, token)
    assert not tells_token_expiry(connection, SecretStr("dead"))
    for kind in ("html_in_200", "json_error_in_200", "http_401", "redirect", "empty_body"):
        sandbox.set_faults([{"endpoint": "applications", "kind": kind}])
        assert not tells_token_expiry(connection, token), kind
