"""Answers as no server should send them: each item is stored or named, and none of them hides another."""

import json
import os
import random
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from pydantic import SecretStr

from include.domain.capture_state import CapturePolicy
from include.domain.contact_centre import ContactTask, is_identified
from include.domain.errors import ArchiveError
from include.domain.interval import HOUR, Interval
from include.domain.merged_rows import newer_capture, newer_contact_task
from include.domain.new_rows import (
    checked_contact_task_row,
    new_capture_row,
    new_contact_task_row,
    unasked_contact_task_row,
)
from include.domain.object_keys import KeyLayout
from include.domain.redaction import shown_id
from include.domain.rows import CaptureRow, ContactTaskRow
from include.storage.tables import from_parquet, to_parquet
from include.webex.captures import CaptureOptions, CapturesQuery, distinction
from include.webex.contact_task_search import (
    iter_searched_contact_tasks,
    parse_searched_contact_task,
)
from include.webex.contact_tasks import iter_contact_tasks, parse_contact_task
from include.webex.http_client import WebexClient, list_answer, query_answer
from include.webex.json_answers import parse_json_object
from include.webex.tokens import TokenPair, read_token_answer
from tests.builders import NOW, NOW_MS, ORG_ID, a_connection
from tests.webex.hostile_json import CANARIES, HOSTILE, Pairs, damaged, mutated, with_noise, written

# `FUZZ_PAYLOADS=100000 pytest tests/webex/test_hostile_answers.py` for the whole; CI runs a slice.
PAYLOADS = int(os.environ.get("FUZZ_PAYLOADS", "7000"))
FIRST_PAYLOAD = int(os.environ.get("FUZZ_FIRST_PAYLOAD", "0"))
PAYLOADS_OF_ONE_TABLE = 100
START_MS = NOW_MS - 3_600_000
HOUR_BEFORE = Interval(NOW - HOUR, NOW)
POLICY = CapturePolicy()
KEYS = KeyLayout(ORG_ID)


