"""What is sent with an administrator to Webex, and what is believed of what comes back."""

import base64
import hashlib
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from include.domain.errors import PermanentError
from include.webex.authorization import (
    CONSENT_LIFETIME,
    ConsentRequest,
    consent_url,
    read_callback,
)
from include.webex.connection import WebexConnection
from include.webex.tokens import org_of
from tests.builders import NOW

REDIRECT_URI = "https://airflow.example.com/wxcc/callback"
CONNECTION = WebexConnection.from_fields(
    host="us1",
    login="C0a1",
    password="secret",
    extra={
        "org_id": "97cdbf45-ebe2-4687-8341-44d5c7abf101",
        "kind": "integration",
        "redirect_uri": REDIRECT_URI,
    },
)


def test_the_address_has_what_webex_documents_and_not_the_verifier():
    request = ConsentRequest.begin(NOW)

    url = consent_url(CONNECTION, request, ["cjp:config_read", "cjp:config_write"])

    verifier = request.verifier.get_secret_value()
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
    assert url.startswith("https://webexapis.com/v1/authorize?")
    assert verifier not in url
    assert parse_qs(urlsplit(url).query) == {
        "response_type": ["code"],
        "client_id": ["C0a1"],
        "redirect_uri": [REDIRECT_URI],
        "scope": ["cjp:config_read cjp:config_write"],
        "state": [request.state.get_secret_value()],
        "code_challenge": [challenge.rstrip(b"=").decode()],
        "code_challenge_method": ["S256"],
    }


def test_no_two_requests_are_alike_and_each_survives_being_written_down():
    requests = [ConsentRequest.begin(NOW) for _ in range(50)]

    assert len({request.state for request in requests}) == 50
    assert len({request.verifier for request in requests}) == 50
    assert [ConsentRequest.from_json(request.to_json()) for request in requests] == requests
    # RFC 7636: 43 to 128 characters.
    assert {len(request.verifier.get_secret_value()) for request in requests} == {43}


def test_the_code_is_taken_until_the_last_moment():
    request = ConsentRequest.begin(NOW)
    callback = {"state": request.state.get_secret_value(), "code": "the-code"}
    last_moment = NOW + CONSENT_LIFETIME - timedelta(milliseconds=1)

    assert read_callback(callback, request, last_moment) == SecretStr("the-code")
    with pytest.raises(PermanentError, match="more than ten minutes"):
        read_callback(callback, request, NOW + CONSENT_LIFETIME)


@pytest.mark.parametrize(
    "state",
    [{}, {"state": ""}, {"state": "another"}, {"state": "é"}],
    ids=["no state", "an empty state", "another state", "a state that is no ASCII"],
)
def test_an_answer_to_somebody_else_is_not_read(state):
    """Not even its error: whoever made it up would choose what the page says."""
    callback = state | {"code": "the-code", "error": "access_denied"}
    for request in (ConsentRequest.begin(NOW), None):
        with pytest.raises(PermanentError, match="does not belong to a request of yours"):
            read_callback(callback, request, NOW)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"error": "access_denied"}, "Consent was denied"),
        ({"error": "access_denied", "code": "the-code"}, "Consent was denied"),
        ({"error": "invalid_scope"}, r"ask for consent \(invalid_scope\)"),
        ({"error": "<b>\n"}, "an unknown error"),
        ({}, "without a code"),
        ({"code": ""}, "without a code"),
    ],
    ids=["denied", "denied with a code", "a scope", "an odd error", "nothing", "an empty code"],
)
def test_an_answer_without_a_code_says_why(answer, sentence):
    request = ConsentRequest.begin(NOW)
    with pytest.raises(PermanentError, match=sentence):
        read_callback(answer | {"state": request.state.get_secret_value()}, request, NOW)


@pytest.mark.parametrize(
    ("token", "org_id"),
    [
        ("abc_PF84_97CDBF45-ebe2-4687-8341-44d5c7abf101", "97cdbf45-ebe2-4687-8341-44d5c7abf101"),
        ("eyJhbGciOi.J9.abc", None),
        ("abc_PF84_97cdbf45", None),
    ],
    ids=["with its org", "of another shape", "with less than an org"],
)
def test_the_org_of_a_token_is_told_only_where_it_has_one(token, org_id):
    assert org_of(SecretStr(token)) == org_id
