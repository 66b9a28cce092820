"""Turns the Airflow connection `wxcc_capture_events` into what the program needs."""

from collections.abc import Generator
from contextlib import closing, contextmanager

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.log import mask_secret

from include.webex.http_client import WebexClient
from include.webex.subscriptions import CAPTURE_EVENTS_CONNECTION_ID, CaptureEventsConnection
from plugins.connections import find_connection
from plugins.webex_hook import WebexContactCenterHook

# Has an event when there are hints that recheck_captures is to look at.
CAPTURE_HINTS = Asset("wxcc_capture_hints")


def find_capture_events_connection() -> CaptureEventsConnection | None:
    """The connection, its secret masked in logs; None where there is none: nobody wants events.

    Raises:
        PermanentError: A field is missing or unusable.
    """
    connection = find_connection(CAPTURE_EVENTS_CONNECTION_ID)
    if connection is None:
        return None
    if connection.password:
        mask_secret(connection.password)
    return CaptureEventsConnection.from_fields(host=connection.host, password=connection.password)


@contextmanager
def capture_events_run() -> Generator[tuple[CaptureEventsConnection, WebexClient]]:
    """What an Airflow task that subscribes needs; closes its connections at the end.

    Raises:
        AirflowSkipException: There is no connection `wxcc_capture_events`.
        PermanentError: A field of it, or of another connection, is missing or unusable.
    """
    connection = find_capture_events_connection()
    if connection is None:
        raise AirflowSkipException(
            f"There is no connection {CAPTURE_EVENTS_CONNECTION_ID}, so nobody wants capture events."
        )
    with closing(WebexContactCenterHook().get_client()) as client:
        yield connection, client
