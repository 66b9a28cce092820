"""Subscriptions to events of Webex Contact Center (version 2), and the connection that says where events go."""

import re
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from pydantic import SecretStr

from include.domain.contact_centre import JsonObject
from include.domain.errors import PermanentError, TransientError
from include.webex.http_client import Forbidden, NotFound, Refused, WebexClient
from include.webex.json_fields import Fields, fields_of, text

CAPTURE_EVENTS_CONNECTION_ID = "wxcc_capture_events"
EVENT_TYPE = "capture:available"
SUBSCRIPTION_NAME = "wxcc captures"
MAX_SUBSCRIPTIONS_PER_ORG = 20  # documented
_PATH = "/v2/subscriptions"
_RESOURCE = EVENT_TYPE.partition(":")[0]
_SECRET = re.compile(r"[\x21-\x7e]{32,256}")
_HOST = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+([a-z]{2,63}|xn--[a-z0-9-]{2,59})")
# RFC 6761 and 6762, and what networks use of their own: no public top-level domains.
_PRIVATE_DOMAINS = frozenset(
    ("example", "home", "internal", "invalid", "lan", "local", "localhost", "onion", "test")
)


def _refusal(field: str, remedy: str) -> PermanentError:
    return PermanentError(
        f"The connection {CAPTURE_EVENTS_CONNECTION_ID} is not usable: {field} {remedy}."
    )


@dataclass(frozen=True)
class CaptureEventsConnection:
    """The Airflow connection `wxcc_capture_events`, checked.

    Attributes:
        destination_url: Where Webex sends events: the receiver, as the internet sees it.
        secret: What Webex signs each event with.
    """

    destination_url: str
    secret: SecretStr

    @classmethod
    def from_fields(cls, *, host: str | None, password: str | None) -> "CaptureEventsConnection":
        """Check the fields of the connection; neither is ever quoted.

        Raises:
            PermanentError: A field is missing, or Webex would refuse it; the sentence names it.
        """
        if not _SECRET.fullmatch(password or ""):
            raise _refusal(
                "password (the secret that events are signed with)",
                "must have 32 to 256 printable ASCII characters without spaces: make one with openssl rand -hex 32",
            )
        return cls(_destination_url((host or "").strip()), SecretStr(password or ""))


def _destination_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if parts.scheme != "https" or port not in {None, 443}:
        raise _refusal("host", "must be an https URL on port 443, the only one that Webex sends to")
    if "@" in parts.netloc or "?" in url or "#" in url or re.search(r"[^\x21-\x7e]|\\", url):
        raise _refusal("host", "must be a URL without user, query, fragment and odd characters")
    if not parts.path:
        raise _refusal("host", "must be a URL with a path, such as /wxcc/events")
    if not _HOST.fullmatch(host) or host.rpartition(".")[2] in _PRIVATE_DOMAINS:
        raise _refusal(
            "host", "must be a URL whose host name ends in a public top-level domain, such as .com"
        )
    return _normal(url)


