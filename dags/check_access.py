"""Checks once a day that the archive may ask Webex, and will be able to next week.

It reads the stored token pair and sends one small request (two when that is refused); it spends no refresh token
and changes nothing. It tells of

- an access token that should have been refreshed long ago, and a refresh token whose life Webex does not lengthen;
- a token of another org, and a host of another data centre;
- a missing scope: `cjp:config_read`, and `cjp:config_write` if there is a connection `wxcc_capture_events`;
- an application that is not authorised in Control Hub (any more).

**Run it at any time**, such as after any change of the connection.

**When it fails:** the log has one sentence for each thing that was found, with what to do about it.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task

from include.pipelines import check_access as pipeline
from plugins.alerts import alert_a_person
from plugins.archive_run import API_POOL
from plugins.connections import find_connection
from plugins.fail_fast import fail_fast
from plugins.token_store import token_store
from plugins.webex_hook import WebexContactCenterHook


@dag(
    schedule=CronDataIntervalTimetable("15 6 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2020, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=1),
    },
    on_failure_callback=alert_a_person(),
    tags=["webex", "token"],
    doc_md=__doc__,
)
def check_access() -> None:
    @task(pool=API_POOL)
    @fail_fast
    def check() -> str:
        hook = WebexContactCenterHook()
        connection = hook.get_conn()
        return pipeline.check_access(
            connection,
            token_store(connection),
            hook.get_client_with,
            needs_write_scope=find_connection("wxcc_capture_events") is not None,
        )

    check()


check_access()
