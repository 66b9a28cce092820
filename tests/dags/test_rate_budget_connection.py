"""Where the hook keeps the rate budget, and which failures Airflow repeats."""

import json
import tempfile
from pathlib import Path

import pytest
from redis import Redis

from include.domain.errors import PermanentError, TransientError
from tests.redis_server import a_free_port, a_redis_server

PASSWORD = "a-password-that-nobody-may-see-77"
WEBEX = {
    "conn_type": "webex_contact_center",
    "host": "us1",
    "login": "a-client-id",
    "password": "a-client-secret",
    "extra": {"org_id": "97cdbf45-ebe2-4687-8341-44d5c7abf101"},
}


@pytest.fixture
def budget(airflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The one of the hook, made when the connections are set."""
    from plugins.webex_hook import WebexContactCenterHook

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_WEBEX_CONTACT_CENTER", json.dumps(WEBEX))
    return lambda: WebexContactCenterHook().get_client().budget


def test_without_the_connection_the_budget_is_a_file_of_this_machine(budget, tmp_path):
    budget().acquire()

    assert [path.suffix for path in tmp_path.glob("wxcc-rate-budget-*.state")] == [".state"]


def test_with_the_connection_the_budget_is_in_its_redis_server(budget, tmp_path, monkeypatch):
    """The connection is written as docker-compose.yaml writes it."""
    port = a_free_port()
    monkeypatch.setenv("AIRFLOW_CONN_WXCC_RATE_BUDGET", f"redis://:{PASSWORD}@127.0.0.1:{port}/1")
    with a_redis_server(tmp_path, port, PASSWORD):
        budget().acquire()
        with Redis(port=port, db=1, password=PASSWORD) as client:
            assert client.dbsize() == 1

    with pytest.raises(TransientError, match="connection wxcc_rate_budget"):
        budget().acquire()
    assert not [*tmp_path.glob("wxcc-rate-budget-*")]


def test_only_what_may_pass_is_left_to_the_retries_of_airflow(airflow_home: Path):
    from airflow.sdk.exceptions import AirflowFailException

    from plugins.fail_fast import fail_fast

    @fail_fast
    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(TransientError):
        fail(TransientError("It may pass."))
    with pytest.raises(AirflowFailException, match="It will not"):
        fail(PermanentError("It will not."))
