"""What is read of a body, and how much of it at most."""

import gzip
import io
import json
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from include.domain.errors import TransientError
from include.http.connection_pool import Answer
from include.webex.http_client import TooLarge, WebexClient
from include.webex.json_answers import MAX_DEPTH, parse_json, parse_json_object, read_body
from include.webex.tokens import read_token_answer, request_token_pair
from tests.builders import NOW, CountingBudget, CurrentTokens, RecordingSleep, a_connection
from tests.webex.web_server import a_server, reply

MIB = 1 << 20
FULL_DEPTH = "[" * MAX_DEPTH + "]" * MAX_DEPTH


class GivenAnswer(Answer):
    """An answer whose body is there already."""

    def __init__(self, content: bytes, encoding: str) -> None:
        self.headers = {"content-encoding": encoding}
        self._content = io.BytesIO(content)

    def readinto(self, view: memoryview) -> int:
        return self._content.readinto(view)


def a_bomb(size_bytes: int) -> bytes:
    """Spaces, which are JSON, and a thousandth of their size when they are compressed."""
    packer = zlib.compressobj(wbits=31)
    pieces = [packer.compress(b" " * MIB) for _ in range(size_bytes // MIB)]
    return b"".join([*pieces, packer.flush()])


def peak_bytes(do: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        do()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("size_bytes", "read"), [(0, 0), (9, 9), (10, 10), (11, 11), (99, 11)])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_body_is_read_to_its_limit_and_one_byte_more(size_bytes: int, read: int, encoding: str):
    content = bytes(size_bytes)
    sent = gzip.compress(content) if encoding == "gzip" else content

    assert len(read_body(GivenAnswer(sent, encoding), 10)) == read


def test_a_few_bytes_that_stand_for_many_are_never_all_in_memory():
    answer = GivenAnswer(a_bomb(256 * MIB), "gzip")

    assert peak_bytes(lambda: read_body(answer, MIB)) < 4 * MIB


@pytest.mark.enable_socket  # to a server of the test
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_an_answer_too_large_is_asked_for_in_parts_and_not_again(encoding: str):
    content = a_bomb(64 * MIB) if encoding == "gzip" else b" " * (17 * MIB)
    headers = {"Content_Encoding": encoding}

    def answer(handler: Any) -> None:
        with suppress(ConnectionError):  # the client hangs up when it has enough
            reply(handler, 200, content, **headers)

    with a_server(answer) as url:
        webex = WebexClient(
            a_connection(host=url), CurrentTokens("a-token"), CountingBudget(), RecordingSleep()
        )

        def ask() -> None:
            with pytest.raises(TooLarge, match="16 MiB"):
                webex.get("/v1/tasks", {})

        assert peak_bytes(ask) < 64 * MIB
        webex.close()


@pytest.mark.enable_socket  # to a server of the test
def test_a_token_answer_too_large_is_none():
    bomb = a_bomb(64 * MIB)

    def answer(handler: Any) -> None:
        with suppress(ConnectionError):
            reply(handler, 200, bomb, Content_Encoding="gzip")

    with a_server(answer) as url:

        def ask() -> None:
            with pytest.raises(TransientError, match="without access_token"):
                request_token_pair(a_connection(token_url=url), SecretStr("a"), lambda: NOW)

        assert peak_bytes(ask) < 8 * MIB


@pytest.mark.parametrize("odd", ["a\r\nb", "a b", "\u20ac", "\0", "x" * 16_385], ids=repr)
def test_a_token_that_no_header_can_hold_is_none(odd: str):
    answer = {"access_token": "a", "expires_in": 60, "refresh_token": "b"}

    def read(**changes: str) -> str:
        body = json.dumps({**answer, **changes}).encode()
        pair = read_token_answer(200, body, a_connection(), SecretStr("spent"), NOW)
        return pair.refresh_token.get_secret_value()

    with pytest.raises(TransientError, match="without access_token"):
        read(access_token=odd)
    assert (read(), read(refresh_token=odd)) == ("b", "spent")


@settings(max_examples=50)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**64), 2**64)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    )
)
def test_what_is_plain_is_read_as_any_reader_does(value: object):
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ("1e400", "1e400"), ("-1e400", "-1e400"), ("NaN", "NaN"), ("-Infinity", "-Infinity"),
        ("9" * 5000, "9" * 5000), ("1" + "0" * 400, "1" + "0" * 400), ("18446744073709551616", 2**64), ("-1", -1),
        ("1.5", 1.5), ("0.0", 0.0),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_a_number_beyond_all_numbers_is_a_text(told: str, read: object):
    assert parse_json(f'{{"a":{told},"b":"beside"}}'.encode()) == {"a": read, "b": "beside"}


