"""Merges what a run found into the tables, hour by hour, so that nothing is lost whoever else writes.

Of each hour, in this order: a due marker for what is not final yet, a manifest, the partition of
``captures``, that of ``contact_tasks``. A process that dies in between leaves a marker too many or a
manifest whose partition was not replaced; the next run of the hour does both again.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import tenacity

from include.domain.errors import TransientError
from include.domain.interval import hour_of
from include.domain.merged_rows import newer_capture, newer_contact_task, settled
from include.domain.rows import CaptureRow, CompletenessRow, ContactTaskRow
from include.pipelines.archive import Archive
from include.storage.manifests import PublishedPartition, append_manifest, sha256_of
from include.storage.object_store import ConditionFailed
from include.storage.tables import Replacement, merge_rows

log = logging.getLogger(__name__)

HOURS_PER_MANIFEST = 24  # what is merged at once lies in memory
MAX_PUBLISH_ATTEMPTS = 30
SOON = timedelta(minutes=15)


@dataclass(frozen=True)
class _Merged:
    """What the partitions of one hour become, in the order in which they are written."""

    hour: datetime
    partitions: Sequence[Replacement[Any]]
    due_time: datetime | None = None
    overdue: Sequence[ContactTaskRow] = ()


def publish_hours(
    archive: Archive,
    hours: Iterable[datetime],
    contact_tasks: Collection[ContactTaskRow],
    captures: Collection[CaptureRow],
) -> list[ContactTaskRow]:
    """Merge rows into the partitions of the hours, empty ones included; who became ``overdue`` by it.

    Two runs at once give the same as one after the other: a partition is replaced only while it is still
    the one that was merged, else it is merged again. On a store without conditional writes this holds for
    one writer at a time only (see `ObjectStore`).

    A contact task is never called archived before its captures are rows, and whatever is not final has a
    due marker at its ``next_check_time`` or before.

    Raises:
        TransientError: Other writers replaced a partition again and again.
    """
    contact_tasks_of: dict[datetime, list[ContactTaskRow]] = defaultdict(list)
    for row in contact_tasks:
        contact_tasks_of[hour_of(row.created_time)].append(row)
    captures_of: dict[datetime, list[CaptureRow]] = defaultdict(list)
    for row in captures:
        captures_of[hour_of(row.task_created_time)].append(row)
    return _publish(
        archive,
        hours,
        lambda hour: _merge(archive, hour, contact_tasks_of[hour], captures_of[hour]),
    )


def publish_completeness(archive: Archive, rows: Collection[CompletenessRow]) -> None:
    """Merge what a verification found into the table ``completeness``; the newest counts."""
    rows_of: dict[datetime, list[CompletenessRow]] = defaultdict(list)
    for row in rows:
        rows_of[row.created_hour].append(row)

    def merge(hour: datetime) -> _Merged:
        key = archive.keys.table_partition("completeness", hour)
        rows = rows_of[hour]
        return _Merged(
            hour, [merge_rows(archive.store, key, rows, CompletenessRow, newer=_newer_completeness)]
        )

    _publish(archive, sorted(rows_of), merge)


def _newer_completeness(there: CompletenessRow, new: CompletenessRow) -> CompletenessRow:
    return new if new.verified_time >= there.verified_time else there


def _merge(
    archive: Archive,
    hour: datetime,
    contact_tasks: Collection[ContactTaskRow],
    captures: Collection[CaptureRow],
) -> _Merged:
    merged_captures = merge_rows(
        archive.store,
        archive.keys.table_partition("captures", hour),
        captures,
        CaptureRow,
        newer=newer_capture,
        then=archive.personal_data.capture_row,
    )
    captures_of: dict[str, list[CaptureRow]] = defaultdict(list)
    for capture in merged_captures.rows:
        captures_of[capture.task_id].append(capture)
    merged = merge_rows(
        archive.store,
        archive.keys.table_partition("contact_tasks", hour),
        contact_tasks,
        ContactTaskRow,
        newer=newer_contact_task,
        then=lambda row: archive.personal_data.contact_task_row(
            settled(row, captures_of[row.task_id], archive.policy)
        ),
    )
    checks = [row.next_check_time for row in merged.rows if row.next_check_time]
    overdue = [row for row in merged.rows if row.capture_state == "overdue"]
    if overdue:
        known = {row.task_id for row in merged.replaced_rows if row.capture_state == "overdue"}
        overdue = [row for row in overdue if row.task_id not in known]
    return _Merged(hour, [merged_captures, merged], min(checks, default=None), overdue)


def _publish(
    archive: Archive, hours: Iterable[datetime], merge: Callable[[datetime], _Merged]
) -> list[ContactTaskRow]:
    waiting = list(hours)
    overdue: list[ContactTaskRow] = []
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(ConditionFailed),
        stop=tenacity.stop_after_attempt(MAX_PUBLISH_ATTEMPTS),
        wait=tenacity.wait_random(0, 0.5),
    )
    while waiting:
        some, waiting = waiting[:HOURS_PER_MANIFEST], waiting[HOURS_PER_MANIFEST:]

        def publish(left: list[datetime] = some) -> None:
            merged = [merge(hour) for hour in left]
            _announce(archive, merged)
            for hour in merged:
                for partition in hour.partitions:
                    partition.write(archive.store)
                if hour.due_time and hour.due_time <= archive.now() + SOON:
                    # A recheck that did not see the rows yet may have taken it.
                    _mark_as_due(archive, hour)
                overdue.extend(hour.overdue)
                left.remove(hour.hour)

        try:
            retrying(publish)
        except tenacity.RetryError:
            raise TransientError(
                f"The partitions of {some[0]:%Y-%m-%d %H} UTC are being replaced by others all the time; they are "
                "tried again later."
            ) from None
    return overdue


def _announce(archive: Archive, merged: Sequence[_Merged]) -> None:
    """What must be in the bucket before the partitions: when to look again, and what they will be."""
    for hour in merged:
        _mark_as_due(archive, hour)
    # Also what an hour leaves as it is: so a repeat makes good what a killed run announced.
    changes = [
        PublishedPartition(
            key=partition.key,
            sha256=sha256_of(partition.body),
            replaced_sha256=sha256_of(partition.replaced_body)
            if partition.replaced_body is not None
            else None,
            rows=len(partition.rows),
        )
        for hour in merged
        if any(partition.is_change for partition in hour.partitions)
        for partition in hour.partitions
    ]
    if changes:
        appended = append_manifest(archive.store, archive.keys, changes, archive.now())
        log.info(
            "Manifest %d of org %s, SHA-256 %s.",
            appended.manifest.sequence if appended.manifest else 0,
            archive.keys.org_id,
            appended.sha256,
        )


def _mark_as_due(archive: Archive, hour: _Merged) -> None:
    if hour.due_time:
        marker = archive.keys.due_marker(hour.due_time, "check", hour.hour)
        archive.store.write(marker.key, b"")
