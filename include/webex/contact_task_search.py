"""Finds the contact tasks of an interval by the Search API (GraphQL): those too old for the list."""

import json
import logging
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from include.domain.contact_centre import ContactTask, JsonObject
from include.domain.errors import PermanentError, TransientError
from include.domain.interval import Interval, epoch_ms, from_epoch_ms
from include.webex.contact_tasks import MARGIN, MICROSECOND
from include.webex.http_client import Refused, TooLarge, WebexClient
from include.webex.json_fields import (
    THIS_CENTURY,
    Fields,
    boolean,
    fields_of,
    instant_of,
    text,
    unidentified,
)

log = logging.getLogger(__name__)

CONTACT_TASKS_PER_PAGE = 250  # documented; fixed
MAX_CONTACT_TASKS_PER_SEARCH = 100_000  # documented; the rest is left out silently
SEARCH_REACH = timedelta(days=3 * 365)  # documented: 36 months
# Documented: 365 days between `from` and `to`, which overlap by a little.
_MAX_WINDOW_MS = timedelta(days=364) // timedelta(milliseconds=1)

_REQUIRED_FIELDS = ("id", "createdTime")
# Field names drift (seen in use), so these are few and each can be done without.
_OPTIONAL_FIELDS = (
    "status", "channelType", "direction", "origin", "destination", "captureRequested",
    "lastWrapupCodeName", "lastQueue", "lastAgent",
    "endedTime", "recordingCount", "isRecordingDeleted", "isTranscriptionAvailable",
)  # fmt: skip
_EARLIER_NAMES = {"lastQueue": "queue", "lastAgent": "owner"}
_FIELDS_WITH_ID_AND_NAME = frozenset({"lastQueue", "lastAgent", "queue", "owner"})
# Where graphql-java's message says which field it does not know, by its path or by its name.
_FAULTY_FIELD = re.compile(r"@\[\w+/tasks/(\w+)|[Ff]ield \\?['\"](\w+)")


def iter_searched_contact_tasks(
    client: WebexClient,
    interval: Interval,
    now: datetime,
    channel_types: Collection[str] = (),
    *,
    page_size: int = CONTACT_TASKS_PER_PAGE,
    records_max: int = MAX_CONTACT_TASKS_PER_SEARCH,
) -> Iterator[ContactTask]:
    """Each contact task created in the interval that the search shows, once, in no particular order.

    The rows are those of the contact task list, but for ``last_updated_time``, which the search does not
    tell, and ``status``, which it words in its own way ("ended"). It may lag behind the list.

    Each query is followed to its last page. Where its pages are not certainly all and each once (near the
    most records that a search brings, a cursor that leads nowhere, a row that comes again on another page
    because the data or the order of ties changed in between, an answer that is too large), its window is
    asked about again in two halves. As with the list, windows overlap by 1 ms on both sides, ids are
    de-duplicated and rows outside the interval are dropped. A field that the API does not know is asked
    for by its earlier name or left out.

    Raises:
        PermanentError: The interval begins more than 36 months ago, or one millisecond's contact tasks
            cannot be had whole; the walk never loops and never leaves some out silently.
        TransientError: The answer has no place for contact tasks.
    """
    if interval.start < now - SEARCH_REACH:
        raise PermanentError(
            "Webex tells contact tasks of the last 36 months only (1,095 days), and this interval begins at "
            f"{interval.start.isoformat()}: begin the backfill later."
        )
    if interval.start >= now:
        return
    search = _Search(client, interval.start, oldest_ms=epoch_ms(now - SEARCH_REACH))
    seen: set[str] = set()
    # The documented filter compares with one value, so several channel types are several searches.
    for channel_type in sorted(channel_types) or [None]:
        windows = _windows(interval, now)
        while windows:
            window = windows.pop()
            try:
                for page in _iter_pages(search, window, channel_type, page_size, records_max):
                    for contact_task in page:
                        if (
                            contact_task.created_time in interval
                            and contact_task.task_id not in seen
                        ):
                            seen.add(contact_task.task_id)
                            yield contact_task
            except (_NotWhole, TooLarge):
                windows += _halves(window)


class _NotWhole(Exception):
    """The pages of a query are not certainly all of it, each row once."""


