"""The Parquet files: the documented columns in any case, and each row once."""

import io
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.domain.errors import PermanentError, TransientError
from include.domain.object_keys import ObjectKey
from include.domain.rows import CaptureRow, CompletenessRow, ContactTaskRow
from include.storage.object_store import ConditionFailed, ObjectStore
from include.storage.tables import (
    ROW_TYPES,
    Replacement,
    from_parquet,
    merge_rows,
    read_rows,
    schema_of,
    to_parquet,
)
from tests.storage.buckets import CONDITIONAL
from tests.storage.rows import NOON, a_capture_row, a_contact_task_row, rows_of

KEY = ObjectKey("tables/contact_tasks/org_id=o/created_date=2026-03-01/12.parquet")
ROOT = Path(__file__).parents[2]
TEXT = "string"
TIME = "timestamp[us, tz=UTC]"
ORG = "dictionary<values=string, indices=int32, ordered=0>"
# docs/data-dictionary.md, and section 3.2 of the design: names, order and types are public.
CONTACT_TASKS = {
    "org_id": ORG, "task_id": TEXT, "channel_type": TEXT, "status": TEXT, "created_time": TIME,
    "last_updated_time": TIME, "capture_requested": "bool", "direction": TEXT, "origin": TEXT,
    "destination": TEXT, "reason_code": TEXT, "owner_id": TEXT, "owner_name": TEXT,
    "queue_id": TEXT, "queue_name": TEXT, "capture_state": TEXT, "capture_count": "int64",
    "first_seen_time": TIME, "checked_time": TIME, "next_check_time": TIME, "extra_json": TEXT,
}  # fmt: skip
CAPTURES = {
    "org_id": ORG, "task_id": TEXT, "kind": TEXT, "capture_id": TEXT, "segment": "bool",
    "call_type": TEXT, "channel1": TEXT, "channel2": TEXT, "participants": "list<element: string>",
    "sensitive": "bool", "source": TEXT, "provider": TEXT, "language_code": TEXT,
    "file_name": TEXT, "start_time": TIME, "stop_time": TIME, "task_created_time": TIME,
    "outcome": TEXT, "object_key": TEXT, "size_bytes": "int64", "sha256": TEXT, "format": TEXT,
    "attempts": "int64", "last_error": TEXT, "first_seen_time": TIME, "copied_time": TIME,
    "extra_json": TEXT,
}  # fmt: skip
COMPLETENESS = {
    "org_id": ORG, "created_hour": TIME, "channel_type": TEXT, "contact_tasks": "int64",
    "expected": "int64", "archived": "int64", "pending": "int64", "overdue": "int64",
    "gone": "int64", "failed": "int64", "missing": "int64", "captures": "int64",
    "size_bytes": "int64", "verified_time": TIME,
}  # fmt: skip
TABLES: list[Any] = [
    pytest.param(ContactTaskRow, CONTACT_TASKS, a_contact_task_row(), id="contact_tasks"),
    pytest.param(CaptureRow, CAPTURES, a_capture_row(), id="captures"),
]


def columns(schema: Any) -> dict[str, str]:
    return {field.name: str(field.type).replace("list<item:", "list<element:") for field in schema}


def columns_in_file(body: bytes) -> dict[str, str]:
    return columns(pq.read_schema(io.BytesIO(body)))


# Columns


@pytest.mark.parametrize(("row_type", "documented", "row"), TABLES)
def test_the_columns_are_the_documented_ones_in_their_order(row_type, documented, row):
    schema = schema_of(row_type)

    assert list(columns(schema).items()) == list(documented.items())
    assert all(field.nullable for field in schema)


def test_each_table_has_its_row_type():
    assert {
        "contact_tasks": ContactTaskRow,
        "captures": CaptureRow,
        "completeness": CompletenessRow,
    } == ROW_TYPES


def test_the_columns_of_completeness_are_the_documented_ones_also_when_empty():
    body = to_parquet([], CompletenessRow)

    assert list(columns_in_file(body).items()) == list(COMPLETENESS.items())


@pytest.mark.parametrize(("row_type", "documented", "row"), TABLES)
def test_a_file_has_the_same_types_when_empty_or_all_null(row_type, documented, row):
    """A reader takes the types from the first file that it meets: an empty hour must not spoil a year."""
    for rows in ([], [row], [row, replace(row, task_id="task-2", extra_json="{}")]):
        body = to_parquet(rows, row_type)
        assert list(columns_in_file(body).items()) == list(documented.items())
        assert pq.read_metadata(io.BytesIO(body)).num_rows == len(rows)


