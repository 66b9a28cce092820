"""What one run of an hour promises: complete, whole, repeatable, frugal."""

import json
import math
import os
import signal
import time
from dataclasses import replace

import pytest

from include.domain.errors import CapturesFailed, PermanentError, TransientError
from include.domain.interval import HOUR, Interval, hour_of
from include.domain.rows import ContactTaskRow
from include.pipelines import archive_captures as pipeline
from include.pipelines.capture_copies import (
    CONCURRENT_COPIES,
    MAX_ATTEMPTS_IF_BROKEN,
    MAX_ATTEMPTS_IF_IMPLAUSIBLE,
    MAX_QUERIES_OF_ONE_BATCH,
)
from include.storage.tables import read_rows, to_parquet
from include.webex.captures import CaptureOptions
from tests.archived import assert_complete

# Hours old enough for every capture to be there, young enough not to be settled.
OLD_ENOUGH = 26


def test_an_hour_is_archived_row_by_row_and_byte_by_byte(open_centre):
    centre = open_centre(tasks_per_hour=60)
    hour = centre.hour(OLD_ENOUGH)

    centre.run(hour)

    assert_complete(centre.archived, centre.truth(hour))
    assert centre.archived.working_files == []
    assert centre.sandbox.requests()["refusals"] == []


@pytest.mark.parametrize("from_inclusive", [True, False], ids=["from inclusive", "from exclusive"])
@pytest.mark.parametrize("to_inclusive", [True, False], ids=["to inclusive", "to exclusive"])
def test_the_meaning_of_the_bounds_makes_no_difference(open_centre, from_inclusive, to_inclusive):
    centre = open_centre(
        tasks_per_hour=30, from_inclusive=from_inclusive, to_inclusive=to_inclusive
    )
    hour = centre.hour(OLD_ENOUGH)

    centre.run(hour)

    assert_complete(centre.archived, centre.truth(hour))


def test_a_drifting_contact_centre_is_archived_all_the_same(open_centre):
    """Other cases, missing members and entries, another order, unknown members: all unknown, all tolerated."""
    centre = open_centre(
        tasks_per_hour=60,
        omit_unmatched=True,
        shuffle_order=True,
        drop_optional_share=0.3,
        extra_members=True,
        rows_max=20,
        same_name_transcripts=True,
        odd_file_names_share=0.3,
    )
    hour = centre.hour(OLD_ENOUGH)

    centre.run(hour)

    assert_complete(centre.archived, centre.truth(hour))


def test_an_older_cell_that_refuses_newer_flags_is_archived_without_them(open_centre):
    """One refused query tells; everything that such a cell offers is there."""
    centre = open_centre(
        tasks_per_hour=40,
        newer_flags=False,
        unknown_flags="reject",
        future_to="reject",
        time_types="swapped",
        transcript_keys="upper",
        error_body="empty",
    )
    hour = centre.hour(OLD_ENOUGH)

    centre.run(hour)

    truth = centre.truth(hour, include_va=False, include_screen=False)
    assert_complete(centre.archived, truth)
    assert centre.sandbox.requests()["counts"]["captures"]["400"] == 1


def test_an_hour_beyond_the_reach_of_the_list_comes_from_the_search(open_centre):
    centre = open_centre(tasks_per_hour=30)
    hour = centre.hour(24 * 400)

    centre.run(hour)

    assert len(centre.archived.rows("contact_tasks")) == 30
    assert "tasks" not in centre.sandbox.requests()["counts"]
    copied = {row["sha256"] for row in centre.archived.rows("captures")}
    truth = centre.truth(hour)
    assert copied == {c["sha256"] for task in truth for c in task["captures"] if c["listed"]}


def test_the_hour_that_just_ended_is_listed_without_asking_about_the_future(open_centre):
    centre = open_centre(tasks_per_hour=20, future_to="reject")
    hour = centre.hour(1)

    centre.run(hour)

    assert len(centre.archived.rows("contact_tasks")) == 20
    assert centre.sandbox.requests()["refusals"] == []


