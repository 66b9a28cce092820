"""The DAGs without Airflow: which Airflow task follows which, so that one can be repeated, held up or killed."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

from include.domain.interval import Interval
from include.pipelines import archive_captures, recheck_captures
from tests.pipelines.conftest import Centre

_buckets = itertools.count(1)


class AirflowTasks:
    """The Airflow tasks of one DAG run, one after the other; those that are finished are not repeated."""

    def __init__(
        self,
        finished: dict[str, Any] | None = None,
        note: Callable[[str, Any], None] = lambda name, result: None,
    ) -> None:
        self._finished = finished or {}
        self._note = note

    def run(self, name: str, action: Callable[[], Any]) -> Any:
        if name not in self._finished:
            self._finished[name] = action()
            self._note(name, self._finished[name])
        return self._finished[name]


def archive_hours(
    centre: Centre,
    interval: Interval,
    tasks: AirflowTasks,
    run_id: str = "archive",
    options: archive_captures.ArchiveOptions | None = None,
) -> None:
    """The DAG `archive_captures`."""
    archive, options = centre.archive(run_id), options or archive_captures.ArchiveOptions()
    client, media = centre.client, centre.media
    planned = tasks.run(
        "plan_shards",
        lambda: [
            dataclasses.asdict(shard)
            for shard in archive_captures.plan_shards(interval, client, archive, options)
        ],
    )
    shards = [archive_captures.Shard(**shard) for shard in planned]
    for shard in shards:
        tasks.run(
            f"archive_shard {shard.first}",
            lambda shard=shard: archive_captures.archive_shard(
                shard, client, media, archive, options
            ),
        )
    tasks.run("publish_tables", lambda: archive_captures.publish_tables(interval, archive, shards))


def recheck(centre: Centre, tasks: AirflowTasks) -> None:
    """The DAG `recheck_captures`."""
    archive = centre.archive(f"recheck {centre.now:%H}")
    options = archive_captures.ArchiveOptions(look_for_changes=True)
    planned = tasks.run(
        "plan_recheck",
        lambda: [
            dataclasses.asdict(shard)
            for shard in recheck_captures.plan_recheck(centre.client, archive)
        ],
    )
    shards = [archive_captures.Shard(**shard) for shard in planned]
    for shard in shards:
        tasks.run(
            f"archive_shard {shard.first}",
            lambda shard=shard: archive_captures.archive_shard(
                shard, centre.client, centre.media, archive, options
            ),
        )
    if shards:  # else Airflow skips what follows
        tasks.run("publish_recheck", lambda: recheck_captures.publish_recheck(archive, shards))


def in_new_bucket(centre: Centre, copied_from: str | None = None, s3: Any = None) -> Centre:
    """The centre with a bucket of its own, empty or a copy, on its own S3 server or another one."""
    s3 = s3 or centre.s3
    bucket = f"run-{next(_buckets)}"
    s3.create_bucket(Bucket=bucket)
    if copied_from:
        for item in centre.s3.list_objects_v2(Bucket=copied_from).get("Contents", []):
            source = {"Bucket": copied_from, "Key": item["Key"]}
            if s3 is centre.s3:
                s3.copy_object(Bucket=bucket, Key=item["Key"], CopySource=source)
            else:
                s3.put_object(
                    Bucket=bucket,
                    Key=item["Key"],
                    Body=centre.s3.get_object(**source)["Body"].read(),
                )
    return dataclasses.replace(centre, s3=s3, bucket=bucket)
