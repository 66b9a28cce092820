"""Visits the pages of the plugin as an administrator, Webex and strangers do, with canaries in all that they send."""

import hashlib
import hmac
import html
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import requests

from include.domain.interval import epoch_ms, utc_now
from include.sandbox.server import Sandbox
from tests.dags.planting_door import EMAIL, NAME, PHONE, SIGNED_URL, TEXT, TOKEN

REDIRECT_URI = "http://localhost/wxcc/callback"
CALLBACK = "/wxcc/callback"


@dataclass
class Visited:
    """What every answer had, and the secrets that were made on the way: each state and code."""

    ui: Any
    shown: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, **sent: Any) -> Any:
        """One request; a redirect is an answer too."""
        answer = self.ui.request(method, path, follow_redirects=False, **sent)
        headers = dict(answer.headers)
        if path.endswith("/start"):  # the way to Webex: the state is on it, and must be
            headers.pop("location", None)
        number = len(self.shown)
        named = f"answer {number} to {method} {urlsplit(path).path}"
        self.shown[named] = repr(headers).encode() + answer.content
        return answer

    def press_connect(self) -> str:
        """Where the administrator is sent; the browser has the cookie then."""
        page = self.ask("GET", "/wxcc/connect").text
        proof = re.search(r'name="proof" value="([^"]+)"', page)
        assert proof
        form = {"proof": html.unescape(proof[1])}
        url = self.ask("POST", "/wxcc/connect/start", data=form).headers["Location"]
        self.remember("state", parse_qs(urlsplit(url).query)["state"][0])
        return url

    def approve(self) -> dict[str, str]:
        """Press Connect and have Webex agree: what it leads back with."""
        url = self.press_connect()
        answered = requests.post(url, data={"answer": "approve"}, timeout=20, allow_redirects=False)
        query = parse_qs(urlsplit(answered.headers["Location"]).query)
        self.remember("code", query["code"][0])
        return {name: values[0] for name, values in query.items()}

    def call_back(self, method: str = "GET", path: str = CALLBACK, **query: str) -> None:
        """Come back from Webex, and look at what the page says then."""
        self.ask(method, f"{path}?{urlencode(query)}")
        self.ask("GET", "/wxcc/connect")

    @property
    def notices(self) -> list[str]:
        """The first words of each notice that a page had."""
        found = [re.search(rb'<p id="notice"[^>]*>(.{18})', text) for text in self.shown.values()]
        return [each[1].decode() for each in found if each]

    def remember(self, kind: str, secret: str) -> None:
        self.secrets[f"{kind} {len(self.secrets)}"] = secret


def visit_connect(ui: Any, sandbox: Sandbox) -> Visited:
    """Every way to the callback, and the ways in which it ends; the last one is that Webex is connected."""
    visited = Visited(ui)
    said = {"error_description": TEXT, "of": TEXT}
    for query in (
        {"error": "access_denied"},
        {"error": TEXT},
        {"code": TEXT},
        {"code": SIGNED_URL, "state": TEXT},
    ):
        visited.press_connect()
        state = visited.secrets[list(visited.secrets)[-1]]
        visited.call_back(**{"state": state} | query | said)
    for kind in ("html_in_200", "json_error_in_200", "http_500"):
        query = visited.approve()
        sandbox.set_faults([{"endpoint": "token", "kind": kind}])
        visited.call_back(**query)
        sandbox.set_faults([])
    query = visited.approve()
    for method, path in (("HEAD", CALLBACK), ("POST", CALLBACK), ("GET", f"{CALLBACK}/")):
        visited.call_back(method, path, **query | said)
    visited.ask("GET", f"{CALLBACK}?{urlencode(query | said)}", headers={"Authorization": TOKEN})
    visited.ask("POST", "/wxcc/connect/start", data={"proof": TEXT})
    visited.ask("GET", "/wxcc/connect")
    visited.ask("POST", "/wxcc/connect/start", data={"proof": TEXT * 50})
    visited.ask("GET", "/wxcc/connect", headers={"Cookie": f"wxcc_notice={TOKEN}"})
    visited.call_back(**query | said)
    assert b"Webex is connected." in list(visited.shown.values())[-1]
    visited.call_back(**query | said)
    ui.cookies.clear()
    return visited


def visit_events(ui: Any, secret: str, org_id: str) -> Visited:
    """Deliveries that nobody signed, signed ones that name what they must not, and one that is kept."""
    visited = Visited(ui)
    now = epoch_ms(utc_now())
    good = {
        "id": "an-event-of-the-canaries",
        "type": "capture:available",
        "comciscoorgid": org_id,
        "comciscotimestamp": now,
        "data": {"taskId": "a-task-of-the-canaries", "createdTime": now},
        "agent": {"name": NAME, "contact": [EMAIL, PHONE]},
        "filePath": SIGNED_URL,
    }
    bodies = [
        TEXT,
        {**good, "type": TEXT},
        {**good, "comciscoorgid": TEXT},
        {**good, "comciscotimestamp": TEXT},
        {**good, "data": TEXT},
        {**good, "data": {**good["data"], "taskId": PHONE}},
        {**good, "data": {**good["data"], "createdTime": TEXT}, "id": EMAIL},
        good,
        {**good, "more": TEXT * 500},
    ]
    for body in bodies:
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        signature = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
        for told in (signature, TOKEN):
            headers = {"X-WebexCC-Signature": told, "X-WebexCC-Timestamp": str(now), "X-Of": TEXT}
            visited.ask(
                "POST", f"/wxcc/events?{urlencode({'of': TEXT})}", content=raw, headers=headers
            )
    visited.ask("GET", f"/wxcc/events?{urlencode({'of': TEXT})}")
    return visited
