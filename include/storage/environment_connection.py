"""The bucket as the environment names it, for programs that run without Airflow."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import boto3  # noqa: TID251 - without Airflow nobody else makes the S3 client
from botocore.config import Config

from include.domain.errors import PermanentError
from include.storage.object_store import CONNECTION_ID, ObjectStore

STORE_VARIABLE = f"AIRFLOW_CONN_{CONNECTION_ID.upper()}"


@dataclass(frozen=True)
class Place:
    """A bucket, and what boto3 is to be told to reach it; the fields are those of the connection."""

    bucket: str
    prefix: str = ""
    client: Mapping[str, Any] = field(
        default_factory=dict[str, Any], repr=False
    )  # with the key pair
    sensitive_prefix: str = ""

    @classmethod
    def from_connection(cls, text: str) -> "Place":
        """Read a connection as Airflow takes it from the environment.

        Raises:
            PermanentError: It names no bucket, or is no connection.
        """
        fields = connection_fields(text)
        extra = json_object(fields.get("extra"))
        bucket = json_object(json_object(extra.get("service_config")).get("s3")).get("bucket_name")
        if not bucket:
            raise PermanentError(
                f"The connection {CONNECTION_ID} names no bucket: set the extra field service_config of "
                f'{STORE_VARIABLE}, which must be a JSON object or a URI, to {{"s3": {{"bucket_name": "…"}}}}.'
            )
        options = {
            "endpoint_url": extra.get("endpoint_url"),
            "region_name": extra.get("region_name"),
            "aws_access_key_id": fields.get("login"),
            "aws_secret_access_key": fields.get("password"),
            "aws_session_token": extra.get("aws_session_token"),
            "verify": extra.get("verify"),
        }
        used = {name: value for name, value in options.items() if value is not None and value != ""}
        prefixes = [str(extra.get(name) or "") for name in ("prefix", "sensitive_prefix")]
        return cls(str(bucket), prefixes[0], used, prefixes[1])

    def open(self, config: Config) -> ObjectStore:
        """The bucket, by a client of its own."""
        client: Any = cast("Any", boto3).client("s3", config=config, **self.client)
        return ObjectStore(client, self.bucket)


def connection_fields(text: str) -> dict[str, Any]:
    """The host, login, password and extra of a connection, as JSON or as a URI; empty where it is neither."""
    if text.lstrip().startswith("{") or "://" not in text:
        return json_object(text)
    try:
        parts = urlsplit(text)
    except ValueError:
        return {}
    user, _, address = parts.netloc.rpartition("@")
    login, _, password = user.partition(":")
    query = dict(parse_qsl(parts.query))
    return {
        "host": unquote(address.partition(":")[0]),
        "login": unquote(login),
        "password": unquote(password),
        "extra": json_object(query["__extra__"]) if "__extra__" in query else query,
    }


def json_object(value: object) -> dict[str, Any]:
    """A JSON object, also one that is written as text; empty where it is something else."""
    try:
        found: object = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
