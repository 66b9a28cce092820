"""Lists the contact tasks that were created in an interval: GET /v1/tasks, without a cursor."""

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import cast

from include.domain.contact_centre import ContactTask
from include.domain.errors import PermanentError
from include.domain.interval import Interval, epoch_ms, from_epoch_ms
from include.webex.http_client import TooLarge, WebexClient
from include.webex.json_fields import (
    THIS_CENTURY,
    boolean,
    fields_of,
    instant_of,
    text,
    unidentified,
)

MAX_CONTACT_TASKS_PER_PAGE = 1000  # documented
MICROSECOND = timedelta(microseconds=1)
REACH = timedelta(days=365)  # seen live: `from` at most 12 months ago; else contact_task_search.py
# Of a row that lies further outside of what was asked for, the creation time is wrong, and not the answer.
MARGIN = timedelta(days=1)


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
            client,
            cursor_ms,
            to_ms,
            now,
            interval,
            channel_types=channel_types,
            page_size=page_size,
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
        width_ms = _halved(cursor_ms, to_ms, None if page is None else page_size)


def _query_page(
    client: WebexClient,
    from_ms: int,
    to_ms: int,
    now: datetime,
    interval: Interval,
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
    plausible = Interval(from_epoch_ms(from_ms) - MARGIN, now + MARGIN)
    position = from_epoch_ms(from_ms + 1)
    for item in cast("list[object]", answer["data"]):
        # What has no place of its own is never put outside of the interval, where nobody would see it.
        position = min(max(position, interval.start), interval.end - MICROSECOND)
        contact_task = parse_contact_task(item, position, plausible)
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


def _halved(cursor_ms: int, to_ms: int, page_size: int | None) -> int:
    """Half of a window whose page was full, or too large (None)."""
    width_ms = (to_ms - cursor_ms) // 2
    if width_ms >= 2:  # with exclusive bounds, a width of 2 ms asks for exactly one millisecond
        return width_ms
    instant = from_epoch_ms(cursor_ms + 1).isoformat()
    if page_size is None:
        raise PermanentError(
            f"The list of the contact tasks that were created at {instant} is too large to be read. Archive the hour "
            "once for each channel type (the parameter channel_types) so that each list is shorter."
        )
    raise PermanentError(
        f"More contact tasks were created at {instant} than one page of "
        f"{page_size} holds, and the API has no cursor to list the rest. Archive the hour "
        "once for each channel type (the parameter channel_types) so that each list is shorter."
    )


def parse_contact_task(
    item: object, position: datetime, plausible: Interval = THIS_CENTURY
) -> ContactTask:
    """A contact task from one element of the list, whatever is missing, null or of another type.

    An element without id or creation time still becomes a row: under an id made from its content, at
    the given position of the walk. So does one whose creation time is not plausible. What cannot be read is
    kept in ``extra``.
    """
    fields = fields_of(item, "attributes")
    owner, queue = fields.nested("owner"), fields.nested("queue")
    return ContactTask(
        task_id=fields.take_id("id") or unidentified(item),
        created_time=fields.take("createdTime", lambda value: instant_of(value, plausible))
        or position,
        channel_type=fields.take("channelType", text),
        status=fields.take("status", text),
        last_updated_time=fields.take(
            "lastUpdatedTime", lambda value: instant_of(value, THIS_CENTURY)
        ),
        capture_requested=fields.take("captureRequested", boolean),
        direction=fields.take("direction", text),
        origin=fields.take("origin", text),
        destination=fields.take("destination", text),
        reason_code=fields.take("reasonCode", text),
        owner_id=owner.take("id", text),
        owner_name=owner.take("name", text),
        queue_id=queue.take("id", text),
        queue_name=queue.take("name", text),
        extra=fields.rest(),
    )
