"""What an analyst finds in the bucket, and whether it is what the sandbox holds."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import boto3  # noqa: TID251 - reads the bucket as a stranger would, not through the code it checks
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.config import Config

from tools import local_s3

TABLES = ("contact_tasks", "captures")
READERS = 4

QUERY = """\
SELECT channel_type AS channel,
       count(DISTINCT task_id) AS contact_tasks,
       count(capture_id) AS captures,
       round(coalesce(sum(size_bytes), 0) / 1e6, 1) AS megabytes
FROM contact_tasks LEFT JOIN captures USING (org_id, task_id)
GROUP BY ALL ORDER BY contact_tasks DESC"""


class Bucket:
    """The local bucket, read with plain S3 requests."""

    def __init__(self, endpoint_url: str, name: str) -> None:
        self.name = name
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            aws_access_key_id=local_s3.ACCESS_KEY,
            aws_secret_access_key=local_s3.SECRET_KEY,
            region_name=local_s3.REGION,
            config=Config(s3={"addressing_style": "path"}, max_pool_connections=READERS),
        )

    def create(self) -> None:
        """Create the bucket; one that is there keeps its objects."""
        self._s3.create_bucket(Bucket=self.name)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the size in bytes of every object, by key."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return {row["Key"]: row["Size"] for page in pages for row in page.get("Contents", [])}

    def read(self, key: str) -> bytes:
        """Return the bytes of one object."""
        return self._s3.get_object(Bucket=self.name, Key=key)["Body"].read()

    def sha256s(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the SHA-256 of each object's bytes, by key."""
        wanted = list(keys)
        with ThreadPoolExecutor(READERS) as readers:
            digests = readers.map(lambda key: hashlib.sha256(self.read(key)).hexdigest(), wanted)
            return dict(zip(wanted, digests, strict=True))

    def table(self, name: str) -> pa.Table | None:
        """Return a whole table, or None when no hour of it has been written."""
        keys = [key for key in self.sizes(f"tables/{name}/") if key.endswith(".parquet")]
        parts = [pq.ParquetFile(io.BytesIO(self.read(key))).read() for key in keys]
        return pa.concat_tables(parts, promote_options="default") if parts else None


@dataclass(frozen=True)
class Hour:
    """One archived hour: which, and when its archiving began (what came later may be missing)."""

    start: datetime
    end: datetime
    archived_from: datetime


@dataclass(frozen=True)
class Archived:
    """The rows of some hours, and the objects whose keys name these hours."""

    contact_tasks: Sequence[Mapping[str, Any]]
    captures: Sequence[Mapping[str, Any]]
    object_sizes: Mapping[str, int]
    object_sha256s: Mapping[str, str]


@dataclass
class Comparison:
    """What was compared with the sandbox's truth, and every difference found."""

    contact_tasks: int = 0
    captures: int = 0
    size_bytes: int = 0
    not_yet_offered: int = 0
    purged: int = 0
    differences: list[str] = field(default_factory=list)

    def differ(self, difference: str) -> None:
        """Note one difference."""
        self.differences.append(difference)


def compare_with_truth(
    truth: Iterable[Mapping[str, Any]], hours: Iterable[Hour], archived: Archived
) -> Comparison:
    """Compare the rows and objects of `hours` with what the sandbox says it holds.

    What the sandbox offered before the archiving of its hour began must be there; what it offered
    later may be. Nothing may be there that the sandbox does not hold, nor a row twice, nor an
    object without its row.
    """
    result = Comparison()
    known_hours = list(hours)
    task_rows = _rows_by_key(archived.contact_tasks, lambda row: (row["task_id"],), result)
    capture_rows = _rows_by_key(archived.captures, _capture_key, result)
    seen_tasks: set[tuple[str, ...]] = set()
    seen_captures: set[tuple[str, ...]] = set()
    for expected in truth:
        created = _time(expected["created_ms"])
        hour = next((hour for hour in known_hours if hour.start <= created < hour.end), None)
        if hour is None:
            continue
        task_key = (expected["task_id"],)
        seen_tasks.add(task_key)
        if task_key in task_rows:
            result.contact_tasks += 1
        elif _time(expected["visible_ms"]) < hour.archived_from:
            result.differ(f"contact task {expected['task_id']} has no row")
        for capture in expected["captures"]:
            key = (expected["task_id"], capture["kind"], capture["id"], capture["file_name"])
            seen_captures.add(key)
            _compare_capture(capture, hour, capture_rows.get(key), archived, result)
    for key in task_rows.keys() - seen_tasks:
        result.differ(f"contact task {key[0]} is not the sandbox's")
    for key in capture_rows.keys() - seen_captures:
        result.differ(f"{key[1]} {key[2]} ({key[3]}) is not the sandbox's")
    named = {row["object_key"] for row in capture_rows.values() if row["object_key"]}
    for key in archived.object_sizes.keys() - named:
        result.differ(f"object {key} has no row")
    return result


