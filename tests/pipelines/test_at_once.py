"""Several runs on the same hour at once give what they give one after the other."""

import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import pytest

from include.domain.interval import HOUR, Interval
from include.pipelines.archive_captures import ArchiveOptions
from tests import s3_servers
from tests.archived import assert_complete
from tests.chained import assert_nothing_is_overwritten, assert_published, assert_sound
from tests.pipelines.conftest import Centre
from tests.pipelines.dag_runs import AirflowTasks, archive_hours, in_new_bucket, recheck
from tests.s3_servers import S3Server
from tests.storage.threads import run_at_once

pytestmark = pytest.mark.timeout(600)
SCENARIO = {
    "tasks_per_hour": 6,
    "recording_bytes_max": 21_000,
    "screen_bytes_max": 51_000,
    "late_capture_share": 0.3,
    "late_capture_hours": 4.0,
    "requested_unknown_share": 0.2,
    "late_listed_share": 0.2,
    "late_listed_minutes": 180.0,
    "restitched_share": 0.3,
    "restitched_after_hours": 4.0,
}
# How often something was downloaded depends on who came first.
NOT_COMPARED = {"attempts", "copied_time"}
# So do the times, where a recheck finds done what it would have done itself.
TIMES = {"first_seen_time", "checked_time", "next_check_time"}

AnyRun = Callable[[Centre, AirflowTasks], None]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    # Tens of thousands of lines, one for each request.
    caplog.set_level(logging.WARNING)
    caplog.set_level(logging.WARNING, "werkzeug")


@pytest.fixture
def begun(open_centre: Callable[..., Centre]) -> Centre:
    """A centre whose hour was archived when it had ended, six hours ago."""
    centre = open_centre(**SCENARIO)
    centre.run(the_hour(centre))
    centre.sandbox.advance(6 * 3600)
    return centre


def the_hour(centre: Centre) -> Interval:
    return centre.hour(2)


def around(hour: Interval) -> Interval:
    return Interval(hour.start - HOUR, hour.end + HOUR)


def hourly(centre: Centre, tasks: AirflowTasks) -> None:
    archive_hours(later(centre, 0), the_hour(centre), tasks, "hourly")


def rechecking(centre: Centre, tasks: AirflowTasks) -> None:
    recheck(later(centre, 60), tasks)


def backfill(centre: Centre, tasks: AirflowTasks) -> None:
    archive_hours(later(centre, 120), around(the_hour(centre)), tasks, "backfill")


def by_hand(centre: Centre, tasks: AirflowTasks) -> None:
    """A person has everything copied again."""
    options = ArchiveOptions(recopy=True)
    archive_hours(later(centre, 180), the_hour(centre), tasks, "by hand", options)


RUNS: tuple[AnyRun, ...] = (hourly, rechecking, backfill, by_hand)


def later(centre: Centre, seconds: float) -> Centre:
    """The centre as a run sees it whose clock is some seconds ahead."""
    return dataclasses.replace(centre, seconds_ahead=centre.seconds_ahead + seconds)


def one_after_the_other(begun: Centre) -> Centre:
    centre = in_new_bucket(begun, begun.bucket)
    for run in RUNS:
        run(centre, AirflowTasks())
    return centre


def assert_same(
    centre: Centre, expected: Centre, interval: Interval, not_compared: set[str] = NOT_COMPARED
) -> None:
    archived = centre.archived
    for table in ("contact_tasks", "captures"):
        rows, others = sorted_rows(centre, table), sorted_rows(expected, table)
        different = [
            (name, row[name], other[name])
            for row, other in zip(rows, others, strict=True)
            for name in row
            if name not in not_compared and row[name] != other[name]
        ]
        assert different == []
    assert sorted(archived.objects) == sorted(expected.archived.objects)
    assert_complete(archived, centre.truth(interval))
    assert_published(archived)
    assert archived.working_files == []
    six_hours_ago = centre.sandbox.now_ms() - 6 * 3_600_000
    truth = [*centre.truth(interval), *centre.truth(interval, at_ms=six_hours_ago)]
    assert_sound(archived, {capture["sha256"] for task in truth for capture in task["captures"]})


def sorted_rows(centre: Centre, table: str) -> list[dict[str, Any]]:
    return sorted(
        centre.archived.rows(table),
        key=lambda row: [str(row.get(name)) for name in ("task_id", "kind", "capture_id")],
    )


def a_client(server: S3Server) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
    )


# Four at once


