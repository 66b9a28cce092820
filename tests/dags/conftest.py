"""A throw-away Airflow in this process: its own home, SQLite, and the project's DAGs."""

import itertools
import json
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pendulum
import pytest
from cryptography.fernet import Fernet

from include.domain.interval import HOUR, epoch_ms, hour_of
from include.sandbox.scenario import Scenario
from include.sandbox.server import Sandbox
from tests.alert_receivers import Receivers, alert_receivers
from tests.archived import ArchivedHours
from tests.s3_servers import S3Server, moto_server

_names = itertools.count(1)
ROOT = Path(__file__).parents[2]
_HOME = tempfile.mkdtemp(prefix="wxcc-airflow-")
# Before the first import of Airflow, which reads them once and would else use the user's own home.
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
    AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
    AIRFLOW__CORE__FERNET_KEY=Fernet.generate_key().decode(),
    AIRFLOW__LOGGING__BASE_LOG_FOLDER=f"{_HOME}/logs",
)


def pytest_collection_modifyitems(items):
    """Airflow and its libraries warn of one another; only our own layers are held to no warning."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(autouse=True)
def _sockets(socket_enabled):
    """These tests talk to the sandbox and to an S3 server on this machine."""


@pytest.fixture(scope="session")
def airflow_home() -> Iterator[Path]:
    from airflow.utils.db import initdb

    initdb()
    yield Path(_HOME)
    logging.shutdown()
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def dagbag(airflow_home):
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(ROOT / "dags"))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


@pytest.fixture(scope="module")
def ui(airflow_home):
    """Airflow's API server in this process, as an administrator sees it: the REST API, and the pages of the plugin.

    No longer than a module: what the receiver of events does in the background ends with it.
    """
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    patched = pytest.MonkeyPatch()
    patched.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
    patched.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a-secret-for-the-tokens-of-the-test-only")
    app = create_app(apps="core")
    with TestClient(app, raise_server_exceptions=False) as client:
        token = client.get("/auth/token").json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client
    patched.undo()


@dataclass
class Runner:
    """Runs DAGs with nothing but the two connections in the environment, as `airflow dags test` does."""

    environment: Any
    webex: dict[str, Any]
    store: dict[str, Any]
    s3: Any
    bucket: str
    logged: list[str] = field(default_factory=list)

    def run(self, dag_id: str, logical_date: Any = None, **conf: Any) -> Any:
        self.environment.setenv("AIRFLOW_CONN_WEBEX_CONTACT_CENTER", json.dumps(self.webex))
        self.environment.setenv("AIRFLOW_CONN_WXCC_STORE", json.dumps(self.store))
        from airflow.dag_processing.dagbag import DagBag

        # Parsed again for each run: a run's conf stays behind in the parameters of the DAG object.
        dag = DagBag(str(ROOT / "dags" / f"{dag_id}.py")).dags[dag_id]
        if dag.start_date and dag.start_date > pendulum.now("UTC"):
            # Only backfills run it, which heed no start date.
            for each in (dag, *dag.tasks):
                each.start_date = None
        return dag.test(logical_date=logical_date or pendulum.now("UTC"), run_conf=conf)

    def archive(self, hours_ago: int = 26, **conf: Any) -> Any:
        """A manual run at hour H has the data interval of the hour before it."""
        return self.run(
            "archive_captures", hour_of(datetime.now(UTC)) - (hours_ago - 1) * HOUR, **conf
        )

    def interval_ms(self, hours_ago: int = 26) -> tuple[int, int]:
        end = hour_of(datetime.now(UTC)) - (hours_ago - 1) * HOUR
        return epoch_ms(end - HOUR), epoch_ms(end)

    @property
    def archived(self) -> ArchivedHours:
        return ArchivedHours(self.s3, self.bucket)


@pytest.fixture
def sandbox(request):
    knobs: dict[str, Any] = {"tasks_per_hour": 20, "requests_per_minute": 0}
    knobs |= getattr(request, "param", {})
    with Sandbox(Scenario(**knobs)) as sandbox:
        yield sandbox


@pytest.fixture
def runner(airflow_home, monkeypatch, sandbox, s3_server):
    bucket = f"dags-{next(_names)}"
    s3 = boto3.client(
        "s3",
        endpoint_url=s3_server.endpoint_url,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        region_name=s3_server.region,
    )
    s3.create_bucket(Bucket=bucket)
    store = {
        "conn_type": "aws",
        "login": s3_server.access_key,
        "password": s3_server.secret_key,
        "extra": {
            "endpoint_url": s3_server.endpoint_url,
            "region_name": s3_server.region,
            "service_config": {"s3": {"bucket_name": bucket}},
        },
    }
    _forget_variables(airflow_home)
    return Runner(monkeypatch, sandbox.airflow_connection(), store, s3, bucket)


@pytest.fixture
def receivers(monkeypatch) -> Iterator[Receivers]:
    """Where alerts go; without this fixture no run has anybody to tell."""
    with alert_receivers() as receivers:
        for name, value in receivers.environment.items():
            monkeypatch.setenv(name, value)
        yield receivers


def _forget_variables(home):
    with sqlite3.connect(home / "airflow.db") as database:
        database.execute("delete from variable")
