"""Archives one hour of Webex Contact Center: every recording and transcript of the contact tasks created in it.

One run lists the contact tasks created in its data interval, queries their captures ten at a time, copies
what is not yet whole in the bucket, and publishes one partition of each of the tables `contact_tasks` and
`captures`. An hour without contact tasks publishes empty partitions.

**Run it again at any time**: clear it, backfill it, run it beside another one. Objects that are whole are not
downloaded again, and each row is there once. Use *Trigger → Backfill* for a range of past hours.

**When it fails:** a capture that could not be copied is a row with the outcome `failed` and stops nothing else;
the run fails at its end and names it, and clearing the failed Airflow tasks tries it again. A wrong setting
fails at once and the log names the field. Without a usable access token it waits two minutes for
`refresh_access_token`, then says so and is tried again. A run that failed, and an hour that is not archived two
hours after it ended, are told to a person by e-mail or a webhook, where these are set up.

It needs the connections `webex_contact_center` and `wxcc_store` and the pool `wxcc_api`, which bounds how many
Airflow tasks speak to Webex at once. While that pool is missing, Airflow leaves this DAG's Airflow tasks in the
state *scheduled*: make it with `airflow pools set wxcc_api 4 "Webex API users"`.
"""

from dataclasses import asdict
from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, TriggerRule, dag, task

from include.pipelines import archive_captures as pipeline
from plugins.alerts import alert_a_person
from plugins.archive_run import API_POOL, ARCHIVE_PARAMS, archive_run
from plugins.deadlines import finished_within
from plugins.fail_fast import fail_fast


@dag(
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=pendulum.datetime(2020, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=4,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
    },
    on_failure_callback=alert_a_person(),
    deadline=finished_within(timedelta(hours=2)),
    params=ARCHIVE_PARAMS,
    tags=["webex", "archive"],
    doc_md=__doc__,
)
def archive_captures() -> None:
    @task(pool=API_POOL)
    @fail_fast
    def plan_shards() -> list[dict[str, int]]:
        with archive_run() as run:
            shards = pipeline.plan_shards(run.interval, run.client, run.archive, run.options)
            return [asdict(shard) for shard in shards]

    # Query and copy in one Airflow task: a retry must ask for fresh download URLs.
    @task(pool=API_POOL)
    @fail_fast
    def archive_shard(shard: dict[str, int]) -> None:
        with archive_run() as run:
            pipeline.archive_shard(
                pipeline.Shard(**shard), run.client, run.media, run.archive, run.options
            )

    # Also after a shard that failed: what the others found is published, then this fails too.
    @task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    @fail_fast
    def publish_tables(shards: list[dict[str, int]]) -> None:
        with archive_run() as run:
            pipeline.publish_tables(
                run.interval, run.archive, [pipeline.Shard(**shard) for shard in shards]
            )

    shards = plan_shards()
    archive_shard.expand(shard=shards) >> publish_tables(shards)


archive_captures()
