"""Sends `capture:available` events, signed as Webex signs them."""

import hmac
import http.client
import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from include.sandbox.captures import CaptureLibrary
from include.sandbox.clock import Clock
from include.sandbox.contact_centre import ContactCentre
from include.sandbox.scenario import Scenario
from include.sandbox.subscriptions import Subscription, SubscriptionDesk

EVENT_TYPE = "capture:available"
_ANSWER_SECONDS = 5.0  # documented: any 2xx within them
_LONGEST_WAIT_MS = (
    7 * 24 * 3_600_000
)  # how long after its contact task's creation a capture is looked for
_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class SentEvent:
    """One request to a receiver, or one that the scenario lost; no signature and no secret."""

    id: str
    task_id: str
    kind: str
    status: int | None


class EventSender:
    """Tells the subscribers of captures that became available, as faithfully as the scenario wants."""

    def __init__(
        self,
        scenario: Scenario,
        clock: Clock,
        centre: ContactCentre,
        library: CaptureLibrary,
        subscriptions: SubscriptionDesk,
    ) -> None:
        self._scenario = scenario
        self._clock = clock
        self._centre = centre
        self._library = library
        self._subscriptions = subscriptions
        self._chance = random.Random(scenario.seed)  # noqa: S311 - chance, not a secret
        self.sent: list[SentEvent] = []

    def send(
        self, from_ms: int, to_ms: int, base_url: str, to: str | None = None
    ) -> list[SentEvent]:
        """Send an event for each capture that became available with ``from_ms <= moment < to_ms``.

        They go to ``to``, or else to the scenario's ``deliver_events_to``, one after the other; ``status`` is
        None where nothing was sent or nothing was answered within five seconds.

        Raises:
            ValueError: There is neither.
        """
        url = to or self._scenario.deliver_events_to
        if not url:
            raise ValueError("There is no address: set deliver_events_to.")
        batch = [
            (subscription, kind, self._event(subscription, about, base_url, kind))
            for about in self._available(from_ms, to_ms)
            for subscription in self._subscriptions.active(EVENT_TYPE)
            for kind in self._kinds()
        ]
        if self._scenario.shuffle_events:
            self._chance.shuffle(batch)
        sent = [self._send(url, *each) for each in batch]
        self.sent += sent
        return sent

    def _available(self, from_ms: int, to_ms: int) -> Iterator[tuple[str, str, int]]:
        """Contact task, object and moment of each capture."""
        for contact_task in self._centre.created_between(from_ms - _LONGEST_WAIT_MS, to_ms):
            for capture in self._library.captures_of(contact_task):
                if from_ms <= capture.available_ms < to_ms:
                    yield contact_task.id, capture.object_id, capture.available_ms

    def _kinds(self) -> list[str]:
        """What becomes of one event: sent, lost, sent twice, forged or old."""
        scenario = self._scenario
        for kind, share in (
            ("lost", scenario.event_lost_share),
            ("forged", scenario.event_forged_share),
            ("old", scenario.event_old_share),
        ):
            if self._chance.random() < share:
                return [kind]
        return ["sent", "twice"] if self._chance.random() < scenario.event_twice_share else ["sent"]

    def _event(
        self, subscription: Subscription, about: tuple[str, str, int], base_url: str, kind: str
    ) -> dict[str, Any]:
        task_id, object_id, moment_ms = about
        # The same event has the same id, however often it is sent.
        event_id = uuid.uuid5(uuid.UUID(subscription.id), f"{task_id}/{object_id}")
        sent_ms = self._clock.now_ms() - (_HOUR_MS if kind == "old" else 0)
        return {
            "id": str(event_id),
            "specversion": "1.0",
            "type": EVENT_TYPE,
            "source": f"/com/cisco/wxcc/{subscription.id}",
            "comciscoorgid": self._scenario.org_id,
            "comciscotimestamp": str(sent_ms),
            "datacontenttype": "application/json",
            "data": {
                "taskId": task_id,
                "filePath": f"{base_url}/v1/captures/query",
                "createdTime": moment_ms,
            },
        }

    def _send(
        self, url: str, subscription: Subscription, kind: str, event: dict[str, Any]
    ) -> SentEvent:
        status = None
        if kind != "lost":
            body = json.dumps(event).encode()
            secret = "forged" * 8 if kind == "forged" else subscription.secret
            status = _post(url, body, signed_headers(body, secret, event["comciscotimestamp"]))
        return SentEvent(event["id"], event["data"]["taskId"], kind, status)

    def report(self) -> list[dict[str, Any]]:
        """Every event that was sent or lost so far."""
        return [asdict(each) for each in self.sent]


def signed_headers(body: bytes, secret: str | None, timestamp: str) -> dict[str, str]:
    """The headers of version 2 (documented): hex HMAC-SHA256 of the raw body, and the body's timestamp.

    Without a secret there is no signature (documented).
    """
    signature = hmac.digest(secret.encode(), body, "sha256").hex() if secret else ""
    return {
        "Content-Type": "application/json",
        **({"X-WebexCC-Signature": signature} if signature else {}),
        "X-WebExCC-Timestamp": timestamp,
        "X-WebexCC-Webhook-Version": "2.0.0",
    }


def _post(url: str, body: bytes, headers: dict[str, str]) -> int | None:
    """The status of the answer, or None without one; a redirect is not followed."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=_ANSWER_SECONDS
    )
    try:
        connection.request("POST", parts.path or "/", body, headers)
        with connection.getresponse() as response:
            response.read()
            return response.status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
