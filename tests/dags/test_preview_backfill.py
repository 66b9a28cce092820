"""The on-demand preview as a person triggers it, in one Airflow process."""

import json
import re
from datetime import UTC, datetime

import pytest

from include.domain.interval import HOUR, hour_of
from tests.archived import truth_with_all
from tests.dags.test_dag_runs import states


def test_a_preview_tells_the_range_of_its_form(runner, sandbox, caplog):
    runner.run("refresh_access_token")
    start = hour_of(datetime.now(UTC)) - 30 * HOUR
    keys = runner.archived.keys

    run = runner.run(
        "preview_backfill",
        **{"from": start.isoformat(), "to": (start + 2 * HOUR).isoformat()},
        channel_types=["telephony"],
    )

    assert states(run) == {"preview": "success"}
    (airflow_task,) = run.get_task_instances()
    told = airflow_task.xcom_pull(task_ids="preview")
    tasks = truth_with_all(
        sandbox, int(start.timestamp() * 1000), int((start + 2 * HOUR).timestamp() * 1000)
    )
    calls = [task for task in tasks if task["attributes"]["channelType"] == "telephony"]
    assert told["contact_tasks"] == {
        "value": len(calls),
        "low": len(calls),
        "high": len(calls),
        "exact": True,
    }
    assert told["from"] == start.isoformat()
    assert len(json.dumps(told)) < 4096
    assert any(
        re.fullmatch(rf"contact tasks +{len(calls)} exactly", line) for line in caplog.messages
    )
    assert runner.archived.keys == keys


def test_the_form_wants_both_ends_of_the_range(runner):
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises((ParamValidationError, ValueError), match="to"):
        runner.run("preview_backfill", **{"from": "2026-11-01T00:00:00Z"})


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-11-01", "2026-11-01T00:00:00"], ids=["word", "day", "no zone"]
)
def test_the_form_wants_dates_with_times_and_zones(runner, text):
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises((ParamValidationError, ValueError), match="date-time"):
        runner.run("preview_backfill", **{"from": text, "to": "2026-12-01T00:00:00Z"})
