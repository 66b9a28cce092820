import json

import pytest

SUBSCRIPTION = {
    "name": "wxcc captures",
    "description": "wakes the recheck",
    "eventTypes": ["capture:available"],
    "destinationUrl": "https://hooks.contoso.com/wxcc/events",
    "secret": "s" * 32,
    "resourceVersion": "capture:1.0.0",
}


def send(client, method, path="", **content):
    return client.send(
        method,
        f"/v2/subscriptions{path}",
        json.dumps(content).encode() if method in ("POST", "PATCH") else None,
        Authorization=client.authorization,
        Content_Type="application/json",
    )


def test_event_types_name_the_versions(open_sandbox):
    client = open_sandbox()

    answer = client.send("GET", "/v2/event-types", Authorization=client.authorization).json()

    assert {"resource": "capture", "version": "1.0.0"} in answer["meta"]["resourceVersionList"]
    assert "capture:available" in [each["name"] for each in answer["data"]]


def test_a_subscription_is_made_changed_and_removed_and_never_shows_its_secret(open_sandbox):
    client = open_sandbox()

    made = send(client, "POST", **SUBSCRIPTION)
    assert made.status == 201
    path = f"/{made.json()['data']['id']}"
    changed = send(client, "PATCH", path, status="inactive", resourceVersion="capture:1.0.0")
    assert changed.json()["data"]["status"] == "inactive"
    listed = send(client, "GET")
    assert listed.json()["meta"]["subscriptionCount"] == 1
    assert listed.json()["data"] == [changed.json()["data"]]
    assert "s" * 32 not in made.text + changed.text + listed.text
    assert send(client, "DELETE", path).status == 204
    assert send(client, "GET", path).status == 404


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "abc"},
        {"description": "x" * 1025},
        {"secret": "short"},
        {"eventTypes": []},
        {"eventTypes": ["agent:login"]},
        {"resourceVersion": "capture:9.9.9"},
        {"destinationUrl": "http://hooks.contoso.com/"},
        {"destinationUrl": "https://hooks.contoso.com"},
        {"destinationUrl": "https://hooks.contoso.com:8443/"},
        {"destinationUrl": "https://hooks.contoso.com/?a=b"},
        {"destinationUrl": "https://user@hooks.contoso.com/"},
        {"destinationUrl": "https://hooks.local/"},
        {"destinationUrl": "https://127.0.0.1/"},
    ],
    ids=str,
)
def test_a_subscription_against_the_rules_is_refused(open_sandbox, changes):
    assert send(open_sandbox(), "POST", **SUBSCRIPTION | changes).status == 400


def test_a_refusal_has_the_published_shape_with_an_integer_key(open_sandbox):
    reply = send(open_sandbox(), "POST", **SUBSCRIPTION | {"name": "abc"})

    assert reply.json()["error"]["key"] == 400


def test_a_change_names_the_version_of_its_resource(open_sandbox):
    client = open_sandbox()
    path = f"/{send(client, 'POST', **SUBSCRIPTION).json()['data']['id']}"

    reply = send(client, "PATCH", path, status="inactive")

    assert reply.status == 400
    assert "resourceVersion" in reply.text


def test_another_organisation_is_refused(open_sandbox):
    other = "00000000-0000-4000-8000-000000000000"

    assert send(open_sandbox(), "POST", **SUBSCRIPTION | {"orgId": other}).status == 403


def test_no_more_than_the_limit_and_those_of_version_1_count(open_sandbox):
    client = open_sandbox(subscriptions_max=3, subscriptions_of_v1=2)

    assert [send(client, "POST", **SUBSCRIPTION).status for _ in range(2)] == [201, 400]


def test_to_write_needs_a_scope_of_its_own(open_sandbox):
    client = open_sandbox(scope="cjp:config_read")

    assert send(client, "GET").status == 200
    assert send(client, "POST", **SUBSCRIPTION).status == 403
