"""Whatever write a process dies at, the next run brings everything to where it would have been."""

import contextlib
import logging
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from include.domain.interval import HOUR, Interval, epoch_ms, from_epoch_ms
from include.webex.http_client import WebexClient
from include.webex.tokens import TokenPair, request_token_pair
from tests.archived import assert_complete
from tests.chained import assert_published, assert_sound
from tests.pipelines.conftest import Centre, UncountedBudget
from tests.pipelines.dag_runs import AirflowTasks, archive_hours, in_new_bucket, recheck
from tests.pipelines.killed_process import (
    TOKEN_WRITE,
    Dag,
    KilledProcess,
    Moment,
    Run,
    killed_process,
)
from tests.s3_servers import S3Server

pytestmark = pytest.mark.timeout(900)
# In 2039: the S3 server dates objects by its own clock, which must not be ahead of the contact centre's.
NOW_MS = 2_199_999_600_000
# Small ones, of which hundreds of copies take no time; S3 itself wants 5 MiB.
PART_BYTES = 64 << 10
# The least contact centre with one of each: a recording of two parts, one that is stitched anew later, a
# transcript that comes late, and a contact task that is listed late.
SCENARIO = {
    "seed": 616,
    "tasks_per_hour": 4,
    "tied_share": 0.0,
    "abandoned_share": 0.0,
    "captured_share": 1.0,
    "telephony_weight": 0.7,
    "email_weight": 0.0,
    "chat_weight": 0.3,
    "social_weight": 0.0,
    "late_capture_share": 0.3,
    "late_capture_hours": 6.0,
    "late_listed_share": 0.3,
    "late_listed_minutes": 180.0,
    "restitched_share": 0.4,
    "restitched_after_hours": 4.0,
    "consult_share": 0.0,
    "va_share": 0.0,
    "screen_share": 0.0,
    "transcript_share": 0.3,
    "both_transcripts_share": 0.0,
    "recording_bytes_min": PART_BYTES + 2_000,
    "recording_bytes_max": PART_BYTES + 4_000,
    "call_seconds_max": 600,
}
MOMENTS: tuple[Moment, ...] = ("before", "after")


@dataclass
class World:
    """One contact centre at three moments, and the S3 server of all buckets."""

    now: Centre
    then: Centre
    """Six hours later: what came late is there, and due."""
    afterwards: Centre
    """An hour after that."""
    webex: dict[int, dict[str, Any]]
    s3: dict[str, Any]
    _truths: dict[int, list[dict[str, Any]]] = field(default_factory=dict[int, Any])

    @property
    def hour(self) -> Interval:
        start = from_epoch_ms(NOW_MS) - 2 * HOUR
        return Interval(start, start + HOUR)

    def run(self, dag: Dag, centre: Centre) -> Run:
        return Run(
            dag=dag,
            now_ms=centre.sandbox.now_ms(),
            hour_ms=epoch_ms(self.hour.start),
            webex=self.webex[id(centre.sandbox)],
            s3=self.s3,
            bucket=centre.bucket,
            part_bytes=PART_BYTES,
        )

    @cached_property
    def whole_sha256(self) -> set[str]:
        return {
            capture["sha256"]
            for centre in (self.now, self.then)
            for task in centre.truth(self.hour)
            for capture in task["captures"]
        }

    def truth(self, centre: Centre) -> list[dict[str, Any]]:
        """What the contact centre holds at the centre's moment."""
        now_ms = centre.sandbox.now_ms()
        if now_ms not in self._truths:
            self._truths[now_ms] = centre.truth(self.hour)
        return self._truths[now_ms]


