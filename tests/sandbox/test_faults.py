"""Every fault, as a client meets it over a real socket."""

import http.client
import socket
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from include.sandbox.faults import KINDS
from tests.sandbox.client import HOUR_MS, NOW_MS, offered

FROM_MS = NOW_MS - 30 * HOUR_MS
ENDPOINTS = ("token", "tasks", "captures", "search", "media")


@pytest.fixture
def client(open_sandbox):
    client = open_sandbox(
        captured_share=1.0,
        abandoned_share=0.0,
        email_weight=0.0,
        chat_weight=0.0,
        social_weight=0.0,
    )
    client.ids = [row["id"] for row in client.walk(FROM_MS, FROM_MS + HOUR_MS)[:5]]
    entries = client.all_captures(client.ids)
    client.urls = [each["filePath"] for entry in entries for each in offered(entry)]
    client.sandbox.reset_requests()
    return client


def ask(client, endpoint: str):
    return {
        "token": client.refresh,
        "tasks": lambda: client.contact_tasks(from_=FROM_MS),
        "captures": lambda: client.captures(client.ids),
        "search": lambda: client.search(
            f"{{task(from: {FROM_MS}, to: {NOW_MS}) {{tasks {{id status origin}}}}}}"
        ),
        "media": lambda: client.send("GET", client.urls[0]),
    }[endpoint]()


def put(client, endpoint: str, kind: str, **members) -> None:
    client.sandbox.set_faults([{"endpoint": endpoint, "kind": kind, **members}])


def test_every_kind_is_met_somewhere_in_this_file():
    text = Path(__file__).read_text()

    assert not [kind for kind in KINDS if f'"{kind}"' not in text]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("http_401", 401),
        ("http_403", 403),
        ("http_404", 404),
        ("http_500", 500),
        ("http_502", 502),
        ("http_503", 503),
        ("http_504", 504),
        ("html_in_200", 200),
    ],
)
def test_an_html_page_comes_instead_of_the_answer(client, endpoint, kind, status):
    put(client, endpoint, kind, times=1)

    reply = ask(client, endpoint)

    assert reply.status == status
    assert reply.headers["Content-Type"] == "text/html"
    assert reply.body.startswith(b"<html>")
    assert ask(client, endpoint).status == 200


def test_throttling_comes_in_three_forms(client):
    put(client, "tasks", "throttle", retry_after_seconds=7)
    assert ask(client, "tasks").headers["Retry-After"] == "7"
    put(client, "tasks", "throttle_no_header")
    assert ask(client, "tasks").headers["Retry-After"] is None
    put(client, "tasks", "throttle_http_date", retry_after_seconds=7)
    reply = ask(client, "tasks")
    assert reply.status == 429
    moment = parsedate_to_datetime(reply.headers["Retry-After"])
    assert moment.timestamp() == NOW_MS // 1_000 + 7


def test_an_error_can_hide_in_a_200(client):
    put(client, "captures", "json_error_in_200")

    reply = ask(client, "captures")

    assert reply.status == 200
    assert reply.json().keys() == {"error"}


def test_graphql_errors_can_hide_in_a_200(client):
    put(client, "search", "graphql_errors_in_200")

    reply = ask(client, "search")

    assert reply.status == 200
    assert reply.json() == {"errors": [{"message": "fault: graphql_errors_in_200"}], "data": None}


def test_a_redirect_leads_elsewhere(client):
    put(client, "media", "redirect", location="http://elsewhere.invalid/x")

    reply = ask(client, "media")

    assert (reply.status, reply.headers["Location"]) == (302, "http://elsewhere.invalid/x")


def test_media_can_be_expired_or_purged(client):
    put(client, "media", "expired_url")
    assert "Request has expired" in ask(client, "media").text
    put(client, "media", "purged")
    reply = ask(client, "media")
    assert (reply.status, "NoSuchKey" in reply.text) == (404, True)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_reset_before_the_headers_leaves_the_request_unprocessed(client, endpoint):
    put(client, endpoint, "reset_before_headers")

    with pytest.raises(ConnectionResetError):
        ask(client, endpoint)

    report = client.sandbox.requests()
    assert report["counts"][endpoint] == {"reset": 1}
    assert report["contact_tasks_queried"] == 0


def test_a_reset_after_processing_hides_what_was_done(open_sandbox):
    """The worst of refreshes: the old refresh token is dead, the new one never arrived."""
    client = open_sandbox(revoke_old_refresh_token=True)
    put(client, "token", "reset_after_processing", times=1)

    with pytest.raises(ConnectionResetError):
        client.refresh()

    assert client.refresh().json()["error"] == "invalid_grant"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_reset_mid_body_is_no_end(client, endpoint):
    put(client, endpoint, "reset_mid_body")

    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        ask(client, endpoint)


