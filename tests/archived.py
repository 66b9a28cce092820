"""Compares an archive with what the sandbox holds: row by row and byte by byte."""

import hashlib
import io
import json
import re
from collections import Counter
from datetime import datetime
from typing import Any

import pyarrow.parquet as pq

from include.domain.interval import HOUR, epoch_ms, from_epoch_ms
from include.sandbox.server import Sandbox

_HOUR_OF_KEY = re.compile(r"created_date=([\d-]{10})/(?:created_hour=)?(\d\d)[/.]")


class ArchivedHours:
    """Everything under a bucket, read with nothing of the program but the key layout of the design."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3, self._bucket = s3, bucket
        self._bodies: dict[str, bytes] = {}
        self.keys = [
            item["Key"]
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
            for item in page.get("Contents", [])
        ]

    def keep_hours(self, first: datetime, count: int) -> None:
        """Leave out what is not of these hours of creation."""
        wanted = {f"{first + number * HOUR:%Y-%m-%d %H}" for number in range(count)}
        self.keys = [
            key
            for key in self.keys
            if (found := _HOUR_OF_KEY.search(key)) and " ".join(found.groups()) in wanted
        ]

    def bytes_of(self, key: str) -> bytes:
        if key not in self._bodies:
            found = self._s3.get_object(Bucket=self._bucket, Key=key)
            self._bodies[key] = found["Body"].read()
        return self._bodies[key]

    def rows(self, table: str) -> list[dict[str, Any]]:
        partitions = [key for key in self.keys if f"tables/{table}/" in key]
        return [
            row
            for key in partitions
            for row in pq.read_table(io.BytesIO(self.bytes_of(key))).to_pylist()
        ]

    @property
    def objects(self) -> list[str]:
        return [key for key in self.keys if "/created_hour=" in key]

    @property
    def working_files(self) -> list[str]:
        return [key for key in self.keys if "_work/" in key]


def assert_complete(archived: ArchivedHours, truth: list[dict[str, Any]]) -> None:
    """Every visible contact task is one row, every listed capture one row and one object, and no more."""
    contact_tasks = {row["task_id"]: row for row in archived.rows("contact_tasks")}
    assert len(contact_tasks) == len(archived.rows("contact_tasks")), "a contact task has two rows"
    expected = {task["task_id"]: task for task in truth if task["visible"]}
    assert set(contact_tasks) == set(expected)

    rows = archived.rows("captures")
    identities = Counter((row["task_id"], row["kind"], row["capture_id"]) for row in rows)
    assert [identity for identity, count in identities.items() if count > 1] == []
    offered = Counter(
        (task["task_id"], capture["kind"], capture["id"], capture["size_bytes"], capture["sha256"])
        for task in expected.values()
        for capture in task["captures"]
        if capture["listed"]
    )
    copied = Counter(
        (
            row["task_id"],
            row["kind"],
            row["capture_id"].partition("~")[0],
            row["size_bytes"],
            row["sha256"],
        )
        for row in rows
        if row["outcome"] == "copied"
    )
    assert copied == offered

    told = [row for row in rows if row["object_key"]]
    told += [version for row in rows for version in earlier_versions(row)]
    assert sorted(archived.objects) == sorted(each["object_key"] for each in told)
    for each in told:
        body = archived.bytes_of(each["object_key"])
        assert (len(body), hashlib.sha256(body).hexdigest()) == (
            each["size_bytes"],
            each["sha256"],
        )
    for task_id, row in contact_tasks.items():
        assert_told(row, expected[task_id])


def earlier_versions(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a capture that Webex changed since, which stay beside the one that the row names."""
    notes = json.loads(row["extra_json"] or "{}").get("archive", {})
    return notes.get("earlier_versions", [])


def assert_told(row: dict[str, Any], task: dict[str, Any]) -> None:
    """A contact task's row says what the API said."""
    told = task["attributes"]
    assert epoch_ms(row["created_time"]) == told["createdTime"]
    assert row["last_updated_time"] == from_epoch_ms(told["lastUpdatedTime"])
    assert row["channel_type"] == told["channelType"]
    assert row["status"] == told["status"]
    assert row["capture_requested"] is told.get("captureRequested")
    assert (row["origin"], row["destination"]) == (told.get("origin"), told.get("destination"))
    assert row["owner_id"] == (told.get("owner") or {}).get("id")
    assert row["queue_name"] == (told.get("queue") or {}).get("name")


def truth_with_all(
    sandbox: Sandbox, from_ms: int, to_ms: int, **flags: Any
) -> list[dict[str, Any]]:
    """What the sandbox holds, under the flags that an archiving run sends by default."""
    return sandbox.truth(from_ms, to_ms, **{"include_va": True, "include_screen": True} | flags)
