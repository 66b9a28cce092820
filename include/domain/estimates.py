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

    def text(self, unit: float = 1) -> str:
        """The number for a person, in a larger unit if told; an estimate is rounded and has its range."""
        if self.is_exact:
            return f"{self.value:,.0f} exactly" if unit == 1 else f"{self.value / unit:,.1f}"
        if math.isinf(self.high):
            return f"unknown, at least {_rounded(self.low, unit):,}"
        value, low, high = (_rounded(number, unit) for number in (self.value, self.low, self.high))
        return f"about {value:,} ({low:,} to {high:,})"

    def to_json(self, unit: float = 1) -> dict[str, object]:
        """The number as plain values, as a person sees it; a high end that is unknown is null."""
        value, low = (self._plain(number, unit) for number in (self.value, self.low))
        high = None if math.isinf(self.high) else self._plain(self.high, unit)
        return {"value": value, "low": low, "high": high, "exact": self.is_exact}

    def _plain(self, number: float, unit: float) -> float:
        if not self.is_exact:
            return _rounded(number, unit)
        return round(number) if unit == 1 else round(number / unit, 1)


def _rounded(number: float, unit: float) -> float:
    """Three significant digits, and no fractions of what comes in whole ones."""
    shown = number / unit
    digits = _SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(shown)) if shown > 0 else 0
    if unit == 1 or digits <= 0:
        return round(round(shown, digits))
    return round(shown, 1)


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
