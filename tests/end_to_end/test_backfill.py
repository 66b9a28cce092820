"""A person clicks Backfill in the UI of `make run`, with everything un-paused, and then pulls the plug."""

import urllib.parse
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from include.domain.interval import HOUR, epoch_ms
from include.sandbox.scenario import Scenario
from include.sandbox.server import Sandbox
from tests.archived import assert_complete, truth_with_all
from tests.end_to_end.launcher import Watched, airflow_of, archived_hours, launched, wait_for
from tools.local_airflow import AirflowApi

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.timeout(760),
    pytest.mark.filterwarnings("default"),
]

# A month, on an un-paused DAG: on SQLite, a tenth of it killed the scheduler each time it was tried.
HOURS, DAYS = 720, 2
HOURS_WAITED_FOR = 3
DAY = timedelta(days=1)
# Few: what is tried is the scheduler.
CONTACT_TASKS_PER_HOUR = 2
SANDBOX = ("--tasks-per-hour", str(CONTACT_TASKS_PER_HOUR))


def count(airflow: AirflowApi, dag_id: str, **having: str) -> int:
    query = urllib.parse.urlencode({"run_type": "backfill", "limit": 1, **having})
    return airflow.request("GET", f"/api/v2/dags/{dag_id}/dagRuns?{query}")["total_entries"]


def test_a_month_is_backfilled_on_a_live_scheduler_and_goes_on_after_everything_was_killed(
    tmp_path,
):
    """All its runs are made at once, beside days of archive_history; what was archived is complete."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first_hour, first_day = today - 35 * DAY, today - 40 * DAY

    with launched(tmp_path, *SANDBOX) as (process, log):
        watched = Watched(process)
        wait_for(lambda: "Stays up until Ctrl-C" in log.read_text(), 300, log, watched)
        airflow = airflow_of(log.read_text())
        for dag_id, first, last in (
            ("archive_captures", first_hour, first_hour + (HOURS - 1) * HOUR),
            ("archive_history", first_day, first_day + (DAYS - 1) * DAY),
        ):
            airflow.set_paused(dag_id, is_paused=False)
            airflow.backfill(dag_id, first.isoformat(), last.isoformat())
        created = [count(airflow, dag_id) for dag_id in ("archive_captures", "archive_history")]
        archived = partial(count, airflow, "archive_captures", state="success")
        wait_for(lambda: archived() >= HOURS_WAITED_FOR, 200, log, watched)
        process.kill()
        wait_for(lambda: not watched.left_over(), 60, log, watched, was_killed=True)

    with launched(tmp_path, *SANDBOX) as (process, log):
        watched = Watched(process)
        wait_for(lambda: "Stays up until Ctrl-C" in log.read_text(), 300, log, watched)
        airflow = airflow_of(log.read_text())
        before = count(airflow, "archive_captures", state="success")
        archived = partial(count, airflow, "archive_captures", state="success")
        wait_for(lambda: archived() >= before + HOURS_WAITED_FOR, 200, log, watched)
        days = partial(count, airflow, "archive_history", state="success")
        wait_for(lambda: days() == DAYS, 300, log, watched)
        kept = count(airflow, "archive_captures")
        of_its_own = airflow.request("GET", "/api/v2/dags/archive_history/dagRuns")["total_entries"]

    assert created == [HOURS, DAYS]
    assert kept == HOURS
    assert of_its_own == DAYS, "un-pausing archive_history alone makes no run"
    with (
        archived_hours(tmp_path, first_day, DAYS * 24) as found,
        Sandbox(Scenario(tasks_per_hour=CONTACT_TASKS_PER_HOUR)) as sandbox,
    ):
        assert len([key for key in found.keys if "tables/" in key]) == 2 * DAYS * 24
        end = first_day + DAYS * DAY
        assert_complete(found, truth_with_all(sandbox, epoch_ms(first_day), epoch_ms(end)))
