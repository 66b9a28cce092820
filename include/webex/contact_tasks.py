"""Lists the contact tasks that were created in an interval: GET /v1/tasks, without a cursor."""

import hashlib
import json
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import cast

from include.domain.contact_centre import UNIDENTIFIED, ContactTask, JsonObject
from include.domain.errors import PermanentError
from include.domain.interval import Interval, epoch_ms, from_epoch_ms
from include.webex.http_client import TooLarge, WebexClient

MAX_CONTACT_TASKS_PER_PAGE = 1000  # documented
MICROSECOND = timedelta(microseconds=1)
REACH = timedelta(days=365)  # seen live: `from` at most 12 months ago; else contact_task_search.py
_KNOWN_ATTRIBUTES = frozenset(
    {
        "owner", "queue", "channelType", "status", "createdTime", "lastUpdatedTime", "captureRequested",
        "origin", "destination", "direction", "reasonCode",
    }
)  # fmt: skip


def iter_contact_tasks(
    client: WebexClient,
    interval: Interval,
    now: datetime,
    channel_types: Collection[str] = (),
    page_size: int = MAX_CONTACT_TASKS_PER_PAGE,
) -> Iterator[ContactTask]:
    """Each contact task created in the interval that the API shows, once, in order of creation.

    The API cuts a list at the page size, silently and without a cursor, so the walk advances ``from`` to
    the last creation time of a full page. Whether its bounds are inclusive is unknown: windows overlap by
    1 ms on both sides, ids are de-duplicated and rows outside the interval are dropped. Where a full page
    brings no progress, is not in order, or is refused as too large, the window is halved.

    Raises:
        PermanentError: More contact tasks share one millisecond than a page holds; the walk never loops
            and never leaves some out silently.
    """
    if interval.start >= now:
        return
    # Nothing is asked about the future: a `from` there may be refused (unknown).
    end_ms = min(epoch_ms(interval.end - MICROSECOND) + 1, epoch_ms(now))
    cursor_ms = (
        epoch_ms(interval.start) - 1
    )  # the first instant asked for, should `from` be exclusive
    width_ms = end_ms - cursor_ms
    seen: set[str] = set()
    while True:
        to_ms = min(cursor_ms + width_ms, end_ms)
        page = _query_page(
            client, cursor_ms, to_ms, now, channel_types=channel_types, page_size=page_size
        )
        if page is not None:
            for contact_task in page:
                if contact_task.created_time in interval and contact_task.task_id not in seen:
                    seen.add(contact_task.task_id)
                    yield contact_task
            if len(page) < page_size:
                if to_ms == end_ms:
                    return
                # The next window overlaps this one by a millisecond, should `to` be exclusive.
                cursor_ms, width_ms = to_ms - 1, width_ms * 2
                continue
            if _is_in_order(page):
                if page[-1].created_time >= interval.end:
                    return
                next_ms = _next_cursor(page, cursor_ms)
                if next_ms > cursor_ms:
                    cursor_ms = next_ms
                    continue
        width_ms = _halved(cursor_ms, to_ms, page_size)


def _query_page(
    client: WebexClient,
    from_ms: int,
    to_ms: int,
    now: datetime,
    *,
    channel_types: Collection[str],
    page_size: int,
) -> list[ContactTask] | None:
    """One page, or None where the API finds the answer too large."""
    parameters: dict[str, str | int] = {
        "from": from_ms,
        "pageSize": page_size,
        "orgId": client.connection.org_id,
    }
    # Left out, `to` is the server's now (documented); a `to` in the future may be refused (unknown).
    if to_ms < epoch_ms(now):
        parameters["to"] = to_ms
    if channel_types:
        parameters["channelTypes"] = ",".join(sorted(channel_types))
    try:
        answer = client.get("/v1/tasks", parameters)
    except TooLarge:
        return None
    page: list[ContactTask] = []
    position = from_epoch_ms(from_ms + 1)
    for item in cast("list[object]", answer["data"]):
        contact_task = parse_contact_task(item, position)
        position = contact_task.created_time
        page.append(contact_task)
    return page


def _is_in_order(page: list[ContactTask]) -> bool:
    times = [contact_task.created_time for contact_task in page]
    return all(earlier <= later for earlier, later in pairwise(times))


def _next_cursor(page: list[ContactTask], cursor_ms: int) -> int:
    """Where to go on after a full page in order; not past the cursor when it brings no progress."""
    last_ms = epoch_ms(page[-1].created_time)
    # A row at the bound itself proves that `from` is inclusive; otherwise one millisecond of overlap
    # keeps the ties of the last one in the next page under either meaning.
    return last_ms if epoch_ms(page[0].created_time) == cursor_ms else last_ms - 1


def _halved(cursor_ms: int, to_ms: int, page_size: int) -> int:
    width_ms = (to_ms - cursor_ms) // 2
    if width_ms < 2:  # with exclusive bounds, a width of 2 ms asks for exactly one millisecond
        raise PermanentError(
            f"More contact tasks were created at {from_epoch_ms(cursor_ms + 1).isoformat()} than one page of "
            f"{page_size} holds, and the API has no cursor to list the rest. Archive the hour "
            "once for each channel type (the parameter channel_types) so that each list is shorter."
        )
    return width_ms


def parse_contact_task(item: object, position: datetime) -> ContactTask:
    """A contact task from one element of the list, whatever is missing, null or of another type.

    An element without id or creation time still becomes a row: under an id made from its content, at
    the given position of the walk.
    """
    element = cast("JsonObject", item) if isinstance(item, dict) else {"value": item}
    attributes = _object(element.get("attributes"))
    owner, queue = _object(attributes.get("owner")), _object(attributes.get("queue"))
    created_time = instant(attributes.get("createdTime"))
    extra = {key: value for key, value in attributes.items() if key not in _KNOWN_ATTRIBUTES}
    extra |= {key: value for key, value in element.items() if key not in {"id", "attributes"}}
    return ContactTask(
        task_id=text(element.get("id")) or unidentified(element),
        created_time=created_time or position,
        channel_type=text(attributes.get("channelType")),
        status=text(attributes.get("status")),
        last_updated_time=instant(attributes.get("lastUpdatedTime")),
        capture_requested=boolean(attributes.get("captureRequested")),
        direction=text(attributes.get("direction")),
        origin=text(attributes.get("origin")),
        destination=text(attributes.get("destination")),
        reason_code=text(attributes.get("reasonCode")),
        owner_id=text(owner.get("id")),
        owner_name=text(owner.get("name")),
        queue_id=text(queue.get("id")),
        queue_name=text(queue.get("name")),
        extra=extra,
    )


def unidentified(element: JsonObject) -> str:
    """A stable id for an element that came without one."""
    content = json.dumps(element, sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{UNIDENTIFIED}{digest}"


def _object(value: object) -> JsonObject:
    return cast("JsonObject", value) if isinstance(value, dict) else {}


def text(value: object) -> str | None:
    """A text field; numbers become text, anything else counts as missing. Never an empty text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    # A lone surrogate cannot be written to Parquet, which is UTF-8.
    return str(value).encode("utf-8", "replace").decode() or None


def boolean(value: object) -> bool | None:
    """A three-valued field: null and everything unknown are None, never false."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def instant(value: object) -> datetime | None:
    """An epoch in milliseconds, sent as a number or as text (both documented)."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return from_epoch_ms(int(value))
    except (ValueError, OverflowError):
        return None
