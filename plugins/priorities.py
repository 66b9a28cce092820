"""Who gets the next free slot of a pool: a backfill waits for everything else."""

from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin
from airflow.task.priority_strategy import PriorityWeightStrategy

if TYPE_CHECKING:
    from airflow.models import TaskInstance

# For `weight_rule` in the default_args of a DAG.
BACKFILLS_LAST = "plugins.priorities.BackfillsLast"


class BackfillsLast(PriorityWeightStrategy):
    """Puts the Airflow tasks of backfill runs behind all others that wait for the same pool.

    Airflow itself would serve the oldest data interval first: during a backfill of a year, the
    current hour would wait for its end.
    """

    def get_weight(self, ti: "TaskInstance") -> int:
        """Return 0 for a backfill; a DAG without this rule has at least 1, every other run here more."""
        # At this point Airflow knows the run by its id only.
        return 0 if ti.run_id.startswith("backfill__") else 10


class PriorityPlugin(AirflowPlugin):
    """Registered by an entry point in pyproject.toml; without it Airflow cannot load such a DAG."""

    name = "webex_contact_center_priorities"
    priority_weight_strategies: list[Any] = [BackfillsLast]  # noqa: RUF012 - as Airflow declares it
