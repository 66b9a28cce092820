import json

import pytest

from include.sandbox.tokens import portal_id
from tests.sandbox.client import NOW_MS


def helper_token(client):
    connection = client.sandbox.helper_connection()
    reply = client.refresh(
        client_id=connection["login"],
        client_secret=connection["password"],
        refresh_token=connection["extra"]["refresh_token"],
    )
    return reply.json()["access_token"]


def ask(client, token, application=None, **changes):
    scenario = client.sandbox.state.scenario
    content = {
        "clientId": scenario.client_id,
        "clientSecret": scenario.client_secret,
        "targetOrgId": portal_id("ORGANIZATION", scenario.org_id),
    } | changes
    application = application or portal_id("APPLICATION", scenario.client_id)
    return client.send(
        "POST",
        f"/v1/applications/{application}/token",
        json.dumps(content).encode(),
        Content_Type="application/json",
        Authorization=f"Bearer {token}",
    )


def test_a_helper_integration_gets_the_service_app_a_pair(open_sandbox):
    client = open_sandbox()

    pair = ask(client, helper_token(client)).json()

    authorization = {"Authorization": f"Bearer {pair['access_token']}"}
    assert client.contact_tasks(authorization, from_=NOW_MS - 1).status == 200
    assert client.refresh(refresh_token=pair["refresh_token"]).status == 200


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"clientSecret": "wrong"}, 400),
        ({"targetOrgId": portal_id("ORGANIZATION", "other")}, 403),
        ({"application": portal_id("APPLICATION", "other")}, 404),
        ({"clientId": ""}, 400),
    ],
    ids=str,
)
def test_a_bad_request_for_a_pair_is_refused(open_sandbox, changes, status):
    client = open_sandbox()

    reply = ask(client, helper_token(client), **changes)

    assert reply.status == status
    assert reply.json().keys() == {"message", "errors", "trackingId"}


def test_the_service_app_cannot_help_itself(open_sandbox):
    client = open_sandbox()

    assert ask(client, client.refresh().json()["access_token"]).status == 401
    assert ask(open_sandbox(helper_scope="spark:all"), helper_token(client)).status == 403


def test_a_token_without_its_scheme_is_refused(open_sandbox):
    client = open_sandbox()
    application = portal_id("APPLICATION", client.sandbox.state.scenario.client_id)

    reply = client.send(
        "POST",
        f"/v1/applications/{application}/token",
        b"{}",
        Content_Type="application/json",
        Authorization=helper_token(client),
    )

    assert reply.status == 401


def test_a_withdrawn_app_gets_nothing_for_a_newer_token_either(open_sandbox):
    client = open_sandbox()
    client.sandbox.deauthorise()
    newer = client.sandbox.airflow_connection()["extra"]["refresh_token"]

    assert client.refresh(refresh_token=newer).json()["error"] == "invalid_grant"


def test_control_hub_takes_only_true_or_false(open_sandbox):
    client = open_sandbox()

    def control(value):
        return client.send("POST", "/sandbox/app", json.dumps({"is_authorised": value}).encode())

    assert [control(value).status for value in ("false", 0, False)] == [400, 400, 200]
    assert client.refresh().status == 400


def test_a_withdrawn_app_is_dead_until_it_is_authorised_and_has_a_new_pair(open_sandbox):
    client = open_sandbox()
    helper, pair = helper_token(client), client.refresh().json()
    client.sandbox.deauthorise()

    authorization = {"Authorization": f"Bearer {pair['access_token']}"}
    assert client.contact_tasks(authorization, from_=NOW_MS - 1).status == 401
    assert client.refresh(refresh_token=pair["refresh_token"]).json()["error"] == "invalid_grant"
    assert ask(client, helper).status == 403

    client.sandbox.authorise()
    assert client.refresh(refresh_token=pair["refresh_token"]).status == 400
    assert ask(client, helper).status == 200


def test_a_token_tells_when_it_ends(open_sandbox):
    client = open_sandbox()

    def expiry(authorization):
        return client.send("GET", "/v1/authorizations/tokenExpiry", Authorization=authorization)

    assert expiry(client.authorization).json() == {"exp": NOW_MS + 1_209_600_000}
    assert expiry("Bearer 00").status == 401


@pytest.mark.parametrize("shape", ["html", "empty"])
def test_what_stands_before_the_token_endpoint_refuses_without_json(open_sandbox, shape):
    reply = open_sandbox(token_error=shape).refresh(refresh_token="00_PF84_x")

    assert reply.status == 400
    assert not reply.body.startswith(b"{")
