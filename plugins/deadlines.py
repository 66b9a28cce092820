"""Until when a run must have finished, and the Airflow plugin that makes this kind of deadline known."""

import os
from datetime import datetime, timedelta
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import BaseDeadlineReference, DeadlineAlert

from plugins.alerts import AlertNotifier

# Airflow's own; set in the processes that read DAG files for the scheduler, or run an Airflow task.
_PROCESS_CONTEXT, _DAG_PROCESSOR = "_AIRFLOW_PROCESS_CONTEXT", "client"


class EndOfScheduledInterval(BaseDeadlineReference):
    """The end of the data interval of a scheduled run; backfills and manual runs have no deadline.

    With Airflow's own reference, the logical date, a backfill of a month would alert 720 times at
    once: each of its hours is long past its deadline. Its other one, the time of queueing, would
    alert for every hour that waits for its turn.
    """

    required_kwargs: ClassVar[set[str]] = {"dag_id", "run_id"}

    def _evaluate_with(self, *, session: Any, dag_id: str, run_id: str) -> datetime | None:  # noqa: ANN401 - SQLAlchemy's
        # The scheduler and the API server call this; Airflow tasks must not reach its models.
        from airflow.models import DagRun  # noqa: PLC0415 - see above
        from airflow.utils.types import DagRunType  # noqa: PLC0415 - see above

        query = session.query(DagRun.data_interval_end).filter_by(
            dag_id=dag_id, run_id=run_id, run_type=DagRunType.SCHEDULED
        )
        return query.scalar()


class DeadlinePlugin(AirflowPlugin):
    """Registered by an entry point in pyproject.toml; without it Airflow creates no run of such a DAG."""

    name = "webex_contact_center_deadlines"
    deadline_references: list[Any] = [EndOfScheduledInterval]  # noqa: RUF012 - as Airflow declares it


def finished_within(after_interval: timedelta) -> DeadlineAlert | None:
    """Alert a person when a scheduled run has not succeeded so long after its data interval ended.

    The triggerer sends the alert, so it comes also when every worker is busy or stuck. Only the DAG
    processor, from whose reading of the DAGs the scheduler works, is given the deadline: with one,
    `airflow dags test` breaks at the end of a successful run (apache/airflow issue 73428, in 3.3.2).
    """
    if os.environ.get(_PROCESS_CONTEXT) != _DAG_PROCESSOR:
        return None
    return DeadlineAlert(
        reference=EndOfScheduledInterval(),
        interval=after_interval,
        callback=AsyncCallback(AlertNotifier),
        name=f"finished {after_interval} after its data interval",
    )
