"""Publishing merges: whoever else writes, nothing is lost, and what is not final is found again."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from include.domain.errors import PermanentError, TransientError
from include.domain.interval import HOUR
from include.domain.merged_rows import earlier_versions
from include.domain.object_keys import KeyLayout, ObjectKey
from include.domain.rows import CaptureRow, CompletenessRow, ContactTaskRow
from include.pipelines.archive import Archive
from include.pipelines.manifest_chain import ManifestChain
from include.pipelines.publication import (
    HOURS_PER_MANIFEST,
    MAX_PUBLISH_ATTEMPTS,
    publish_completeness,
    publish_hours,
)
from include.storage.manifests import Manifest, PublishedPartition, iter_manifests, sha256_of
from include.storage.object_store import Condition, ConditionFailed, ObjectStore
from include.storage.tables import read_rows
from tests.builders import ORG_ID
from tests.storage.rows import NOON, a_capture_row, a_contact_task_row
from tests.storage.threads import run_at_once

KEYS = KeyLayout(ORG_ID, "an/archive")
LATER = NOON + HOUR
DAY = timedelta(days=1)
TASKS_KEY = KEYS.table_partition("contact_tasks", NOON)
_buckets = itertools.count(1)
CAPTURES_KEY = KEYS.table_partition("captures", NOON)


class WatchedStore(ObjectStore):
    """Remembers the order of writes, and lets something happen before each."""

    def __init__(self, store: ObjectStore, before: Callable[[ObjectKey], object]) -> None:
        super().__init__(store._client, store.bucket)
        self.before = before
        self.written: list[str] = []

    def write(self, key: ObjectKey, body: bytes, condition: Condition | None = None) -> None:
        self.before(key)
        super().write(key, body, condition)
        self.written.append(key)


@pytest.fixture
def store(s3) -> ObjectStore:
    bucket = f"publication-{next(_buckets)}"
    s3.create_bucket(Bucket=bucket)
    return ObjectStore(s3, bucket)


def archive(store: ObjectStore) -> Archive:
    return Archive(store=store, keys=KEYS, run_id="run", now=lambda: NOON)


def a_task(task_id: str = "task-1", **values: Any) -> ContactTaskRow:
    fields: dict[str, Any] = {
        "org_id": ORG_ID, "capture_requested": True, "status": "completed", "checked_time": LATER,
    }  # fmt: skip
    return a_contact_task_row(task_id=task_id, **fields | values)


def a_copy(**values: Any) -> CaptureRow:
    fields: dict[str, Any] = {
        "org_id": ORG_ID, "outcome": "copied", "object_key": "captures/1", "sha256": "0a",
        "size_bytes": 1, "copied_time": NOON, "attempts": 1,
    }  # fmt: skip
    return a_capture_row(**fields | values)


def publish(store: ObjectStore, *rows: ContactTaskRow | CaptureRow) -> list[ContactTaskRow]:
    return publish_hours(
        archive(store),
        [NOON],
        [row for row in rows if isinstance(row, ContactTaskRow)],
        [row for row in rows if isinstance(row, CaptureRow)],
    )


def contact_tasks(store: ObjectStore) -> dict[str, ContactTaskRow]:
    return {row.task_id: row for row in read_rows(store, TASKS_KEY, ContactTaskRow)}


def markers(store: ObjectStore) -> list[Any]:
    return [marker.due_time for marker in archive(store).due_markers(NOON + 400 * DAY)]


def manifests(store: ObjectStore) -> list[Manifest]:
    """Oldest first."""
    found = [found.manifest for found in iter_manifests(store, KEYS)]
    return [manifest for manifest in reversed(found) if manifest]


def test_an_hour_without_contact_tasks_has_partitions_and_a_manifest(store):
    publish(store)

    assert store.head(TASKS_KEY)
    assert store.head(CAPTURES_KEY)
    [manifest] = manifests(store)
    assert [(each.key, each.rows) for each in manifest.partitions] == [
        (CAPTURES_KEY, 0),
        (TASKS_KEY, 0),
    ]
    assert markers(store) == []


def test_the_marker_and_the_manifest_are_there_before_the_partitions(store):
    """A process that dies in between leaves one too many, never one too few."""
    watched = WatchedStore(store, lambda _key: None)

    publish(watched, a_task(), a_copy())

    marker, manifest, *partitions = watched.written
    assert marker.startswith(KEYS.due_markers())
    assert manifest == KEYS.manifest(1)
    assert partitions == [CAPTURES_KEY, TASKS_KEY], "never archived before its captures are rows"


def test_the_marker_is_that_of_what_is_due_first(store):
    publish(
        store, a_task("first", checked_time=NOON + HOUR), a_task("late", checked_time=NOON + DAY)
    )

    rows = contact_tasks(store)
    assert rows["first"].next_check_time == NOON + 2 * HOUR
    assert markers(store) == [NOON + 2 * HOUR]


def test_what_is_final_has_no_marker(store):
    publish(store, a_task(checked_time=NOON + 3 * DAY), a_copy())

    assert contact_tasks(store)["task-1"].capture_state == "archived"
    assert markers(store) == []


def test_the_manifest_names_what_was_there_and_what_is_there_now(store):
    publish(store, a_task())
    before = store.read(TASKS_KEY)[0]
    publish(store, a_task("task-2"))

    unchanged, partition = manifests(store)[-1].partitions
    assert unchanged.key == CAPTURES_KEY
    assert unchanged.sha256 == unchanged.replaced_sha256
    assert partition.key == TASKS_KEY
    assert partition.replaced_sha256 == sha256_of(before)
    assert partition.sha256 == sha256_of(store.read(TASKS_KEY)[0])
    assert partition.rows == 2


def test_publishing_the_same_again_changes_nothing(store):
    publish(store, a_task(), a_copy())
    watched = WatchedStore(store, lambda _key: None)

    publish(watched, a_task(), a_copy())
    publish(watched)

    assert all(key.startswith(KEYS.due_markers()) for key in watched.written)
    assert len(manifests(store)) == 1


def test_the_state_follows_from_the_captures_of_every_run(store):
    """One run copied what another one could not: the contact task tells it, whoever publishes last."""
    failed = a_copy(outcome="failed", object_key=None, sha256=None, copied_time=None, attempts=6)
    publish(store, a_task(checked_time=NOON + 3 * DAY), a_copy())

    publish(store, a_task(checked_time=NOON + 3 * DAY, capture_state="pending"), failed)

    [capture] = read_rows(store, CAPTURES_KEY, CaptureRow)
    assert (capture.outcome, capture.attempts) == ("copied", 6)
    row = contact_tasks(store)["task-1"]
    assert (row.capture_state, row.capture_count) == ("archived", 1)


def test_a_newer_version_and_its_older_one_are_one_row(store):
    publish(store, a_task(), a_copy())
    publish(store, a_copy(object_key="captures/1~v0b", sha256="0b", copied_time=LATER))

    [capture] = read_rows(store, CAPTURES_KEY, CaptureRow)
    assert capture.object_key == "captures/1~v0b"
    assert [version.object_key for version in earlier_versions(capture)] == ["captures/1"]


def test_who_becomes_overdue_is_told_once(store):
    overdue = a_task(checked_time=NOON + 15 * DAY)

    assert [row.task_id for row in publish(store, overdue, a_task("young"))] == ["task-1"]
    assert publish(store, overdue) == []
    assert publish(store, replace(overdue, checked_time=NOON + 16 * DAY)) == []


def test_rows_go_to_the_hours_of_their_contact_tasks(store):
    hours = [NOON + n * HOUR for n in range(3)]
    tasks = [a_task(f"task-{n}", created_time=hour) for n, hour in enumerate(hours)]
    copies = [
        a_copy(task_id=f"task-{n}", task_created_time=hour, first_seen_time=hour + DAY)
        for n, hour in enumerate(hours)
    ]

    publish_hours(archive(store), hours, tasks, copies)

    for n, hour in enumerate(hours):
        listed = read_rows(store, KEYS.table_partition("contact_tasks", hour), ContactTaskRow)
        copied = read_rows(store, KEYS.table_partition("captures", hour), CaptureRow)
        assert [row.task_id for row in (*listed, *copied)] == [f"task-{n}"] * 2
    assert len(manifests(store)) == 1


def test_many_hours_take_a_manifest_for_each_day(store):
    """What is merged at once lies in memory."""
    hours = [NOON + n * HOUR for n in range(HOURS_PER_MANIFEST + 2)]

    publish_hours(archive(store), hours, [], [])

    assert [len(manifest.partitions) for manifest in manifests(store)] == [
        2 * HOURS_PER_MANIFEST,
        2 * 2,
    ]


# Several writers


def test_eight_writers_at_once_lose_nothing(store):
    def write(number: int) -> None:
        own = a_task(f"task-{number}")
        shared = a_task(
            "shared", last_updated_time=NOON + timedelta(minutes=number), owner_name=f"{number}"
        )
        publish(store, own, shared, a_copy(task_id="shared", capture_id=f"{number}"))

    run_at_once([lambda number=number: write(number) for number in range(8)])

    found = contact_tasks(store)
    assert set(found) == {"shared", *(f"task-{number}" for number in range(8))}
    assert (found["shared"].owner_name, found["shared"].capture_count) == ("7", 8)
    assert len(read_rows(store, CAPTURES_KEY, CaptureRow)) == 8
    assert_ends_in_the_bucket(store)


def assert_ends_in_the_bucket(store: ObjectStore) -> None:
    """What a manifest announced last of a partition is there."""
    announced = {
        partition.key: partition.sha256
        for manifest in manifests(store)
        for partition in manifest.partitions
    }
    for key, sha256 in announced.items():
        body = store.read(ObjectKey(key))
        assert body
        assert sha256_of(body[0]) == sha256


@pytest.mark.parametrize("key", [TASKS_KEY, CAPTURES_KEY], ids=["contact_tasks", "captures"])
@pytest.mark.parametrize("is_there", [True, False], ids=["replaced", "created"])
def test_a_partition_changed_meanwhile_is_merged_again(store, key, is_there):
    if is_there:
        publish(store, a_task("there"), a_copy(task_id="there"))
    others = [(a_task("other"), a_copy(task_id="other"))]
    watched = WatchedStore(
        store, lambda written: publish(store, *others.pop()) if others and written == key else None
    )

    publish(watched, a_task("own"), a_copy(task_id="own"))

    expected = {"other", "own"} | ({"there"} if is_there else set())
    assert set(contact_tasks(store)) == expected
    assert {row.task_id for row in read_rows(store, CAPTURES_KEY, CaptureRow)} == expected
    assert {row.capture_count for row in contact_tasks(store).values()} == {1}
    assert_ends_in_the_bucket(store)


def test_who_was_overtaken_and_finds_nothing_more_to_change_leaves_what_was_published(store):
    """Its manifest is the newest, and names what never was: the chain tells all the same what should be there."""
    publish(store, a_task(checked_time=NOON))
    others = [a_task(checked_time=LATER + HOUR), a_task(checked_time=LATER + 2 * HOUR)]

    def overtake(key: ObjectKey) -> None:
        while others and key.startswith(KEYS.manifests()):
            publish(store, others.pop(0))

    publish(WatchedStore(store, overtake), a_task(checked_time=LATER))

    partition = sha256_of(store.read(TASKS_KEY)[0])
    assert partition != manifests(store)[-1].partitions[-1].sha256
    chain = ManifestChain.read(archive(store))
    assert chain.state_of(TASKS_KEY, partition) == "published"
    assert chain.breaks(None) == []
    before_it = {each.replaced_sha256 for each in chain_of(store)} - {None, partition}
    assert {chain.state_of(TASKS_KEY, sha256) for sha256 in before_it} == {"unfinished"}


def chain_of(store: ObjectStore) -> list[PublishedPartition]:
    """What was announced for the contact tasks."""
    every = [partition for manifest in manifests(store) for partition in manifest.partitions]
    return [partition for partition in every if partition.key == TASKS_KEY]


def test_an_hour_that_is_done_is_not_merged_again_because_of_another(store):
    hours = [NOON, NOON + HOUR]
    second = KEYS.table_partition("contact_tasks", hours[1])
    others = [a_task("other", created_time=hours[1])]
    watched = WatchedStore(
        store,
        lambda key: (
            publish_hours(archive(store), hours[1:], [others.pop()], [])
            if others and key == second
            else None
        ),
    )

    publish_hours(archive(watched), hours, [a_task("a"), a_task("b", created_time=hours[1])], [])

    assert watched.written.count(TASKS_KEY) == 1
    assert {row.task_id for row in read_rows(store, second, ContactTaskRow)} == {"other", "b"}


@pytest.mark.timeout(60)
def test_a_partition_that_is_always_changed_ends_in_a_later_try(store):
    attempts: list[str] = []

    def refuse(key: ObjectKey) -> None:
        if key == CAPTURES_KEY:
            attempts.append(key)
            raise ConditionFailed

    with pytest.raises(TransientError, match="replaced by others all the time"):
        publish(WatchedStore(store, refuse), a_task())

    assert len(attempts) == MAX_PUBLISH_ATTEMPTS
    assert markers(store), "what is lost by giving up is found again"


class Died(Exception):
    pass


@pytest.mark.parametrize(
    "writes", range(4), ids=["marker", "manifest", "captures", "contact_tasks"]
)
def test_a_process_that_dies_at_a_write_is_made_good_by_the_next(store, writes):
    left = [writes]

    def die(_key: ObjectKey) -> None:
        if not left[0]:
            raise Died
        left[0] -= 1

    with pytest.raises(Died):
        publish(WatchedStore(store, die), a_task(), a_copy())
    assert contact_tasks(store) == {}

    publish(store, a_task(), a_copy())

    assert contact_tasks(store)["task-1"].capture_count == 1
    assert [manifest.sequence for manifest in manifests(store)] == [1, 2][: 2 if writes > 1 else 1]
    assert_ends_in_the_bucket(store)


def test_a_damaged_partition_is_left_for_a_person(store):
    store.write(TASKS_KEY, b"damaged")

    with pytest.raises(PermanentError, match="damaged"):
        publish(store, a_task())

    assert store.read(TASKS_KEY)[0] == b"damaged"
    assert manifests(store) == []


# Completeness


def a_completeness_row(**values: Any) -> CompletenessRow:
    numbers: dict[str, Any] = dict.fromkeys(
        ("contact_tasks", "expected", "archived", "pending", "overdue", "gone", "failed", "missing",
         "captures", "size_bytes"), 0,
    )  # fmt: skip
    fields: dict[str, Any] = {
        "org_id": ORG_ID, "created_hour": NOON, "channel_type": "telephony", "verified_time": NOON,
    }  # fmt: skip
    return CompletenessRow(**numbers | fields | values)


def test_the_newest_verification_of_an_hour_and_channel_counts(store):
    older = a_completeness_row(expected=1)
    newer = a_completeness_row(expected=2, verified_time=LATER)
    other = a_completeness_row(channel_type=None, expected=3)
    next_hour = a_completeness_row(created_hour=LATER, expected=4)

    publish_completeness(archive(store), [newer, other, next_hour])
    publish_completeness(archive(store), [older])

    key = KEYS.table_partition("completeness", NOON)
    assert read_rows(store, key, CompletenessRow) == [other, newer]
    key = KEYS.table_partition("completeness", LATER)
    assert read_rows(store, key, CompletenessRow) == [next_hour]
    assert len(manifests(store)) == 1
