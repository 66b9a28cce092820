"""Archives one busy hour of the sandbox from end to end: against the rate budget, and with Airflow around it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.laboratory import PROJECT, Cost, Laboratory, RunFailedError, open_laboratory
from include.domain.interval import HOUR, Interval, hour_of

CONTACT_TASKS = 20_000
REQUESTS_PER_MINUTE = 300
HOURS_AGO = 26  # no capture is late any more
HEADING = "An hour of the sandbox from end to end"
_BUCKET = "hour"
# Small media: what is measured here is everything but the copy.
_SIZES = ("--recording-bytes-max", "40000", "--screen-bytes-max", "60000")


@dataclass(frozen=True)
class HourRun:
    """What one run over the hour found out about itself, printed by the process that did it."""

    contact_tasks: int
    captures: int
    airflow_tasks: int
    seconds: float
    seconds_in_client: float = 0.0
    seconds_waiting_for_budget: float = 0.0


def _row(
    name: str, run: HourRun, cost: Cost, *, requests: int, budget: int | None
) -> dict[str, object]:
    per_second = requests / run.seconds
    return {
        "run": name,
        "contact tasks": run.contact_tasks,
        "captures": run.captures,
        "requests": requests,
        "requests/s": per_second,
        "% of the budget": f"{per_second * 6000 / budget:.1f}" if budget else "",
        "s in the API client": run.seconds_in_client,
        "of these s waiting for the budget": run.seconds_waiting_for_budget,
        "wall s": run.seconds,
        "CPU s of the process": cost.cpu_seconds,
        "peak MiB": cost.peak_bytes >> 20,
    }


def measure_hour(
    count: int = CONTACT_TASKS, requests_per_minute: int = REQUESTS_PER_MINUTE
) -> dict[str, list[dict[str, object]]]:
    """The hour three times: within the budget, without one, and without one in Airflow.

    Raises:
        RunFailedError: A run failed, or did not archive what the first one did.
    """
    rows: list[dict[str, object]] = []
    runs: list[tuple[HourRun, Cost]] = []
    for name, work, budget in (
        (
            f"pipeline functions, {requests_per_minute} requests/min",
            "pipelines",
            requests_per_minute,
        ),
        ("pipeline functions, no budget", "pipelines", None),
        ("the same in Airflow (dag.test)", "airflow", None),
    ):
        with open_laboratory() as laboratory, _sandbox(count, budget) as sandbox_url:
            run, cost = _run(laboratory, sandbox_url, work)
            requests = _requests(sandbox_url)
        if runs and (run.contact_tasks, run.captures) != (count, runs[0][0].captures):
            raise RunFailedError(
                f"{name}: {run.contact_tasks} contact tasks, {run.captures} captures"
            )
        runs.append((run, cost))
        rows.append(_row(name, run, cost, requests=requests, budget=budget))
        print(rows[-1], file=sys.stderr, flush=True)
    _, (alone, alone_cost), (airflow, airflow_cost) = runs
    overhead: dict[str, object] = {
        "Airflow tasks": airflow.airflow_tasks,
        "more wall s": airflow.seconds - alone.seconds,
        "more wall s for each": (airflow.seconds - alone.seconds) / airflow.airflow_tasks,
        "more CPU s": airflow_cost.cpu_seconds - alone_cost.cpu_seconds,
        "more CPU s for each": (airflow_cost.cpu_seconds - alone_cost.cpu_seconds)
        / airflow.airflow_tasks,
    }
    return {HEADING: rows, "Airflow's own part of it": [overhead]}


@contextlib.contextmanager
def _sandbox(count: int, requests_per_minute: int | None) -> Iterator[str]:
    command = [sys.executable, "-m", "include.sandbox", "--port", "0", *_SIZES]
    command += ["--tasks-per-hour", str(count)]
    command += ["--requests-per-minute", str(requests_per_minute or 0)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().partition("listens on ")[2].partition("/ ")[0]
        finally:
            process.terminate()


def _run(laboratory: Laboratory, sandbox_url: str, work: str) -> tuple[HourRun, Cost]:
    webex = json.loads(laboratory.ask(f"{sandbox_url}/sandbox/connection"))
    extra = {
        "endpoint_url": laboratory.s3_url,
        "region_name": "us-east-1",
        "service_config": {"s3": {"bucket_name": _BUCKET}},
    }
    environment = laboratory.environment
    store = {
        "conn_type": "aws",
        "login": environment["AWS_ACCESS_KEY_ID"],
        "password": environment["AWS_SECRET_ACCESS_KEY"],
        "extra": extra,
    }
    more = {
        "AIRFLOW_CONN_WEBEX_CONTACT_CENTER": json.dumps(webex),
        "AIRFLOW_CONN_WXCC_STORE": json.dumps(store),
        "AIRFLOW_HOME": str(laboratory.directory / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "benchmarks.hour_of_contact_tasks"]
    if work == "airflow":
        laboratory.measure([*command, "prepare-airflow"], more)
    result = laboratory.directory / "run.json"
    cost, _ = laboratory.measure([*command, work, "--result", str(result)], more)
    return HourRun(**json.loads(result.read_text())), cost


def _requests(sandbox_url: str) -> int:
    """How many API requests the sandbox answered; none may have been above the budget."""
    with urllib.request.urlopen(f"{sandbox_url}/sandbox/requests") as answer:  # noqa: S310 - ours
        counts: dict[str, dict[str, int]] = json.load(answer)["counts"]
    refused = sum(each.get("429", 0) for each in counts.values())
    if refused:
        raise RunFailedError(f"{refused} requests were above the budget")
    return sum(counts.get(name, {}).get("200", 0) for name in ("tasks", "captures"))


def main() -> None:
    """Archive the hour in this process and write down what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=("pipelines", "prepare-airflow", "airflow"))
    parser.add_argument("--result", type=Path)
    chosen = parser.parse_args()
    if chosen.work == "prepare-airflow":
        _prepare_airflow()
        return
    run = _in_airflow() if chosen.work == "airflow" else _pipelines()
    chosen.result.write_text(json.dumps(run.__dict__))


