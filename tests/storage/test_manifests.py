"""The chain of manifests: unbroken whoever writes, and readable whatever lies there."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest

from include.domain.errors import TransientError
from include.domain.object_keys import KeyLayout, ObjectKey
from include.storage.manifests import (
    MAX_APPEND_ATTEMPTS,
    FoundManifest,
    Manifest,
    PublishedPartition,
    append_manifest,
    iter_manifests,
    read_manifest,
    sha256_of,
)
from include.storage.object_store import Condition, ConditionFailed, ObjectStore
from tests.builders import ORG_ID
from tests.storage.buckets import CONDITIONAL
from tests.storage.threads import run_at_once

KEYS = KeyLayout(ORG_ID, "an/archive")
NOW = datetime(2026, 9, 14, 10, tzinfo=UTC)


def a_partition(number: int = 1, replaced: int | None = None) -> PublishedPartition:
    replaced_sha256 = sha256_of(b"%d" % replaced) if replaced is not None else None
    return PublishedPartition(
        f"tables/{number}", sha256_of(b"%d" % number), replaced_sha256, number
    )


def append(store: ObjectStore, *numbers: int) -> tuple[FoundManifest, Manifest]:
    found = append_manifest(store, KEYS, [a_partition(number) for number in numbers], NOW)
    assert found.manifest
    return found, found.manifest


def assert_unbroken(store: ObjectStore, length: int) -> list[Manifest]:
    """Read with nothing of the program but the layout of the keys and the format; oldest first."""
    found = list(store.list(KEYS.manifests()))
    assert len(found) == length
    previous: str | None = None
    chain: list[Manifest] = []
    for number, item in enumerate(reversed(found), start=1):
        assert item.key.endswith(f"/{9_999_999_999 - number:010d}.json")
        body = store.read(item.key)
        assert body
        content = json.loads(body[0])
        assert (content["sequence"], content["previous_sha256"]) == (number, previous)
        previous = hashlib.sha256(body[0]).hexdigest()
        read = read_manifest(store, item.key).manifest
        assert read
        chain.append(read)
    return chain


def test_each_manifest_names_what_it_publishes_and_the_one_before(store):
    first, _ = append(store, 1, 2)
    second = append_manifest(store, KEYS, [a_partition(3, 1)], NOW + timedelta(hours=1))

    assert store.read(first.key)[0].decode() == json.dumps(
        {
            "partitions": [
                {"key": f"tables/{number}", "replaced_sha256": None, "rows": number,
                 "sha256": sha256_of(b"%d" % number)}
                for number in (1, 2)
            ],
            "previous_sha256": None,
            "published_time": "2026-09-14T10:00:00+00:00",
            "sequence": 1,
        },
        indent=1,
    )  # fmt: skip
    assert second.manifest == Manifest(
        2, first.sha256, NOW + timedelta(hours=1), (a_partition(3, 1),)
    )
    assert read_manifest(store, second.key) == second
    assert_unbroken(store, 2)


@pytest.mark.parametrize("server_name", CONDITIONAL)
def test_sixteen_writers_at_once_make_one_unbroken_chain(bucket_on, server_name):
    store = bucket_on(server_name).store

    def write(number: int) -> None:
        append(store, number)

    run_at_once([lambda number=number: write(number) for number in range(1, 17)])

    chain = assert_unbroken(store, 16)
    assert sorted(manifest.partitions[0].rows for manifest in chain) == list(range(1, 17))


class InterruptedStore(ObjectStore):
    """Does something before each write."""

    def __init__(self, store: ObjectStore, before_write) -> None:
        super().__init__(store._client, store.bucket)
        self._before_write = before_write

    def write(self, key: ObjectKey, body: bytes, condition: Condition | None = None) -> None:
        self._before_write()
        super().write(key, body, condition)


class Died(Exception):
    pass


def test_an_append_that_dies_before_its_write_leaves_nothing(bucket_on):
    store = bucket_on("moto").store
    append(store, 1)

    def die() -> None:
        raise Died

    with pytest.raises(Died):
        append(InterruptedStore(store, die), 2)

    append(store, 3)
    assert [manifest.partitions[0].rows for manifest in assert_unbroken(store, 2)] == [1, 3]


def test_an_append_that_is_overtaken_goes_behind(bucket_on):
    store = bucket_on("moto").store
    others = [2]

    _, appended = append(
        InterruptedStore(store, lambda: append(store, others.pop()) if others else None), 1
    )

    assert appended.sequence == 2
    assert [manifest.partitions[0].rows for manifest in assert_unbroken(store, 2)] == [2, 1]


def test_an_append_that_is_always_overtaken_is_tried_again_later(bucket_on):
    attempts: list[bool] = []
    store = bucket_on("moto").store

    def overtake() -> None:
        attempts.append(True)
        raise ConditionFailed

    with pytest.raises(TransientError, match="added to by others all the time"):
        append(InterruptedStore(store, overtake), 1)
    assert list(iter_manifests(store, KEYS)) == []
    assert len(attempts) == MAX_APPEND_ATTEMPTS


def test_the_newest_manifest_comes_first(bucket_on):
    store = bucket_on("moto").store
    appended = [append(store, number)[0] for number in range(1, 6)]
    append_manifest(store, KeyLayout("another-org", "an/archive"), [a_partition()], NOW)

    assert list(iter_manifests(store, KEYS)) == appended[::-1]


@pytest.mark.parametrize(
    "body",
    [b"", b"not JSON", b"[]", b"{}", b"\xff", b'{"sequence": "one"}', b"null"],
    ids=["empty", "text", "list", "object", "no text", "wrong type", "null"],
)
def test_what_is_no_manifest_is_reported_with_its_hash(bucket_on, body):
    """Whoever verifies must see it; the chain goes on behind it."""
    store = bucket_on("moto").store
    first, _ = append(store, 1)
    store.write(first.key, body)

    assert list(iter_manifests(store, KEYS)) == [FoundManifest(first.key, sha256_of(body), None)]

    _, second = append(store, 2)
    assert second.sequence == 2
    assert second.previous_sha256 == sha256_of(body)


def test_a_member_that_is_added_later_does_not_make_a_manifest_unreadable(bucket_on):
    store = bucket_on("moto").store
    first, manifest = append(store, 1)
    content = json.loads(manifest.to_json()) | {"of_tomorrow": 1}
    store.write(first.key, json.dumps(content).encode())

    assert read_manifest(store, first.key).manifest == manifest


def test_a_missing_manifest_reads_like_an_empty_one(bucket_on):
    found = read_manifest(bucket_on("moto").store, KEYS.manifest(1))

    assert (found.manifest, found.sha256) == (None, sha256_of(b""))


@pytest.mark.parametrize("name", ["!foreign", "0000000000", "note.txt"])
def test_an_object_that_somebody_put_there_does_not_stop_the_chain(bucket_on, name):
    store = bucket_on("moto").store
    append(store, 1)
    store.write(ObjectKey(f"{KEYS.manifests()}{name}"), b"foreign")

    assert append(store, 2)[1].sequence == 2
    assert len(list(iter_manifests(store, KEYS))) == 3, "whoever verifies is told of it"
