"""Looks again at what is not final yet: captures that come late, contact tasks that Webex lists late.

Every hour one listing of the bucket tells what is due; when nothing is, nothing is asked of Webex. Contact tasks
that are due are queried in full batches of ten across hours, what is new is copied, and the hours' partitions
are published. The distances between two looks grow with the age of a contact task (half an hour to a day),
until its captures are there and have been stable for two days, or it is 14 days old. Recent hours are
listed again within half a day, after two days, a week and two weeks.

A capture that Webex changed since it was copied (a call stitched anew) is copied again under a key of its own;
the earlier object stays. What was offered once and is offered no more becomes `gone`.

Besides every hour it runs when capture events told of contact tasks (the asset `wxcc_capture_hints`, at most every
20 seconds): those are looked at now.

**Run it again at any time**: only what is due costs anything.

**When it fails:** the log names the captures that could not be copied, which are tried again when they are due;
the contact tasks that became `overdue`, which means that Webex requested a capture and never offered it (ask
Cisco's support, or run `archive_captures` for that hour again later); and those that are not archived while
Webex is about to purge them, which need a person now.
"""

from dataclasses import asdict
from datetime import timedelta

import pendulum
from airflow.sdk import AssetOrTimeSchedule, CronDataIntervalTimetable, TriggerRule, dag, task

from include.pipelines import archive_captures
from include.pipelines import recheck_captures as pipeline
from plugins.alerts import alert_a_person
from plugins.archive_run import API_POOL, RECHECK_PARAMS, archive_run
from plugins.capture_events import CAPTURE_HINTS
from plugins.fail_fast import fail_fast


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=CronDataIntervalTimetable("20 * * * *", timezone="UTC"),
        assets=CAPTURE_HINTS,
    ),
    start_date=pendulum.datetime(2020, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "execution_timeout": timedelta(hours=12),
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
    },
    on_failure_callback=alert_a_person(),
    params=RECHECK_PARAMS,
    tags=["webex", "archive"],
    doc_md=__doc__,
)
def recheck_captures() -> None:
    # Nothing due: nothing else starts.
    @task.short_circuit(pool=API_POOL)
    @fail_fast
    def plan_recheck() -> list[dict[str, int | str]]:
        with archive_run() as run:
            return [asdict(shard) for shard in pipeline.plan_recheck(run.client, run.archive)]

    # Query and copy in one Airflow task: a retry must ask for fresh download URLs.
    @task(pool=API_POOL)
    @fail_fast
    def archive_shard(shard: dict[str, int | str]) -> None:
        with archive_run() as run:
            archive_captures.archive_shard(
                archive_captures.Shard(**shard), run.client, run.media, run.archive, run.options
            )

    # Also after a shard that failed: what the others found is published, then this fails too.
    # It writes, so it is in the pool: one slot makes up for a store without conditional writes.
    @task(pool=API_POOL, trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    @fail_fast
    def publish_recheck(shards: list[dict[str, int | str]]) -> None:
        with archive_run() as run:
            pipeline.publish_recheck(
                run.archive, [archive_captures.Shard(**shard) for shard in shards]
            )

    shards = plan_recheck()
    archive_shard.expand(shard=shards) >> publish_recheck(shards)


recheck_captures()
