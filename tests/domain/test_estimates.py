"""Numbers told before the work is done."""

import math
import random
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from include.domain.estimates import Figure, estimated_mean, estimated_total, spread_starts
from include.domain.interval import HOUR

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)


def hours(count):
    return [NOON + hour * HOUR for hour in range(count)]


@pytest.mark.parametrize("count", [25, 100, 576, 720, 8760, 26_280])
def test_spans_are_spread_over_the_range_and_over_the_hours_of_the_day(count):
    """Every 24th or 48th hour would be the same hour of the day."""
    starts = spread_starts(hours(count), 24, 1)

    assert len(set(starts)) == 24
    assert starts == sorted(starts)
    parts = Counter((start - NOON) // HOUR * 24 // count for start in starts)
    assert max(parts.values()) <= 2
    used = Counter(start.hour for start in starts)
    if count >= 24 * 24:
        assert set(used.values()) == {1}
    else:
        assert max(used.values()) <= 3


@pytest.mark.parametrize("count", [720, 8760])
def test_spans_are_spread_over_the_weekdays(count):
    weekdays = Counter(start.weekday() for start in spread_starts(hours(count), 24, 1))

    assert len(weekdays) == 7
    assert max(weekdays.values()) - min(weekdays.values()) <= 4


def test_longer_spans_stay_within_their_part_and_do_not_overlap():
    starts = spread_starts(hours(720), 24, 24)

    assert all(later - earlier >= 24 * HOUR for earlier, later in pairwise(starts))
    assert starts[-1] + 24 * HOUR <= NOON + 720 * HOUR


def test_a_total_of_everything_is_exact():
    assert estimated_total([1, 2, 3], 1) == Figure.exact(6)


def test_a_total_of_a_sample_is_scaled_and_its_range_is_never_below_what_was_counted():
    figure = estimated_total([100, 0, 0], 0.5)

    assert not figure.is_exact
    assert figure.value == 200
    assert figure.low == 100
    assert figure.high > 200


@pytest.mark.parametrize("sums", [[0] * 24, [40] * 24], ids=["empty", "alike"])
def test_samples_that_are_alike_do_not_make_an_estimate_exact(sums):
    figure = estimated_total(sums, 0.1)

    assert figure.low <= figure.value < figure.high


def test_the_range_holds_the_truth_about_19_times_in_20():
    draws = random.Random(1)
    held = 0
    for _ in range(400):
        population = [draws.expovariate(1 / 50) for _ in range(2000)]
        sample = draws.sample(population, 100)
        total, mean = estimated_total(sample, 0.05), estimated_mean(sample, 0.05)
        held += total.low <= sum(population) <= total.high
        assert math.isclose(mean.value * 2000, total.value)

    assert held >= 400 * 0.93


@pytest.mark.parametrize(
    ("figure", "unit", "text"),
    [
        (Figure.exact(28_800), 1, "28,800 exactly"),
        (Figure.exact(28_800), 1000, "28.8"),
        (Figure(28_834, 27_111, 31_999), 1, "about 28,800 (27,100 to 32,000)"),
        (Figure(28_834, 27_111, 31_999), 1000, "about 28.8 (27.1 to 32.0)"),
        (Figure(0, 0, 2.2), 1, "about 0 (0 to 2)"),
        (Figure(0, 0, math.inf), 1e6, "unknown, at least 0"),
    ],
    ids=["counted", "counted in a unit", "estimated", "in a unit", "nothing seen", "unknown"],
)
def test_a_figure_says_what_is_known(figure, unit, text):
    assert figure.text(unit) == text


def test_plain_values_are_those_that_a_person_sees():
    assert Figure(28_834, 27_111, math.inf).to_json() == {
        "value": 28_800,
        "low": 27_100,
        "high": None,
        "exact": False,
    }
    assert Figure.exact(7).to_json() == {"value": 7, "low": 7, "high": 7, "exact": True}


def test_nothing_times_an_unknown_is_nothing():
    assert Figure.exact(0) * Figure(0, 0, math.inf) == Figure.exact(0)
