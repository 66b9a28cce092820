"""The three Airflow tasks that archive the data interval of a run, be it an hour or a day."""

from dataclasses import asdict
from typing import Any

from airflow.sdk import TriggerRule, task

from include.pipelines import archive_captures as pipeline
from plugins.archive_run import API_POOL, archive_run
from plugins.fail_fast import fail_fast


def archive_interval() -> None:
    """Add `plan_shards`, one `archive_shard` for each shard, and `publish_tables` to the DAG being built."""

    @task(pool=API_POOL)
    @fail_fast
    def plan_shards() -> list[dict[str, Any]]:
        with archive_run() as run:
            shards = pipeline.plan_shards(run.interval, run.client, run.archive, run.options)
            return [asdict(shard) for shard in shards]

    # Query and copy in one Airflow task: a retry must ask for fresh download URLs.
    @task(pool=API_POOL)
    @fail_fast
    def archive_shard(shard: dict[str, Any]) -> None:
        with archive_run() as run:
            pipeline.archive_shard(
                pipeline.Shard(**shard), run.client, run.media, run.archive, run.options
            )

    # Also after a shard that failed: what the others found is published, then this fails too.
    # It writes, so it is in the pool: one slot makes up for a store without conditional writes.
    @task(pool=API_POOL, trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    @fail_fast
    def publish_tables(shards: list[dict[str, Any]]) -> None:
        with archive_run() as run:
            pipeline.publish_tables(
                run.interval, run.archive, [pipeline.Shard(**shard) for shard in shards]
            )

    shards: Any = plan_shards()
    published: Any = publish_tables(shards)
    archive_shard.expand(shard=shards).set_downstream(published)
