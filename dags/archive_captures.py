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

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag

from plugins.alerts import alert_a_person
from plugins.archive_run import ARCHIVE_PARAMS
from plugins.archive_steps import archive_interval
from plugins.deadlines import finished_within
from plugins.priorities import BACKFILLS_LAST


@dag(
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=pendulum.datetime(2020, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=4,
    default_args={
        "retries": 3,
        "execution_timeout": timedelta(hours=12),
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
        "weight_rule": BACKFILLS_LAST,
    },
    on_failure_callback=alert_a_person(),
    deadline=finished_within(timedelta(hours=2)),
    params=ARCHIVE_PARAMS,
    tags=["webex", "archive"],
    doc_md=__doc__,
)
def archive_captures() -> None:
    archive_interval()


archive_captures()
