import pytest

from include.sandbox.scenario import Scenario
from include.sandbox.server import Sandbox
from tests.sandbox.client import NOW_MS, Client


def test_a_refresh_answers_a_pair(open_sandbox):
    client = open_sandbox()

    answer = client.refresh().json()

    assert answer.keys() == {
        "access_token",
        "expires_in",
        "refresh_token",
        "refresh_token_expires_in",
        "token_type",
        "scope",
    }
    assert (answer["expires_in"], answer["refresh_token_expires_in"]) == (1_209_599, 7_775_999)
    assert (answer["token_type"], answer["scope"]) == ("Bearer", "cjp:config_read cjp:config_write")
    assert answer["access_token"].endswith(f"_PF84_{client.org_id}")
    assert answer["refresh_token"] != client.connection["extra"]["refresh_token"]


def test_a_token_outlives_a_restart():
    """Without this, each restart of the sandbox would need a person to make a new token."""
    scenario = Scenario(now_ms=NOW_MS)
    with Sandbox(scenario) as first:
        pair = Client(first).refresh().json()
    with Sandbox(scenario) as second:
        client = Client(second)
        reply = client.send(
            "GET",
            f"/v1/tasks?from={NOW_MS - 1}",
            Authorization=f"Bearer {pair['access_token']}",
        )
        assert reply.status == 200
        assert client.refresh(refresh_token=pair["refresh_token"]).status == 200


def test_a_token_of_another_seed_is_refused(open_sandbox):
    other = open_sandbox(seed=2).authorization

    assert open_sandbox().contact_tasks({"Authorization": other}, from_=NOW_MS).status == 401


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"grant_type": None}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_id": None}, 400, "invalid_request"),
        ({"client_secret": ""}, 400, "invalid_request"),
        ({"refresh_token": None}, 400, "invalid_request"),
        ({"client_id": "someone"}, 401, "invalid_client"),
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"refresh_token": "zz_PF84_x"}, 400, "invalid_grant"),
        ({"refresh_token": "00_PF84_x"}, 400, "invalid_grant"),
    ],
    ids=str,
)
def test_a_bad_refresh_is_refused_in_both_shapes(open_sandbox, changes, status, error):
    oauth = open_sandbox().refresh(**changes)
    wrapped = open_sandbox(token_error="wrapper").refresh(**changes)

    assert (oauth.status, oauth.json()["error"]) == (status, error)
    assert wrapped.status == status
    assert wrapped.json().keys() == {"message", "errors", "trackingId"}


def test_an_access_token_does_not_refresh(open_sandbox):
    client = open_sandbox()
    access_token = client.refresh().json()["access_token"]

    assert client.refresh(refresh_token=access_token).json()["error"] == "invalid_grant"


def test_only_a_form_by_post_is_taken(open_sandbox):
    client = open_sandbox()
    form = "application/x-www-form-urlencoded"

    as_json = client.send("POST", "/v1/access_token", b"{}", Content_Type="application/json")
    assert as_json.status == 415
    assert client.send("GET", "/v1/access_token").status == 405
    assert client.send("POST", "/v1/access_token", b"\xff", Content_Type=form).status == 400


def test_tokens_expire(open_sandbox):
    client = open_sandbox(access_token_seconds=60, refresh_token_seconds=120)
    pair = client.refresh().json()
    assert pair["expires_in"] == 59
    bearer = {"Authorization": f"Bearer {pair['access_token']}"}

    client.sandbox.advance(59)
    assert client.contact_tasks(bearer, from_=NOW_MS).status == 200
    client.sandbox.advance(1)
    assert client.contact_tasks(bearer, from_=NOW_MS).status == 401
    client.sandbox.advance(60)
    assert client.refresh(refresh_token=pair["refresh_token"]).status == 400


def test_a_refresh_starts_the_refresh_tokens_life_anew_even_without_rotation(open_sandbox):
    client = open_sandbox(rotate_refresh_token=False, refresh_token_seconds=100)
    first = client.connection["extra"]["refresh_token"]

    client.sandbox.advance(90)
    assert client.refresh().json()["refresh_token"] == first
    client.sandbox.advance(90)
    assert client.refresh().status == 200
    client.sandbox.advance(100)
    assert client.refresh().status == 400


def test_a_rotated_refresh_token_lives_on_or_dies_by_switch(open_sandbox):
    lenient, strict = open_sandbox(), open_sandbox(revoke_old_refresh_token=True)

    for client, status in ((lenient, 200), (strict, 400)):
        newer = client.refresh().json()["refresh_token"]
        assert client.refresh().status == status
        assert client.refresh(refresh_token=newer).status == 200


def test_an_older_access_token_lives_on_or_dies_by_switch(open_sandbox):
    lenient, strict = open_sandbox(), open_sandbox(revoke_old_access_token=True)

    for client, status in ((lenient, 200), (strict, 401)):
        older = {"Authorization": client.authorization}
        newer = {"Authorization": f"Bearer {client.refresh().json()['access_token']}"}
        assert client.contact_tasks(older, from_=NOW_MS).status == status
        assert client.contact_tasks(newer, from_=NOW_MS).status == 200


def test_the_refresh_token_can_be_missing_in_the_answer(open_sandbox):
    assert "refresh_token" not in open_sandbox(omit_refresh_token=True).refresh().json()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 400),
        ("", 400),
        ("Bearer", 400),
        ("Basic abc", 400),
        ("Bearer two words", 400),
        ("Bearer nonsense", 401),
        ("Bearer 00ff_PF84_97cdbf45-ebe2-4687-8341-44d5c7abf101", 401),
    ],
    ids=["missing", "empty", "no token", "other scheme", "two words", "nonsense", "forged"],
)
def test_a_bad_authorization_is_refused(open_sandbox, header, status):
    headers = {} if header is None else {"Authorization": header}

    assert open_sandbox().send("GET", "/v1/tasks?from=1", **headers).status == status


def test_a_token_without_the_scope_is_forbidden(open_sandbox):
    client = open_sandbox(scope="cjp:user spark:all")

    assert client.contact_tasks(from_=NOW_MS).status == 403


@pytest.mark.parametrize("shape", ["api", "wrapper", "gateway", "html", "empty"])
def test_error_bodies_have_the_switched_shape(open_sandbox, shape):
    client = open_sandbox(error_body=shape)

    reply = client.send("GET", "/v1/tasks", TrackingId="asked-by-us")

    assert reply.status == 400
    assert reply.headers["trackingid"] == "asked-by-us"
    if shape == "empty":
        assert reply.body == b""
    elif shape == "html":
        assert reply.body.startswith(b"<html>")
    else:
        assert "asked-by-us" in reply.json()["trackingId"]
