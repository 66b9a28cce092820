import json
from datetime import UTC, datetime, timedelta, timezone

from tools.local_connections import (
    archive_progress,
    key_hour,
    last_complete_hours,
    sandbox_connection,
    store_connection,
)


def test_the_hours_asked_for_have_ended_and_are_in_utc():
    now = datetime(2026, 11, 22, 1, 59, 59, tzinfo=timezone(timedelta(hours=-1)))

    hours = last_complete_hours(now, 3)

    assert hours == [
        datetime(2026, 11, 21, 23, tzinfo=UTC),
        *(datetime(2026, 11, 22, hour, tzinfo=UTC) for hour in (0, 1)),
    ]


def test_the_hour_is_read_from_a_key():
    key = "captures/org_id=x/created_date=2026-11-22/created_hour=07/t/recording/c/a.wav"

    assert key_hour(key) == datetime(2026, 11, 22, 7, tzinfo=UTC)
    assert key_hour("tables/captures/org_id=x/created_date=2026-11-22/07.parquet") is None


def test_the_sandbox_connection_becomes_a_request_body():
    body = sandbox_connection(
        {"conn_type": "webex_contact_center", "login": "id", "extra": {"a": 1}}
    )

    assert body["connection_id"] == "webex_contact_center"
    assert json.loads(body["extra"]) == {"a": 1}
    assert "password" not in body


def test_the_store_connection_names_endpoint_and_bucket():
    extra = json.loads(store_connection("http://127.0.0.1:1", "b")["extra"])

    assert extra["endpoint_url"] == "http://127.0.0.1:1"
    assert extra["service_config"]["s3"]["bucket_name"] == "b"


def test_progress_names_failed_hours():
    runs = [{"state": "success"}, {"state": "failed"}, {"state": "running"}]

    assert archive_progress(runs, 6, (2, 1_500_000)) == (
        "1 of 6 hours archived, 1 running, 1 FAILED, 2 files, 1.5 MB in the bucket"
    )
