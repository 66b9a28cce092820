"""Looks again at what is not final yet: captures that come late, contact tasks that are listed late."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from include.domain.capture_state import is_at_risk
from include.domain.contact_centre import ContactTask
from include.domain.errors import CapturesFailed
from include.domain.interval import HOUR, Interval, hour_of
from include.domain.merged_rows import newer_contact_task, settled
from include.domain.new_rows import new_contact_task_row, unasked_contact_task_row
from include.domain.object_keys import DueMarker, ObjectKey
from include.domain.rows import CaptureRow, ContactTaskRow, with_columns
from include.pipelines.archive import Archive
from include.pipelines.archive_captures import (
    Shard,
    may_have_captures,
    overdue_sentence,
    publish_plan,
    start_run,
    write_plan,
)
from include.pipelines.hour_listing import with_contact_tasks
from include.storage.hints import Hint, read_hints
from include.storage.tables import read_rows
from include.webex.contact_task_listing import list_contact_tasks
from include.webex.http_client import WebexClient

log = logging.getLogger(__name__)

MAX_HOURS_OF_ONE_RUN = 336  # two weeks; what is due beyond them is left to the next run
# Each is a partition to read; what lies beyond waits until it is due.
MAX_HINTED_HOURS_OF_ONE_RUN = 48
# An event may tell when the capture was created, which is after its contact task was.
_HINT_REACH = timedelta(hours=6)
# The run of an hour comes soon after its end; what is older and in no table is not there, or listed late.
_YOUNG = timedelta(hours=3)
# As far back a contact task of the last hours is looked for: further costs more pages of the list each time.
_YOUNG_REACH = timedelta(hours=1)
_DUE = "due.txt"


def plan_recheck(client: WebexClient, archive: Archive) -> list[Shard]:
    """Gather what is due now, oldest first, into working files; no shard at all when nothing is.

    A listing of the due markers and one of the hints find it, and without any nothing is asked of the API.
    Hours that are due to be listed are listed in as few walks as they form spans, and what is hinted at and in no
    table yet in one more; contact tasks that are due to be checked, or hinted at, are queried in full batches
    across hours, by `archive_captures.archive_shard`.
    """
    now = start_run(archive)
    due = _of_the_oldest_hours(archive.due_markers(now))
    batches, hints = read_hints(archive.store, archive.keys)
    hinted = {hint.task_id for hint in hints}
    archived_hours, unknown = _look_for(archive, hints)
    young = _list_young(client, unknown, now)
    to_list = _hours_to_list(archive, due)
    for hour in sorted({*archived_hours, *young}):
        # As if the hour were due: a run that dies leaves the marker, and the next one goes on.
        marker = archive.keys.due_marker(now, "check", hour)
        archive.store.write(marker.key, b"")
        due.append(marker)
    if not due:
        archive.store.delete(batches)  # of what no table knows yet: the hourly runs find it
        log.info("Nothing is due.")
        return []
    hours = sorted({marker.hour for marker in due})
    to_query: list[ContactTaskRow] = []
    to_publish: list[ContactTaskRow] = []
    for hour, listed in with_contact_tasks(client, hours, to_list, now):
        known, late, changed = _look_up(archive, hour, listed or young.get(hour, []), now)
        to_query += [row for row in late if may_have_captures(row)]
        to_query += [
            with_columns(row, checked_time=now)
            for row in known
            if _is_due(row, now) or row.task_id in hinted
        ]
        to_publish += [unasked_contact_task_row(row, archive.policy) for row in late]
        to_publish += changed
    archive.mark_for_listing([*to_list, *young], now)
    markers = "".join(f"{key}\n" for key in [*(marker.key for marker in due), *batches])
    archive.store.write(archive.working_file(_DUE), markers.encode())
    log.info(
        "%d hours are due, %d of them are listed again; %d contact tasks are due.",
        len(hours),
        len(to_list),
        len(to_query),
    )
    return write_plan(archive, to_query, to_publish)


def _of_the_oldest_hours(markers: Iterable[DueMarker]) -> list[DueMarker]:
    """What is purged first comes first; the rest stays due."""
    found = list(markers)
    hours = sorted({marker.hour for marker in found})[:MAX_HOURS_OF_ONE_RUN]
    return [marker for marker in found if marker.hour in set(hours)]


def _hours_to_list(archive: Archive, due: Sequence[DueMarker]) -> list[datetime]:
    to_list = {marker.hour for marker in due if marker.kind == "list"}
    for hour in {marker.hour for marker in due} - to_list:
        # Nobody knows its contact tasks: the run that was to archive it died.
        if not archive.store.head(_contact_tasks_key(archive, hour)):
            to_list.add(hour)
    return sorted(to_list)


def _look_for(archive: Archive, hints: Sequence[Hint]) -> tuple[list[datetime], list[Hint]]:
    """The archived hours that hold hinted contact tasks, and the hints of which no table knows the contact task.

    The newest hours are looked at first.
    """
    hinted = {hint.task_id for hint in hints}
    reach = range(_HINT_REACH // HOUR + 1)
    candidates = {hour_of(hint.created_time) - back * HOUR for hint in hints for back in reach}
    found: list[datetime] = []
    for hour in sorted(candidates, reverse=True)[:MAX_HINTED_HOURS_OF_ONE_RUN]:
        rows = read_rows(archive.store, _contact_tasks_key(archive, hour), ContactTaskRow)
        there = {row.task_id for row in rows} & hinted
        hinted -= there
        if there:
            found.append(hour)
    return found, [hint for hint in hints if hint.task_id in hinted]


def _list_young(
    client: WebexClient, hints: Sequence[Hint], now: datetime
) -> dict[datetime, list[ContactTask]]:
    """The hinted contact tasks of hours whose own run is still to come, by hour; one walk finds them.

    They are archived alone and now, and their hours stay due to be listed: nothing is taken for complete. What
    is not found is left to the hourly runs.
    """
    young = [hint for hint in hints if now - hint.created_time < _YOUNG]
    found: dict[datetime, list[ContactTask]] = defaultdict(list)
    if young:
        wanted = {hint.task_id for hint in young}
        start = min(hint.created_time for hint in young) - _YOUNG_REACH
        for contact_task in list_contact_tasks(client, Interval(start, now), now):
            if contact_task.task_id in wanted:
                found[hour_of(contact_task.created_time)].append(contact_task)
    left = len(hints) - sum(map(len, found.values()))
    if left:
        log.info("%d hinted contact tasks are left to the hourly runs.", left)
    return found


def _contact_tasks_key(archive: Archive, hour: datetime) -> ObjectKey:
    return archive.keys.table_partition("contact_tasks", hour)


def _look_up(
    archive: Archive, hour: datetime, listed: Sequence[ContactTask], now: datetime
) -> tuple[list[ContactTaskRow], list[ContactTaskRow], list[ContactTaskRow]]:
    """The hour's known contact tasks in the light of a new listing, those listed late, and those it changed."""
    known = {
        row.identity: row
        for row in read_rows(archive.store, _contact_tasks_key(archive, hour), ContactTaskRow)
    }
    captures: dict[str, list[CaptureRow]] = defaultdict(list)
    if listed:
        key = archive.keys.table_partition("captures", hour)
        for capture in read_rows(archive.store, key, CaptureRow):
            captures[capture.task_id].append(capture)
    late: list[ContactTaskRow] = []
    changed: list[ContactTaskRow] = []
    for contact_task in listed:
        new = new_contact_task_row(
            contact_task, archive.keys.org_id, now, archive.policy, archive.personal_data
        )
        there = known.get(new.identity)
        if there is None:
            late.append(new)
            continue
        # To list is not to check: what is due stays due, and what is final stays checked when it was.
        told = newer_contact_task(
            there,
            with_columns(new, checked_time=there.checked_time, capture_state=there.capture_state),
        )
        told = settled(told, captures[told.task_id], archive.policy)
        if told != there:
            known[told.identity] = told
            changed.append(told)
    return list(known.values()), late, changed


