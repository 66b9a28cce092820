"""The half-open UTC interval that a run archives."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from include.domain.errors import PermanentError

HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc_now() -> datetime:
    """The machine's clock, in UTC."""
    return datetime.now(UTC)


def epoch_ms(instant: datetime) -> int:
    """Milliseconds since 1970, exact (no float): the unit of every Webex time field."""
    return (instant - _EPOCH) // timedelta(milliseconds=1)


def from_epoch_ms(milliseconds: int) -> datetime:
    """The UTC instant of a Webex time field.

    Raises:
        OverflowError: The number is not an instant between the years 1 and 9999.
    """
    return _EPOCH + timedelta(milliseconds=milliseconds)


def hour_of(instant: datetime) -> datetime:
    """The start of the UTC hour that holds an instant: what decides the partition of a row."""
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


@dataclass(frozen=True)
class Interval:
    """All instants ``start <= t < end``, in UTC.

    Raises:
        PermanentError: The ends are naive or the interval is empty. Airflow 3 gives empty intervals
            to DAGs scheduled by a bare cron string; archiving one would silently archive nothing.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise PermanentError("The interval to archive has no time zone: give both ends in UTC.")
        if self.start >= self.end:
            raise PermanentError(
                f"The interval to archive is empty ({self.start.isoformat()} to {self.end.isoformat()}): "
                "use a data-interval timetable or give an end after the start."
            )

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end

    def hours(self) -> Iterator[datetime]:
        """The starts of the UTC hours that the interval touches, ascending."""
        hour = hour_of(self.start)
        while hour < self.end:
            yield hour
            hour += HOUR
