"""Makes answers that are nearly those of the API: valid ones, of which something is changed at random."""

import json
import random
from collections.abc import Callable
from typing import Any

PHONE, EMAIL = "+1 555 010 9999", "canary.person@example.com"
SECRET = "c4n4ry5ecret5ignature"
CANARIES = (PHONE, EMAIL, SECRET, PHONE.replace(" ", ""))


class Raw(str):
    """JSON that `json.dumps` does not write: numbers without end, names of no number, depth."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """The members of an object, of which several may have one name."""

    __slots__ = ()


HOSTILE: list[Any] = [
    # texts
    "", " ", "\0", "a\0b", "\ud800", "x\udc00\ud83d", "\U0001f600", "\u202eevil\u2066", "e\u0301", "\u00e9",
    "line\r\nbreak", "\x1b[31m", "true", "FALSE", "null", "NaN", "-1", "1e400", "9" * 400, "x" * 3000, "\\ud800",
    "../../etc/passwd", "a,b,,c", '{"a": [', "\\", '"', "unidentified-", "~1", PHONE, EMAIL,
    f"https://h.example/p?X-Amz-Signature={SECRET}", f"Bearer {SECRET}",
    # numbers
    0, -1, 1, 1.5, -0.0, 2**63, 2**64, -(2**63), 10**400, 253_402_300_800_000, 253_402_300_799_999, 1_789_380_000,
    Raw("1e400"), Raw("-1e400"), Raw("1e-400"), Raw("9" * 5000), Raw("NaN"), Raw("Infinity"), Raw("-Infinity"),
    Raw("1E3"), Raw("0.1000000000000000000000000000001"),
    # the rest
    True, False, None, None, [], {}, [None], [[]], [{}], [[[["a"]]]], {"id": {"id": "a"}}, {"": ""}, ["true", 1, None],
    Raw("[" * 70 + "1" + "]" * 70), Raw('{"a":' * 66 + "[]" + "}" * 66), Raw("[" * 300 + "]" * 300),
    Raw('"\\ud83d"'), Raw('"\\uD800\\uDBFF"'), Raw('"\\\\ud800"'), Raw('"\\ud83d\\ude00"'),
    Raw('{"a":1,"a":null,"A":2}'),
]  # fmt: skip
NAMES = [
    "id", "ID", "Id", "taskId", "attributes", "createdTime", "status", "archive", "value", "new", "", "\0", "\ud800",
    "id~1", "filePath", "FILEPATH", "createTime", "recording", "\u0130d", PHONE, EMAIL, SECRET,
]  # fmt: skip
CASES: list[Callable[[str], str]] = [str.upper, str.lower, str.swapcase, str.title]


def written(value: Any) -> str:
    """The JSON of a value; several members of one name and `Raw` are written as they are."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs | dict):
        members = value.items() if isinstance(value, dict) else value
        inside = ",".join(f"{json.dumps(name)}:{written(each)}" for name, each in members)
        return "{" + inside + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(each) for each in value) + "]"
    return json.dumps(value)


def mutated(members: dict[str, Any], chance: random.Random) -> Pairs:
    """The object with some of its members changed, but for ``mark``."""
    pairs = Pairs(members.items())
    for _ in range(chance.choice((0, 1, 1, 2, 4, 8))):
        place = chance.randrange(len(pairs)) if pairs else -1
        name, value = pairs[place] if pairs else ("", None)
        if name == "mark":
            continue
        match chance.randrange(9):
            case 0 | 1 | 2 if pairs:
                pairs[place] = (name, chance.choice(HOSTILE))
            case 3 if pairs:
                pairs[place] = (chance.choice(CASES)(name), value)
            case 4 if pairs:
                del pairs[place]
            case 5 if pairs:
                pairs.insert(chance.randrange(len(pairs)), (name, chance.choice(HOSTILE)))
            case 6 if pairs:
                pairs[place] = (name, chance.choice(([value], {"value": value}, [None, value])))
            case 7 if isinstance(value, dict):
                pairs[place] = (name, mutated(value, chance))
            case _:
                pairs.append((chance.choice(NAMES), chance.choice(HOSTILE)))
    return pairs


def with_noise(items: list[Any], chance: random.Random) -> list[Any]:
    """The list with something in it that is no item, with an item twice, or in another order."""
    items = list(items)
    match chance.randrange(8):
        case 0:
            items.insert(chance.randrange(len(items) + 1), chance.choice(HOSTILE))
        case 1:
            items.append(chance.choice(items or [None]))
        case 2:
            chance.shuffle(items)
        case _:
            pass
    return items


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The bytes cut short, with one changed, or with some that are no UTF-8."""
    place = chance.randrange(len(content) + 1)
    match chance.randrange(4):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]
        case 2:
            return content[:place] + b"\xed\xa0\x80\xff" + content[place:]
        case _:
            return (
                content[:place] + chance.choice((b"[", b"{", b'"', b"\\", b"\0")) + content[place:]
            )
