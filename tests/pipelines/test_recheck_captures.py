"""What recheck promises: whatever was ever offered or listed ends up in the archive, at the least cost."""

import math
from collections import Counter
from datetime import timedelta

import pytest

from include.domain.errors import CapturesFailed
from include.domain.interval import HOUR, Interval
from tests.archived import assert_complete

DAY = 24


def an_interval(centre, hours):
    end = centre.hour(1).end
    return Interval(end - hours * HOUR, end)


def test_nothing_due_costs_one_listing_and_no_request(open_centre):
    centre = open_centre(tasks_per_hour=20)
    centre.run(centre.hour(24 * 20))
    centre.sandbox.reset_requests()

    assert centre.recheck() == 0
    assert centre.sandbox.requests()["counts"] == {}


def test_whatever_was_ever_offered_or_listed_is_archived_in_the_end(open_centre):
    """Captures that come late, captureRequested null for hours, contact tasks that are listed late."""
    centre = open_centre(
        tasks_per_hour=60,
        late_capture_share=0.1,
        late_capture_hours=30.0,
        requested_unknown_share=0.1,
        requested_unknown_hours=20.0,
        late_listed_share=0.05,
        late_listed_minutes=90.0,
        late_transcript_share=0.2,
        late_transcript_hours=20.0,
        long_task_share=0.05,
        long_task_hours=60.0,
    )
    hours = [centre.hour(back) for back in (3, 2, 1)]
    for hour in hours:
        centre.run(hour)
    assert len(centre.archived.rows("contact_tasks")) < 180

    centre.recheck_hourly(DAY * 9)

    truth = centre.truth(Interval(hours[0].start, hours[-1].end))
    assert_complete(centre.archived, truth)
    rows = centre.archived.rows("contact_tasks")
    assert len(rows) == 180
    states = Counter(row["capture_state"] for row in rows)
    assert set(states) <= {"archived", "none", "pending"}, states
    print(states, centre.sandbox.requests()["counts"])
