"""House rules of every DAG; each message says how to mend it."""

import ast
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest

from tests.dags.conftest import ROOT

DAG_FILES = sorted(path for path in (ROOT / "dags").glob("*.py") if path.name != "__init__.py")
LINES_ON_ONE_SCREEN = 60


@pytest.fixture(params=DAG_FILES, ids=lambda path: path.stem)
def dag_file(request):
    return request.param


def test_every_dag_file_imports_without_error(dagbag):
    assert dagbag.import_errors == {}


def test_a_dag_is_called_as_its_file(dagbag, dag_file):
    assert dag_file.stem in dagbag.dags, f"call the DAG function in {dag_file.name} {dag_file.stem}"


def test_the_module_docstring_is_the_page_in_the_ui(dagbag, dag_file):
    docstring = ast.get_docstring(ast.parse(dag_file.read_text()), clean=False)

    assert dagbag.dags[dag_file.stem].doc_md == docstring, "pass doc_md=__doc__ to @dag"
    assert "When it fails" in str(docstring), (
        "say in the docstring what a person does when it fails"
    )


def test_a_run_has_an_explicit_data_interval_or_asks_for_one(dagbag, dag_file):
    from airflow.sdk import CronDataIntervalTimetable

    dag = dagbag.dags[dag_file.stem]
    if dag.schedule is None:
        schema = [dag.params.get_param(name).schema for name in ("from", "to")]
        assert [it.get("type") for it in schema] == ["string"] * 2, (
            "a run on demand has an empty interval: pass params=range_params(is_required=True)"
        )
        return
    by_time = getattr(dag.timetable, "timetable", dag.timetable)  # or by an asset as well
    assert isinstance(by_time, CronDataIntervalTimetable), (
        "a cron string gives empty intervals in Airflow 3: use CronDataIntervalTimetable"
    )


def test_no_run_is_made_for_the_past_and_none_is_a_silent_no_op(dagbag, dag_file):
    dag = dagbag.dags[dag_file.stem]

    assert dag.catchup is False
    assert dag.start_date.year <= 2020 or "manual" not in (dag.allowed_run_types or ["manual"]), (
        "a manual run before start_date succeeds with no Airflow task at all"
    )


def test_every_airflow_task_retries_and_the_dag_is_tagged(dagbag, dag_file):
    dag = dagbag.dags[dag_file.stem]

    assert dag.tags
    assert all(task.retries >= 1 for task in dag.tasks), "outages pass: set retries in default_args"


def test_no_airflow_task_hangs_for_ever(dagbag, dag_file):
    """A server that answers a byte a minute trips no other limit."""
    assert all(task.execution_timeout for task in dagbag.dags[dag_file.stem].tasks), (
        "set execution_timeout in default_args"
    )


def test_a_run_that_fails_is_told_to_a_person(dagbag, dag_file):
    from plugins.alerts import AlertNotifier

    assert isinstance(dagbag.dags[dag_file.stem].on_failure_callback, AlertNotifier), (
        "pass on_failure_callback=alert_a_person() to @dag; it is in plugins.alerts"
    )


def test_a_dag_file_holds_no_logic(dag_file):
    tree = ast.parse(dag_file.read_text())
    docstring_lines = len((ast.get_docstring(tree, clean=False) or "").splitlines())
    code_lines = [
        line for line in dag_file.read_text().splitlines()[docstring_lines:] if line.strip()
    ]

    assert len(code_lines) <= LINES_ON_ONE_SCREEN
    branches = (ast.If, ast.For, ast.While, ast.Try)
    found = [node.lineno for node in ast.walk(tree) if isinstance(node, branches)]
    assert found == [], f"move the logic at lines {found} to include/pipelines"


