"""Proves that nothing is missing: API listing, tables, objects and manifests against one another, both ways."""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from include.domain.capture_state import is_at_risk
from include.domain.contact_centre import ContactTask
from include.domain.errors import PermanentError, VerificationFailed
from include.domain.findings import Finding, FindingKind
from include.domain.interval import HOUR, Interval, hour_of
from include.domain.late_listing import next_listing_time
from include.domain.merged_rows import StoredVersion, earlier_versions
from include.domain.object_keys import DueMarker, KeyLayout, ObjectKey, TableName
from include.domain.redaction import shown_id
from include.domain.rows import CaptureRow, CaptureState, CompletenessRow, ContactTaskRow
from include.pipelines.archive import Archive
from include.pipelines.hour_listing import with_contact_tasks
from include.pipelines.manifest_chain import ManifestChain
from include.pipelines.publication import publish_completeness
from include.storage.manifests import sha256_of
from include.storage.object_store import ObjectStore, StoredObject
from include.storage.tables import AnyRow, from_parquet
from include.webex.http_client import WebexClient

log = logging.getLogger(__name__)

CONCURRENT_READS = 8
# Hours that ended so recently may still be being archived.
GRACE = 2 * HOUR
MAX_FINDINGS_NAMED = 50
# How long after its plan a run may still copy what has no row yet.
LONGEST_SHARD = 6 * HOUR
# A publication writes its manifest first and its partitions seconds later: what does not fit is looked at again.
MAX_WAITS = 3
WAIT_SECONDS = 5.0


@dataclass
class Verification:
    """What was looked at, and what was found.

    Attributes:
        findings: What is wrong; empty when all is as it should be.
        completeness: What is archived, by hour and channel.
        objects: How many objects were compared with their rows.
        hashed_objects: How many of them were read to their last byte.
        hashed_bytes: How many bytes that were.
        manifests: How many manifests the chain has.
        latest_sha256: SHA-256 of the newest manifest; None when there is none.
    """

    findings: list[Finding] = field(default_factory=list[Finding])
    completeness: list[CompletenessRow] = field(default_factory=list[CompletenessRow])
    objects: int = 0
    hashed_objects: int = 0
    hashed_bytes: int = 0
    manifests: int = 0
    latest_sha256: str | None = None

    def find(
        self, kind: FindingKind, subject: str, hour: datetime | None = None, detail: str = ""
    ) -> None:
        """Take down one thing that is wrong."""
        self.findings.append(Finding(kind, subject, hour, detail))

    @property
    def summary(self) -> str:
        """What was looked at, in a sentence or two."""
        hours = {row.created_hour for row in self.completeness}
        states = {
            name: sum(getattr(row, name) for row in self.completeness)
            for name in ("expected", "archived", "pending", "overdue", "gone", "failed", "missing")
        }
        told = ", ".join(f"{name} {count}" for name, count in states.items())
        return (
            f"{len(hours)} hours with {sum(row.contact_tasks for row in self.completeness)} contact tasks ({told}); "
            f"{self.objects} objects compared with their rows, {self.hashed_objects} of them read whole "
            f"({self.hashed_bytes} bytes); {self.manifests} manifests, the newest has the SHA-256 "
            f"{self.latest_sha256}."
        )

    def gaps(self) -> int:
        """How many hours between the first and the last of those that were looked at were not."""
        hours = {row.created_hour for row in self.completeness}
        return int((max(hours) - min(hours)) / HOUR) + 1 - len(hours) if hours else 0

    def raise_findings(self) -> None:
        """Fail loudly.

        Raises:
            VerificationFailed: Something is wrong; what and where, and what mends it.
        """
        if not self.findings:
            return
        kinds = Counter(finding.kind for finding in self.findings)
        named = "\n".join(
            f"{finding.sentence} To mend it: {finding.remedy}."
            for finding in self.findings[:MAX_FINDINGS_NAMED]
        )
        raise VerificationFailed(
            f"{len(self.findings)} things are not as they should be "
            f"({', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))}):\n{named}"
        )


