"""Turns the Airflow connection `wxcc_store`, of type `aws`, into the bucket of the archive."""

from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.config import Config

from include.domain.errors import PermanentError
from include.storage.object_store import CONNECTION_ID, ObjectStore
from plugins.connections import get_connection

# What the connection's own config_kwargs do not say.
_DEFAULTS = Config(
    connect_timeout=10,
    read_timeout=60,
    max_pool_connections=32,
    retries={"mode": "standard", "total_max_attempts": 5},
)


def get_store() -> tuple[ObjectStore, str]:
    """The bucket and the prefix that the connection names.

    The Amazon provider makes the S3 client, so roles, profiles and every other option of an `aws`
    connection work as documented there.

    Raises:
        PermanentError: The connection or the name of the bucket is missing.
    """
    extra: dict[str, Any] = get_connection(CONNECTION_ID).extra_dejson
    service_config = extra.get("service_config") or {}
    bucket = (service_config.get("s3") or {}).get("bucket_name")
    if not bucket:
        raise PermanentError(
            f"The connection {CONNECTION_ID} names no bucket: set its extra field service_config to "
            '{"s3": {"bucket_name": "…"}}.'
        )
    own = S3Hook(aws_conn_id=CONNECTION_ID).config
    hook = S3Hook(aws_conn_id=CONNECTION_ID, config=_DEFAULTS.merge(own))
    client: Any = hook.get_conn()  # typed by the provider as every client that AWS has
    return ObjectStore(client, str(bucket)), str(extra.get("prefix") or "")
