"""Two runs may write in any order: the row is the same, and nothing that was known is forgotten."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import reduce
from itertools import permutations
from typing import Any, TypeVar, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.capture_state import CapturePolicy
from include.domain.merged_rows import (
    StoredVersion,
    earlier_versions,
    media_etag,
    newer_capture,
    newer_contact_task,
    settled,
    with_notes,
)
from include.domain.rows import CaptureRow, CaptureState, ContactTaskRow, Outcome
from tests.storage.rows import NOON, a_capture_row, a_contact_task_row

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LATER = NOON + HOUR
POLICY = CapturePolicy()
AnyRow = TypeVar("AnyRow")


def merged_in_every_way(rows: list[AnyRow], newer: Callable[[AnyRow, AnyRow], AnyRow]) -> AnyRow:
    """The one result of all orders, of one after the other and of halves merged first."""
    results: list[AnyRow] = []
    for order in permutations(rows):
        results.append(reduce(newer, order))
        middle = len(order) // 2
        if middle:
            halves = reduce(newer, order[:middle]), reduce(newer, order[middle:])
            results.append(newer(*halves))
        results.append(reduce(lambda right, left: newer(left, right), reversed(order)))
    assert all(result == results[0] for result in results)
    return results[0]


# Contact tasks

TIMES = st.sampled_from([NOON + hours * HOUR for hours in range(4)])
STATES: tuple[CaptureState, ...] = get_args(CaptureState)


@st.composite
def contact_tasks(draw: st.DrawFn) -> ContactTaskRow:
    """What runs may know of one contact task.

    The rows are the same where the API's ``lastUpdatedTime`` and status are, and where the time of the check
    is: of two that differ in spite of it (a tie), the one that is merged last counts.
    """
    updated = draw(st.none() | TIMES)
    is_closed = draw(st.booleans())
    checked_time = draw(TIMES)
    number = checked_time.hour
    return a_contact_task_row(
        last_updated_time=updated,
        status="completed" if is_closed else "assigned",
        owner_name=f"at {updated}, {is_closed}",
        capture_requested=draw(st.sampled_from([True, False, None])),
        checked_time=checked_time,
        capture_state=STATES[number % len(STATES)],
        capture_count=number,
        next_check_time=None if number % 2 else checked_time + HOUR,
        first_seen_time=draw(TIMES),
    )


@given(st.lists(contact_tasks(), min_size=1, max_size=4))
def test_contact_tasks_merge_alike_in_any_order_and_grouping(rows: list[ContactTaskRow]):
    found = merged_in_every_way(rows, newer_contact_task)

    told = {row.capture_requested for row in rows}
    assert found.capture_requested is (True if True in told else False if False in told else None)
    assert found.first_seen_time == min(row.first_seen_time for row in rows)
    assert found.checked_time == max(row.checked_time for row in rows)
    for row in rows:
        assert newer_contact_task(found, row) == found


def test_what_was_told_last_and_what_was_checked_last_are_two_things():
    """A recheck asks for captures only, so what it says of the contact task itself may be old."""
    listed = a_contact_task_row(
        last_updated_time=LATER, status="completed", owner_name="new", checked_time=NOON
    )
    checked = a_contact_task_row(
        last_updated_time=NOON, status="assigned", checked_time=LATER, capture_count=2,
        capture_state="failed", next_check_time=LATER + HOUR,
    )  # fmt: skip

    found = merged_in_every_way([listed, checked], newer_contact_task)

    assert (found.status, found.owner_name) == ("completed", "new")
    assert (found.checked_time, found.capture_count, found.capture_state) == (LATER, 2, "failed")
    assert found.next_check_time == LATER + HOUR


def test_a_closed_contact_task_is_not_opened_by_a_row_of_the_same_update():
    closed = a_contact_task_row(status="Completed", checked_time=NOON)
    open_ = a_contact_task_row(status="assigned", checked_time=LATER)

    assert merged_in_every_way([closed, open_], newer_contact_task).status == "Completed"


def test_of_two_rows_of_one_moment_the_one_that_is_merged_last_counts():
    first, other = (a_contact_task_row(capture_count=count) for count in (1, 2))

    assert newer_contact_task(first, other).capture_count == 2
    assert newer_contact_task(other, first).capture_count == 1


# State


@st.composite
def captures(draw: st.DrawFn) -> CaptureRow:
    outcome: Outcome = draw(st.sampled_from(get_args(Outcome)))
    is_copied = outcome == "copied"
    copied_time = draw(st.sampled_from([NOON, NOON + 3 * DAY, NOON + 20 * DAY]))
    row = a_capture_row(
        capture_id=draw(st.sampled_from(["a", "b", "c"])),
        outcome=outcome,
        last_error=draw(st.sampled_from([None, "broken"])),
        first_seen_time=draw(st.sampled_from([NOON, NOON + 2 * DAY])),
        object_key="key" if is_copied else None,
        sha256="0a" if is_copied else None,
        copied_time=copied_time if is_copied else None,
    )
    if is_copied and draw(st.booleans()):
        return with_notes(row, earlier_versions=[StoredVersion("before", 1, "0b")])
    return row


@given(
    row=st.builds(
        a_contact_task_row,
        task_id=st.sampled_from(["task-1", "unidentified-0a"]),
        status=st.sampled_from(["completed", "assigned", None]),
        capture_requested=st.sampled_from([True, False, None]),
        capture_state=st.sampled_from(STATES),
        last_updated_time=st.sampled_from([None, NOON, NOON + DAY]),
        checked_time=st.integers(0, 24 * 20).map(lambda hours: NOON + hours * HOUR),
    ),
    known=st.lists(captures(), max_size=3, unique_by=lambda capture: capture.capture_id),
    policy=st.sampled_from([POLICY, CapturePolicy(retention=10 * DAY)]),
)
def test_to_settle_twice_is_to_settle_once(
    row: ContactTaskRow, known: list[CaptureRow], policy: CapturePolicy
):
    """Each publication settles every row of its partitions: one of last year must stay as it is."""
    once = settled(row, known, policy)

    assert settled(once, known, policy) == once
    is_identified = row.task_id == "task-1"
    assert once.capture_count == (len(known) if is_identified else 0)
    age = row.checked_time - row.created_time
    if is_identified and row.capture_requested is None and not known and age < 10 * DAY:
        assert once.capture_state in {"pending", "failed"}, "null is read as false"


def settled_state(
    *known: CaptureRow, checked_time: Any = NOON + 3 * DAY, **changes: Any
) -> CaptureState:
    fields: dict[str, Any] = {"status": "completed", "capture_requested": True}
    row = a_contact_task_row(**fields | changes, checked_time=checked_time)
    return settled(row, known, POLICY).capture_state


def a_copy(**changes: Any) -> CaptureRow:
    fields: dict[str, Any] = {
        "outcome": "copied", "copied_time": NOON, "object_key": "key", "sha256": "0a",
        "size_bytes": 1, "attempts": 1,
    }  # fmt: skip
    return a_capture_row(**fields | changes)


def test_what_was_there_from_the_beginning_settles_two_days_after_the_last_update():
    assert settled_state(a_copy()) == "archived"
    assert settled_state(a_copy(), last_updated_time=NOON + 2 * DAY) == "pending"


def test_a_late_capture_and_a_late_version_begin_the_settling_again():
    late = a_copy(first_seen_time=NOON + 2 * DAY)
    version = with_notes(
        a_copy(copied_time=NOON + 2 * DAY), earlier_versions=[StoredVersion("before", 1, "0b")]
    )

    for capture in (late, version):
        assert settled_state(capture) == "pending"
        assert settled_state(capture, checked_time=NOON + 4 * DAY) == "archived"
    assert settled_state(a_copy(copied_time=NOON + 2 * DAY)) == "archived", (
        "it was only copied late"
    )


def test_a_copy_of_which_a_newer_version_is_missing_is_not_final():
    assert settled_state(a_copy(last_error="The media host answered 503.")) == "pending"


def test_a_failed_contact_task_without_a_failed_capture_was_refused():
    assert settled_state(a_copy(), capture_state="failed") == "failed"
    assert settled_state(a_copy(outcome="failed"), capture_state="pending") == "failed"


# Captures


@st.composite
def capture_rows(draw: st.DrawFn) -> CaptureRow:
    """What runs may know of one capture; the rows are the same where the time of the copy or the attempts are."""
    first_seen_time = draw(TIMES)
    if draw(st.booleans()):
        copied_time = draw(TIMES)
        number = copied_time.hour
        row = a_copy(
            copied_time=copied_time, object_key=f"key-{number}", sha256=f"{number:02x}",
            size_bytes=number, attempts=number % 3, first_seen_time=first_seen_time,
        )  # fmt: skip
        noted = draw(st.lists(st.integers(0, 3), max_size=2, unique=True))
        versions = [StoredVersion(f"old-{each}", each, f"{each:02x}") for each in noted]
        return with_notes(row, earlier_versions=versions, media_etag=f"etag-{number}")
    outcome: Outcome = draw(st.sampled_from(["gone", "failed", "pending"]))
    attempts = draw(st.integers(0, 4))
    return a_capture_row(
        outcome=outcome, attempts=attempts, last_error=f"{outcome} {attempts}",
        first_seen_time=first_seen_time,
    )  # fmt: skip


@given(st.lists(capture_rows(), min_size=1, max_size=4))
def test_captures_merge_alike_in_any_order_and_grouping(rows: list[CaptureRow]):
    found = merged_in_every_way(rows, newer_capture)

    copies = [row for row in rows if row.outcome == "copied"]
    assert found.attempts == max(row.attempts for row in rows)
    assert found.first_seen_time == min(row.first_seen_time for row in rows)
    for row in rows:
        assert newer_capture(found, row) == found
    if copies:
        assert found.outcome == "copied"
        assert found.copied_time == max(row.copied_time for row in copies if row.copied_time)
        known = {row.object_key for row in copies}
        known |= {each.object_key for row in copies for each in earlier_versions(row)}
        versions = [version.object_key for version in earlier_versions(found)]
        assert versions == sorted(set(versions))
        assert {*versions, found.object_key} == known, "an object that nobody names is lost"
        assert media_etag(found) == f"etag-{found.size_bytes}"


def test_a_copied_capture_stays_copied():
    copied = a_copy()
    for outcome in ("gone", "failed", "pending"):
        other = a_capture_row(outcome=outcome, attempts=4, first_seen_time=NOON - DAY)

        found = merged_in_every_way([copied, other], newer_capture)

        assert found == replace(copied, attempts=4, first_seen_time=NOON - DAY)


@pytest.mark.parametrize(
    ("lesser", "greater"),
    [("pending", "failed"), ("pending", "gone"), ("failed", "gone")],
)
def test_of_the_same_number_of_attempts_the_worse_end_counts(lesser: Outcome, greater: Outcome):
    """To be offered no more is no attempt, and it is the last word."""
    rows = [a_capture_row(outcome=outcome, attempts=2) for outcome in (lesser, greater)]

    assert merged_in_every_way(rows, newer_capture).outcome == greater


def test_the_later_attempt_counts():
    failed = a_capture_row(outcome="failed", attempts=5, last_error="broken")
    gone = a_capture_row(outcome="gone", attempts=1)

    assert merged_in_every_way([failed, gone], newer_capture) == failed


def test_a_newer_version_keeps_the_older_one_in_its_row():
    older = with_notes(a_copy(), media_etag="one")
    newer = with_notes(
        a_copy(object_key="key~v0b", sha256="0b", size_bytes=2, copied_time=LATER), media_etag="two"
    )

    found = merged_in_every_way([older, newer], newer_capture)

    assert (found.object_key, found.size_bytes, media_etag(found)) == ("key~v0b", 2, "two")
    assert earlier_versions(found) == [StoredVersion("key", 1, "0a")]


def test_of_two_copies_of_one_moment_the_one_that_tells_of_more_attempts_counts():
    plain, behind = a_copy(attempts=1), a_copy(attempts=7, last_error="503")

    assert merged_in_every_way([plain, behind], newer_capture).last_error == "503"
    again = replace(behind, last_error=None)
    assert newer_capture(behind, again).last_error is None, "a tie: the one that is merged last"


# Notes


def test_notes_stand_beside_what_the_api_told():
    row = a_capture_row(extra_json='{"agentId": "e8"}')

    noted = with_notes(row, media_etag="etag")

    assert json.loads(str(noted.extra_json)) == {"agentId": "e8", "archive": {"media_etag": "etag"}}
    assert media_etag(noted) == "etag"
    assert with_notes(noted) == noted
    assert with_notes(row) == row
    assert (media_etag(row), earlier_versions(row)) == (None, [])
