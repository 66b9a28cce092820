"""Runs the receiver of capture events alone: `python -m include.receiver`.

It reads the secret from the connection in AIRFLOW_CONN_WXCC_CAPTURE_EVENTS, the bucket from the one in
AIRFLOW_CONN_WXCC_STORE and the org from the one in AIRFLOW_CONN_WEBEX_CONTACT_CENTER, each as JSON or as a URI.
A proxy in front of it ends TLS.
"""

import argparse
import logging
import os
import uuid
from collections.abc import Sequence

import uvicorn
from botocore.config import Config

from include.domain.errors import ArchiveError
from include.domain.interval import utc_now
from include.domain.object_keys import KeyLayout
from include.receiver.app import Receiver
from include.receiver.impatient_http import ImpatientHttp
from include.storage.environment_connection import (
    STORE_VARIABLE,
    Place,
    connection_fields,
    json_object,
)
from include.storage.hints import Hint, write_hints
from include.webex.subscriptions import CaptureEventsConnection

# Webex waits five seconds, so a store in trouble is told before.
_CLIENT_CONFIG = Config(
    connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 1}
)
_MAX_HEADER_BYTES = 32 << 10  # of each request, before anything can be known of it


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m include.receiver", description=__doc__)
    parser.add_argument("--org-id", help="whose events are received, where no connection tells")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8090)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    org_id = _org_id(parser, options.org_id)
    fields = connection_fields(os.environ.get("AIRFLOW_CONN_WXCC_CAPTURE_EVENTS", ""))
    try:
        events = CaptureEventsConnection.from_fields(
            host=fields.get("host"), password=fields.get("password")
        )
        place = Place.from_connection(os.environ.get(STORE_VARIABLE, ""))
        store = place.open(_CLIENT_CONFIG)
        store.check()
    except ArchiveError as error:
        parser.error(str(error))
    keys = KeyLayout(org_id, place.prefix)

    def write(hints: Sequence[Hint]) -> None:
        write_hints(store, keys, hints, utc_now())

    uvicorn.run(
        Receiver(events.secret.get_secret_value(), org_id, write),
        host=options.host,
        port=options.port,
        access_log=False,
        http=ImpatientHttp,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        ws="none",
        lifespan="off",
        timeout_keep_alive=30,
        limit_concurrency=1_000,
    )


def _org_id(parser: argparse.ArgumentParser, given: str | None) -> str:
    if not given:
        webex = connection_fields(os.environ.get("AIRFLOW_CONN_WEBEX_CONTACT_CENTER", ""))
        given = str(json_object(webex.get("extra")).get("org_id") or "")
    try:
        return str(uuid.UUID(given))
    except ValueError:
        parser.error(
            "the org id is missing or is no UUID: give --org-id, or the extra field org_id of "
            "AIRFLOW_CONN_WEBEX_CONTACT_CENTER"
        )


if __name__ == "__main__":
    main()
