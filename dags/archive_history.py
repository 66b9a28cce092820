"""Archives the past of Webex Contact Center by the day: for backfills of months and years.

One run does for a whole day what `archive_captures` does for an hour, into the same partitions: it lists the
contact tasks created on that day (UTC), copies their captures, and publishes the day's 24 partitions of each
table. One listing and three Airflow tasks a day take the place of 24 and 72.

**Backfill is the only way to run it**: un-pause it, then *Trigger → Backfill* with the first and the last day.
It has no runs of its own, and Airflow refuses a single run. Its Airflow tasks wait whenever another DAG wants a
slot of the pool `wxcc_api`, so the current hours are not delayed. Days may be archived again at any time, also
days of which some hours are there already: what is whole is not downloaded again, and each row is there once.

**When it fails:** as `archive_captures`; clear the failed run, or backfill its day again with *Missing and Errored
Runs*.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag

from plugins.alerts import alert_a_person
from plugins.archive_run import ARCHIVE_PARAMS
from plugins.archive_steps import archive_interval
from plugins.priorities import BACKFILLS_LAST


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    # Backfills need a schedule and heed no start date: this one keeps the scheduler from making runs.
    start_date=pendulum.datetime(2100, 1, 1, tz="UTC"),
    # A manual run before the start date would be green and do nothing, so there is none.
    allowed_run_types=["scheduled", "backfill"],
    catchup=False,
    default_args={
        "retries": 3,
        "execution_timeout": timedelta(hours=12),
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
        "weight_rule": BACKFILLS_LAST,
    },
    on_failure_callback=alert_a_person(),
    params=ARCHIVE_PARAMS,
    tags=["webex", "archive"],
    doc_md=__doc__,
)
def archive_history() -> None:
    archive_interval()


archive_history()
