"""When an hour is listed again: enough to find what is listed late, seldom enough to cost little."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from include.domain.interval import HOUR
from include.domain.late_listing import next_listing_time

DAY = timedelta(days=1)
MIDNIGHT = datetime(2026, 9, 14, tzinfo=UTC)
HOURS = st.integers(0, 24 * 400).map(lambda hours: MIDNIGHT + hours * HOUR)


def listings(hour: datetime, listed_time: datetime) -> list[datetime]:
    """All listings of an hour that was first listed at some time, each at the moment when it is due."""
    found: list[datetime] = []
    due_time = next_listing_time(hour, listed_time)
    while due_time:
        found.append(due_time)
        due_time = next_listing_time(hour, due_time)
    return found


def test_the_listings_of_an_hour_are_these():
    hour = MIDNIGHT + 10 * HOUR

    assert listings(hour, hour + HOUR) == [
        MIDNIGHT + 18 * HOUR,
        MIDNIGHT + 3 * DAY,
        MIDNIGHT + 8 * DAY,
        MIDNIGHT + 15 * DAY,
    ]


@given(hour=HOURS, minutes=st.integers(0, 60 * 24 * 40))
def test_an_hour_is_settled_after_four_listings_at_the_most(hour: datetime, minutes: int):
    listed_time = hour + HOUR + timedelta(minutes=minutes)

    found = listings(hour, listed_time)

    assert len(found) <= 4
    assert found == sorted(set(found))
    assert all(listed_time < due_time <= hour + HOUR + 15 * DAY for due_time in found)
    if listed_time < hour + HOUR + 14 * DAY:
        assert found[-1] >= hour + HOUR + 14 * DAY, "a contact task may stay open as long"
    if minutes == 0:
        assert found[0] >= hour + 3 * HOUR
        assert found[0] <= hour + 9 * HOUR


@given(hour=HOURS)
def test_a_listing_that_is_late_skips_what_it_makes_needless(hour: datetime):
    assert next_listing_time(hour, hour + 16 * DAY) is None
    due_time = next_listing_time(hour, hour + 5 * DAY)
    assert due_time
    assert due_time >= hour + HOUR + 7 * DAY


def test_the_hours_of_a_day_are_listed_again_at_eight_times():
    """Neighbours share a walk: else a day would cost 24 times four listings."""
    hours = [MIDNIGHT + n * HOUR for n in range(24)]

    assert len({due_time for hour in hours for due_time in listings(hour, hour + HOUR)}) == 8
