"""Evenly spread samples of a range: its contact tasks, and the captures offered for some of them."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice, pairwise
from statistics import mean

from include.domain.contact_centre import Capture, is_identified
from include.domain.errors import ArchiveError
from include.domain.estimates import Figure, estimated_mean, estimated_total, spread_starts
from include.domain.interval import HOUR, Interval, hour_of
from include.domain.redaction import redact
from include.pipelines.capture_copies import CONCURRENT_COPIES
from include.webex.captures import CapturesQuery, batches
from include.webex.contact_task_listing import list_contact_tasks
from include.webex.contact_tasks import MAX_CONTACT_TASKS_PER_PAGE, REACH
from include.webex.http_client import WebexClient
from include.webex.media import DownloadGone, MediaClient

MAX_SPANS = 24  # one for each hour of the day
MAX_QUERIED = 100  # ten batches
# A span that holds no more than this on average is one page or two.
_CONTACT_TASKS_PER_SPAN = 1600
_HOURS_PER_DAY = 24


@dataclass(frozen=True)
class ListedHour:
    """How many contact tasks an hour has, and how many of them can have captures."""

    hour: datetime
    contact_tasks: float
    to_query: float


@dataclass(frozen=True)
class ListedSpan:
    """What the list told about some hours in a row.

    Attributes:
        hours: Each of them.
        task_ids: Contact tasks that can have captures.
        weight: For how many contact tasks of the span one that was listed stands: more than one where
            the listing stopped before the span's end.
    """

    hours: tuple[ListedHour, ...]
    task_ids: tuple[str, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class ContactTaskSample:
    """Spans of a range of hours; together they may be all of it."""

    spans: Sequence[ListedSpan]
    range_hours: int

    @property
    def hours(self) -> list[ListedHour]:
        """All hours that were listed."""
        return [hour for span in self.spans for hour in span.hours]

    @property
    def is_complete(self) -> bool:
        """Whether every hour of the range was listed."""
        return len(self.hours) == self.range_hours

    def total(self, count: Callable[[ListedHour], float]) -> Figure:
        """The sum over all hours of the range."""
        sums = [sum(count(hour) for hour in span.hours) for span in self.spans]
        return estimated_total(sums, len(self.hours) / self.range_hours)

    def draw(self, limit: int) -> list[str]:
        """At most so many contact tasks that can have captures, evenly from all of the range."""
        weighted = [(task_id, span.weight) for span in self.spans for task_id in span.task_ids]
        if len(weighted) <= limit:
            return [task_id for task_id, _ in weighted]
        step = sum(weight for _, weight in weighted) / limit
        drawn: list[str] = []
        passed = 0.0
        for task_id, weight in weighted:
            passed += weight
            if passed > (len(drawn) + 0.5) * step:
                drawn.append(task_id)
        return drawn


def list_sample(
    client: WebexClient, interval: Interval, now: datetime, channel_types: Collection[str]
) -> ContactTaskSample:
    """List a range of whole hours: all of it where that is little, else evenly spread spans of it.

    A day is listed as it is. Of more, one hour in each of 24 parts is listed first, one page at most;
    if these are so few that some forty pages hold all, all is listed, or else whole days instead of hours
    where a page or two hold a day.
    """
    hours = list(interval.hours())
    if len(hours) <= MAX_SPANS:
        return ContactTaskSample([_listed(client, interval, now, channel_types)], len(hours))
    spread = [
        _listed(
            client, Interval(start, start + HOUR), now, channel_types, MAX_CONTACT_TASKS_PER_PAGE
        )
        for start in spread_starts(hours, MAX_SPANS, 1)
    ]
    per_hour = mean(hour.contact_tasks for span in spread for hour in span.hours)
    length = int(min(_CONTACT_TASKS_PER_SPAN / max(per_hour, 0.001), len(hours)))
    if length * MAX_SPANS >= len(hours):
        # In parts, since a long range may be refused.
        bounds = [
            *(hours[part * len(hours) // MAX_SPANS] for part in range(MAX_SPANS)),
            interval.end,
        ]
        spans = [Interval(start, end) for start, end in pairwise(bounds)]
    elif length >= _HOURS_PER_DAY:
        length -= length % _HOURS_PER_DAY
        starts = spread_starts(hours, MAX_SPANS, length)
        spans = [Interval(start, start + length * HOUR) for start in starts]
    else:
        return ContactTaskSample(spread, len(hours))
    listed = [_listed(client, span, now, channel_types) for span in spans]
    return ContactTaskSample(listed, len(hours))


def _listed(
    client: WebexClient,
    span: Interval,
    now: datetime,
    channel_types: Collection[str],
    limit: int | None = None,
) -> ListedSpan:
    """List a span, or so many contact tasks of it that the rest can be told from them."""
    contact_tasks, to_query = Counter[datetime](), Counter[datetime]()
    task_ids: list[str] = []
    last_time = span.start
    if now - span.start > REACH - timedelta(days=2):
        limit = None  # the search tells in no order, so that a part of it would tell nothing
    for contact_task in islice(list_contact_tasks(client, span, now, channel_types), limit):
        last_time = contact_task.created_time
        hour = hour_of(contact_task.created_time)
        contact_tasks[hour] += 1
        if contact_task.capture_requested is not False and is_identified(contact_task.task_id):
            to_query[hour] += 1
            task_ids.append(contact_task.task_id)
    weight = 1.0
    if contact_tasks.total() == limit and last_time > span.start:
        weight = (span.end - span.start) / (last_time - span.start)
    hours = (
        ListedHour(hour, contact_tasks[hour] * weight, to_query[hour] * weight)
        for hour in span.hours()
    )
    return ListedSpan(tuple(hours), tuple(task_ids), weight)


@dataclass(frozen=True)
class OfferedSample:
    """What the API offers now for some contact tasks, and how large it is.

    Attributes:
        contact_tasks: How many were asked about.
        captures: How many a contact task has on average, without those that are purged.
        size_bytes: How large these are together.
        unread: How many captures did not tell their size.
        reason: Why the first of these did not.
    """

    contact_tasks: int
    captures: Figure
    size_bytes: Figure
    unread: int = 0
    reason: str = ""


@dataclass(frozen=True)
class _Offer:
    """One capture; its size, or why that could not be told."""

    size_bytes: int | None
    reason: str = ""
    is_purged: bool = False


def ask_sample(
    drawn: Sequence[str], to_query: Figure, query: CapturesQuery, media: MediaClient
) -> OfferedSample:
    """Ask what is offered for the contact tasks drawn, and how large it is; no content is downloaded."""
    if not drawn:
        return OfferedSample(0, Figure.exact(0), Figure.exact(0))
    offers: list[list[_Offer]] = []
    with ThreadPoolExecutor(max_workers=CONCURRENT_COPIES, thread_name_prefix="size") as pool:
        for batch in batches(drawn):
            answer = query(batch)
            for task_id in batch:
                sizes = pool.map(partial(_size_of, media=media), answer[task_id] or ())
                offers.append([offer for offer in sizes if not offer.is_purged])
    known = [offer.size_bytes for of in offers for offer in of if offer.size_bytes is not None]
    unread = [offer for of in offers for offer in of if offer.size_bytes is None]
    typical = mean(known) if known else 0
    is_all = to_query == Figure.exact(len(drawn))
    share = 1.0 if is_all else len(drawn) / (max(to_query.value, len(drawn)) + 1)
    size_bytes = estimated_mean(
        [
            sum(typical if offer.size_bytes is None else offer.size_bytes for offer in of)
            for of in offers
        ],
        share,
    )
    return OfferedSample(
        contact_tasks=len(drawn),
        captures=estimated_mean([len(of) for of in offers], share),
        size_bytes=replace(
            size_bytes,
            high=math.inf if unread and not known else size_bytes.high,
            is_exact=is_all and not unread,
        ),
        unread=len(unread),
        reason=unread[0].reason if unread else "",
    )


def _size_of(capture: Capture, media: MediaClient) -> _Offer:
    if capture.download_url is None:
        return _Offer(None, "It is offered without a URL.")
    try:
        size_bytes = media.look(capture.download_url).size_bytes
    except DownloadGone:
        return _Offer(None, is_purged=True)
    except ArchiveError as error:
        return _Offer(None, redact(str(error)))
    return _Offer(size_bytes, "The media host does not tell its length.")
