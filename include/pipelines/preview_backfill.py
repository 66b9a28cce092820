"""Tells what archiving a range will take, before it is started."""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.domain.errors import PermanentError
from include.domain.estimates import Figure
from include.domain.interval import HOUR, Interval, hour_of
from include.pipelines.archive import Archive
from include.pipelines.archive_captures import ArchiveOptions
from include.pipelines.backfill_sample import (
    MAX_QUERIED,
    ContactTaskSample,
    ListedHour,
    OfferedSample,
    ask_sample,
    list_sample,
)
from include.webex.captures import MAX_CONTACT_TASKS_PER_CAPTURES_QUERY, CapturesQuery
from include.webex.contact_task_search import CONTACT_TASKS_PER_PAGE
from include.webex.contact_tasks import MAX_CONTACT_TASKS_PER_PAGE, REACH
from include.webex.http_client import WebexClient
from include.webex.media import MediaClient

log = logging.getLogger(__name__)

# By DAG: the start of the data interval that an hour belongs to.
_RUNS: dict[str, Callable[[datetime], datetime]] = {
    "archive_captures": hour_of,
    "archive_history": lambda hour: hour.replace(hour=0),
}


@dataclass(frozen=True)
class RunsPreview:
    """What archiving the range takes with the runs of one DAG."""

    dag_id: str
    runs: int
    list_requests: Figure
    captures_queries: Figure

    @property
    def requests(self) -> Figure:
        """All requests that count against the rate budget."""
        return self.list_requests + self.captures_queries


@dataclass(frozen=True)
class BackfillPreview:
    """What archiving a range will take.

    Attributes:
        interval: The range, in whole hours.
        hours: How many these are.
        archived_hours: How many of them the bucket has already.
        contact_tasks: Created in the range.
        to_query: Those of them that can have captures.
        captures: What the API offers for these now.
        objects_to_copy: Those of them that the bucket cannot have yet.
        bytes_to_copy: The size of these.
        runs: What it takes, by DAG.
        requests_per_minute: The rate budget.
        remarks: What else a person should know, in sentences.
    """

    interval: Interval
    hours: int
    archived_hours: int
    contact_tasks: Figure
    to_query: Figure
    captures: Figure
    objects_to_copy: Figure
    bytes_to_copy: Figure
    runs: tuple[RunsPreview, ...]
    requests_per_minute: int
    remarks: tuple[str, ...]

    def lines(self) -> list[str]:
        """A small table for people."""
        rows = [
            ("hours", f"{self.hours:,}, of which {self.archived_hours:,} are archived already"),
            ("contact tasks", self.contact_tasks.text()),
            ("  that can have captures", self.to_query.text()),
            ("captures offered now", self.captures.text()),
            ("  to copy", self.objects_to_copy.text()),
            ("megabytes to copy", self.bytes_to_copy.text(unit=1e6)),
        ]
        for runs in self.runs:
            rows += [
                (f"runs of {runs.dag_id}", f"{runs.runs:,}"),
                ("  requests that list", runs.list_requests.text()),
                ("  captures queries", runs.captures_queries.text()),
                ("  minutes of requests", runs.requests.text(unit=self.requests_per_minute)),
            ]
        start, end = self.interval.start, self.interval.end
        width = max(len(name) for name, _ in rows)
        return [
            f"Archiving {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC takes:",
            *(f"{name:<{width}}  {text}" for name, text in rows),
            *self.remarks,
        ]

    def to_json(self) -> dict[str, object]:
        """The same as plain values, small and without secrets."""
        return {
            "from": self.interval.start.isoformat(),
            "to": self.interval.end.isoformat(),
            "hours": self.hours,
            "archived_hours": self.archived_hours,
            "contact_tasks": self.contact_tasks.to_json(),
            "to_query": self.to_query.to_json(),
            "captures": self.captures.to_json(),
            "objects_to_copy": self.objects_to_copy.to_json(),
            "bytes_to_copy": self.bytes_to_copy.to_json(),
            "requests_per_minute": self.requests_per_minute,
            "runs": {
                runs.dag_id: {
                    "runs": runs.runs,
                    "list_requests": runs.list_requests.to_json(),
                    "captures_queries": runs.captures_queries.to_json(),
                    "minutes": runs.requests.to_json(unit=self.requests_per_minute),
                }
                for runs in self.runs
            },
            "remarks": list(self.remarks),
        }


