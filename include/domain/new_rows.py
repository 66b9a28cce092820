"""Makes rows from what the API told; pure, so that every run makes the same row of the same answer."""

import json
from collections.abc import Sequence
from datetime import datetime

from include.domain.capture_state import CapturePolicy
from include.domain.contact_centre import Capture, ContactTask, JsonObject
from include.domain.merged_rows import settled
from include.domain.personal_data import OWN_NOTES, PersonalData
from include.domain.redaction import without_signed_urls
from include.domain.rows import CaptureRow, ContactTaskRow, with_columns

_KEEP_ALL = PersonalData()


def new_contact_task_row(
    contact_task: ContactTask,
    org_id: str,
    now: datetime,
    policy: CapturePolicy,
    personal_data: PersonalData = _KEEP_ALL,
) -> ContactTaskRow:
    """The row of a contact task of which no capture is known yet; of personal data, what may be kept."""
    contact_task = personal_data.contact_task(contact_task)
    row = ContactTaskRow(
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
        capture_state="pending",
        capture_count=0,
        first_seen_time=now,
        checked_time=now,
        next_check_time=None,
        extra_json=_extra_json(contact_task.extra),
    )
    return settled(row, [], policy)


def unasked_contact_task_row(row: ContactTaskRow, policy: CapturePolicy) -> ContactTaskRow:
    """The row of a contact task that was listed, and whose captures this run has not asked for.

    It counts as last checked at its creation. So what should be asked about is pending and due at once, and
    what was checked before stays as it was then: nothing is called final by a run that did not ask.
    """
    return settled(with_columns(row, checked_time=row.created_time), [], policy)


def checked_contact_task_row(
    row: ContactTaskRow,
    captures: Sequence[CaptureRow],
    now: datetime,
    policy: CapturePolicy,
    *,
    is_refused: bool = False,
) -> ContactTaskRow:
    """The row of a contact task after a check of its captures, all of which are given.

    Args:
        row: As it was before.
        captures: Each capture that was ever offered for it.
        now: The moment of the check.
        policy: When to look again.
        is_refused: The API refuses to tell its captures.
    """
    checked = with_columns(
        row, checked_time=now, capture_state="failed" if is_refused else "pending"
    )
    return settled(checked, captures, policy)


def new_capture_row(
    contact_task: ContactTaskRow, capture: Capture, personal_data: PersonalData = _KEEP_ALL
) -> CaptureRow:
    """The row of a capture of which nothing is copied yet; of personal data, what may be kept.

    It was first seen when the run began that asks for it, which is the ``checked_time`` of the planned
    contact task: so what is there at the first check is told from what came later.
    """
    capture = personal_data.capture(capture)
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
        first_seen_time=contact_task.checked_time,
        copied_time=None,
        # OWN_NOTES is where a row keeps what the archive itself knows.
        extra_json=_extra_json(
            {f"api_{key}" if key == OWN_NOTES else key: item for key, item in capture.extra.items()}
        ),
    )


def _extra_json(extra: JsonObject) -> str | None:
    """What the API told beyond the columns, without the credentials of any URL in it."""
    if not extra:
        return None
    return json.dumps(without_signed_urls(extra), sort_keys=True, default=str)
