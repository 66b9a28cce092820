"""Walks the states of contact tasks at random: a scripted contact centre, the real steps of each run.

Hypothesis lets time pass, changes the centre, and starts, interleaves, breaks and kills runs. After each
step the bucket is held against what the runs were told, and each state against the table `STATES`.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, cast

import boto3
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from moto import mock_aws

from include.domain.capture_state import CapturePolicy
from include.domain.errors import CapturesFailed, PermanentError, TransientError
from include.domain.interval import HOUR, Interval, hour_of
from include.domain.merged_rows import earlier_versions
from include.domain.object_keys import KeyLayout, ObjectKey
from include.domain.rows import CaptureRow, CaptureState, ContactTaskRow
from include.pipelines import archive_captures as pipeline
from include.pipelines import recheck_captures
from include.pipelines.archive import Archive
from include.storage.tables import read_rows
from include.webex.http_client import WebexClient
from include.webex.media import MediaClient
from tests.builders import NOW, ORG_ID
from tests.pipelines.scripted_centre import (
    Killed,
    ScriptedCapture,
    ScriptedCentre,
    ScriptedContactTask,
    Trouble,
    WatchedStore,
)

DAY = timedelta(days=1)
SETTLING_TIME = 2 * DAY
HORIZON = 14 * DAY
# About a minute of one core; more walks find more.
WALKS = 25
STEPS = 30
CLOSED = {"completed", "abandoned", "ended"}
TROUBLES: list[Trouble] = ["none", "no URL", "purged", "unavailable", "refused", "nonsense"]

# What design.md says, in other words than the program: by what was found, and by captureRequested where
# that matters; then while it is young, when it is closed and nothing changed for two days, and when it is
# too old to be looked at again.
STATES: dict[tuple[str, bool | None], tuple[CaptureState, CaptureState, CaptureState]] = {
    ("nothing", True): ("pending", "pending", "overdue"),
    ("nothing", None): ("pending", "pending", "none"),
    ("nothing", False): ("none", "none", "none"),
    ("all", None): ("pending", "archived", "archived"),
    ("not yet all", None): ("pending", "pending", "overdue"),
    ("all that was left", None): ("pending", "gone", "gone"),
    ("trouble", None): ("failed", "failed", "failed"),
}


@dataclass
class Run:
    """One run of a DAG, between two of its steps."""

    kind: Literal["archive", "recheck"]
    archive: Archive
    options: pipeline.ArchiveOptions
    interval: Interval | None = None
    shards: list[pipeline.Shard] = field(default_factory=list[pipeline.Shard])
    listed: set[str] = field(default_factory=set[str])
    told: dict[str, list[ScriptedCapture] | None] = field(
        default_factory=dict[str, list[ScriptedCapture] | None]
    )
    queried_time: datetime = NOW
    is_queried: bool = False


def is_behind(row: CaptureRow) -> bool:
    """It is copied, and a newer version of it could not be."""
    return row.outcome == "copied" and row.last_error is not None


class CaptureStates(RuleBasedStateMachine):
    """The model: what runs were told, and so what must be in the bucket."""

    _bucket_numbers = itertools.count(1)

    def __init__(self) -> None:
        super().__init__()
        self.centre = ScriptedCentre(NOW)
        self.client = cast("WebexClient", self.centre)
        self.media = cast("MediaClient", self.centre)
        s3 = boto3.client(
            "s3", region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="any"
        )
        bucket = f"archive-{next(self._bucket_numbers)}"
        s3.create_bucket(Bucket=bucket)
        self.store = WatchedStore(s3, bucket, self.centre)
        self.keys = KeyLayout(ORG_ID)
        self.policy = CapturePolicy(settling_time=SETTLING_TIME, horizon=HORIZON)
        self.run_numbers = itertools.count(1)
        self.open_runs: list[Run] = []
        self.hours: set[datetime] = set()
        # What runs that were published had been told:
        self.listed: set[str] = set()
        self.offered: set[tuple[str, str]] = set()
        self.last_asked: dict[str, tuple[datetime, bool]] = {}  # when, and whether it was refused
        # Contact tasks of which a run was killed since they were asked about, and ever:
        self.doubtful: set[str] = set()
        self.ever_doubtful: set[str] = set()
        self.seen_writes = 0

    # The centre

    @initialize(retention=st.sampled_from([None, 10 * DAY]))
    def choose_policy(self, retention: timedelta | None) -> None:
        self.policy = CapturePolicy(
            settling_time=SETTLING_TIME, horizon=HORIZON, retention=retention
        )

    @initialize(
        requested=st.sampled_from([True, None, False]),
        status=st.sampled_from(["assigned", "completed"]),
        hours=st.sampled_from([0, 2, 60, 24 * 15]),
    )
    def begin(self, requested: bool | None, status: str, hours: int = 0) -> None:
        """There is a contact task, and the archive begins some time after it."""
        self.add_contact_task(requested, status, timedelta(0))
        self.let_time_pass(hours)

    @precondition(lambda self: len(self.centre.contact_tasks) < 4)
    @rule(
        requested=st.sampled_from([True, None, False]),
        status=st.sampled_from(["assigned", "completed"]),
        late=st.sampled_from([timedelta(0), 3 * HOUR, 30 * HOUR]),
    )
    def add_contact_task(self, requested: bool | None, status: str, late: timedelta) -> None:
        task_id = f"task-{len(self.centre.contact_tasks)}"
        created_time = self.centre.now - timedelta(minutes=10)
        self.hours.add(hour_of(created_time))
        self.centre.contact_tasks[task_id] = ScriptedContactTask(
            task_id=task_id,
            created_time=created_time,
            listed_time=created_time + late,
            last_updated_time=created_time,
            capture_requested=requested,
            status=status,
        )

    @rule(hours=st.sampled_from([1, 2, 5, 12, 24, 72]))
    def let_time_pass(self, hours: int) -> None:
        self.centre.now += hours * HOUR

    @rule(which=st.integers(0, 3), requested=st.sampled_from([True, None, False]))
    def change_requested(self, which: int, requested: bool | None) -> None:
        self.contact_task(which).capture_requested = requested

    @rule(which=st.integers(0, 3), status=st.sampled_from(["assigned", "completed", "Abandoned"]))
    def change_status(self, which: int, status: str) -> None:
        task = self.contact_task(which)
        task.status = status
        task.last_updated_time = self.centre.now

    @rule(which=st.integers(0, 3))
    def refuse_or_answer(self, which: int) -> None:
        task = self.contact_task(which)
        task.is_refused = not task.is_refused

    @rule(
        which=st.integers(0, 3),
        kind=st.sampled_from(["recording", "transcript"]),
        trouble=st.sampled_from(["none", "none", "no URL", "purged"]),
    )
    def offer_a_capture(
        self, which: int, kind: Literal["recording", "transcript"], trouble: Trouble
    ) -> None:
        captures = self.contact_task(which).captures
        if len(captures) < 3:
            capture_id = f"capture-{len(captures)}"
            captures[capture_id] = ScriptedCapture(kind, capture_id, 100, trouble=trouble)

    @rule(which=st.integers(0, 3), capture=st.integers(0, 2), trouble=st.sampled_from(TROUBLES))
    def change_trouble(self, which: int, capture: int, trouble: Trouble) -> None:
        for found in self.capture(which, capture):
            found.trouble = trouble
            found.is_offered = True

    @rule(which=st.integers(0, 3), capture=st.integers(0, 2))
    def withdraw(self, which: int, capture: int) -> None:
        for found in self.capture(which, capture):
            found.is_offered = False

    @rule(which=st.integers(0, 3), capture=st.integers(0, 2), more=st.sampled_from([-40, 7, 300]))
    def stitch_again(self, which: int, capture: int, more: int) -> None:
        for found in self.capture(which, capture):
            found.size_bytes = abs(found.size_bytes + more)

    def contact_task(self, which: int) -> ScriptedContactTask:
        found = list(self.centre.contact_tasks.values())
        return found[which % len(found)]

    def capture(self, which: int, number: int) -> list[ScriptedCapture]:
        found = list(self.contact_task(which).captures.values())
        return [found[number % len(found)]] if found else []

    # Runs

    def archive(self) -> Archive:
        return Archive(
            store=self.store,
            keys=self.keys,
            run_id=f"run-{next(self.run_numbers)}",
            policy=self.policy,
            now=lambda: self.centre.now,
            sleep=lambda _seconds: None,
        )

    def new_archive_run(self, which: int, *, recopy: bool = False) -> Run | None:
        hours = sorted(hour for hour in self.hours if hour + HOUR <= self.centre.now)
        if not hours:
            return None
        hour = hours[which % len(hours)]
        options = pipeline.ArchiveOptions(recopy=recopy)
        return Run("archive", self.archive(), options, Interval(hour, hour + HOUR))

    def new_recheck_run(self) -> Run:
        return Run("recheck", self.archive(), pipeline.ArchiveOptions(look_for_changes=True))

    def plan(self, run: Run) -> None:
        self.centre.listed = set()
        if run.interval:
            run.shards = pipeline.plan_shards(run.interval, self.client, run.archive, run.options)
        else:
            run.shards = recheck_captures.plan_recheck(self.client, run.archive)
        run.listed = self.centre.listed

    def query(self, run: Run) -> None:
        self.centre.told = {}
        for shard in run.shards:
            with suppress(CapturesFailed, TransientError):
                pipeline.archive_shard(shard, self.client, self.media, run.archive, run.options)
        run.told, run.queried_time = self.centre.told, self.centre.now

    def publish(self, run: Run) -> None:
        with suppress(CapturesFailed):
            if run.interval:
                pipeline.publish_tables(run.interval, run.archive, run.shards)
            elif run.shards:
                recheck_captures.publish_recheck(run.archive, run.shards)
        self.listed |= run.listed
        for task_id, captures in run.told.items():
            asked = (run.queried_time, captures is None)
            self.last_asked[task_id] = max(asked, self.last_asked.get(task_id, asked))
            if not self.open_runs:
                self.doubtful.discard(task_id)
            for capture in captures or []:
                self.offered.add((task_id, capture.capture_id))

    def finish(self, run: Run) -> None:
        """All steps of a run."""
        before = {} if self.open_runs else self.captures()
        self.plan(run)
        self.query(run)
        self.publish(run)
        if not self.open_runs:
            self.check_outcomes(run, before)

    def doubt(self) -> None:
        self.doubtful |= set(self.centre.contact_tasks)
        self.ever_doubtful |= self.doubtful

    @rule(which=st.integers(0, 3), recopy=st.booleans())
    def archive_an_hour(self, which: int, recopy: bool) -> None:
        run = self.new_archive_run(which, recopy=recopy)
        if run:
            self.finish(run)

    @rule()
    def recheck(self) -> None:
        self.finish(self.new_recheck_run())

    @rule(which=st.integers(0, 3), is_recheck=st.booleans())
    def archive_while_the_api_is_in_trouble(self, which: int, is_recheck: bool) -> None:
        """The queries fail, what was listed is published all the same."""
        run = self.new_recheck_run() if is_recheck else self.new_archive_run(which)
        if run:
            self.centre.failing_queries = 1
            self.plan(run)
            self.query(run)
            self.centre.failing_queries = 0
            run.told = {}
            self.publish(run)

    @rule(which=st.integers(0, 3), is_recheck=st.booleans())
    def begin_a_run(self, which: int, is_recheck: bool) -> None:
        run = self.new_recheck_run() if is_recheck else self.new_archive_run(which)
        if run and len(self.open_runs) < 2:
            self.plan(run)
            self.open_runs.append(run)

    @precondition(lambda self: self.open_runs)
    @rule()
    def go_on_with_the_oldest_run(self) -> None:
        run = self.open_runs[0]
        try:
            if not run.is_queried:
                self.query(run)
                run.is_queried = True
                return
            self.publish(run)
        except PermanentError:  # its plan was swept by another run after a day: it is cleared whole
            self.doubt()
        self.open_runs.remove(run)

    @rule(which=st.integers(0, 3), is_recheck=st.booleans(), writes=st.integers(0, 12))
    def kill_a_run(self, which: int, is_recheck: bool, writes: int) -> None:
        run = self.new_recheck_run() if is_recheck else self.new_archive_run(which)
        if run:
            try:
                with self.store.killed_after(writes):
                    self.plan(run)
                    self.query(run)
                    self.publish(run)
            except Killed:
                self.doubt()

    # What must hold

    def rows(self, table: Literal["contact_tasks", "captures"], row_type: type[Any]) -> list[Any]:
        found: list[Any] = []
        for hour in sorted(self.hours):
            found += read_rows(self.store, self.keys.table_partition(table, hour), row_type)
        return found

    def contact_tasks(self) -> dict[str, ContactTaskRow]:
        rows: list[ContactTaskRow] = self.rows("contact_tasks", ContactTaskRow)
        found = {row.task_id: row for row in rows}
        assert len(found) == len(rows), "a contact task has two rows"
        return found

    def captures(self) -> dict[tuple[str, str], CaptureRow]:
        rows: list[CaptureRow] = self.rows("captures", CaptureRow)
        found = {(row.task_id, row.capture_id): row for row in rows}
        assert len(found) == len(rows), "a capture has two rows"
        return found

    @invariant()
    def everything_is_there_and_true(self) -> None:
        if self.store.writes == self.seen_writes:
            return  # the centre alone changed
        self.seen_writes = self.store.writes
        contact_tasks, captures = self.contact_tasks(), self.captures()
        assert set(contact_tasks) >= self.listed
        assert set(captures) >= self.offered
        self.check_objects(captures)
        self.check_due_markers(contact_tasks)
        for task_id, row in contact_tasks.items():
            if task_id not in self.doubtful:
                own = [capture for capture in captures.values() if capture.task_id == task_id]
                self.check_state(row, own)

    def check_objects(self, captures: dict[tuple[str, str], CaptureRow]) -> None:
        """Every row's object is whole, every object has a row, and none ever changed."""
        named: set[str] = set()
        for row in captures.values():
            assert (row.outcome == "copied") == (row.object_key is not None)
            versions = earlier_versions(row)
            objects = [(version.object_key, version.sha256) for version in versions]
            if row.object_key:
                objects.append((row.object_key, str(row.sha256)))
            for key, sha256 in objects:
                assert self.store.captures[key] == {sha256}
                named.add(key)
        unnamed = {key for key in self.store.captures if key not in named}
        if not self.open_runs:
            doubtful = {f"/{task_id}/" for task_id in self.ever_doubtful}
            assert [key for key in unnamed if not any(part in key for part in doubtful)] == []

    def check_due_markers(self, contact_tasks: dict[str, ContactTaskRow]) -> None:
        """Whatever is not final is found by a listing in time; even if a run was killed."""
        markers = list(self.archive().due_markers(self.centre.now + 400 * DAY))
        for row in contact_tasks.values():
            if row.next_check_time:
                hour = hour_of(row.created_time)
                dues = [marker.due_time for marker in markers if marker.hour == hour]
                assert min(dues) < row.next_check_time + timedelta(seconds=1)
        hours_with_rows = {hour_of(row.created_time) for row in contact_tasks.values()}
        hours_due = {marker.hour for marker in markers}
        for task_id in self.centre.listed_young:
            hour = hour_of(self.centre.contact_tasks[task_id].created_time)
            assert hour in hours_with_rows | hours_due

    def check_state(self, row: ContactTaskRow, captures: Sequence[CaptureRow]) -> None:
        old_age = min(HORIZON, self.policy.retention or HORIZON)
        changes = [row.created_time, row.last_updated_time or row.created_time]
        for capture in captures:
            if capture.first_seen_time > row.first_seen_time:
                changes.append(capture.first_seen_time)
            if capture.copied_time and earlier_versions(capture):
                changes.append(capture.copied_time)
        is_closed = str(row.status).lower() in CLOSED
        is_settled = is_closed and row.checked_time >= max(changes) + SETTLING_TIME
        is_old = row.checked_time - row.created_time >= old_age
        age = 2 if is_old else 1 if is_settled else 0
        outcomes = {"not yet" if is_behind(capture) else capture.outcome for capture in captures}
        _, is_refused = self.last_asked.get(row.task_id, (row.checked_time, False))
        if is_refused or "failed" in outcomes:
            expected = STATES["trouble", None][age]
        elif not outcomes:
            expected = STATES["nothing", row.capture_requested][age]
        elif outcomes & {"not yet", "pending"}:
            expected = STATES["not yet all", None][age]
        else:
            found = "all" if outcomes == {"copied"} else "all that was left"
            expected = STATES[found, None][age]
        if expected == "overdue" and not outcomes and self.policy.retention:
            expected = "gone"  # Webex has deleted by now whatever there was
        assert row.capture_state == expected, (row, captures)
        is_final = is_old or expected not in {"pending", "failed"}
        assert (row.next_check_time is None) == is_final
        if row.task_id not in self.last_asked and row.capture_requested is not False:
            assert row.capture_state == "pending", "nobody has asked about it yet"

    def check_outcomes(self, run: Run, before: dict[tuple[str, str], CaptureRow]) -> None:
        """After a run that nothing disturbed, each capture is what the centre gave at that moment."""
        is_looking = run.options.look_for_changes or run.options.recopy
        for identity, row in self.captures().items():
            known = before.get(identity)
            was_copied = bool(known and known.outcome == "copied")
            told = run.told.get(row.task_id)
            if told is None or row.task_id in self.doubtful:
                if known and row.task_id not in self.ever_doubtful:
                    assert row.outcome == known.outcome
                continue
            capture = next((c for c in told if c.capture_id == row.capture_id), None)
            fate: dict[str, str] = {"none": "copied", "no URL": "pending", "purged": "gone"}
            expected = fate.get(capture.trouble, "failed") if capture else "gone"
            assert row.outcome == ("copied" if was_copied else expected), (known, row, capture)
            if capture and capture.is_whole and (is_looking or not was_copied):
                assert (row.sha256, row.last_error) == (capture.sha256, None)
            if capture and known and is_behind(known) and known.object_key == row.object_key:
                assert row.last_error or row.sha256 == capture.sha256, "a version is forgotten"

    def teardown(self) -> None:
        """In the end everything is final, and what could be had to the last is there."""
        self.open_runs.clear()
        wanted = {row.task_id for row in self.contact_tasks().values() if row.next_check_time}
        for _ in range(7):
            self.centre.now += 3 * DAY
            self.finish(self.new_recheck_run())
            self.everything_is_there_and_true()
        contact_tasks, captures = self.contact_tasks(), self.captures()
        assert set(contact_tasks) >= self.centre.listed_young
        assert {row.next_check_time for row in contact_tasks.values()} <= {None}
        assert {row.capture_state for row in contact_tasks.values()} <= {
            *("archived", "none", "overdue", "gone", "failed")
        }
        assert list(self.archive().due_markers(self.centre.now + 400 * DAY)) == []
        for task_id in wanted:
            task = self.centre.contact_tasks[task_id]
            for capture in task.captures.values():
                if capture.is_whole and not task.is_refused:
                    row = captures[task_id, capture.capture_id]
                    assert (row.outcome, row.sha256) == ("copied", capture.sha256)
        for key, (digest,) in self.store.captures.items():
            body = self.store.read(ObjectKey(key))
            assert body
            assert hashlib.sha256(body[0]).hexdigest() == digest


