"""Alerts on a real scheduler: a run that fails, and an hour that nothing archives."""

import json
import re
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from tests.alert_receivers import WEBHOOK_PATH, Receivers, alert_receivers
from tests.end_to_end.live_airflow import ROOT, LiveAirflow, live_airflow
from tools.local_airflow import AirflowApi

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.timeout(500),
    pytest.mark.filterwarnings("default"),
]

MINUTE = timedelta(minutes=1)

HEAD = """
    from datetime import timedelta

    import pendulum
    from airflow.sdk import CronDataIntervalTimetable, dag, task

    from include.domain.errors import CapturesFailed, PermanentError
    from plugins.alerts import alert_a_person
    from plugins.deadlines import finished_within
    from plugins.fail_fast import fail_fast
"""
# As the pipelines fail: an overdue contact task, and a verification that found something.
FAILING_CHECKS = """
    @dag(
        schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
        start_date=pendulum.datetime(2020, 1, 1, tz="UTC"),
        catchup=False,
        default_args={"retries": 3},
        on_failure_callback=alert_a_person(),
    )
    def failing_checks():
        @task
        @fail_fast
        def recheck(shard: int):
            raise CapturesFailed("1 contact task is overdue")

        @task
        @fail_fast
        def verify():
            raise PermanentError("The verification found a difference")

        @task
        def fine():
            pass

        recheck.expand(shard=[1, 2])
        verify()
        fine()

    failing_checks()
"""
# Its pool does not exist, so that no worker ever starts anything: the hardest case of "stuck".
STUCK_MINUTE = """
    @dag(
        schedule=CronDataIntervalTimetable("* * * * *", timezone="UTC"),
        start_date=pendulum.datetime(2020, 1, 1, tz="UTC"),
        catchup=False,
        on_failure_callback=alert_a_person(),
        deadline=finished_within(timedelta(seconds=1)),
    )
    def stuck_minute():
        @task(pool="missing")
        def archive():
            pass

        archive()

    stuck_minute()
"""


@dataclass
class Airflow:
    """A running Airflow, and where its alerts arrive."""

    live: LiveAirflow
    receivers: Receivers

    @property
    def api(self) -> AirflowApi:
        return self.live.api

    def wait_for_text(self, start: str) -> str:
        """The text of the first webhook call that starts so."""
        return self.live.wait_for(
            lambda: next((text for text in self.receivers.texts if text.startswith(start)), ""),
            f"an alert '{start}…'",
        )

    def connect_webhook(self, host: str) -> None:
        self.api.put_connection(
            {
                "connection_id": "wxcc_alert_webhook",
                "conn_type": "http",
                "host": host,
                "password": WEBHOOK_PATH,
            }
        )

    def deadlines(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        path = f"/ui/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/deadlines"
        return self.api.request("GET", path)["deadlines"]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory) -> Iterator[Airflow]:
    folder, dags = (tmp_path_factory.mktemp(name) for name in ("live", "dags"))
    (dags / "failing_checks.py").write_text(textwrap.dedent(HEAD + FAILING_CHECKS))
    (dags / "stuck_minute.py").write_text(textwrap.dedent(HEAD + STUCK_MINUTE))
    shutil.copy(ROOT / "dags" / "archive_captures.py", dags)
    components = ("api-server", "dag-processor", "scheduler", "triggerer")
    with live_airflow(folder, *components, dags=dags) as live, alert_receivers() as receivers:
        airflow = Airflow(live, receivers)
        live.wait_for_dags("failing_checks", "stuck_minute", "archive_captures")
        live.api.put_connection({"connection_id": "wxcc_alert_email", **_as_json(receivers)})
        airflow.connect_webhook(receivers.webhook_connection["host"])
        live.api.put_pool("wxcc_api", 4, "as docs/configuration.md makes it")
        yield airflow


def _as_json(receivers: Receivers) -> dict[str, Any]:
    return receivers.email_connection | {"extra": json.dumps(receivers.email_connection["extra"])}


def test_a_failed_run_names_every_failed_airflow_task_to_a_person(airflow):
    airflow.api.set_paused("failing_checks", is_paused=False)

    text = airflow.wait_for_text("failing_checks failed")

    [run] = airflow.live.runs("failing_checks")
    run_id = run["dag_run_id"]
    start, end = (
        datetime.fromisoformat(run[f"data_interval_{name}"]).astimezone(UTC)
        for name in ("start", "end")
    )
    assert text.splitlines() == [
        "failing_checks failed",
        "DAG: failing_checks",
        f"Run: {run_id}",
        f"Data interval: {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC",
        "Failed Airflow tasks: recheck_0, recheck_1, verify",
        f"Logs: {airflow.api.url}/dags/failing_checks/runs/{quote(run_id, safe='')}",
    ]
    airflow.live.wait_for(lambda: airflow.receivers.emails, "the e-mail")
    assert airflow.receivers.email_texts[0] == f"<pre>{text}</pre>"


def test_a_missed_deadline_reaches_a_person_although_no_worker_does_anything(airflow):
    """A backfill of past minutes misses no deadline: it has none."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    airflow.api.backfill(
        "stuck_minute", str(now - 30 * MINUTE), str(now - 27 * MINUTE), max_active_runs=2
    )
    airflow.api.set_paused("stuck_minute", is_paused=False)

    text = airflow.wait_for_text("stuck_minute has not finished by its deadline")

    by_type = {"scheduled": [], "backfill": []}
    for run in airflow.live.runs("stuck_minute"):
        by_type[run["run_type"]].append(run["dag_run_id"])
    assert len(by_type["backfill"]) == 4
    assert text.splitlines()[2].removeprefix("Run: ") in by_type["scheduled"]
    assert re.search(r" UTC; it is (queued|running)$", text.splitlines()[0])
    assert all(airflow.deadlines("stuck_minute", run_id) for run_id in by_type["scheduled"])
    for run_id in by_type["backfill"]:
        assert airflow.deadlines("stuck_minute", run_id) == []
        assert run_id not in "".join(airflow.receivers.texts)


def test_alerts_are_tried_out_by_a_run_that_has_no_hour(airflow):
    """What docs/operations.md says to do; and an unreachable webhook neither stops the e-mail nor is logged."""
    airflow.connect_webhook("http://127.0.0.1:9")
    airflow.api.set_paused("archive_captures", is_paused=False)
    run_id = airflow.api.trigger("archive_captures", "try the alerts")

    airflow.live.wait_for(
        lambda: any(run_id in text for text in airflow.receivers.email_texts), "the e-mail"
    )

    logs = [
        path
        for path in (*airflow.live.home.rglob("logs/**/*"), *airflow.live.logs.iterdir())
        if path.is_file()
    ]
    texts = [path.read_text(errors="replace") for path in logs]
    assert any(
        "could not be sent through the connection wxcc_alert_webhook" in text for text in texts
    )
    assert [path for path, text in zip(logs, texts, strict=True) if WEBHOOK_PATH in text] == []
