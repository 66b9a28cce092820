"""Components of Airflow on PostgreSQL, as `make run` starts them, for tests that say themselves what runs on them."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from tools import local_airflow, local_s3
from tools.local_airflow import AirflowApi
from tools.local_postgres import LocalPostgres
from tools.local_processes import Components, reserve_port

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
_COMMANDS = {
    "api-server": local_airflow.API_SERVER,
    "dag-processor": local_airflow.DAG_PROCESSOR,
    "scheduler": local_airflow.SCHEDULER,
    "triggerer": local_airflow.TRIGGERER,
}


@dataclass
class LiveAirflow:
    """A running Airflow, and what it writes down."""

    api: AirflowApi
    passwords: dict[str, str]
    home: Path
    logs: Path
    components: Components
    environment: Mapping[str, str]

    def start(self, *names: str) -> None:
        for name in names:
            self.components.start(name, _COMMANDS[name], self.environment)

    def wait_for(self, condition: Callable[[], T], what: str, seconds: float = 150) -> T:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            self.components.raise_if_one_died()
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.4)  # each look costs the API server as much as an Airflow task does
        return found

    def wait_for_dags(self, *dag_ids: str) -> None:
        self.wait_for(lambda: set(dag_ids) <= self.api.dag_ids().keys(), "the DAGs")
        assert self.api.import_errors() == {}

    def wait_for_success(self, dag_id: str) -> None:
        """Of every run that there is, and there must be one."""

        def have_ended() -> bool:
            states = {run["state"] for run in self.runs(dag_id)}
            assert "failed" not in states, f"{dag_id} failed"
            return states == {"success"}

        self.wait_for(have_ended, f"the success of {dag_id}")

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        return self.api.request("GET", f"/api/v2/dags/{dag_id}/dagRuns?limit=100")["dag_runs"]

    def assets_that_woke(self, dag_id: str, run_id: str) -> list[str]:
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/upstreamAssetEvents"
        return [each["name"] for each in self.api.request("GET", path)["asset_events"]]

    def everything_written(self) -> str:
        files = [*self.logs.rglob("*"), *self.home.rglob("*.log")]
        return "\n".join(file.read_text(errors="replace") for file in files if file.is_file())


@contextlib.contextmanager
def live_airflow(folder: Path, *names: str, dags: Path, viewer: str = "") -> Iterator[LiveAirflow]:
    """Run these components, the API server among them, until the block ends.

    Args:
        folder: For their files.
        names: Of the components; others can be started later.
        dags: The folder of their DAGs.
        viewer: Another user, who may only look.
    """
    home, logs = folder / "airflow", folder / "component-logs"
    home.mkdir()
    port = reserve_port(18090)
    clean = local_s3.clean_environment()
    postgres = LocalPostgres(home, reserve_port(18290))
    postgres.prepare()
    environment = local_airflow.airflow_environment(
        clean, home=home, database_url=postgres.url, project=ROOT, dags=dags, port=port
    )
    environment["AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"] = "3600"  # no file changes
    passwords = {local_airflow.USER: local_airflow.password(home)}
    if viewer:
        environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] += f",{viewer}:viewer"
        passwords[viewer] = f"{passwords[local_airflow.USER]}-of-the-viewer"
        (home / "passwords.json").write_text(json.dumps(passwords))
    components = Components(logs)
    with contextlib.ExitStack() as stack:
        stack.callback(components.stop, first=("scheduler", "triggerer"), last=("postgres",))
        components.start("postgres", postgres.command(), clean)
        while not postgres.is_ready():
            components.raise_if_one_died()
        subprocess.run(local_airflow.MIGRATE, env=environment, check=True, capture_output=True)
        api = AirflowApi(f"http://127.0.0.1:{port}", passwords[local_airflow.USER])
        airflow = LiveAirflow(api, passwords, home, logs, components, environment)
        airflow.start(*names)
        airflow.wait_for(api.is_ready, "Airflow's API")
        yield airflow
