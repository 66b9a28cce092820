"""Looks up Airflow connections by their names."""

from airflow.sdk import BaseHook, Connection

from include.domain.errors import PermanentError


def get_connection(connection_id: str) -> Connection:
    """An Airflow connection, or a sentence that says how to make it.

    Raises:
        PermanentError: There is none of that name.
    """
    connection = find_connection(connection_id)
    if connection is None:
        raise PermanentError(
            f"The connection {connection_id} does not exist: create it in the UI (Admin, Connections) or set the "
            f"environment variable AIRFLOW_CONN_{connection_id.upper()}."
        )
    return connection


def find_connection(connection_id: str) -> Connection | None:
    """An Airflow connection, or None where there is none of that name."""
    try:
        return BaseHook.get_connection(connection_id)
    except Exception as error:
        # Airflow raises different classes in a task, in the API server and in a plain process.
        if type(error).__name__ not in {"AirflowNotFoundException", "AirflowRuntimeError"}:
            raise
        return None
