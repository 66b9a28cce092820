"""The page Connect with Webex without a browser: what one cannot click in tests/end_to_end/test_connect_page.py."""

import html
import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

REDIRECT_URI = "http://localhost/wxcc/callback"
COOKIE = "wxcc_consent"


@pytest.fixture
def page(ui, sandbox, runner, monkeypatch) -> Iterator[Any]:
    """An administrator's browser without redirects; the connection is of the sandbox's integration."""
    monkeypatch.setenv("AIRFLOW_CONN_WEBEX_CONTACT_CENTER", json.dumps(runner.webex))
    yield ui
    ui.cookies.clear()


def answer_of_webex(page: Any) -> str:
    """Press Connect, and approve: the query with which Webex leads back."""
    proof = re.search(r'name="proof" value="([^"]+)"', page.get("/wxcc/connect").text)
    assert proof
    sent = page.post(
        "/wxcc/connect/start", data={"proof": html.unescape(proof[1])}, follow_redirects=False
    )
    approved = requests.post(
        sent.headers["Location"], data={"answer": "approve"}, timeout=20, allow_redirects=False
    )
    return urlsplit(approved.headers["Location"]).query


def notice(page: Any) -> str:
    found = re.search(r'<p id="notice"[^>]*>(.*?)</p>', page.get("/wxcc/connect").text)
    return found[1] if found else ""


an_integration = pytest.mark.parametrize(
    "sandbox",
    [{"client_kind": "integration", "redirect_uri": REDIRECT_URI, "tasks_per_hour": 1}],
    indirect=True,
    ids=["an integration"],
)


@an_integration
def test_an_answer_that_comes_twice_spends_one_code(page, sandbox):
    """A second click overtakes the first answer, which would have told the browser to forget the cookie."""
    query = answer_of_webex(page)
    cookie = page.cookies.get(COOKIE)
    sandbox.reset_requests()

    page.get(f"/wxcc/callback?{query}", follow_redirects=False)
    assert notice(page) == "Webex is connected."
    assert page.cookies.get(COOKIE) is None
    page.cookies.set(COOKIE, cookie, path="/wxcc/callback")
    page.get(f"/wxcc/callback?{query}", follow_redirects=False)

    assert notice(page).startswith("This answer does not belong to a request of yours: it was used")
    assert sandbox.requests()["counts"] == {"token": {"200": 1}}
    assert "Connect again" in page.get("/wxcc/connect").text
    page.cookies.clear()
    another = answer_of_webex(page)
    page.get(f"/wxcc/callback?{another}", follow_redirects=False)
    assert notice(page) == "Webex is connected."


@an_integration
def test_the_access_log_of_airflow_never_has_the_query(page, capfd):
    """A scanner of links asks with HEAD; and whoever registers the address with a slash is led on."""
    asked = list(product(["GET", "HEAD", "POST", "OPTIONS"], ["callback", "callback/", "other"]))
    for method, path in asked:
        query = "code=planted-code&state=planted-state&error_description=planted"
        answer = page.request(method, f"/wxcc/{path}?{query}", follow_redirects=False)

        assert "planted" not in f"{answer.headers} {answer.text}"
    logged = capfd.readouterr().out
    assert logged.count("request finished") == len(asked)
    assert "planted" not in logged