@pytest.mark.parametrize("row_type", [ContactTaskRow, CaptureRow, CompletenessRow])
@given(data=st.data())
@settings(max_examples=40)
def test_any_rows_come_back_as_they_were(row_type, data):
    rows = data.draw(st.lists(rows_of(row_type), max_size=5, unique_by=lambda row: row.identity))

    body = to_parquet(rows, row_type)

    assert from_parquet(body, row_type) == sorted(rows, key=lambda row: row.identity)
    assert to_parquet(reversed(rows), row_type) == body


def test_times_come_back_aware_and_to_the_microsecond():
    row = a_contact_task_row(created_time=NOON + timedelta(microseconds=123_457))

    [found] = from_parquet(to_parquet([row], ContactTaskRow), ContactTaskRow)

    assert found.created_time == row.created_time
    assert found.created_time.utcoffset() == timedelta(0)


# Files of other versions, and damaged ones


def test_an_older_file_with_fewer_columns_is_read():
    row = a_capture_row(capture_id="old", participants=["a"], attempts=3)
    table = pq.read_table(io.BytesIO(to_parquet([row], CaptureRow)))
    body = io.BytesIO()
    pq.write_table(table.drop_columns(["extra_json", "sensitive"]), body)

    assert from_parquet(body.getvalue(), CaptureRow) == [row]


def test_a_newer_file_with_more_columns_in_another_order_is_read():
    row = a_contact_task_row(status="ended")
    table = pq.read_table(io.BytesIO(to_parquet([row], ContactTaskRow)))
    table = table.append_column("of_tomorrow", pa.array([1]))
    body = io.BytesIO()
    pq.write_table(table.select(list(reversed(table.column_names))), body)

    assert from_parquet(body.getvalue(), ContactTaskRow) == [row]


ROWS_OF_WHOLE = [a_contact_task_row(task_id=f"task-{n}") for n in range(5)]
WHOLE = to_parquet(ROWS_OF_WHOLE, ContactTaskRow)
# What follows the pages: the footer, its length in four bytes, and "PAR1".
PAGES_END = len(WHOLE) - 8 - int.from_bytes(WHOLE[-8:-4], "little")


def in_another_zone(zone: str) -> bytes:
    table = pq.read_table(io.BytesIO(WHOLE))
    index = table.column_names.index("created_time")
    times = table.column(index).cast(pa.timestamp("us", tz=zone))
    body = io.BytesIO()
    pq.write_table(table.set_column(index, "created_time", times), body)
    return body.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"PAR1",
        b"<Error/>",
        WHOLE[:-1],
        WHOLE[: len(WHOLE) // 2],
        WHOLE[20:],
        WHOLE[::-1],
        in_another_zone("UTX"),
    ],
    ids=["empty", "magic", "xml", "all-but-a-byte", "half", "no-beginning", "reversed", "zone"],
)
def test_a_damaged_file_is_named_with_its_remedy(body):
    with pytest.raises(PermanentError, match=r"damaged .*: restore or delete it") as caught:
        from_parquet(body, ContactTaskRow)
    assert caught.value.__suppress_context__


def with_byte(position: int, value: int) -> bytes:
    return WHOLE[:position] + bytes([value]) + WHOLE[position + 1 :]


