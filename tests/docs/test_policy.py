"""The policy of docs/configuration.md is enough for the archive, and no more."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import boto3
import pytest
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from include.domain.errors import PermanentError
from include.domain.object_keys import ObjectKey
from include.storage.object_store import Condition, ObjectStore
from tests.s3_servers import moto_server
from tests.sources import Pieces

BUCKET = "my-contact-center-archive"  # as the page names it
CONFIGURATION = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


pytestmark = pytest.mark.enable_socket  # to moto


def client(service: Literal["iam", "s3"], key_id: str, secret: str, url: str | None = None) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
    )


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    """A bucket, as a user whose only policy is that of the page; moto enforces it."""
    found = re.search(r"```json\n(\{\n  \"Version\".*?)```", CONFIGURATION.read_text(), re.DOTALL)
    assert found
    with mock_aws(), moto_server() as server:
        iam: Any = client("iam", "root", "root")
        iam.create_user(UserName="archive")
        iam.put_user_policy(UserName="archive", PolicyName="archive", PolicyDocument=found.group(1))
        key = iam.create_access_key(UserName="archive")["AccessKey"]
        client("s3", "root", "root").create_bucket(Bucket=BUCKET)
        s3 = client("s3", key["AccessKeyId"], key["SecretAccessKey"], server.endpoint_url)
        yield ObjectStore(s3, BUCKET)


@set_initial_no_auth_action_count(0)
def test_all_that_the_archive_does_is_allowed(store: ObjectStore):
    table, capture = ObjectKey("tables/one"), ObjectKey("captures/one")

    store.check()
    assert store.read(table) is None
    store.write(table, b"first", Condition(None))
    found = store.read(table)
    assert found
    store.write(table, b"second", Condition(found[1]))
    store.write_stream(capture, Pieces(bytes(1 << 20) for _ in range(20)))
    # Without a slash, of which moto's server computes another signature than its sender.
    assert [there.key for there in store.list("captures")] == [capture]
    assert sum(map(len, store.iter_bytes(capture))) == 20 << 20
    working_file = ObjectKey("_work/one")
    store.write(working_file, b"rows")
    store.delete([working_file])
    assert store.head(working_file) is None


@set_initial_no_auth_action_count(0)
def test_an_upload_that_breaks_off_can_be_aborted(store: ObjectStore):
    def broken() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(1 << 20)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.write_stream(ObjectKey("captures/one"), Pieces(broken()))

    assert store.head(ObjectKey("captures/one")) is None
    # The archive must not need the right to list uploads, so the test looks into moto itself.
    assert not s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].multiparts


@set_initial_no_auth_action_count(0)
@pytest.mark.parametrize("key", ["captures/one", "tables/one"])
def test_what_is_archived_cannot_be_deleted(store: ObjectStore, key: str):
    store.write(ObjectKey(key), b"kept")

    with pytest.raises(PermanentError, match="denies DeleteObject"):
        store.delete([ObjectKey(key)])


@set_initial_no_auth_action_count(0)
def test_nothing_can_be_written_elsewhere(store: ObjectStore):
    with pytest.raises(PermanentError, match="denies PutObject"):
        store.write(ObjectKey("elsewhere/one"), b"no")
