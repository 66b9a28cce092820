"""A capture is stored when its bytes are plausible, else nothing is visible."""

import hashlib
import json
import struct
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.errors import PermanentError
from include.domain.object_keys import Kind, ObjectKey
from include.storage.captures import read_back, store_capture
from include.storage.formats import Implausible, format_check_for
from include.storage.object_store import PART_BYTES
from tests.sources import Pieces

KEY = ObjectKey("captures/one")
BOM = b"\xef\xbb\xbf"


def a_wav(sound: bytes = bytes(400), riff_size: int | None = None, magic: bytes = b"RIFF") -> bytes:
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    body += b"data" + struct.pack("<I", len(sound)) + sound
    return magic + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


WAV = a_wav()
VCON = json.dumps({"vcon": "0.0.1", "uuid": "x", "parties": [{"tel": "1"}]}).encode()
LEGACY = json.dumps({"responseContents": [{"text": "hello"}], "timestamp": 1}).encode()
ERROR = json.dumps({"trackingId": "x", "error": {"key": "404", "message": [{}]}}).encode()
HTML = b"\n<!DOCTYPE html><html><body>Access denied</body></html>" + bytes(100)
XML = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'

# (name, kind, bytes, whether the length was announced) and the format, or the sentence of the refusal
PLAUSIBLE: dict[str, tuple[str | None, Kind, bytes, bool, str]] = {
    "wav-announced": ("call.wav", "recording", WAV, True, "wav"),
    "wav-that-proves-its-length": ("CALL.WAV", "recording", WAV, False, "wav"),
    "wav-with-a-trailing-chunk": ("call.wav", "recording", WAV + b"LIST", True, "wav"),
    "wav-padded-to-an-even-length": ("call.wav", "recording", WAV + b"\0", False, "wav"),
    "wav-cut-at-its-source": ("call.wav", "recording", WAV[:300], True, "wav_truncated"),
    "wav-without-a-name": (None, "recording", WAV, True, "wav"),
    "wav-with-another-ending": ("call.bin", "recording", WAV[:300], True, "wav_truncated"),
    "wav-of-unknown-size-announced": ("call.wav", "recording", a_wav(riff_size=0), True, "wav"),
    "rf64-announced": (
        *("call.wav", "recording", a_wav(riff_size=0xFFFFFFFF, magic=b"RF64"), True, "wav"),
    ),
    "vcon": ("t.json", "transcript", VCON, False, "vcon"),
    "vcon-without-a-name": (None, "transcript", VCON, True, "vcon"),
    "vcon-under-a-name-without-suffix": ("transcript", "transcript", VCON, True, "vcon"),
    "vcon-after-a-byte-order-mark": ("t.json", "transcript", BOM + VCON, True, "vcon"),
    "legacy": ("t.json", "transcript", LEGACY, False, "voice_transcript"),
    "legacy-with-other-case": ("t.json", "transcript", b'{"ResponseContents":[]}', True, "voice_transcript"),
    "another-object": ("t.json", "transcript", b'{"a": [1, 2.5, "\xc3\xa9"]}', True, "json"),
    "an-array": ("t.json", "transcript", b'[{"vcon": 1}]', True, "json"),
    "an-object-that-mentions-a-message": (
        *("t.json", "transcript", b'{"message": "hi", "speaker": 1}', True, "json"),
    ),
    "many-members": (
        *("t.json", "transcript", json.dumps(dict.fromkeys(map(str, range(99)))).encode(), True),
        "json",
    ),
    "a-large-number": ("t.json", "transcript", b"[123456789012345678901234567890, 1e400]", True, "json"),
    "deep-but-not-too-deep": ("t.json", "transcript", b"[" * 200 + b"]" * 200, True, "json"),
    "mp4": ("s.mp4", "screen_recording", b"\0\0\0\x18ftypmp42", True, "mp4"),
    "text-transcript": ("t.txt", "transcript", b"Hello", True, "txt"),
    "no-name": (None, "screen_recording", b"\x1aE\xdf\xa3", True, "screen_recording"),
    "a-name-that-ends-with-a-dot": ("call.", "recording", b"\x1aE\xdf\xa3", True, "recording"),
    "a-suffix-that-is-none": ("to. +49 170 1234567", "recording", b"ID3\0", True, "recording"),
    "a-long-suffix": ("a." + "x" * 99, "recording", b"ID3\0", True, "x" * 16),
}  # fmt: skip
REFUSED: dict[str, tuple[str | None, Kind, bytes, bool, str]] = {
    "empty-wav": ("call.wav", "recording", b"", True, "no sound"),
    "wav-of-a-header-only": ("call.wav", "recording", a_wav(b""), True, "no sound: 44"),
    "wav-cut-in-its-header": ("call.wav", "recording", WAV[:11], True, "no sound: 11"),
    "truncated-wav": ("call.wav", "recording", WAV[:-1], False, "cannot be proved"),
    "wav-of-unknown-size": ("call.wav", "recording", a_wav(riff_size=0), False, "cannot be proved"),
    "wav-of-unknown-size-all-ones": (
        *("call.wav", "recording", a_wav(riff_size=0xFFFFFFFF), False, "cannot be proved"),
    ),
    "rf64": ("call.wav", "recording", a_wav(magic=b"RF64"), False, "cannot be proved"),
    "riff-that-is-no-wave": ("call.wav", "recording", b"RIFF\0\0\0\0AVI " + bytes(99), True, "RIFF and WAVE"),
    "html-for-wav": ("call.wav", "recording", HTML, True, "RIFF and WAVE"),
    "error-for-wav": ("call.wav", "recording", ERROR, True, "RIFF and WAVE"),
    "xml-for-wav": ("call.wav", "recording", XML, True, "RIFF and WAVE"),
    "empty-json": ("t.json", "transcript", b"", True, "incomplete: 0 bytes"),
    "only-a-byte-order-mark": ("t.json", "transcript", BOM, True, "incomplete: 3 bytes"),
    "half-a-byte-order-mark": ("t.json", "transcript", BOM[:2], True, "incomplete: 2 bytes"),
    "only-blanks": ("t.json", "transcript", b" \n ", True, "incomplete"),
    "truncated-json": ("t.json", "transcript", VCON[:-1], True, "incomplete"),
    "trailing-garbage": ("t.json", "transcript", VCON + b"x", True, "not JSON"),
    "two-values": ("t.json", "transcript", VCON + VCON, True, "not JSON"),
    "invalid-utf-8": ("t.json", "transcript", b'{"a": "\xff"}', True, "not JSON"),
    "utf-16": ("t.json", "transcript", VCON.decode().encode("utf-16"), True, "not JSON"),
    "html-for-json": ("t.json", "transcript", HTML, True, "not JSON"),
    "xml-for-json": ("t.json", "transcript", XML, True, "not JSON"),
    "error-for-json": ("t.json", "transcript", ERROR, True, "error message"),
    "graphql-for-json": ("t.json", "transcript", b'{"errors": [{}], "data": null}', True, "error message"),
    "message-for-json": ("t.json", "transcript", b'{"Message": "gone", "code": 410}', True, "error message"),
    "a-bare-text": ("t.json", "transcript", b'"Internal Server Error"', True, "not a JSON object"),
    "a-bare-null": ("t.json", "transcript", b"null", True, "not a JSON object"),
    "not-a-number": ("t.json", "transcript", b"[NaN]", True, "not JSON"),
    "a-bomb-of-depth": ("t.json", "transcript", b"[" * 100_000, True, "nested more than 200"),
    "a-bomb-of-objects": ("t.json", "transcript", b'{"a":' * 300, True, "nested more than 200"),
    "a-bomb-of-digits": ("t.json", "transcript", b"[" + b"9" * 5000 + b"]", True, "not JSON"),
    "a-bomb-of-an-exponent": ("t.json", "transcript", b"[1e99999999999999999999]", True, "not JSON"),
    "digits-at-the-end": ("t.json", "transcript", b"9" * 5000, True, "incomplete"),
    "empty-media": ("s.mp4", "screen_recording", b"", True, "empty"),
    "html-for-media": ("s.mp4", "screen_recording", HTML, True, "markup or JSON"),
    "html-after-a-byte-order-mark": ("s.mp4", "screen_recording", BOM + HTML, True, "markup or JSON"),
    "error-for-media": ("s.mp4", "screen_recording", ERROR, True, "markup or JSON"),
    "wav-longer-than-it-says": ("call.wav", "recording", WAV + bytes(1000), False, "cannot be proved"),
    "media-of-unknown-length": ("s.mp4", "screen_recording", b"\0\0\0\x18ftyp", False, "cannot be proved"),
}  # fmt: skip