@pytest.fixture
def walk() -> Iterator[CaptureStates]:
    """The same model, for walks that are too rare to wait for; ends with every invariant checked."""
    with mock_aws():
        model = CaptureStates()
        yield model
        model.everything_is_there_and_true()
        model.teardown()


def checked(model: CaptureStates) -> ContactTaskRow:
    """The only contact task after a recheck."""
    model.recheck()
    model.everything_is_there_and_true()
    [row] = model.contact_tasks().values()
    return row


def test_null_turns_true_after_days_and_the_capture_is_archived(walk: CaptureStates):
    walk.begin(requested=None, status="completed")
    walk.let_time_pass(2)
    walk.archive_an_hour(0, recopy=False)
    for _ in range(5):
        walk.let_time_pass(24)
        assert checked(walk).capture_state == "pending"
    walk.change_requested(0, requested=True)
    walk.offer_a_capture(0, "recording", "none")

    walk.let_time_pass(24)
    row = checked(walk)

    assert (row.capture_state, row.capture_count) == ("pending", 1)
    assert row.capture_requested is None, "its hour was not listed again yet"
    walk.let_time_pass(72)
    row = checked(walk)
    assert (row.capture_state, row.capture_requested) == ("archived", True)


def test_a_transcript_days_after_its_recording_starts_the_settling_again(walk: CaptureStates):
    walk.begin(requested=True, status="completed")
    walk.offer_a_capture(0, "recording", "none")
    walk.let_time_pass(2)
    walk.archive_an_hour(0, recopy=False)
    walk.let_time_pass(24)
    assert checked(walk).capture_state == "pending"
    walk.offer_a_capture(0, "transcript", "none")
    walk.let_time_pass(24)
    row = checked(walk)
    assert (row.capture_state, row.capture_count) == ("pending", 2)

    walk.let_time_pass(24)
    assert checked(walk).capture_state == "pending", "not two days since the transcript came"
    walk.let_time_pass(24)
    assert checked(walk).capture_state == "archived"


