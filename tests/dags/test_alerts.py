"""Runs that fail, and who is told: a real mail server and a real web server receive it."""

import json
from urllib.parse import quote

import pendulum
import pytest

from tests.alert_receivers import RECIPIENTS

QUARTER = pendulum.datetime(2026, 11, 20, 7, 15, tz="UTC")


@pytest.fixture
def fail(runner):
    """Fails a run at once, as every wrong setting does."""

    def run():
        runner.webex["extra"]["org_id"] = ""
        run = runner.run("refresh_access_token", QUARTER)
        assert str(run.state) == "failed"
        return run

    return run


def test_a_failed_run_reaches_a_person_by_email_and_by_webhook(receivers, fail):
    run = fail()

    text = (
        "refresh_access_token failed\n"
        "DAG: refresh_access_token\n"
        f"Run: {run.run_id}\n"
        "Data interval: 2026-11-20 07:00 to 2026-11-20 07:15 UTC\n"
        "Failed Airflow tasks: refresh\n"
        f"Logs: /dags/refresh_access_token/runs/{quote(run.run_id, safe='')}"
    )
    assert receivers.texts == [text]
    [email] = receivers.emails
    assert receivers.email_texts == [f"<pre>{text}</pre>"]
    assert email["Subject"] == "refresh_access_token failed"
    assert email["From"] == "airflow@example.com"
    assert email["X-Recipients"].split(",") == RECIPIENTS


def test_a_run_that_succeeds_tells_nobody(receivers, runner):
    runner.run("refresh_access_token")

    assert (receivers.webhooks, receivers.emails) == ([], [])


@pytest.mark.parametrize("missing", ["EMAIL", "WEBHOOK"])
def test_one_of_the_two_is_enough(receivers, fail, monkeypatch, missing):
    monkeypatch.delenv(f"AIRFLOW_CONN_WXCC_ALERT_{missing}")
    fail()

    assert len(receivers.emails) == (missing != "EMAIL")
    assert len(receivers.webhooks) == (missing != "WEBHOOK")


def test_without_either_the_log_says_how_to_make_one(fail, caplog):
    fail()

    assert (
        "refresh_access_token failed. Nobody was told: make the connection wxcc_alert_email or wxcc_alert_webhook"
    ) in caplog.text


def test_a_mail_server_that_is_away_hides_neither_the_run_nor_the_webhook(
    receivers, fail, monkeypatch, caplog
):
    connection = receivers.email_connection | {"port": 9}
    monkeypatch.setenv("AIRFLOW_CONN_WXCC_ALERT_EMAIL", json.dumps(connection))
    fail()

    assert len(receivers.webhooks) == 1
    assert "could not be sent through the connection wxcc_alert_email: Connection" in caplog.text


@pytest.mark.parametrize("answer", [404, 503])
def test_a_webhook_that_fails_hides_neither_the_run_nor_the_email(receivers, fail, caplog, answer):
    receivers.answer = answer
    fail()

    assert len(receivers.emails) == 1
    assert f"through the connection wxcc_alert_webhook: AirflowException: {answer}" in caplog.text


@pytest.mark.parametrize("name", ["to", "from_email"])
def test_a_connection_without_addresses_says_so(receivers, fail, monkeypatch, caplog, name):
    del receivers.email_connection["extra"][name]
    monkeypatch.setenv("AIRFLOW_CONN_WXCC_ALERT_EMAIL", json.dumps(receivers.email_connection))
    fail()

    assert "set its extra fields from_email and to" in caplog.text
    assert len(receivers.webhooks) == 1


def test_a_failed_preview_is_told_although_its_parameters_have_no_default(
    receivers, runner, dagbag
):
    """As on a scheduler, whose DAG processor calls back: Airflow's test run has no context for such a DAG."""
    import structlog
    from airflow.callbacks.callback_requests import DagCallbackRequest
    from airflow.dag_processing.processor import _execute_dag_callbacks
    from airflow.models.dagrun import DagRun
    from airflow.sdk.exceptions import ParamValidationError
    from airflow.utils.session import create_session

    runner.webex["extra"]["org_id"] = ""
    with pytest.raises(ParamValidationError):
        runner.run(
            "preview_backfill", **{"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"}
        )
    assert receivers.texts == []
    with create_session() as session:
        run = (
            session.query(DagRun).filter_by(dag_id="preview_backfill").order_by(DagRun.id.desc())[0]
        )
        [ti] = run.get_task_instances(session=session)
        asked = run.produce_dag_callback(
            dag=dagbag.dags["preview_backfill"], success=False, relevant_ti=ti
        )
        run_id = run.run_id
    assert asked

    _execute_dag_callbacks(
        dagbag, DagCallbackRequest.model_validate_json(asked.to_json()), structlog.get_logger()
    )

    [text] = receivers.texts
    assert text.startswith(f"preview_backfill failed\nDAG: preview_backfill\nRun: {run_id}\n")
    assert "\nFailed Airflow tasks: preview\n" in text
