"""Ids and file names come from outside; whatever they are, a key stays where it belongs."""

import random
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.domain.errors import PermanentError
from include.domain.object_keys import (
    MAX_PART_LENGTH,
    MAX_PREFIX_LENGTH,
    KeyLayout,
    ObjectKey,
    safe_file_name,
    safe_part,
)
from tests.builders import NOW, ORG_ID

PART = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*")
LAYOUT = KeyLayout(ORG_ID, "an/archive")
TEXTS = st.text(st.characters(exclude_categories=()), max_size=200)
NASTY = "abcXYZ019-_.~/\\ \0\n\r\u202e\u200b\ud800é漢%+?#:*|<>\"'"


def is_safe(key: str, prefix: str) -> bool:
    parts = key.removeprefix(prefix).split("/")
    return (
        key.startswith(prefix)
        and len(key.encode()) <= 1_024
        and all(PART.fullmatch(part) and len(part) <= MAX_PART_LENGTH for part in parts)
    )


def key_of(task_id: str, capture_id: str, file_name: str | None = "a.wav") -> ObjectKey:
    return LAYOUT.capture(NOW, task_id, "recording", capture_id, file_name)


def test_the_keys_are_the_documented_ones():
    task_id = "fb53f6d1-5535-4ac8-b081-53834e17d6f5"
    captures = f"captures/org_id={ORG_ID}/created_date=2026-09-14/created_hour=10/"
    layout = KeyLayout(ORG_ID)

    assert layout.captures_of_hour(NOW) == captures
    assert layout.captures_of_contact_task(NOW, task_id) == f"{captures}{task_id}/"
    assert layout.capture(NOW, task_id, "transcript", "cfg-id-101", "voiceTranscript.json") == (
        f"{captures}{task_id}/transcript/cfg-id-101/voiceTranscript.json"
    )
    assert layout.table_partition("captures", NOW) == (
        f"tables/captures/org_id={ORG_ID}/created_date=2026-09-14/10.parquet"
    )
    assert layout.working_file("run/1", "plan") == "_work/run~2f1/plan"


def test_the_hour_of_a_key_is_of_utc():
    assert LAYOUT.captures_of_hour(NOW + timedelta(minutes=59)) == LAYOUT.captures_of_hour(NOW)
    assert LAYOUT.table_partition("captures", NOW - timedelta(seconds=1)).endswith("/09.parquet")


def test_a_hundred_thousand_hostile_ids_and_names_stay_under_their_prefix():
    chance = random.Random(7)
    prefix = LAYOUT.captures_of_hour(NOW)
    keys: dict[str, tuple[str, str]] = {}
    for number in range(100_000):
        length = chance.choice((0, 1, 2, 3, 8, 40, 300) if number % 50 == 0 else (1, 2, 3, 8))
        ids = ["".join(chance.choices(NASTY, k=length)) for _ in range(2)]
        key = key_of(ids[0], ids[1], ids[0])
        assert keys.setdefault(key, (ids[0], ids[1])) == (ids[0], ids[1])
        if number % 20 == 0:
            assert is_safe(key, prefix), key
    assert len(keys) > 50_000


@settings(max_examples=200)
@given(TEXTS, TEXTS, st.none() | TEXTS)
def test_any_ids_and_name_give_a_safe_key(task_id: str, capture_id: str, file_name: str | None):
    key = key_of(task_id, capture_id, file_name)

    assert is_safe(key, LAYOUT.captures_of_contact_task(NOW, task_id))
    assert LAYOUT.captures_of_contact_task(NOW, task_id).startswith(LAYOUT.captures_of_hour(NOW))


@settings(max_examples=200)
@given(TEXTS, TEXTS)
def test_two_texts_give_two_parts(first: str, second: str):
    assert (safe_part(first) == safe_part(second)) == (first == second)


@pytest.mark.parametrize(
    "pair",
    [
        ("a/b", "a~2fb"), ("", "unnamed"), (".", "~2e"), ("..", "~2e."), ("a" * 300, "a" * 301),
        ("a" * 120, "a" * 121), ("é", "e\u0301"), ("A", "a"), ("a" * 200 + "x", "a" * 200 + "y"),
    ],
)  # fmt: skip
def test_texts_that_look_alike_give_two_parts(pair: tuple[str, str]):
    first, second = map(safe_part, pair)

    assert first != second
    assert PART.fullmatch(first)
    assert PART.fullmatch(second)


def test_a_long_part_keeps_its_beginning():
    part = safe_part("call-" + "x" * 500)

    assert part.startswith("call-xxx")
    assert len(part) == MAX_PART_LENGTH


def test_the_longest_key_is_short_enough_for_s3():
    layout = KeyLayout("o" * 500, "p" * MAX_PREFIX_LENGTH)
    key = layout.capture(NOW, "t" * 500, "screen_recording", "c" * 500, "f" * 500)

    assert len(key.encode()) <= 1_024


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("combinedRecordings.wav", "combinedRecordings.wav"),
        (None, "unnamed"),
        ("", "unnamed"),
        ("+1 212 555 0142.wav", "redacted.wav"),
        ("+121****0142.wav", "redacted.wav"),
        ("mail of ada@example.com", "mail~20of~20redacted"),
        ("../../etc/passwd", "~2e.~2f..~2fetc~2fpasswd"),
    ],
)
def test_a_file_name_is_readable_and_names_nobody(name: str | None, expected: str):
    assert safe_file_name(name) == expected


@pytest.mark.timeout(10)
def test_a_huge_file_name_takes_no_time():
    assert len(safe_file_name("a" * 5_000_000)) == MAX_PART_LENGTH


@pytest.mark.parametrize(
    ("prefix", "expected"), [("", ""), ("/", ""), ("a", "a/"), ("/a/b=c/", "a/b=c/"), ("a..b", "a..b/")]
)  # fmt: skip
def test_a_prefix_has_one_form(prefix: str, expected: str):
    assert KeyLayout(ORG_ID, prefix).prefix == expected


@pytest.mark.parametrize(
    "prefix", ["..", "a/../b", "a//b", ".a", "a/.b", "a b", "a\n", "é", "~a", "a" * 257, "a\\b"]
)
def test_an_odd_prefix_is_refused(prefix: str):
    with pytest.raises(PermanentError, match="extra field 'prefix' of the connection wxcc_store"):
        KeyLayout(ORG_ID, prefix)


@pytest.mark.parametrize(
    "make",
    [
        lambda layout: layout.captures_of_hour(NOW),
        lambda layout: layout.table_partition("captures", NOW),
        lambda layout: layout.working_files(),
        lambda layout: layout.working_file("a", "b"),
    ],
    ids=["captures", "tables", "all working files", "a working file"],
)
def test_everything_lies_under_the_prefix(make: Callable[[KeyLayout], ObjectKey]):
    assert make(KeyLayout(ORG_ID, "p")) == "p/" + make(KeyLayout(ORG_ID))


def test_one_orgs_keys_are_not_anothers():
    first, other = KeyLayout(ORG_ID), KeyLayout("11111111-2222-4333-8444-555555555555")

    assert first.captures_of_hour(NOW) != other.captures_of_hour(NOW)
    assert first.table_partition("captures", NOW) != other.table_partition("captures", NOW)