def test_a_contact_task_of_which_nothing_is_known_yet_is_asked_about(open_centre):
    """``captureRequested`` null means not yet known; read as false, its captures would be lost."""
    centre = open_centre(
        tasks_per_hour=20, requested_unknown_share=1.0, requested_unknown_hours=24.0 * 30
    )
    hour = centre.hour(OLD_ENOUGH)

    centre.run(hour)

    rows = centre.archived.rows("contact_tasks")
    assert any(row["capture_requested"] is None and row["capture_count"] for row in rows)
    assert_complete(centre.archived, centre.truth(hour))


def test_segments_instead_of_the_stitched_recording(open_centre):
    centre = open_centre(tasks_per_hour=40)
    hour = centre.hour(OLD_ENOUGH)
    options = pipeline.ArchiveOptions(captures=CaptureOptions(include_segments=True))

    centre.run(hour, options)

    assert_complete(centre.archived, centre.truth(hour, include_segments=True))
    assert any(row["segment"] for row in centre.archived.rows("captures"))


def test_only_the_chosen_channel_types(open_centre):
    centre = open_centre(tasks_per_hour=40)
    hour = centre.hour(OLD_ENOUGH)

    centre.run(hour, pipeline.ArchiveOptions(channel_types=("email", "chat")))

    chosen = [
        task
        for task in centre.truth(hour)
        if task["attributes"]["channelType"] in {"email", "chat"}
    ]
    assert_complete(centre.archived, chosen)


def test_no_more_requests_than_the_arithmetic_allows(open_centre):
    centre = open_centre(tasks_per_hour=2_500, recording_bytes_max=20_100, screen_bytes_max=50_100)
    hour = centre.hour(OLD_ENOUGH)

    shards = pipeline.plan_shards(hour, centre.client, centre.archive(), pipeline.ArchiveOptions())
    queried = sum(shard.count for shard in shards)

    possible = [
        t
        for t in centre.truth(hour, with_sha256=False)
        if t["attributes"].get("captureRequested") is not False
    ]
    counts = centre.sandbox.requests()["counts"]
    assert queried == len(possible)
    assert counts["tasks"]["200"] <= math.ceil(2_500 / 1_000) + 1
    assert sum(math.ceil(shard.count / 10) for shard in shards) == math.ceil(len(possible) / 10)
    # Each shard reads its own share of the plan and no other, and whoever removes it removes that first.
    archive = centre.archive()
    keys = [archive.working_file(shard.file_name(pipeline.TO_QUERY)) for shard in shards]
    shares = [read_rows(archive.store, key, ContactTaskRow) for key in keys]
    assert [len(share) for share in shares] == [shard.count for shard in shards]
    planned = {row.task_id for share in shares for row in share}
    assert planned == {task["task_id"] for task in possible}
    assert archive.own_working_files()[: len(keys)] == sorted(keys, reverse=True)


def test_a_second_run_downloads_nothing_and_changes_no_capture(open_centre):
    centre = open_centre(tasks_per_hour=40)
    hour = centre.hour(OLD_ENOUGH)
    centre.run(hour)
    before = centre.archived.rows("captures")
    centre.sandbox.reset_requests()

    centre.sandbox.advance(600)
    centre.run(hour, run_id="another run")

    assert "media" not in centre.sandbox.requests()["counts"]
    assert centre.archived.rows("captures") == before
    assert_complete(centre.archived, centre.truth(hour))


def test_copying_again_downloads_everything_again(open_centre):
    centre = open_centre(tasks_per_hour=20)
    hour = centre.hour(OLD_ENOUGH)
    centre.run(hour)
    downloads = centre.sandbox.requests()["counts"]["media"]["200"]
    centre.sandbox.reset_requests()

    centre.run(hour, pipeline.ArchiveOptions(recopy=True))

    assert centre.sandbox.requests()["counts"]["media"]["200"] == downloads
    assert_complete(centre.archived, centre.truth(hour))


