"""Reads the body of an answer: never more of it than a limit, and JSON that any reader can read.

JSON allows more than a table can hold. What is beyond is kept as text in its place, so that one odd value
costs nothing but itself: numbers without end, ``NaN``, halves of a surrogate pair, what is nested too deep.
"""

import json
import math
import re
import zlib

from include.domain.contact_centre import JsonObject
from include.http.connection_pool import Answer, BadAnswer

MAX_DEPTH = 64  # the deepest answer that is documented has 7 levels
_MAX_DIGITS = 20  # those of 2^64; what is longer counts nothing that the API tells
_READ_BYTES = 64 << 10
_GZIP = 31  # zlib's number for the largest window, with gzip's header
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}
_BRACKETS_ALIKE = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)
# A whole pair, half of one, any other escape: in this order, so that only halves are left for the second.
_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)


def read_body(answer: Answer, max_bytes: int) -> bytes:
    """The content, inflated where it came as gzip; one byte more than the limit stands for any longer one.

    It is inflated in small steps, so that not more than the limit is ever in memory, whatever a few
    compressed bytes stand for.

    Raises:
        BadAnswer: What came is not gzip.
        OSError: As `Answer.readinto`.
    """
    is_gzip = answer.headers.get("content-encoding", "").lower() == "gzip"
    body = _InflatedBody(answer) if is_gzip else _PlainBody(answer)
    content = bytearray()
    while len(content) <= max_bytes:
        step = body.read(min(_READ_BYTES, max_bytes + 1 - len(content)))
        if not step:
            break
        content += step
    return bytes(content)


class _PlainBody:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._buffer = memoryview(bytearray(_READ_BYTES))

    def read(self, most: int) -> bytes:
        """At most so many bytes; none at the end."""
        count = self._answer.readinto(self._buffer[:most])
        return bytes(self._buffer[:count])


class _InflatedBody(_PlainBody):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self._gzip = zlib.decompressobj(_GZIP)

    def read(self, most: int) -> bytes:
        """At most so many inflated bytes; none at the end."""
        while True:
            packed = self._gzip.unconsumed_tail or self._gzip.unused_data
            if self._gzip.eof:  # gzip may go on with another member
                self._gzip = zlib.decompressobj(_GZIP)
            packed = packed or super().read(_READ_BYTES)
            if not packed:
                return b""
            try:
                inflated = self._gzip.decompress(packed, most)
            except zlib.error:
                raise BadAnswer("the body is not gzip, as its header says") from None
            if inflated:
                return inflated


def parse_json(content: bytes) -> object:
    r"""The JSON value of a body.

    - Bytes that are no UTF-8 are read as U+FFFD.
    - A number of more than 20 digits, one beyond the floats, ``NaN`` and ``Infinity`` are texts.
    - Half of a surrogate pair, which no UTF-8 has, is the text of its escape (``\ud800``).
    - What is nested deeper than `MAX_DEPTH` is the text of its JSON.
    - Of members of one name, the last that is not null counts; any other is kept as ``name~1``, ``name~2``.

    Raises:
        ValueError: The body is no JSON.
    """
    text = content.decode("utf-8-sig", "replace")
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPES.sub(_without_half, text)
    if _is_deep(content):
        text = _with_depth_as_text(text)
    try:
        return _decoder.decode(text)
    except RecursionError:  # the caller stands deep itself
        raise ValueError("nested too deep") from None


def parse_json_object(content: bytes) -> JsonObject | None:
    """The JSON object of a body; None where it is none. See `parse_json`."""
    try:
        parsed = parse_json(content)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None  # pyright: ignore[reportUnknownVariableType]


def _without_half(escape: re.Match[str]) -> str:
    return f"\\{escape.group()}" if escape["half"] else escape.group()


def _is_deep(content: bytes) -> bool:
    """Whether any value may be nested too deep; far cheaper than to parse it.

    Between the quotes that no backslash makes part of a string, brackets are brackets. In what is no JSON
    the count may be wrong after the first fault, where the parser stops.
    """
    if content.count(b"[") + content.count(b"{") <= MAX_DEPTH:
        return False
    quotes = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(quotes.split(b'"')[::2])
    brackets = outside.translate(_BRACKETS_ALIKE, delete=_ALL_BUT_BRACKETS)
    for _ in range(MAX_DEPTH):  # takes away the innermost level
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _with_depth_as_text(text: str) -> str:
    """The same JSON, with each value below the limit as the text of its JSON."""
    pieces: list[str] = []
    depth = kept = cut = 0
    for found in _STRINGS_AND_BRACKETS.finditer(text):
        step = _STEPS.get(found.group(), 0)
        depth += step
        if step == 1 and depth == MAX_DEPTH + 1:
            cut = found.start()
            pieces.append(text[kept:cut])
        elif step == -1 and depth == MAX_DEPTH:
            kept = found.end()
            pieces.append(json.dumps(text[cut:kept], ensure_ascii=False))
    if depth > MAX_DEPTH:
        raise ValueError("not closed")
    return "".join([*pieces, text[kept:]])


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits.lstrip("-")) <= _MAX_DIGITS else digits


def _real(literal: str) -> float | str:
    value = float(literal)
    return value if math.isfinite(value) else literal


def _object(pairs: list[tuple[str, object]]) -> JsonObject:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _with_every_value(pairs)


def _with_every_value(pairs: list[tuple[str, object]]) -> JsonObject:
    found: JsonObject = {}
    counts: dict[str, int] = {}
    for name, value in pairs:
        earlier = found.get(name)
        if value is not None and earlier is not None and value != earlier:
            count = counts.get(name, 0) + 1
            while f"{name}~{count}" in found:
                count += 1
            counts[name] = count
            found[f"{name}~{count}"] = earlier
        if value is not None or name not in found:
            found[name] = value
    return found


_decoder = json.JSONDecoder(
    parse_int=_integer, parse_float=_real, parse_constant=str, object_pairs_hook=_object
)