def preview_backfill(
    interval: Interval,
    client: WebexClient,
    media: MediaClient,
    archive: Archive,
    options: ArchiveOptions,
) -> BackfillPreview:
    """Tell what archiving the hours of a range will take, and log it as a small table.

    It costs little itself: contact tasks are listed in full where they fit some forty pages, or where
    the range is a day at most, and else in evenly spread spans; at most ten captures queries are sent;
    of what they offer the size is asked, not the content. The bucket is listed once and not written to.

    Raises:
        PermanentError: The range has no hour that is over yet.
        ArchiveError: The API or the bucket refuses or fails.
    """
    archive.store.check()
    now = archive.now()
    interval = _whole_hours(interval, now)
    archived = _archived_hours(interval, archive)
    listed = list_sample(client, interval, now, options.channel_types)
    to_query = listed.total(lambda hour: hour.to_query)
    drawn = listed.draw(MAX_QUERIED)
    offered = ask_sample(drawn, to_query, CapturesQuery(client, options.captures), media)
    not_copied = set[datetime]() if options.recopy else archived
    to_copy = listed.total(lambda hour: 0 if hour.hour in not_copied else hour.to_query)
    requests_per_minute = client.connection.requests_per_minute
    runs = [
        RunsPreview(dag_id, len(runs), runs.list_requests(now), runs.captures_queries())
        for dag_id, runs in _runs_of_dags(interval, listed).items()
    ]
    preview = BackfillPreview(
        interval=interval,
        hours=listed.range_hours,
        archived_hours=len(archived),
        contact_tasks=listed.total(lambda hour: hour.contact_tasks),
        to_query=to_query,
        captures=to_query * offered.captures,
        objects_to_copy=to_copy * offered.captures,
        bytes_to_copy=to_copy * offered.size_bytes,
        runs=tuple(runs),
        requests_per_minute=requests_per_minute,
        remarks=tuple(_remarks(listed, offered, runs[0], len(archived), requests_per_minute)),
    )
    for line in preview.lines():
        log.info("%s", line)
    return preview


def _whole_hours(interval: Interval, now: datetime) -> Interval:
    """The hours that the interval touches, as far as they are over."""
    start = hour_of(interval.start)
    end = min(hour_of(interval.end - timedelta(microseconds=1)) + HOUR, hour_of(now))
    if start >= end:
        raise PermanentError(
            f"No hour of the range to preview is over yet: let it begin before {end.isoformat()}."
        )
    return Interval(start, end)


def _archived_hours(interval: Interval, archive: Archive) -> set[datetime]:
    """The hours that have a partition of contact tasks, from one listing of the bucket."""
    keys = archive.keys
    before = keys.table_partition("contact_tasks", interval.start - HOUR)
    found: set[datetime] = set()
    for partition in archive.store.list(keys.table("contact_tasks"), start_after=before):
        hour = keys.hour_of(partition.key)
        if hour is not None and hour >= interval.end:
            break
        if hour is not None:
            found.add(hour)
    return found


def _runs_of_dags(interval: Interval, listed: ContactTaskSample) -> dict[str, "_Runs"]:
    return {
        dag_id: _Runs(Counter(run_of(hour) for hour in interval.hours()), run_of, listed)
        for dag_id, run_of in _RUNS.items()
    }