def test_an_empty_hour_publishes_empty_partitions(open_centre):
    centre = open_centre(tasks_per_hour=0)
    hour = centre.hour(OLD_ENOUGH)

    centre.run(hour)

    tables = [key for key in centre.archived.keys if "/created_date=" in key]
    assert len(tables) == 2
    assert centre.archived.rows("contact_tasks") == centre.archived.rows("captures") == []
    assert centre.sandbox.requests()["counts"] == {"tasks": {"200": 1}}


def test_a_longer_interval_is_published_hour_by_hour(open_centre):
    centre = open_centre(tasks_per_hour=15)
    start = centre.hour(OLD_ENOUGH).start
    interval = Interval(start, start + 3 * HOUR)

    centre.run(interval)

    assert_complete(centre.archived, centre.truth(interval))
    partitions = [key for key in centre.archived.keys if key.startswith("tables/captures/")]
    assert [key[-10:] for key in partitions] == [
        f"{(start + n * HOUR):%H}.parquet" for n in range(3)
    ]


def test_a_run_that_died_before_publishing_is_finished_without_a_second_download(open_centre):
    centre = open_centre(tasks_per_hour=30)
    hour = centre.hour(OLD_ENOUGH)
    archive, options = centre.archive(), pipeline.ArchiveOptions()
    for shard in pipeline.plan_shards(hour, centre.client, archive, options):
        pipeline.archive_shard(shard, centre.client, centre.media, archive, options)
    centre.sandbox.reset_requests()

    centre.run(hour, run_id="after the crash")

    assert "media" not in centre.sandbox.requests()["counts"]
    archived = centre.archived
    assert_complete(archived, centre.truth(hour))
    assert {row["format"] for row in archived.rows("captures")} >= {"wav", "vcon", "json"}


def test_a_foreign_object_under_a_final_key_is_not_taken_for_the_capture(open_centre):
    centre = open_centre(tasks_per_hour=20)
    hour = centre.hour(OLD_ENOUGH)
    centre.run(hour)
    victim = next(row for row in centre.archived.rows("captures") if row["format"] == "wav")
    centre.s3.put_object(
        Bucket=centre.bucket, Key=victim["object_key"], Body=b"<html>not a recording</html>"
    )

    centre.run(hour, run_id="again")

    assert_complete(centre.archived, centre.truth(hour))


def test_a_capture_that_fails_is_a_row_and_stops_no_other(open_centre):
    centre = open_centre(tasks_per_hour=40)
    hour = centre.hour(OLD_ENOUGH)
    broken = _offered(centre, hour, "recording")[0]
    centre.sandbox.set_faults(
        [{"endpoint": "media", "kind": "html_in_200", "match": broken["path"]}]
    )

    with pytest.raises(CapturesFailed, match=rf"1 of \d+ captures failed .*{broken['task_id']}"):
        centre.run(hour)

    rows = {
        row["capture_id"]: row
        for row in centre.archived.rows("captures")
        if row["kind"] == "recording"
    }
    failed = rows.pop(broken["id"])
    assert (failed["outcome"], failed["object_key"], failed["attempts"]) == ("failed", None, 3)
    assert (
        failed["last_error"] == "The body is not a WAV file: it does not begin with RIFF and WAVE."
    )
    assert {row["outcome"] for row in rows.values()} == {"copied"}
    states = {row["task_id"]: row["capture_state"] for row in centre.archived.rows("contact_tasks")}
    assert states[broken["task_id"]] == "failed"

    centre.sandbox.set_faults([])
    centre.run(hour, run_id="after the trouble")
    assert_complete(centre.archived, centre.truth(hour))


def test_a_purged_object_is_gone_and_the_run_goes_on(open_centre):
    centre = open_centre(tasks_per_hour=30)
    hour = centre.hour(OLD_ENOUGH)
    purged = _offered(centre, hour, "recording")[0]
    centre.sandbox.set_faults([{"endpoint": "media", "kind": "purged", "match": purged["path"]}])

    centre.run(hour)

    outcomes = {
        row["capture_id"]: row["outcome"]
        for row in centre.archived.rows("captures")
        if row["task_id"] == purged["task_id"]
    }
    assert outcomes[purged["id"]] == "gone"


