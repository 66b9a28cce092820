"""The bytes of captures: made on the fly, streamed, never held as a whole."""

import json
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Any, Literal

Form = Literal["wav", "mp4", "legacy", "vcon", "digital", "digital-versioned"]

CHUNK_BYTES = 256 * 1_024

# Prime lengths: the pattern never lines up with a reader's chunk size, so that a chunk
# lost, doubled or swapped changes the hash.
_NOISE_BYTES = 1_048_573
_TEXT_BYTES = 262_139

_SPEECH = (
    "thank you for calling how can I help my order has not arrived let me look please hold the "
    "line account invoice delivery address tomorrow number confirm refund credit sorry of course "
    "one moment is there anything else good bye"
)


@dataclass(frozen=True, slots=True)
class Filler:
    """A block of ``period`` bytes, repeated once more as far as one chunk reaches."""

    block: memoryview
    period: int


@dataclass(frozen=True, slots=True)
class Body:
    """A head, a stretch of filler and a tail; its size is known before any byte is made."""

    head: bytes
    filler: Filler
    filler_start: int
    filler_bytes: int
    tail: bytes
    entity_tag: str

    @property
    def size_bytes(self) -> int:
        """How many bytes ``chunks`` yields."""
        return len(self.head) + self.filler_bytes + len(self.tail)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes | memoryview]:
        """The bytes from ``start`` up to ``stop``, in pieces of at most ``CHUNK_BYTES``."""
        stop = self.size_bytes if stop is None else min(stop, self.size_bytes)
        filler_from, filler_until = len(self.head), len(self.head) + self.filler_bytes
        while start < stop:
            if start < filler_from:
                piece = self.head[start : min(stop, filler_from)]
            elif start < filler_until:
                at = (self.filler_start + start - filler_from) % self.filler.period
                piece = self.filler.block[
                    at : at + min(CHUNK_BYTES, min(stop, filler_until) - start)
                ]
            else:
                piece = self.tail[start - filler_until : stop - filler_until]
            yield piece
            start += len(piece)

    def sha256(self) -> str:
        """The SHA-256 of all bytes, in hexadecimal."""
        digest = sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()


class BodyMaker:
    """Makes the body of a capture from its form, its identity and a wished size.

    The same three give the same bytes; another identity gives other bytes. Recordings are
    well-formed RIFF/WAVE (inferred: the codec is not documented), screen recordings begin
    as MP4 does, transcripts are one JSON object in the shape reported for their form.
    """

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - filler, not a secret
        noise = chance.randbytes(_NOISE_BYTES)
        # One chosen word takes five bytes on average: this is more than enough.
        text = " ".join(chance.choices(_SPEECH.split(), k=_TEXT_BYTES // 3)).encode()[:_TEXT_BYTES]
        self._noise = Filler(memoryview(noise + noise[:CHUNK_BYTES]), _NOISE_BYTES)
        self._text = Filler(memoryview((text * 2)[: _TEXT_BYTES + CHUNK_BYTES]), _TEXT_BYTES)

    def make(self, form: Form, identity: str, size_bytes: int) -> Body:
        """A body of at most ``size_bytes`` (a recording's may be up to 3 bytes less)."""
        mark = blake2b(identity.encode(), digest_size=16)
        start = int.from_bytes(mark.digest(), "big")
        if form == "wav":
            # The identity travels inside, so two recordings never have the same bytes.
            length = (size_bytes - 44 - 8 - 12 - 32) // 4 * 4
            head = _wave_head(mark.hexdigest().encode(), length)
            return Body(head, self._noise, start % _NOISE_BYTES, length, b"", mark.hexdigest())
        if form == "mp4":
            length = size_bytes - 24 - 8 - 32 - 16
            head = _mp4_head(mark.hexdigest().encode(), length)
            return Body(head, self._noise, start % _NOISE_BYTES, length, b"", mark.hexdigest())
        head, tail = _transcript_ends(form, mark.hexdigest())
        length = max(0, size_bytes - len(head) - len(tail))
        return Body(head, self._text, start % _TEXT_BYTES, length, tail, mark.hexdigest())


def _wave_head(mark: bytes, data_bytes: int) -> bytes:
    sound = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, 8_000, 32_000, 4, 16)
    note = b"LIST" + struct.pack("<I", 4 + 8 + len(mark)) + b"INFOICMT"
    note += struct.pack("<I", len(mark)) + mark
    data = b"data" + struct.pack("<I", data_bytes)
    rest = b"WAVE" + sound + note + data
    return b"RIFF" + struct.pack("<I", len(rest) + data_bytes) + rest


def _mp4_head(mark: bytes, data_bytes: int) -> bytes:
    kind = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"isom", 512, b"isom", b"mp42")
    note = struct.pack(">I4s", 8 + len(mark), b"free") + mark
    return kind + note + struct.pack(">I4sQ", 1, b"mdat", 16 + data_bytes)


def _transcript_ends(form: Form, mark: str) -> tuple[bytes, bytes]:
    """What comes before and after the running text of a transcript."""
    hole = "\x01"
    wanted: dict[str, Any]
    if form == "legacy":
        wanted = {
            "interactionId": mark,
            "languageCode": "en-US",
            "responseContents": [
                {
                    "recognitionResult": {
                        "role": "CALLER",
                        "language_code": "en-US",
                        "alternatives": [{"transcript": hole, "confidence": 0.93, "words": []}],
                    }
                }
            ],
        }
    elif form == "vcon":
        wanted = {
            "vcon": "0.4.0",
            "uuid": mark,
            "parties": [{"name": "Customer", "role": "customer"}, {"name": "A", "role": "agent"}],
            "dialog": [{"type": "text", "parties": [1], "originator": 1, "body": hole}],
        }
    else:
        # Unknown: no public text tells the members of digital transcripts. These are ours.
        wanted = {
            "conversationId": mark,
            "messages": [{"id": "m1", "from": {"role": "CUSTOMER"}, "text": hole}],
        }
        if form == "digital-versioned":
            wanted = {"schemaVersion": "2.0.0"} | wanted
    head, tail = json.dumps(wanted).split(json.dumps(hole)[1:-1])
    return head.encode(), tail.encode()
