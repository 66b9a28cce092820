"""Airflow on one machine: LocalExecutor, loopback only; started here and asked over REST.

Its four components are started one by one instead of by `airflow standalone`, which leaves its
children behind on SIGTERM, does not notice when one dies, and opens log servers to the network.
"""

from __future__ import annotations

import json
import secrets
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

USER = "admin"
# Airflow forks as many workers up front; each costs memory. Two cores are busy with four.
PARALLELISM = 6

_PASSWORD_FILE = "passwords.json"  # noqa: S105 - a file name
# Among the files of the database, so that it goes when they go.
_MIGRATED_FILE = "airflow-version"


def airflow_environment(
    base: Mapping[str, str], *, home: Path, database_url: str, project: Path, dags: Path, port: int
) -> dict[str, str]:
    """Return `base` with every setting of Airflow that `make run` decides."""
    url = f"http://127.0.0.1:{port}"
    return {
        **base,
        "PYTHONPATH": str(project),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(project / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / _PASSWORD_FILE),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        # Without both, Airflow tasks call port 8080 whatever the port above says.
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "20",
        # A file that changes is parsed at once; to parse all of them every 30 s costs a tenth of a run.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
        # What a killed launcher left running is taken up again within seconds, not minutes.
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    }


def airflow_command(*arguments: str) -> list[str]:
    """Return the command line of `airflow` in this environment."""
    return [sys.executable, "-m", "airflow", *arguments]


# The log servers of these two listen on every interface; on one machine the UI reads the files.
SCHEDULER = airflow_command("scheduler", "--skip-serve-logs")
TRIGGERER = airflow_command("triggerer", "--skip-serve-logs")
DAG_PROCESSOR = airflow_command("dag-processor")
API_SERVER = airflow_command("api-server")
MIGRATE = airflow_command("db", "migrate")


def password(home: Path) -> str:
    """Return the password of `USER`, made at the first call and kept readable by its owner only."""
    path = home / _PASSWORD_FILE
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(json.dumps({USER: secrets.token_urlsafe(9)}))
    return json.loads(path.read_text())[USER]


def is_migrated(database: Path, version: str) -> bool:
    """Say whether this version of Airflow made its tables in the database whose files lie there."""
    marker = database / _MIGRATED_FILE
    return marker.exists() and marker.read_text().strip() == version


def remember_migrated(database: Path, version: str) -> None:
    """Note that the database fits this version: looking costs seconds at every start."""
    (database / _MIGRATED_FILE).write_text(f"{version}\n")