@dataclass
class HostileWebex:
    """Answers the contact task list, the search and captures queries with the bodies that it is given."""

    body: bytes = b""
    entries: dict[str, Any] = field(default_factory=dict[str, Any])
    noise: list[Any] = field(default_factory=list[Any])
    requests: int = 0

    def __post_init__(self) -> None:
        self.connection = a_connection()

    def get(self, path: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return list_answer(self._counted(self.body), path)

    def post_query(self, path: str, query: str, parameters: dict[str, Any]) -> dict[str, Any]:
        last = b'{"data":{"taskDetails":{"tasks":[],"pageInfo":{"hasNextPage":false}}}}'
        return query_answer(self._counted(last if "cursor:" in query else self.body), path)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        asked = [self.entries[each] for each in body["query"]["taskIds"]]
        answer = written({"data": [*asked, *self.noise]}).encode("utf-8", "surrogatepass")
        return list_answer(self._counted(answer), path)

    def _counted(self, body: bytes) -> bytes:
        self.requests += 1
        assert self.requests < 500, "asks again and again"
        return body


def as_client(webex: HostileWebex) -> WebexClient:
    return cast("WebexClient", webex)


def a_listed_item(number: int, chance: random.Random) -> dict[str, Any]:
    created_ms = START_MS + chance.randrange(3_600_000)
    return {
        "id": f"t-{number}",
        "mark": number,
        "attributes": {
            "owner": {"id": "o1", "name": "Ada"},
            "queue": {"id": "q1", "name": "Q_Main"},
            "channelType": "telephony",
            "status": "completed",
            "createdTime": created_ms,
            "lastUpdatedTime": str(created_ms + 5),
            "captureRequested": True,
            "origin": "+12125550142",
            "direction": "inbound",
        },
    }


def a_searched_item(number: int, chance: random.Random) -> dict[str, Any]:
    return {
        "id": f"t-{number}",
        "mark": number,
        "createdTime": START_MS + chance.randrange(3_600_000),
        "status": "ended",
        "captureRequested": True,
        "lastQueue": {"id": "q1", "name": "Q_Main"},
        "lastAgent": {"id": "o1", "name": "Ada"},
        "recordingCount": 1,
    }


def an_offered_element(number: int, chance: random.Random) -> dict[str, Any]:
    members = {
        "fileName": "combinedRecordings.wav",
        "filePath": f"https://s3.example.com/{number}.wav?X-Amz-Signature={CANARIES[2]}",
        "startTime": START_MS,
        "stopTime": START_MS + 1000,
        "participants": ["e890a591", "+121****0142"],
        "callType": "main",
    }
    element: dict[str, Any] = {"id": chance.choice((f"c-{number}", "cfg")), "mark": number}
    return {**element, **members} if chance.random() < 0.4 else {**element, "attributes": members}


def an_entry(task_id: str, first: int, chance: random.Random) -> dict[str, Any]:
    entry: dict[str, Any] = {"taskId": task_id}
    for place, name in enumerate(("recording", "transcription", "screenRecordings")):
        numbers = range(first + 10 * place, first + 10 * place + chance.choice((0, 1, 1, 2)))
        found = [mutated(an_offered_element(number, chance), chance) for number in numbers]
        entry[name] = with_noise(found, chance)
    return entry


@dataclass
class Tables:
    """Collects rows; each of them must come back from its table as it went in, byte by byte."""

    contact_tasks: list[ContactTaskRow] = field(default_factory=list[ContactTaskRow])
    captures: list[CaptureRow] = field(default_factory=list[CaptureRow])

    def check(self) -> None:
        for rows, row_type in ((self.contact_tasks, ContactTaskRow), (self.captures, CaptureRow)):
            body = to_parquet(rows, row_type)
            read = from_parquet(body, row_type)
            assert read == sorted(rows, key=lambda row: row.identity)
            assert to_parquet(read, row_type) == body
            for row in read:
                assert_readable(row.extra_json)
        self.contact_tasks, self.captures = [], []


def no_number(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def assert_readable(extra_json: str | None) -> None:
    """Any reader of JSON must be able to read it: no NaN, no half of a surrogate pair."""
    if extra_json is not None:
        text = json.dumps(json.loads(extra_json, parse_constant=no_number), ensure_ascii=False)
        text.encode("utf-8")


def rows_of(contact_tasks: Sequence[ContactTask], tables: Tables) -> list[ContactTaskRow]:
    """The rows of what a listing showed, in each state that a run may leave them in."""
    rows = [new_contact_task_row(each, ORG_ID, NOW, POLICY) for each in contact_tasks]
    for row in rows:
        unasked = unasked_contact_task_row(row, POLICY)
        assert newer_contact_task(unasked, row).identity == row.identity
        assert row.capture_state != "failed" or not is_identified(row.task_id)
        assert KEYS.captures_of_contact_task(row.created_time, row.task_id).isascii()
        tables.contact_tasks.append(unasked)
    return rows


def ids_left(items: Sequence[object]) -> set[str]:
    """The ids of the items whose id nothing was done to."""
    ids: set[str] = set()
    for item in items:
        members = item if isinstance(item, Pairs) else []
        told = [value for name, value in members if name.lower() == "id"]
        if len(told) == 1 and isinstance(told[0], str) and told[0].startswith("t-"):
            ids.add(told[0])
    return ids


def try_a_list(chance: random.Random, tables: Tables) -> None:
    made = [mutated(a_listed_item(number, chance), chance) for number in range(chance.randrange(5))]
    items = with_noise(made, chance)
    answer = {"meta": mutated({"at": 1}, chance), "data": items}
    body = written(answer).encode("utf-8", "surrogatepass")

    found = list(iter_contact_tasks(as_client(HostileWebex(body)), HOUR_BEFORE, NOW))

    rows_of(found, tables)
    ids = Counter(each.task_id for each in found)
    assert not any(canary in shown_id(each) for each in ids for canary in CANARIES)
    told = cast("list[object]", json_of(body)["data"])
    assert ids == dict.fromkeys({parse_contact_task(item, NOW).task_id for item in told}, 1)
    assert ids_left(items) <= set(ids)


def try_a_search(chance: random.Random, tables: Tables) -> None:
    made = [
        mutated(a_searched_item(number, chance), chance) for number in range(chance.randrange(5))
    ]
    items = with_noise(made, chance)
    page_info = {"hasNextPage": False, "endCursor": None}
    page = {
        "tasks": items,
        "pageInfo": mutated(page_info, chance) if chance.random() < 0.1 else page_info,
    }
    body = written({"data": {"taskDetails": page}}).encode("utf-8", "surrogatepass")

    found = list(iter_searched_contact_tasks(as_client(HostileWebex(body)), HOUR_BEFORE, NOW))

    rows_of(found, tables)
    ids = Counter(each.task_id for each in found)
    assert not any(canary in shown_id(each) for each in ids for canary in CANARIES)
    told = json_of(body)["data"]["taskDetails"]["tasks"]
    assert ids == dict.fromkeys(
        {parse_searched_contact_task(item, NOW).task_id for item in told}, 1
    )
    assert ids_left(items) <= set(ids)


def json_of(body: bytes) -> dict[str, Any]:
    answer = parse_json_object(body)
    assert answer is not None
    return cast("dict[str, Any]", answer)


def marks_in(entry: Pairs) -> set[int]:
    """The marks of all captures of an entry that are objects."""
    marks: set[int] = set()
    for name, value in entry:
        if name.lower() in {"recording", "transcription", "screenrecordings"}:
            is_list = isinstance(value, list) and not isinstance(value, Pairs)
            for element in cast("list[object]", value) if is_list else [value]:
                if isinstance(element, Pairs | dict):
                    marks |= {each for name, each in Pairs(dict(element).items()) if name == "mark"}
    return marks


def try_captures(chance: random.Random, tables: Tables) -> None:
    ids = [f"T-{number}" for number in range(chance.choice((1, 2, 3)))]
    entries = {
        each: mutated(an_entry(each, 100 * place, chance), chance) for place, each in enumerate(ids)
    }
    noise = [chance.choice(HOSTILE)] if chance.random() < 0.05 else []
    query = CapturesQuery(as_client(HostileWebex(entries=entries, noise=noise)), CaptureOptions())

    found = query(ids)

    assert list(found) == ids
    for task_id, captures in found.items():
        assert captures is not None
        contact_task = new_contact_task_row(
            ContactTask(task_id=task_id, created_time=NOW - HOUR), ORG_ID, NOW, POLICY
        )
        rows = [new_capture_row(contact_task, each) for each in captures]
        tables.captures += rows
        tables.contact_tasks.append(checked_contact_task_row(contact_task, rows, NOW, POLICY))
        assert len({row.identity for row in rows}) == len(rows)
        for capture, row in zip(captures, rows, strict=True):
            assert distinction(capture) == distinction(row)
            assert newer_capture(row, row).identity == row.identity
            key = KEYS.capture(NOW, row.task_id, row.kind, row.capture_id, row.file_name)
            assert len(key) <= 1024
        told = [value for name, value in entries[task_id] if name.lower() == "taskid"]
        if told in ([task_id], []):
            marks = {mark for each in captures if isinstance(mark := each.extra.get("mark"), int)}
            assert marks_in(entries[task_id]) <= marks


def try_a_token_answer(chance: random.Random, tables: Tables) -> None:
    members = {
        "access_token": "an-access-token",
        "expires_in": 1_209_599,
        "refresh_token": "a-refresh-token",
        "refresh_token_expires_in": 7_775_999,
    }
    body = written(mutated(members, chance)).encode("utf-8", "surrogatepass")
    status = chance.choice((200, 200, 200, 400, 401, 429, 500, 418))

    pair = read_token_answer(status, body, a_connection(), SecretStr("spent"), NOW)

    assert TokenPair.from_json(pair.to_json()) == pair
    assert all(
        each.get_secret_value().isascii() for each in (pair.access_token, pair.refresh_token)
    )


def try_a_damaged_answer(chance: random.Random, tables: Tables) -> None:
    """Not even JSON any more, or another: only then nothing can be said about what must be found."""
    items = [mutated(a_listed_item(number, chance), chance) for number in range(3)]
    body = damaged(written({"data": items}).encode("utf-8", "surrogatepass"), chance)

    found = list(iter_contact_tasks(as_client(HostileWebex(body)), HOUR_BEFORE, NOW))

    rows_of(found, tables)


TRIES = {
    "a list": (try_a_list, 0.35),
    "a search": (try_a_search, 0.2),
    "captures": (try_captures, 0.2),
    "a token answer": (try_a_token_answer, 0.1),
    "a damaged list": (try_a_damaged_answer, 0.15),
}
# The others may be: a search whose pages cannot be walked, what is no token answer, what is no JSON.
NEVER_REFUSED = {"a list", "captures"}


@pytest.mark.timeout(120 + PAYLOADS / 50)
@pytest.mark.parametrize("kind", TRIES)
def test_no_answer_breaks_anything(kind: str, caplog: pytest.LogCaptureFixture):
    """Each payload has its own number, which a failure names: `FUZZ_FIRST_PAYLOAD` begins with it."""
    try_one, share = TRIES[kind]
    tables = Tables()
    refusals: Counter[str] = Counter()
    caplog.set_level("DEBUG")
    for number in range(FIRST_PAYLOAD, FIRST_PAYLOAD + int(PAYLOADS * share)):
        chance = random.Random(f"{kind} {number}")
        try:
            try_one(chance, tables)
        except ArchiveError as error:
            refusals[type(error).__name__] += 1
            said = "".join(traceback.format_exception_only(error)) + repr(error)
            assert not any(canary in said for canary in CANARIES), f"{kind} {number}"
            if kind in NEVER_REFUSED:
                raise AssertionError(f"{kind} {number}") from error
        except Exception as error:
            raise AssertionError(f"{kind} {number}") from error
        if number % PAYLOADS_OF_ONE_TABLE == 0:
            check_tables(tables, caplog, f"{kind} {number}")
    check_tables(tables, caplog, kind)
    print(f"{kind}: refused {dict(refusals)}")


def check_tables(tables: Tables, caplog: pytest.LogCaptureFixture, name: str) -> None:
    try:
        tables.check()
    except Exception as error:
        raise AssertionError(f"{name}, or one of the {PAYLOADS_OF_ONE_TABLE} before") from error
    assert not any(canary in caplog.text for canary in CANARIES), name
    caplog.clear()
