"""The captures that are copied: sound files of one size, each of its own content."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from uuid import UUID

_HEAD_BYTES = 64
_ORG_ID = UUID("97cdbf45-ebe2-4687-8341-44d5c7abf101")
# What a signed download URL ends with: its length is a part of what a request costs.
_SIGNATURE = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260914T100000Z&X-Amz-SignedHeaders=host&X-Amz-Expires=3600"
    "&X-Amz-Credential=EXAMPLE%2F20260914%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Signature="
    + "0"
    * 64
)


@dataclass(frozen=True)
class CaptureSet:
    """So many captures of one size; one for each contact task, which is the dearest case for the archive."""

    name: str
    count: int
    size_bytes: int

    @property
    def total_bytes(self) -> int:
        """What a peer has to deliver."""
        return self.count * self.size_bytes

    @property
    def gigabytes(self) -> float:
        """The same in units of 1,000,000,000."""
        return self.total_bytes / 1e9

    def file(self, directory: Path, number: int) -> Path:
        """Where a capture lies."""
        return directory / self.name / f"{number:07d}.wav"

    def url(self, media_url: str, number: int) -> str:
        """Under which URL it is offered."""
        return f"{media_url}/media/{self.name}/{number:07d}.wav?{_SIGNATURE}"

    def write(self, directory: Path) -> None:
        """Write the files: a right WAV header, the capture's number, and the same noise for all."""
        (directory / self.name).mkdir(parents=True, exist_ok=True)
        noise = os.urandom(min(self.size_bytes, 8 << 20))
        for number in range(self.count):
            with self.file(directory, number).open("wb") as file:
                file.write(_head(self.size_bytes, number))
                left = self.size_bytes - _HEAD_BYTES
                while left:
                    left -= file.write(memoryview(noise)[:left])

    def remove(self, directory: Path) -> None:
        """Free what the files take."""
        for number in range(self.count):
            self.file(directory, number).unlink(missing_ok=True)

    def faults(self, directory: Path, arrived: dict[int, list[tuple[int, int]]]) -> list[str]:
        """What is missing or other than it should be.

        Args:
            directory: Where the files are.
            arrived: The size and CRC-32 of each piece in which a capture arrived, in their order.
        """
        found: list[str] = []
        for number in range(self.count):
            position, is_whole = 0, True
            for size_bytes, crc32 in arrived.get(number, []):
                file = self.file(directory, number)
                is_whole &= crc32 == _crc32(file, position, size_bytes)
                position += size_bytes
            if position != self.size_bytes or not is_whole:
                found.append(f"capture {number} of set {self.name}: {position} bytes arrived")
        return found


@lru_cache(maxsize=100_000)
def _crc32(file: Path, start: int, size_bytes: int) -> int:
    found = 0
    with file.open("rb") as opened:
        opened.seek(start)
        while size_bytes > 0 and (piece := opened.read(min(size_bytes, 1 << 20))):
            found = zlib.crc32(piece, found)
            size_bytes -= len(piece)
    return found


def _head(size_bytes: int, number: int) -> bytes:
    """RIFF and WAVE with the right sizes: 8 kHz, one channel, 16 bits; the sound begins with the number."""
    sound = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", size_bytes - 8, b"WAVE") + sound
    head += struct.pack("<4sI", b"data", size_bytes - 44)
    return head + f"{number:020d}".encode()


def org_id() -> str:
    """The organisation whose captures these are."""
    return str(_ORG_ID)


def contact_task_id(number: int) -> str:
    """The id of the contact task that has a capture."""
    return str(UUID(int=_ORG_ID.int + 1 + number))


def number_of(contact_task_id_text: str) -> int:
    """Which capture a contact task has."""
    return UUID(contact_task_id_text).int - _ORG_ID.int - 1
