"""Contact task ids: UUIDs that only the sandbox can take apart again."""

import re
from hashlib import blake2b

_HALF_BITS = 61
_HALF_MASK = (1 << _HALF_BITS) - 1
_CHECK_BITS = 72
_INDEX_BITS = 26
_ROUNDS = 4

_UUID_FORM = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
)


def has_uuid_form(text: str) -> bool:
    """Whether the text is written as a UUID; upper and lower case both count."""
    return _UUID_FORM.fullmatch(text) is not None


class ContactTaskIds:
    """A keyed, reversible mapping between (hour, index) and UUIDs of version 4.

    ``decode(encode(hour, index))`` is always ``(hour, index)``. Any other UUID decodes to
    None but for one in 2**72. Both take the same short time for every id, so that nothing
    has to be stored to find a contact task again.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode(self, hour: int, index: int) -> str:
        """The id of the ``index``-th contact task of an hour since the epoch."""
        number = (hour << _INDEX_BITS | index) << _CHECK_BITS
        left, right = number >> _HALF_BITS, number & _HALF_MASK
        for turn in range(_ROUNDS):
            left, right = right, left ^ self._mix(turn, right)
        number = left << _HALF_BITS | right
        first, middle, last = number >> 74, number >> 62 & 0xFFF, number & (1 << 62) - 1
        text = f"{first:012x}4{middle:03x}{1 << 63 | last:016x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def decode(self, contact_task_id: str) -> tuple[int, int] | None:
        """The (hour, index) behind an id, or None where the id was not made here."""
        if not has_uuid_form(contact_task_id):
            return None
        bits = int(contact_task_id.replace("-", ""), 16)
        if bits >> 76 & 0xF != 4 or bits >> 62 & 3 != 2:
            return None
        number = bits >> 80 << 74 | (bits >> 64 & 0xFFF) << 62 | bits & (1 << 62) - 1
        left, right = number >> _HALF_BITS, number & _HALF_MASK
        for turn in reversed(range(_ROUNDS)):
            left, right = right ^ self._mix(turn, left), left
        number = left << _HALF_BITS | right
        if number & (1 << _CHECK_BITS) - 1:
            return None
        place = number >> _CHECK_BITS
        return place >> _INDEX_BITS, place & (1 << _INDEX_BITS) - 1

    def _mix(self, turn: int, half: int) -> int:
        digest = blake2b(half.to_bytes(8, "big"), key=self._key, digest_size=8, salt=bytes([turn]))
        return int.from_bytes(digest.digest(), "big") >> 3
