"""Judges whether a stream is plausibly the file it should be, while it passes by.

Webex publishes neither checksum nor size, and error bodies have been stored as recordings elsewhere
(demands: 880 "successes" that were error pages). So each file is judged by its content, never by a status.
"""

import re
import struct
from typing import Protocol

import ijson  # pyright: ignore[reportMissingTypeStubs] - ships none

from include.domain.errors import ArchiveError
from include.domain.object_keys import Kind

_HEAD_BYTES = 512
_PLAIN_TEXT = bytes((*b"\t\n\r", *range(0x20, 0x7F)))
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_JSON_DEPTH = 200
_MAX_STRING_BYTES = 4096
_INSIDE_OF_A_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_CONTINUES_A_CHARACTER = bytes(range(0x80, 0xC0))  # in UTF-8
_MAX_TOP_LEVEL_KEYS = 64
# Cisco's own two shapes, and those of gateways, S3, Spring, GraphQL and RFC 9457, in lower case.
_TELLS_AN_ERROR = frozenset(
    {"error", "errors", "message", "fault", "detail", "exception", "__type", "error_description"}
)
_ERROR_MEMBERS = _TELLS_AN_ERROR | {
    *("code", "data", "details", "extensions", "hostid", "instance", "key", "path", "reason"),
    *("request_id", "requestid", "resource", "status", "statuscode", "timestamp", "title"),
    *("trace", "trackingid", "type"),
}
# A RIFF header that says 0 or all ones was written before its writer knew the length.
_UNKNOWN_RIFF_SIZES = frozenset({0, 0xFFFFFFFF})

# A number with thousands of digits, or such an exponent, makes ijson raise the last two.
_NOT_JSON = (ijson.JSONError, ValueError, ArithmeticError, SystemError)


class Implausible(ArchiveError):
    """The bytes are not the file that was announced; nothing may be stored from them."""


class FormatCheck(Protocol):
    """Sees every byte of a stream once; its verdict comes before anything is visible."""

    def feed(self, chunk: bytes | memoryview) -> None:
        """Look at the next bytes.

        Raises:
            Implausible: What came so far cannot be the beginning of such a file.
        """
        ...

    def finish(self, size_bytes: int, *, is_length_announced: bool) -> str:
        """The name of the format, once all bytes are there.

        Raises:
            Implausible: The file is empty or incomplete.
        """
        ...


def format_check_for(kind: Kind, file_name: str | None) -> FormatCheck:
    """The check for a capture: by its name where that says something, else by its kind."""
    name = (file_name or "").lower()
    if name.endswith(".wav"):
        return WavCheck()
    if name.endswith(".json") or (kind == "transcript" and "." not in name):
        return JsonCheck()
    suffix = name.rpartition(".")[2]
    is_suffix = "." in name and suffix.isascii() and suffix.isalnum()
    return OtherCheck(suffix[:16] if is_suffix else kind, is_media=kind != "transcript")


class WavCheck:
    """RIFF/WAVE, or its 64-bit form RF64 for files past 4 GiB."""

    def __init__(self) -> None:
        self._head = b""

    def feed(self, chunk: bytes | memoryview) -> None:
        """Keep the header and refuse another one as soon as it is there."""
        if len(self._head) < 12:
            self._head = (self._head + bytes(chunk[:12]))[:12]
            if len(self._head) == 12 and (
                self._head[:4] not in {b"RIFF", b"RF64"} or self._head[8:] != b"WAVE"
            ):
                raise Implausible(
                    "The body is not a WAV file: it does not begin with RIFF and WAVE."
                )

    def finish(self, size_bytes: int, *, is_length_announced: bool) -> str:
        """Without an announced length, the header's own length must be there.

        A file that is as long as announced, yet shorter than its header says, was cut before Webex offered
        it: it is all there is, so it is kept, under a format that tells.
        """
        if len(self._head) < 12 or size_bytes <= 44:
            raise Implausible(f"The WAV file has no sound: {size_bytes} bytes.")
        riff_size: int = struct.unpack("<I", self._head[4:8])[0]
        tells_no_size = riff_size in _UNKNOWN_RIFF_SIZES or self._head[:4] == b"RF64"
        is_short = not tells_no_size and riff_size + 8 > size_bytes
        is_exact = (
            not tells_no_size and riff_size + 8 <= size_bytes <= riff_size + 9
        )  # a byte to pad
        if not is_length_announced and not is_exact:
            raise Implausible(
                f"The length of the WAV file cannot be proved: {size_bytes} bytes came."
            )
        return "wav_truncated" if is_short else "wav"


