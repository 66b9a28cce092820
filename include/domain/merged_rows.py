"""Makes one row of two of the same identity: the order in which runs write makes no difference.

What a run knows of a captured file beyond the columns lies in ``extra_json`` under ``archive``: the ETag
that the media host gave it, and the versions that a later one replaced.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from include.domain.capture_state import CLOSED_STATUSES, CapturePolicy, capture_progress
from include.domain.contact_centre import JsonObject, is_identified
from include.domain.rows import CaptureRow, ContactTaskRow, Outcome, with_columns

_NEVER = datetime(1, 1, 1, tzinfo=UTC)
_NOTES = "archive"
_OUTCOME_RANK: dict[Outcome, int] = {"pending": 0, "failed": 1, "gone": 2, "copied": 3}


@dataclass(frozen=True)
class StoredVersion:
    """A whole object of a capture that a later content of the same capture replaced in its row."""

    object_key: str
    size_bytes: int
    sha256: str


def newer_contact_task(there: ContactTaskRow, new: ContactTaskRow) -> ContactTaskRow:
    """One contact task as two runs know it: told latest, checked latest, first seen earliest.

    ``captureRequested`` only gains knowledge: true once told stays, since whether it can turn false again
    is unknown and something may have been captured. State, count and next check are those of the later
    check; `settled` makes them anew from what the merged row and the captures tell.
    """
    told = max(there, new, key=_told)
    checked = new if new.checked_time >= there.checked_time else there
    requested = {there.capture_requested, new.capture_requested}
    return with_columns(
        told,
        capture_requested=True if True in requested else False if False in requested else None,
        capture_state=checked.capture_state,
        capture_count=checked.capture_count,
        checked_time=checked.checked_time,
        next_check_time=checked.next_check_time,
        first_seen_time=min(there.first_seen_time, new.first_seen_time),
    )


def _told(row: ContactTaskRow) -> tuple[object, ...]:
    is_closed = (row.status or "").lower() in CLOSED_STATUSES
    return (row.last_updated_time or _NEVER, is_closed, row.checked_time)


def settled(
    row: ContactTaskRow, captures: Sequence[CaptureRow], policy: CapturePolicy
) -> ContactTaskRow:
    """The row with state, count and next check as they follow from all that is known of its captures.

    A contact task that failed without any failed capture is one that the API refused to tell about.
    """
    if not is_identified(row.task_id):  # nobody can be asked about it
        return with_columns(row, capture_state="failed", next_check_time=None, capture_count=0)
    outcomes: list[Outcome] = [_standing(capture) for capture in captures]
    progress = capture_progress(
        capture_requested=row.capture_requested,
        status=row.status,
        created_time=row.created_time,
        last_change_time=_last_change_time(row, captures),
        outcomes=outcomes,
        is_refused=row.capture_state == "failed" and "failed" not in outcomes,
        now=row.checked_time,
        policy=policy,
    )
    return with_columns(
        row,
        capture_state=progress.state,
        next_check_time=progress.next_check_time,
        capture_count=len(captures),
    )


def _last_change_time(row: ContactTaskRow, captures: Sequence[CaptureRow]) -> datetime | None:
    """The contact task's last update, or the arrival of what was not there when it was first seen."""
    arrivals = [
        capture.first_seen_time
        for capture in captures
        if capture.first_seen_time > row.first_seen_time
    ]
    arrivals += [
        capture.copied_time
        for capture in captures
        if capture.copied_time and earlier_versions(capture)
    ]
    return max([*arrivals, row.last_updated_time or row.created_time])


def _standing(capture: CaptureRow) -> Outcome:
    """A copied capture with an error is one whose later version could not be copied yet."""
    return "pending" if capture.outcome == "copied" and capture.last_error else capture.outcome


def newer_capture(there: CaptureRow, new: CaptureRow) -> CaptureRow:
    """One capture as two runs know it: a copy beats none, a later copy or attempt an earlier one."""
    latest = new if _progress(new) >= _progress(there) else there
    merged = with_columns(
        latest,
        first_seen_time=min(there.first_seen_time, new.first_seen_time),
        attempts=max(there.attempts, new.attempts),
    )
    versions = {
        version.object_key: version
        for row in (there, new)
        for version in (*earlier_versions(row), *_own_version(row))
        if version.object_key != merged.object_key
    }
    # Who found the object already there does not know what the media host called the same bytes.
    etags = [media_etag(row) for row in (there, new, latest) if row.sha256 == latest.sha256]
    return with_notes(
        merged,
        earlier_versions=list(versions.values()),
        media_etag=next(filter(None, reversed(etags)), None),
    )


def _progress(row: CaptureRow) -> tuple[object, ...]:
    is_copied = row.outcome == "copied"
    copied_time = row.copied_time if is_copied and row.copied_time else _NEVER
    return (is_copied, copied_time, row.attempts, _OUTCOME_RANK[row.outcome])


def _own_version(row: CaptureRow) -> list[StoredVersion]:
    if row.outcome != "copied" or row.object_key is None or row.sha256 is None:
        return []
    return [StoredVersion(row.object_key, row.size_bytes or 0, row.sha256)]


def earlier_versions(row: CaptureRow) -> list[StoredVersion]:
    """The objects of a capture beside the one that its row names, in the order of their keys."""
    # As of almost all; to parse it takes longer.
    if "earlier_versions" not in (row.extra_json or ""):
        return []
    noted = _notes(row).get("earlier_versions")
    items = cast("list[JsonObject]", noted) if isinstance(noted, list) else []
    return [
        StoredVersion(str(item["object_key"]), int(str(item["size_bytes"])), str(item["sha256"]))
        for item in items
    ]


def media_etag(row: CaptureRow) -> str | None:
    """The ETag under which the media host gave the bytes of a copied capture."""
    etag = _notes(row).get("media_etag")
    return etag if isinstance(etag, str) else None


def with_notes(
    row: CaptureRow,
    *,
    earlier_versions: Sequence[StoredVersion] | None = None,
    media_etag: str | None = None,
) -> CaptureRow:
    """The row with these notes; what is None stays as it is noted."""
    noted = extra_json_with_notes(row, earlier_versions=earlier_versions, media_etag=media_etag)
    return row if noted == row.extra_json else with_columns(row, extra_json=noted)


def extra_json_with_notes(
    row: CaptureRow,
    *,
    earlier_versions: Sequence[StoredVersion] | None = None,
    media_etag: str | None = None,
) -> str | None:
    """The `extra_json` of the row with these notes, for who replaces more of it; see `with_notes`."""
    extra = _extra(row)
    noted = extra.get(_NOTES)
    notes = dict(cast("JsonObject", noted)) if isinstance(noted, dict) else {}
    if earlier_versions:
        ordered = sorted(earlier_versions, key=lambda version: version.object_key)
        notes["earlier_versions"] = [
            {
                "object_key": version.object_key,
                "size_bytes": version.size_bytes,
                "sha256": version.sha256,
            }
            for version in ordered
        ]
    if media_etag:
        notes["media_etag"] = media_etag
    return json.dumps({**extra, _NOTES: notes}, sort_keys=True) if notes else row.extra_json


def _extra(row: CaptureRow) -> JsonObject:
    return cast("JsonObject", json.loads(row.extra_json)) if row.extra_json else {}


def _notes(row: CaptureRow) -> JsonObject:
    notes = _extra(row).get(_NOTES)
    return dict(cast("JsonObject", notes)) if isinstance(notes, dict) else {}
