"""Keeps Webex's subscription to capture events, so that a recording is archived soon after it is there.

Once a day it sees that Webex sends the event `capture:available` to the receiver that the connection
`wxcc_capture_events` names, and mends what is not so: no subscription, another destination, another secret, an
inactive one (Webex switches one off whose receiver fails), duplicates. Subscriptions of others are never touched.
Without that connection it is skipped: the archive is as complete without events, only later.

**Run it** after any change of the connection. Clearing and re-running it is safe.

**When it fails:** the log says in one sentence what to do. Most often the application lacks the scope
`cjp:config_write`, or the org has 20 subscriptions already.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task

from include.pipelines import subscribe_capture_events as pipeline
from plugins.alerts import alert_a_person
from plugins.archive_run import API_POOL
from plugins.capture_events import capture_events_run
from plugins.fail_fast import fail_fast


@dag(
    schedule=CronDataIntervalTimetable("45 5 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2020, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=3),  # two of them may pass being throttled
    },
    on_failure_callback=alert_a_person(),
    tags=["webex", "events"],
    doc_md=__doc__,
)
def subscribe_capture_events() -> None:
    @task(pool=API_POOL)
    @fail_fast
    def subscribe() -> str:
        with capture_events_run() as (connection, client):
            return pipeline.subscribe_capture_events(connection, client)

    subscribe()


subscribe_capture_events()