class JsonCheck:
    """One complete JSON value that is not an error message; parsed as it passes, never kept."""

    def __init__(self) -> None:
        self._events: list[tuple[str, object]] = ijson.sendable_list()
        self._parser = ijson.basic_parse_coro(self._events)
        self._depth = 0
        self._top_level: set[str] = set()
        self._kind = ""
        self._beginning: bytes | None = b""
        self._strings = _ShortStrings()

    def feed(self, chunk: bytes | memoryview) -> None:
        """Parse the next bytes."""
        chunk = bytes(chunk)
        if self._beginning is not None:
            self._beginning += chunk
            if len(self._beginning) < 3 and _BYTE_ORDER_MARK.startswith(self._beginning):
                return
            chunk = self._beginning.removeprefix(_BYTE_ORDER_MARK)
            self._beginning = None
        chunk = self._strings.shortened(chunk)
        if not chunk:  # which means the end to the parser
            return
        try:
            self._parser.send(chunk)
        except _NOT_JSON:
            raise Implausible("The body is not JSON.") from None
        self._look()

    def _look(self) -> None:
        for event, value in self._events:
            if not self._kind:
                self._kind = event
            if event in {"start_map", "start_array"}:
                self._depth += 1
            elif event in {"end_map", "end_array"}:
                self._depth -= 1
            elif (
                event == "map_key"
                and self._depth == 1
                and len(self._top_level) < _MAX_TOP_LEVEL_KEYS
            ):
                self._top_level.add(str(value))
            if self._depth > _MAX_JSON_DEPTH:
                raise Implausible(f"The JSON is nested more than {_MAX_JSON_DEPTH} levels deep.")
        self._events.clear()

    def finish(self, size_bytes: int, *, is_length_announced: bool) -> str:  # noqa: ARG002 - JSON proves itself
        """The format by content, not by name: vCon files may keep the legacy name (documented)."""
        try:
            self._parser.close()
        except _NOT_JSON:
            raise Implausible(f"The JSON is incomplete: {size_bytes} bytes.") from None
        self._look()
        if self._kind not in {"start_map", "start_array"}:
            raise Implausible("The body is not a JSON object.")
        names = {name.lower() for name in self._top_level}
        if names & _TELLS_AN_ERROR and names <= _ERROR_MEMBERS:
            raise Implausible("The body is an error message instead of a transcript.")
        if "vcon" in names:
            return "vcon"
        return "voice_transcript" if "responsecontents" in names else "json"


class _ShortStrings:
    """Shortens the strings of JSON text that passes: ijson keeps each whole, and a vCon may hold its sound in one.

    Escapes inside of strings are left out, and what is beyond a few KB; neither is looked at.
    """

    def __init__(self) -> None:
        self._is_inside = False
        self._is_escaped = False
        self._kept = 0
        self._is_cut = False

    def shortened(self, chunk: bytes) -> bytes:
        """The next text, with shorter strings."""
        kept: list[bytes] = []
        position = 0
        while position < len(chunk):
            if self._is_escaped:
                position, self._is_escaped = position + 1, False
            elif not self._is_inside:
                end = chunk.find(b'"', position) + 1 or len(chunk)
                kept.append(chunk[position:end])
                self._is_inside = chunk[end - 1 : end] == b'"'
                self._kept, self._is_cut = 0, False
                position = end
            else:
                end = _INSIDE_OF_A_STRING.match(chunk, position).end()  # pyright: ignore - it always matches
                kept.append(self._beginning_of(chunk[position:end]))
                position = end + 1
                self._is_escaped = chunk[end:position] == b"\\"
                if chunk[end:position] == b'"':
                    kept.append(b'"')
                    self._is_inside = False
        return b"".join(kept)

    def _beginning_of(self, piece: bytes) -> bytes:
        if self._kept < _MAX_STRING_BYTES:
            self._kept += len(piece)
            return _ESCAPE.sub(b"", piece)
        if self._is_cut:
            return b""
        rest = piece.lstrip(_CONTINUES_A_CHARACTER)  # what was kept may end in the middle of one
        self._is_cut = bool(rest)
        return piece[: len(piece) - len(rest)]


class OtherCheck:
    """Any other file: not empty, of proved length, and no error page in its place."""

    def __init__(self, name: str, *, is_media: bool) -> None:
        self._name = name
        self._is_media = is_media
        self._head = b""

    def feed(self, chunk: bytes | memoryview) -> None:
        """Keep the first bytes."""
        if len(self._head) < _HEAD_BYTES:
            self._head = (self._head + bytes(chunk[:_HEAD_BYTES]))[:_HEAD_BYTES]

    def finish(self, size_bytes: int, *, is_length_announced: bool) -> str:
        """Markup or JSON where media should be is an error body."""
        if size_bytes == 0:
            raise Implausible("The file is empty.")
        if self._head[:4] in {b"RIFF", b"RF64"} and self._head[8:12] == b"WAVE":
            wav = WavCheck()  # by content, whatever its name
            wav.feed(self._head)
            return wav.finish(size_bytes, is_length_announced=is_length_announced)
        begins_as_text = self._head.removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] in {b"<", b"{"}
        # No container of sound or pictures begins with 512 bytes of plain text; a gateway's excuse does.
        is_text = self._is_media and not self._head.translate(None, _PLAIN_TEXT)
        if begins_as_text or is_text:
            raise Implausible(
                "The body is text, markup or JSON, such as an error message, and no media file."
            )
        if not is_length_announced:
            raise Implausible(f"The length of the file cannot be proved: {size_bytes} bytes came.")
        return self._name
