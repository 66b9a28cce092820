"""What recheck promises: whatever was ever offered or listed ends up in the archive, at the least cost."""

import json
import math
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from include.domain.capture_state import CapturePolicy
from include.domain.errors import ArchiveError, CapturesFailed
from include.domain.interval import Interval
from include.pipelines import archive_captures, recheck_captures
from include.pipelines.archive_captures import ArchiveOptions
from include.sandbox.faults import KINDS
from tests.archived import assert_complete
from tests.chained import assert_sound

DAY = 24
SIXTY_DAYS = 60 * 24 * 3600  # nobody refreshes the token here


def states(centre) -> Counter[str]:
    return Counter(row["capture_state"] for row in centre.archived.rows("contact_tasks"))


def due(centre) -> list[str]:
    return [key for key in centre.archived.keys if key.startswith("due/")]


def assert_ends_green(run) -> None:
    for _ in range(200):
        try:
            run()
        except ArchiveError:
            continue
        return
    raise AssertionError("A run fails however often it is cleared.")


def recheck_after(centre, *hours: float) -> None:
    for some in hours:
        centre.sandbox.advance(some * 3600)
        centre.recheck()


def test_nothing_due_costs_one_listing_and_no_request(open_centre):
    centre = open_centre(tasks_per_hour=20)
    centre.run(centre.hour(24 * 20))
    centre.sandbox.reset_requests()

    assert centre.recheck() == 0
    assert centre.sandbox.requests()["counts"] == {}
    assert due(centre) == []


@pytest.mark.timeout(300)
def test_whatever_was_ever_offered_or_listed_is_archived_in_the_end(open_centre):
    """Captures that come late, captureRequested null for hours, contact tasks that are listed late."""
    centre = open_centre(
        tasks_per_hour=40,
        late_capture_share=0.1,
        late_capture_hours=30.0,
        requested_unknown_share=0.1,
        requested_unknown_hours=20.0,
        late_listed_share=0.1,
        late_listed_minutes=150.0,
        access_token_seconds=SIXTY_DAYS,
        late_transcript_share=0.2,
        late_transcript_hours=20.0,
        long_task_share=0.05,
        long_task_hours=60.0,
    )
    hours = [centre.hour(back) for back in (2, 1)]
    for hour in hours:
        centre.run(hour)
    first = centre.archived.rows("contact_tasks")
    assert len(first) < 80

    recheck_after(centre, *[1] * 12, *[6] * 20, *[24] * 10)

    assert_complete(centre.archived, centre.truth(Interval(hours[0].start, hours[-1].end)))
    rows = centre.archived.rows("contact_tasks")
    assert len(rows) == 80
    assert set(states(centre)) == {"archived", "none"}
    late = [row for row in rows if row["task_id"] not in {row["task_id"] for row in first}]
    assert min(row["first_seen_time"] for row in late) > max(
        row["first_seen_time"] for row in first
    )
    assert due(centre) == []
    assert centre.archived.working_files == []


@pytest.mark.timeout(300)
def test_where_every_fault_strikes_one_request_in_twenty_all_is_archived_in_the_end(open_centre):
    """So two of three answers are wrong; a run that fails is cleared, as in Airflow, until it is green."""
    centre = open_centre(
        tasks_per_hour=20,
        late_capture_share=0.2,
        late_capture_hours=10.0,
        late_listed_share=0.1,
        access_token_seconds=SIXTY_DAYS,
    )
    hours = [centre.hour(back) for back in (2, 1)]
    faults = [
        {"endpoint": endpoint, "kind": kind, "probability": 0.05, "seconds": 0.05}
        for endpoint in ("tasks", "captures", "media")
        for kind in KINDS
    ]
    centre.sandbox.set_faults(faults)
    for hour in hours:
        assert_ends_green(lambda hour=hour: centre.run(hour))
    for some in (1, 2, 3, 6, 12, 24):
        centre.sandbox.advance(some * 3600)
        assert_ends_green(centre.recheck)
    truth = centre.truth(Interval(hours[0].start, hours[-1].end))
    whole_sha256 = {capture["sha256"] for task in truth for capture in task["captures"]}
    assert_sound(centre.archived, whole_sha256)

    centre.sandbox.set_faults([])  # what met a chance 404 last is called gone, and looked at again
    recheck_after(centre, 24, 24, 48)
    assert_complete(centre.archived, truth)
    assert_sound(centre.archived, whole_sha256)
    assert set(states(centre)) == {"archived", "none"}
    assert centre.archived.working_files == []


def test_each_recheck_asks_in_full_batches_across_hours_and_lists_neighbours_in_one_walk(
    open_centre,
):
    centre = open_centre(tasks_per_hour=33, late_capture_share=1.0, late_capture_hours=100.0)
    for back in (4, 3, 2, 1):
        centre.run(centre.hour(back))

    for _ in range(8):
        centre.sandbox.advance(8 * 3600)
        centre.sandbox.reset_requests()
        rows = centre.archived.rows("contact_tasks")
        expected = sum(
            row["next_check_time"] is not None and row["next_check_time"] <= centre.now
            for row in rows
        )
        centre.recheck()

        counts = centre.sandbox.requests()["counts"]
        asked = sum(counts.get("captures", {}).values())
        # What a listing makes due (a captureRequested that turned) may add to what was due before.
        assert math.ceil(expected / 10) <= asked <= math.ceil(len(rows) / 10)
        assert sum(counts.get("tasks", {}).values()) <= 1


