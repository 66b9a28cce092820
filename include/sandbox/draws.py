"""Pseudo-random draws that depend on nothing but a key and a name."""

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")

_SIXTEEN_WORDS = struct.Struct(">16I")
_ONE = 1 << 32


class Draws:
    """Sixteen independent draws for one name, addressed by position.

    A draw is asked for by its position and never by its turn, so that turning one knob of
    a scenario leaves every other draw as it was.
    """

    __slots__ = ("_words",)

    def __init__(self, key: bytes, name: bytes) -> None:
        digest = blake2b(name, key=key, digest_size=64).digest()
        self._words: tuple[int, ...] = _SIXTEEN_WORDS.unpack(digest)

    def chance(self, position: int, share: float) -> bool:
        """Whether this draw falls within ``share``: never for 0, always for 1."""
        return self._words[position] < share * _ONE

    def between(self, position: int, low: int, high: int) -> int:
        """A whole number of ``low`` to ``high``, both included."""
        return low + (self._words[position] * (high - low + 1) >> 32)

    def pick(self, position: int, options: Sequence[T]) -> T:
        """One of the options, each as likely as the others."""
        return options[self.between(position, 0, len(options) - 1)]


def draw_uuid(key: bytes, name: bytes) -> str:
    """A UUID of version 4 in form, the same for the same key and name."""
    text = blake2b(name, key=key, digest_size=16).hexdigest()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"
