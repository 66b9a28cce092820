"""Reads the whole chain of manifests and says whether it holds, and what each partition should be."""

import sys
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from include.domain.findings import Finding
from include.domain.object_keys import ObjectKey
from include.pipelines.archive import Archive
from include.storage.manifests import FoundManifest, PublishedPartition, iter_manifests

PartitionState = Literal["published", "unfinished", "missing", "altered", "unknown"]


@dataclass
class ManifestChain:
    """The chain as it was found.

    Attributes:
        findings: Where the chain does not hold.
        hashes: The SHA-256 of every manifest.
        latest_sha256: That of the newest one; None when there is none.
        partitions: What was published under each key, newest first, each with its time.
    """

    findings: list[Finding] = field(default_factory=list[Finding])
    hashes: set[str] = field(default_factory=set[str])
    latest_sha256: str | None = None
    partitions: dict[str, list[tuple[datetime, PublishedPartition]]] = field(
        default_factory=lambda: defaultdict[str, list[tuple[datetime, PublishedPartition]]](list)
    )

    @classmethod
    def read(cls, archive: Archive) -> "ManifestChain":
        """Read it from the newest manifest to the first; every link is checked."""
        chain = cls()
        newer: FoundManifest | None = None
        for found in iter_manifests(archive.store, archive.keys):
            sequence = archive.keys.manifest_sequence(found.key)
            if sequence is None:
                chain.findings.append(Finding("object_unknown", found.key))
                continue
            chain._check_link(archive, newer, found, sequence)
            chain.hashes.add(found.sha256)
            chain.latest_sha256 = chain.latest_sha256 or found.sha256
            if found.manifest:
                for partition in found.manifest.partitions:
                    shared = _shared(partition)
                    chain.partitions[shared.key].append((found.manifest.published_time, shared))
            newer = found
        if newer:
            first = archive.keys.manifest_sequence(newer.key) or 0
            chain._find_missing(archive, first - 1, 0)
        return chain

    def _check_link(
        self, archive: Archive, newer: FoundManifest | None, found: FoundManifest, sequence: int
    ) -> None:
        if found.manifest is None or found.manifest.sequence != sequence:
            self.findings.append(Finding("manifest_altered", found.key))
        if newer is None:
            return
        newer_sequence = archive.keys.manifest_sequence(newer.key) or 0
        self._find_missing(archive, newer_sequence - 1, sequence)
        if (
            newer_sequence == sequence + 1
            and newer.manifest
            and newer.manifest.previous_sha256 != found.sha256
            and found.manifest
            and found.manifest.sequence == sequence
        ):
            self.findings.append(
                Finding("manifest_altered", found.key, detail=f"or {newer.key}, which names it")
            )

    def _find_missing(self, archive: Archive, newest: int, oldest: int) -> None:
        """Those between two that are there: (oldest, newest]."""
        if newest > oldest:
            count = newest - oldest
            detail = f"and {count - 1} before it" if count > 1 else ""
            self.findings.append(
                Finding("manifest_missing", archive.keys.manifest(newest), detail=detail)
            )

    @property
    def length(self) -> int:
        """How many manifests there are."""
        return len(self.hashes)

    def refresh(self, archive: Archive) -> None:
        """Take in what was published since the chain was read."""
        newer: list[FoundManifest] = []
        for found in iter_manifests(archive.store, archive.keys):
            if found.sha256 in self.hashes:
                break
            newer.append(found)
        for found in reversed(newer):
            self.hashes.add(found.sha256)
            self.latest_sha256 = found.sha256
            if found.manifest:
                for partition in found.manifest.partitions:
                    self.partitions[partition.key].insert(
                        0, (found.manifest.published_time, partition)
                    )

    def state_of(self, key: ObjectKey, sha256: str | None) -> PartitionState:
        """Whether a partition with this SHA-256 (None: that is not there) is what it should be.

        It should be what was announced and not replaced since. That need not be what the newest manifest names:
        of runs that announce at once, one replaces the partition, and another that finds nothing more to change
        then leaves a manifest whose content never was.
        """
        published = [partition for _, partition in self.partitions.get(key, [])]
        if not published:
            return "unknown" if sha256 else "published"
        if sha256 is None:
            return "missing"
        announced = {each.sha256 for each in published}
        replaced = {each.replaced_sha256 for each in published if each.is_change}
        if sha256 == published[0].sha256 or sha256 in announced - replaced:
            return "published"
        return "unfinished" if sha256 in {*announced, published[0].replaced_sha256} else "altered"

    def breaks(self, since: datetime | None) -> list[Finding]:
        """Where a partition had become something that nobody published before a run replaced it.

        A run that was killed before it wrote a partition leaves a manifest whose content never was; so
        whatever an earlier manifest names may be replaced, and nothing at all as long as no manifest
        replaced something.
        """
        found: list[Finding] = []
        for key, published in self.partitions.items():
            known: set[str | None] = {None}
            for time, partition in reversed(published):
                if partition.replaced_sha256 not in known and (since is None or time >= since):
                    detail = f"before {time:%Y-%m-%d %H:%M} UTC"
                    found.append(Finding("partition_was_altered", key, detail=detail))
                if partition.replaced_sha256:
                    known.discard(None)
                known.add(partition.sha256)
        return found


def _shared(partition: PublishedPartition) -> PublishedPartition:
    """The same with texts that are kept once: a year has hundreds of thousands of them, most of them twice."""
    return PublishedPartition(
        key=sys.intern(partition.key),
        sha256=sys.intern(partition.sha256),
        replaced_sha256=sys.intern(partition.replaced_sha256)
        if partition.replaced_sha256
        else None,
        rows=partition.rows,
    )