@dataclass(frozen=True)
class _Window:
    """The milliseconds ``start_ms <= t < end_ms``."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class _Page:
    """The rows of one answer and the cursor of the next page; None at the end."""

    contact_tasks: list[ContactTask]
    next_cursor: str | None
    is_end_told: bool


def _windows(interval: Interval, now: datetime) -> list[_Window]:
    """Windows that one query may ask about, together the interval up to now."""
    start_ms = epoch_ms(interval.start)
    end_ms = min(epoch_ms(interval.end - MICROSECOND) + 1, epoch_ms(now))
    starts = range(start_ms, end_ms, _MAX_WINDOW_MS)
    return [_Window(each, min(each + _MAX_WINDOW_MS, end_ms)) for each in starts]


def _halves(window: _Window) -> list[_Window]:
    middle_ms = (window.start_ms + window.end_ms) // 2
    if middle_ms == window.start_ms:
        raise PermanentError(
            "The search does not tell all contact tasks that were created at "
            f"{from_epoch_ms(window.start_ms).isoformat()}: its pages are cut, or repeat themselves. Archive the hour "
            "once for each channel type (the parameter channel_types) so that each search is shorter."
        ) from None
    return [_Window(window.start_ms, middle_ms), _Window(middle_ms, window.end_ms)]


def _iter_pages(
    search: "_Search", window: _Window, channel_type: str | None, page_size: int, records_max: int
) -> Iterator[list[ContactTask]]:
    """The pages of one query, up to its end or to the first doubt.

    Raises:
        _NotWhole: There may be more, or a row may have slipped from one page to another.
    """
    cursor: str | None = None
    cursors: set[str] = set()
    count, ids_before = 0, set[str]()
    while True:
        page = search.page(window, channel_type, cursor)
        yield page.contact_tasks
        count += len(page.contact_tasks)
        ids = {contact_task.task_id for contact_task in page.contact_tasks}
        # Where one row comes again on a later page, another may have slipped off between the two.
        if count >= records_max - page_size or not ids.isdisjoint(ids_before):
            raise _NotWhole
        if page.is_end_told:
            return
        cursor = page.next_cursor
        if cursor is None:
            if len(page.contact_tasks) < page_size:
                return
            raise _NotWhole
        # No cursors in a circle, and no endless empty pages.
        if cursor in cursors or len(cursors) >= records_max // page_size:
            raise _NotWhole
        cursors.add(cursor)
        ids_before |= ids


@dataclass
class _Search:
    """What all queries of one walk share; a field that the API does not know is left out of all that follow."""

    client: WebexClient
    position: datetime
    oldest_ms: int
    fields: list[str] = field(default_factory=lambda: [*_REQUIRED_FIELDS, *_OPTIONAL_FIELDS])

    def page(self, window: _Window, channel_type: str | None, cursor: str | None) -> _Page:
        """One page of a query, the first without a cursor."""
        # Should `from` be exclusive; the first instant within reach has no earlier one to ask for.
        from_ms = max(window.start_ms - 1, self.oldest_ms)
        arguments = [f"from: {from_ms}", f"to: {window.end_ms}", "timeComparator: createdTime"]
        if channel_type is not None:
            arguments.append(f"filter: {{channelType: {{equals: {channel_type}}}}}")
        if cursor is not None:  # written out: whether it may be a variable is unknown
            arguments.append(f"pagination: {{cursor: {json.dumps(cursor)}}}")
        while True:
            query = (
                f"{{ taskDetails({', '.join(arguments)}) {{ tasks {{ {self._selection()} }} "
                "pageInfo { hasNextPage endCursor } } }"
            )
            try:
                answer = self.client.post_query(
                    "/search", query, {"orgId": self.client.connection.org_id}
                )
            except Refused as refusal:
                if not self._leave_out(_faulty_fields(refusal)):
                    raise
            else:
                asked = Interval(
                    from_epoch_ms(from_ms) - MARGIN, from_epoch_ms(window.end_ms) + MARGIN
                )
                return _parse_page(answer, self.position, asked)

    def _selection(self) -> str:
        return " ".join(
            f"{name} {{ id name }}" if name in _FIELDS_WITH_ID_AND_NAME else name
            for name in self.fields
        )

    def _leave_out(self, names: set[str]) -> bool:
        """Whether any field could be left out, or asked for by its earlier name."""
        faulty = [name for name in self.fields if name in names and name not in _REQUIRED_FIELDS]
        for name in faulty:
            log.warning("The search does not know the field %s.", name)
            place = self.fields.index(name)
            self.fields[place : place + 1] = (
                [_EARLIER_NAMES[name]] if name in _EARLIER_NAMES else []
            )
        return bool(faulty)


def _faulty_fields(refusal: Refused) -> set[str]:
    """The fields which a refusal names; empty where it is about something else."""
    explanation = refusal.explanation.get_secret_value()
    return {name for names in _FAULTY_FIELD.findall(explanation) for name in names if name}


def _parse_page(answer: JsonObject, position: datetime, plausible: Interval) -> _Page:
    found = Fields(answer).nested("data").nested("taskDetails")
    # A list that is null is an empty one, but an answer without its place is none.
    tasks = found.as_told("tasks", default="none")
    if not isinstance(tasks, list | None):
        raise TransientError("/search answered 200 without a list of contact tasks.")
    items = cast("list[object]", tasks or [])
    page_info = found.nested("pageInfo")
    return _Page(
        [parse_searched_contact_task(item, position, plausible) for item in items],
        page_info.take("endCursor", text),
        is_end_told=page_info.take("hasNextPage", boolean) is False,
    )


def parse_searched_contact_task(
    item: object, position: datetime, plausible: Interval = THIS_CENTURY
) -> ContactTask:
    """A contact task from one element of the answer, whatever is missing, null or of another type.

    An element without id or creation time still becomes a row: under an id made from its content, at
    the given position. So does one whose creation time is not plausible. What cannot be read is kept in
    ``extra``. Where all owners or queues are told (seen in the documents), the last counts.
    """
    fields = fields_of(item)
    owner = fields.nested("lastAgent") or fields.nested("owner")
    queue = fields.nested("lastQueue") or fields.nested("queue")
    return ContactTask(
        task_id=fields.take("id", text) or unidentified(item),
        created_time=fields.take("createdTime", lambda value: instant_of(value, plausible))
        or position,
        channel_type=fields.take("channelType", text),
        status=fields.take("status", text),
        capture_requested=fields.take("captureRequested", boolean),
        direction=fields.take("direction", text),
        origin=fields.take("origin", text),
        destination=fields.take("destination", text),
        reason_code=fields.take("lastWrapupCodeName", text),
        owner_id=owner.take("id", text),
        owner_name=owner.take("name", text),
        queue_id=queue.take("id", text),
        queue_name=queue.take("name", text),
        extra=fields.rest(),
    )
