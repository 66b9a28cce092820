import base64
import hashlib
import re
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

VERIFIER = "v" * 64
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def integration(open_sandbox):
    return open_sandbox(client_kind="integration")


def query_of(client, **changes):
    scenario = client.sandbox.state.scenario
    query = {
        "response_type": "code",
        "client_id": scenario.client_id,
        "redirect_uri": scenario.redirect_uri,
        "scope": "cjp:config_read",
        "state": "a&b c",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    } | changes
    return urlencode({name: value for name, value in query.items() if value is not None})


def click(client, answer, **changes):
    """Where the browser is sent by a click on a button of the page."""
    page = client.send("GET", f"/v1/authorize?{query_of(client, **changes)}")
    assert page.status == 200, page.text
    [action] = re.findall(r'action="([^"]+)"', page.text)
    reply = client.send(
        "POST", action.replace("&amp;", "&"), f"answer={answer}".encode(), Content_Type=FORM
    )
    assert reply.status == 303
    return dict(parse_qsl(urlsplit(reply.headers["Location"]).query))


def redeem(client, code, **changes):
    scenario = client.sandbox.state.scenario
    grant = {"grant_type": "authorization_code", "refresh_token": None, "code": code}
    return client.refresh(
        **grant | {"redirect_uri": scenario.redirect_uri, "code_verifier": VERIFIER} | changes
    )


def test_a_person_lets_the_integration_in(integration):
    told = click(integration, "approve")

    assert told["state"] == "a&b c"
    pair = redeem(integration, told["code"]).json()
    reply = integration.contact_tasks(
        {"Authorization": f"Bearer {pair['access_token']}"}, from_=1_789_379_000_000
    )
    assert reply.status == 200
    assert integration.refresh(refresh_token=pair["refresh_token"]).status == 200


def test_a_code_is_good_once(integration):
    code = click(integration, "approve")["code"]

    assert [redeem(integration, code).status for _ in range(2)] == [200, 400]


def test_a_person_declines(integration):
    told = click(integration, "deny")

    assert (told["error"], told["state"]) == ("access_denied", "a&b c")
    assert "code" not in told


def test_a_code_ends(integration):
    code = click(integration, "approve")["code"]
    integration.sandbox.advance(601)

    assert redeem(integration, code).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "w" * 64},
        {"redirect_uri": "http://elsewhere/"},
        {"code": "other"},
        {"client_id": "C0ffeehelper", "client_secret": "sandbox-helper-secret"},
    ],
    ids=str,
)
def test_a_code_of_somebody_else_is_refused(integration, changes):
    code = click(integration, "approve")["code"]

    assert redeem(integration, **{"code": code} | changes).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "changes",
    [
        {"response_type": "token"},
        {"client_id": "other"},
        {"redirect_uri": "http://elsewhere/"},
        {"scope": "cjp:config_read spark:all"},
        {"state": None},
        {"code_challenge_method": "plain"},
        {"code_challenge": None},
    ],
    ids=str,
)
def test_a_bad_request_for_consent_is_a_page(integration, changes):
    reply = integration.send("GET", f"/v1/authorize?{query_of(integration, **changes)}")

    assert reply.status == 400
    assert reply.headers["Content-Type"] == "text/html"


def test_a_service_app_has_no_consent_page(open_sandbox):
    client = open_sandbox()

    assert client.send("GET", f"/v1/authorize?{query_of(client)}").status == 400