def verify_archive(
    interval: Interval,
    client: WebexClient,
    archive: Archive,
    *,
    sha256_percent: float,
    is_whole_interval: bool,
) -> Verification:
    """Verify an interval against the API and the bucket, and the whole chain; write ``completeness``.

    Due markers that are missing are written again, and hours of which Webex lists a contact task that has no
    row are due to be listed at once.

    Args:
        interval: The creation hours to verify, as far as they ended two hours ago.
        client: Lists the contact tasks.
        archive: The bucket.
        sha256_percent: The share of objects that are read whole; which ones differs from day to day.
        is_whole_interval: Every hour of it must be archived; else those after the first archived one.
    """
    archive.store.check()
    now = archive.now()
    verifier = _Verifier.of(archive, sha256_percent)
    found = verifier.found
    found.findings += verifier.chain.breaks(since=now - 2 * (interval.end - interval.start))
    archived = verifier.archived_hours()
    first = min(archived, default=now)
    hours = [
        hour
        for hour in interval.hours()
        if hour + HOUR + GRACE <= now and (is_whole_interval or hour >= first)
    ]
    for hour, listed in with_contact_tasks(client, hours, hours, now):
        verifier.verify_hour(hour, listed)
    verifier.find_what_is_purged_soon(archived, now)
    _have_mended_by_the_recheck(archive, verifier, now)
    publish_completeness(archive, found.completeness)
    log.info("%s", found.summary)
    return found


def _have_mended_by_the_recheck(archive: Archive, verifier: "_Verifier", now: datetime) -> None:
    """Write the due markers that are missing, and such as have what Webex lists late archived soon.

    Either is told in the log; a contact task that is missing is a finding once its hour should be settled.
    """
    for marker in verifier.lost_markers:
        archive.store.write(marker.key, b"")
        log.warning("%s is not final and nothing said when to look again: mended.", marker.hour)
    kept: list[Finding] = []
    for finding in verifier.found.findings:
        if finding.kind == "contact_task_missing" and finding.hour:
            archive.store.write(archive.keys.due_marker(now, "list", finding.hour).key, b"")
            log.warning("%s The next recheck_captures archives it.", finding.sentence)
            if next_listing_time(finding.hour, now) is None:
                kept.append(finding)
        elif finding.kind != "not_due":
            kept.append(finding)
    verifier.found.findings = kept


def verify_bucket(
    archive: Archive,
    interval: Interval | None,
    *,
    sha256_percent: float = 100.0,
    held_sha256: str | None = None,
) -> Verification:
    """Verify one org with nothing but the bucket; writes nothing.

    Args:
        archive: The bucket.
        interval: The creation hours to verify, none of which may be missing; None for all that there are.
        sha256_percent: The share of objects that are read whole.
        held_sha256: The SHA-256 of a manifest that was told before; it must still be in the chain.
    """
    verifier = _Verifier.of(archive, sha256_percent)
    chain, found = verifier.chain, verifier.found
    found.findings += chain.breaks(since=None)
    if held_sha256 and held_sha256.lower() not in chain.hashes:
        found.find("hash_not_in_chain", held_sha256)
    for hour in interval.hours() if interval else sorted(verifier.archived_hours()):
        verifier.verify_hour(hour, None)
    if interval is None:
        verifier.find_what_nobody_knows()
    return found


def orgs_of(store: ObjectStore, prefix: str) -> list[str]:
    """The orgs that have an archive under a prefix of the bucket, by their manifests and tables."""
    orgs: set[str] = set()
    for table in ("manifests/", "tables/contact_tasks/"):
        start = KeyLayout("", prefix).prefix + table + "org_id="
        after = ""
        while found := next(store.list(start, start_after=after), None):
            org = found.key.removeprefix(start).partition("/")[0]
            orgs.add(org)
            after = f"{start}{org}/\x7f"
    return sorted(orgs)