@pytest.mark.parametrize("seed", range(3))
def test_four_runs_at_once_are_as_one_after_the_other(
    begun: Centre, s3_server: S3Server, seed: int
):
    expected = one_after_the_other(begun)
    centre = in_new_bucket(begun)
    centre.s3.put_bucket_versioning(
        Bucket=centre.bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    copy_of(begun, centre)
    s3 = a_client(s3_server)
    hold_up(s3, random.Random(seed))
    at_once = dataclasses.replace(centre, s3=s3)

    run_at_once([lambda run=run: run(at_once, AirflowTasks()) for run in RUNS])

    assert_same(centre, expected, around(the_hour(centre)))
    assert_nothing_is_overwritten(centre.s3, centre.bucket)


def copy_of(begun: Centre, centre: Centre) -> None:
    for key in begun.archived.keys:
        source = {"Bucket": begun.bucket, "Key": key}
        centre.s3.copy_object(Bucket=centre.bucket, Key=key, CopySource=source)


def hold_up(s3: Any, rng: random.Random) -> None:
    """Let every write wait up to a tenth of a second, so that each round has another order."""

    def wait(request: Any, **_: Any) -> None:
        if request.method != "GET":
            time.sleep(rng.random() / 10)

    s3.meta.events.register_first("before-send.s3", wait)


# One in the middle of another


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        # A run by hand and a backfill write as the hourly one does, a backfill only more of it.
        (hourly, rechecking),
        (hourly, backfill),
        (rechecking, hourly),
        (rechecking, backfill),
        (backfill, rechecking),
    ],
    ids=lambda run: run.__name__,
)
def test_a_run_in_the_middle_of_another_is_as_one_after_the_other(
    begun: Centre, s3_server: S3Server, outer: AnyRun, inner: AnyRun
):
    """Wholly between any two writes of the other's publication."""
    expected = in_new_bucket(begun, begun.bucket)
    for run in sorted((inner, outer), key=RUNS.index):
        run(expected, AirflowTasks())
    s3 = a_client(s3_server)
    writes = WritesOfPublication(s3)
    outer(dataclasses.replace(in_new_bucket(begun, begun.bucket), s3=s3), AirflowTasks())
    for write in range(1, writes.count + 1):
        centre = in_new_bucket(begun, begun.bucket)

        writes.hold_up(write, lambda centre=centre: inner(centre, AirflowTasks()))
        outer(dataclasses.replace(centre, s3=s3), AirflowTasks())

        interval = the_hour(centre)
        assert_same(
            centre,
            expected,
            around(interval) if backfill in (outer, inner) else interval,
            NOT_COMPARED | TIMES if rechecking in (outer, inner) else NOT_COMPARED,
        )


class WritesOfPublication:
    """Counts the writes beside captures and working files, and holds up one of them."""

    def __init__(self, s3: Any) -> None:
        self.count = 0
        self._held_up = 0
        self._action: Callable[[], None] = lambda: None
        s3.meta.events.register_first("before-send.s3", self._before_send)

    def hold_up(self, write: int, action: Callable[[], None]) -> None:
        self.count, self._held_up, self._action = 0, write, action

    def _before_send(self, request: Any, **_: Any) -> None:
        is_published = any(f"/{name}/" in request.url for name in ("due", "manifests", "tables"))
        if request.method in {"PUT", "DELETE"} and is_published:
            self.count += 1
            if self.count == self._held_up:
                self._action()


# Stores without conditional writes


class OneSlot(AirflowTasks):
    """As in a pool with one slot: one Airflow task at a time, of whichever run."""

    def __init__(self, slot: threading.Lock, rng: random.Random) -> None:
        super().__init__()
        self._slot, self._rng = slot, rng

    def run(self, name: str, action: Callable[[], Any]) -> Any:
        time.sleep(self._rng.random() / 5)  # another run may be first
        with self._slot:
            return super().run(name, action)


@pytest.fixture
def start_server(tmp_path: Path, s3_server: S3Server) -> Iterator[Callable[[str], S3Server]]:
    with ExitStack() as stack:

        def start(name: str) -> S3Server:
            if name == "moto":
                return s3_server
            if name == "rclone":
                return stack.enter_context(
                    s3_servers.rclone_server(tmp_path / "rclone" / "buckets")
                )
            if why := s3_servers.why_swift_cannot_run(tmp_path / "swift"):
                pytest.skip(why)
            return stack.enter_context(s3_servers.swift_server(tmp_path / "swift"))

        yield start


@pytest.mark.parametrize("server", ["swift", "rclone"])
def test_a_pool_with_one_slot_makes_up_for_conditional_writes(
    begun: Centre, start_server: Callable[[str], S3Server], server: str
):
    expected = one_after_the_other(begun)
    centre = in_new_bucket(begun, begun.bucket, a_client(start_server(server)))
    slot = threading.Lock()

    run_at_once(
        [
            lambda run=run, seed=seed: run(centre, OneSlot(slot, random.Random(seed)))
            for seed, run in enumerate(RUNS)
        ]
    )

    assert_same(centre, expected, around(the_hour(centre)))


@pytest.mark.parametrize(
    ("server", "is_lost"),
    [
        pytest.param("moto", False, id="conditions are kept"),
        pytest.param("rclone", True, id="conditions are ignored"),
    ],
)
def test_without_conditions_two_at_once_lose_rows(
    open_centre: Callable[..., Centre],
    start_server: Callable[[str], S3Server],
    server: str,
    is_lost: bool,
):
    """Why such a store needs the pool: one run publishes chats, while another publishes calls."""
    s3, inner_s3 = (a_client(start_server(server)) for _ in range(2))
    centre = in_new_bucket(open_centre(**SCENARIO), s3=s3)
    chats, calls = (
        ArchiveOptions(channel_types=("chat",)),
        ArchiveOptions(channel_types=("telephony",)),
    )
    writes = WritesOfPublication(s3)
    inner = dataclasses.replace(centre, s3=inner_s3)
    # The marker and the manifest are its first two writes.
    writes.hold_up(
        3, lambda: archive_hours(inner, the_hour(centre), AirflowTasks(), "calls", calls)
    )

    archive_hours(centre, the_hour(centre), AirflowTasks(), "chats", chats)

    there = {row["channel_type"] for row in centre.archived.rows("contact_tasks")}
    assert ("telephony" not in there) == is_lost
