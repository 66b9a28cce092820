"""Queries the captures of ten contact tasks and copies what is not yet whole in the bucket."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import tenacity
from pydantic import SecretStr

from include.domain.contact_centre import Capture
from include.domain.errors import ArchiveError
from include.domain.interval import hour_of
from include.domain.merged_rows import (
    earlier_versions,
    extra_json_with_notes,
    media_etag,
    newer_capture,
    with_notes,
)
from include.domain.new_rows import new_capture_row
from include.domain.object_keys import ObjectKey
from include.domain.redaction import redact
from include.domain.rows import CaptureRow, ContactTaskRow, Outcome, with_columns
from include.pipelines.archive import Archive
from include.storage.captures import ContentChanged, StoredCapture, read_back, store_capture
from include.storage.formats import Implausible
from include.storage.object_store import Condition, ConditionFailed, StoredObject
from include.storage.tables import read_rows
from include.webex.captures import CapturesQuery, NamesGiven, distinction
from include.webex.media import (
    DownloadBroken,
    DownloadExpired,
    DownloadGone,
    DownloadRefused,
    Look,
    MediaClient,
)

# Half a batch: ten captures take two turns, as they would with eight, and fewer threads spend less on taking turns.
CONCURRENT_COPIES = 5
_SECONDS_TO_ANOTHER_THREAD = 0.01
# A body that is not the file it should be rarely mends itself; a host in trouble does, within half a minute.
MAX_ATTEMPTS_IF_IMPLAUSIBLE = 3
MAX_ATTEMPTS_IF_BROKEN = 6
MAX_RETRY_AFTER_SECONDS = 120.0
MAX_QUERIES_OF_ONE_BATCH = 3
VERSION_DIGITS = 12
_MAY_PASS = (DownloadBroken, Implausible)
NO_LONGER_OFFERED = "offered once, and no longer: purged before it could be copied"


class BucketView:
    """What the bucket already has of a shard's contact tasks: rows of earlier runs, and whole objects."""

    def __init__(self, archive: Archive, planned: Sequence[ContactTaskRow]) -> None:
        self._store = archive.store
        self._personal_data = archive.personal_data
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
            for sensitive in archive.keys.places:
                self._list_objects(archive, rows, sensitive=sensitive)

    def _list_objects(
        self, archive: Archive, rows: Sequence[ContactTaskRow], *, sensitive: bool
    ) -> None:
        """One walk over the keys from the first to the last contact task of an hour's share, in one place."""
        prefixes = [
            archive.keys.captures_of_contact_task(
                row.created_time, row.task_id, sensitive=sensitive
            )
            for row in rows
        ]
        end = max(prefixes) + "\x7f"
        hour_prefix = archive.keys.captures_of_hour(rows[0].created_time, sensitive=sensitive)
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
            known_key = ObjectKey(known.object_key or "")
            if known_key not in self.objects:  # it may lie in a place that another setting named
                self.refresh(known_key)
            there = self.objects.get(known_key)
            is_whole = there is not None and there.size_bytes == known.size_bytes
            return as_known(row, known) if is_whole else None
        return self.stored(row, key)

    def stored(self, row: CaptureRow, key: ObjectKey) -> CaptureRow | None:
        """The row of what lies under a key, by reading it; None for nothing or something else."""
        there = self.objects.get(key)
        if there is None:
            return None
        try:
            stored = read_back(self._store, key, kind=row.kind, file_name=row.file_name)
        except Implausible:  # somebody else put it there; the copy replaces it
            return None
        return copied_row(row, key, stored, there.last_modified)

    def refresh(self, key: ObjectKey) -> None:
        """Look again at what lies under a key."""
        there = self._store.head(key)
        if there:
            self.objects[key] = there
        else:
            self.objects.pop(key, None)

    def remember(self, row: CaptureRow) -> None:
        """Take in what was copied just now, so that asking again does not copy it again."""
        self.rows[row.task_id][row.identity] = row

    def names_given(self, task_id: str) -> NamesGiven:
        """Which capture each id stands for already; a query must not give it to another one."""
        return {
            (row.kind, row.capture_id): distinction(self._personal_data.capture_row(row))
            for row in self.rows[task_id].values()
        }

    def known(self, task_id: str, found: Iterable[CaptureRow]) -> list[CaptureRow]:
        """Every capture that was ever offered for a contact task, as it stands after this check."""
        rows = self.rows[task_id]
        return list({**rows, **{capture.identity: capture for capture in found}}.values())


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
    recopy: bool = False
    look_for_changes: bool = False
    rows: defaultdict[str, dict[tuple[str, ...], CaptureRow]] = field(
        default_factory=lambda: defaultdict[str, dict[tuple[str, ...], CaptureRow]](dict)
    )
    refused: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_MAY_PASS),
            stop=_stop,
            wait=_wait,
            sleep=self.archive.sleep,
            reraise=True,
        )

    def run(self, pool: ThreadPoolExecutor) -> None:
        """Query, copy, and query once more what was offered under a URL that is refused."""
        pending = list(self.contact_tasks)
        for _ in range(MAX_QUERIES_OF_ONE_BATCH):
            answer = self.query([row.task_id for row in pending])
            work = [
                (row, capture) for row in pending for capture in self._offered(answer, row.task_id)
            ]
            expired: set[str] = set()
            for capture_row, is_expired in self._copies(work, pool):
                self.rows[capture_row.task_id][capture_row.identity] = capture_row
                if is_expired:
                    expired.add(capture_row.task_id)
            pending = [row for row in pending if row.task_id in expired]
            if not pending:
                break
        for row in self.contact_tasks:
            if row.task_id not in self.refused:
                self._note_what_is_gone(row.task_id)

    def _copies(
        self, work: Sequence[tuple[ContactTaskRow, Capture]], pool: ThreadPoolExecutor
    ) -> list[tuple[CaptureRow, bool]]:
        """What became of each capture; a thread that is done with one takes the next that is left.

        They begin one after the other, as long as none finds nothing left: where a copy takes a millisecond or
        two, threads that take turns spend a tenth of all on it (docs/decisions/0013-data-path.md).
        """
        left = iter(work)

        def copy_what_is_left() -> list[tuple[CaptureRow, bool]]:
            try:
                return [self._copy(contact_task, capture) for contact_task, capture in left]
            finally:  # after a failure nobody begins another one
                deque(left, maxlen=0)

        shares = [pool.submit(copy_what_is_left)]
        try:
            while len(shares) < min(len(work), CONCURRENT_COPIES):
                with suppress(TimeoutError):
                    shares[0].exception(_SECONDS_TO_ANOTHER_THREAD)
                    break
                shares.append(pool.submit(copy_what_is_left))
            return [copied for share in shares for copied in share.result()]
        finally:  # nor when this run is ended
            deque(left, maxlen=0)

    def _offered(self, answer: Mapping[str, list[Capture] | None], task_id: str) -> list[Capture]:
        offered = answer[task_id]
        if offered is None:
            self.refused.add(task_id)
        return offered or []

    def _note_what_is_gone(self, task_id: str) -> None:
        """What was offered once, was never copied, and is offered no more, can no longer be had.

        Empty lists in an answer mean "purged" among other things (documented), and only here it is known
        that there was something. A capture of a kind that this query does not ask for is left as it is.
        """
        for identity, known in self.bucket.rows[task_id].items():
            if (
                identity not in self.rows[task_id]
                and known.outcome in {"pending", "failed"}
                and self.query.options.ask_for(
                    known.kind, known.call_type, is_segment=known.segment
                )
            ):
                self.rows[task_id][identity] = with_columns(
                    known, outcome="gone", last_error=NO_LONGER_OFFERED
                )

    def _copy(self, contact_task: ContactTaskRow, capture: Capture) -> tuple[CaptureRow, bool]:
        """The row of one capture, and whether its URL was refused and a fresh one may help."""
        row = new_capture_row(contact_task, capture, self.archive.personal_data)
        key = self.archive.keys.capture(
            contact_task.created_time,
            row.task_id,
            row.kind,
            row.capture_id,
            row.file_name,
            sensitive=row.sensitive,
        )
        known = self.bucket.rows[row.task_id].get(row.identity)
        found = self.bucket.find(row, key)
        if found and not self.recopy and not self._is_misplaced(found):
            look = self._look(found, known, capture)
            if look is None:
                return found, False
            if not _is_other(look, found):
                return with_columns(found, last_error=None), False
        attempts_before = known.attempts if known else 0
        if capture.download_url is None:
            pending = with_columns(
                row, attempts=attempts_before, last_error="offered without a URL"
            )
            return found or pending, False
        if attempts_before:
            row = with_columns(row, attempts=attempts_before)
        if found is None and known and known.outcome == "copied":
            # The object that the row names is damaged or not there: the same bytes belong under its key.
            found = as_known(row, known)
        if found is not None and not self._is_misplaced(found):
            key = ObjectKey(found.object_key or key)
        return self._download(row, key, capture.download_url, found)

    def _is_misplaced(self, found: CaptureRow) -> bool:
        return self.archive.keys.is_misplaced(found.object_key or "", sensitive=found.sensitive)

    def _look(self, found: CaptureRow, known: CaptureRow | None, capture: Capture) -> Look | None:
        """What the media host has now of a capture that is in the bucket; None where nobody asked or it fails.

        Neither the API nor the URL tells of another content (documented: no checksum, no size); so the
        media host is asked where looking is wanted, or something else hints at a change. A host that
        cannot be asked now changes nothing: what is whole stays, and what is known to be newer stays wanted.
        """
        hints = found.last_error is not None or (
            known is not None
            and (known.start_time, known.stop_time) != (found.start_time, found.stop_time)
        )
        if capture.download_url is None or not (self.look_for_changes or hints):
            return None
        try:
            return self.media.look(capture.download_url)
        except ArchiveError:
            return None

    def _download(
        self,
        row: CaptureRow,
        key: ObjectKey,
        download_url: SecretStr,
        replaced: CaptureRow | None,
    ) -> tuple[CaptureRow, bool]:
        outcome: Outcome = "failed"
        tries = _Tries(partial(self._copy_once, row, key, download_url, replaced))
        try:
            copied = tries.run(self._retrying)
        except DownloadGone as error:
            failure, outcome = error, "gone"
        except (DownloadBroken, DownloadExpired, DownloadRefused, Implausible) as error:
            failure = error
        else:
            if copied.attempts != row.attempts + tries.count:
                copied = with_columns(copied, attempts=row.attempts + tries.count)
            if replaced:
                # What a killed run left is dated by the store, whose clock need not agree with this one.
                times = [row.copied_time for row in (copied, replaced) if row.copied_time]
                copied = newer_capture(replaced, with_columns(copied, copied_time=max(times)))
            self.bucket.remember(copied)
            return copied, False
        attempts = row.attempts + tries.count
        if replaced:
            # What is copied stays copied; the error says that there is more to be had.
            row = replaced
            outcome = "copied"
        failed = with_columns(
            row, outcome=outcome, attempts=attempts, last_error=redact(str(failure))
        )
        # A URL that is refused at every visit is not worth two more queries at each.
        known = self.bucket.rows[row.task_id].get(row.identity)
        is_known_to_fail = known is not None and known.last_error == failed.last_error
        return failed, isinstance(failure, DownloadExpired) and not is_known_to_fail

    def _copy_once(
        self,
        row: CaptureRow,
        key: ObjectKey,
        download_url: SecretStr,
        replaced: CaptureRow | None,
    ) -> CaptureRow:
        """Copy under the key, or, where that stands for other bytes, under a key of its own.

        No object is ever replaced by other bytes than the ones that its row tells.
        """
        expected = replaced.sha256 if replaced else None
        try:
            return self._store(row, key, download_url, expected)
        except ContentChanged as changed:
            own_key = self.archive.keys.capture(
                row.task_created_time,
                row.task_id,
                row.kind,
                row.capture_id,
                row.file_name,
                sensitive=row.sensitive,
                version=changed.sha256[:VERSION_DIGITS],
            )
            self.bucket.refresh(own_key)
            found = self.bucket.stored(row, own_key)
            if found and found.sha256 == changed.sha256:
                return found
            try:
                return self._store(row, own_key, download_url, changed.sha256)
            except ContentChanged:
                raise DownloadBroken("The media host gives other bytes each time.") from None

    def _store(
        self, row: CaptureRow, key: ObjectKey, download_url: SecretStr, expected_sha256: str | None
    ) -> CaptureRow:
        there = self.bucket.objects.get(key)
        with self.media.open(download_url) as download:
            try:
                stored = store_capture(
                    self.archive.store,
                    key,
                    download,
                    size_bytes=download.size_bytes,
                    kind=row.kind,
                    file_name=row.file_name,
                    condition=Condition(there.etag if there else None),
                    expected_sha256=expected_sha256,
                )
            except ConditionFailed:
                self.bucket.refresh(key)
                found = self.bucket.stored(row, key)
                if found is None or expected_sha256 not in {None, found.sha256}:
                    raise DownloadBroken(
                        "Another run wrote the same object at the same time."
                    ) from None
                return found
        now = self.archive.now()
        self.bucket.objects[key] = StoredObject(key, stored.size_bytes, stored.etag, now)
        return copied_row(row, key, stored, now, media_etag=download.etag)