@dataclass
class _Verifier:
    """One verification under way."""

    archive: Archive
    chain: ManifestChain
    sha256_percent: float
    found: Verification
    lost_markers: list[DueMarker] = field(default_factory=list[DueMarker])
    waits_left: int = MAX_WAITS

    @classmethod
    def of(cls, archive: Archive, sha256_percent: float) -> "_Verifier":
        chain = ManifestChain.read(archive)
        found = Verification(manifests=chain.length, latest_sha256=chain.latest_sha256)
        found.findings += chain.findings
        return cls(archive, chain, sha256_percent, found)

    def archived_hours(self) -> set[datetime]:
        """The hours of which a manifest tells, or a partition is there."""
        keys = [ObjectKey(key) for key in self.chain.partitions]
        keys += [
            found.key for found in self.archive.store.list(self.archive.keys.table("contact_tasks"))
        ]
        return {hour for key in keys if (hour := self.archive.keys.hour_of(key))}

    def verify_hour(self, hour: datetime, listed: Sequence[ContactTask] | None) -> None:
        """Compare everything that there is of one hour."""
        contact_tasks = self._rows("contact_tasks", hour, ContactTaskRow) or []
        captures = self._rows("captures", hour, CaptureRow) or []
        self._rows("completeness", hour, CompletenessRow)
        is_archived = bool(self.chain.partitions.get(self._key("contact_tasks", hour)))
        if not is_archived:
            self.found.find("hour_not_archived", f"{hour:%Y-%m-%d %H} UTC", hour)
        self._compare_rows(hour, contact_tasks, captures)
        self._compare_objects(hour, captures)
        self._compare_due_markers(hour, contact_tasks)
        known = {row.task_id for row in contact_tasks}
        missing = [task for task in listed or () if task.task_id not in known]
        for task in missing if is_archived else ():
            self.found.find("contact_task_missing", shown_id(task.task_id), hour)
        self.found.completeness += self._completeness(hour, contact_tasks, captures, missing)

    def _key(self, table: TableName, hour: datetime) -> ObjectKey:
        return self.archive.keys.table_partition(table, hour)

    def _rows(
        self, table: TableName, hour: datetime, row_type: type[AnyRow]
    ) -> list[AnyRow] | None:
        """The rows of a partition, None where there is none; compares it with its manifests."""
        key = self._key(table, hour)
        while True:
            read = self.archive.store.read(key)
            state = self.chain.state_of(key, sha256_of(read[0]) if read else None)
            if state == "published" or not self._waited():
                break
            self.chain.refresh(self.archive)
        if state == "missing":
            self.found.find("partition_missing", key, hour)
        elif state == "altered":
            self.found.find("partition_altered", key, hour)
        elif state == "unfinished":
            self.found.find("partition_unfinished", key, hour)
        elif state == "unknown":
            self.found.find("partition_unknown", key, hour)
        try:
            return from_parquet(read[0], row_type) if read else None
        except PermanentError:  # told already: no run publishes such bytes
            return []

    def _waited(self) -> bool:
        """Give a publication that is under way the time to end, a few times at most."""
        if self.waits_left == 0:
            return False
        self.waits_left -= 1
        self.archive.sleep(WAIT_SECONDS)
        return True

    def _compare_rows(
        self,
        hour: datetime,
        contact_tasks: Sequence[ContactTaskRow],
        captures: Sequence[CaptureRow],
    ) -> None:
        identities = Counter(row.identity for row in [*contact_tasks, *captures])
        for identity, count in identities.items():
            if count > 1:
                name = shown_id("/".join(identity[1:]))
                self.found.find("row_unfit", name, hour, f"{count} rows")
        counts = Counter(capture.task_id for capture in captures)
        for row in contact_tasks:
            if hour_of(row.created_time) != hour:
                self.found.find("row_unfit", shown_id(row.task_id), hour, "created in another hour")
            if row.capture_count != counts.pop(row.task_id, 0):
                self.found.find(
                    "row_unfit", shown_id(row.task_id), hour, "capture_count is another"
                )
        for task_id in counts:
            self.found.find("row_unfit", shown_id(task_id), hour, "captures without a contact task")

    def _compare_objects(self, hour: datetime, captures: Sequence[CaptureRow]) -> None:
        there = {
            item.key: item
            for sensitive in self.archive.keys.places
            for item in self.archive.store.list(
                self.archive.keys.captures_of_hour(hour, sensitive=sensitive)
            )
        }
        expected = {version.object_key: version for row in captures for version in _versions(row)}
        to_read: list[StoredVersion] = []
        for key, version in expected.items():
            # It may lie in a place that another setting named.
            item = there.pop(ObjectKey(key), None) or self.archive.store.head(ObjectKey(key))
            self.found.objects += 1
            if item is None:
                self.found.find("object_missing", key, hour)
            elif item.size_bytes != version.size_bytes:
                detail = f"{item.size_bytes} bytes instead of {version.size_bytes}"
                self.found.find("object_altered", key, hour, detail)
            elif self._is_in_sample(key):
                to_read.append(version)
        with ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="verify") as pool:
            for version, sha256 in zip(to_read, pool.map(self._sha256, to_read), strict=True):
                self.found.hashed_objects += 1
                self.found.hashed_bytes += version.size_bytes
                if sha256 != version.sha256:
                    self.found.find("object_altered", version.object_key, hour, "another SHA-256")
        for item in there.values():
            if not self._is_being_archived(item):
                self.found.find("object_unknown", item.key, hour)

    def _sha256(self, version: StoredVersion) -> str:
        digest = hashlib.sha256()
        for chunk in self.archive.store.iter_bytes(ObjectKey(version.object_key)):
            digest.update(chunk)
        return digest.hexdigest()

    def _is_in_sample(self, key: str) -> bool:
        """Which objects are read differs from day to day, so that in time each one is."""
        if self.sha256_percent >= 100:
            return True
        drawn = hashlib.sha256(f"{self.archive.now():%Y-%m-%d} {key}".encode()).digest()
        return int.from_bytes(drawn[:4]) < self.sha256_percent / 100 * 2**32

    def _is_being_archived(self, item: StoredObject) -> bool:
        """Whether a run that began before the object was written is not done: its working files tell.

        Only for hours, or whoever leaves a working file could hide an object of their own behind it.
        """
        working_files = self.archive.store.list(self.archive.keys.working_files())
        return any(
            file.last_modified <= item.last_modified < file.last_modified + LONGEST_SHARD
            for file in working_files
        )

    def _compare_due_markers(self, hour: datetime, rows: Sequence[ContactTaskRow]) -> None:
        """What is not final must have a marker, at its next check or before.

        The markers are listed after the rows were read: one that is in the future is written before them.
        """
        checks = [row.next_check_time for row in rows if row.next_check_time]
        if not checks:
            return
        now = self.archive.now()
        due = self.archive.keys.due_marker(min(checks), "check", hour)
        markers = self.archive.due_markers(due.due_time)
        if any(marker.hour == hour and marker.kind == "check" for marker in markers):
            return
        if due.due_time <= now:
            # A recheck may just have ended the marker, with new rows in place of those that were read.
            fresh = self.archive.store.read(self._key("contact_tasks", hour))
            rows = from_parquet(fresh[0], ContactTaskRow) if fresh else []
            if min(checks) not in {row.next_check_time for row in rows}:
                return
        self.lost_markers.append(due)
        self.found.find("not_due", f"{hour:%Y-%m-%d %H} UTC", hour)

    def _completeness(
        self,
        hour: datetime,
        contact_tasks: Sequence[ContactTaskRow],
        captures: Sequence[CaptureRow],
        missing: Sequence[ContactTask],
    ) -> list[CompletenessRow]:
        """One row for each channel of the hour; one without a channel for an hour without contact tasks."""
        channel_of = {row.task_id: row.channel_type for row in contact_tasks}
        states: dict[str | None, Counter[CaptureState]] = defaultdict(Counter)
        for row in contact_tasks:
            states[row.channel_type][row.capture_state] += 1
        lost = Counter(task.channel_type for task in missing)
        copied: Counter[str | None] = Counter()
        sizes: Counter[str | None] = Counter()
        for capture in captures:
            if capture.outcome == "copied":
                channel = channel_of.get(capture.task_id)
                copied[channel] += 1
                sizes[channel] += capture.size_bytes or 0
        rows: list[CompletenessRow] = []
        for channel in {**states, **lost} or {None: 0}:
            count = states[channel]
            rows.append(
                CompletenessRow(
                    org_id=self.archive.keys.org_id,
                    created_hour=hour,
                    channel_type=channel,
                    contact_tasks=count.total() + lost[channel],
                    expected=count.total() - count["none"] + lost[channel],
                    archived=count["archived"],
                    pending=count["pending"],
                    overdue=count["overdue"],
                    gone=count["gone"],
                    failed=count["failed"],
                    missing=lost[channel],
                    captures=copied[channel],
                    size_bytes=sizes[channel],
                    verified_time=self.archive.now(),
                )
            )
        return rows

    def find_what_is_purged_soon(self, archived: Collection[datetime], now: datetime) -> None:
        """An alarm before something is lost: what is not archived and will be purged within days."""
        policy = self.archive.policy
        if policy.retention is None:
            return
        hour = hour_of(now - policy.retention)
        while policy.is_purge_near(hour + HOUR, now):
            purge_time = f"purged from {hour + policy.retention:%Y-%m-%d %H:%M} UTC on"
            if hour not in archived:
                self.found.find("purge_near", f"{hour:%Y-%m-%d %H} UTC", hour, purge_time)
            else:
                read = self.archive.store.read(self._key("contact_tasks", hour))
                for row in from_parquet(read[0], ContactTaskRow) if read else []:
                    if is_at_risk(row):
                        self.found.find("purge_near", shown_id(row.task_id), hour, purge_time)
            hour += HOUR

    def find_what_nobody_knows(self) -> None:
        """Objects of the org where no row and no manifest expects any."""
        keys = self.archive.keys
        hours = self.archived_hours()
        for sensitive in keys.places:
            for item in self.archive.store.list(keys.captures(sensitive=sensitive)):
                hour = keys.hour_of(item.key)
                is_ours = (
                    hour is not None
                    and hour in hours
                    and item.key.startswith(keys.captures_of_hour(hour, sensitive=sensitive))
                )
                if not is_ours and not self._is_being_archived(item):
                    self.found.find("object_unknown", item.key)
        tables: tuple[TableName, ...] = ("contact_tasks", "captures", "completeness")
        for table in tables:
            for item in self.archive.store.list(keys.table(table)):
                # Those of the hours were compared with the manifests one by one.
                hour = keys.hour_of(item.key)
                is_ours = hour is not None and item.key == keys.table_partition(table, hour)
                if hour not in hours or not is_ours:
                    self.found.find("partition_unknown", item.key)


def _versions(row: CaptureRow) -> Iterator[StoredVersion]:
    """Every object that a row stands for."""
    if row.outcome == "copied" and row.object_key and row.sha256:
        yield StoredVersion(row.object_key, row.size_bytes or 0, row.sha256)
    yield from earlier_versions(row)


def find_foreign_objects(
    store: ObjectStore, prefix: str, orgs: Iterable[str], sensitive_prefix: str = ""
) -> list[Finding]:
    """Objects in the archive's folders that belong to no org's archive."""
    root = KeyLayout("", prefix).prefix
    known = tuple(f"org_id={org}/" for org in orgs)
    names = ["captures", "manifests", "tables/contact_tasks"]
    folders = [f"{root}{name}/" for name in (*names, sensitive_prefix.strip("/")) if name]
    folders += [f"{root}tables/captures/", f"{root}tables/completeness/"]
    found = [
        Finding("object_unknown", item.key)
        for folder in folders
        for item in store.list(folder)
        if not item.key.removeprefix(folder).startswith(known)
    ]
    found += [
        Finding("object_unknown", item.key)
        for item in store.list(f"{root}tables/")
        if not item.key.startswith(tuple(folders))
    ]
    return found