def test_a_reset_is_a_reset(client):
    """RST, not an orderly end: a client that only looks for an end would go on."""
    put(client, "media", "reset_mid_body")
    parts = urlsplit(client.urls[0])
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as peer:
        target = f"{parts.path}?{parts.query}"
        peer.sendall(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: peer.recv(1 << 20), b""))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_short_body_ends_before_its_length(client, endpoint):
    put(client, endpoint, "short_body", share=0.25)

    with pytest.raises(http.client.IncompleteRead):
        ask(client, endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_chunked_short_body_ends_as_if_it_were_whole(client, endpoint):
    whole = ask(client, endpoint)
    put(client, endpoint, "short_body_chunked")

    reply = ask(client, endpoint)

    assert reply.status == 200
    assert reply.headers["Content-Length"] is None
    assert len(reply.body) == len(whole.body) // 2
    if endpoint != "token":
        assert whole.body.startswith(reply.body[:80])


def test_a_body_can_be_empty(client):
    put(client, "media", "empty_body")

    reply = ask(client, "media")

    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, b"", "0")


def test_a_body_can_be_too_long(client):
    whole = ask(client, "media").body
    put(client, "media", "extra_bytes")

    assert ask(client, "media").body == whole + b"\0" * 1_000


def test_a_body_can_stall_and_go_on(client):
    whole = ask(client, "media").body
    for kind in ("stall", "stall_before_headers"):
        put(client, "media", kind, seconds=0.2)
        begun = time.monotonic()

        assert ask(client, "media").body == whole
        assert time.monotonic() - begun >= 0.2


def test_a_stalled_range_goes_on_where_it_was(client):
    whole = ask(client, "media").body
    put(client, "media", "stall", seconds=0.01)

    reply = client.send("GET", client.urls[0], Range="bytes=50-5049")

    assert (reply.status, reply.body) == (206, whole[50:5050])


def test_a_large_body_breaks_at_the_asked_share(open_sandbox):
    client = open_sandbox(
        email_weight=0.0,
        chat_weight=0.0,
        social_weight=0.0,
        recording_bytes_min=3_000_000,
        recording_bytes_max=3_000_001,
    )
    row = next(r for r in client.sandbox.truth(FROM_MS, FROM_MS + HOUR_MS) if r["captures"])
    client.urls = [offered(client.captures([row["task_id"]]).json()["data"][0])[0]["filePath"]]
    put(client, "media", "short_body", share=0.5)

    with pytest.raises(http.client.IncompleteRead) as broken:
        ask(client, "media")

    assert len(broken.value.partial) == row["captures"][0]["size_bytes"] // 2


def test_times_and_after_count_matching_requests(client):
    put(client, "tasks", "http_500", times=2, after=1)

    statuses = [ask(client, "tasks").status for _ in range(5)]

    assert statuses == [200, 500, 500, 200, 200]
    report = client.sandbox.requests()["faults"]
    assert [(each["kind"], each["met"], each["struck"]) for each in report] == [("http_500", 5, 2)]


def test_probability_is_seeded(client, open_sandbox):
    def statuses(one) -> list[int]:
        put(one, "token", "http_503", probability=0.5)
        return [one.refresh().status for _ in range(20)]

    first = statuses(client)

    assert set(first) == {200, 503}
    assert first == statuses(client) == statuses(open_sandbox())


def test_a_match_aims_at_one_capture_or_one_query(client):
    put(client, "media", "purged", match=client.urls[1].split("/")[7])
    assert client.send("GET", client.urls[0]).status == 200
    assert client.send("GET", client.urls[1]).status == 404
    put(client, "captures", "http_500", match=client.ids[1])
    assert client.captures([client.ids[0]]).status == 200
    assert client.captures([client.ids[1]]).status == 500


def test_the_first_fault_that_strikes_wins_and_all_can_end(client):
    client.sandbox.set_faults(
        [
            {"endpoint": "token", "kind": "http_500"},
            {"endpoint": "tasks", "kind": "http_502", "times": 1},
            {"endpoint": "tasks", "kind": "http_503"},
        ]
    )
    assert [ask(client, "tasks").status for _ in range(2)] == [502, 503]

    client.sandbox.set_faults([])
    assert ask(client, "tasks").status == 200


def test_faults_can_be_there_from_the_start(open_sandbox):
    client = open_sandbox(faults='[{"endpoint": "token", "kind": "http_502", "times": 1}]')

    assert [client.refresh().status for _ in range(2)] == [502, 200]


@pytest.mark.parametrize(
    "content",
    [
        {},
        ["http_500"],
        [{"endpoint": "tasks", "kind": "http_500", "sometimes": 1}],
        [{"endpoint": "webhooks", "kind": "http_500"}],
        [{"endpoint": "tasks", "kind": "http_600"}],
        [{"endpoint": "tasks", "kind": "http_500", "times": "2"}],
        [{"endpoint": "tasks", "kind": "http_500", "times": True}],
        [{"endpoint": "tasks", "kind": "http_500", "probability": -1}],
        [{"endpoint": "tasks", "kind": "http_500", "match": 5}],
    ],
    ids=str,
)
def test_a_malformed_fault_changes_nothing(client, content):
    put(client, "tasks", "http_500")

    with pytest.raises(ValueError, match=r".+"):
        client.sandbox.set_faults(content)

    assert ask(client, "tasks").status == 500