def test_a_recording_stitched_again_is_kept_under_its_own_key_and_the_row_says_so(
    walk: CaptureStates,
):
    walk.begin(requested=True, status="completed")
    walk.offer_a_capture(0, "recording", "none")
    walk.let_time_pass(2)
    walk.archive_an_hour(0, recopy=False)
    [first] = walk.captures().values()
    sizes = [first.size_bytes]
    for more in (300, -40):
        walk.stitch_again(0, 0, more)
        walk.let_time_pass(24)
        checked(walk)
        [row] = walk.captures().values()
        sizes.append(row.size_bytes)

    assert len(set(sizes)) == 3
    assert row.object_key not in {None, first.object_key}
    assert [version.size_bytes for version in earlier_versions(row)] == sizes[:2]
    assert earlier_versions(row)[0].object_key == first.object_key
    assert len(walk.store.captures) == 3


def test_a_capture_offered_and_withdrawn_before_it_could_be_copied_is_gone(walk: CaptureStates):
    walk.begin(requested=True, status="completed")
    walk.offer_a_capture(0, "recording", "no URL")
    walk.let_time_pass(2)
    walk.archive_an_hour(0, recopy=False)
    walk.withdraw(0, 0)

    walk.let_time_pass(72)

    assert checked(walk).capture_state == "gone"


