"""Keeps the Webex access token fresh.

Every quarter of an hour it looks at the token pair in the Airflow variable `wxcc_token`. While half of the
access token's life (or four days of it) is left, nothing is sent. Otherwise it spends the refresh token on a
new pair and stores that pair before anyone uses it. The first refresh token comes from the extra field
`refresh_token` of the connection `webex_contact_center`, or from the page *Connect with Webex*. Where every
refresh token is refused and the connection `webex_token_helper` exists, that helper integration asks for a new
pair.

This is the only Airflow task that refreshes, and it never runs twice at once: where Webex rotates refresh
tokens, the second refresh would spend a token that is already spent. Clearing and re-running it is safe.

**When it fails:** the log says in one sentence what to do. A refusal (wrong client secret, expired or revoked
refresh token) fails at once, since only a person can mend it, and is told once: later runs are skipped for a
day, unless the credentials change; a run that you trigger always asks. Trouble on the way is tried again by
itself, and fails the run only when less than a quarter of the access token's life is left.
Switched off for more than 90 days, the refresh token ends for good and a new first pair is needed.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task

from include.pipelines import refresh_access_token as pipeline
from plugins.alerts import alert_a_person
from plugins.fail_fast import fail_fast
from plugins.token_store import RefusalNote, is_run_by_hand, token_store
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
        hook = WebexContactCenterHook()
        connection = hook.get_conn()
        pair = pipeline.refresh_access_token(
            connection,
            token_store(connection),
            helper=hook.get_helper(),
            refused_note=RefusalNote(),
            is_asked=is_run_by_hand(),
        )
        return f"fresh until {pair.expires_time.isoformat()}"

    refresh()


refresh_access_token()
