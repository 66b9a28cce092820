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

# On SQLite, so many runs on an un-paused DAG killed the scheduler each time it was tried.
HOURS, DAYS = 72, 3
DAY = timedelta(days=1)
# Few: what is tried is the scheduler.
CONTACT_TASKS_PER_HOUR = 2
SANDBOX = ("--tasks-per-hour", str(CONTACT_TASKS_PER_HOUR))


def count(airflow: AirflowApi, dag_id: str, **having: str) -> int:
    query = urllib.parse.urlencode({"run_type": "backfill", "limit": 1, **having})
    return airflow.request("GET", f"/api/v2/dags/{dag_id}/dagRuns?{query}")["total_entries"]


def test_days_and_hours_of_the_past_are_archived_although_everything_is_killed_on_the_way(tmp_path):
    first_day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 10 * DAY
    first_hour = first_day + DAYS * DAY
    end = first_hour + HOURS * HOUR

    with launched(tmp_path, *SANDBOX) as (process, log):
        watched = Watched(process)
        wait_for(lambda: "Stays up until Ctrl-C" in log.read_text(), 300, log, watched)
        airflow = airflow_of(log.read_text())
        for dag_id, first, last in (
            ("archive_captures", first_hour, end - HOUR),
            ("archive_history", first_day, first_hour - DAY),
        ):
            airflow.set_paused(dag_id, is_paused=False)
            airflow.backfill(dag_id, first.isoformat(), last.isoformat())
        created = [count(airflow, dag_id) for dag_id in ("archive_captures", "archive_history")]
        archived = partial(count, airflow, "archive_captures", state="success")
        wait_for(lambda: archived() >= 3, 200, log, watched)
        process.kill()
        wait_for(lambda: not watched.left_over(), 60, log, watched)

    with launched(tmp_path, *SANDBOX) as (process, log):
        watched = Watched(process)
        wait_for(lambda: "Stays up until Ctrl-C" in log.read_text(), 300, log, watched)
        airflow = airflow_of(log.read_text())
        waited_for_the_last_hours = count(airflow, "archive_captures", state="queued")
        for dag_id, runs in (("archive_history", DAYS), ("archive_captures", HOURS)):
            archived = partial(count, airflow, dag_id, state="success")
            wait_for(lambda: archived() == runs, 400, log, watched)  # noqa: B023 - waited for at once
        of_its_own = airflow.request("GET", "/api/v2/dags/archive_history/dagRuns")["total_entries"]

    assert created == [HOURS, DAYS]
    assert waited_for_the_last_hours > 0
    assert of_its_own == DAYS
    hours = DAYS * 24 + HOURS
    with (
        archived_hours(tmp_path, first_day, hours) as found,
        Sandbox(Scenario(tasks_per_hour=CONTACT_TASKS_PER_HOUR)) as sandbox,
    ):
        assert len([key for key in found.keys if "tables/" in key]) == 2 * hours
        assert_complete(found, truth_with_all(sandbox, epoch_ms(first_day), epoch_ms(end)))