def test_an_expired_url_is_asked_for_again(open_centre):
    centre = open_centre(tasks_per_hour=20)
    hour = centre.hour(OLD_ENOUGH)
    centre.sandbox.set_faults([{"endpoint": "media", "kind": "expired_url", "times": 3}])

    centre.run(hour)

    assert_complete(centre.archived, centre.truth(hour))
    # Asking again concerns whole contact tasks; what was copied of them is not copied twice.
    downloads = centre.sandbox.requests()["counts"]["media"]["200"]
    assert downloads == len(centre.archived.objects)


def test_a_url_that_is_always_refused_fails_after_a_bounded_number_of_queries(open_centre):
    centre = open_centre(tasks_per_hour=10)
    hour = centre.hour(OLD_ENOUGH)
    refused = _offered(centre, hour, "recording")[0]
    centre.sandbox.set_faults(
        [{"endpoint": "media", "kind": "expired_url", "match": refused["path"]}]
    )

    with pytest.raises(CapturesFailed, match="1 of"):
        centre.run(hour)

    counts = centre.sandbox.requests()["counts"]
    assert counts["captures"]["200"] <= 1 + MAX_QUERIES_OF_ONE_BATCH


@pytest.mark.parametrize(
    "kind",
    [
        "reset_before_headers",
        "reset_mid_body",
        "short_body",
        "short_body_chunked",
        "empty_body",
        "http_503",
        "json_error_in_200",
    ],
)
def test_a_download_that_breaks_once_is_repeated(open_centre, kind):
    centre = open_centre(tasks_per_hour=15)
    hour = centre.hour(OLD_ENOUGH)
    centre.sandbox.set_faults([{"endpoint": "media", "kind": kind, "times": 2}])

    centre.run(hour)

    assert_complete(centre.archived, centre.truth(hour))


def test_a_throttling_media_host_is_left_alone_as_long_as_it_asks(open_centre):
    centre = open_centre(tasks_per_hour=10)
    hour = centre.hour(OLD_ENOUGH)
    centre.sandbox.set_faults(
        [{"endpoint": "media", "kind": "throttle", "times": 4, "retry_after_seconds": 45}]
    )

    centre.run(hour)

    assert_complete(centre.archived, centre.truth(hour))
    assert len([seconds for seconds in centre.slept if seconds >= 45]) == 4


def test_a_media_host_in_trouble_is_asked_longer_than_one_that_sends_nonsense(open_centre):
    centre = open_centre(tasks_per_hour=10)
    hour = centre.hour(OLD_ENOUGH)
    path = _offered(centre, hour, "recording")[0]["path"]
    centre.sandbox.set_faults(
        [
            {
                "endpoint": "media",
                "kind": "http_503",
                "match": path,
                "times": MAX_ATTEMPTS_IF_BROKEN - 1,
            }
        ]
    )

    centre.run(hour)

    assert_complete(centre.archived, centre.truth(hour))
    assert sum(centre.slept) >= 30
    assert MAX_ATTEMPTS_IF_IMPLAUSIBLE < MAX_ATTEMPTS_IF_BROKEN


def test_a_store_in_trouble_fails_the_shard_for_another_try_and_marks_no_capture(open_centre):
    centre = open_centre(tasks_per_hour=10)
    hour = centre.hour(OLD_ENOUGH)
    archive, options = centre.archive(), pipeline.ArchiveOptions()
    [shard] = pipeline.plan_shards(hour, centre.client, archive, options)

    class FullStore(type(archive.store)):
        def write_stream(self, key, source, condition=None, approve=None):
            raise TransientError("The object store answered 507.")

    full = replace(archive, store=FullStore(centre.s3, centre.bucket))
    with pytest.raises(TransientError, match="507"):
        pipeline.archive_shard(shard, centre.client, centre.media, full, options)

    assert centre.archived.objects == []


class Ended(BaseException):
    """As Airflow ends what takes longer than its `execution_timeout`."""


