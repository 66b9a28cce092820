from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.errors import PermanentError
from include.domain.interval import HOUR, Interval, epoch_ms, from_epoch_ms, hour_of

TEN = datetime(2026, 9, 14, 10, tzinfo=UTC)
TOKYO = timezone(timedelta(hours=9))
INDIA = timezone(timedelta(hours=5, minutes=30))
INSTANTS = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(9000, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    timezones=st.sampled_from([UTC, TOKYO, INDIA]),
)


def test_an_interval_holds_its_start_and_not_its_end():
    interval = Interval(TEN, TEN + HOUR)

    assert TEN in interval
    assert TEN + HOUR - timedelta(microseconds=1) in interval
    assert TEN + HOUR not in interval
    assert TEN - timedelta(microseconds=1) not in interval


@pytest.mark.parametrize("end", [TEN, TEN - HOUR], ids=["empty", "backwards"])
def test_an_empty_interval_is_refused(end: datetime):
    """Airflow 3 gives empty intervals to DAGs with a bare cron string; one archives nothing, silently."""
    with pytest.raises(PermanentError, match="data-interval timetable"):
        Interval(TEN, end)


@pytest.mark.parametrize("naive", ["start", "end"])
def test_an_interval_without_a_time_zone_is_refused(naive: str):
    ends = {"start": TEN, "end": TEN + HOUR}
    ends[naive] = ends[naive].replace(tzinfo=None)

    with pytest.raises(PermanentError, match="UTC"):
        Interval(**ends)


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [
        (TEN, TEN + HOUR, 1),
        (TEN + HOUR / 2, TEN + HOUR, 1),
        (TEN + HOUR / 2, TEN + HOUR * 1.5, 2),
        (TEN, TEN + timedelta(microseconds=1), 1),
        (TEN.astimezone(INDIA), TEN + 3 * HOUR, 3),
    ],
)
def test_an_interval_touches_its_utc_hours(start: datetime, end: datetime, hours: int):
    assert list(Interval(start, end).hours()) == [TEN + place * HOUR for place in range(hours)]


@given(INSTANTS)
def test_milliseconds_are_exact_and_round_down(instant: datetime):
    back = from_epoch_ms(epoch_ms(instant))

    assert timedelta(0) <= instant - back < timedelta(milliseconds=1)
    assert epoch_ms(back) == epoch_ms(instant)


@given(INSTANTS)
def test_every_instant_lies_in_its_hour_of_utc(instant: datetime):
    hour = hour_of(instant)

    assert hour <= instant < hour + HOUR
    assert hour.utcoffset() == timedelta(0)
    assert (hour.minute, hour.second, hour.microsecond) == (0, 0, 0)


def test_a_number_beyond_the_calendar_is_an_overflow():
    with pytest.raises(OverflowError):
        from_epoch_ms(10**18)
