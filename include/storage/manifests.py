"""The chain of manifests: what was published when, so that later changes of the bucket are found.

Before a run replaces partitions of the tables it appends one manifest, which names each partition, the
SHA-256 of its new content and of the content that it replaces, and the SHA-256 of the manifest before it.
The captures are covered with the partitions, whose rows hold the SHA-256 of every object.

Whoever knows the SHA-256 of the newest manifest can tell whether any manifest, partition, row or object
before it was altered or removed. Manifests are only ever added.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING

import tenacity
from pydantic import ValidationError

from include.domain.errors import TransientError
from include.domain.object_keys import KeyLayout, ObjectKey
from include.storage.object_store import Condition, ConditionFailed, ObjectStore

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MAX_APPEND_ATTEMPTS = 40
CONCURRENT_READS = 16


@dataclass(frozen=True, slots=True)
class PublishedPartition:
    """One partition before and after; ``replaced_sha256`` is None where there was none."""

    key: str
    sha256: str
    replaced_sha256: str | None
    rows: int

    @property
    def is_change(self) -> bool:
        """A publication names also what it leaves as it is."""
        return self.sha256 != self.replaced_sha256


@dataclass(frozen=True)
class Manifest:
    """One link of the chain. Numbers count from 1 for each org; the first has no previous one."""

    sequence: int
    previous_sha256: str | None
    published_time: datetime
    partitions: tuple[PublishedPartition, ...]

    def to_json(self) -> bytes:
        """The bytes under the manifest's key; the same manifest always gives the same."""
        content = {**asdict(self), "published_time": self.published_time.isoformat()}
        return json.dumps(content, indent=1, sort_keys=True).encode()


@dataclass(frozen=True)
class FoundManifest:
    """What lies under the key of a manifest: its SHA-256, and its content if it can be read as one."""

    key: ObjectKey
    sha256: str
    manifest: Manifest | None


@cache  # imported and made when it is needed: who copies captures has no use for it
def _manifests() -> "TypeAdapter[Manifest]":
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(Manifest)


def sha256_of(body: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(body).hexdigest()


def append_manifest(
    store: ObjectStore, keys: KeyLayout, partitions: Sequence[PublishedPartition], now: datetime
) -> FoundManifest:
    """Add a manifest at the end of the chain.

    Runs that append at once get different numbers: a manifest is created only where none is. On a store
    without conditional writes this holds for one writer at a time (see `ObjectStore`).

    Raises:
        TransientError: Other runs were faster again and again.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(ConditionFailed),
        stop=tenacity.stop_after_attempt(MAX_APPEND_ATTEMPTS),
        wait=tenacity.wait_random(0, 0.2),
    )
    try:
        return retrying(_append, store, keys, partitions, now)
    except tenacity.RetryError:
        raise TransientError(
            f"{keys.manifests()} is being added to by others all the time; it is tried again later."
        ) from None


def _append(
    store: ObjectStore, keys: KeyLayout, partitions: Sequence[PublishedPartition], now: datetime
) -> FoundManifest:
    last = _newest(store, keys)
    sequence = (keys.manifest_sequence(last.key) or 0) if last else 0
    manifest = Manifest(sequence + 1, last.sha256 if last else None, now, tuple(partitions))
    key = keys.manifest(manifest.sequence)
    store.write(key, manifest.to_json(), Condition(etag=None))
    return FoundManifest(key, sha256_of(manifest.to_json()), manifest)


def _newest(store: ObjectStore, keys: KeyLayout) -> FoundManifest | None:
    """The end of the chain; what somebody else put before it is passed over.

    A manifest that was altered still is a link, of which a verification tells: the one before it is there.
    """
    first = store.first(keys.manifests())
    if first is None:
        return None
    found = read_manifest(store, first.key)
    if found.manifest and keys.manifest_sequence(first.key) == found.manifest.sequence:
        return found
    for found in iter_manifests(store, keys):
        sequence = keys.manifest_sequence(found.key)
        if sequence is None:
            continue
        is_link = found.manifest is not None and found.manifest.sequence == sequence
        if is_link or sequence == 1 or store.head(keys.manifest(sequence - 1)):
            return found
    return None


def iter_manifests(store: ObjectStore, keys: KeyLayout) -> Iterator[FoundManifest]:
    """Whatever lies among the org's manifests, newest first, read several at once in bounded memory."""
    found = [item.key for item in store.list(keys.manifests())]
    with ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="manifest") as pool:
        for start in range(0, len(found), CONCURRENT_READS * 8):
            some = found[start : start + CONCURRENT_READS * 8]
            yield from pool.map(partial(read_manifest, store), some)


def read_manifest(store: ObjectStore, key: ObjectKey) -> FoundManifest:
    """What lies under a key; nothing there reads like an empty object."""
    found = store.read(key)
    body = found[0] if found else b""
    try:
        return FoundManifest(key, sha256_of(body), _manifests().validate_json(body))
    except ValidationError:
        return FoundManifest(key, sha256_of(body), None)
