"""Lists, plans, writes and reads a month of many contact tasks; each measurement is a process of its own."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from benchmarks.archive_shard_peer import open_archive, open_client
from benchmarks.capture_sets import contact_task_id, org_id
from benchmarks.laboratory import Laboratory, RunFailedError, open_laboratory
from benchmarks.webex_stand_in import TaskList
from include.domain.capture_state import CapturePolicy
from include.domain.contact_centre import Capture, ContactTask
from include.domain.interval import Interval, epoch_ms, hour_of
from include.domain.new_rows import new_capture_row, new_contact_task_row
from include.domain.object_keys import KeyLayout
from include.domain.rows import CaptureRow, ContactTaskRow
from include.pipelines.archive_captures import ArchiveOptions, plan_shards
from include.storage.tables import from_parquet, to_parquet
from include.webex.contact_task_listing import list_contact_tasks

CONTACT_TASKS = 1_000_000
DAYS = 30
_HOURS = DAYS * 24
AnyRow = TypeVar("AnyRow", ContactTaskRow, CaptureRow)


def measure_million(count: int = CONTACT_TASKS) -> dict[str, list[dict[str, object]]]:
    """What a month of so many contact tasks costs, by the headings of the report.

    Raises:
        RunFailedError: Something is missing at the end.
    """
    with open_laboratory() as laboratory:
        listed = [_measure(laboratory, work, count) for work in ("start", "list", "plan")]
        tables = [_measure(laboratory, work, count) for work in ("contact_tasks", "captures")]
    heading = f"A month of {count:,} contact tasks"
    return {f"{heading}: listed and planned": listed, f"{heading}: Parquet by the hour": tables}


def _measure(laboratory: Laboratory, work: str, count: int) -> dict[str, object]:
    end = hour_of(datetime.now(UTC))
    interval = Interval(end - timedelta(days=DAYS), end)
    width_ms = epoch_ms(interval.end) - epoch_ms(interval.start)
    tasks = TaskList(epoch_ms(interval.start), width_ms, count)
    laboratory.ask(f"{laboratory.webex_url}/benchmark/tasks", json.dumps(asdict(tasks)).encode())
    laboratory.ask(f"{laboratory.webex_url}/benchmark/requests")
    command = [sys.executable, "-m", "benchmarks.million_contact_tasks", work]
    command += ["--webex-url", laboratory.webex_url, "--s3-url", laboratory.s3_url]
    cost, output = laboratory.measure(
        [*command, "--count", str(count), "--end", interval.end.isoformat()]
    )
    told: dict[str, object] = json.loads(output)
    found = told.pop("found")
    if found != (0 if work == "start" else count):
        raise RunFailedError(f"{work}: {found} of {count} contact tasks")
    figures: dict[str, object] = {
        "work": work,
        "CPU s": cost.cpu_seconds,
        "wall s": cost.wall_seconds,
    }
    if not told:
        requests = int(laboratory.ask(f"{laboratory.webex_url}/benchmark/requests"))
        figures |= {"requests": requests}
    return {**figures, "peak MiB": cost.peak_bytes >> 20, **told}


def main() -> None:
    """Do one kind of work and print what came of it; the whole process is measured from outside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=("start", "list", "plan", "contact_tasks", "captures"))
    parser.add_argument("--webex-url", required=True)
    parser.add_argument("--s3-url", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--end", type=datetime.fromisoformat, required=True)
    chosen = parser.parse_args()
    interval = Interval(chosen.end - timedelta(days=DAYS), chosen.end)
    client = open_client(chosen.webex_url, Path.home())
    archive = open_archive(chosen.s3_url, "million")
    told: dict[str, object] = {}
    found = 0
    if chosen.work == "list":
        found = sum(1 for _ in list_contact_tasks(client, interval, chosen.end))
    elif chosen.work == "plan":
        found = sum(each.count for each in plan_shards(interval, client, archive, ArchiveOptions()))
    elif chosen.work == "contact_tasks":
        found, told = _parquet(_contact_task_hours(interval, chosen.count), ContactTaskRow)
    elif chosen.work == "captures":
        hours = _contact_task_hours(interval, chosen.count)
        found, told = _parquet(([_capture_row(row) for row in rows] for rows in hours), CaptureRow)
    print(json.dumps({"found": found, **told}))


def _parquet(
    hours: Iterator[list[AnyRow]], row_type: type[AnyRow]
) -> tuple[int, dict[str, object]]:
    """Rows a second of writing and of reading one partition after the other, the rows being there."""
    count = size_bytes = 0
    writing = reading = 0.0
    for rows in hours:
        body, seconds = _timed(lambda rows=rows: to_parquet(rows, row_type))
        writing += seconds
        again, seconds = _timed(lambda body=body: from_parquet(body, row_type))
        reading += seconds
        size_bytes += len(body)
        count += len(again)
    return count, {
        "rows/s written": int(count / writing),
        "rows/s read": int(count / reading),
        "MiB": size_bytes / (1 << 20),
        "bytes/row": size_bytes / count,
        "rows/partition": count // _HOURS,
    }


Result = TypeVar("Result")


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def _contact_task_hours(interval: Interval, count: int) -> Iterator[list[ContactTaskRow]]:
    hours: Sequence[datetime] = list(interval.hours())
    for number, hour in enumerate(hours):
        first, stop = number * count // len(hours), (number + 1) * count // len(hours)
        yield [
            _contact_task_row(
                each, hour + timedelta(seconds=3600 * (each - first) / (stop - first))
            )
            for each in range(first, stop)
        ]


def _contact_task_row(number: int, created_time: datetime) -> ContactTaskRow:
    contact_task = ContactTask(
        task_id=contact_task_id(number),
        created_time=created_time,
        channel_type="telephony",
        status="ended",
        last_updated_time=created_time + timedelta(minutes=5),
        capture_requested=True,
        direction="INBOUND",
        origin=f"+1213555{number % 10_000:04d}",
        destination="+18005550100",
        reason_code="Sale",
        owner_id=contact_task_id(number % 97),
        owner_name=f"Agent {number % 97}",
        queue_id=contact_task_id(number % 7),
        queue_name=f"Queue {number % 7}",
    )
    return new_contact_task_row(contact_task, org_id(), created_time, CapturePolicy())


def _capture_row(row: ContactTaskRow) -> CaptureRow:
    """As after a copy; what tells one capture from another does not shrink under compression."""
    capture = Capture(
        kind="recording",
        capture_id=row.task_id,
        download_url=None,
        file_name=f"{row.task_id}.wav",
        segment=False,
        call_type="main",
        channel1="Caller",
        channel2="Agent",
        participants=(row.owner_id or "", "+121****1219"),
        start_time=row.created_time,
        stop_time=row.last_updated_time,
    )
    return replace(
        new_capture_row(row, capture),
        outcome="copied",
        object_key=KeyLayout(row.org_id).capture(
            row.created_time, row.task_id, capture.kind, capture.capture_id, capture.file_name
        ),
        size_bytes=200_000,
        sha256=hashlib.sha256(row.task_id.encode()).hexdigest(),
        format="wav",
        attempts=1,
        copied_time=row.last_updated_time,
    )


if __name__ == "__main__":
    main()