def test_an_old_contact_task_whose_query_failed_is_pending_and_due(walk: CaptureStates):
    """Never called final by a run that did not ask: an alarm about it would be false, or its loss silent."""
    for requested in (True, None):
        walk.add_contact_task(requested, "completed", timedelta(0))
    walk.offer_a_capture(1, "recording", "none")
    walk.let_time_pass(24 * 20)

    walk.archive_while_the_api_is_in_trouble(0, is_recheck=False)

    walk.everything_is_there_and_true()
    assert {row.capture_state for row in walk.contact_tasks().values()} == {"pending"}
    walk.recheck()
    assert {row.capture_state for row in walk.contact_tasks().values()} == {"overdue", "archived"}


def test_a_contact_task_that_turns_to_false_is_not_called_final_unasked(walk: CaptureStates):
    """True stays true once it was told; the listing that says false asks nothing."""
    walk.begin(requested=True, status="completed", hours=2)
    walk.archive_an_hour(0, recopy=False)
    walk.offer_a_capture(0, "recording", "none")
    walk.change_requested(0, requested=False)
    walk.let_time_pass(24 * 20)
    walk.archive_an_hour(0, recopy=False)
    walk.everything_is_there_and_true()

    row = checked(walk)

    assert (row.capture_state, row.capture_requested, row.capture_count) == ("archived", True, 1)


