"""The S3 servers by what they can do, and clients for their buckets as production makes them."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import boto3.session
import botocore.config

from include.storage.object_store import ObjectStore
from tests.s3_servers import S3Server

SERVERS = ("ministack", "moto", "swift", "rclone")
CONDITIONAL = ("ministack", "moto")
UNCONDITIONAL = ("swift", "rclone")
ATOMIC = ("ministack", "moto", "swift")
PLUGIN = Path(__file__).parents[2] / "plugins" / "store_hook.py"


@cache
def client_config() -> botocore.config.Config:
    """What plugins/store_hook.py gives the client, read from its source: importing it imports Airflow."""
    for node in ast.parse(PLUGIN.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_DEFAULTS":
            names = {"Config": botocore.config.Config}
            return eval(ast.unparse(node.value), names)
    raise AssertionError(f"{PLUGIN} has no _DEFAULTS any more: adapt this function.")


def s3_client(endpoint_url: str, **options: Any) -> Any:
    """A client as in production; options replace the key pair, or merge a `config`."""
    config = client_config().merge(options.pop("config", botocore.config.Config()))
    keys: dict[str, Any] = {
        "aws_access_key_id": "any-access-key",
        "aws_secret_access_key": "any-secret-key",
        "region_name": "us-east-1",
    }
    return _session().client("s3", endpoint_url=endpoint_url, config=config, **(keys | options))


@cache
def _session() -> boto3.session.Session:
    """One, because it keeps the description of S3, which takes a third of a second to read."""
    return boto3.session.Session()


@dataclass(frozen=True)
class Bucket:
    """A new bucket of a running server."""

    server: S3Server
    client: Any
    name: str

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(self.client, self.name)

    def open_uploads(self) -> list[str]:
        try:
            answer = self.client.list_multipart_uploads(Bucket=self.name)
        except self.client.exceptions.NoSuchUpload:  # rclone, of a bucket that never had one
            return []
        return [upload["Key"] for upload in answer.get("Uploads", [])]
