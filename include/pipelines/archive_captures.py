"""Archives the captures of all contact tasks created in an interval: plan, copy shard by shard, publish."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime

from include.domain.capture_state import CapturePolicy
from include.domain.errors import CapturesFailed, PermanentError
from include.domain.interval import Interval, hour_of
from include.domain.new_rows import checked_contact_task_row, new_contact_task_row
from include.domain.object_keys import safe_part
from include.domain.rows import CaptureRow, ContactTaskRow, Outcome
from include.pipelines.archive import Archive
from include.pipelines.capture_copies import BucketView, CopiedBatch
from include.storage.tables import (
    from_parquet,
    newer_capture,
    newer_contact_task,
    publish_rows,
    read_rows,
    to_parquet,
)
from include.webex.captures import CaptureOptions, CapturesQuery, batches
from include.webex.contact_tasks import is_identified, iter_contact_tasks
from include.webex.http_client import WebexClient
from include.webex.media import MediaClient

log = logging.getLogger(__name__)

# Twenty captures queries outweigh an Airflow task's start of about 1 s.
MIN_CONTACT_TASKS_PER_SHARD = 200
MAX_SHARDS = 1000  # Airflow maps at most 1,024 Airflow tasks by default
CONCURRENT_COPIES = 8
MAX_FAILURES_NAMED = 10
_PLAN = "planned.parquet"


@dataclass(frozen=True)
class ArchiveOptions:
    """What a run archives. Channel types as the API writes them; none means all."""

    channel_types: tuple[str, ...] = ()
    captures: CaptureOptions = field(default_factory=CaptureOptions)
    recopy: bool = False


@dataclass(frozen=True)
class Shard:
    """A share of the planned contact tasks: ``count`` rows of the plan that want a query, from ``first`` on."""

    first: int
    count: int

    def file_name(self, table: str) -> str:
        """The name of the working file with this shard's rows of one table."""
        return f"{table}-{self.first:07d}.parquet"


def plan_shards(
    interval: Interval, client: WebexClient, archive: Archive, options: ArchiveOptions
) -> list[Shard]:
    """List the interval's contact tasks into a working file; the shards that have captures to query.

    Running it again replaces the plan and forgets what an earlier try of the same run left. It also sweeps
    the working files of runs that failed more than a day ago.
    """
    archive.store.check()
    now = archive.now()
    archive.store.delete(archive.stale_working_files(now))
    archive.store.delete(list(archive.own_working_files()))
    rows = [
        _planned(new_contact_task_row(contact_task, client.connection.org_id, now, archive.policy))
        for contact_task in iter_contact_tasks(client, interval, now, options.channel_types)
    ]
    archive.store.write(archive.working_file(_PLAN), to_parquet(rows, ContactTaskRow))
    shards = _shards(len(_to_query(rows)))
    log.info(
        "%d contact tasks were created in [%s, %s); %d may have captures, in %d shards.",
        len(rows),
        interval.start.isoformat(),
        interval.end.isoformat(),
        sum(shard.count for shard in shards),
        len(shards),
    )
    return shards


def _planned(row: ContactTaskRow) -> ContactTaskRow:
    """A contact task without an id cannot be asked about: a person must look at it."""
    if is_identified(row.task_id):
        return row
    return replace(row, capture_state="failed", next_check_time=None)


def _to_query(rows: Iterable[ContactTaskRow]) -> list[ContactTaskRow]:
    """The contact tasks that can have captures, in the order of their keys in the bucket."""
    wanted = [
        row for row in rows if row.capture_requested is not False and is_identified(row.task_id)
    ]
    return sorted(wanted, key=lambda row: (hour_of(row.created_time), safe_part(row.task_id)))


