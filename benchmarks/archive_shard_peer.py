"""The archive as a peer: one process that runs the real `archive_shard`, as an Airflow task does."""

from __future__ import annotations

import argparse
import importlib.abc
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import certifi


class NotInProduction(importlib.abc.MetaPathFinder):
    """Hides what only the tests install: pyarrow imports both whenever they are there."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - its own signature
        """Refuse them."""
        if fullname in {"pandas", "numpy"}:
            raise ModuleNotFoundError(fullname)


sys.meta_path.insert(0, NotInProduction())
_CA_FILE = os.environ.get("SSL_CERT_FILE")
if _CA_FILE:  # the clients trust what certifi tells at their import, and no variable
    certifi.where = lambda: _CA_FILE

import botocore.session  # noqa: E402 - without Airflow, whose hook makes the same client through boto3
from botocore.config import Config  # noqa: E402
from pydantic import SecretStr  # noqa: E402

from benchmarks.capture_sets import org_id  # noqa: E402
from benchmarks.laboratory import ACCESS_KEY, SECRET_KEY  # noqa: E402
from include.domain.object_keys import KeyLayout  # noqa: E402
from include.pipelines.archive import Archive  # noqa: E402
from include.pipelines.archive_captures import ArchiveOptions, Shard, archive_shard  # noqa: E402
from include.storage.object_store import ObjectStore  # noqa: E402
from include.webex.connection import WebexConnection  # noqa: E402
from include.webex.http_client import WebexClient  # noqa: E402
from include.webex.media import MediaClient  # noqa: E402
from include.webex.rate_budget import FileBudgetStore, SharedRateBudget  # noqa: E402

RUN_ID = "benchmark"
# As plugins/store_hook.py, which cannot be had without Airflow.
CLIENT_CONFIG = Config(
    connect_timeout=10,
    read_timeout=60,
    max_pool_connections=32,
    retries={"mode": "standard", "total_max_attempts": 5},
)


def open_archive(s3_url: str, bucket: str, org: str = "") -> Archive:
    """A bucket of the sink."""
    client: Any = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=s3_url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=CLIENT_CONFIG,
    )
    return Archive(ObjectStore(client, bucket), KeyLayout(org or org_id()), RUN_ID)


def open_client(webex_url: str, folder: Path) -> WebexClient:
    """A client of the stand-in, with the shared rate budget, which is too large to be ever spent."""
    connection = WebexConnection.from_fields(
        host=webex_url,
        login="benchmark",
        password="benchmark",  # noqa: S106 - the stand-in asks for none
        extra={"org_id": org_id(), "media_hosts": ["127.0.0.1"], "requests_per_minute": 900_000},
    )
    store = FileBudgetStore(connection.client_id, folder)
    budget = SharedRateBudget(store, connection.requests_per_minute)
    return WebexClient(connection, lambda _spent: SecretStr("benchmark"), budget)


def main() -> None:
    """Archive the first contact tasks of the plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--webex-url", required=True)
    parser.add_argument("--s3-url", required=True)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--count", type=int, required=True, help="contact tasks of the shard")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    client = open_client(arguments.webex_url, Path.home())
    media = MediaClient(client.connection.media_hosts)
    archive = open_archive(arguments.s3_url, arguments.bucket)
    shard = Shard(0, arguments.count, datetime.now(UTC).isoformat())
    archive_shard(shard, client, media, archive, ArchiveOptions())
    # As Airflow ends the process of an Airflow task (airflow.sdk.execution_time.supervisor): without taking
    # the interpreter down piece by piece.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