@pytest.mark.parametrize("how", ["archived again", "the host fails"])
def test_a_newer_version_that_could_not_be_copied_is_not_forgotten(walk: CaptureStates, how: str):
    walk.begin(requested=True, status="completed")
    walk.offer_a_capture(0, "recording", "none")
    walk.let_time_pass(2)
    walk.archive_an_hour(0, recopy=False)
    walk.stitch_again(0, 0, 300)
    walk.change_trouble(0, 0, "nonsense")
    walk.let_time_pass(5)
    assert checked(walk).capture_state == "pending"

    walk.let_time_pass(72)
    if how == "archived again":
        walk.archive_an_hour(0, recopy=False)
    else:
        walk.change_trouble(0, 0, "unavailable")
        checked(walk)

    [row] = walk.contact_tasks().values()
    [capture] = walk.captures().values()
    assert (row.capture_state, capture.outcome) == ("pending", "copied")
    assert capture.last_error
    walk.change_trouble(0, 0, "none")


@pytest.mark.timeout(900)  # to shrink a failure takes long
def test_every_walk_through_the_states_ends_complete_and_true():
    with mock_aws():
        run_state_machine_as_test(
            CaptureStates,
            settings=settings(max_examples=WALKS, stateful_step_count=STEPS, deadline=None),
        )