def _normal(url: str) -> str:
    """Two spellings of one destination become the same."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return url
    netloc = host if port in {None, 443} and "@" not in parts.netloc else parts.netloc
    return parts._replace(netloc=netloc).geturl()


@dataclass(frozen=True)
class Wanted:
    """What a subscription should be."""

    destination_url: str
    secret: SecretStr
    description: str
    version: str

    def body(self, org_id: str) -> JsonObject:
        """What Webex is told of it; the name is given once only."""
        return {
            "description": self.description,
            "eventTypes": [EVENT_TYPE],
            "destinationUrl": self.destination_url,
            "secret": self.secret.get_secret_value(),
            "orgId": org_id,
            "resourceVersion": f"{_RESOURCE}:{self.version}",
        }


@dataclass(frozen=True)
class Subscription:
    """A subscription as Webex tells it; what it does not tell is empty."""

    subscription_id: str
    name: str
    description: str
    event_types: tuple[str, ...]
    destination_url: str
    is_active: bool
    resource_version: str
    created_ms: int

    def sends_to(self, destination_url: str) -> bool:
        """Whether it sends capture events, and nothing else, to that destination."""
        return self.destination_url == destination_url and set(self.event_types) == {EVENT_TYPE}

    def is_as(self, wanted: Wanted) -> bool:
        """Whether nothing has to be changed, as far as can be seen: nobody tells the secret."""
        return (
            self.is_active
            and self.sends_to(wanted.destination_url)
            # Told as given, or without the resource: the documents show both.
            and self.resource_version.rpartition(":")[2] == wanted.version
            and self.description == wanted.description
        )


def query_version(client: WebexClient) -> str:
    """The version in which Webex sends `capture:available`: the highest of those that it lists.

    Raises:
        PermanentError: It lists no such event.
        ArchiveError: As of `WebexClient.get`.
    """
    answer = client.get("/v2/event-types", {"orgId": client.connection.org_id})
    names = {fields_of(each).take("name", text) for each in cast("list[object]", answer["data"])}
    versions = [
        version
        for each in _objects(Fields(answer).nested("meta").as_told("resourceVersionList"))
        if each.take("resource", text) == _RESOURCE and (version := each.take("version", text))
    ]
    if EVENT_TYPE not in names or not versions:
        raise PermanentError(
            f"Webex offers this org no event {EVENT_TYPE}: delete the connection {CAPTURE_EVENTS_CONNECTION_ID}; the "
            "archive is complete without events."
        )
    return max(
        versions, key=lambda version: [int(number) for number in re.findall(r"\d+", version)]
    )


def list_subscriptions(client: WebexClient) -> tuple[list[Subscription], int]:
    """Every subscription of version 2, and how many the org has of both versions.

    Raises:
        ArchiveError: As of `WebexClient.get`.
    """
    answer = client.get(_PATH, {"orgId": client.connection.org_id})
    found = [
        subscription
        for each in _objects(answer["data"])
        if (subscription := _parse_subscription(each)) is not None
    ]
    count = Fields(answer).nested("meta").as_told("subscriptionCount")
    return found, max(len(found), count if isinstance(count, int) else 0)


def create_subscription(client: WebexClient, wanted: Wanted, count: int) -> None:
    """Make one.

    Raises:
        PermanentError: The token may not write, or the org has as many subscriptions as it may have.
        ArchiveError: As of `WebexClient.post`.
    """
    body = {"name": SUBSCRIPTION_NAME, **wanted.body(client.connection.org_id)}
    try:
        client.write("POST", _PATH, body)
    except Forbidden:
        raise _missing_scope() from None
    except Refused:
        if count < MAX_SUBSCRIPTIONS_PER_ORG:
            raise _refused() from None
        raise PermanentError(
            f"The org has {count} subscriptions to events, and Webex allows {MAX_SUBSCRIPTIONS_PER_ORG}: delete one "
            "that nobody needs (those of version 1 count too, and are listed by GET /v1/subscriptions only)."
        ) from None


def change_subscription(client: WebexClient, subscription_id: str, wanted: Wanted) -> None:
    """Make one what it should be, secret and status included.

    Raises:
        PermanentError: The token may not write, or Webex refuses a value.
        TransientError: It is gone, or stays inactive.
        ArchiveError: As of `WebexClient.post`.
    """
    body = {"status": "active", **wanted.body(client.connection.org_id)}
    try:
        answer = client.write("PATCH", f"{_PATH}/{subscription_id}", body)
    except Forbidden:
        raise _missing_scope() from None
    except Refused:
        raise _refused() from None
    except NotFound:
        raise TransientError(
            f"The subscription {subscription_id} was deleted while it was changed."
        ) from None
    changed = _parse_subscription(fields_of(Fields(answer).as_told("data")))
    if changed and not changed.is_active:
        raise TransientError(
            f"Webex leaves the subscription {subscription_id} inactive: see that its receiver answers, from the "
            "internet, at the host of the connection wxcc_capture_events."
        )


def delete_subscription(client: WebexClient, subscription_id: str) -> None:
    """Remove one; one that is gone already is no trouble.

    Raises:
        PermanentError: The token may not write.
        ArchiveError: As of `WebexClient.post`.
    """
    parameters = {"orgId": client.connection.org_id}
    try:
        client.write("DELETE", f"{_PATH}/{subscription_id}", parameters=parameters)
    except Forbidden:
        raise _missing_scope() from None
    except NotFound:
        return


def _missing_scope() -> PermanentError:
    return PermanentError(
        "The token may not change subscriptions (403): give the application the scope cjp:config_write in the Webex "
        "Developer Portal and have a full administrator approve it anew in Control Hub, or delete the connection "
        f"{CAPTURE_EVENTS_CONNECTION_ID}."
    )


def _refused() -> PermanentError:
    return PermanentError(
        "Webex refuses the subscription to capture events: its destination, the host of the connection "
        f"{CAPTURE_EVENTS_CONNECTION_ID}, must be a public https address, and the org may have "
        f"{MAX_SUBSCRIPTIONS_PER_ORG} subscriptions, those of version 1 included."
    )


def _parse_subscription(fields: Fields) -> Subscription | None:
    """None for what has no usable id: it could be neither changed nor removed."""
    subscription_id = fields.take("id", text) or ""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", subscription_id):
        return None
    types = fields.as_told("eventTypes")
    created = fields.as_told("createdTime")
    return Subscription(
        subscription_id=subscription_id,
        name=fields.take("name", text) or "",
        description=fields.take("description", text) or "",
        event_types=tuple(map(str, cast("list[object]", types))) if isinstance(types, list) else (),
        destination_url=_normal(fields.take("destinationUrl", text) or ""),
        is_active=(fields.take("status", text) or "").lower() == "active",
        resource_version=fields.take("resourceVersion", text) or "",
        created_ms=created if isinstance(created, int) else 0,
    )


def _objects(value: object) -> list[Fields]:
    elements = cast("list[object]", value) if isinstance(value, list) else []
    return [fields_of(each) for each in elements]
