"""Ids and file names come from outside; whatever they are, a key stays where it belongs."""

import random
import re
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.domain.errors import PermanentError
from include.domain.object_keys import (
    MAX_PART_LENGTH,
    MAX_PREFIX_LENGTH,
    DueKind,
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
    assert layout.capture(NOW, task_id, "recording", "r", "a.wav", version="0a1b2c") == (
        f"{captures}{task_id}/recording/r~v0a1b2c/a.wav"
    )
    assert layout.working_file("run/1", "plan") == "_work/run~2f1/plan"
    assert layout.manifest(12) == f"manifests/org_id={ORG_ID}/9999999987.json"
    assert layout.due_marker(NOW, "list", NOW).key == (
        f"due/org_id={ORG_ID}/20260914T100000Z/list/20260914T10Z"
    )


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
    "sensitive_prefix",
    ["captures", "tables/x", "_work", "manifests", "due/", "a//b", "a b", "../a", ".a", "a" * 257],
    ids=lambda text: text[:12],
)
def test_a_place_for_sensitive_captures_that_is_not_usable_is_refused(sensitive_prefix: str):
    with pytest.raises(PermanentError, match="'sensitive_prefix'"):
        KeyLayout(ORG_ID, "p", sensitive_prefix)


def test_only_what_is_called_sensitive_lies_apart():
    layout = KeyLayout(ORG_ID, "an/archive", "/under/lock/")
    key = layout.capture(NOW, "t", "recording", "c", "a.wav", sensitive=True)

    assert key == LAYOUT.capture(NOW, "t", "recording", "c", "a.wav").replace(
        "an/archive/captures/", "an/archive/under/lock/"
    )
    assert layout.hour_of(key) == LAYOUT.hour_of(LAYOUT.captures_of_hour(NOW))
    for told in (False, None):
        assert layout.capture(NOW, "t", "recording", "c", "a.wav", sensitive=told).startswith(
            LAYOUT.captures()
        )
    assert LAYOUT.capture(NOW, "t", "recording", "c", "a.wav", sensitive=True).startswith(
        LAYOUT.captures()
    )
    assert (LAYOUT.places, layout.places) == ((False,), (False, True))


@pytest.mark.parametrize(
    "make",
    [
        lambda layout: layout.captures_of_hour(NOW),
        lambda layout: layout.table_partition("captures", NOW),
        lambda layout: layout.working_files(),
        lambda layout: layout.working_file("a", "b"),
        lambda layout: layout.manifest(1),
        lambda layout: layout.due_marker(NOW, "check", NOW).key,
    ],
    ids=["captures", "tables", "all working files", "a working file", "a manifest", "a due marker"],
)
def test_everything_lies_under_the_prefix(make: Callable[[KeyLayout], ObjectKey]):
    assert make(KeyLayout(ORG_ID, "p")) == "p/" + make(KeyLayout(ORG_ID))


def test_one_orgs_keys_are_not_anothers():
    first, other = KeyLayout(ORG_ID), KeyLayout("11111111-2222-4333-8444-555555555555")

    assert first.captures_of_hour(NOW) != other.captures_of_hour(NOW)
    assert first.table_partition("captures", NOW) != other.table_partition("captures", NOW)
    assert other.manifest_sequence(first.manifest(1)) is None
    assert other.parse_due_marker(first.due_marker(NOW, "check", NOW).key) is None


# Versions of a capture

VERSIONS = st.text("0123456789abcdef", min_size=1, max_size=12)
IDS = TEXTS | st.builds(lambda text, version: f"{text}~v{version}", TEXTS, VERSIONS)


@settings(max_examples=300)
@given(IDS, VERSIONS, IDS, VERSIONS | st.just(""))
def test_a_version_has_a_key_of_its_own(first: str, version: str, other: str, other_version: str):
    """Else the new content of one capture could replace another one."""
    key = LAYOUT.capture(NOW, "t", "recording", first, "a.wav", version=version)
    other_key = LAYOUT.capture(NOW, "t", "recording", other, "a.wav", version=other_version)

    assert (key == other_key) == ((first, version) == (other, other_version))


@pytest.mark.parametrize(
    "capture_id", ["r~v0a", "r~~v0a", "r~7ev0a", "a" * 120, "a" * 119 + "~", "a" * 200, "~v0a"]
)
def test_an_id_that_looks_like_a_version_is_not_one(capture_id: str):
    keys = {
        LAYOUT.capture(NOW, "t", "recording", name, "a.wav", version=version)
        for name in (capture_id, "r", "a" * 85, "")
        for version in ("", "0a", "0a1b")
    }

    assert len(keys) == 12