@dataclass(frozen=True)
class _Runs:
    """The runs of one DAG that cover the range, as far as the sample tells about them."""

    hours_by_run: Counter[datetime]
    run_of: Callable[[datetime], datetime]
    listed: ContactTaskSample

    def __len__(self) -> int:
        return len(self.hours_by_run)

    def counts(self, count: Callable[[ListedHour], float]) -> dict[datetime, float]:
        """The counts of the runs that were listed in full; the average where these are too few to tell."""
        seen, found = Counter[datetime](), defaultdict[datetime, float](float)
        for hour in self.listed.hours:
            run = self.run_of(hour.hour)
            seen[run] += 1
            found[run] += count(hour)
        whole = {run: found[run] for run in found if seen[run] == self.hours_by_run[run]}
        if 2 * sum(seen[run] for run in whole) >= len(self.listed.hours):
            return whole
        return dict.fromkeys(self.hours_by_run, self.listed.total(count).value / len(self))

    def list_requests(self, now: datetime) -> Figure:
        """Each run asks for one page at least, and for another one after each full page."""
        counts = self.counts(lambda hour: hour.contact_tasks)
        pages = [count // _page_size(run, now) + 1 for run, count in counts.items()]
        value = sum(pages) * len(self) / len(pages)
        # Full pages overlap by what shares a millisecond, so only runs of one page are counted exactly.
        if self.listed.is_complete and value == len(self):
            return Figure.exact(value)
        total = self.listed.total(lambda hour: hour.contact_tasks)
        low = sum(max(1, total.low / len(self) / _page_size(run, now)) for run in self.hours_by_run)
        high = sum(1 + total.high / len(self) / _page_size(run, now) for run in self.hours_by_run)
        return Figure(value, min(low, value), max(high, value))

    def captures_queries(self) -> Figure:
        """Each run asks about ten contact tasks at a time; its last query may be about fewer."""
        counts = self.counts(lambda hour: hour.to_query).values()
        queries = [math.ceil(count / MAX_CONTACT_TASKS_PER_CAPTURES_QUERY) for count in counts]
        value = sum(queries) * len(self) / len(queries)
        if self.listed.is_complete:
            return Figure.exact(value)
        total = self.listed.total(lambda hour: hour.to_query)
        low = total.low / MAX_CONTACT_TASKS_PER_CAPTURES_QUERY
        high = total.high / MAX_CONTACT_TASKS_PER_CAPTURES_QUERY + min(len(self), total.high)
        return Figure(value, min(low, value), max(high, value))


def _page_size(start: datetime, now: datetime) -> int:
    """What lies beyond the reach of the contact task list comes in the pages of the search."""
    return CONTACT_TASKS_PER_PAGE if now - start > REACH else MAX_CONTACT_TASKS_PER_PAGE


def _remarks(
    listed: ContactTaskSample,
    offered: OfferedSample,
    hourly: RunsPreview,
    archived_hours: int,
    requests_per_minute: int,
) -> Iterator[str]:
    if not listed.is_complete:
        yield (
            f"Listed were {len(listed.hours):,} of {listed.range_hours:,} hours, evenly spread; what is told of all is "
            "estimated from them."
        )
    if not offered.size_bytes.is_exact:
        yield (
            f"Captures and bytes are estimated from those of {offered.contact_tasks} contact tasks. The range in "
            "brackets holds the truth about 19 times in 20."
        )
    rate = hourly.requests.value / hourly.runs / 60
    yield (
        f"The minutes are those of {requests_per_minute} requests a minute for the backfill alone; the hourly runs "
        f"beside it use about {rate:.1f} of them."
    )
    yield (
        "On top come the downloads, Airflow's own seconds for each run, and later checks for captures that are not "
        "offered yet."
    )
    if archived_hours:
        yield (
            "Hours that are archived already are asked about again; what is whole in the bucket is copied again only "
            "with recopy."
        )
    if offered.unread:
        yield f"{offered.unread} captures did not tell their size. The first: {offered.reason}"
