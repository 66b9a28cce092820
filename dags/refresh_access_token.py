"""Keeps the Webex access token fresh.

Every quarter of an hour it looks at the token pair in the Airflow variable `wxcc_token`. While half of the
access token's life (or four days of it) is left, nothing is sent. Otherwise it spends the refresh token on a
new pair and stores that pair before anyone uses it. The first refresh token comes from the extra field
`refresh_token` of the connection `webex_contact_center`.

This is the only Airflow task that refreshes, and it never runs twice at once: where Webex rotates refresh
tokens, the second refresh would spend a token that is already spent. Clearing and re-running it is safe.

**When it fails:** the log says in one sentence what to do. A refusal (wrong client secret, expired or revoked
refresh token) fails at once, since only a person can mend it; trouble on the way is tried again by itself.
Switched off for more than 90 days, the refresh token ends for good and a new first pair is needed.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task

from include.pipelines import refresh_access_token as pipeline
from plugins.alerts import alert_a_person
from plugins.fail_fast import fail_fast
from plugins.token_store import VariableTokenStore
from plugins.webex_hook import WebexContactCenterHook


@dag(
    schedule=CronDataIntervalTimetable("*/15 * * * *", timezone="UTC"),
    start_date=pendulum.datetime(2020, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "execution_timeout": timedelta(hours=1),
    },
    on_failure_callback=alert_a_person(),
    tags=["webex", "token"],
    doc_md=__doc__,
)
def refresh_access_token() -> None:
    # Across all runs of this DAG, backfills included: never two refreshes at once.
    # Every other Airflow task waits for the token, so none gets a free worker before this one.
    @task(max_active_tis_per_dag=1, priority_weight=100)
    @fail_fast
    def refresh() -> str:
        pair = pipeline.refresh_access_token(
            WebexContactCenterHook().get_conn(), VariableTokenStore()
        )
        return f"fresh until {pair.expires_time.isoformat()}"

    refresh()


refresh_access_token()
