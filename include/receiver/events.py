"""Judges one delivery: whether Webex sent it just now, and which contact task it names."""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from include.domain.interval import epoch_ms, from_epoch_ms
from include.storage.hints import Hint

MAX_SKEW = timedelta(minutes=5)  # documented
_EVENT_TYPE = "capture:available"
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_MS = re.compile(r"\d{12,14}", re.ASCII)
_OLDEST = timedelta(days=400)  # of what a capture may be told


class NotOurs(Exception):
    """Not signed with our secret, not of now, or about something else: it is dropped."""


class Malformed(Exception):
    """Signed with our secret, but nothing that can be understood."""


@dataclass(frozen=True)
class CaptureEvent:
    """One event that is to be believed."""

    event_id: str
    hint: Hint


def read_event(
    body: bytes, headers: Mapping[bytes, bytes], secret: bytes, org_id: str, now: datetime
) -> CaptureEvent:
    """The event in a delivery; its signature is looked at before anything else.

    Args:
        body: The bytes as they came.
        headers: With names in lower case.
        secret: The subscription's.
        org_id: Whose events are ours.
        now: The receiver's clock.

    Raises:
        NotOurs: It is forged, too old or too new, of another org, or another event.
        Malformed: It is signed, and is no event.
    """
    expected = hmac.new(secret, body, hashlib.sha256).hexdigest().encode()
    if not hmac.compare_digest(expected, headers.get(b"x-webexcc-signature", b"").strip().lower()):
        raise NotOurs("its signature is wrong or missing")
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("its body is not JSON") from None
    event, data = _object(event), _object(_object(event).get("data"))
    # The header is not signed: it may only make a delivery older than its body says.
    told = headers.get(b"x-webexcc-timestamp")
    times = [_instant(event.get("comciscotimestamp"))]
    times += [_instant(told.decode("latin-1").strip())] if told is not None else []
    if any(abs(now - time) > MAX_SKEW for time in times):
        raise NotOurs("it is not of the last five minutes")
    if event.get("type") != _EVENT_TYPE:
        raise NotOurs("it is another event")
    if event.get("comciscoorgid") != org_id:
        raise NotOurs("it is of another org")
    created_time = _instant(data.get("createdTime", event.get("comciscotimestamp")))
    if not -_OLDEST <= created_time - now <= MAX_SKEW:
        raise Malformed("its creation time is not plausible")
    return CaptureEvent(_id(event.get("id")), Hint(_id(data.get("taskId")), created_time))


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed("a JSON object is missing")
    return cast("dict[str, Any]", value)


def _id(value: object) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Malformed("an id is missing or not plausible")
    return value


def _instant(value: object) -> datetime:
    """Milliseconds, as a number or as text."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    # Compared as text first: a number may be long enough to cost time.
    if not _MS.fullmatch(text):
        raise Malformed("a time is missing or not plausible")
    instant = from_epoch_ms(int(text))
    if epoch_ms(instant) != int(text):
        raise Malformed("a time is missing or not plausible")
    return instant
