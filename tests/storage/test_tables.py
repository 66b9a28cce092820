"""The Parquet files: the documented columns in any case, and each row once."""

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import reduce
from itertools import permutations
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.domain.errors import PermanentError, TransientError
from include.domain.object_keys import ObjectKey
from include.domain.rows import CaptureRow, ContactTaskRow
from include.storage.object_store import Condition, ConditionFailed, ObjectStore
from include.storage.tables import (
    MAX_PUBLISH_ATTEMPTS,
    ROW_TYPES,
    from_parquet,
    newer_capture,
    newer_contact_task,
    publish_rows,
    read_rows,
    schema_of,
    to_parquet,
)
from tests.storage.buckets import CONDITIONAL, UNCONDITIONAL
from tests.storage.rows import NOON, a_capture_row, a_contact_task_row, rows_of
from tests.storage.threads import run_at_once

KEY = ObjectKey("tables/contact_tasks/org_id=o/created_date=2026-03-01/12.parquet")
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
    assert {"contact_tasks": ContactTaskRow, "captures": CaptureRow} == ROW_TYPES


@pytest.mark.parametrize(("row_type", "documented", "row"), TABLES)
def test_a_file_has_the_same_types_when_empty_or_all_null(row_type, documented, row):
    """A reader takes the types from the first file that it meets: an empty hour must not spoil a year."""
    for rows in ([], [row], [row, replace(row, task_id="task-2", extra_json="{}")]):
        body = to_parquet(rows, row_type)
        assert list(columns_in_file(body).items()) == list(documented.items())
        assert pq.read_metadata(io.BytesIO(body)).num_rows == len(rows)


@pytest.mark.parametrize("row_type", [ContactTaskRow, CaptureRow])
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


WHOLE = to_parquet([a_contact_task_row(task_id=f"task-{n}") for n in range(5)], ContactTaskRow)