@pytest.fixture
def world(
    open_centre: Callable[..., Centre],
    s3_server: S3Server,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", PART_BYTES)
    # Tens of thousands of lines, one for each request.
    caplog.set_level(logging.WARNING)
    caplog.set_level(logging.WARNING, "werkzeug")
    centres = [
        replace(open_centre(**SCENARIO, now_ms=NOW_MS + hours * 3_600_000), part_bytes=PART_BYTES)
        for hours in (0, 6, 7)
    ]
    webex = {}
    for centre in centres:
        fields = centre.sandbox.airflow_connection()
        webex[id(centre.sandbox)] = {
            name: fields[name] for name in ("host", "login", "password", "extra")
        }
    s3 = {
        "endpoint_url": s3_server.endpoint_url,
        "aws_access_key_id": s3_server.access_key,
        "aws_secret_access_key": s3_server.secret_key,
        "region_name": s3_server.region,
    }
    return World(*centres, webex=webex, s3=s3)


def due_markers(centre: Centre) -> list[str]:
    return [key for key in centre.archived.keys if key.startswith("due/")]


def state_of(centre: Centre) -> tuple[object, ...]:
    """All that a later run can know of an earlier one."""
    listed = centre.s3.list_objects_v2(Bucket=centre.bucket).get("Contents", [])
    uploads = centre.s3.list_multipart_uploads(Bucket=centre.bucket).get("Uploads", [])
    return (*((item["Key"], item["ETag"]) for item in listed), *(item["Key"] for item in uploads))


def assert_done(world: World, centre: Centre) -> None:
    """The tables tell the whole truth, and nothing of the run is left."""
    archived = centre.archived
    assert_complete(archived, world.truth(centre))
    assert_sound(archived, world.whole_sha256)
    assert_published(archived)


def assert_nothing_is_left(centre: Centre) -> None:
    """No open upload and no working file: of a run that ended, or a day after one that was killed."""
    assert centre.s3.list_multipart_uploads(Bucket=centre.bucket).get("Uploads", []) == []
    assert centre.archived.working_files == []


def test_an_hour_survives_a_kill_at_any_write(world: World):
    def run_again(centre: Centre, finished: dict[str, Any]) -> None:
        archive_hours(centre, world.hour, AirflowTasks(finished))

    survivor = Survivor(world, "archive_captures", world.now, None, run_again, world.then)
    survivor.kill_at_every_write()


def test_a_recheck_survives_a_kill_at_any_write(world: World):
    archived = in_new_bucket(world.now)
    archive_hours(archived, world.hour, AirflowTasks())
    assert_done(world, archived)

    def run_again(centre: Centre, finished: dict[str, Any]) -> None:
        recheck(centre, AirflowTasks(finished))

    survivor = Survivor(
        world, "recheck_captures", world.then, archived.bucket, run_again, world.afterwards
    )
    survivor.kill_at_every_write()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("write", ["#1", "#2"], ids=["trial", "pair"])
def test_a_token_refresh_survives_a_kill_at_its_write(
    world: World, tmp_path: Path, write: str, moment: Moment
):
    """What is stored is the old pair or the new one, and either works: at #1 the store is only tried."""
    file = tmp_path / "token pair"
    run = replace(world.run("refresh_access_token", world.now), token_file=str(file))
    with killed_process() as process:
        assert process.run(run).writes == [f"{TOKEN_WRITE} #1", f"{TOKEN_WRITE} #2"]
        first = file.read_text()
        # Nine tenths of its life later it is no longer fresh.
        run = replace(run, now_ms=run.now_ms + 13 * 24 * 3_600_000)
        world.now.sandbox.advance(13 * 24 * 3_600)
        ended = process.run(replace(run, kill_at=f"{TOKEN_WRITE} {write}", moment=moment))
        assert ended.was_killed
        is_old = write == "#1" or moment == "before"
        assert (file.read_text().strip() == first) == is_old
        assert not process.run(run).was_killed

    pair = TokenPair.from_json(file.read_text())
    assert pair.is_fresh(world.now.now)
    connection = world.now.connection
    client = WebexClient(connection, lambda _spent: pair.access_token, UncountedBudget())
    with contextlib.closing(client):
        now_ms = epoch_ms(world.now.now)
        client.get(
            "/v1/tasks", {"from": now_ms - 60_000, "pageSize": 1, "orgId": connection.org_id}
        )
    again = request_token_pair(
        replace(connection, refresh_token=None), pair.refresh_token, lambda: world.now.now
    )
    assert again.access_token != pair.access_token


@dataclass
class Survivor:
    """A run that is killed at each of its writes, and what comes after it."""

    world: World
    dag: Dag
    centre: Centre
    begins_with: str | None
    run_again: Callable[[Centre, dict[str, Any]], None]
    later: Centre
    reference: list[str] = field(default_factory=list[str])
    states: set[tuple[object, ...]] = field(default_factory=set[tuple[object, ...]])

    def kill_at_every_write(self) -> None:
        with killed_process() as one, killed_process() as other:
            writes = self._writes(one)
            kills = [(write, moment) for write in writes for moment in MOMENTS]
            processes = queue.SimpleQueue[KilledProcess]()
            processes.put(one)
            processes.put(other)
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda kill: self._killed(processes, *kill), kills))
        print(len(writes), "writes,", len(self.states), "states of the bucket")

    def _writes(self, process: KilledProcess) -> list[str]:
        """Every write of a run that nobody kills."""
        unharmed = in_new_bucket(self.centre, self.begins_with)
        ended = process.run(self.world.run(self.dag, unharmed))
        assert not ended.was_killed
        assert_done(self.world, unharmed)
        assert_nothing_is_left(unharmed)
        self.reference = due_markers(unharmed)
        return ended.writes

    def _killed(
        self, processes: queue.SimpleQueue[KilledProcess], write: str, moment: Moment
    ) -> None:
        process = processes.get()
        try:
            self._kill(process, write, moment)
        except BaseException as error:
            error.add_note(f"killed {moment} {write}")
            raise
        finally:
            processes.put(process)

    def _kill(self, process: KilledProcess, write: str, moment: Moment) -> None:
        world = self.world
        killed = in_new_bucket(self.centre, self.begins_with)
        run = replace(world.run(self.dag, killed), kill_at=write, moment=moment)
        ended = process.run(run)
        assert ended.was_killed
        assert_sound(killed.archived, world.whole_sha256)
        # Before one write is after the one before, most of the time: the same bucket needs no second look.
        state = (*state_of(killed), *ended.finished)
        if state in self.states:
            return
        self.states.add(state)
        for finished in [{}, ended.finished] if ended.finished else [{}]:
            repeated = in_new_bucket(self.centre, killed.bucket)
            self.run_again(repeated, finished)
            assert_done(world, repeated)
            assert due_markers(repeated) == self.reference
            assert repeated.archived.working_files == []
        later = replace(self.later, bucket=killed.bucket)
        is_known = bool(due_markers(later))
        recheck(later, AirflowTasks())
        if is_known:
            assert_done(world, later)
        else:  # nothing was done yet that could be forgotten
            assert later.archived.keys == []
        assert_nothing_is_left(later)