def _is_other(look: Look, found: CaptureRow) -> bool:
    """Whether what the media host has is another content than the one in the bucket, by length or ETag."""
    etag = media_etag(found)
    is_other_size = look.size_bytes is not None and look.size_bytes != found.size_bytes
    return is_other_size or (etag is not None and look.etag is not None and look.etag != etag)


class _Tries:
    """One copy, tried once without tenacity, which takes a tenth as long as a small recording.

    Attributes:
        count: How often it was tried.
    """

    def __init__(self, copy: Callable[[], CaptureRow]) -> None:
        self.count = 0
        self._copy = copy
        self._failure: Exception | None = None

    def run(self, retrying: tenacity.Retrying) -> CaptureRow:
        """The row of the copy, once it succeeds; the first failure counts like every other."""
        try:
            return self._once()
        except _MAY_PASS as failure:
            self._failure = failure
        return retrying(self._once)

    def _once(self) -> CaptureRow:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        self.count += 1
        return self._copy()


def _stop(state: tenacity.RetryCallState) -> bool:
    """Six attempts, of which three may be bodies that are not the file."""
    counted = state.retry_object.statistics
    if state.outcome and isinstance(state.outcome.exception(), Implausible):
        counted["implausible"] = counted.get("implausible", 0) + 1
    return (
        state.attempt_number >= MAX_ATTEMPTS_IF_BROKEN
        or counted.get("implausible", 0) >= MAX_ATTEMPTS_IF_IMPLAUSIBLE
    )


_backoff = tenacity.wait_exponential_jitter(initial=1, max=30)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, DownloadBroken) else 0.0
    return max(min(asked, MAX_RETRY_AFTER_SECONDS), _backoff(state))


def copied_row(
    row: CaptureRow,
    key: ObjectKey,
    stored: StoredCapture,
    copied_time: datetime,
    *,
    media_etag: str | None = None,
) -> CaptureRow:
    """The row of a capture that is whole in the bucket."""
    return with_columns(
        row,
        outcome="copied",
        object_key=key,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        format=stored.format,
        copied_time=copied_time,
        attempts=max(row.attempts, 1),
        extra_json=extra_json_with_notes(row, media_etag=media_etag),
    )


def as_known(row: CaptureRow, known: CaptureRow) -> CaptureRow:
    """What the API tells now of a capture that was copied before; an error on it tells of a newer version."""
    found = with_columns(
        row,
        outcome="copied",
        object_key=known.object_key,
        size_bytes=known.size_bytes,
        sha256=known.sha256,
        format=known.format,
        copied_time=known.copied_time,
        attempts=known.attempts,
        last_error=known.last_error,
    )
    return with_notes(found, earlier_versions=earlier_versions(known), media_etag=media_etag(known))
