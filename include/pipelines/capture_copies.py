"""Queries the captures of ten contact tasks and copies what is not yet whole in the bucket."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime

import tenacity
from pydantic import SecretStr

from include.domain.contact_centre import Capture
from include.domain.interval import hour_of
from include.domain.new_rows import new_capture_row
from include.domain.object_keys import ObjectKey
from include.domain.redaction import redact
from include.domain.rows import CaptureRow, ContactTaskRow, Outcome
from include.pipelines.archive import Archive
from include.storage.captures import StoredCapture, read_back, store_capture
from include.storage.formats import Implausible
from include.storage.object_store import StoredObject
from include.storage.tables import read_rows
from include.webex.captures import CapturesQuery
from include.webex.media import (
    DownloadBroken,
    DownloadExpired,
    DownloadGone,
    DownloadRefused,
    MediaClient,
)

# A body that is not the file it should be rarely mends itself; a host in trouble does, within half a minute.
MAX_ATTEMPTS_IF_IMPLAUSIBLE = 3
MAX_ATTEMPTS_IF_BROKEN = 6
MAX_RETRY_AFTER_SECONDS = 120.0
MAX_QUERIES_OF_ONE_BATCH = 3


class BucketView:
    """What the bucket already has of a shard's contact tasks: rows of earlier runs, and whole objects."""

    def __init__(self, archive: Archive, planned: Sequence[ContactTaskRow]) -> None:
        self._store = archive.store
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
class CopiedBatch:
    """One captures query and the copies of what it offers; asks again only where a URL was refused.

    Download URLs live in here only.

    Attributes:
        rows: What became of each capture, by contact task and identity.
        refused: Contact tasks that the API refuses to be asked about.
    """

    contact_tasks: Sequence[ContactTaskRow]
    query: CapturesQuery
    media: MediaClient
    bucket: BucketView
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
        row = new_capture_row(contact_task, capture, now)
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
            stop=_stop,
            wait=_wait,
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


def _stop(state: tenacity.RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    limit = (
        MAX_ATTEMPTS_IF_IMPLAUSIBLE if isinstance(error, Implausible) else MAX_ATTEMPTS_IF_BROKEN
    )
    return state.attempt_number >= limit


_backoff = tenacity.wait_exponential_jitter(initial=1, max=30)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, DownloadBroken) else 0.0
    return max(min(asked, MAX_RETRY_AFTER_SECONDS), _backoff(state))


def _copied(
    row: CaptureRow, key: ObjectKey, stored: StoredCapture, copied_time: datetime, attempts: int
) -> CaptureRow:
    """The row of a capture that is whole in the bucket."""
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
