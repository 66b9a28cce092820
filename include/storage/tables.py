"""The Parquet tables: one object for each table and hour, replaced whole, merged by identity."""

import io
import types
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast, get_args, get_type_hints

import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] - ships none
import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs] - ships none

from include.domain.errors import PermanentError
from include.domain.object_keys import ObjectKey, TableName
from include.domain.rows import CaptureRow, CompletenessRow, ContactTaskRow
from include.storage.object_store import Condition, ObjectStore

# pyarrow ships no types; everything that touches it is in this module.
_pa = cast("Any", pa)
_pq = cast("Any", pq)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
ROW_TYPES: dict[TableName, type[ContactTaskRow] | type[CaptureRow] | type[CompletenessRow]] = {
    "contact_tasks": ContactTaskRow,
    "captures": CaptureRow,
    "completeness": CompletenessRow,
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
    """One Parquet file of the rows, in the order of their identity; no rows make an empty file.

    Its pages carry checksums, so that a changed byte among the values is refused by `from_parquet`, and by
    every reader that checks them.
    """
    names = [field.name for field in fields(cast("Any", row_type))]
    ordered = sorted(rows, key=lambda row: row.identity)
    columns = {name: [getattr(row, name) for row in ordered] for name in names}
    table = _pa.Table.from_pydict(columns, schema=schema_of(row_type))
    buffer = io.BytesIO()
    _pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def from_parquet(body: bytes, row_type: type[AnyRow]) -> list[AnyRow]:
    """The rows of a file that `to_parquet` wrote, by this or an earlier version of the columns.

    Raises:
        PermanentError: The bytes are no such file.
    """
    try:
        # Not read_table: that loads pyarrow's datasets and file systems, a third of a second of each Airflow task.
        table = _pq.ParquetFile(io.BytesIO(body), page_checksum_verification=True).read()
        present = set(table.column_names)
        names = [field.name for field in fields(cast("Any", row_type))]
        missing: dict[str, Any] = {name: None for name in names if name not in present}
        found = [name for name in names if name in present]
        rows = zip(*(_values(table.column(name)) for name in found), strict=True)
        return [row_type(**missing, **dict(zip(found, row, strict=True))) for row in rows]
    except (
        _pa.ArrowException,
        OSError,
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
    ) as error:
        raise PermanentError(
            f"A table partition or working file is damaged ({type(error).__name__}): restore or delete it and run "
            "its hour again."
        ) from None


def _values(column: Any) -> list[Any]:  # noqa: ANN401 - a pyarrow.ChunkedArray, which has no types
    """The values of a column, without pyarrow's `compute`, whose import takes as long as 500 rows.

    pyarrow itself looks up the time zone of every single time.
    """
    return [value for chunk in column.chunks for value in _values_of_chunk(chunk)]


def _values_of_chunk(chunk: Any) -> list[Any]:  # noqa: ANN401 - a pyarrow.Array
    if chunk.type == _COLUMN_TYPES[datetime]:
        microseconds: list[int | None] = chunk.view(_pa.int64()).to_pylist()
        return [
            None if count is None else _EPOCH + timedelta(microseconds=count)
            for count in microseconds
        ]
    if _pa.types.is_dictionary(chunk.type):
        texts = chunk.dictionary.to_pylist()
        return [None if index is None else texts[index] for index in chunk.indices.to_pylist()]
    return chunk.to_pylist()


def read_rows(store: ObjectStore, key: ObjectKey, row_type: type[AnyRow]) -> list[AnyRow]:
    """The rows under a key; none when there is no object."""
    found = store.read(key)
    return from_parquet(found[0], row_type) if found else []


@dataclass(frozen=True)
class Replacement(Generic[AnyRow]):
    """What a partition is to become: the merged rows, and the object that they were merged with."""

    key: ObjectKey
    rows: list[AnyRow]
    replaced_rows: list[AnyRow]
    body: bytes
    replaced_body: bytes | None
    replaced_etag: str | None

    @property
    def is_change(self) -> bool:
        """Whether there is anything to write."""
        return self.body != self.replaced_body

    def write(self, store: ObjectStore) -> None:
        """Replace the partition whole, while it is still the one that was merged.

        Raises:
            ConditionFailed: Another writer was faster; merge again. On a store without conditional writes
                nothing shows it (see `ObjectStore`).
        """
        if self.is_change:
            store.write(self.key, self.body, Condition(self.replaced_etag))


def merge_rows(
    store: ObjectStore,
    key: ObjectKey,
    rows: Iterable[AnyRow],
    row_type: type[AnyRow],
    *,
    newer: Callable[[AnyRow, AnyRow], AnyRow],
    then: Callable[[AnyRow], AnyRow] = lambda row: row,
) -> Replacement[AnyRow]:
    """What the partition becomes with these rows; writes nothing.

    Args:
        store: The bucket.
        key: The partition.
        rows: New rows, each identity once.
        row_type: Their type.
        newer: Of a row that is there and a new one of the same identity, the row to keep.
        then: What is done to every row of the result, those that were there included.

    Raises:
        PermanentError: What is there is no table partition.
    """
    found = store.read(key)
    body, etag = found or (None, None)
    replaced_rows = from_parquet(body, row_type) if body is not None else []
    merged = {row.identity: row for row in replaced_rows}
    for row in rows:
        there = merged.get(row.identity)
        merged[row.identity] = newer(there, row) if there else row
    result = [then(row) for row in merged.values()]
    return Replacement(key, result, replaced_rows, to_parquet(result, row_type), body, etag)
