"""Rows say what the API said, and nothing that opens a door."""

import json
from datetime import UTC, datetime

from include.domain.capture_state import CapturePolicy
from include.domain.new_rows import new_capture_row, new_contact_task_row
from tests.builders import a_capture, a_contact_task

NOW = datetime(2026, 9, 14, 10, tzinfo=UTC)
SIGNED = "https://store.s3.amazonaws.com/a/thumbnail.png?X-Amz-Signature=0a1b2c&X-Amz-Expires=3600"


def test_a_signed_url_in_a_field_that_the_api_adds_loses_its_signature():
    contact_task = a_contact_task(extra={"preview": [SIGNED]})
    row = new_contact_task_row(contact_task, "an-org", NOW, CapturePolicy())
    capture = new_capture_row(row, a_capture(extra={"thumbnail": {"path": SIGNED}}), NOW)

    for text in (row.extra_json, capture.extra_json):
        assert "X-Amz" not in str(text)
        assert "https://store.s3.amazonaws.com/a/thumbnail.png" in str(text)


def test_a_field_that_the_api_adds_is_kept_as_json():
    row = new_contact_task_row(
        a_contact_task(extra={"context": {"a": [1, None]}}), "an-org", NOW, CapturePolicy()
    )

    assert json.loads(str(row.extra_json)) == {"context": {"a": [1, None]}}


def test_a_lone_surrogate_does_not_keep_a_row_from_its_table():
    row = new_contact_task_row(
        a_contact_task(extra={"odd": "\ud800"}), "an-org", NOW, CapturePolicy()
    )

    assert str(row.extra_json).encode("utf-8")


def test_a_row_without_extra_fields_has_none():
    assert new_contact_task_row(a_contact_task(), "an-org", NOW, CapturePolicy()).extra_json is None
