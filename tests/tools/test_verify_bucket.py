"""`make verify` as it is typed: which bucket, what it prints, and how it exits."""

import json
import urllib.parse
from collections.abc import Iterator

import boto3
import pytest

from include.domain.errors import PermanentError
from include.domain.interval import HOUR
from include.domain.object_keys import KeyLayout
from include.pipelines.archive import Archive
from include.pipelines.publication import publish_hours
from include.storage.environment_connection import STORE_VARIABLE, Place
from include.storage.object_store import ObjectStore
from tests.s3_servers import S3Server, moto_server
from tests.storage.rows import NOON, a_contact_task_row
from tools import verify_bucket

ORG_ID = "97cdbf45-ebe2-4687-8341-44d5c7abf101"
OTHER_ORG_ID = "11111111-2222-4333-8444-555555555555"
PREFIX = "an/archive"


@pytest.fixture(autouse=True)
def _sockets(socket_enabled):
    """These tests talk to an S3 server on this machine."""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


@pytest.fixture
def s3(server, request):
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
    )
    client.create_bucket(Bucket=bucket_of(request))
    return client


@pytest.fixture
def bucket(request):
    return bucket_of(request)


def bucket_of(request) -> str:
    return "b" + str(abs(hash(request.node.nodeid)))


def publish(s3, bucket, *org_ids):
    for org_id in org_ids:
        archive = Archive(ObjectStore(s3, bucket), KeyLayout(org_id, PREFIX), "run")
        row = a_contact_task_row(org_id=org_id, capture_state="none", capture_requested=False)
        publish_hours(archive, [NOON], [row], [])


@pytest.fixture
def connection(server, bucket, monkeypatch):
    fields = {
        "conn_type": "aws",
        "login": server.access_key,
        "password": server.secret_key,
        "extra": {
            "endpoint_url": server.endpoint_url,
            "region_name": server.region,
            "prefix": PREFIX,
            "service_config": {"s3": {"bucket_name": bucket}},
        },
    }
    monkeypatch.setenv(STORE_VARIABLE, json.dumps(fields))
    return fields


def test_an_undamaged_bucket_of_two_orgs_exits_with_0(s3, bucket, connection, capsys):
    publish(s3, bucket, ORG_ID, OTHER_ORG_ID)

    assert verify_bucket.main([]) == 0
    out = capsys.readouterr().out
    assert out.count("1 manifests, the newest has the SHA-256 ") == 2
    assert "Nothing is missing, nothing was altered." in out


def test_what_is_wrong_is_told_with_its_remedy_and_exits_with_1(s3, bucket, connection, capsys):
    publish(s3, bucket, ORG_ID)
    key = KeyLayout(ORG_ID, PREFIX).table_partition("contact_tasks", NOON)
    s3.delete_object(Bucket=bucket, Key=key)

    assert verify_bucket.main([]) == 1
    out = capsys.readouterr().out
    assert key in out
    assert (
        f"airflow dags trigger archive_captures --logical-date {NOON + HOUR:%Y-%m-%dT%H:%M:%SZ}"
        in out
    )
    assert "1 findings." in out


def test_a_range_may_have_no_gap(s3, bucket, connection, capsys):
    publish(s3, bucket, ORG_ID)

    begin, end = f"{NOON:%Y-%m-%dT%H:%M}", f"{NOON + 2 * HOUR:%Y-%m-%dT%H:%M}"
    assert verify_bucket.main(["--from", begin, "--to", f"{NOON + HOUR:%Y-%m-%dT%H}"]) == 0
    assert verify_bucket.main(["--from", begin, "--to", end]) == 1
    assert "The hour was never archived" in capsys.readouterr().out


def test_a_hash_that_was_kept_is_asked_for(s3, bucket, connection, capsys):
    publish(s3, bucket, ORG_ID)
    assert verify_bucket.main([]) == 0
    held = capsys.readouterr().out.partition("SHA-256 ")[2].partition(".")[0]

    assert verify_bucket.main(["--hash", held]) == 0
    assert verify_bucket.main(["--hash", "0" * 64]) == 1


def test_an_object_that_belongs_to_no_org_is_told(s3, bucket, connection, capsys):
    publish(s3, bucket, ORG_ID)
    s3.put_object(Bucket=bucket, Key=f"{PREFIX}/tables/contact_tasks/org_id=x/a.parquet", Body=b"")
    s3.put_object(Bucket=bucket, Key="elsewhere/in/the/bucket", Body=b"")

    assert verify_bucket.main([]) == 1
    out = capsys.readouterr().out
    assert "org_id=x/a.parquet" in out
    assert "elsewhere" not in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--from", "2026-03-01"], "Give both ends"),
        (["--from", "yesterday", "--to", "today"], "is not a date and time"),
        (["--from", "2026-03-02", "--to", "2026-03-01"], "is empty"),
        (["--bucket", "there-is-none-of-this-name"], "does not exist"),
    ],
    ids=["one end", "words", "an empty range", "no such bucket"],
)
def test_what_cannot_be_verified_is_told_and_exits_with_2(
    s3, server, connection, monkeypatch, capsys, arguments, told
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", server.region)
    if arguments[0] == "--bucket":
        arguments = [*arguments, "--endpoint-url", server.endpoint_url]

    assert verify_bucket.main(arguments) == 2
    assert told in capsys.readouterr().err


def test_an_empty_bucket_is_not_called_whole(s3, bucket, connection, capsys):
    assert verify_bucket.main([]) == 2
    assert "holds no archive" in capsys.readouterr().out


def test_without_any_bucket_it_says_how_to_name_one(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(STORE_VARIABLE, raising=False)

    assert verify_bucket.main(["--state", str(tmp_path)]) == 2
    assert "BUCKET=" in capsys.readouterr().err


def test_both_forms_of_a_connection_name_the_same_bucket(connection):
    extra = urllib.parse.quote(json.dumps(connection["extra"]))
    login, password = (urllib.parse.quote(connection[name]) for name in ("login", "password"))
    uri = f"aws://{login}:{password}@/?__extra__={extra}"

    assert Place.from_connection(uri) == Place.from_connection(json.dumps(connection))


@pytest.mark.parametrize("text", ["", "nothing", "{", "aws://a:b@/?region_name=x"])
def test_a_connection_without_a_bucket_is_told_with_what_to_set(text):
    with pytest.raises(PermanentError, match="AIRFLOW_CONN_WXCC_STORE, which must be"):
        Place.from_connection(text)