def deny() -> None:
    raise PermanentError("The object store denies it.")


def end_the_run() -> None:
    os.kill(os.getpid(), signal.SIGALRM)  # the main thread gets it


@pytest.mark.parametrize(
    ("what_happens", "error"),
    [(deny, PermanentError), (end_the_run, Ended)],
    ids=["failed for good", "run was ended"],
)
def test_no_copy_begins_after(open_centre, what_happens, error):
    centre = open_centre(tasks_per_hour=10)
    archive, options = centre.archive(), pipeline.ArchiveOptions()
    [shard] = pipeline.plan_shards(centre.hour(OLD_ENOUGH), centre.client, archive, options)
    begun = []

    class SlowStore(type(archive.store)):
        def write_stream(self, key, source, condition=None, approve=None):
            begun.append(key)
            if len(begun) == CONCURRENT_COPIES:
                what_happens()
            time.sleep(1)
            return super().write_stream(key, source, condition, approve)

    def end(*_):
        raise Ended

    slow = replace(archive, store=SlowStore(centre.s3, centre.bucket))
    handler = signal.signal(signal.SIGALRM, end)
    try:
        with pytest.raises(error):
            pipeline.archive_shard(shard, centre.client, centre.media, slow, options)
    finally:
        signal.signal(signal.SIGALRM, handler)

    assert len(begun) == CONCURRENT_COPIES < len(centre.truth(centre.hour(OLD_ENOUGH)))


def test_a_shard_that_never_finished_leaves_its_contact_tasks_pending(open_centre):
    centre = open_centre(tasks_per_hour=10)
    hour = centre.hour(OLD_ENOUGH)
    archive = centre.archive()
    shards = pipeline.plan_shards(hour, centre.client, archive, pipeline.ArchiveOptions())

    with pytest.raises(CapturesFailed, match="their shards did not finish"):
        pipeline.publish_tables(hour, archive, shards)

    states = {row["capture_state"] for row in centre.archived.rows("contact_tasks")}
    assert len(centre.archived.rows("contact_tasks")) == 10
    assert states == {"pending", "none"}
    assert centre.archived.working_files, "a repeat of the shard needs the plan"


def test_a_plan_that_was_swept_says_what_to_clear(open_centre):
    centre = open_centre(tasks_per_hour=5)

    with pytest.raises(PermanentError, match="clear the whole run"):
        pipeline.publish_tables(centre.hour(OLD_ENOUGH), centre.archive(), [])


def test_a_missing_bucket_is_noticed_before_anything_is_asked_of_webex(open_centre):
    centre = open_centre(tasks_per_hour=5)
    centre.bucket = "no-such-bucket"

    with pytest.raises(PermanentError, match=r"no-such-bucket does not exist.*bucket_name"):
        centre.run(centre.hour(OLD_ENOUGH))

    assert centre.sandbox.requests()["counts"] == {}


def test_captures_seen_earlier_stay_rows_when_the_api_no_longer_offers_them(open_centre):
    centre = open_centre(tasks_per_hour=20, purged_share=1.0, purged_after_hours=30.0)
    hour = centre.hour(OLD_ENOUGH)
    centre.run(hour)
    before = centre.archived.rows("captures")
    assert before

    centre.sandbox.advance(20 * 3600)
    centre.run(hour, run_id="after the purge")

    kept = centre.archived.rows("captures")
    assert [(r["capture_id"], r["sha256"]) for r in kept] == [
        (r["capture_id"], r["sha256"]) for r in before
    ]