@given(position=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
@settings(max_examples=300)
def test_any_changed_byte_is_read_or_refused_but_never_another_error(position, value):
    with suppress(PermanentError):
        from_parquet(with_byte(position, value), ContactTaskRow)


@given(position=st.integers(0, PAGES_END - 1), value=st.integers(0, 255))
@settings(max_examples=300)
def test_no_changed_byte_of_a_page_changes_a_value(position, value):
    with suppress(PermanentError):
        assert from_parquet(with_byte(position, value), ContactTaskRow) == ROWS_OF_WHOLE


# Merging into what is there

LATER = NOON + timedelta(hours=1)


def newer(there: ContactTaskRow, new: ContactTaskRow) -> ContactTaskRow:
    return new if new.checked_time >= there.checked_time else there


def merge(store: ObjectStore, *rows: ContactTaskRow) -> Replacement[ContactTaskRow]:
    return merge_rows(store, KEY, rows, ContactTaskRow, newer=newer)


def test_an_empty_partition_is_a_change_where_there_is_none(store):
    """An hour without contact tasks has an object; one without an object was never archived."""
    replacement = merge(store)
    assert (replacement.is_change, replacement.replaced_body) == (True, None)
    assert store.read(KEY) is None, "to merge writes nothing"

    replacement.write(store)

    assert columns_in_file(store.read(KEY)[0]) == CONTACT_TASKS
    assert read_rows(store, KEY, ContactTaskRow) == []
    assert not merge(store).is_change


def test_rows_merge_into_what_is_there(store):
    kept = a_contact_task_row(task_id="kept")
    before = a_contact_task_row(task_id="checked-again", status="new")
    after = replace(before, status="ended", checked_time=LATER)
    stale = replace(kept, status="stale", checked_time=NOON - timedelta(1))
    merge(store, kept, before).write(store)

    replacement = merge(store, after, stale, a_contact_task_row(task_id="new"))
    replacement.write(store)

    by_id = {row.task_id: row for row in read_rows(store, KEY, ContactTaskRow)}
    assert by_id == {row.task_id: row for row in replacement.rows}
    assert by_id == {
        "kept": kept,
        "checked-again": after,
        "new": a_contact_task_row(task_id="new"),
    }
    assert {row.task_id for row in replacement.replaced_rows} == {"kept", "checked-again"}
    assert replacement.body == store.read(KEY)[0]


def test_every_row_of_the_result_is_settled_those_that_were_there_too(bucket_on):
    store = bucket_on("moto").store
    merge(store, a_contact_task_row(task_id="there", status="new")).write(store)

    replacement = merge_rows(
        store,
        KEY,
        [a_contact_task_row(task_id="new")],
        ContactTaskRow,
        newer=newer,
        then=lambda row: replace(row, status="settled"),
    )

    assert {row.status for row in replacement.rows} == {"settled"}


def test_unchanged_content_is_not_written_again(bucket_on):
    """Versions of an object cost money, and change the cache of each reader."""
    store = bucket_on("moto").store
    rows = [a_contact_task_row(task_id=f"task-{n}") for n in range(3)]
    merge(store, *rows).write(store)
    first = store.head(KEY)

    for again in (reversed(rows), rows[1:2], []):
        replacement = merge(store, *again)
        assert not replacement.is_change
        store.write(KEY, store.read(KEY)[0])  # another writer; nothing is written, so nothing fails
        replacement.write(store)

    assert store.head(KEY).etag == first.etag


@pytest.mark.parametrize("server_name", CONDITIONAL)
@pytest.mark.parametrize("is_there", [True, False], ids=["replaced", "created"])
def test_a_partition_changed_meanwhile_is_not_replaced(bucket_on, server_name, is_there):
    store = bucket_on(server_name).store
    if is_there:
        merge(store, a_contact_task_row(task_id="there")).write(store)
    slower = merge(store, a_contact_task_row(task_id="slower"))
    merge(store, a_contact_task_row(task_id="faster")).write(store)

    with pytest.raises(ConditionFailed):
        slower.write(store)

    expected = {"faster"} | ({"there"} if is_there else set())
    assert {row.task_id for row in read_rows(store, KEY, ContactTaskRow)} == expected


def test_a_damaged_partition_is_not_replaced(bucket_on):
    """What cannot be read may still be restored by a person."""
    store = bucket_on("moto").store
    store.write(KEY, b"damaged")

    with pytest.raises(PermanentError, match="damaged"):
        merge(store, a_contact_task_row())

    assert store.read(KEY)[0] == b"damaged"


def test_a_condition_that_failed_is_no_error_for_the_caller():
    """ConditionFailed is a matter between the store and whoever merges again."""
    assert not issubclass(ConditionFailed, (PermanentError, TransientError))


_WITHOUT_PANDAS = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"pandas", "numpy"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
from include.storage.tables import from_parquet, to_parquet
from tests.storage.rows import a_capture_row
rows = [a_capture_row()]
assert from_parquet(to_parquet(rows, type(rows[0])), type(rows[0])) == rows
import include.pipelines.archive_captures
loaded = {"pandas", "numpy", "pyarrow.dataset"} & sys.modules.keys()
assert not loaded, loaded
"""


def test_a_process_needs_neither_pandas_nor_numpy():
    """Each of twenty Airflow workers would pay for them: a second, and memory."""
    subprocess.run([sys.executable, "-c", _WITHOUT_PANDAS], check=True, timeout=60, cwd=ROOT)
