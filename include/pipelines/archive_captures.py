"""Archives the captures of all contact tasks created in an interval: plan, copy shard by shard, publish."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from include.domain.contact_centre import is_identified
from include.domain.errors import CapturesFailed, PermanentError
from include.domain.interval import Interval, hour_of
from include.domain.new_rows import (
    checked_contact_task_row,
    new_contact_task_row,
    unasked_contact_task_row,
)
from include.domain.object_keys import safe_part
from include.domain.redaction import shown_id
from include.domain.rows import CaptureRow, ContactTaskRow
from include.pipelines.archive import WORKING_FILES_LIVE, Archive
from include.pipelines.capture_copies import CONCURRENT_COPIES, BucketView, CopiedBatch
from include.pipelines.publication import publish_hours
from include.storage.tables import from_parquet, read_rows, to_parquet
from include.webex.captures import CaptureOptions, CapturesQuery, batches
from include.webex.contact_task_listing import list_contact_tasks
from include.webex.http_client import WebexClient
from include.webex.media import MediaClient

log = logging.getLogger(__name__)

# Twenty captures queries outweigh an Airflow task's start of about 1 s.
MIN_CONTACT_TASKS_PER_SHARD = 200
MAX_SHARDS = 1000  # Airflow maps at most 1,024 Airflow tasks by default
MAX_FAILURES_NAMED = 10
TO_QUERY = "to_query"  # of each shard; in the order of names, what a plan has comes last (see `own_working_files`)
_TO_PUBLISH = "to_publish.parquet"


@dataclass(frozen=True)
class ArchiveOptions:
    """What a run archives.

    Attributes:
        channel_types: As the API writes them; none means all.
        captures: What a captures query asks for.
        recopy: Download again also what is whole in the bucket.
        look_for_changes: Ask the media host whether what is whole in the bucket is still the same there.
    """

    channel_types: tuple[str, ...] = ()
    captures: CaptureOptions = field(default_factory=CaptureOptions)
    recopy: bool = False
    look_for_changes: bool = False


@dataclass(frozen=True)
class Shard:
    """A share of the planned contact tasks: ``count`` rows of the plan that want a query, from ``first`` on.

    ``planned_time`` is when the run made its plan, as ISO text: a shard crosses XCom.
    """

    first: int
    count: int
    planned_time: str = ""

    def file_name(self, table: str) -> str:
        """The name of the working file with this shard's rows of one table."""
        return f"{table}-{self.first:07d}.parquet"


def plan_shards(
    interval: Interval, client: WebexClient, archive: Archive, options: ArchiveOptions
) -> list[Shard]:
    """List the interval's contact tasks into working files; the shards that have captures to query.

    Running it again replaces the plan and forgets what an earlier try of the same run left. It also sweeps
    what runs left that failed more than a day ago. Young hours are marked to be listed again, before
    anything else: should this run never end, `recheck_captures` archives them.
    """
    now = start_run(archive)
    if not options.channel_types:
        archive.mark_for_listing(interval.hours(), now)
    rows = [
        new_contact_task_row(
            contact_task, client.connection.org_id, now, archive.policy, archive.personal_data
        )
        for contact_task in list_contact_tasks(client, interval, now, options.channel_types)
    ]
    to_query = [row for row in rows if may_have_captures(row)]
    to_publish = [unasked_contact_task_row(row, archive.policy) for row in rows]
    log.info(
        "%d contact tasks were created in [%s, %s).",
        len(rows),
        interval.start.isoformat(),
        interval.end.isoformat(),
    )
    return write_plan(archive, to_query, to_publish)


def may_have_captures(row: ContactTaskRow) -> bool:
    """Whether a contact task that was listed just now is worth a query."""
    return row.capture_requested is not False and is_identified(row.task_id)


def start_run(archive: Archive) -> datetime:
    """Check the bucket, sweep it, and forget what an earlier try of this run left; the time of the run."""
    archive.store.check()
    now = archive.now()
    archive.sweep(now)
    archive.store.delete(archive.own_working_files())
    return now


def write_plan(
    archive: Archive, to_query: Sequence[ContactTaskRow], to_publish: Sequence[ContactTaskRow]
) -> list[Shard]:
    """Keep what a run is to do in its working files; the shards of what it is to query.

    Each shard has a file of its own: a thousand shards that read all of a large plan would take hours.

    Args:
        archive: The bucket.
        to_query: Contact tasks whose captures are asked for.
        to_publish: Contact tasks that are published as they are, should no shard find more about them.
    """
    archive.store.write(archive.working_file(_TO_PUBLISH), to_parquet(to_publish, ContactTaskRow))
    shards, in_order = _shards(len(to_query), archive.now()), _in_order(to_query)
    for shard in shards:
        rows = in_order[shard.first : shard.first + shard.count]
        archive.store.write(
            archive.working_file(shard.file_name(TO_QUERY)), to_parquet(rows, ContactTaskRow)
        )
    log.info("%d of them may have captures, in %d shards.", len(to_query), len(shards))
    return shards