def test_a_dag_file_imports_no_network_and_no_storage_library(dag_file):
    imported = {
        str(name).split(".")[0]
        for node in ast.walk(ast.parse(dag_file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }

    assert imported <= {"airflow", "dataclasses", "datetime", "include", "pendulum", "plugins"}


@pytest.mark.disable_socket
def test_parsing_opens_no_socket_and_reads_no_connection(dag_file, monkeypatch):
    import runpy

    monkeypatch.setenv("AIRFLOW_CONN_WEBEX_CONTACT_CENTER", "not readable as a connection")
    runpy.run_path(str(dag_file))


def test_an_hour_that_is_not_archived_has_a_deadline_that_airflow_knows(dagbag, monkeypatch):
    """Airflow creates no run of a DAG whose kind of deadline no plugin has registered."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.plugins_manager import get_deadline_references_plugins

    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")  # as the DAG processor reads it
    parsed = DagBag(str(ROOT / "dags" / "archive_captures.py")).dags["archive_captures"]
    deadlines: Any = parsed.deadline

    assert [it.interval for it in deadlines] == [timedelta(hours=2)]
    assert {type(it.reference) for it in deadlines} <= set(
        get_deadline_references_plugins().values()
    ), "`make env` registers the plugin of plugins/deadlines.py"
    assert dagbag.dags["archive_captures"].deadline is None, "`airflow dags test` breaks with one"


def test_only_one_airflow_task_of_the_project_refreshes(dagbag):
    refreshing = [
        path.name
        for path in [*DAG_FILES, *(ROOT / "plugins").glob("*.py")]
        if "pipeline.refresh_access_token(" in path.read_text()
        or "request_token_pair" in path.read_text()
    ]

    assert refreshing == ["refresh_access_token.py"]
    dag = dagbag.dags["refresh_access_token"]
    assert dag.max_active_runs == 1
    assert [task.max_active_tis_per_dag for task in dag.tasks] == [1]
    assert [task.priority_weight for task in dag.tasks] == [100], "archiving waits for the token"


@pytest.mark.parametrize(
    "dag_id", ["archive_captures", "archive_history", "recheck_captures", "verify_archive"]
)
def test_every_airflow_task_that_asks_webex_or_writes_is_in_the_pool(dagbag, dag_id):
    """A pool with one slot is all that a store without conditional writes needs."""
    assert {task.pool for task in dagbag.dags[dag_id].tasks} == {"wxcc_api"}


def test_history_is_run_by_backfills_of_whole_days_only(dagbag):
    """Un-paused, it must not archive yesterday a second time, behind the back of archive_captures."""
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.interval import CronDataIntervalTimetable

    dag = dagbag.dags["archive_history"]
    timetable = CronDataIntervalTimetable("0 0 * * *", "UTC")  # pyright: ignore[reportAbstractUsage] - Airflow declares more than it demands
    by_itself = timetable.next_dagrun_info(
        last_automated_data_interval=None,
        restriction=TimeRestriction(dag.start_date, dag.end_date, dag.catchup),
    )

    assert set(dag.allowed_run_types) == {"scheduled", "backfill"}
    assert dag.timetable.expression == "0 0 * * *"
    assert by_itself is not None
    assert by_itself.run_after.year == 2100


@pytest.mark.parametrize("dag_id", ["archive_captures", "archive_history"])
def test_a_backfill_waits_for_everything_else_in_the_pool(dagbag, dag_id):
    from airflow.models import DagRun
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.types import DagRunType

    dag = DagSerialization.from_dict(DagSerialization.to_dict(dagbag.dags[dag_id]))

    def weights(run_type) -> set[int]:
        now = pendulum.now("UTC")
        run_id = DagRun.generate_run_id(run_type=run_type, logical_date=now, run_after=now)
        run: Any = SimpleNamespace(run_id=run_id)
        return {task.weight_rule.get_weight(run) for task in dag.tasks}

    by_default = 1
    assert weights(DagRunType.BACKFILL_JOB) == {0}
    assert min(weights(DagRunType.SCHEDULED)) > by_default
    assert min(weights(DagRunType.MANUAL)) > by_default