@pytest.fixture
def store(bucket_on):
    """These are promises of the program, not of a server: one is enough."""
    return bucket_on("rclone").store


def pieces(content: bytes, size: int = 5) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def copy(store, case: tuple[str | None, Kind, bytes, bool, str]):
    name, kind, content, is_announced, _ = case
    announced = len(content) if is_announced else None
    return store_capture(
        store, KEY, Pieces(pieces(content)), size_bytes=announced, kind=kind, file_name=name
    )


@pytest.mark.parametrize("case", PLAUSIBLE.values(), ids=PLAUSIBLE.keys())
def test_a_plausible_capture_is_stored_and_reads_back_the_same(store, case):
    name, kind, content, _, expected_format = case

    stored = copy(store, case)

    assert stored.format == expected_format
    assert stored.size_bytes == len(content)
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert store.read(KEY)[0] == content
    assert read_back(store, KEY, kind=kind, file_name=name) == stored


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_capture_is_not_visible_and_harms_no_older_one(store, case):
    with pytest.raises(Implausible, match=case[-1]):
        copy(store, case)
    assert store.head(KEY) is None

    store.write(KEY, b"older")
    with pytest.raises(Implausible):
        copy(store, case)
    assert store.read(KEY)[0] == b"older"


def test_a_refusal_quotes_nothing_of_the_body(store):
    with pytest.raises(Implausible) as caught:
        copy(store, ("t.json", "transcript", b'{"secret-of-the-customer": 1} x', True, ""))

    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_large_capture_is_judged_before_its_upload_is_completed(bucket_on):
    """Past one part the store has the bytes already when the check refuses at the end."""
    bucket = bucket_on("ministack")
    longer_than_it_is = a_wav(bytes(2 * PART_BYTES), riff_size=3 * PART_BYTES)

    with pytest.raises(Implausible, match="cannot be proved"):
        store_capture(
            bucket.store,
            KEY,
            Pieces(pieces(longer_than_it_is, 1 << 20)),
            size_bytes=None,
            kind="recording",
            file_name="call.wav",
        )

    assert list(bucket.store.list("")) == []
    assert bucket.open_uploads() == []


