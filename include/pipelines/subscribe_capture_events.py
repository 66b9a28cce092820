"""Keeps one subscription to capture events: makes it, mends it, and removes its duplicates."""

import hashlib
import hmac
import logging

from include.webex.http_client import WebexClient
from include.webex.subscriptions import (
    CAPTURE_EVENTS_CONNECTION_ID,
    SUBSCRIPTION_NAME,
    CaptureEventsConnection,
    Subscription,
    Wanted,
    change_subscription,
    create_subscription,
    delete_subscription,
    list_subscriptions,
    query_version,
)

log = logging.getLogger(__name__)


def subscribe_capture_events(connection: CaptureEventsConnection, client: WebexClient) -> str:
    """One active subscription to capture events that is as the connection says; what was done, in words.

    A repeat changes nothing. Ours are the subscriptions that have our name, and those that send nothing but
    capture events to our receiver, whatever their name; no other is ever touched. Of several of ours, which two
    runs at once or a lost answer can leave, the oldest active one stays.

    Raises:
        PermanentError: Webex refuses something; the sentence tells what to do.
        TransientError: Webex is out of reach, or what was to be changed is gone; the next attempt looks again.
    """
    version = query_version(client)
    wanted = Wanted(
        connection.destination_url, connection.secret, _description(connection, client), version
    )
    subscriptions, count = list_subscriptions(client)
    ours = sorted(
        (each for each in subscriptions if _is_ours(each, connection)),
        key=lambda each: (not each.is_active, each.created_ms, each.subscription_id),
    )
    if not ours:
        create_subscription(client, wanted, count)
        return _told("made the subscription")
    kept, *duplicates = ours
    done: list[str] = []
    if not kept.is_as(wanted):
        change_subscription(client, kept.subscription_id, wanted)
        done.append(_told(f"changed the subscription {kept.subscription_id}"))
    for each in duplicates:
        delete_subscription(client, each.subscription_id)
        done.append(_told(f"deleted the duplicate {each.subscription_id}"))
    return "; ".join(done) or _told(f"the subscription {kept.subscription_id} is as it should be")


def _told(sentence: str) -> str:
    log.info("%s", sentence)
    return sentence


def _description(connection: CaptureEventsConnection, client: WebexClient) -> str:
    """It tells whether the secret is still the same, which Webex never tells.

    The mark is keyed with the client secret, so that who reads it cannot try out secrets, however weak they are.
    """
    key = client.connection.client_secret.get_secret_value().encode()
    message = f"{CAPTURE_EVENTS_CONNECTION_ID}\n{connection.secret.get_secret_value()}".encode()
    mark = hmac.new(key, message, hashlib.sha256).hexdigest()[:16]
    return f"Wakes the archive of captures. Mark of the secret: {mark}"


def _is_ours(each: Subscription, connection: CaptureEventsConnection) -> bool:
    return each.name == SUBSCRIPTION_NAME or each.sends_to(connection.destination_url)
