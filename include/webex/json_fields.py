"""Reads the members of JSON objects, whatever their case, order and type, and loses none of them."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar, cast

from include.domain.contact_centre import UNIDENTIFIED, JsonObject
from include.domain.interval import Interval, from_epoch_ms
from include.domain.redaction import without_signed_urls

# Seconds, an unset 0 and -1 look like 1970; nothing of a contact centre is older, or yet to come for long.
THIS_CENTURY = Interval(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
_EMPTY: tuple[object, ...] = (None, "", [], {})
Value = TypeVar("Value")


class Fields:
    """The members of one JSON object, or of several that tell of the same thing, the first before the others.

    Names are compared without case, and the spelling that is asked for comes first: the specification writes
    ``Source`` where real answers have ``source``. What cannot be read as what it should be is not taken,
    so that it is among the `rest`; null and what is empty tell nothing.
    """

    def __init__(self, *objects: JsonObject) -> None:
        self._objects = [dict(each) for each in objects]
        # By the name without what tells repeated members apart (see `parse_json`).
        self._spellings: dict[str, list[tuple[JsonObject, str]]] = {}
        for members in self._objects:
            for spelling in members:
                name = spelling.lower().partition("~")[0]
                self._spellings.setdefault(name, []).append((members, spelling))
        self._nested: list[tuple[JsonObject, str, list[object], Fields]] = []

    def __bool__(self) -> bool:
        """Whether there is any member left."""
        return any(self._objects)

    def as_told(self, name: str, default: object = None) -> object:
        """A member as it is, whatever that is; the default where there is none."""
        return next((members[spelling] for members, spelling in self._members(name)), default)

    def take_id(self, name: str) -> str | None:
        """An id, which stands beside what it names: that of the last object before those of the others."""
        own_first = sorted(self._members(name), key=lambda found: found[0] is not self._objects[-1])
        return self._take(own_first, text)

    def take(self, name: str, read: Callable[[object], Value | None]) -> Value | None:
        """The first member of the name that can be read; None where there is none."""
        return self._take(self._members(name), read)

    def _take(
        self, found: Iterable[tuple[JsonObject, str]], read: Callable[[object], Value | None]
    ) -> Value | None:
        for members, spelling in found:
            value = members[spelling]
            is_told = value not in _EMPTY
            taken = read(value) if is_told else None
            if taken is not None or not is_told:
                del members[spelling]
            if taken is not None:
                return taken
        return None

    def nested(self, name: str) -> "Fields":
        """The fields of a member that is an object; of a list of objects (seen in the documents), of the last."""
        for members, spelling in self._members(name):
            value = members[spelling]
            earlier: list[object] = []
            if isinstance(value, list) and value:
                *earlier, value = cast("list[object]", value)
            if isinstance(value, dict) and value:
                fields = Fields(cast("JsonObject", value))
                self._nested.append((members, spelling, earlier, fields))
                del members[spelling]
                return fields
        return Fields()

    def take_all(self, name: str) -> list[object]:
        """Every member of a name, in whatever spelling and as often as it is there (see `parse_json`)."""
        return [
            members.pop(spelling)
            for members, spelling in self._spellings.get(name.lower(), ())
            if spelling in members
        ]

    def rest(self) -> JsonObject:
        """What nobody took, but for nulls.

        Where the first object and another have a member of one name, the other's is under ``name~other``.
        """
        for members, spelling, earlier, fields in self._nested:
            left = fields.rest()
            if earlier or left:
                members[spelling] = [*earlier, *filter(None, [left])] if earlier else left
        self._nested = []
        found: JsonObject = {}
        for members in self._objects:
            for name, value in members.items():
                if value is not None:
                    free = name
                    while free in found:
                        free += "~other"
                    found[free] = value
        return found

    def _members(self, name: str) -> Sequence[tuple[JsonObject, str]]:
        """Where a member of the name is, in the spelling that is asked for before others."""
        found = [
            each
            for each in self._spellings.get(name.lower(), ())
            if each[1] in each[0] and "~" not in each[1]
        ]
        return found if len(found) < 2 else sorted(found, key=lambda each: each[1] != name)


def fields_of(element: object, *inner: str) -> Fields:
    """The fields of an element of an answer, with those of the inner objects of these names before its own.

    An element that is no object has the one member ``value``.
    """
    if not isinstance(element, dict):
        return Fields({"value": element})
    own = dict(cast("JsonObject", element))
    objects: list[JsonObject] = []
    for name in inner:
        for spelling in [each for each in own if each.lower() == name]:
            if isinstance(own[spelling], dict):
                objects.append(cast("JsonObject", own.pop(spelling)))
    return Fields(*objects, own)


def elements(value: object) -> list[object]:
    """The elements of a list, without its nulls; what is no list is one element, but for what tells none."""
    if isinstance(value, list):
        return [each for each in cast("list[object]", value) if each is not None]
    return [] if value is False or value in _EMPTY else [value]


def unidentified(element: object) -> str:
    """A stable id for an element that came without one."""
    content = json.dumps(without_signed_urls(element), sort_keys=True, default=str)
    return f"{UNIDENTIFIED}{hashlib.sha256(content.encode()).hexdigest()[:32]}"


def text(value: object) -> str | None:
    """A text field; numbers become text, anything else counts as missing. Never an empty text."""
    if isinstance(value, str) and value.isascii():
        return value or None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    # A lone surrogate cannot be written to Parquet, which is UTF-8.
    return str(value).encode("utf-8", "backslashreplace").decode() or None


def boolean(value: object) -> bool | None:
    """A three-valued field: null and everything unknown are None, never false."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def instant(value: object) -> datetime | None:
    """An epoch in milliseconds, sent as a number or as text (both documented)."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return from_epoch_ms(int(value))
    except (ValueError, OverflowError):
        return None


def instant_of(value: object, interval: Interval) -> datetime | None:
    """An instant of an interval; one that lies elsewhere says that something else is meant, or wrong."""
    found = instant(value)
    return found if found is not None and found in interval else None
