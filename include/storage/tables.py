"""The Parquet tables: one object for each table and hour, replaced whole, merged by identity."""

import io
import types
from collections.abc import Callable, Collection, Iterable
from dataclasses import Field, fields, replace
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar, cast, get_args, get_type_hints

import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] - ships none
import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs] - ships none

from include.domain.errors import PermanentError, TransientError
from include.domain.object_keys import ObjectKey, TableName
from include.domain.rows import CaptureRow, ContactTaskRow
from include.storage.object_store import Condition, ConditionFailed, ObjectStore

# pyarrow ships no types; everything that touches it is in this module.
_pa = cast("Any", pa)
_pq = cast("Any", pq)

MAX_PUBLISH_ATTEMPTS = 12
_COLUMN_TYPES: dict[Any, Any] = {
    str: _pa.string(),
    bool: _pa.bool_(),
    int: _pa.int64(),
    datetime: _pa.timestamp("us", tz="UTC"),
    list[str]: _pa.list_(_pa.string()),
}


class Row(Protocol):
    """A frozen dataclass whose fields are the columns."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes two rows the same thing."""
        ...


AnyRow = TypeVar("AnyRow", bound=Row)
ROW_TYPES: dict[TableName, type[ContactTaskRow] | type[CaptureRow]] = {
    "contact_tasks": ContactTaskRow,
    "captures": CaptureRow,
}


def schema_of(row_type: type[Row]) -> Any:  # noqa: ANN401 - a pyarrow.Schema, which has no types
    """The Arrow schema of a row type: its fields in order, every column nullable.

    ``org_id`` is dictionary-encoded in Arrow (plain text in Parquet): it is also a hive partition of the
    key, and pyarrow and pandas read a text partition as a dictionary and refuse to merge two types.
    """
    hints = get_type_hints(row_type)
    columns: list[Any] = []
    for field in fields(cast("Any", row_type)):
        hint = hints[field.name]
        if isinstance(hint, types.UnionType):
            hint = next(arm for arm in get_args(hint) if arm is not type(None))
        column = _COLUMN_TYPES.get(hint, _COLUMN_TYPES[str])  # what remains is a Literal of texts
        if field.name == "org_id":
            column = _pa.dictionary(_pa.int32(), _pa.string())
        columns.append(_pa.field(field.name, column))
    return _pa.schema(columns)


def to_parquet(rows: Iterable[AnyRow], row_type: type[AnyRow]) -> bytes:
    """One Parquet file of the rows, in the order of their identity; no rows make an empty file."""
    names = [field.name for field in fields(cast("Any", row_type))]
    ordered = sorted(rows, key=lambda row: row.identity)
    columns = {name: [getattr(row, name) for row in ordered] for name in names}
    table = _pa.Table.from_pydict(columns, schema=schema_of(row_type))
    buffer = io.BytesIO()
    _pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def from_parquet(body: bytes, row_type: type[AnyRow]) -> list[AnyRow]:
    """The rows of a file that `to_parquet` wrote, by this or an earlier version of the columns.

    Raises:
        PermanentError: The bytes are no such file.
    """
    try:
        table = _pq.read_table(io.BytesIO(body))
        present = set(table.column_names)
        names = [field.name for field in fields(cast("Any", row_type))]
        records: list[dict[str, Any]] = table.select([n for n in names if n in present]).to_pylist()
        missing: dict[str, Any] = {name: None for name in names if name not in present}
        return [row_type(**missing, **record) for record in records]
    except (_pa.ArrowException, OSError, TypeError, ValueError, ArithmeticError) as error:
        raise PermanentError(
            f"A table partition or working file is damaged ({type(error).__name__}): restore or delete it and run "
            "its hour again."
        ) from None


def read_rows(store: ObjectStore, key: ObjectKey, row_type: type[AnyRow]) -> list[AnyRow]:
    """The rows under a key; none when there is no object."""
    found = store.read(key)
    return from_parquet(found[0], row_type) if found else []


def publish_rows(
    store: ObjectStore,
    key: ObjectKey,
    rows: Collection[AnyRow],
    row_type: type[AnyRow],
    newer: Callable[[AnyRow, AnyRow], AnyRow],
) -> list[AnyRow]:
    """Merge rows into one partition and replace it whole; the rows that it holds afterwards.

    Two writers at once give the same as one after the other: the object is replaced only while it is
    still the one that was read, else it is read and merged again, a bounded number of times. On a store
    without conditional writes this holds for one writer at a time only (see `ObjectStore`).

    Args:
        store: The bucket.
        key: The partition.
        rows: New rows, each identity once.
        row_type: Their type.
        newer: Of a row that is there and a new one of the same identity, the one to keep.
    """
    for _ in range(MAX_PUBLISH_ATTEMPTS):
        found = store.read(key)
        merged = {row.identity: row for row in (from_parquet(found[0], row_type) if found else [])}
        for row in rows:
            there = merged.get(row.identity)
            merged[row.identity] = newer(there, row) if there else row
        body = to_parquet(merged.values(), row_type)
        if found and found[0] == body:
            return list(merged.values())
        try:
            store.write(key, body, Condition(etag=found[1] if found else None))
        except ConditionFailed:
            continue
        return list(merged.values())
    raise TransientError(
        f"{key} is being replaced by others all the time; it is tried again later."
    )


def newer_contact_task(there: ContactTaskRow, new: ContactTaskRow) -> ContactTaskRow:
    """The newest check wins; the contact task was first seen when any of both saw it first."""
    latest = new if new.checked_time >= there.checked_time else there
    return replace(latest, first_seen_time=min(there.first_seen_time, new.first_seen_time))


def newer_capture(there: CaptureRow, new: CaptureRow) -> CaptureRow:
    """A copied capture stays copied; of two copies or two failures the newer counts."""
    latest = new
    if there.outcome == "copied" and (
        new.outcome != "copied"
        or (there.copied_time and new.copied_time and there.copied_time > new.copied_time)
    ):
        latest = there
    return replace(
        latest,
        first_seen_time=min(there.first_seen_time, new.first_seen_time),
        attempts=max(there.attempts, new.attempts),
    )
