"""The connection wxcc_capture_events is held to Webex's rules; answers that lack something do no harm."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from pydantic import SecretStr

from include.domain.errors import ArchiveError, PermanentError
from include.pipelines.subscribe_capture_events import subscribe_capture_events
from include.webex.http_client import WebexClient
from include.webex.subscriptions import CaptureEventsConnection
from tests.builders import CountingBudget, CurrentTokens, RecordingSleep, a_connection
from tests.webex.web_server import a_server, reply

URL = "https://hooks.example.com/wxcc/events"
SECRET = "5ec7e7" * 6
VERSIONS = {
    "meta": {"resourceVersionList": [{"resource": "capture", "version": "1.0.0"}]},
    "data": [{"name": "capture:available", "resource": "capture", "action": "available"}],
}


def a_capture_events_connection(host: str | None = URL, password: str | None = SECRET):
    return CaptureEventsConnection.from_fields(host=host, password=password)


@pytest.mark.parametrize(
    ("host", "destination_url"),
    [
        (f" {URL} ", URL),
        ("HTTPS://Hooks.Example.com:443/wxcc/events", URL),
        ("https://hooks.example.com/", "https://hooks.example.com/"),
        ("https://hooks.xn--fiqs8s/a%20b", "https://hooks.xn--fiqs8s/a%20b"),
    ],
)
def test_a_public_https_url_is_a_destination(host: str, destination_url: str):
    assert a_capture_events_connection(host).destination_url == destination_url


@pytest.mark.parametrize(
    "host",
    [
        None, "", "hooks.example.com/wxcc", "http://hooks.example.com/", "https://hooks.example.com",
        "https://hooks.example.com:8443/", "https://hooks.example.com:99999/", "https://hooks.example.com/?",
        "https://hooks.example.com/?a=b", "https://hooks.example.com/#", "https://user@hooks.example.com/",
        "https://:pw@hooks.example.com/", "https://localhost/", "https://hooks.local/", "https://a.test/",
        "https://127.0.0.1/", "https://[::1]/", "https://[::1/", "https://hooks..com/", "https://-a.com/",
        "https://hooks.example.com/a b", "https://hooks.exa\nmple.com/", "https://hooks.example.com\\@evil.com/",
        "https://höoks.example.com/", "https://hooks.example.com./", "https:///wxcc/events",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_a_sentence_that_quotes_nothing(host: str | None):
    with pytest.raises(PermanentError, match="wxcc_capture_events is not usable: host") as raised:
        a_capture_events_connection(host)

    assert not host or host not in str(raised.value)


@pytest.mark.parametrize("password", [None, "", "x" * 31, "x" * 257, "x y" * 20, "é" * 40])
def test_a_secret_that_webex_refuses_is_refused(password: str | None):
    with pytest.raises(PermanentError, match="not usable: password") as raised:
        a_capture_events_connection(password=password)

    assert not password or password not in str(raised.value)


def test_a_secret_does_not_show():
    assert SECRET not in repr(a_capture_events_connection())


class Webex:
    """Answers as it is told, and remembers what it was sent."""

    def __init__(self, listed: Any, versions: Any = VERSIONS, told: bytes = b"{}") -> None:
        self.listed, self.versions, self.told = listed, versions, told
        self.sent: list[tuple[str, str, dict[str, Any]]] = []

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        method, path = handler.command, handler.path.partition("?")[0]
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if method == "GET":
            found = self.versions if path == "/v2/event-types" else self.listed
            reply(handler, 200, json.dumps(found).encode())
            return
        self.sent.append((method, path, json.loads(body or b"{}")))
        reply(handler, 200, self.told)

    def subscribe(self) -> str:
        with a_server(self.answer) as url:
            client = WebexClient(
                a_connection(host=url), CurrentTokens("a-token"), CountingBudget(), RecordingSleep()
            )
            try:
                return subscribe_capture_events(a_capture_events_connection(), client)
            finally:
                client.close()


@pytest.fixture(autouse=True)
def _sockets(socket_enabled: None) -> None:
    """To the server of the test, on this machine."""


@pytest.mark.parametrize("told", [b"", b"<html>", b"[]", b'{"data": null}', b'{"data": {}}'])
def test_whatever_a_change_is_answered_with_it_is_made_once(told: bytes):
    webex = Webex({"data": []}, told=told)

    assert webex.subscribe() == "made the subscription"

    ((method, path, sent),) = webex.sent
    assert (method, path) == ("POST", "/v2/subscriptions")
    assert SecretStr(sent["secret"]) == a_capture_events_connection().secret
    assert sent["orgId"] == a_connection().org_id


@pytest.mark.parametrize(
    "odd",
    [
        None, 7, "text", [], {}, {"id": None, "name": "wxcc captures"},
        {"id": "../../v1/captures", "name": "wxcc captures"},
        {"id": "one", "name": ["wxcc captures"], "destinationUrl": "https://[::1", "eventTypes": "capture:available"},
    ],
)  # fmt: skip
def test_what_cannot_be_ours_is_left_alone(odd: object):
    webex = Webex({"data": [odd]})

    webex.subscribe()

    assert [(method, path) for method, path, _ in webex.sent] == [("POST", "/v2/subscriptions")]


def test_where_no_description_is_told_the_secret_is_sent_each_time():
    """Nobody can know whether it is still the same."""
    told = {"id": "one", "name": "wxcc captures", "status": "ACTIVE", "destinationUrl": URL}
    webex = Webex({"data": [told | {"eventTypes": ["capture:available"]}]})

    webex.subscribe()

    ((method, path, sent),) = webex.sent
    assert (method, path, sent["secret"]) == ("PATCH", "/v2/subscriptions/one", SECRET)


@pytest.mark.parametrize(
    ("version", "changes"), [("capture:1.0.0", 0), ("1.0.0", 0), ("capture:0.9.0", 1)]
)
def test_only_another_version_is_changed(version: str, changes: int):
    told = {"id": "one", "name": "wxcc captures", "status": "active", "destinationUrl": URL}
    told |= {"eventTypes": ["capture:available"], "resourceVersion": version}
    webex = Webex({"data": []})
    webex.subscribe()
    webex.listed = {"data": [told | {"description": webex.sent.pop()[2]["description"]}]}

    webex.subscribe()

    assert len(webex.sent) == changes


def test_one_that_stays_inactive_is_told():
    told = {"id": "one", "name": "wxcc captures", "status": "inactive"}
    webex = Webex({"data": [told]}, told=json.dumps({"data": told}).encode())

    with pytest.raises(ArchiveError, match="leaves the subscription one inactive"):
        webex.subscribe()


def test_the_newest_version_is_asked_for():
    listed = [{"resource": "task", "version": "99.0.0"}, 7, {"resource": "capture"}]
    listed += [{"resource": "capture", "version": each} for each in ("1.9.0", "1.10.0", "1.2.0")]
    webex = Webex({"data": []}, VERSIONS | {"meta": {"resourceVersionList": listed}})

    webex.subscribe()

    assert webex.sent[0][2]["resourceVersion"] == "capture:1.10.0"


@pytest.mark.parametrize(
    "versions", [{"data": VERSIONS["data"]}, VERSIONS | {"data": []}], ids=["version", "event"]
)
def test_an_org_without_the_event_is_told(versions: Any):
    with pytest.raises(PermanentError, match="offers this org no event capture:available"):
        Webex({"data": []}, versions).subscribe()