@pytest.mark.parametrize(
    "body",
    [b"", b"PAR1", b"<Error/>", WHOLE[:-1], WHOLE[: len(WHOLE) // 2], WHOLE[20:], WHOLE[::-1]],
    ids=["empty", "magic", "xml", "all-but-a-byte", "half", "no-beginning", "reversed"],
)
def test_a_damaged_file_is_named_with_its_remedy(body):
    with pytest.raises(PermanentError, match=r"damaged .*: restore or delete it") as caught:
        from_parquet(body, ContactTaskRow)
    assert caught.value.__suppress_context__


@given(position=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
@settings(max_examples=150)
def test_any_changed_byte_is_read_or_refused_but_never_another_error(position, value):
    body = WHOLE[:position] + bytes([value]) + WHOLE[position + 1 :]

    with suppress(PermanentError):
        from_parquet(body, ContactTaskRow)


# Merging


LATER = NOON + timedelta(hours=1)
LATEST = NOON + timedelta(hours=2)


def test_the_newest_check_of_a_contact_task_wins_and_the_first_sight_stays():
    first = a_contact_task_row(first_seen_time=NOON, checked_time=NOON, status="new")
    second = a_contact_task_row(first_seen_time=LATER, checked_time=LATER, status="ended")

    expected = replace(second, first_seen_time=NOON)
    assert newer_contact_task(first, second) == expected
    assert newer_contact_task(second, first) == expected


def test_a_copied_capture_stays_copied():
    copied = a_capture_row(outcome="copied", copied_time=NOON, attempts=1)
    for outcome in ("gone", "failed", "pending"):
        other = a_capture_row(outcome=outcome, attempts=4, first_seen_time=NOON - timedelta(1))
        expected = replace(copied, attempts=4, first_seen_time=other.first_seen_time)
        assert newer_capture(copied, other) == expected
        assert newer_capture(other, copied) == expected


def test_of_two_copies_the_newer_counts_whichever_comes_first():
    earlier = a_capture_row(outcome="copied", copied_time=NOON, size_bytes=1, attempts=2)
    later = a_capture_row(outcome="copied", copied_time=LATER, size_bytes=2, attempts=1)

    assert newer_capture(earlier, later) == replace(later, attempts=2)
    assert newer_capture(later, earlier) == replace(later, attempts=2)


def test_of_two_failures_the_one_that_comes_later_counts():
    failed = a_capture_row(outcome="failed", attempts=5, last_error="broken")
    gone = a_capture_row(outcome="gone", attempts=1)

    assert newer_capture(failed, gone) == replace(gone, attempts=5)
    assert newer_capture(gone, failed) == failed


_few_times = st.sampled_from([NOON, LATER, LATEST])
_contact_tasks = st.builds(
    a_contact_task_row,
    first_seen_time=_few_times,
    checked_time=_few_times,
    status=st.sampled_from(["new", "connected", "ended"]),
)
_copies = st.builds(
    a_capture_row,
    outcome=st.just("copied"),
    copied_time=_few_times,
    first_seen_time=_few_times,
    attempts=st.integers(0, 3),
)
_captures = _copies | st.builds(
    a_capture_row,
    outcome=st.sampled_from(["gone", "failed", "pending"]),
    first_seen_time=_few_times,
    attempts=st.integers(0, 3),
)


@given(there=_contact_tasks, new=_contact_tasks)
def test_merging_a_contact_task_twice_is_merging_it_once(there, new):
    once = newer_contact_task(there, new)

    assert newer_contact_task(once, new) == once
    assert newer_contact_task(there, there) == there


@given(there=_captures, new=_captures)
def test_merging_a_capture_twice_is_merging_it_once(there, new):
    once = newer_capture(there, new)

    assert newer_capture(once, new) == once
    assert newer_capture(there, there) == there


@given(st.lists(_contact_tasks, min_size=2, max_size=4, unique_by=lambda row: row.checked_time))
def test_checks_at_different_times_merge_alike_in_any_order(rows):
    assert len({reduce(newer_contact_task, order) for order in permutations(rows)}) == 1


@given(
    copies=st.lists(_copies, min_size=1, max_size=3, unique_by=lambda row: row.copied_time),
    others=st.lists(_captures.filter(lambda row: row.outcome != "copied"), max_size=2),
)
def test_a_capture_that_was_ever_copied_merges_alike_in_any_order(copies, others):
    """Two runs may publish in any order: what was copied is never forgotten."""
    merged = [reduce(newer_capture, order) for order in permutations([*copies, *others])]

    assert all(row == merged[0] for row in merged)
    assert merged[0].copied_time == max(row.copied_time for row in copies)


# Publishing


class ObservedStore(ObjectStore):
    """Counts the writes, and lets another writer act between a read and the write after it."""

    def __init__(self, store: ObjectStore, between: Callable[[], object] = lambda: None) -> None:
        super().__init__(store._client, store.bucket)
        self.between = between
        self.writes = 0

    def write(self, key: ObjectKey, body: bytes, condition: Condition | None = None) -> None:
        self.between()
        self.writes += 1
        super().write(key, body, condition)


def publish(store: ObjectStore, *rows: ContactTaskRow) -> list[ContactTaskRow]:
    return publish_rows(store, KEY, rows, ContactTaskRow, newer_contact_task)


def test_an_empty_partition_is_published_too(store):
    assert read_rows(store, KEY, ContactTaskRow) == []

    assert publish(store) == []

    assert columns_in_file(store.read(KEY)[0]) == CONTACT_TASKS
    assert read_rows(store, KEY, ContactTaskRow) == []


def test_rows_merge_into_what_is_there(store):
    kept = a_contact_task_row(task_id="kept")
    before = a_contact_task_row(task_id="checked-again", status="new")
    after = replace(before, status="ended", checked_time=LATER)
    stale = replace(kept, status="stale", checked_time=NOON - timedelta(1))
    publish(store, kept, before)

    holds = publish(store, after, stale, a_contact_task_row(task_id="new"))

    by_id = {row.task_id: row for row in read_rows(store, KEY, ContactTaskRow)}
    assert by_id == {row.task_id: row for row in holds}
    assert by_id == {
        "kept": kept,
        "checked-again": after,
        "new": a_contact_task_row(task_id="new"),
    }


def test_unchanged_content_is_not_written_again(bucket_on):
    """Versions of an object cost money, and change the cache of each reader."""
    store = ObservedStore(bucket_on("moto").store)
    rows = [a_contact_task_row(task_id=f"task-{n}") for n in range(3)]

    publish(store, *rows)
    first = store.head(KEY)
    assert publish(store, *reversed(rows)) == rows
    assert publish(store, rows[1]) == rows
    assert publish(store) == rows

    assert store.writes == 1
    assert store.head(KEY) == first


@pytest.mark.parametrize("server_name", CONDITIONAL)
def test_eight_writers_at_once_lose_nothing(bucket_on, server_name):
    store = bucket_on(server_name).store
    shared = a_contact_task_row(task_id="shared")

    def write(number: int) -> None:
        own = a_contact_task_row(task_id=f"task-{number}")
        checked = replace(shared, checked_time=NOON + timedelta(minutes=number), status=f"{number}")
        publish(store, own, checked)

    run_at_once([lambda number=number: write(number) for number in range(8)])

    found = {row.task_id: row for row in read_rows(store, KEY, ContactTaskRow)}
    assert set(found) == {"shared", *(f"task-{number}" for number in range(8))}
    assert found["shared"].status == "7"


@pytest.mark.parametrize("server_name", CONDITIONAL)
@pytest.mark.parametrize("is_there", [True, False], ids=["replaced", "created"])
def test_a_partition_changed_meanwhile_is_read_and_merged_again(bucket_on, server_name, is_there):
    plain = bucket_on(server_name).store
    if is_there:
        publish(plain, a_contact_task_row(task_id="there"))
    others = [a_contact_task_row(task_id="other")]
    store = ObservedStore(plain, lambda: publish(plain, others.pop()) if others else None)

    publish(store, a_contact_task_row(task_id="own"))

    expected = {"other", "own"} | ({"there"} if is_there else set())
    assert {row.task_id for row in read_rows(store, KEY, ContactTaskRow)} == expected
    assert store.writes == 2


@pytest.mark.parametrize("server_name", CONDITIONAL)
def test_a_partition_that_is_always_changed_ends_in_a_later_try(bucket_on, server_name):
    plain = bucket_on(server_name).store
    numbers = iter(range(100))
    store = ObservedStore(
        plain, lambda: publish(plain, a_contact_task_row(task_id=f"other-{next(numbers)}"))
    )

    with pytest.raises(TransientError, match="replaced by others"):
        publish(store, a_contact_task_row(task_id="own"))

    assert store.writes == MAX_PUBLISH_ATTEMPTS
    assert len(read_rows(plain, KEY, ContactTaskRow)) == MAX_PUBLISH_ATTEMPTS


@pytest.mark.parametrize("server_name", UNCONDITIONAL)
def test_without_conditional_writes_one_writer_at_a_time_is_needed(bucket_on, server_name):
    """The docstring of publish_rows warns of it: the row of the faster writer is lost here."""
    plain = bucket_on(server_name).store
    publish(plain, a_contact_task_row(task_id="there"))
    others = [a_contact_task_row(task_id="lost")]
    store = ObservedStore(plain, lambda: publish(plain, others.pop()) if others else None)

    publish(store, a_contact_task_row(task_id="own"))
    assert {row.task_id for row in read_rows(plain, KEY, ContactTaskRow)} == {"there", "own"}

    publish(plain, a_contact_task_row(task_id="lost"))
    assert {row.task_id for row in read_rows(plain, KEY, ContactTaskRow)} == {
        *("there", "own", "lost"),
    }


def test_a_damaged_partition_is_not_replaced(bucket_on):
    """What cannot be read may still be restored by a person."""
    store = bucket_on("moto").store
    store.write(KEY, b"damaged")

    with pytest.raises(PermanentError, match="damaged"):
        publish(store, a_contact_task_row())

    assert store.read(KEY)[0] == b"damaged"


def test_a_condition_that_failed_is_no_error_for_the_caller(bucket_on):
    """ConditionFailed is a matter between the store and publish_rows."""
    assert not issubclass(ConditionFailed, (PermanentError, TransientError))
