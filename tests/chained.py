"""Checks what holds of a bucket at every moment, whoever is in the middle of what."""

import hashlib
import io
import itertools
import json
from collections import defaultdict
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pyarrow.parquet as pq

from tests.archived import ArchivedHours


def assert_sound(archived: ArchivedHours, whole_sha256: Collection[str]) -> None:
    """Whatever is visible is whole, announced, and says nothing that is not there.

    Args:
        archived: The bucket.
        whole_sha256: Of every content that the contact centre ever offered.
    """
    bodies = {key: archived.bytes_of(key) for key in archived.keys}
    hashes = {key: hashlib.sha256(body).hexdigest() for key, body in bodies.items()}
    for key in archived.objects:
        assert hashes[key] in whole_sha256, f"{key} is no whole capture"
    partitions = {
        key: pq.read_table(io.BytesIO(bodies[key])).to_pylist()
        for key in archived.keys
        if key.startswith("tables/")
    }
    for key, rows in partitions.items():
        for row in rows:
            if row.get("object_key"):
                assert hashes[row["object_key"]] == row["sha256"], f"{key} tells of another object"
    assert_announced(archived)
    assert_nothing_is_forgotten(archived, partitions)


def assert_announced(archived: ArchivedHours) -> None:
    """The chain of manifests is unbroken, and every partition is one that it announced.

    The newest manifest that names a partition tells what it replaced. The partition is that still (who
    announced it was killed), or what a manifest announced and none replaced: when some announce at once,
    only one of them replaces it, and which one, the order of the manifests does not tell.
    """
    manifests = _manifests(archived)
    announced: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for manifest in manifests:
        for partition in manifest["partitions"]:
            announced[partition["key"]].append(partition)
    for key in announced.keys() | {key for key in archived.keys if key.startswith("tables/")}:
        there = hashlib.sha256(archived.bytes_of(key)).hexdigest() if key in archived.keys else None
        assert announced[key], f"no manifest announced {key}"
        known: set[str | None] = {None}
        for partition in announced[key]:
            assert partition["replaced_sha256"] in known, f"{key} replaced what nobody announced"
            known.add(partition["sha256"])
            if partition["replaced_sha256"] is not None:
                known.discard(None)
        expected = {partition["sha256"] for partition in announced[key]} - {
            partition["replaced_sha256"]
            for partition in announced[key]
            if partition["replaced_sha256"] != partition["sha256"]
        }
        newest = announced[key][-1]
        assert there in expected | {newest["sha256"], newest["replaced_sha256"]}, (
            f"{key} is not what was announced"
        )


def assert_published(archived: ArchivedHours) -> None:
    """Of runs that ended: every partition that a manifest names is there, as one of them announced it."""
    assert_announced(archived)
    announced: dict[str, set[str]] = defaultdict(set)
    for manifest in _manifests(archived):
        for partition in manifest["partitions"]:
            announced[partition["key"]].add(partition["sha256"])
    for key, hashes in announced.items():
        assert hashlib.sha256(archived.bytes_of(key)).hexdigest() in hashes


def _manifests(archived: ArchivedHours) -> list[dict[str, Any]]:
    """All of them, oldest first, each naming the one before."""
    keys = sorted((key for key in archived.keys if key.startswith("manifests/")), reverse=True)
    bodies = [archived.bytes_of(key) for key in keys]
    manifests = [json.loads(body) for body in bodies]
    assert [manifest["sequence"] for manifest in manifests] == list(range(1, len(keys) + 1))
    hashes = [hashlib.sha256(body).hexdigest() for body in bodies]
    previous = [manifest["previous_sha256"] for manifest in manifests]
    assert previous == [None, *hashes][: len(previous)], "the chain is broken"
    return manifests


def assert_nothing_is_forgotten(
    archived: ArchivedHours, partitions: dict[str, list[dict[str, Any]]]
) -> None:
    """Whoever is to be looked at again has a due marker at that time or before."""
    due: dict[str, list[str]] = defaultdict(list)
    for key in archived.keys:
        if key.startswith("due/"):
            _, _, due_time, kind, hour = key.split("/")
            if kind == "check":
                due[hour].append(due_time)
    for rows in partitions.values():
        for row in rows:
            if row.get("next_check_time"):
                rounded_up = row["next_check_time"] + timedelta(microseconds=999_999)
                times = due[f"{row['created_time']:%Y%m%dT%H}Z"]
                assert min(times, default="never") <= f"{rounded_up:%Y%m%dT%H%M%S}Z", (
                    f"contact task {row['task_id']} is not looked at when it is due"
                )


def assert_nothing_is_overwritten(s3: Any, bucket: str) -> None:
    """Of a bucket that keeps versions: no capture and no manifest ever had two contents, and no partition
    was replaced by what was not made of it."""
    versions: dict[str, list[str]] = defaultdict(list)
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for item in page.get("Versions", []):
            if item["Key"].startswith(("captures/", "manifests/", "tables/")):
                found = s3.get_object(Bucket=bucket, Key=item["Key"], VersionId=item["VersionId"])
                versions[item["Key"]].insert(0, hashlib.sha256(found["Body"].read()).hexdigest())
        removed = [item["Key"] for item in page.get("DeleteMarkers", [])]
        assert all(key.startswith(("due/", "_work/")) for key in removed)
    steps: dict[str, set[tuple[str | None, str]]] = defaultdict(set)
    for manifest in _manifests(ArchivedHours(s3, bucket)):
        for partition in manifest["partitions"]:
            steps[partition["key"]].add((partition["replaced_sha256"], partition["sha256"]))
    for key, hashes in versions.items():
        if key.startswith("tables/"):
            for step in itertools.pairwise([None, *hashes]):
                assert step in steps[key], f"{key} was replaced by what was not made of it"
        else:
            assert len(set(hashes)) == 1, f"{key} was overwritten"