def test_a_version_stays_among_the_captures_of_its_contact_task():
    key = LAYOUT.capture(NOW, "t", "transcript", "c", "a.json", version="0a1b2c3d4e5f")

    assert is_short_and_clean(key)
    assert key.startswith(LAYOUT.captures_of_contact_task(NOW, "t"))
    assert LAYOUT.hour_of(key) == NOW


def is_short_and_clean(key: str) -> bool:
    return len(key.encode()) <= 1_024 and all(0x21 <= ord(char) < 0x7F for char in key)


def test_the_longest_version_key_is_short_enough_for_s3():
    layout = KeyLayout("o" * 500, "p" * MAX_PREFIX_LENGTH)
    key = layout.capture(NOW, "t" * 500, "screen_recording", "c" * 500, "f" * 500, version="0" * 12)

    assert len(key.encode()) <= 1_024


# Due markers

INSTANTS = st.integers(0, 4_000_000_000_000_000).map(
    lambda microseconds: NOW + timedelta(microseconds=microseconds - 10**15)
)


@given(INSTANTS, st.sampled_from(["check", "list"]), INSTANTS)
def test_a_due_marker_is_read_from_its_key(due_time: datetime, kind: DueKind, hour: datetime):
    marker = LAYOUT.due_marker(due_time, kind, hour)

    assert LAYOUT.parse_due_marker(marker.key) == marker
    assert marker.hour <= hour < marker.hour + timedelta(hours=1)
    assert due_time <= marker.due_time < due_time + timedelta(seconds=1)
    assert is_short_and_clean(marker.key)


@given(st.lists(INSTANTS, min_size=2, max_size=5))
def test_due_markers_are_listed_in_the_order_of_their_times(due_times: list[datetime]):
    """The listing ends at the first that is not due yet."""
    markers = [LAYOUT.due_marker(due_time, "check", NOW) for due_time in due_times]

    by_key = sorted(markers, key=lambda marker: marker.key)

    assert [marker.due_time for marker in by_key] == sorted(m.due_time for m in markers)


@pytest.mark.parametrize(
    "name",
    ["", "note.txt", "20260914T100000Z/check", "20260914T100000Z/other/20260914T10Z",
     "20261314T100000Z/check/20260914T10Z", "20260914T100000Z/check/20260914T24Z",
     "20260914T100000Z/check/20260914T10Z/more", "20260914T100000Z/check/20260914T10Z\n",
     "x20260914T100000Z/check/20260914T10Z", "\u0662\u0660260914T100000Z/check/20260914T10Z"],
)  # fmt: skip
def test_what_somebody_else_put_among_the_due_markers_is_none(name: str):
    assert LAYOUT.parse_due_marker(ObjectKey(f"{LAYOUT.due_markers()}{name}")) is None


# Manifests


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_the_newest_manifest_is_listed_first(first: int, other: int):
    keys = [LAYOUT.manifest(first), LAYOUT.manifest(other)]

    assert [LAYOUT.manifest_sequence(key) for key in keys] == [first, other]
    assert (keys[0] < keys[1]) == (first > other)


@pytest.mark.parametrize(
    "name",
    ["", "1.json", "latest", "99999999870.json", "9999999987.json.bak", "\u0669999999987.json"],
)
def test_what_is_no_manifest_has_no_number(name: str):
    assert LAYOUT.manifest_sequence(ObjectKey(f"{LAYOUT.manifests()}{name}")) is None


# The hour of a key


@given(INSTANTS)
def test_a_key_tells_its_hour(instant: datetime):
    hour = instant.replace(minute=0, second=0, microsecond=0)

    assert LAYOUT.hour_of(LAYOUT.table_partition("contact_tasks", instant)) == hour
    assert LAYOUT.hour_of(LAYOUT.captures_of_hour(instant)) == hour
    assert LAYOUT.hour_of(key_of_instant(instant)) == hour


def key_of_instant(instant: datetime) -> ObjectKey:
    return LAYOUT.capture(instant, "t", "recording", "c", "a.wav")


@pytest.mark.parametrize(
    "key",
    [
        "note.txt",
        "tables/captures/org_id=o/created_date=2026-09-14/24.parquet",
        "tables/captures/org_id=o/created_date=2026-13-14/10.parquet",
        "tables/captures/org_id=o/created_date=2026-09-14/10.parquet.bak",
        "captures/org_id=o/created_date=2026-09-14/created_hour=1/t",
        "captures/org_id=o/created_date=2026-09-14/",
    ],
)
def test_a_key_without_an_hour_tells_none(key: str):
    assert LAYOUT.hour_of(ObjectKey(key)) is None