def _shards(count: int, planned_time: datetime) -> list[Shard]:
    """Shards of whole batches (ten), few enough for Airflow to map; one empty shard when there is none.

    A mapped Airflow task without any shard would be skipped, and publishing with it.
    """
    size = max(MIN_CONTACT_TASKS_PER_SHARD, -(-count // (MAX_SHARDS * 10)) * 10)
    return [
        Shard(first, min(size, count - first), planned_time.isoformat())
        for first in range(0, max(count, 1), size)
    ]


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
    archive.store.learn_whether_it_checks(archive.working_file("probe"))
    planned = _in_order(_read_plan(archive, shard.file_name(TO_QUERY)))[: shard.count]
    bucket = BucketView(archive, planned)
    query = CapturesQuery(
        client, options.captures, bucket.names_given, archive.personal_data.capture
    )
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
                look_for_changes=options.look_for_changes,
            )
            copied.run(pool)
            for row in copied.contact_tasks:
                captures = list(copied.rows[row.task_id].values())
                is_refused = row.task_id in copied.refused
                failures += [_failure(capture) for capture in captures if _has_failed(capture)]
                if is_refused:
                    failures.append(
                        f"contact task {shown_id(row.task_id)}: the API refuses to tell its captures"
                    )
                capture_rows += captures
                contact_task_rows.append(
                    checked_contact_task_row(
                        row,
                        bucket.known(row.task_id, captures),
                        archive.now(),
                        archive.policy,
                        is_refused=is_refused,
                    )
                )
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


def _in_order(rows: Iterable[ContactTaskRow]) -> list[ContactTaskRow]:
    """Oldest hour first (what is purged first), within it in the order of the keys in the bucket."""
    return sorted(rows, key=lambda row: (hour_of(row.created_time), safe_part(row.task_id)))


def _is_published(archive: Archive, shards: Sequence[Shard]) -> bool:
    """Whether an earlier try of this run published all and was killed before Airflow noted it.

    Nobody but the run itself removes its plan within a day, and it does so after publishing.
    """
    planned_time = shards[0].planned_time if shards else ""
    if not planned_time or archive.store.head(archive.working_file(_TO_PUBLISH)):
        return False
    return archive.now() - datetime.fromisoformat(planned_time) < WORKING_FILES_LIVE


def _read_plan(archive: Archive, name: str) -> list[ContactTaskRow]:
    found = archive.store.read(archive.working_file(name))
    if found is None:
        raise PermanentError(
            "The plan of this run is gone (working files are removed once all is published, and swept after a day): "
            "clear the whole run, not one Airflow task of it."
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
    published = publish_plan(archive, list(interval.hours()), shards)
    if published.overdue:
        log.warning("%s", overdue_sentence(published.overdue))
    if published.failures:
        raise CapturesFailed(" ".join(published.failures))
    archive.store.delete(archive.own_working_files())


@dataclass(frozen=True)
class Published:
    """What came of publishing a plan.

    Attributes:
        contact_tasks: As this run found them.
        overdue: Those that became ``overdue`` by it.
        is_whole: Every shard had finished.
        failures: A sentence for each kind of failure, none when all went well.
    """

    contact_tasks: Sequence[ContactTaskRow]
    overdue: Sequence[ContactTaskRow]
    is_whole: bool
    failures: Sequence[str]


def publish_plan(archive: Archive, hours: Iterable[datetime], shards: Sequence[Shard]) -> Published:
    """Publish the hours with the plan and what the shards found.

    Raises:
        TransientError: Other writers replaced a partition again and again.
    """
    if _is_published(archive, shards):
        log.info("An earlier try of this run has published all.")
        return Published([], [], is_whole=True, failures=[])
    contact_tasks = {row.identity: row for row in _read_plan(archive, _TO_PUBLISH)}
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
    overdue = publish_hours(archive, hours, contact_tasks.values(), captures.values())
    log.info("%s", _summary(contact_tasks.values(), captures.values()))
    failed = [_failure(row) for row in captures.values() if _has_failed(row)]
    failed += [
        f"contact task {shown_id(row.task_id)}: {row.capture_state}"
        for row in contact_tasks.values()
        if row.capture_state == "failed" and row.capture_count == 0
    ]
    failures: list[str] = []
    if unfinished:
        failures.append(
            f"{unfinished} contact tasks are published as pending, since their shards did not finish: see the "
            "failed Airflow tasks archive_shard and clear them."
        )
    if failed:
        failures.append(_failed_sentence(failed, len(captures)))
    return Published(list(contact_tasks.values()), overdue, not unfinished, failures)


def overdue_sentence(overdue: Sequence[ContactTaskRow]) -> str:
    """Which contact tasks wait for a capture that never came."""
    named = [f"{shown_id(row.task_id)} of {row.created_time:%Y-%m-%d %H} UTC" for row in overdue]
    return (
        f"{len(overdue)} contact tasks are overdue: Webex requested a capture and offered none until the horizon. "
        f"{_named(named)}"
    )


def _has_failed(row: CaptureRow) -> bool:
    """Also a copied capture has failed of which a newer version could not be copied."""
    return row.outcome == "failed" or (row.outcome == "copied" and row.last_error is not None)


def _failure(row: CaptureRow) -> str:
    ids = f"{row.kind} {shown_id(row.capture_id)} of contact task {shown_id(row.task_id)}"
    return f"{ids}: {row.last_error}"


def _failed_sentence(failures: Sequence[str], total: int) -> str:
    return (
        f"{len(failures)} of {total} captures failed and are rows with the outcome 'failed' in the table captures; "
        f"all others are archived. Clear the failed Airflow tasks to try them again. {_named(failures)}"
    )


def _named(items: Sequence[str]) -> str:
    """The first few of them."""
    more = len(items) - MAX_FAILURES_NAMED
    return "; ".join(items[:MAX_FAILURES_NAMED]) + (f"; and {more} more" if more > 0 else "")


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
