"""What `make run` puts into Airflow, and which hours it asks for: pure, tested without Airflow."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tools import local_s3

FINAL_STATES = ("success", "failed")

_KEY_HOUR = re.compile(r"/created_date=(\d{4}-\d{2}-\d{2})/created_hour=(\d{2})/")


def last_complete_hours(now: datetime, count: int) -> list[datetime]:
    """Return the starts of the last `count` hours that have ended, oldest first."""
    this_hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return [this_hour - timedelta(hours=back) for back in range(count, 0, -1)]


def key_hour(key: str) -> datetime | None:
    """Return the creation hour that a capture's key names, or None when it names none."""
    found = _KEY_HOUR.search(key)
    if found is None:
        return None
    return datetime.fromisoformat(f"{found[1]}T{found[2]}:00:00+00:00")


def sandbox_connection(offered: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body for Airflow's REST API from what the sandbox offers."""
    extra = offered.get("extra") or {}
    known = ("host", "login", "password", "port", "schema")
    return {
        "connection_id": "webex_contact_center",
        "conn_type": offered.get("conn_type", "webex_contact_center"),
        "description": "The local sandbox; made by `make run`",
        **{name: offered[name] for name in known if offered.get(name) is not None},
        "extra": extra if isinstance(extra, str) else json.dumps(extra),
    }


def store_connection(endpoint_url: str, bucket: str) -> dict[str, Any]:
    """Return the body for Airflow's REST API of the connection to the local bucket."""
    extra = {
        "endpoint_url": endpoint_url,
        "region_name": local_s3.REGION,
        "service_config": {"s3": {"bucket_name": bucket}},
    }
    return {
        "connection_id": "wxcc_store",
        "conn_type": "aws",
        "description": "The local S3 server; made by `make run`",
        "login": local_s3.ACCESS_KEY,
        "password": local_s3.SECRET_KEY,
        "extra": json.dumps(extra),
    }


def archive_progress(
    runs: Sequence[Mapping[str, Any]], hours: int, kept: tuple[int, int], retried: int = 0
) -> str:
    """Return one line: hours done and running, Airflow tasks to be retried, what the bucket has."""
    done = sum(run["state"] == "success" for run in runs)
    failed = sum(run["state"] == "failed" for run in runs)
    running = sum(run["state"] == "running" for run in runs)
    files, size_bytes = kept
    parts = [f"{done} of {hours} hours archived"]
    parts += [f"{running} running"] if running else []
    parts += [f"{failed} FAILED"] if failed else []
    parts += [f"{retried} failed Airflow tasks wait for their next try"] if retried else []
    parts += [f"{files:,} files, {size_bytes / 1e6:,.1f} MB in the bucket"]
    return ", ".join(parts)
