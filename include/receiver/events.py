"""Judges one delivery: whether Webex sent it just now, and which contact task it names."""

import hashlib
import hmac
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from include.domain.interval import from_epoch_ms
from include.storage.hints import Hint

MAX_SKEW = timedelta(minutes=5)  # documented
_EVENT_TYPE = "capture:available"
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_MS = re.compile(r"\d{12,14}", re.ASCII)
_OLDEST = timedelta(days=400)  # of what a capture may be told


class Dropped(Exception):
    """Not signed with our secret, not of now, about something else, or of no use: nothing is kept of it."""


@dataclass(frozen=True)
class CaptureEvent:
    """One event that is to be believed."""

    event_id: str
    hint: Hint


def read_event(
    body: bytes, headers: Mapping[bytes, bytes], secret: bytes, org_id: str, now: datetime
) -> CaptureEvent:
    """The event in a delivery; its signature is looked at before anything else.

    What only helps, such as the time when the capture was created, may be missing or odd.

    Args:
        body: The bytes as they came.
        headers: With names in lower case.
        secret: The subscription's.
        org_id: Whose events are ours, in any case.
        now: The receiver's clock.

    Raises:
        Dropped: It is forged, too old or too new, of another org, another event, or names no contact task.
    """
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
    told = headers.get(b"x-webexcc-signature", b"").strip().lower()
    if not hmac.compare_digest(digest.encode(), told):
        raise Dropped("its signature is wrong or missing")
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        raise Dropped("its body is not JSON") from None
    event, data = _object(event), _object(_object(event).get("data"))
    sent = _instant(event.get("comciscotimestamp"))
    if sent is None:
        raise Dropped("its time is missing or not plausible")
    # The header is not signed: it may only make a delivery older than its body says.
    header = _instant(headers.get(b"x-webexcc-timestamp", b"").decode("latin-1").strip())
    if any(abs(now - time) > MAX_SKEW for time in (sent, header or sent)):
        raise Dropped("it is not of the last five minutes")
    if event.get("type") != _EVENT_TYPE:
        raise Dropped("it is another event")
    if str(event.get("comciscoorgid")).lower() != org_id.lower():
        raise Dropped("it is of another org")
    task_id = _id(data.get("taskId"))
    if task_id is None:
        raise Dropped("its task id is missing or not plausible")
    created = _instant(data.get("createdTime"))
    if created is None or created < now - _OLDEST:
        created = sent
    # Two events with the same bytes are one, also without an id.
    return CaptureEvent(_id(event.get("id")) or digest, Hint(task_id, min(created, now)))


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Dropped("a JSON object is missing")
    return cast("dict[str, Any]", value)


def _id(value: object) -> str | None:
    return value if isinstance(value, str) and _ID.fullmatch(value) else None


def _instant(value: object) -> datetime | None:
    """Milliseconds, as a number or as text, or a time as text with its zone."""
    if isinstance(value, float) and math.isfinite(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, int):
        # Compared before it is text: a number may be long enough to cost time.
        return from_epoch_ms(value) if 10**11 <= value < 10**14 else None
    if _MS.fullmatch(value):
        return from_epoch_ms(int(value))
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    return instant if instant.tzinfo else None