def test_a_call_that_is_stitched_anew_is_kept_beside_the_first_one(open_centre):
    centre = open_centre(
        tasks_per_hour=12, restitched_share=1.0, restitched_after_hours=5.0, telephony_weight=1.0
    )
    hour = centre.hour(2)
    centre.run(hour)
    before = {key: centre.archived.bytes_of(key) for key in centre.archived.objects}
    versions = {row["object_key"]: row["sha256"] for row in centre.archived.rows("captures")}

    recheck_after(centre, 1, 2, 4, 8)

    rows = centre.archived.rows("captures")
    current = {
        capture["sha256"]
        for task in centre.truth(hour)
        for capture in task["captures"]
        if capture["listed"]
    }
    assert {row["sha256"] for row in rows} == current
    again = [row for row in rows if "~v" in row["object_key"]]
    assert again
    for row in again:
        (earlier,) = json.loads(row["extra_json"])["archive"]["earlier_versions"]
        assert versions[earlier["object_key"]] == earlier["sha256"] != row["sha256"]
    for key, body in before.items():
        assert centre.archived.bytes_of(key) == body, "an object was overwritten"


def test_what_failed_is_tried_again_and_what_is_purged_meanwhile_is_called_gone(open_centre):
    centre = open_centre(
        tasks_per_hour=10, purged_share=1.0, purged_after_hours=20.0, telephony_weight=1.0
    )
    centre.sandbox.set_faults([{"endpoint": "media", "kind": "html_in_200"}])
    with pytest.raises(CapturesFailed):
        centre.run(centre.hour(2))
    assert set(states(centre)) <= {"failed", "none", "pending"}

    centre.sandbox.advance(30 * 3600)
    centre.sandbox.set_faults([])
    centre.recheck()

    rows = centre.archived.rows("captures")
    assert {row["outcome"] for row in rows} == {"gone"}
    assert {row["last_error"] for row in rows} == {
        "offered once, and no longer: purged before it could be copied"
    }


def test_what_failed_once_is_copied_by_a_later_recheck(open_centre):
    centre = open_centre(tasks_per_hour=10)
    hour = centre.hour(3)
    centre.sandbox.set_faults([{"endpoint": "media", "kind": "html_in_200"}])
    with pytest.raises(CapturesFailed):
        centre.run(hour)
    centre.sandbox.set_faults([])

    recheck_after(centre, 4)

    assert {row["outcome"] for row in centre.archived.rows("captures")} == {"copied"}
    assert_complete(centre.archived, centre.truth(hour))


def test_a_capture_that_never_comes_is_told_once_when_it_is_overdue(open_centre):
    centre = open_centre(tasks_per_hour=10, never_comes_share=1.0, access_token_seconds=SIXTY_DAYS)
    centre.run(centre.hour(2))
    recheck_after(centre, *[24] * 13)
    assert "overdue" not in states(centre)

    with pytest.raises(CapturesFailed, match="contact tasks are overdue"):
        recheck_after(centre, 24, 24)
    assert states(centre)["overdue"]
    recheck_after(centre, 24, 24)
    assert due(centre) == []


def test_an_hour_whose_run_died_before_publishing_is_archived_by_the_recheck(open_centre):
    centre = open_centre(tasks_per_hour=15)
    hour = centre.hour(1)
    archive_captures.plan_shards(hour, centre.client, centre.archive("died"), ArchiveOptions())

    recheck_after(centre, 9)

    assert_complete(centre.archived, centre.truth(hour))


def test_a_recheck_that_dies_before_publishing_is_done_by_the_next_one(open_centre):
    centre = open_centre(tasks_per_hour=15, late_capture_share=1.0, late_capture_hours=3.0)
    hour = centre.hour(1)
    centre.run(hour)
    centre.sandbox.advance(5 * 3600)
    archive = centre.archive("died")
    for shard in recheck_captures.plan_recheck(centre.client, archive):
        archive_captures.archive_shard(
            shard, centre.client, centre.media, archive, ArchiveOptions()
        )

    centre.sandbox.reset_requests()
    centre.recheck()

    assert_complete(centre.archived, centre.truth(hour))
    assert "200" not in centre.sandbox.requests()["counts"]["media"], "it was downloaded again"


def test_looks_come_closer_and_an_alarm_is_raised_before_the_purge(open_centre):
    centre = open_centre(tasks_per_hour=10, never_comes_share=1.0, telephony_weight=1.0)
    policy = CapturePolicy(retention=timedelta(days=4))
    archive = replace(centre.archive("retention"), policy=policy)
    shards = archive_captures.plan_shards(centre.hour(1), centre.client, archive, ArchiveOptions())
    for shard in shards:
        archive_captures.archive_shard(
            shard, centre.client, centre.media, archive, ArchiveOptions()
        )
    archive_captures.publish_tables(centre.hour(1), archive, shards)

    alarms: list[timedelta] = []
    told: set[str] = set()
    for _ in range(5 * DAY):
        centre.sandbox.advance(3600)
        shards = recheck_captures.plan_recheck(centre.client, archive)
        for shard in shards:
            archive_captures.archive_shard(
                shard, centre.client, centre.media, archive, ArchiveOptions()
            )
        try:
            if shards:
                recheck_captures.publish_recheck(archive, shards)
        except CapturesFailed as error:
            told.add(str(error).partition("purged ")[2][:4])
            alarms.append(centre.now - centre.hour(1).start)

    assert told == {"soon"}
    assert alarms[0] <= timedelta(days=3)
    assert len([alarm for alarm in alarms if alarm > timedelta(days=3, hours=12)]) >= 3
    assert set(states(centre)) <= {"gone", "none"}