class AirflowApiError(RuntimeError):
    """Airflow's REST API refused a request; carries the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AirflowApi:
    """The part of Airflow's REST API that the launcher uses, as one user."""

    def __init__(self, url: str, user_password: str) -> None:
        self.url = url
        self._password = user_password
        self._token: str | None = None

    def is_ready(self) -> bool:
        """Say whether the API server answers."""
        try:
            self.request("GET", "/api/v2/version")
        except (AirflowApiError, OSError):
            return False
        return True

    def health(self) -> dict[str, str | None]:
        """Return the status of every component as Airflow sees it."""
        answer = self.request("GET", "/api/v2/monitor/health")
        return {name: part["status"] for name, part in answer.items() if part}

    def import_errors(self) -> dict[str, str]:
        """Return the files that Airflow cannot load, with the reason of each."""
        answer = self.request("GET", "/api/v2/importErrors")
        return {row["filename"]: row["stack_trace"] for row in answer["import_errors"]}

    def dag_ids(self) -> dict[str, bool]:
        """Return the known DAGs, with whether each is paused."""
        answer = self.request("GET", "/api/v2/dags?limit=100")
        return {row["dag_id"]: row["is_paused"] for row in answer["dags"]}

    def set_paused(self, dag_id: str, *, is_paused: bool) -> None:
        """Pause or un-pause a DAG."""
        self.request("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": is_paused})

    def put_connection(self, connection: Mapping[str, Any]) -> None:
        """Create a connection, or make the one of that id equal to it."""
        self._create_or_update(
            "/api/v2/connections", str(connection["connection_id"]), dict(connection)
        )

    def put_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool, or make the one of that name equal to it."""
        body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        self._create_or_update("/api/v2/pools", name, body)

    def delete_variable(self, key: str) -> None:
        """Delete a variable; one that is not there is fine."""
        try:
            self.request("DELETE", f"/api/v2/variables/{key}")
        except AirflowApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def trigger(self, dag_id: str, note: str) -> str:
        """Start a run without a data interval; return its id."""
        answer = self.request(
            "POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "note": note}
        )
        return answer["dag_run_id"]

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of one run."""
        quoted = urllib.parse.quote(run_id, safe="")
        return self.request("GET", f"/api/v2/dags/{dag_id}/dagRuns/{quoted}")["state"]

    def runs(self, dag_id: str, first: str, last: str) -> list[dict[str, Any]]:
        """Return every run with a logical date in [first, last], oldest first; at most 100."""
        query = urllib.parse.urlencode(
            {
                "logical_date_gte": first,
                "logical_date_lte": last,
                "order_by": "logical_date",
                "limit": 100,
            }
        )
        answer = self.request("GET", f"/api/v2/dags/{dag_id}/dagRuns?{query}")
        return answer["dag_runs"]

    def airflow_tasks(self, dag_id: str, state: str) -> list[str]:
        """Return `run / Airflow task` of the latest ones in `state`, at most ten."""
        query = urllib.parse.urlencode({"state": state, "limit": 10, "order_by": "-start_date"})
        answer = self.request("GET", f"/api/v2/dags/{dag_id}/dagRuns/~/taskInstances?{query}")
        return [f"{row['dag_run_id']} / {row['task_id']}" for row in answer["task_instances"]]

    def backfill(self, dag_id: str, first: str, last: str, max_active_runs: int = 10) -> None:
        """Do what the UI does for a range of past dates that is typed into its form."""
        self.request(
            "POST",
            "/api/v2/backfills",
            {
                "dag_id": dag_id,
                "from_date": first,
                "to_date": last,
                "reprocess_behavior": "failed",
                "max_active_runs": max_active_runs,
            },
        )

    def ensure_run(self, dag_id: str, start: str, end: str) -> None:
        """Have Airflow run [start, end) unless it did or is about to; a failed run is run again.

        Not a backfill: Airflow allows one for each DAG, and that is for the person at the UI.
        """
        body = {"logical_date": start, "data_interval_start": start, "data_interval_end": end}
        try:
            self.request("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
        except AirflowApiError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
        else:
            return
        for run in self.runs(dag_id, start, start):
            if run["state"] == "failed":
                run_id = urllib.parse.quote(run["dag_run_id"], safe="")
                path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/clear"
                self.request("POST", path, {"dry_run": False})

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
        """Send one request and return the parsed answer.

        Raises:
            AirflowApiError: Airflow refused.
            OSError: Nothing listens there.
        """
        try:
            return self._send(method, path, body)
        except AirflowApiError as error:
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
        self._token = None  # tokens last a day, a launcher may run longer
        return self._send(method, path, body)

    def _create_or_update(self, collection: str, name: str, body: Mapping[str, Any]) -> None:
        try:
            self.request("POST", collection, body)
        except AirflowApiError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            self.request("PATCH", f"{collection}/{name}", body)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:  # noqa: ANN401 - JSON
        if self._token is None and path != "/auth/token":
            login = {"username": USER, "password": self._password}
            self._token = self._send("POST", "/auth/token", login)["access_token"]
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(  # noqa: S310 - the scheme is ours: http to loopback
            self.url + path,
            method=method,
            headers=headers,
            data=None if body is None else json.dumps(body).encode(),
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                detail = error.read(2000).decode(errors="replace")
            raise AirflowApiError(
                f"Airflow answered {error.code} to {method} {path.partition('?')[0]}: {detail}",
                error.code,
            ) from error
        return json.loads(content) if content else None
