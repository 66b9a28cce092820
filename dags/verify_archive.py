"""Proves every day that nothing is missing, and writes the table `completeness`.

It compares, both ways: what Webex lists with `contact_tasks`, that with `captures`, that with the objects in the
bucket (that they are there, and their size; of a sample the SHA-256 of every byte), and the partitions with
the chain of manifests, which tells whether anything was altered or removed since it was published. By itself
it verifies the hours of the last three days; trigger it with the two ends of a range to verify any other, and
with *Objects to read* at 100 to read every byte of it. `make verify` does the same from the bucket alone.

`completeness` gets one row for each hour and channel: how many contact tasks are expected, archived, pending,
overdue, gone, failed or missing, and how many captures and bytes there are.

**Run it again at any time**: it changes nothing but `completeness`, and due markers that were lost.

**When it fails:** the log lists what is not as it should be, where, and for each the command that mends it. An
hour that was never archived, or that Webex is about to purge, is listed as well. What is not a failure of the
archive but of somebody's hand (an object or a row that was altered) needs the version before from the bucket.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task

from include.pipelines import verify_archive as pipeline
from plugins.alerts import alert_a_person
from plugins.archive_run import API_POOL, VERIFY_PARAMS, archive_run
from plugins.fail_fast import fail_fast


@dag(
    schedule=CronDataIntervalTimetable("30 3 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2020, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=12),
    },
    on_failure_callback=alert_a_person(),
    params=VERIFY_PARAMS,
    tags=["webex", "archive"],
    doc_md=__doc__,
)
def verify_archive() -> None:
    @task(pool=API_POOL)
    @fail_fast
    def verify() -> str:
        with archive_run() as run:
            found = pipeline.verify_archive(
                run.verified_interval,
                run.client,
                run.archive,
                sha256_percent=run.params["sha256_percent"],
                is_whole_interval=run.is_range_given,
            )
            found.raise_findings()
            return found.summary

    verify()


verify_archive()
