"""Bytes to upload, as a test has them: in pieces, endless, or breaking off."""

from collections.abc import Iterable


class Pieces:
    """A source (include.storage.object_store.Source) of an iterable of bytes; its errors pass through."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readinto(self, view: memoryview, /) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def read_all(source) -> bytes:
    """Everything that a source gives."""
    scratch = memoryview(bytearray(1 << 16))
    found = bytearray()
    while count := source.readinto(scratch):
        found += scratch[:count]
    return bytes(found)