def test_a_contact_task_that_turns_not_requested_keeps_what_was_copied(open_centre):
    centre = open_centre(tasks_per_hour=10)
    hour = centre.hour(OLD_ENOUGH)
    centre.run(hour)
    before = {row["task_id"]: row for row in centre.archived.rows("contact_tasks")}
    archive = centre.archive("later")
    shards = pipeline.plan_shards(hour, centre.client, archive, pipeline.ArchiveOptions())
    plan = archive.working_file("planned.parquet")
    turned = [
        replace(row, capture_requested=False, capture_state="none")
        for row in read_rows(archive.store, plan, ContactTaskRow)
    ]
    archive.store.write(plan, to_parquet(turned, ContactTaskRow))

    pipeline.archive_shard(
        shards[0], centre.client, centre.media, archive, pipeline.ArchiveOptions()
    )
    pipeline.publish_tables(hour, archive, shards)

    after = {row["task_id"]: row for row in centre.archived.rows("contact_tasks")}
    assert any(row["capture_count"] for row in before.values())
    for task_id, row in after.items():
        assert row["capture_count"] == before[task_id]["capture_count"]
        assert (row["capture_state"] == "none") == (row["capture_count"] == 0)


def test_working_files_of_a_run_that_failed_are_swept_after_a_day(open_centre):
    centre = open_centre(tasks_per_hour=5, now_ms=0)
    hour_start = hour_of(centre.now) - OLD_ENOUGH * HOUR
    hour = Interval(hour_start, hour_start + HOUR)
    pipeline.plan_shards(hour, centre.client, centre.archive("failed"), pipeline.ArchiveOptions())

    later = replace(centre.archive("next"), now=lambda: centre.now + 25 * HOUR)
    pipeline.plan_shards(hour, centre.client, later, pipeline.ArchiveOptions())

    assert [key for key in centre.archived.working_files if "/failed/" in key] == []
    assert [key for key in centre.archived.working_files if "/next/" in key]


def test_settled_hours_are_archived_and_final(open_centre):
    centre = open_centre(tasks_per_hour=30)
    hour = centre.hour(24 * 5)

    centre.run(hour)

    rows = centre.archived.rows("contact_tasks")
    with_captures = [row for row in rows if row["capture_count"]]
    assert with_captures
    assert {row["capture_state"] for row in with_captures} == {"archived"}
    assert {row["next_check_time"] for row in with_captures} == {None}


def test_nothing_signed_and_no_token_reaches_the_bucket(open_centre):
    centre = open_centre(tasks_per_hour=30, extra_members=True)
    hour = centre.hour(OLD_ENOUGH)
    centre.run(hour)

    archived = centre.archived
    tables = [key for key in archived.keys if key.endswith(".parquet")]
    text = json.dumps([archived.rows("contact_tasks"), archived.rows("captures")], default=str)
    secrets = [
        "X-Amz-Signature",
        "X-Amz-Credential",
        "_PF84_",
        centre.connection.client_secret.get_secret_value(),
    ]
    for secret in secrets:
        assert secret not in text
        assert not any(secret in key for key in archived.keys)
        assert not any(secret.encode() in archived.bytes_of(key) for key in tables)


def _offered(centre, hour, kind):
    return [
        # A stitched recording has the id of its contact task; with its file name, it names one object.
        capture
        | {"task_id": task["task_id"], "path": f"{capture['object_id']}/{capture['file_name']}"}
        for task in centre.truth(hour)
        for capture in task["captures"]
        if capture["listed"]
        and capture["kind"] == kind
        and capture["file_name"]
        and capture["file_name"].endswith(".wav")
    ]


def test_a_retry_of_what_was_published_already_succeeds(open_centre):
    """Killed between the last write and Airflow's note of its success, it is tried again by Airflow."""
    centre = open_centre(tasks_per_hour=10)
    hour, archive = centre.hour(OLD_ENOUGH), centre.archive()
    shards = pipeline.plan_shards(hour, centre.client, archive, pipeline.ArchiveOptions())
    for shard in shards:
        pipeline.archive_shard(
            shard, centre.client, centre.media, archive, pipeline.ArchiveOptions()
        )
    pipeline.publish_tables(hour, archive, shards)

    pipeline.publish_tables(hour, archive, shards)

    assert_complete(centre.archived, centre.truth(hour))
    centre.sandbox.advance(25 * 3600)
    with pytest.raises(PermanentError, match="clear the whole run"):
        pipeline.publish_tables(hour, archive, shards)
