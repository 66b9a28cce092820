"""Rows say what the API said, and nothing that opens a door."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from include.domain.capture_state import CapturePolicy
from include.domain.merged_rows import with_notes
from include.domain.new_rows import (
    checked_contact_task_row,
    new_capture_row,
    new_contact_task_row,
    unasked_contact_task_row,
)
from tests.builders import a_capture, a_contact_task

NOW = datetime(2026, 9, 14, 10, tzinfo=UTC)
SIGNED = "https://store.s3.amazonaws.com/a/thumbnail.png?X-Amz-Signature=0a1b2c&X-Amz-Expires=3600"


def test_a_signed_url_in_a_field_that_the_api_adds_loses_its_signature():
    contact_task = a_contact_task(extra={"preview": [SIGNED]})
    row = new_contact_task_row(contact_task, "an-org", NOW, CapturePolicy())
    capture = new_capture_row(row, a_capture(extra={"thumbnail": {"path": SIGNED}}))

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


def test_a_member_of_the_api_never_takes_the_place_of_the_archives_own_notes():
    row = new_contact_task_row(a_contact_task(), "an-org", NOW, CapturePolicy())
    capture = new_capture_row(row, a_capture(extra={"archive": {"media_etag": "the API's"}}))

    noted = with_notes(capture, media_etag="the host's")

    assert json.loads(str(noted.extra_json)) == {
        "api_archive": {"media_etag": "the API's"},
        "archive": {"media_etag": "the host's"},
    }


def test_a_capture_was_first_seen_when_the_run_began_that_asked_for_it():
    row = new_contact_task_row(a_contact_task(), "an-org", NOW, CapturePolicy())
    later = replace(row, checked_time=NOW + timedelta(days=1))

    assert new_capture_row(row, a_capture()).first_seen_time == NOW
    assert new_capture_row(later, a_capture()).first_seen_time == NOW + timedelta(days=1)


@pytest.mark.parametrize("requested", [True, None], ids=["true", "null"])
def test_what_nobody_asked_about_is_pending_and_due_at_once_however_old(requested: bool | None):
    created_time = NOW - timedelta(days=300)
    contact_task = a_contact_task(
        created_time=created_time, last_updated_time=created_time, capture_requested=requested
    )
    row = new_contact_task_row(contact_task, "an-org", NOW, CapturePolicy())

    unasked = unasked_contact_task_row(row, CapturePolicy())

    assert row.capture_state in {"overdue", "none"}
    assert unasked.capture_state == "pending"
    assert unasked.next_check_time
    assert unasked.next_check_time < NOW
    assert unasked.first_seen_time == NOW


@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "answered"])
def test_a_check_forgets_what_an_earlier_one_said_of_a_refusal(*, is_refused: bool):
    row = new_contact_task_row(a_contact_task(), "an-org", NOW, CapturePolicy())
    before = replace(row, capture_state="failed")
    later = NOW + timedelta(hours=5)

    checked = checked_contact_task_row(before, [], later, CapturePolicy(), is_refused=is_refused)

    assert checked.capture_state == ("failed" if is_refused else "pending")
    assert (checked.checked_time, checked.first_seen_time) == (later, NOW)


def test_a_contact_task_without_an_id_is_left_to_a_person():
    contact_task = a_contact_task(task_id="unidentified-0a1b2c")
    row = new_contact_task_row(contact_task, "an-org", NOW, CapturePolicy())

    assert (row.capture_state, row.next_check_time) == ("failed", None)
