"""Runs the receiver of capture events alone: `python -m include.receiver`.

It reads the secret from the connection in AIRFLOW_CONN_WXCC_CAPTURE_EVENTS, the bucket from the one in
AIRFLOW_CONN_WXCC_STORE and the org from the one in AIRFLOW_CONN_WEBEX_CONTACT_CENTER, each as JSON or as a URI.
A proxy in front of it ends TLS.
"""

import argparse
import json
import logging
import os
import uuid
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import boto3  # noqa: TID251 - without Airflow nobody else makes the S3 client
import uvicorn
from botocore.config import Config

from include.domain.errors import PermanentError
from include.domain.interval import utc_now
from include.domain.object_keys import KeyLayout
from include.receiver.app import Receiver
from include.receiver.impatient_http import ImpatientHttp
from include.storage.hints import Hint, write_hints
from include.storage.object_store import ObjectStore
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
    fields = _connection(parser, "AIRFLOW_CONN_WXCC_CAPTURE_EVENTS")
    try:
        events = CaptureEventsConnection.from_fields(
            host=fields.get("host"), password=fields.get("password")
        )
    except PermanentError as error:
        parser.error(str(error))
    org_id = _org_id(parser, options.org_id)
    store, prefix = _store(parser, _connection(parser, "AIRFLOW_CONN_WXCC_STORE"))
    store.check()
    keys = KeyLayout(org_id, prefix)

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


def _connection(parser: argparse.ArgumentParser, name: str) -> dict[str, Any]:
    fields = connection_fields(os.environ.get(name, ""))
    if not fields:
        parser.error(f"{name} is missing, or no connection as a JSON object or a URI")
    return fields


def connection_fields(text: str) -> dict[str, Any]:
    """The host, login, password and extra of a connection as Airflow takes it from the environment."""
    if text.lstrip().startswith("{") or "://" not in text:
        return _object(text)
    parts = urlsplit(text)
    user, _, address = parts.netloc.rpartition("@")
    login, _, password = user.partition(":")
    query = dict(parse_qsl(parts.query))
    return {
        "host": unquote(address.partition(":")[0]),
        "login": unquote(login),
        "password": unquote(password),
        "extra": _object(query["__extra__"]) if "__extra__" in query else query,
    }


def _org_id(parser: argparse.ArgumentParser, given: str | None) -> str:
    if not given:
        webex = connection_fields(os.environ.get("AIRFLOW_CONN_WEBEX_CONTACT_CENTER", ""))
        given = str(_object(webex.get("extra")).get("org_id") or "")
    try:
        return str(uuid.UUID(given))
    except ValueError:
        parser.error(
            "the org id is missing or is no UUID: give --org-id, or the extra field org_id of "
            "AIRFLOW_CONN_WEBEX_CONTACT_CENTER"
        )


def _object(value: object) -> dict[str, Any]:
    """A JSON object, also one that is written as text; empty where it is something else."""
    try:
        found: object = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _store(parser: argparse.ArgumentParser, fields: dict[str, Any]) -> tuple[ObjectStore, str]:
    extra = _object(fields.get("extra"))
    bucket = _object(_object(extra.get("service_config")).get("s3")).get("bucket_name")
    if not bucket:
        parser.error("AIRFLOW_CONN_WXCC_STORE names no bucket in its extra field service_config")
    options = {
        "endpoint_url": extra.get("endpoint_url"),
        "region_name": extra.get("region_name"),
        "aws_access_key_id": fields.get("login"),
        "aws_secret_access_key": fields.get("password"),
        "aws_session_token": extra.get("aws_session_token"),
        "verify": extra.get("verify"),
    }
    used = {name: value for name, value in options.items() if value is not None and value != ""}
    client: Any = cast("Any", boto3).client("s3", config=_CLIENT_CONFIG, **used)
    return ObjectStore(client, str(bucket)), str(extra.get("prefix") or "")


if __name__ == "__main__":
    main()
