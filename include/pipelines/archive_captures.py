"""Archives the captures of all contact tasks created in an interval: plan, copy shard by shard, publish."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import tenacity
from pydantic import SecretStr

from include.domain.capture_state import CapturePolicy, capture_progress
from include.domain.contact_centre import Capture, ContactTask, JsonObject
from include.domain.errors import CapturesFailed, PermanentError
from include.domain.interval import Interval, hour_of
from include.domain.object_keys import KeyLayout, ObjectKey, safe_part
from include.domain.redaction import redact, without_signed_urls
from include.domain.rows import CaptureRow, ContactTaskRow, Outcome
from include.pipelines.refresh_access_token import utc_now
from include.storage.captures import StoredCapture, read_back, store_capture
from include.storage.formats import Implausible
from include.storage.object_store import ObjectStore, StoredObject
from include.storage.tables import (
    newer_capture,
    newer_contact_task,
    publish_rows,
    read_rows,
    to_parquet,
)
from include.webex.captures import CaptureOptions, CapturesQuery, batches
from include.webex.contact_tasks import is_identified, iter_contact_tasks
from include.webex.http_client import WebexClient
from include.webex.media import (
    DownloadBroken,
    DownloadExpired,
    DownloadGone,
    DownloadRefused,
    MediaClient,
)

log = logging.getLogger(__name__)

MIN_CONTACT_TASKS_PER_SHARD = (
    200  # twenty captures queries outweigh an Airflow task's start of about 1 s
)
MAX_SHARDS = 1000  # Airflow maps at most 1,024 Airflow tasks by default
CONCURRENT_COPIES = 8
MAX_ATTEMPTS_WITH_ONE_URL = 3
MAX_QUERIES_OF_ONE_BATCH = 3
MAX_FAILURES_NAMED = 10
WORKING_FILES_LIVE = timedelta(days=1)
_PLAN = "planned.parquet"


@dataclass(frozen=True)
class ArchiveOptions:
    """What a run archives. Channel types as the API writes them; none means all."""

    channel_types: tuple[str, ...] = ()
    captures: CaptureOptions = field(default_factory=CaptureOptions)
    recopy: bool = False


@dataclass(frozen=True)
class Archive:
    """The bucket, its key layout, and the name under which one run keeps its working files."""

    store: ObjectStore
    keys: KeyLayout
    run_id: str
    policy: CapturePolicy = field(default_factory=CapturePolicy)
    now: Callable[[], datetime] = utc_now
    sleep: Callable[[float], None] = time.sleep

    def working_file(self, name: str) -> ObjectKey:
        """The key of one working file of this run."""
        return self.keys.working_file(self.run_id, name)

    def own_working_files(self) -> Iterator[ObjectKey]:
        """All working files of this run."""
        prefix = f"{self.keys.working_files()}{safe_part(self.run_id)}/"
        return (found.key for found in self.store.list(prefix))

    def stale_working_files(self, now: datetime) -> list[ObjectKey]:
        """What runs that failed for good left behind more than a day ago."""
        found = self.store.list(self.keys.working_files())
        return [file.key for file in found if now - file.last_modified > WORKING_FILES_LIVE]


@dataclass(frozen=True)
class Shard:
    """A share of the planned contact tasks: ``count`` rows of the plan that want a query, from ``first`` on."""

    first: int
    count: int

    def file_name(self, table: str) -> str:
        """The name of the working file with this shard's rows of one table."""
        return f"{table}-{self.first:07d}.parquet"


# Plan -----------------------------------------------------------------------------------------------


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
        _contact_task_row(contact_task, client.connection.org_id, [], now, archive.policy)
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


