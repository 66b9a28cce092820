"""Rows of the tables for tests, and every row that there can be."""

from dataclasses import fields
from datetime import UTC, datetime
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from include.domain.rows import CaptureRow, ContactTaskRow

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
_REQUIRED: dict[str, Any] = {
    "org_id": "0c8e1c1d-aaaa-4bbb-8ccc-000000000001",
    "task_id": "task-1",
    "kind": "recording",
    "capture_id": "capture-1",
    "participants": [],
    "outcome": "pending",
    "attempts": 0,
    "capture_state": "pending",
    "capture_count": 0,
    "created_time": NOON,
    "task_created_time": NOON,
    "first_seen_time": NOON,
    "checked_time": NOON,
}


def _row(row_type: Any, values: dict[str, Any]) -> Any:
    names = [field.name for field in fields(row_type)]
    return row_type(**{name: _REQUIRED.get(name) for name in names} | values)


def a_contact_task_row(**values: Any) -> ContactTaskRow:
    """A row in which all that may be null is null, but for what is given."""
    return _row(ContactTaskRow, values)


def a_capture_row(**values: Any) -> CaptureRow:
    """A row in which all that may be null is null, but for what is given."""
    return _row(CaptureRow, values)


# Everything that is Unicode: no lone surrogates, which include/webex replaces.
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
TIMES = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    max_value=datetime(2262, 1, 1),  # noqa: DTZ001 - the same
    timezones=st.just(UTC),
)
_VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    datetime: TIMES,
    list[str]: st.lists(TEXTS, max_size=3),
    NoneType: st.none(),
}


def _values(hint: Any) -> st.SearchStrategy[Any]:
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if hint in _VALUES:
        return _VALUES[hint]
    return st.one_of(*(_values(arm) for arm in get_args(hint)))


def rows_of(row_type: type[Any], **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any row of the type."""
    hints = {
        name: hint
        for name, hint in get_type_hints(row_type).items()
        if name in {field.name for field in fields(row_type)}
    }
    return st.builds(row_type, **{name: _values(hint) for name, hint in hints.items()} | fixed)
