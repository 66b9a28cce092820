"""Captures that the API calls sensitive lie in a place of their own, and are archived as whole as the others."""

from typing import Any

import pytest

from include.pipelines.verify_archive import find_foreign_objects, verify_bucket
from tests.archived import assert_complete, earlier_versions

APART = "under/lock"


@pytest.fixture
def centre(open_centre):
    """Virtual-agent recordings, some of which are sensitive, and other captures."""
    return open_centre(tasks_per_hour=24, va_share=0.9, recording_bytes_max=30_000)


def captures(centre) -> list[dict[str, Any]]:
    return centre.archived.rows("captures")


def is_apart(key: str) -> bool:
    return key.startswith(f"{APART}/org_id=")


def kinds_of(centre) -> set[str]:
    archive = centre.archive("verify")
    found = verify_bucket(archive, None)
    orgs = [centre.connection.org_id]
    foreign = find_foreign_objects(archive.store, "", orgs, centre.sensitive_prefix)
    return {finding.kind for finding in [*found.findings, *foreign]}


def test_what_is_sensitive_lies_apart_and_nothing_else_does(centre):
    centre.sensitive_prefix = APART

    centre.run(centre.hour(26))

    rows = captures(centre)
    assert {is_apart(row["object_key"]) for row in rows if row["sensitive"]} == {True}
    assert {is_apart(row["object_key"]) for row in rows if not row["sensitive"]} == {False}
    assert_complete(centre.archived, centre.truth(centre.hour(26)))
    assert kinds_of(centre) == set()


def test_a_whole_object_apart_is_found_by_the_next_run_also_without_a_row(centre):
    centre.sensitive_prefix = APART
    centre.run(centre.hour(26))
    for key in centre.archived.keys:
        if "tables/" in key or "manifests/" in key:
            centre.s3.delete_object(Bucket=centre.bucket, Key=key)
    centre.sandbox.reset_requests()

    centre.run(centre.hour(26), run_id="again")

    assert "media" not in centre.sandbox.requests()["counts"]
    assert_complete(centre.archived, centre.truth(centre.hour(26)))


def test_what_was_archived_before_the_setting_is_copied_apart_once_more(centre):
    """As what turns sensitive later: the row names the new object, and the old one as an earlier version."""
    centre.run(centre.hour(26))
    before = {row["capture_id"]: row["object_key"] for row in captures(centre)}
    centre.sensitive_prefix = APART

    centre.run(centre.hour(26), run_id="with the setting")

    rows = [row for row in captures(centre) if row["sensitive"]]
    assert rows
    for row in rows:
        assert is_apart(row["object_key"])
        [earlier] = earlier_versions(row)
        assert earlier["object_key"] == before[row["capture_id"]]
        assert earlier["sha256"] == row["sha256"]
    assert_complete(centre.archived, centre.truth(centre.hour(26)))
    assert kinds_of(centre) == set()
    centre.sandbox.reset_requests()
    centre.run(centre.hour(26), run_id="once more")
    assert "media" not in centre.sandbox.requests()["counts"]


def test_without_the_setting_again_what_lies_apart_is_still_known(centre):
    centre.sensitive_prefix = APART
    centre.run(centre.hour(26))
    centre.sensitive_prefix = ""
    centre.sandbox.reset_requests()

    centre.run(centre.hour(26), run_id="without")

    assert "media" not in centre.sandbox.requests()["counts"]
    assert [key for key in centre.archived.objects if is_apart(key)]
    assert_complete(centre.archived, centre.truth(centre.hour(26)))
    assert kinds_of(centre) == set()


@pytest.mark.parametrize("name", ["stray", "org_id=a/created_date=2026-09-13/x"], ids=str)
def test_what_nobody_put_there_is_told(centre, name: str):
    centre.sensitive_prefix = APART
    centre.run(centre.hour(26))
    centre.s3.put_object(Bucket=centre.bucket, Key=f"{APART}/{name}", Body=b"a")

    assert kinds_of(centre) == {"object_unknown"}


def test_an_upload_that_a_killed_run_left_there_is_ended(centre):
    centre.sensitive_prefix = APART
    key = f"{centre.archive().keys.captures(sensitive=True)}left"
    centre.s3.create_multipart_upload(Bucket=centre.bucket, Key=key)
    centre.seconds_ahead = 10 * 365 * 24 * 3600

    archive = centre.archive()
    archive.sweep(archive.now())

    assert "Uploads" not in centre.s3.list_multipart_uploads(Bucket=centre.bucket)


def test_the_setting_costs_one_listing_for_a_shard(centre):
    counts: list[int] = []
    for sensitive_prefix in ("", APART):
        centre.sensitive_prefix = sensitive_prefix
        listed: list[str] = []
        event = "before-send.s3.ListObjectsV2"
        handler = lambda request, kept=listed, **_: kept.append(request.url)  # noqa: E731
        centre.s3.meta.events.register(event, handler)
        centre.run(centre.hour(30), run_id=f"run {sensitive_prefix}")
        centre.s3.meta.events.unregister(event, handler)
        counts.append(len(listed))

    assert counts[1] - counts[0] == 1
