"""Whole runs of subscribe_capture_events in one Airflow process."""

import json

SECRET = "a-secret-of-the-tests-of-40-characters--"
CONNECTION = {
    "conn_type": "http",
    "host": "https://hooks.contoso.com/wxcc/events",
    "password": SECRET,
}


def states(run) -> dict[str, str]:
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


def test_without_the_connection_it_is_skipped_and_with_it_a_subscription_is_made(
    runner, sandbox, monkeypatch, capfd
):
    runner.run("refresh_access_token")
    assert states(runner.run("subscribe_capture_events")) == {"subscribe": "skipped"}
    assert sandbox.subscriptions() == []

    monkeypatch.setenv("AIRFLOW_CONN_WXCC_CAPTURE_EVENTS", json.dumps(CONNECTION))
    assert states(runner.run("subscribe_capture_events")) == {"subscribe": "success"}

    (found,) = sandbox.subscriptions()
    assert (found["destination_url"], found["secret"]) == (CONNECTION["host"], SECRET)
    assert SECRET not in "".join(capfd.readouterr())


def test_an_unusable_connection_fails_at_once(runner, monkeypatch):
    unusable = json.dumps(CONNECTION | {"host": "unusable"})
    monkeypatch.setenv("AIRFLOW_CONN_WXCC_CAPTURE_EVENTS", unusable)

    assert states(runner.run("subscribe_capture_events")) == {"subscribe": "failed"}
