"""A throw-away Airflow in this process: its own home, SQLite, and the project's DAGs."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_HOME = tempfile.mkdtemp(prefix="wxcc-airflow-")
# Before the first import of Airflow, which reads them once and would else use the user's own home.
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
    AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
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
