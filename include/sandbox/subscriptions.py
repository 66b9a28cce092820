"""Subscriptions to events, version 2: strict about every rule that is documented."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from include.sandbox.answers import Answer, RefusalError, json_answer
from include.sandbox.clock import Clock
from include.sandbox.draws import draw_uuid
from include.sandbox.scenario import Scenario

RESOURCE_VERSIONS = {"capture": "1.0.0", "task": "1.0.0", "agent": "2.0.0"}
EVENT_TYPES = ("capture:available", "task:new", "task:ended", "agent:login", "agent:logout")
_CREATED_BY = "admin@example.com"
# Not public: what the documents call "IANA-listed" leaves these out, and every address.
_NO_TOP_LEVEL_DOMAINS = {"local", "localhost", "internal", "test", "invalid", "example", "lan"}
_HOST = re.compile(r"([a-z0-9-]{1,63}\.)+[a-z]{2,63}", re.IGNORECASE)


@dataclass
class Subscription:
    """One subscription; the secret is never shown."""

    id: str
    name: str
    description: str
    event_types: list[str]
    destination_url: str
    secret: str | None
    status: str
    resource_version: str
    created_ms: int
    updated_ms: int

    def shown(self) -> dict[str, Any]:
        """As the API tells it."""
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "eventTypes": self.event_types,
            "destinationUrl": self.destination_url,
            "createdTime": self.created_ms,
            "createdBy": _CREATED_BY,
            "status": self.status,
            "lastUpdatedTime": self.updated_ms,
            "lastUpdatedBy": _CREATED_BY,
            "resourceVersion": self.resource_version,
        }


class SubscriptionDesk:
    """The subscriptions of the organisation, in memory."""

    def __init__(self, key: bytes, scenario: Scenario, clock: Clock) -> None:
        self._key = key
        self._scenario = scenario
        self._clock = clock
        self._made = 0
        self._found: dict[str, Subscription] = {}

    def all(self) -> list[dict[str, Any]]:
        """Every subscription with its secret, for tests: the API never shows one."""
        return [asdict(each) for each in self._found.values()]

    def active(self, event_type: str) -> list[Subscription]:
        """Those to which an event of this type is sent."""
        return [
            each
            for each in self._found.values()
            if each.status == "active" and event_type in each.event_types
        ]

    def deactivate(self) -> None:
        """Set all inactive, as Webex does after errors of their receivers (documented)."""
        for each in self._found.values():
            each.status = "inactive"

    def event_types(self, org_id: str) -> Answer:
        """``GET /v2/event-types``."""
        versions = [
            {"resource": name, "version": version} for name, version in RESOURCE_VERSIONS.items()
        ]
        types = [
            {"name": name, "resource": name.partition(":")[0], "action": name.partition(":")[2]}
            for name in EVENT_TYPES
        ]
        return json_answer(
            {"meta": {"orgId": org_id, "resourceVersionList": versions}, "data": types}
        )

    def answer(self, org_id: str, method: str, subscription_id: str | None, body: bytes) -> Answer:
        """What one request to ``/v2/subscriptions`` answers.

        Raises:
            RefusalError: 400 for what breaks a rule, 404 for an unknown id (inferred), 405.
        """
        if subscription_id is None:
            if method == "GET":
                shown = [each.shown() for each in self._found.values()]
                return json_answer({"meta": self._meta(org_id), "data": shown})
            if method == "POST":
                return self._create(org_id, _members(body, org_id))
        else:
            found = self._found.get(subscription_id)
            if found is None:
                raise RefusalError(404, "There is no such subscription.")
            if method == "GET":
                return json_answer({"meta": {"orgId": org_id}, "data": found.shown()})
            if method == "DELETE":
                del self._found[subscription_id]
                return Answer(204)
            if method == "PATCH":
                self._change(found, _members(body, org_id))
                return json_answer({"meta": {"orgId": org_id}, "data": found.shown()})
        raise RefusalError(405, f"{method} is not served here.")

    def _meta(self, org_id: str) -> dict[str, Any]:
        # Documented: it counts the subscriptions of both versions, the list shows those of one.
        count = len(self._found) + self._scenario.subscriptions_of_v1
        return {"orgId": org_id, "subscriptionCount": count}

    def _create(self, org_id: str, members: dict[str, Any]) -> Answer:
        for name in ("name", "eventTypes", "destinationUrl", "resourceVersion"):
            if name not in members:
                raise RefusalError(400, f"{name} is required.")
        if "status" in members:
            raise RefusalError(400, "status cannot be given.")
        _check(members)
        if self._meta(org_id)["subscriptionCount"] >= self._scenario.subscriptions_max:
            raise RefusalError(400, "The organization has reached its limit of subscriptions.")
        self._made += 1
        now_ms = self._clock.now_ms()
        made = Subscription(
            id=draw_uuid(self._key, b"subscription%d" % self._made),
            name=members["name"],
            description=members.get("description", ""),
            event_types=members["eventTypes"],
            destination_url=members["destinationUrl"],
            secret=members.get("secret"),
            status="active",
            resource_version=members["resourceVersion"],
            created_ms=now_ms,
            updated_ms=now_ms,
        )
        self._found[made.id] = made
        return json_answer({"meta": self._meta(org_id), "data": made.shown()}, 201)

    def _change(self, found: Subscription, members: dict[str, Any]) -> None:
        if "resourceVersion" not in members:
            raise RefusalError(400, "resourceVersion is required.")
        if "name" in members:
            raise RefusalError(400, "name cannot be changed.")
        _check(members)
        found.description = members.get("description", found.description)
        found.event_types = members.get("eventTypes", found.event_types)
        found.destination_url = members.get("destinationUrl", found.destination_url)
        found.secret = members.get("secret", found.secret)
        found.status = members.get("status", found.status)
        found.resource_version = members["resourceVersion"]
        found.updated_ms = self._clock.now_ms()


def _members(body: bytes, org_id: str) -> dict[str, Any]:
    try:
        content: object = json.loads(body)
    except ValueError:
        raise RefusalError(400, "The body is not JSON.") from None
    if not isinstance(content, dict):
        raise RefusalError(400, "The body is not a JSON object.")
    members = cast("dict[str, Any]", content)
    if members.get("orgId", org_id) != org_id:
        raise RefusalError(403, "The token does not open this organisation.")
    return members


def _check(members: dict[str, Any]) -> None:
    _check_text(members, "name", 4, 64)
    _check_text(members, "description", 0, 1024)
    _check_text(members, "secret", 32, 256)
    _check_text(members, "resourceVersion", 1, 50)
    if members.get("status", "active") not in ("active", "inactive"):
        raise RefusalError(400, "status must be active or inactive.")
    resource, _, version = members["resourceVersion"].partition(":")
    if RESOURCE_VERSIONS.get(resource) != version:
        raise RefusalError(400, "resourceVersion is not one of List Event Types.")
    if "eventTypes" in members:
        types: object = members["eventTypes"]
        if not isinstance(types, list) or not 1 <= len(cast("list[object]", types)) <= 32:
            raise RefusalError(400, "eventTypes must be a list of 1 to 32.")
        for each in cast("list[object]", types):
            if each not in EVENT_TYPES or str(each).partition(":")[0] != resource:
                raise RefusalError(400, "eventTypes must be of the resource of resourceVersion.")
    if "destinationUrl" in members:
        _check_destination(members["destinationUrl"])


def _check_text(members: dict[str, Any], name: str, shortest: int, longest: int) -> None:
    value = members.get(name)
    if name in members and not (isinstance(value, str) and shortest <= len(value) <= longest):
        raise RefusalError(400, f"{name} must have {shortest} to {longest} characters.")


def _check_destination(url: object) -> None:
    try:
        parts = urlsplit(str(url))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise RefusalError(400, "destinationUrl is not a URL.") from None
    if parts.scheme != "https" or port not in (None, 443):
        raise RefusalError(400, "destinationUrl must be https on port 443.")
    if parts.query or parts.fragment or parts.username is not None or "?" in str(url):
        raise RefusalError(400, "destinationUrl must have no query, fragment or userinfo.")
    if not parts.path:
        raise RefusalError(400, "destinationUrl must have a path, at least /.")
    if not _HOST.fullmatch(host) or host.rpartition(".")[2].lower() in _NO_TOP_LEVEL_DOMAINS:
        raise RefusalError(400, "destinationUrl must be on a public top-level domain.")