def _interval() -> Interval:
    end = hour_of(datetime.now(UTC)) - (HOURS_AGO - 1) * HOUR
    return Interval(end - HOUR, end)


def _pipelines() -> HourRun:
    # Airflow's run must not pay for these.
    from benchmarks.archive_shard_peer import open_archive  # noqa: PLC0415
    from benchmarks.timed_client import TimedBudget, TimedClient  # noqa: PLC0415
    from include.pipelines import archive_captures as pipeline  # noqa: PLC0415
    from include.webex.connection import WebexConnection  # noqa: PLC0415
    from include.webex.media import MediaClient  # noqa: PLC0415
    from include.webex.rate_budget import FileBudgetStore, SharedRateBudget  # noqa: PLC0415
    from include.webex.tokens import request_token_pair  # noqa: PLC0415

    fields = json.loads(os.environ["AIRFLOW_CONN_WEBEX_CONTACT_CENTER"])
    del fields["conn_type"]
    connection = WebexConnection.from_fields(**fields)
    assert connection.refresh_token
    token = request_token_pair(connection, connection.refresh_token, lambda: datetime.now(UTC))
    shared = SharedRateBudget(FileBudgetStore(connection.client_id), connection.requests_per_minute)
    budget = TimedBudget(shared)
    client = TimedClient(connection, lambda _spent: token.access_token, budget)
    media = MediaClient(connection.media_hosts)
    store = json.loads(os.environ["AIRFLOW_CONN_WXCC_STORE"])
    archive = open_archive(store["extra"]["endpoint_url"], _BUCKET, connection.org_id)
    options = pipeline.ArchiveOptions()
    started = time.monotonic()
    shards = pipeline.plan_shards(_interval(), client, archive, options)
    for shard in shards:
        pipeline.archive_shard(shard, client, media, archive, options)
    pipeline.publish_tables(_interval(), archive, shards)
    seconds = time.monotonic() - started
    return _found(len(shards) + 2, seconds, client.seconds, budget.seconds)


def _prepare_airflow() -> None:
    from airflow.utils.db import initdb  # noqa: PLC0415 - slow, and reads its environment at import

    initdb()
    _test_dag("refresh_access_token", datetime.now(UTC))


def _in_airflow() -> HourRun:
    started = time.monotonic()
    run = _test_dag("archive_captures", _interval().end)
    seconds = time.monotonic() - started
    states = [str(instance.state) for instance in run.get_task_instances()]  # type: ignore[attr-defined]
    if set(states) != {"success"}:
        raise RunFailedError(f"Airflow tasks ended as {sorted(set(states))}")
    return _found(len(states), seconds)


def _test_dag(dag_id: str, logical_date: datetime) -> object:
    import pendulum  # noqa: PLC0415 - as above
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415

    dag = DagBag(str(PROJECT / "dags" / f"{dag_id}.py")).dags[dag_id]
    return dag.test(logical_date=pendulum.instance(logical_date), run_conf={})


def _found(airflow_tasks: int, seconds: float, in_client: float = 0, waiting: float = 0) -> HourRun:
    """What is in the tables, which is what counts."""
    from benchmarks.archive_shard_peer import open_archive  # noqa: PLC0415 - as above
    from include.domain.rows import CaptureRow, ContactTaskRow  # noqa: PLC0415
    from include.storage.tables import read_rows  # noqa: PLC0415

    store = json.loads(os.environ["AIRFLOW_CONN_WXCC_STORE"])
    webex = json.loads(os.environ["AIRFLOW_CONN_WEBEX_CONTACT_CENTER"])
    archive = open_archive(store["extra"]["endpoint_url"], _BUCKET, webex["extra"]["org_id"])
    hour = _interval().start
    contact_tasks = read_rows(
        archive.store, archive.keys.table_partition("contact_tasks", hour), ContactTaskRow
    )
    captures = read_rows(archive.store, archive.keys.table_partition("captures", hour), CaptureRow)
    copied = sum(row.outcome == "copied" for row in captures)
    return HourRun(len(contact_tasks), copied, airflow_tasks, seconds, in_client, waiting)


if __name__ == "__main__":
    main()
