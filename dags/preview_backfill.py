"""Tells what a backfill will take, before it is started: contact tasks, requests, minutes and bytes.

Trigger it with the two ends of a range. The log of its only Airflow task shows a small table, and the return
value of that Airflow task (its XCom) holds the same numbers. Each number is either counted (*exactly*) or
estimated from an even sample of the range, and then it comes with the range in which it should lie.

It takes a minute or two: some seventy API requests within the same rate budget as everything else, the sizes
of the captures of a hundred contact tasks, and one listing of the bucket. Nothing is copied and nothing is
written. *Backfill* itself is at the DAGs `archive_captures` and `archive_history`.

**When it fails:** nothing is harmed. The log says in one sentence which setting is wrong or what could not be
reached; trigger it again.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import dag, task

from include.pipelines import preview_backfill as pipeline
from plugins.alerts import alert_a_person
from plugins.archive_run import API_POOL, ARCHIVE_PARAMS, archive_run, range_params
from plugins.fail_fast import fail_fast


@dag(
    schedule=None,
    start_date=pendulum.datetime(2020, 1, 1, tz="UTC"),
    catchup=False,
    default_args={
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "execution_timeout": timedelta(hours=12),
    },
    params={**range_params(is_required=True), **ARCHIVE_PARAMS},
    on_failure_callback=alert_a_person(),
    tags=["webex", "archive"],
    doc_md=__doc__,
)
def preview_backfill() -> None:
    @task(pool=API_POOL)
    @fail_fast
    def preview() -> dict[str, object]:
        with archive_run() as run:
            told = pipeline.preview_backfill(
                run.interval, run.client, run.media, run.archive, run.options
            )
            return told.to_json()

    preview()


preview_backfill()