def _is_due(row: ContactTaskRow, now: datetime) -> bool:
    return row.next_check_time is not None and row.next_check_time <= now


def publish_recheck(archive: Archive, shards: Sequence[Shard]) -> None:
    """Merge what the run found into the partitions of the hours that were due, and end their due markers.

    Raises:
        CapturesFailed: At the end, when a shard did not finish, a capture failed, a contact task became
            ``overdue``, or one that is not archived is about to be purged.
        TransientError: Other writers replaced a partition again and again.
    """
    found = archive.store.read(archive.working_file(_DUE))
    due = [ObjectKey(key) for key in found[0].decode().split()] if found else []
    hours = {marker.hour for key in due if (marker := archive.keys.parse_due_marker(key))}
    published = publish_plan(archive, sorted(hours), shards)
    if published.is_whole:
        # The partitions have markers of their own by now; what is left to do has a later one.
        archive.store.delete([*due, *archive.own_working_files()])
    sentences = list(published.failures)
    if published.overdue:
        sentences.append(overdue_sentence(published.overdue))
    sentences += _purge_sentences(published.contact_tasks, archive)
    if sentences:
        raise CapturesFailed(" ".join(sentences))


def _purge_sentences(rows: Iterable[ContactTaskRow], archive: Archive) -> list[str]:
    """An alarm while there is still time: what Webex soon deletes and is not here."""
    now = archive.now()
    near = [
        row
        for row in rows
        if archive.policy.is_purge_near(row.created_time, now) and is_at_risk(row)
    ]
    if not near:
        return []
    first = min(row.created_time for row in near)
    return [
        f"{len(near)} contact tasks are not archived and their captures are purged soon, the first of them "
        f"at {archive.policy.purge_time(first)}: see last_error in the table captures, and mend it before."
    ]
