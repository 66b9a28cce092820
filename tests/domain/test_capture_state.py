"""Each line of the drawing in capture_state.py, and that it is total."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.capture_state import CapturePolicy, CaptureProgress, capture_progress
from include.domain.interval import HOUR
from include.domain.rows import CaptureState, Outcome
from tests.builders import NOW

POLICY = CapturePolicy()
DAY = timedelta(days=1)
FINAL = {"none", "archived", "gone", "overdue"}
RETENTION = CapturePolicy(retention=10 * DAY)


def progress(**changes: Any) -> CaptureProgress:
    fields: dict[str, Any] = {
        "capture_requested": True,
        "status": "completed",
        "created_time": NOW - 4 * DAY,
        "last_change_time": NOW - 3 * DAY,
        "outcomes": ["copied"],
        "is_refused": False,
        "now": NOW,
        "policy": POLICY,
    }
    return capture_progress(**fields | changes)


FOR_EVER = datetime.max.replace(tzinfo=UTC)
YOUNG = {"created_time": NOW - timedelta(hours=1), "last_change_time": NOW - timedelta(minutes=5)}
OLD = {"created_time": NOW - 14 * DAY, "last_change_time": NOW - 13 * DAY}
JUST_NOT_OLD = {
    "created_time": NOW - 14 * DAY + timedelta(seconds=1),
    "last_change_time": NOW - 13 * DAY,
}
PURGED = {"created_time": NOW - 10 * DAY, "policy": RETENTION}
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
     {"last_change_time": NOW - 2 * DAY + timedelta(seconds=1)}, "pending"),
    ("settled to the second", {"last_change_time": NOW - 2 * DAY}, "archived"),
    ("settled, the API refuses to tell", {"is_refused": True}, "failed"),
    ("changed at the end of all time", {"last_change_time": FOR_EVER}, "pending"),
    ("settled by creation", {"last_change_time": None}, "archived"),
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
    ("past the horizon, refused", {"is_refused": True, "outcomes": [], **OLD}, "failed"),
    ("past the horizon, false", {"capture_requested": False, "outcomes": [], **OLD}, "none"),
    ("past the horizon, a late change",
     {"created_time": NOW - 14 * DAY, "last_change_time": NOW - HOUR}, "archived"),
    ("past the retention, true, nothing", {"outcomes": [], **PURGED}, "gone"),
    ("a second before the end of the retention",
     {"outcomes": [], **PURGED, "created_time": NOW - 10 * DAY + timedelta(seconds=1)}, "pending"),
    ("past the retention, null, nothing",
     {"outcomes": [], "capture_requested": None, **PURGED}, "none"),
    ("past the retention, without a URL", {"outcomes": ["pending"], **PURGED}, "overdue"),
    ("past the retention, all copied, still open", {"status": "assigned", **PURGED}, "archived"),
    ("past the horizon, not yet the retention",
     {"outcomes": [], "policy": CapturePolicy(retention=20 * DAY), **OLD}, "overdue"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "state"), [line[1:] for line in LINES], ids=[line[0] for line in LINES]
)
def test_each_line_of_the_drawing(changes: dict[str, Any], state: CaptureState):
    found = progress(**changes)

    assert found.state == state
    fields = {"created_time": NOW - 4 * DAY, "policy": POLICY} | changes
    horizon = min(POLICY.horizon, fields["policy"].retention or POLICY.horizon)
    is_old = NOW - fields["created_time"] >= horizon
    assert (found.next_check_time is None) == (state in FINAL or is_old)


@pytest.mark.parametrize(
    ("age", "distance"),
    [
        (timedelta(0), timedelta(minutes=30)),
        (timedelta(hours=-5), timedelta(minutes=30)),
        (timedelta(minutes=20), timedelta(minutes=30)),
        (HOUR, HOUR),
        (timedelta(hours=6), timedelta(hours=6)),
        (timedelta(days=5), timedelta(days=1)),
    ],
)
@pytest.mark.parametrize(
    "changes", [{"outcomes": []}, {"outcomes": ["failed"]}, {"is_refused": True}], ids=str
)
def test_the_age_doubles_from_look_to_look(
    age: timedelta, distance: timedelta, changes: dict[str, Any]
):
    found = progress(**{"created_time": NOW - age, "last_change_time": None} | changes)

    assert found.next_check_time == NOW + distance


def looks_after(age: timedelta, **changes: Any) -> list[timedelta]:
    """The ages at which a contact task is looked at that was first seen at one, until it is final."""
    created_time = NOW - age
    ages: list[timedelta] = []
    now: datetime | None = NOW
    while now:
        ages.append(now - created_time)
        found = progress(**{"created_time": created_time, "now": now} | changes)
        now = found.next_check_time
    return ages


def test_a_contact_task_without_captures_is_looked_at_about_twenty_times():
    """Queries are paid for in batches of ten; two weeks of hourly looks would be 336."""
    ages = looks_after(HOUR, outcomes=[])

    assert ages[:6] == [n * HOUR for n in (1, 2, 4, 8, 16, 32)]
    assert len(ages) == 19
    assert POLICY.horizon <= ages[-1] <= POLICY.horizon + POLICY.last_check


def test_what_is_all_here_is_looked_at_when_it_settles_and_not_later():
    changes = {"outcomes": ["copied"], "last_change_time": NOW}

    assert looks_after(HOUR, **changes)[-1] == HOUR + POLICY.settling_time


def test_a_settling_that_is_over_does_not_make_looks_of_an_open_contact_task_closer():
    found = progress(status="assigned")

    assert found.next_check_time == NOW + POLICY.last_check


def test_before_a_purge_looks_come_closer_and_the_last_is_half_an_hour_before():
    ages = looks_after(7 * DAY, outcomes=[], policy=RETENTION)

    assert ages[1:4] == [8 * DAY, 9 * DAY, 9.5 * DAY]
    left = [10 * DAY - age for age in ages if age < 10 * DAY]
    assert min(left) <= RETENTION.first_check
    assert ages[-1] <= 10 * DAY + RETENTION.first_check


@pytest.mark.parametrize(
    ("age", "retention", "is_near"),
    [
        (22.9 * DAY, 30 * DAY, False),
        (23 * DAY, 30 * DAY, True),
        (29.9 * DAY, 30 * DAY, True),
        (30 * DAY, 30 * DAY, False),
        (4.9 * DAY, 10 * DAY, False),
        (5 * DAY, 10 * DAY, True),
        (400 * DAY, None, False),
    ],
    ids=["eight days before", "a week before", "the last hours", "lost", "a short retention, its first half",
         "a short retention, its second half", "nothing is purged"],
)  # fmt: skip
def test_an_alarm_is_due_before_something_is_lost(
    age: timedelta, retention: timedelta | None, *, is_near: bool
):
    assert CapturePolicy(retention=retention).is_purge_near(NOW - age, NOW) is is_near


INSTANTS = st.timedeltas(min_value=timedelta(days=-40), max_value=timedelta(days=40)).map(
    lambda distance: NOW + distance
)


@given(
    requested=st.none() | st.booleans(),
    status=st.none() | st.sampled_from(["completed", "Abandoned", "created", ""]) | st.text(),
    created=INSTANTS,
    updated=st.none() | INSTANTS,
    outcomes=st.lists(st.sampled_from(get_args(Outcome)), max_size=4),
    is_refused=st.booleans(),
    policy=st.sampled_from([POLICY, RETENTION, CapturePolicy(retention=30 * DAY)]),
)
def test_every_contact_task_has_a_state(
    requested: bool | None,
    status: str | None,
    created: datetime,
    updated: datetime | None,
    outcomes: list[Outcome],
    policy: CapturePolicy,
    *,
    is_refused: bool,
):
    def at(now: datetime, asked: bool | None) -> CaptureProgress:
        return progress(
            capture_requested=asked, status=status, created_time=created,
            last_change_time=updated, outcomes=outcomes, is_refused=is_refused,
            now=now, policy=policy,
        )  # fmt: skip

    found = at(NOW, requested)

    horizon = min(policy.horizon, policy.retention or policy.horizon)
    assert found.state in get_args(CaptureState)
    is_final = found.state in FINAL or NOW - created >= horizon
    assert (found.next_check_time is None) == is_final
    if found.next_check_time:
        distance = found.next_check_time - NOW
        assert timedelta(0) < distance <= policy.last_check
        assert distance >= policy.first_check or (outcomes and set(outcomes) <= {"copied", "gone"})
    if at(NOW, None).state == "none":
        assert NOW - created >= horizon, "null is read as false"
    assert at(created + horizon, requested).next_check_time is None
    assert at(created + horizon, requested).state != "pending"
    if found.state == "archived":
        assert set(outcomes) == {"copied"}
    if found.state == "gone":
        assert "gone" in outcomes or policy.retention
    if found.state == "overdue":
        assert "pending" in outcomes or (requested and not outcomes)
