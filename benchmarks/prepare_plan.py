"""Writes the plan of one shard, as `plan_shards` would: contact tasks of one hour, each to be asked about."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from benchmarks.archive_shard_peer import open_archive
from benchmarks.capture_sets import contact_task_id, org_id
from include.domain.capture_state import CapturePolicy
from include.domain.contact_centre import ContactTask
from include.domain.interval import HOUR, hour_of
from include.domain.new_rows import new_contact_task_row
from include.domain.rows import ContactTaskRow
from include.pipelines.archive_captures import TO_QUERY, Shard
from include.storage.tables import to_parquet


def main() -> None:
    """`prepare_plan S3_URL BUCKET COUNT`."""
    s3_url, bucket, count = sys.argv[1:]
    now = datetime.now(UTC)
    rows = [_row(number, int(count), now) for number in range(int(count))]
    archive = open_archive(s3_url, bucket)
    key = archive.working_file(Shard(0, int(count)).file_name(TO_QUERY))
    archive.store.write(key, to_parquet(rows, ContactTaskRow))


def _row(number: int, count: int, now: datetime) -> ContactTaskRow:
    contact_task = ContactTask(
        task_id=contact_task_id(number),
        created_time=hour_of(now) - 2 * HOUR + timedelta(seconds=3600 * number / count),
        channel_type="telephony",
        status="ended",
        capture_requested=True,
    )
    return new_contact_task_row(contact_task, org_id(), now, CapturePolicy())


if __name__ == "__main__":
    main()
