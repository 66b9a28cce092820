"""What a preview promises: the truth for small ranges, an honest range for large ones, at little cost."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from include.domain.errors import PermanentError
from include.domain.estimates import Figure
from include.domain.interval import HOUR, Interval, epoch_ms, hour_of
from include.pipelines.archive_captures import ArchiveOptions
from include.pipelines.preview_backfill import BackfillPreview, preview_backfill
from include.webex.captures import CaptureOptions
from include.webex.media import MediaClient

DAY = timedelta(days=1)
MAX_LIST_REQUESTS = 100
MAX_CAPTURES_QUERIES = 10


def preview(centre, interval: Interval, **options: Any) -> BackfillPreview:
    return preview_backfill(
        interval, centre.client, centre.media, centre.archive(), ArchiveOptions(**options)
    )


def days(centre, count: int, days_ago: int = 3) -> Interval:
    end = hour_of(centre.now) - days_ago * DAY
    return Interval(end - count * DAY, end)


def truth(centre, interval: Interval) -> list[dict[str, Any]]:
    """Without hashes, which take long for a month."""
    rows = centre.sandbox.truth(
        epoch_ms(interval.start),
        epoch_ms(interval.end),
        include_va=True,
        include_screen=True,
        with_sha256=False,
    )
    return list(rows)


def offered(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [capture for task in tasks for capture in task["captures"] if capture["listed"]]


def to_query(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [task for task in tasks if task["attributes"].get("captureRequested") is not False]


def test_a_few_hours_are_told_exactly_and_archiving_them_takes_just_that(open_centre):
    centre = open_centre(tasks_per_hour=15, daily_rhythm=1.0)
    night = hour_of(centre.now) - 3 * DAY - 12 * HOUR
    interval = Interval(night, night + 6 * HOUR)
    tasks = truth(centre, interval)

    told = preview(centre, interval)

    assert told.hours == 6
    assert told.contact_tasks.is_exact
    assert told.contact_tasks.value == len(tasks)
    assert told.to_query.is_exact
    assert told.to_query.value == len(to_query(tasks))
    assert told.captures.is_exact
    assert told.captures.value == told.objects_to_copy.value == len(offered(tasks))
    assert told.bytes_to_copy.is_exact
    assert told.bytes_to_copy.value == sum(c["size_bytes"] for c in offered(tasks))
    centre.sandbox.reset_requests()
    for hour in interval.hours():
        centre.run(Interval(hour, hour + HOUR), run_id=f"{hour:%H}")
    counts = centre.sandbox.requests()["counts"]
    hourly = told.runs[0]
    assert hourly.dag_id == "archive_captures"
    assert (hourly.list_requests.value, hourly.captures_queries.value) == (
        counts["tasks"]["200"],
        counts["captures"]["200"],
    )
    assert hourly.requests.is_exact


def held(figure, value: float) -> bool:
    return figure.low <= value <= figure.high


@pytest.mark.parametrize(
    ("knobs", "seeds"),
    [
        ({"tasks_per_hour": 90, "daily_rhythm": 0.9}, 5),
        ({"tasks_per_hour": 120, "daily_rhythm": 1.0, "empty_hour_share": 0.2}, 5),
        ({"tasks_per_hour": 2500, "daily_rhythm": 0.5}, 1),
    ],
    ids=["rhythm of a day", "empty hours too", "hours of several pages"],
)
def test_a_busy_month_is_estimated_with_an_honest_range(open_centre, knobs, seeds):
    honest = 0
    for seed in range(seeds):
        centre = open_centre(**knobs, seed=seed)
        month = days(centre, 30)
        count = centre.sandbox.state.centre.count
        expected = sum(count(epoch_ms(hour) // 3_600_000) for hour in month.hours())

        told = preview(centre, month)

        assert not told.contact_tasks.is_exact
        assert told.contact_tasks.value == pytest.approx(expected, rel=0.25)
        honest += held(told.contact_tasks, expected)
        assert_frugal(centre, list_requests=24)
    assert honest >= 0.8 * seeds


def assert_frugal(centre, list_requests: int) -> None:
    """Little is asked, of each capture one byte is read, and the bucket stays as it is."""
    requests = centre.sandbox.requests()
    counts = requests["counts"]
    assert counts["tasks"]["200"] <= list_requests
    assert counts["captures"]["200"] <= MAX_CAPTURES_QUERIES
    assert requests["media_bytes"] == sum(counts["media"].values())
    assert requests["refusals"] == []
    assert centre.archived.keys == []


def test_a_quiet_fortnight_is_listed_in_full_and_its_captures_are_estimated(open_centre):
    honest = 0
    for seed in range(5):
        centre = open_centre(tasks_per_hour=8, daily_rhythm=0.9, seed=seed)
        fortnight = days(centre, 14)
        tasks = truth(centre, fortnight)
        size_bytes = sum(capture["size_bytes"] for capture in offered(tasks))

        told = preview(centre, fortnight)

        assert told.contact_tasks == Figure.exact(len(tasks))
        assert told.to_query == Figure.exact(len(to_query(tasks)))
        assert told.captures.value == pytest.approx(len(offered(tasks)), rel=0.25)
        assert told.bytes_to_copy.value == pytest.approx(size_bytes, rel=0.35)
        honest += held(told.captures, len(offered(tasks))) and held(told.bytes_to_copy, size_bytes)
        assert_frugal(centre, MAX_LIST_REQUESTS)
    assert honest >= 4


def test_of_a_quiet_year_whole_days_are_listed(open_centre):
    """A page holds more than an hour of it, and whole days tell more than hours."""
    centre = open_centre(tasks_per_hour=10, daily_rhythm=1.0)

    told = preview(centre, days(centre, 330))

    assert held(told.contact_tasks, 330 * 240)
    assert told.contact_tasks.high < 1.05 * told.contact_tasks.low
    assert_frugal(centre, MAX_LIST_REQUESTS)
    assert any("hours, evenly spread" in remark for remark in told.remarks)


def test_what_is_archived_is_not_copied_again_unless_told(open_centre):
    centre = open_centre(tasks_per_hour=4)
    interval = days(centre, 1)
    archived, rest = (
        Interval(interval.start, interval.start + 5 * HOUR),
        interval.start + 5 * HOUR,
    )
    for hour in archived.hours():
        centre.run(Interval(hour, hour + HOUR), run_id=f"{hour:%H}")
    partition = centre.archive().keys.table_partition("contact_tasks", interval.start)
    centre.s3.put_object(Bucket=centre.bucket, Key=f"{partition}.of somebody else")
    keys = centre.archived.keys

    told, again = preview(centre, interval), preview(centre, interval, recopy=True)

    left = offered(truth(centre, Interval(rest, interval.end)))
    assert told.archived_hours == again.archived_hours == 5
    assert again.objects_to_copy == again.captures == told.captures
    assert again.bytes_to_copy.value > told.bytes_to_copy.value
    assert told.objects_to_copy.value == pytest.approx(len(left), rel=0.2)
    assert any("archived already" in remark for remark in told.remarks)
    assert centre.archived.keys == keys


def test_an_empty_range_takes_its_list_requests_and_no_more(open_centre):
    centre = open_centre(tasks_per_hour=0)

    told = preview(centre, days(centre, 30))

    assert told.contact_tasks == told.captures == told.bytes_to_copy == Figure.exact(0)
    assert [(runs.dag_id, runs.runs, runs.requests) for runs in told.runs] == [
        ("archive_captures", 720, Figure.exact(720)),
        ("archive_history", 31, Figure.exact(31)),
    ]


def test_the_channels_and_kinds_of_the_form_are_minded(open_centre):
    centre = open_centre(tasks_per_hour=4)
    interval = days(centre, 1)
    emails = [t for t in truth(centre, interval) if t["attributes"]["channelType"] == "email"]

    told = preview(centre, interval, channel_types=("email",))
    fewer = preview(centre, interval, captures=CaptureOptions(include_screen_recordings=False))

    assert told.contact_tasks.value == len(emails)
    assert told.captures.value == len(offered(emails))
    assert fewer.captures.value < preview(centre, interval).captures.value


def test_contact_tasks_of_more_than_a_year_ago_are_counted_too(open_centre):
    centre = open_centre(tasks_per_hour=20, purged_share=1.0)

    told = preview(centre, days(centre, 1, days_ago=500))

    assert told.contact_tasks == Figure.exact(480)
    assert told.bytes_to_copy.value == told.objects_to_copy.value == 0
    assert [runs.list_requests.value for runs in told.runs] == [24, 3]


def test_captures_that_do_not_tell_their_size_are_named(open_centre):
    centre = open_centre(tasks_per_hour=3)
    centre.media = MediaClient(("s3.example.com",))

    told = preview(centre, days(centre, 1))

    assert told.bytes_to_copy.text() == "unknown, at least 0"
    assert "add it to the extra field media_hosts" in told.remarks[-1]
    assert "Signature" not in "".join(told.lines())


def test_purged_captures_are_not_counted(open_centre):
    centre = open_centre(tasks_per_hour=3, purged_share=1.0, purged_stay_listed=True)

    told = preview(centre, days(centre, 1))

    assert told.captures.value == told.bytes_to_copy.value == 0


def test_only_hours_that_are_over_are_counted(open_centre):
    centre = open_centre(tasks_per_hour=5)
    now = hour_of(centre.now)

    told = preview(centre, Interval(now - 2 * HOUR + timedelta(minutes=5), now + DAY))

    assert told.interval == Interval(now - 2 * HOUR, now)
    with pytest.raises(PermanentError, match="No hour of the range to preview is over yet"):
        preview(centre, Interval(now, now + DAY))


def test_the_minutes_follow_from_the_rate_budget(open_centre):
    centre = open_centre(tasks_per_hour=30)
    centre.connection = replace(centre.connection, requests_per_minute=50)
    centre.client.connection = centre.connection

    told = preview(centre, days(centre, 1))

    requests = told.runs[0].requests.value
    plain: Any = told.to_json()
    assert plain["runs"]["archive_captures"]["minutes"]["value"] == round(requests / 50, 1)
    assert any("50 requests a minute" in line for line in told.lines())
