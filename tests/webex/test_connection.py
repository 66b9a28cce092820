"""Each mistake in the Airflow connection gets a sentence that names the field; secrets never show."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.errors import ArchiveError, PermanentError
from include.webex.connection import (
    DEFAULT_MEDIA_HOSTS,
    DEFAULT_REQUESTS_PER_MINUTE,
    DEFAULT_TOKEN_URL,
    REGIONS,
    WebexConnection,
)
from tests.builders import ORG_ID, a_connection


def test_what_is_not_given_has_a_safe_default():
    connection = a_connection(refresh_token=None)

    assert connection.base_url == "https://api.wxcc-us1.cisco.com"
    assert connection.token_url == DEFAULT_TOKEN_URL
    assert connection.requests_per_minute == DEFAULT_REQUESTS_PER_MINUTE == 50
    assert connection.media_hosts == DEFAULT_MEDIA_HOSTS
    assert connection.refresh_token is None


@pytest.mark.parametrize("region", REGIONS)
def test_a_short_name_stands_for_its_data_centre(region: str):
    assert a_connection(host=region.upper()).base_url == f"https://api.wxcc-{region}.cisco.com"


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({"host": "https://api.example.com/"}, "https://api.example.com"),
        ({"host": " https://api.example.com/base/ "}, "https://api.example.com/base"),
        ({"host": "api.example.com"}, "https://api.example.com"),
        ({"host": "api.example.com", "schema": "http"}, "http://api.example.com"),
        ({"host": "localhost", "schema": "http", "port": 8080}, "http://localhost:8080"),
        ({"host": "sandbox", "schema": "http", "port": 8080}, "http://sandbox:8080"),
        ({"host": "http://127.0.0.1:8080"}, "http://127.0.0.1:8080"),
        ({"host": "http://127.0.0.1:8080", "port": 9}, "http://127.0.0.1:8080"),
        ({"host": "https://api.example.com/base", "port": 81}, "https://api.example.com:81/base"),
        ({"host": "http://[::1]", "port": 81}, "http://[::1]:81"),
    ],
)
def test_a_host_may_be_given_in_airflows_pieces(fields: dict[str, Any], base_url: str):
    assert a_connection(**fields).base_url == base_url


@pytest.mark.parametrize(
    "fields",
    [
        {"host": None}, {"host": " "}, {"host": "us9"}, {"host": "ftp://api.example.com"},
        {"host": "https://"}, {"host": "https://h:99999"}, {"host": "https://h:99999", "port": 1},
        {"host": "https://h.example", "port": 99_999}, {"host": "https://h:0"},
        {"host": "https://[::1"}, {"host": "https://h.example?a=b"}, {"host": "https://h.example#a"},
        {"host": "https://user:s3cret@h.example"}, {"host": "https://:s3cret@h.example"},
        {"host": "https://a..example"}, {"host": f"https://{'a' * 64}.example"},
        {"host": "https://a b.example"}, {"host": "https://a.example\\b"},
    ],
)  # fmt: skip
def test_an_unusable_host_is_told(fields: dict[str, Any]):
    with pytest.raises(PermanentError, match="webex_contact_center is not usable: host") as raised:
        a_connection(**fields)

    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"login": ""}, "login"), ({"password": None}, "password"),
        ({"org_id": None}, "org_id is missing"), ({"org_id": "  "}, "org_id"),
        ({"org_id": "my-org"}, "org_id is not a UUID"), ({"org_id": 5}, "org_id is not a UUID"),
        ({"token_url": "webexapis.com"}, "token_url"), ({"token_url": "https://u:p@h/"}, "token_url"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"requests_per_minute": "-5"}, "requests_per_minute"),
        ({"requests_per_minute": "5.5"}, "requests_per_minute"),
        ({"requests_per_minute": True}, "requests_per_minute"),
        ({"requests_per_minute": "99999999"}, "requests_per_minute"),
        ({"media_hosts": []}, "media_hosts"), ({"media_hosts": [""]}, "media_hosts"),
        ({"media_hosts": [" "]}, "media_hosts"), ({"media_hosts": "["}, "media_hosts"),
        ({"media_hosts": {"a": 1}}, "media_hosts"), ({"media_hosts": 5}, "media_hosts"),
        ({"media_hosts": " , "}, "media_hosts"),
    ],
)  # fmt: skip
def test_an_unusable_field_is_named_with_its_remedy(fields: dict[str, Any], named: str):
    with pytest.raises(PermanentError, match=named):
        a_connection(**fields)


@pytest.mark.parametrize("org_id", [ORG_ID.upper(), f" {ORG_ID} ", ORG_ID.replace("-", "")])
def test_an_org_id_has_one_form(org_id: str):
    assert a_connection(org_id=org_id).org_id == ORG_ID


@pytest.mark.parametrize(
    "hosts",
    [
        ["*.example.com", "Media.Example.com"],
        '["*.example.com", "media.example.com"]',
        "*.example.com, media.example.com",
        "*.example.com\nmedia.example.com",
        ["*.example.com", None, "media.example.com "],
    ],
)
def test_media_hosts_come_as_a_list_or_as_text(hosts: object):
    assert a_connection(media_hosts=hosts).media_hosts == ("*.example.com", "media.example.com")


@pytest.mark.parametrize("value", [120, "120", " 120 "])
def test_numbers_of_the_extra_may_be_text(value: object):
    assert a_connection(requests_per_minute=value).requests_per_minute == 120


def test_a_connection_shows_no_secret():
    shown = repr(a_connection(password="s3cret", refresh_token="r3fresh"))

    assert "s3cret" not in shown
    assert "r3fresh" not in shown


ANY = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())


@given(
    host=st.none() | st.text() | st.text().map(lambda text: f"https://{text}"),
    port=st.none() | st.integers(-1, 70_000),
    extra=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("token_url", "requests_per_minute", "media_hosts"), ANY)
    ),
)
def test_no_connection_fails_without_a_sentence(
    host: str | None, port: int | None, extra: dict[str, Any]
):
    outcome = error_or(lambda: a_connection(host=host, port=port, **extra))

    if isinstance(outcome, WebexConnection):
        assert outcome.base_url.startswith(("http://", "https://"))
        assert outcome.requests_per_minute > 0
    else:
        assert "is not usable" in str(outcome)


def error_or(make: Callable[[], WebexConnection]) -> WebexConnection | ArchiveError:
    try:
        return make()
    except ArchiveError as error:
        return error


def test_an_integration_says_where_webex_sends_the_administrator_back_to():
    connection = a_connection(
        kind="integration",
        redirect_uri="https://airflow.example.com/wxcc/callback/",
        refresh_token="",
    )

    assert connection.redirect_uri == "https://airflow.example.com/wxcc/callback/"
    assert connection.authorize_url == "https://webexapis.com/v1/authorize"
    assert a_connection(kind="").kind == "service_app"
    assert a_connection(redirect_uri="http://localhost:8080/wxcc/callback").redirect_uri


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kind": "person"}, "kind"),
        ({"kind": "helper"}, "kind"),
        ({"kind": "integration"}, "redirect_uri"),
        ({"redirect_uri": "http://airflow.example.com/wxcc/callback"}, "redirect_uri"),
        ({"redirect_uri": "https://airflow.example.com/?a=b"}, "redirect_uri"),
        ({"authorize_url": "webexapis.com"}, "authorize_url"),
    ],
)
def test_a_wrong_setting_of_an_integration_is_told(changes: dict[str, str], field: str):
    with pytest.raises(PermanentError, match=f"extra field {field} "):
        a_connection(**changes)
