"""Turns the Airflow connection `wxcc_store`, of type `aws`, into the bucket of the archive."""

from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk.log import mask_secret
from botocore.config import Config

from include.domain.capture_state import CapturePolicy
from include.domain.errors import PermanentError
from include.domain.object_keys import KeyLayout
from include.domain.personal_data import PersonalData
from include.pipelines.archive import Archive
from include.storage.object_store import CONNECTION_ID, ObjectStore
from plugins.connections import get_connection

# What the connection's own config_kwargs do not say.
_DEFAULTS = Config(
    connect_timeout=10,
    read_timeout=60,
    max_pool_connections=32,
    retries={"mode": "standard", "total_max_attempts": 5},
)


def get_store(defaults: Config = _DEFAULTS) -> tuple[ObjectStore, str]:
    """The bucket and the prefix that the connection names.

    The Amazon provider makes the S3 client, so roles, profiles and every other option of an `aws`
    connection work as documented there.

    Args:
        defaults: Of the S3 client, where the connection's own config_kwargs do not say otherwise.

    Raises:
        PermanentError: The connection or the name of the bucket is missing.
    """
    extra = _extra_fields()
    service_config = extra.get("service_config") or {}
    bucket = (service_config.get("s3") or {}).get("bucket_name")
    if not bucket:
        raise PermanentError(
            f"The connection {CONNECTION_ID} names no bucket: set its extra field service_config to "
            '{"s3": {"bucket_name": "…"}}.'
        )
    own = S3Hook(aws_conn_id=CONNECTION_ID).config
    hook = S3Hook(aws_conn_id=CONNECTION_ID, config=defaults.merge(own))
    client: Any = hook.get_conn()  # typed by the provider as every client that AWS has
    return ObjectStore(client, str(bucket)), str(extra.get("prefix") or "")


def get_archive(org_id: str, run_id: str, policy: CapturePolicy) -> Archive:
    """The archive of an org in the bucket, as one run sees it, with what the rows may hold of personal data.

    Raises:
        PermanentError: The connection or the name of the bucket is missing, or another field is unusable.
    """
    extra = _extra_fields()
    secret = extra.get("personal_data_secret")
    if isinstance(secret, str) and secret:
        mask_secret(secret)
    personal_data = PersonalData.from_fields(extra.get("personal_data"), secret)
    store, prefix = get_store()
    keys = KeyLayout(org_id, prefix, str(extra.get("sensitive_prefix") or ""))
    return Archive(store, keys, run_id, policy=policy, personal_data=personal_data)


def _extra_fields() -> dict[str, Any]:
    return get_connection(CONNECTION_ID).extra_dejson