def test_what_is_no_such_file_is_not_read_back(store):
    """An object that an earlier version, or somebody else, put there is copied again."""
    store.write(KEY, HTML)

    with pytest.raises(Implausible):
        read_back(store, KEY, kind="recording", file_name="call.wav")
    with pytest.raises(PermanentError, match="NoSuchKey"):
        read_back(store, ObjectKey("absent"), kind="recording", file_name="call.wav")


def verdict(case: tuple[str | None, Kind, bytes, bool, str], chunks: list[bytes]) -> str:
    check = format_check_for(case[1], case[0])
    try:
        for chunk in chunks:
            check.feed(chunk)
        return check.finish(sum(map(len, chunks)), is_length_announced=case[3])
    except Implausible:
        return "refused"


SMALL = [case for case in (*PLAUSIBLE.values(), *REFUSED.values()) if len(case[2]) < 6_000]


@given(case=st.sampled_from(SMALL), data=st.data())
def test_the_verdict_does_not_depend_on_where_the_chunks_are_cut(case, data):
    """Chunks are cut where the network cuts them, in the middle of a character or a number."""
    content = case[2]
    cuts = sorted(data.draw(st.lists(st.integers(0, min(len(content), 700)), max_size=12)))
    chunks = [
        content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)
    ]

    assert verdict(case, chunks) == verdict(case, [content])


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case[2][:12].hex())
def test_the_verdict_is_the_same_byte_by_byte(case):
    assert verdict(case, list(pieces(case[2], 1))) == verdict(case, [case[2]])


@pytest.mark.parametrize("blanks", [511, 512, 600])
def test_blanks_before_markup_are_cut_alike(blanks):
    case = ("s.mp4", "screen_recording", b" " * blanks + b"<html>", True, "")

    assert verdict(case, list(pieces(case[2], 300))) == verdict(case, [case[2]])
    assert verdict(case, list(pieces(case[2], 1))) == verdict(case, [case[2]])


@given(content=st.binary(max_size=100), name=st.sampled_from(["a.wav", "a.json", "a.mp4", None]))
def test_any_bytes_get_a_verdict(content, name):
    assert verdict((name, "recording", content, True, ""), [content])


# Long strings


def odd_json() -> bytes:
    """Long strings of every kind of character, escapes and quotes among them."""
    text = 'añ€😀"\\\n/ {}[],' * 900
    return json.dumps(
        {"vcon": "0.0.1", 'k"{': text, "list": [text, {"a\\": ""}]}, ensure_ascii=False
    ).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000, 1 << 18])
def test_json_is_judged_the_same_however_it_is_cut(size):
    """Also in the middle of a character, of an escape and of a string that is too long to be kept."""
    content = odd_json()
    check = format_check_for("transcript", "t.json")
    for piece in pieces(content, size):
        check.feed(memoryview(piece))
    assert check.finish(len(content), is_length_announced=True) == "vcon"

    broken = format_check_for("transcript", "t.json")
    for piece in pieces(content[:-1], size):
        broken.feed(piece)
    with pytest.raises(Implausible):
        broken.finish(len(content) - 1, is_length_announced=True)


def test_one_long_string_takes_neither_memory_nor_time():
    """A vCon may hold its sound as one string; with escapes in it, ijson took the square of its length."""
    check = format_check_for("transcript", "t.json")
    tracemalloc.start()
    started = time.process_time()
    check.feed(b'{"vcon": "0.0.1", "body": "')
    for _ in range(32):
        check.feed(b"\\u0041abc\\n" * 20_000)
    check.feed(b'"}')
    spent, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert check.finish(1, is_length_announced=True) == "vcon"
    assert peak < 8 << 20
    assert spent < 5
