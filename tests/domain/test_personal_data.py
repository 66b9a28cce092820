"""Of personal data, a row holds what the policy of its column allows, wherever the API puts it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, strategies

from include.domain.capture_state import CapturePolicy
from include.domain.errors import PermanentError
from include.domain.merged_rows import StoredVersion, earlier_versions, with_notes
from include.domain.new_rows import new_capture_row, new_contact_task_row
from include.domain.personal_data import PersonalData, mask
from include.domain.rows import CaptureRow, ContactTaskRow
from tests.builders import a_capture, a_contact_task

NOW = datetime(2026, 9, 14, 10, tzinfo=UTC)
SECRET = "a-secret-of-more-than-thirty-two-characters"
COLUMNS = (
    "origin",
    "destination",
    "owner_id",
    "owner_name",
    "queue_name",
    "participants",
    "file_name",
)
TOLD: dict[str, Any] = {
    "origin": "+14155550123",
    "destination": "help@example.com",
    "owner_id": "e1fc1a31-3e55-4c13-9b1f-0a8c5c9d8f21",
    "owner_name": "Ada Okafor",
    "queue_name": "Ada's queue",
}
CAPTURE: dict[str, Any] = {
    "participants": ("+14155550123", "Ada Okafor"),
    "file_name": "Ada Okafor +14155550123.wav",
}
EXTRA: dict[str, Any] = {
    "origin": [{"number": "Ada's desk"}],
    "owner": {"Name": {"first": "Ada"}, "team": 7},
    "agentId": 14155550123,
    "participants~other": ["Ada Okafor"],
    "fileName~1": ["Ada Okafor.wav"],
    "callback": "4155550123",
    "note": "wrote from ada@example.com, call +1 (415) 555-0123",
    "by ada@example.com": 1,
    "createTime": "1789380000000",
    "date": "2026-09-14",
    "seconds": 3,
}


def under(policy: str) -> PersonalData:
    return PersonalData.from_fields(dict.fromkeys(COLUMNS, policy), SECRET)


def rows_under(
    personal_data: PersonalData, extra: dict[str, Any] | None = None
) -> tuple[ContactTaskRow, CaptureRow]:
    extra = EXTRA if extra is None else extra
    contact_task = a_contact_task(**TOLD, extra=extra)
    row = new_contact_task_row(contact_task, "an-org", NOW, CapturePolicy(), personal_data)
    return row, new_capture_row(row, a_capture(**CAPTURE, extra=extra), personal_data)


def test_without_a_setting_everything_is_kept_as_it_came():
    row, capture = rows_under(PersonalData.from_fields(None, None))

    assert {name: getattr(row, name) for name in TOLD} == TOLD
    assert (tuple(capture.participants), capture.file_name) == tuple(CAPTURE.values())
    assert json.loads(row.extra_json or "") == EXTRA


def test_a_mask_leaves_what_helps_and_names_nobody():
    row, capture = rows_under(under("mask"))

    assert {name: getattr(row, name) for name in TOLD} == {
        "origin": "***23",
        "destination": "***@example.com",
        "owner_id": "***",
        "owner_name": "***",
        "queue_name": "***",
    }
    assert (capture.participants, capture.file_name) == (["***23", "***"], "***.wav")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("+1 (415) 555-0123", "***23"),
        ("4155550123", "***23"),
        ("911", "***"),
        ("sip:+14155550123@example.com", "***@example.com"),
        ("a@b@[::1]", "***"),
        ("https://example.com/u/1", "***"),
    ],
    ids=["spaced", "national", "short", "sip", "odd address", "page"],
)
def test_a_mask_goes_by_what_the_text_looks_like(text: str, masked: str):
    assert mask(text) == masked


def test_one_text_has_one_hash_under_a_secret_in_every_column():
    row, capture = rows_under(under("hash"))
    other = PersonalData.from_fields({"origin": "hash"}, SECRET + "x")

    assert row.origin == "4f7f9053dba1486a31f5178da8cb523e84a0061065a2bc1c342dfe2de51d3c3c"
    assert capture.participants[0] == row.origin
    assert str(capture.file_name).endswith(".wav")
    assert len(str(capture.file_name)) == 68
    assert rows_under(other)[0].origin != row.origin


def test_what_is_dropped_is_null():
    row, capture = rows_under(under("drop"))

    assert [getattr(row, name) for name in TOLD] == [None] * 5
    assert (capture.participants, capture.file_name) == ([], None)


@pytest.mark.parametrize("policy", ["keep", "mask", "hash", "drop"])
def test_null_stays_null(policy: str):
    row = new_contact_task_row(a_contact_task(), "o", NOW, CapturePolicy(), under(policy))
    capture = new_capture_row(row, a_capture(file_name=None), under(policy))

    assert [getattr(row, name) for name in TOLD] == [None] * 5
    assert (capture.participants, capture.file_name, capture.extra_json) == ([], None, None)


@pytest.mark.parametrize("policy", ["mask", "hash", "drop"])
def test_what_the_api_puts_elsewhere_follows_the_same_policies(policy: str):
    row, capture = rows_under(under(policy))

    for text in (str(row.extra_json), str(capture.extra_json)):
        assert "Ada" not in text
        assert "ada@" not in text
        assert "4155550123" not in text
        assert "555-0123" not in text
        kept = json.loads(text)
        assert (kept["createTime"], kept["date"], kept["seconds"]) == (
            "1789380000000",
            "2026-09-14",
            3,
        )
        assert kept["owner"]["team"] == 7


def test_members_whose_names_become_alike_are_all_kept():
    extra = {"of a@example.com": 1, "of b@example.com": 2}

    row, _ = rows_under(under("mask"), extra)

    assert json.loads(str(row.extra_json)) == {
        "of ***@example.com": 1,
        "of ***@example.com~other": 2,
    }


def test_extra_json_can_be_dropped_but_for_what_the_archive_notes_in_it():
    dropping = PersonalData.from_fields('{"extra_json": "drop"}', "")
    row, capture = rows_under(dropping)
    noted = with_notes(
        rows_under(PersonalData())[1], earlier_versions=[StoredVersion("a-key", 1, "5e")]
    )

    assert (row.extra_json, capture.extra_json) == (None, None)
    assert row.origin == TOLD["origin"]
    assert earlier_versions(dropping.capture_row(noted)) == [StoredVersion("a-key", 1, "5e")]
    assert "callback" not in str(dropping.capture_row(noted).extra_json)


texts = strategies.one_of(
    strategies.sampled_from(["+14155550123", "a@example.com", "***23", "f" * 64, "Ada.wav", ""]),
    strategies.text(max_size=12),
)


@given(
    policies=strategies.dictionaries(
        strategies.sampled_from(COLUMNS), strategies.sampled_from(["keep", "mask", "hash", "drop"])
    ),
    text=texts,
    extra=strategies.dictionaries(texts, strategies.lists(texts, max_size=2), max_size=3),
)
def test_a_row_under_a_policy_is_left_as_it_is_by_it(
    policies: dict[str, str], text: str, extra: dict[str, Any]
):
    """Else every run would replace partitions in which nothing changed."""
    personal_data = PersonalData.from_fields(policies, SECRET)
    extra.pop("archive", None)
    told = a_contact_task(origin=text, owner_name=text, extra=extra)
    row = new_contact_task_row(told, "an-org", NOW, CapturePolicy(), personal_data)
    capture = new_capture_row(
        row, a_capture(file_name=text, participants=(text,), extra=extra), personal_data
    )

    assert personal_data.contact_task_row(row) == row
    assert personal_data.capture_row(capture) == capture


@pytest.mark.parametrize("policy", ["mask", "hash", "drop"])
def test_a_row_of_before_comes_under_a_policy_of_now(policy: str):
    """Also where Webex has purged what it tells of, so that nobody can ask again."""
    row, capture = rows_under(PersonalData())
    noted = with_notes(capture, earlier_versions=[StoredVersion("a/+14155550123", 1, "5e")])
    wanted_row, wanted = rows_under(under(policy))

    assert under(policy).contact_task_row(row) == wanted_row
    brought = under(policy).capture_row(noted)
    assert earlier_versions(brought) == earlier_versions(noted)
    assert replace(brought, extra_json=wanted.extra_json) == wanted


@pytest.mark.parametrize(
    ("policies", "secret", "sentence"),
    [
        ({"0rigin": "drop"}, "", "names a column that has no policy"),
        ({"origin": "redact"}, "", "no such policy for origin: give keep, mask, hash or drop"),
        ({"origin": ["drop"]}, "", "no such policy for origin"),
        ({"extra_json": "hash"}, SECRET, "no such policy for extra_json: give keep or drop"),
        ({"origin": "hash"}, None, "'personal_data_secret' .* is missing or too short"),
        ({"origin": "hash"}, "x" * 31, "at least 32 characters"),
        (["origin"], "", "no JSON object of columns and policies"),
        ("{origin: drop}", "", "no JSON object of columns and policies"),
    ],
    ids=[
        "column",
        "policy",
        "list as policy",
        "hashed extra",
        "no secret",
        "short secret",
        "list",
        "no JSON",
    ],
)
def test_an_unusable_setting_is_refused_in_a_sentence(policies: Any, secret: Any, sentence: str):
    with pytest.raises(PermanentError, match=sentence) as refused:
        PersonalData.from_fields(policies, secret)

    assert not secret or secret not in str(refused.value)
    assert "wxcc_store" in str(refused.value)


def test_an_empty_setting_is_none():
    assert PersonalData.from_fields(" ", None) == PersonalData()
    assert SECRET not in repr(under("hash"))
