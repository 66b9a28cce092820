"""A year of hours: memory does not grow with them, and what is due is found in a listing of what is due."""

import gc
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow
import pytest

from include.domain.interval import HOUR, Interval
from include.pipelines.recheck_captures import MAX_HOURS_OF_ONE_RUN, plan_recheck
from tests.s3_servers import S3Server, rclone_server

HOURS_OF_A_YEAR = 8_760
DAY = 24 * HOUR
pytestmark = pytest.mark.timeout(300)  # half a minute, unless the machine is busy
THE_SANDBOX_LEFT_OUT = [
    tracemalloc.Filter(inclusive=False, filename_pattern=pattern)
    for pattern in ("*/include/sandbox/*", "*/aiohttp/*", "*/yarl/*", "*/asyncio/*")
]


@pytest.fixture(scope="module")
def bucket_directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("a-year") / "buckets"


@pytest.fixture(scope="module")
def s3_server(bucket_directory) -> Iterator[S3Server]:
    """A process of its own, so that what it keeps is not taken for ours; its objects are plain files."""
    with rclone_server(bucket_directory) as server:
        yield server


@pytest.fixture
def listings(s3) -> Counter[str]:
    """How often each prefix was listed."""
    counts: Counter[str] = Counter()

    def count(params, **_) -> None:
        counts[params.get("Prefix", "")] += 1

    s3.meta.events.register("provide-client-params.s3.ListObjectsV2", count)
    return counts


def test_what_is_due_of_a_year_is_listed_in_less_than_a_second(
    open_centre, bucket_directory, listings
):
    centre = open_centre(tasks_per_hour=0)
    archive = centre.archive()
    # The newest hours are due for longest: an order of their own, so that it shows which of them are taken.
    markers = [
        archive.keys.due_marker(
            centre.now - timedelta(minutes=HOURS_OF_A_YEAR - hours_ago), "check", hour
        )
        for hours_ago in range(1, HOURS_OF_A_YEAR + 1)
        for hour in [centre.now - hours_ago * HOUR]
    ]
    for marker in markers:
        file = bucket_directory / centre.bucket / marker.key
        file.parent.mkdir(parents=True)
        file.touch()

    def seconds_of_a_listing() -> float:
        """Of this thread, not of the clock on the wall: that is the store's and the machine's."""
        listings.clear()
        start = time.thread_time()
        assert list(archive.due_markers(centre.now)) == markers
        return time.thread_time() - start

    assert any(seconds_of_a_listing() < 1 for _ in range(3))
    assert listings == {archive.keys.due_markers(): 9}

    listings.clear()
    due = list(archive.due_markers(centre.now - timedelta(minutes=HOURS_OF_A_YEAR - 2_500)))
    assert due == markers[:2_500]
    assert listings == {archive.keys.due_markers(): 3}  # what is due later is not listed

    listings.clear()
    plan_recheck(centre.client, archive)
    assert listings[archive.keys.due_markers()] == 9
    found = archive.store.read(archive.working_file("due.txt"))
    assert found
    oldest = markers[-MAX_HOURS_OF_ONE_RUN:]
    assert found[0].decode().split() == [marker.key for marker in oldest]


def test_memory_does_not_grow_with_the_hours_archived(open_centre):
    """An hour may leave 700 bytes behind, as the caches of libraries do: so a year about 6 MB.

    One row kept of each hour is twice that.
    """
    centre = open_centre(
        tasks_per_hour=1, captured_share=0.2, recording_bytes_min=1_024, recording_bytes_max=2_000
    )
    first = centre.hour(40 * 24).start
    days = [Interval(first + n * DAY, first + (n + 1) * DAY) for n in range(12)]

    def bytes_after(some_days: list[Interval]) -> int:
        for day in some_days:
            centre.run(day, run_id=f"{day.start:%Y-%m-%d}")
        centre.sandbox.reset_requests()
        gc.collect()
        if not tracemalloc.is_tracing():
            return 0
        traced = tracemalloc.take_snapshot().filter_traces(THE_SANDBOX_LEFT_OUT)
        return sum(statistic.size for statistic in traced.statistics("filename"))

    bytes_after(days[:2])  # what is made once
    tracemalloc.start()
    try:
        before = bytes_after(days[2:4])
        after = bytes_after(days[4:])
    finally:
        tracemalloc.stop()
    assert (after - before) / (24 * len(days[4:])) < 700
    assert pyarrow.total_allocated_bytes() == 0  # of these, tracemalloc does not know