def _shards(count: int) -> list[Shard]:
    """Shards of whole batches (ten), few enough for Airflow to map; one empty shard when there is none.

    A mapped Airflow task without any shard would be skipped, and publishing with it.
    """
    size = max(MIN_CONTACT_TASKS_PER_SHARD, -(-count // (MAX_SHARDS * 10)) * 10)
    return [Shard(first, min(size, count - first)) for first in range(0, max(count, 1), size)]


def archive_shard(
    shard: Shard, client: WebexClient, media: MediaClient, archive: Archive, options: ArchiveOptions
) -> None:
    """Query the captures of a shard and copy what is not yet whole in the bucket; keep its rows.

    Safe to repeat and to kill: an object in the bucket is whole and is not downloaded again. One capture
    that fails does not stop the others.

    Raises:
        CapturesFailed: At the end, naming how many failed and which; all rows are kept all the same.
        PermanentError: The plan is gone; the whole run must be repeated.
    """
    planned = _to_query(_read_plan(archive))[shard.first : shard.first + shard.count]
    bucket = BucketView(archive, planned)
    query = CapturesQuery(client, options.captures)
    contact_task_rows: list[ContactTaskRow] = []
    capture_rows: list[CaptureRow] = []
    failures: list[str] = []
    by_id = {row.task_id: row for row in planned}
    with ThreadPoolExecutor(max_workers=CONCURRENT_COPIES, thread_name_prefix="copy") as pool:
        for batch in batches(list(by_id)):
            copied = CopiedBatch(
                contact_tasks=[by_id[task_id] for task_id in batch],
                query=query,
                media=media,
                bucket=bucket,
                archive=archive,
                recopy=options.recopy,
            )
            copied.run(pool)
            for row in copied.contact_tasks:
                captures = list(copied.rows[row.task_id].values())
                failures += [
                    _failure(capture) for capture in captures if capture.outcome == "failed"
                ]
                if row.task_id in copied.refused:
                    failures.append(
                        f"contact task {row.task_id}: the API refuses to tell its captures"
                    )
                capture_rows += captures
                checked = checked_contact_task_row(
                    row, bucket.outcomes(row.task_id, captures), archive.now(), archive.policy
                )
                if row.task_id in copied.refused:
                    checked = replace(checked, capture_state="failed", next_check_time=None)
                contact_task_rows.append(checked)
    archive.store.write(
        archive.working_file(shard.file_name("captures")), to_parquet(capture_rows, CaptureRow)
    )
    archive.store.write(
        archive.working_file(shard.file_name("contact_tasks")),
        to_parquet(contact_task_rows, ContactTaskRow),
    )
    log.info("%s", _summary(contact_task_rows, capture_rows))
    if failures:
        raise CapturesFailed(_failed_sentence(failures, len(capture_rows)))


def _read_plan(archive: Archive) -> list[ContactTaskRow]:
    found = archive.store.read(archive.working_file(_PLAN))
    if found is None:
        raise PermanentError(
            "The plan of this run is gone (working files are swept after a day): clear the whole run, not one "
            "Airflow task of it."
        )
    return from_parquet(found[0], ContactTaskRow)


def publish_tables(interval: Interval, archive: Archive, shards: Sequence[Shard]) -> None:
    """Merge what the run found into the partitions of the interval's hours, empty ones included.

    A contact task whose shard did not finish is published as ``pending``, so that nothing is absent.

    Raises:
        CapturesFailed: At the end, when a shard did not finish or a capture failed; the working files stay
            for a repeat of the failed shards.
        TransientError: Other writers replaced a partition again and again.
    """
    contact_tasks = {row.identity: row for row in _read_plan(archive)}
    captures: dict[tuple[str, ...], CaptureRow] = {}
    unfinished = 0
    for shard in shards:
        key = archive.working_file(shard.file_name("contact_tasks"))
        if archive.store.head(key) is None:
            unfinished += shard.count
            continue
        contact_tasks |= {
            row.identity: row for row in read_rows(archive.store, key, ContactTaskRow)
        }
        captures_key = archive.working_file(shard.file_name("captures"))
        captures |= {
            row.identity: row for row in read_rows(archive.store, captures_key, CaptureRow)
        }
    for hour in interval.hours():
        _publish_hour(archive, hour, contact_tasks.values(), captures.values())
    log.info("%s", _summary(contact_tasks.values(), captures.values()))
    failures = [_failure(row) for row in captures.values() if row.outcome == "failed"]
    failures += [
        f"contact task {row.task_id}: {row.capture_state}"
        for row in contact_tasks.values()
        if row.capture_state == "failed" and row.capture_count == 0
    ]
    if unfinished:
        raise CapturesFailed(
            f"{unfinished} contact tasks are published as pending, since their shards did not finish: see the "
            "failed Airflow tasks archive_shard and clear them."
        )
    if failures:
        raise CapturesFailed(_failed_sentence(failures, len(captures)))
    archive.store.delete(list(archive.own_working_files()))


def _publish_hour(
    archive: Archive,
    hour: datetime,
    contact_tasks: Iterable[ContactTaskRow],
    captures: Iterable[CaptureRow],
) -> None:
    published = publish_rows(
        archive.store,
        archive.keys.table_partition("captures", hour),
        [row for row in captures if hour_of(row.task_created_time) == hour],
        CaptureRow,
        newer_capture,
    )
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    for capture in published:
        outcomes[capture.task_id].append(capture.outcome)
    # Last, so that a contact task is never called archived before its captures are rows.
    publish_rows(
        archive.store,
        archive.keys.table_partition("contact_tasks", hour),
        [
            _with_known_captures(row, outcomes[row.task_id], archive.policy)
            for row in contact_tasks
            if hour_of(row.created_time) == hour
        ],
        ContactTaskRow,
        newer_contact_task,
    )


def _with_known_captures(
    row: ContactTaskRow, outcomes: Sequence[Outcome], policy: CapturePolicy
) -> ContactTaskRow:
    """The row of a contact task that this run did not query, in the light of what earlier runs copied.

    Whether ``captureRequested`` can turn false again is unknown; what was copied stays told.
    """
    if len(outcomes) <= row.capture_count:
        return row
    return checked_contact_task_row(row, outcomes, row.checked_time, policy)


def _failure(row: CaptureRow) -> str:
    return f"{row.kind} {row.capture_id} of contact task {row.task_id}: {row.last_error}"


def _failed_sentence(failures: Sequence[str], total: int) -> str:
    named = "; ".join(failures[:MAX_FAILURES_NAMED])
    more = (
        f"; and {len(failures) - MAX_FAILURES_NAMED} more"
        if len(failures) > MAX_FAILURES_NAMED
        else ""
    )
    return (
        f"{len(failures)} of {total} captures failed and are rows with the outcome 'failed' in the table captures; "
        f"all others are archived. Clear the failed Airflow tasks to try them again. {named}{more}"
    )


def _summary(contact_tasks: Iterable[ContactTaskRow], captures: Iterable[CaptureRow]) -> str:
    states: dict[str, int] = defaultdict(int)
    for row in contact_tasks:
        states[row.capture_state] += 1
    outcomes: dict[str, int] = defaultdict(int)
    size_bytes = 0
    for row in captures:
        outcomes[row.outcome] += 1
        size_bytes += row.size_bytes or 0
    return (
        f"Contact tasks by state: {dict(sorted(states.items()))}. Captures by outcome: "
        f"{dict(sorted(outcomes.items()))}, {size_bytes} bytes."
    )
