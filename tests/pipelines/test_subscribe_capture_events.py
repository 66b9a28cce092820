"""Whatever subscriptions an org has, one of ours is left, as it should be; and no other is touched."""

from collections.abc import Callable
from typing import Any

import pytest

from include.domain.errors import PermanentError, TransientError
from include.pipelines.subscribe_capture_events import subscribe_capture_events
from include.sandbox.server import Sandbox
from include.webex.subscriptions import CaptureEventsConnection
from tests.builders import a_client_of

URL = "https://hooks.contoso.com/wxcc/events"
SECRET = "a-secret-of-the-tests-of-40-characters--"
OURS: dict[str, Any] = {
    "name": "wxcc captures",
    "eventTypes": ["capture:available"],
    "destinationUrl": URL,
    "resourceVersion": "capture:1.0.0",
}


class Org:
    """An org of the sandbox, with what subscribes there."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.client = a_client_of(sandbox)

    def make(self, **changes: Any) -> str:
        """The id of a subscription that somebody else made, or a former run."""
        self.sandbox.advance(1)
        return self.client.write("POST", "/v2/subscriptions", OURS | changes)["data"]["id"]  # type: ignore

    def patch(self, subscription_id: str, **changes: Any) -> None:
        changes |= {"resourceVersion": "capture:1.0.0"}
        self.client.write("PATCH", f"/v2/subscriptions/{subscription_id}", changes)

    def subscribe(self, url: str = URL, secret: str = SECRET) -> str:
        connection = CaptureEventsConnection.from_fields(host=url, password=secret)
        return subscribe_capture_events(connection, self.client)

    def subscribe_twice(self, url: str = URL, secret: str = SECRET) -> None:
        """The second time sends nothing that changes anything."""
        self.subscribe(url, secret)
        before = self.found
        said = self.subscribe(url, secret)
        assert said.endswith("is as it should be")
        assert self.found == before

    @property
    def found(self) -> list[dict[str, Any]]:
        return self.sandbox.subscriptions()

    def assert_one_as_it_should_be(self, url: str = URL, secret: str = SECRET) -> dict[str, Any]:
        (found,) = self.found
        assert found["name"] == "wxcc captures"
        assert found["event_types"] == ["capture:available"]
        assert found["destination_url"] == url
        assert found["secret"] == secret
        assert found["status"] == "active"
        assert found["resource_version"] == "capture:1.0.0"
        return found


@pytest.fixture
def org(start_sandbox: Callable[..., Sandbox]) -> Org:
    return Org(start_sandbox())


def test_without_any_one_is_made(org: Org):
    org.subscribe_twice()

    found = org.assert_one_as_it_should_be()
    assert SECRET not in found["description"]


def test_an_inactive_one_is_made_active(org: Org):
    org.subscribe()
    org.sandbox.deactivate_subscriptions()

    org.subscribe_twice()

    org.assert_one_as_it_should_be()


def test_a_changed_secret_is_told(org: Org):
    org.subscribe()

    org.subscribe_twice(secret="another" + SECRET)

    org.assert_one_as_it_should_be(secret="another" + SECRET)


def test_a_changed_destination_is_told(org: Org):
    org.subscribe()

    org.subscribe_twice("https://other.contoso.com/")

    org.assert_one_as_it_should_be("https://other.contoso.com/")


def test_another_spelling_of_the_destination_changes_nothing(org: Org):
    org.subscribe()

    assert "is as it should be" in org.subscribe("https://HOOKS.contoso.com:443/wxcc/events")


@pytest.mark.parametrize(
    "wrong",
    [
        {"eventTypes": ["agent:login"], "resourceVersion": "agent:2.0.0"},
        {"name": "by hand"},
        {"secret": "0" * 32},
        {"destinationUrl": "https://other.contoso.com/"},
    ],
    ids=["other event and version", "our destination", "another secret", "our name"],
)
def test_one_of_ours_that_is_not_as_it_should_be_is_mended(org: Org, wrong: dict[str, Any]):
    made = org.make(**wrong)

    org.subscribe_twice()

    (found,) = org.found
    assert found["id"] == made
    assert [found[name] for name in ("destination_url", "secret", "resource_version")] == [
        URL,
        SECRET,
        "capture:1.0.0",
    ]
    assert found["event_types"] == ["capture:available"]


def test_of_several_the_oldest_active_one_is_kept(org: Org):
    inactive, kept, newer = org.make(), org.make(), org.make(name="by hand")
    org.patch(inactive, status="inactive")

    org.subscribe_twice()

    assert org.assert_one_as_it_should_be()["id"] == kept
    assert newer != kept


def test_what_two_runs_at_once_made_becomes_one(org: Org):
    org.subscribe()
    org.make(description=org.found[0]["description"], secret=SECRET)

    org.subscribe_twice()

    org.assert_one_as_it_should_be()


def test_what_a_lost_answer_made_becomes_one(org: Org):
    org.sandbox.set_faults(
        [{"endpoint": "subscriptions", "kind": "reset_after_processing", "after": 2, "times": 1}]
    )
    org.subscribe()
    assert len(org.found) == 2

    org.subscribe_twice()

    org.assert_one_as_it_should_be()


def test_those_of_others_are_never_touched(org: Org):
    org.make(name="somebody else's", destinationUrl="https://other.contoso.com/")
    org.make(
        name="agents",
        eventTypes=["agent:login"],
        resourceVersion="agent:2.0.0",
    )
    foreign = org.found

    org.subscribe_twice()

    assert org.found[:2] == foreign
    assert len(org.found) == 3


@pytest.mark.parametrize("of_v1", [19, 0])
def test_an_org_with_as_many_as_it_may_have_is_told_so(
    start_sandbox: Callable[..., Sandbox], of_v1: int
):
    org = Org(start_sandbox(subscriptions_of_v1=of_v1))
    for number in range(20 - of_v1):
        org.make(name=f"other {number}", destinationUrl="https://other.contoso.com/")

    with pytest.raises(PermanentError, match=r"has 20 subscriptions to events, .* allows 20"):
        org.subscribe()

    assert len(org.found) == 20 - of_v1


def test_without_the_scope_it_is_told(start_sandbox: Callable[..., Sandbox]):
    org = Org(start_sandbox(scope="cjp:config_read"))

    with pytest.raises(PermanentError, match="cjp:config_write") as raised:
        org.subscribe()

    assert SECRET not in str(raised.value)


def test_one_that_is_deleted_while_it_is_looked_at_is_made_anew_by_the_next_attempt(org: Org):
    org.make()
    org.sandbox.set_faults(
        [{"endpoint": "subscriptions", "kind": "http_404", "after": 2, "times": 1}]
    )

    with pytest.raises(TransientError, match="was deleted while it was changed"):
        org.subscribe()


def test_two_runs_that_remove_the_same_duplicate_are_both_content(org: Org):
    org.subscribe()
    org.make()
    org.sandbox.set_faults(
        [{"endpoint": "subscriptions", "kind": "http_404", "after": 2, "times": 1}]
    )

    assert "deleted the duplicate" in org.subscribe()