# Copy -----------------------------------------------------------------------------------------------


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
    bucket = _BucketView(archive, planned, client.connection.org_id)
    query = CapturesQuery(client, options.captures)
    contact_task_rows: list[ContactTaskRow] = []
    capture_rows: list[CaptureRow] = []
    failures: list[str] = []
    by_id = {row.task_id: row for row in planned}
    with ThreadPoolExecutor(max_workers=CONCURRENT_COPIES, thread_name_prefix="copy") as pool:
        for batch in batches(list(by_id)):
            copied = _Batch(
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
                checked = _checked(
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
    key = archive.working_file(_PLAN)
    found = archive.store.read(key)
    if found is None:
        raise PermanentError(
            "The plan of this run is gone (working files are swept after a day): clear the whole run, not one "
            "Airflow task of it."
        )
    return read_rows(archive.store, key, ContactTaskRow)


class _BucketView:
    """What the bucket already has of a shard's contact tasks: rows of earlier runs, and whole objects."""

    def __init__(self, archive: Archive, planned: Sequence[ContactTaskRow], org_id: str) -> None:
        self._store = archive.store
        self.org_id = org_id
        self.rows: defaultdict[str, dict[tuple[str, ...], CaptureRow]] = defaultdict(dict)
        self.objects: dict[ObjectKey, StoredObject] = {}
        by_hour: dict[datetime, list[ContactTaskRow]] = defaultdict(list)
        for row in planned:
            by_hour[hour_of(row.created_time)].append(row)
        for hour, rows in by_hour.items():
            wanted = {row.task_id for row in rows}
            for capture in read_rows(
                archive.store, archive.keys.table_partition("captures", hour), CaptureRow
            ):
                if capture.task_id in wanted:
                    self.rows[capture.task_id][capture.identity] = capture
            self._list_objects(archive, rows)

    def _list_objects(self, archive: Archive, rows: Sequence[ContactTaskRow]) -> None:
        """One walk over the keys from the first to the last contact task of an hour's share."""
        prefixes = [
            archive.keys.captures_of_contact_task(row.created_time, row.task_id) for row in rows
        ]
        end = max(prefixes) + "\x7f"
        hour_prefix = archive.keys.captures_of_hour(rows[0].created_time)
        for found in archive.store.list(hour_prefix, start_after=min(prefixes)):
            if found.key > end:
                break
            self.objects[found.key] = found

    def find(self, row: CaptureRow, key: ObjectKey) -> CaptureRow | None:
        """The row of a capture that is whole in the bucket already, or None.

        An object without a row is from a run that died in between: it is whole, or it would not be
        visible, and is read back once for its SHA-256 instead of being downloaded again.
        """
        known = self.rows[row.task_id].get(row.identity)
        if known and known.outcome == "copied":
            there = self.objects.get(ObjectKey(known.object_key or ""))
            if there and there.size_bytes == known.size_bytes:
                return replace(
                    row,
                    outcome="copied",
                    object_key=known.object_key,
                    size_bytes=known.size_bytes,
                    sha256=known.sha256,
                    format=known.format,
                    copied_time=known.copied_time,
                    attempts=known.attempts,
                )
        there = self.objects.get(key)
        if there is None:
            return None
        try:
            stored = read_back(self._store, key, kind=row.kind, file_name=row.file_name)
        except Implausible:  # somebody else put it there; the copy replaces it
            return None
        return _copied(row, key, stored, there.last_modified, attempts=1)

    def remember(self, row: CaptureRow) -> None:
        """Take in what was copied just now, so that asking again does not copy it again."""
        self.rows[row.task_id][row.identity] = row
        if row.object_key and row.size_bytes is not None and row.copied_time:
            key = ObjectKey(row.object_key)
            self.objects[key] = StoredObject(key, row.size_bytes, "", row.copied_time)

    def outcomes(self, task_id: str, captures: Sequence[CaptureRow]) -> list[Outcome]:
        """The outcome of each capture that was ever offered for a contact task, newest first."""
        rows = {**self.rows[task_id], **{capture.identity: capture for capture in captures}}
        return [row.outcome for row in rows.values()]


@dataclass(kw_only=True)
class _Batch:
    """One captures query and the copies of what it offers; asks again only where a URL was refused.

    Download URLs live in here only.

    Attributes:
        rows: What became of each capture, by contact task and identity.
        refused: Contact tasks that the API refuses to be asked about.
    """

    contact_tasks: Sequence[ContactTaskRow]
    query: CapturesQuery
    media: MediaClient
    bucket: _BucketView
    archive: Archive
    recopy: bool
    rows: defaultdict[str, dict[tuple[str, ...], CaptureRow]] = field(
        default_factory=lambda: defaultdict[str, dict[tuple[str, ...], CaptureRow]](dict)
    )
    refused: set[str] = field(default_factory=set[str])

    def run(self, pool: ThreadPoolExecutor) -> None:
        """Query, copy, and query once more what was offered under a URL that is refused."""
        pending = list(self.contact_tasks)
        for _ in range(MAX_QUERIES_OF_ONE_BATCH):
            answer = self.query([row.task_id for row in pending])
            work = [
                (row, capture) for row in pending for capture in self._offered(answer, row.task_id)
            ]
            copies = pool.map(
                self._copy, [row for row, _ in work], [capture for _, capture in work]
            )
            expired: set[str] = set()
            for capture_row, is_expired in copies:
                self.rows[capture_row.task_id][capture_row.identity] = capture_row
                if is_expired:
                    expired.add(capture_row.task_id)
            pending = [row for row in pending if row.task_id in expired]
            if not pending:
                return

    def _offered(self, answer: Mapping[str, list[Capture] | None], task_id: str) -> list[Capture]:
        offered = answer[task_id]
        if offered is None:
            self.refused.add(task_id)
        return offered or []

    def _copy(self, contact_task: ContactTaskRow, capture: Capture) -> tuple[CaptureRow, bool]:
        """The row of one capture, and whether its URL was refused and a fresh one may help."""
        now = self.archive.now()
        row = _capture_row(contact_task, capture, now)
        key = self.archive.keys.capture(
            contact_task.created_time, row.task_id, row.kind, row.capture_id, row.file_name
        )
        found = None if self.recopy else self.bucket.find(row, key)
        if found:
            return found, False
        known = self.bucket.rows[row.task_id].get(row.identity)
        attempts_before = known.attempts if known else 0
        if capture.download_url is None:
            return replace(row, attempts=attempts_before, last_error="offered without a URL"), False
        return self._download(row, key, capture.download_url, attempts_before)

    def _download(
        self, row: CaptureRow, key: ObjectKey, download_url: SecretStr, attempts_before: int
    ) -> tuple[CaptureRow, bool]:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((DownloadBroken, Implausible)),
            stop=tenacity.stop_after_attempt(MAX_ATTEMPTS_WITH_ONE_URL),
            wait=tenacity.wait_random_exponential(multiplier=1, max=10),
            sleep=self.archive.sleep,
            reraise=True,
        )
        outcome: Outcome = "failed"
        try:
            stored = retrying(self._copy_once, row, key, download_url)
        except DownloadGone as error:
            failure, outcome = error, "gone"
        except (DownloadBroken, DownloadExpired, DownloadRefused, Implausible) as error:
            failure = error
        else:
            attempts = attempts_before + int(retrying.statistics["attempt_number"])
            copied = _copied(row, key, stored, self.archive.now(), attempts)
            self.bucket.remember(copied)
            return copied, False
        attempts = attempts_before + int(retrying.statistics["attempt_number"])
        failed = replace(row, outcome=outcome, attempts=attempts, last_error=redact(str(failure)))
        return failed, isinstance(failure, DownloadExpired)

    def _copy_once(self, row: CaptureRow, key: ObjectKey, download_url: SecretStr) -> StoredCapture:
        with self.media.open(download_url) as download:
            return store_capture(
                self.archive.store,
                key,
                download,
                size_bytes=download.size_bytes,
                kind=row.kind,
                file_name=row.file_name,
            )


# Publish --------------------------------------------------------------------------------------------


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
    return _checked(row, outcomes, row.checked_time, policy)


# Rows -----------------------------------------------------------------------------------------------


def _contact_task_row(
    contact_task: ContactTask,
    org_id: str,
    outcomes: Sequence[Outcome],
    now: datetime,
    policy: CapturePolicy,
) -> ContactTaskRow:
    progress = capture_progress(
        capture_requested=contact_task.capture_requested,
        status=contact_task.status,
        created_time=contact_task.created_time,
        last_updated_time=contact_task.last_updated_time,
        outcomes=outcomes,
        now=now,
        policy=policy,
    )
    return ContactTaskRow(
        org_id=org_id,
        task_id=contact_task.task_id,
        channel_type=contact_task.channel_type,
        status=contact_task.status,
        created_time=contact_task.created_time,
        last_updated_time=contact_task.last_updated_time,
        capture_requested=contact_task.capture_requested,
        direction=contact_task.direction,
        origin=contact_task.origin,
        destination=contact_task.destination,
        reason_code=contact_task.reason_code,
        owner_id=contact_task.owner_id,
        owner_name=contact_task.owner_name,
        queue_id=contact_task.queue_id,
        queue_name=contact_task.queue_name,
        capture_state=progress.state if is_identified(contact_task.task_id) else "failed",
        capture_count=0,
        first_seen_time=now,
        checked_time=now,
        next_check_time=progress.next_check_time,
        extra_json=_extra_json(contact_task.extra),
    )


def _checked(
    row: ContactTaskRow, outcomes: Sequence[Outcome], now: datetime, policy: CapturePolicy
) -> ContactTaskRow:
    """The row of a contact task of which the outcome of every capture is known."""
    progress = capture_progress(
        capture_requested=row.capture_requested,
        status=row.status,
        created_time=row.created_time,
        last_updated_time=row.last_updated_time,
        outcomes=outcomes,
        now=now,
        policy=policy,
    )
    return replace(
        row,
        capture_state=progress.state,
        next_check_time=progress.next_check_time,
        capture_count=len(outcomes),
        checked_time=now,
    )


def _capture_row(contact_task: ContactTaskRow, capture: Capture, now: datetime) -> CaptureRow:
    """The row of a capture of which nothing is copied yet."""
    return CaptureRow(
        org_id=contact_task.org_id,
        task_id=contact_task.task_id,
        kind=capture.kind,
        capture_id=capture.capture_id,
        segment=capture.segment,
        call_type=capture.call_type,
        channel1=capture.channel1,
        channel2=capture.channel2,
        participants=list(capture.participants),
        sensitive=capture.sensitive,
        source=capture.source,
        provider=capture.provider,
        language_code=capture.language_code,
        file_name=capture.file_name,
        start_time=capture.start_time,
        stop_time=capture.stop_time,
        task_created_time=contact_task.created_time,
        outcome="pending",
        object_key=None,
        size_bytes=None,
        sha256=None,
        format=None,
        attempts=0,
        last_error=None,
        first_seen_time=now,
        copied_time=None,
        extra_json=_extra_json(capture.extra),
    )


def _copied(
    row: CaptureRow, key: ObjectKey, stored: StoredCapture, copied_time: datetime, attempts: int
) -> CaptureRow:
    return replace(
        row,
        outcome="copied",
        object_key=key,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        format=stored.format,
        copied_time=copied_time,
        attempts=attempts,
    )


def _extra_json(extra: JsonObject) -> str | None:
    """What the API told beyond the columns, without the credentials of any URL in it."""
    if not extra:
        return None
    text = json.dumps(without_signed_urls(extra), sort_keys=True, default=str)
    return text.encode("utf-8", "replace").decode()


# Sentences ------------------------------------------------------------------------------------------


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
