"""Numbers told before the work is done: counted, or estimated from evenly spread samples."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import mean, variance

_SIGNIFICANT_DIGITS = 3  # of an estimate; more would pretend to a precision that it has not
_STANDARD_ERRORS = 2  # to both sides: about 19 of 20 ranges then hold the truth


@dataclass(frozen=True)
class Figure:
    """A number, the range that it should lie in, and whether it was counted rather than estimated.

    The high end is infinite where nothing is known about it.
    """

    value: float
    low: float
    high: float
    is_exact: bool = False

    @classmethod
    def exact(cls, value: float) -> "Figure":
        """A number that was counted."""
        return cls(value, value, value, is_exact=True)

    def __add__(self, other: "Figure") -> "Figure":
        return Figure(
            self.value + other.value,
            self.low + other.low,
            self.high + other.high,
            self.is_exact and other.is_exact,
        )

    def __mul__(self, other: "Figure") -> "Figure":
        if self == Figure.exact(0):
            return self
        return Figure(
            self.value * other.value,
            self.low * other.low,
            self.high * other.high,
            self.is_exact and other.is_exact,
        )

    def in_units_of(self, size: float) -> "Figure":
        """The number in a larger unit, rounded up to whole ones."""
        high = math.inf if math.isinf(self.high) else math.ceil(self.high / size)
        return Figure(math.ceil(self.value / size), math.ceil(self.low / size), high, self.is_exact)

    def __str__(self) -> str:
        """The number for a person: whole where it was counted, else rounded and with its range."""
        if self.is_exact:
            return f"{self.value:,.0f} exactly"
        if math.isinf(self.high):
            return f"unknown, at least {_rounded(self.low):,}"
        value, low, high = (_rounded(number) for number in (self.value, self.low, self.high))
        return f"about {value:,} ({low:,} to {high:,})"

    def to_json(self) -> dict[str, object]:
        """The number as plain values, rounded as a person sees it; a high end that is unknown is null."""
        if self.is_exact:
            whole = round(self.value)
            return {"value": whole, "low": whole, "high": whole, "exact": True}
        high = None if math.isinf(self.high) else _rounded(self.high)
        return {
            "value": _rounded(self.value),
            "low": _rounded(self.low),
            "high": high,
            "exact": False,
        }


def _rounded(number: float) -> int:
    if number < 1:
        return 0 if number <= 0 else 1
    return round(round(number, _SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(number))))


def estimated_total(sums: Sequence[float], share: float) -> Figure:
    """The total over all, from the sums of equally large samples that are a share of it together.

    The range is two standard errors to both sides, and never below what was counted. Counts vary at least
    as much as chance makes them, also where the samples happen to be alike or empty.
    """
    if share >= 1:
        return Figure.exact(sum(sums))
    total = sum(sums) / share
    error = _standard_error(sums, share) * len(sums) / share
    return Figure(
        total,
        max(sum(sums), total - _STANDARD_ERRORS * error),
        total + _STANDARD_ERRORS * error,
    )


def estimated_mean(values: Sequence[float], share: float) -> Figure:
    """The mean over all, from values that were drawn evenly and are a share of them."""
    if share >= 1:
        return Figure.exact(mean(values) if values else 0)
    error = _STANDARD_ERRORS * _standard_error(values, share)
    return Figure(mean(values), max(0.0, mean(values) - error), mean(values) + error)


def _standard_error(values: Sequence[float], share: float) -> float:
    count = len(values)
    spread = variance(values) if count > 1 else mean(values) ** 2
    spread = max(spread, mean(values), 1 / count)
    return math.sqrt(spread / count * (1 - share))


def spread_starts(hours: Sequence[datetime], count: int, length: int) -> list[datetime]:
    """The first hours of so many spans of that length, one in each equal part of a range of hours.

    Contact centres have nights and weekends, so each span begins at the hour of the day and then on the
    weekday that the spans before it have used least.
    """
    hours_used: Counter[int] = Counter()
    weekdays_used: Counter[int] = Counter()
    starts: list[datetime] = []
    for part in range(count):
        first, end = part * len(hours) // count, (part + 1) * len(hours) // count
        middle = (first + end - length) / 2

        def costs(index: int, middle: float = middle) -> tuple[int, int, float]:
            hour = hours[index]
            return hours_used[hour.hour], weekdays_used[hour.weekday()], abs(index - middle)

        start = hours[min(range(first, max(first + 1, end - length + 1)), key=costs)]
        hours_used[start.hour] += 1
        weekdays_used[start.weekday()] += 1
        starts.append(start)
    return starts