def _compare_capture(
    expected: Mapping[str, Any],
    hour: Hour,
    row: Mapping[str, Any] | None,
    archived: Archived,
    result: Comparison,
) -> None:
    name = f"{expected['kind']} {expected['id']} ({expected['file_name']})"
    was_offered = _time(expected["available_ms"]) < hour.archived_from
    if row is None or row["outcome"] == "pending":
        if expected["purged"]:
            result.purged += 1
        elif was_offered:
            result.differ(f"{name} was offered and is {'pending' if row else 'not in the table'}")
        else:
            result.not_yet_offered += 1
        return
    if row["outcome"] != "copied":
        if row["outcome"] == "gone" and expected["purged"]:
            result.purged += 1
        else:
            result.differ(f"{name} is {row['outcome']}: {row.get('last_error')}")
        return
    key = row["object_key"]
    changed = expected.get("changed_ms")
    has_changed_since = changed is not None and _time(changed) >= row["copied_time"]
    if key not in archived.object_sizes:
        result.differ(f"{name} has no object {key}")
    elif (
        archived.object_sizes[key] != row["size_bytes"]
        or archived.object_sha256s[key] != row["sha256"]
    ):
        result.differ(f"{name}: the object is not what its row says")
    elif not has_changed_since and row["sha256"] != expected["sha256"]:
        result.differ(f"{name}: the bytes are not the sandbox's")
    else:
        result.captures += 1
        result.size_bytes += row["size_bytes"]


def in_hours(
    rows: pa.Table | None, time_column: str, hours: Iterable[Hour]
) -> list[dict[str, Any]]:
    """Return the rows whose time lies in one of `hours`."""
    known_hours = list(hours)
    return [
        row
        for row in ([] if rows is None else rows.to_pylist())
        if any(hour.start <= row[time_column] < hour.end for hour in known_hours)
    ]


def query_lines(tables: Mapping[str, pa.Table]) -> list[str]:
    """Return the answer of `QUERY` over the tables, as aligned lines."""
    with duckdb.connect() as database:
        for name, table in tables.items():
            database.register(name, table)
        answer = database.execute(QUERY)
        names = [column[0] for column in answer.description or []]
        rows = [names, *[[str(value) for value in row] for row in answer.fetchall()]]
    widths = [max(len(row[place]) for row in rows) for place in range(len(names))]
    return [
        "  ".join(
            value.ljust(width) if place == 0 else value.rjust(width)
            for place, (value, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def outcome_counts(captures: pa.Table) -> str:
    """Return how many captures have which outcome, in words."""
    counts = Counter(captures.column("outcome").to_pylist())
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())


def _capture_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a row and the sandbox's truth have in common.

    The id of a transcript is that of a configuration (documented), so a contact task may have two
    of one id: the archive sets the second apart as `<id>~<hash>`, and their files' names differ.
    """
    return (row["task_id"], row["kind"], row["capture_id"].partition("~")[0], row["file_name"])


def _rows_by_key(
    rows: Iterable[Mapping[str, Any]],
    key_of: Callable[[Mapping[str, Any]], tuple[str, ...]],
    result: Comparison,
) -> dict[tuple[str, ...], Mapping[str, Any]]:
    by_key: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for row in rows:
        key = key_of(row)
        if key in by_key:
            result.differ(f"{' '.join(map(str, key))} has two rows")
        by_key[key] = row
    return by_key


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