@pytest.mark.parametrize(
    ("told", "read"),
    [
        (rb'"\ud800"', "\\ud800"), (rb'"\uDFFF\uD800"', "\\uDFFF\\uD800"), (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\ud83d\ud83d\ude00"', "\\ud83d\U0001f600"), (rb'"\\ud800"', "\\ud800"), (rb'"\\\ud800"', "\\\\ud800"),
        (rb'"\u0000\ud"', None), (rb'"\uD7FF"', "\ud7ff"), (b'"\xed\xa0\x80"', "\ufffd" * 3), (b'"\xff"', "\ufffd"),
        (b'\xef\xbb\xbf"a"', "a"),
    ],
    ids=repr,
)  # fmt: skip
def test_every_text_can_be_written_as_utf_8(told: bytes, read: str | None):
    if read is None:
        with pytest.raises(ValueError, match="escape"):
            parse_json(told)
    else:
        assert parse_json(told) == read


def test_what_is_nested_as_deep_as_may_be_is_read():
    value: Any = parse_json(FULL_DEPTH.encode())

    depth = 1
    while value:
        (value,) = value
        depth += 1
    assert depth == MAX_DEPTH


@pytest.mark.parametrize("count", [1, 2000, 200_000])
def test_what_is_nested_deeper_is_text_and_hides_nothing_beside_it(count: int):
    deep = '[{"b":' * count + '"]"' + "}]" * count
    beside = ["a", {"b": "{["}, '"']
    # The outermost list and these are all but two levels of what may be.
    text = json.dumps([*beside, "DEEP", *beside]).replace('"DEEP"', "[" * 61 + deep + "]" * 61)

    found: Any = parse_json(text.encode())

    assert found[:3] == found[4:] == beside
    inside = found[3]
    for _ in range(61):
        (inside,) = inside
    assert inside == ([{"b": "]"}] if count == 1 else [{"b": deep[6:-2]}])


@pytest.mark.parametrize("text", ['"[[["', '"\\"[["', '"\\\\"', '"]"', '{"[":"{"}'])
def test_brackets_within_texts_are_no_depth(text: str):
    whole = f"[{','.join([text] * 200)}]"

    assert parse_json(whole.encode()) == json.loads(whole)


@pytest.mark.parametrize(
    "text",
    ["", "[", "[" * 200_000, '{"a":' * 200_000, "[" * 70 + "]" * 69, "<html>", '{"a":1', "\\[" * 100, '"'],
    ids=lambda text: text[:9],
)  # fmt: skip
def test_what_is_no_json_is_none(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's own, whatever it says
        parse_json(text.encode())
    assert parse_json_object(text.encode()) is None


def test_of_members_of_one_name_the_last_that_is_told_counts_and_all_are_kept():
    assert parse_json(b'{"a":1,"a":null,"a":2,"a":2,"a":3,"b":null,"b":4}') == {
        "a": 3, "a~1": 1, "a~2": 2, "b": 4,
    }  # fmt: skip
    assert parse_json(b'{"a~1":0,"a":1,"a":2}') == {"a~1": 0, "a": 2, "a~2": 1}


def test_a_name_given_a_hundred_thousand_times_takes_no_time():
    many = ",".join(f'"a":{number}' for number in range(100_000))

    assert len(parse_json_object(f"{{{many}}}".encode()) or {}) == 100_000
