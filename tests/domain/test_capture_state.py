"""Each line of the drawing in capture_state.py, and that it is total."""

from datetime import datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.capture_state import CapturePolicy, CaptureProgress, capture_progress
from include.domain.rows import CaptureState, Outcome
from tests.builders import NOW

POLICY = CapturePolicy()
DAY = timedelta(days=1)
FINAL = {"none", "archived", "gone", "overdue", "failed"}


def progress(**changes: Any) -> CaptureProgress:
    fields: dict[str, Any] = {
        "capture_requested": True,
        "status": "completed",
        "created_time": NOW - 4 * DAY,
        "last_updated_time": NOW - 3 * DAY,
        "outcomes": ["copied"],
        "now": NOW,
        "policy": POLICY,
    }
    return capture_progress(**fields | changes)


YOUNG = {"created_time": NOW - timedelta(hours=1), "last_updated_time": NOW - timedelta(minutes=5)}
OLD = {"created_time": NOW - 14 * DAY, "last_updated_time": NOW - 13 * DAY}
JUST_NOT_OLD = {
    "created_time": NOW - 14 * DAY + timedelta(seconds=1),
    "last_updated_time": NOW - 13 * DAY,
}
LINES: list[tuple[str, dict[str, Any], CaptureState]] = [
    ("requested is false", {"capture_requested": False, "outcomes": [], **YOUNG}, "none"),
    ("false, but something came", {"capture_requested": False}, "archived"),
    ("false, but something came, young", {"capture_requested": False, **YOUNG}, "pending"),
    ("nothing, true, young", {"outcomes": [], **YOUNG}, "pending"),
    ("nothing, null, young", {"outcomes": [], "capture_requested": None, **YOUNG}, "pending"),
    ("nothing, settled, not past the horizon", {"outcomes": []}, "pending"),
    ("offered, open", {"status": "assigned"}, "pending"),
    ("offered, a status added later", {"status": "wrapped-up"}, "pending"),
    ("offered, no status", {"status": None}, "pending"),
    ("offered, closed, not settled", YOUNG, "pending"),
    ("settled by a second too little",
     {"last_updated_time": NOW - 2 * DAY + timedelta(seconds=1)}, "pending"),
    ("settled to the second", {"last_updated_time": NOW - 2 * DAY}, "archived"),
    ("settled by creation", {"last_updated_time": None}, "archived"),
    ("updated before it was created", {"created_time": NOW - DAY}, "pending"),
    ("offered without a URL", {"outcomes": ["copied", "pending"]}, "pending"),
    ("settled, all copied", {"outcomes": ["copied", "copied"]}, "archived"),
    ("status in capitals", {"status": "ENDED"}, "archived"),
    ("abandoned with a recording", {"status": "abandoned"}, "archived"),
    ("settled, purged before", {"outcomes": ["copied", "gone"]}, "gone"),
    ("a copy failed", {"outcomes": ["copied", "failed", "pending"]}, "failed"),
    ("a copy failed, past the horizon", {"outcomes": ["failed"], **OLD}, "failed"),
    ("past the horizon, true, nothing", {"outcomes": [], **OLD}, "overdue"),
    ("a second before the horizon", {"outcomes": [], **JUST_NOT_OLD}, "pending"),
    ("past the horizon, null, nothing",
     {"outcomes": [], "capture_requested": None, **OLD}, "none"),
    ("past the horizon, still without a URL", {"outcomes": ["copied", "pending"], **OLD}, "overdue"),
    ("past the horizon, still open", {"status": "assigned", **OLD}, "archived"),
    ("past the horizon, open, purged", {"status": None, "outcomes": ["gone"], **OLD}, "gone"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "state"), [line[1:] for line in LINES], ids=[line[0] for line in LINES]
)
def test_each_line_of_the_drawing(changes: dict[str, Any], state: CaptureState):
    found = progress(**changes)

    assert found.state == state
    assert (found.next_check_time is None) == (state in FINAL)


@pytest.mark.parametrize(
    ("age", "distance"),
    [
        (timedelta(0), timedelta(minutes=30)),
        (timedelta(hours=-5), timedelta(minutes=30)),
        (timedelta(hours=1), timedelta(minutes=30)),
        (timedelta(hours=6), timedelta(hours=3)),
        (timedelta(days=5), timedelta(days=1)),
    ],
)
def test_looks_grow_apart_with_age(age: timedelta, distance: timedelta):
    found = progress(outcomes=[], created_time=NOW - age, last_updated_time=None)

    assert found.next_check_time == NOW + distance


INSTANTS = st.timedeltas(min_value=timedelta(days=-40), max_value=timedelta(days=40)).map(
    lambda distance: NOW + distance
)


@given(
    requested=st.none() | st.booleans(),
    status=st.none() | st.sampled_from(["completed", "Abandoned", "created", ""]) | st.text(),
    created=INSTANTS,
    updated=st.none() | INSTANTS,
    outcomes=st.lists(st.sampled_from(get_args(Outcome)), max_size=4),
)
def test_every_contact_task_has_a_state(
    requested: bool | None,
    status: str | None,
    created: datetime,
    updated: datetime | None,
    outcomes: list[Outcome],
):
    def at(now: datetime, asked: bool | None) -> CaptureProgress:
        return progress(
            capture_requested=asked, status=status, created_time=created,
            last_updated_time=updated, outcomes=outcomes, now=now,
        )  # fmt: skip

    found = at(NOW, requested)

    assert found.state in get_args(CaptureState)
    assert (found.next_check_time is None) == (found.state in FINAL)
    if found.next_check_time:
        distance = found.next_check_time - NOW
        assert POLICY.first_check <= distance <= POLICY.last_check
    if at(NOW, None).state == "none":
        assert NOW - created >= POLICY.horizon  # null is not false
    assert at(created + POLICY.horizon, requested).state in FINAL
    if found.state == "archived":
        assert set(outcomes) == {"copied"}
