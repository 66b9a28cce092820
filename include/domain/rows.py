"""The rows of the tables. Field order and types are the columns; docs/data-dictionary.md explains each.

A row is a value: what the API told, what was done about it, and when. Times are aware and in UTC.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from include.domain.object_keys import Kind

CaptureState = Literal["pending", "archived", "none", "overdue", "gone", "failed"]
Outcome = Literal["copied", "gone", "failed", "pending"]


@dataclass(frozen=True, kw_only=True)
class ContactTaskRow:
    """One contact task as last seen, and what became of its captures. Identity: org and task id."""

    org_id: str
    task_id: str
    channel_type: str | None
    status: str | None
    created_time: datetime
    last_updated_time: datetime | None
    capture_requested: bool | None
    direction: str | None
    origin: str | None
    destination: str | None
    reason_code: str | None
    owner_id: str | None
    owner_name: str | None
    queue_id: str | None
    queue_name: str | None
    capture_state: CaptureState
    capture_count: int
    first_seen_time: datetime
    checked_time: datetime
    next_check_time: datetime | None
    extra_json: str | None

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes two rows the same contact task."""
        return (self.org_id, self.task_id)


@dataclass(frozen=True, kw_only=True)
class CaptureRow:
    """One recording, transcript or screen recording. Identity: org, task, kind and capture id."""

    org_id: str
    task_id: str
    kind: Kind
    capture_id: str
    segment: bool | None
    call_type: str | None
    channel1: str | None
    channel2: str | None
    participants: list[str]
    sensitive: bool | None
    source: str | None
    provider: str | None
    language_code: str | None
    file_name: str | None
    start_time: datetime | None
    stop_time: datetime | None
    task_created_time: datetime
    outcome: Outcome
    object_key: str | None
    size_bytes: int | None
    sha256: str | None
    format: str | None
    attempts: int
    last_error: str | None
    first_seen_time: datetime
    copied_time: datetime | None
    extra_json: str | None

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes two rows the same capture."""
        return (self.org_id, self.task_id, self.kind, self.capture_id)


@dataclass(frozen=True, kw_only=True)
class CompletenessRow:
    """What `verify_archive` found of one hour and channel. Identity: org, hour and channel.

    ``expected`` is the sum of ``archived``, ``pending``, ``overdue``, ``gone``, ``failed`` and ``missing``.
    """

    org_id: str
    created_hour: datetime
    channel_type: str | None
    contact_tasks: int
    expected: int
    archived: int
    pending: int
    overdue: int
    gone: int
    failed: int
    missing: int
    captures: int
    size_bytes: int
    verified_time: datetime

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes two rows the same hour and channel."""
        return (self.org_id, self.created_hour.isoformat(), self.channel_type or "")


Row = TypeVar("Row", ContactTaskRow, CaptureRow)


def with_columns(row: Row, **columns: Any) -> Row:  # noqa: ANN401 - each of its column's type
    """A row like this one but for some columns.

    `dataclasses.replace` sets every column anew, one by one: 10 µs, of which a copy of a small recording would
    pay four.

    Raises:
        TypeError: A name is that of no column.
    """
    changed = object.__new__(type(row))
    changed.__dict__.update(row.__dict__, **columns)
    if len(changed.__dict__) > len(row.__dict__):
        raise TypeError(f"{sorted(columns)} are not all columns of {type(row).__name__}")
    return changed
