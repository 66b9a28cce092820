"""Looks up Airflow connections by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook, Connection

from include.domain.errors import PermanentError

if TYPE_CHECKING:
    from include.webex.rate_budget_in_redis import RedisServer

RATE_BUDGET_CONNECTION_ID = "wxcc_rate_budget"


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


def find_redis_server() -> RedisServer | None:
    """The Redis server of the connection `wxcc_rate_budget`, or None where one machine is all there is.

    Raises:
        PermanentError: A field of the connection is unusable.
    """
    connection = find_connection(RATE_BUDGET_CONNECTION_ID)
    if connection is None:
        return None
    # Here and not above: most archives have one machine, and this import would slow each Airflow task.
    from include.webex.rate_budget_in_redis import RedisServer  # noqa: PLC0415

    return RedisServer.from_fields(
        host=connection.host,
        port=connection.port,
        schema=connection.schema,
        login=connection.login,
        password=connection.password,
        ssl=connection.extra_dejson.get("ssl"),
    )
