"""The walk over POST /search, which has cursors, a silent end and field names that drift."""

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.domain.contact_centre import ContactTask
from include.domain.errors import PermanentError, TransientError
from include.domain.interval import HOUR, Interval, epoch_ms, from_epoch_ms
from include.sandbox.server import Sandbox
from include.webex.contact_task_search import (
    SEARCH_REACH,
    iter_searched_contact_tasks,
    parse_searched_contact_task,
)
from include.webex.contact_tasks import iter_contact_tasks
from include.webex.http_client import Refused, TooLarge, WebexClient
from tests.builders import NOW, NOW_MS, CountingBudget, a_client_of, a_connection

START_MS = NOW_MS - 3_600_000
DAY = timedelta(days=1)
BOUNDS = [(False, False), (False, True), (True, False), (True, True)]
BOUND_NAMES = ["both exclusive", "to inclusive", "from inclusive", "both inclusive"]
ORDERS: dict[str, Callable[[random.Random, tuple[str, int]], Any]] = {
    "newest first": lambda _, row: -row[1],
    "oldest first": lambda _, row: row[1],
    "ties in another order each time": lambda chance, row: (-row[1], chance.random()),
    "by id": lambda _, row: row[0],
}
ENDS: dict[str, dict[str, Any]] = {
    "both": {"hasNextPage": False, "endCursor": None},
    "only hasNextPage": {"hasNextPage": False, "endCursor": "7"},
    "only hasNextPage, as text": {"hasNextPage": "false", "endCursor": "7"},
    "only endCursor": {"hasNextPage": None, "endCursor": None},
    "endCursor against hasNextPage": {"hasNextPage": True, "endCursor": None},
    "neither": {},
}


class FakeSearch:
    """POST /search over plain (id, createdTime) pairs.

    Attributes:
        before_answer: Called with the search and the number of the request: may change rows.
        order: The sort key of a row.
        end: The pageInfo of a last page.
        rows_max: 413 for a larger page; 0 is never.
    """

    def __init__(
        self,
        rows: list[tuple[str, int]],
        *,
        page_size: int = 5,
        records_max: int = 100_000,
        from_inclusive: bool = False,
        to_inclusive: bool = False,
        order: str = "newest first",
        end: str = "both",
        rows_max: int = 0,
        requests_max: int = 1_000,
        before_answer: Callable[["FakeSearch", int], None] | None = None,
    ) -> None:
        self.connection = a_connection()
        self.rows = list(rows)
        self.queries: list[str] = []
        self._page_size = page_size
        self._records_max = records_max
        self._from_inclusive = from_inclusive
        self._to_inclusive = to_inclusive
        self._order = ORDERS[order]
        self._end = ENDS[end]
        self._rows_max = rows_max
        self._requests_max = requests_max
        self._before_answer = before_answer
        self._chance = random.Random(1)

    def post_query(self, path: str, query: str, parameters: dict[str, Any]) -> dict[str, Any]:
        assert (path, parameters) == ("/search", {"orgId": self.connection.org_id})
        assert len(self.queries) < self._requests_max, "the walk loops"
        self.queries.append(query)
        if self._before_answer:
            self._before_answer(self, len(self.queries))
        from_ms, to_ms = (int(each) for each in re.findall(r"(?:from|to): (\d+)", query))
        cursor = re.search(r'cursor: "(\d+)"', query)
        number = int(cursor[1]) if cursor else 0
        first_ms = from_ms if self._from_inclusive else from_ms + 1
        until_ms = to_ms + 1 if self._to_inclusive else to_ms
        found = [row for row in self.rows if first_ms <= row[1] < until_ms]
        found.sort(key=lambda row: self._order(self._chance, row))
        found = found[: self._records_max]
        page = found[number * self._page_size : (number + 1) * self._page_size]
        if self._rows_max and len(page) > self._rows_max:
            raise TooLarge("413")
        has_next = len(found) > (number + 1) * self._page_size
        tasks = [{"id": name, "createdTime": ms} for name, ms in page]
        return answer_of(
            tasks, {"hasNextPage": True, "endCursor": str(number + 1)} if has_next else self._end
        )


def answer_of(tasks: object, page_info: object) -> dict[str, Any]:
    return {"data": {"taskDetails": {"tasks": tasks, "pageInfo": page_info}}}


def selected_fields(query: str) -> set[str]:
    found = re.search(r"tasks \{(.*)\} pageInfo", query)
    assert found
    return set(re.findall(r"\w+", found[1]))


def walk(
    search: object,
    interval: Interval | None = None,
    *,
    page_size: int = 5,
    records_max: int = 100_000,
    channel_types: tuple[str, ...] = (),
) -> list[str]:
    interval = interval or Interval(from_epoch_ms(START_MS), NOW)
    found = iter_searched_contact_tasks(
        cast("WebexClient", search),
        interval,
        NOW,
        channel_types,
        page_size=page_size,
        records_max=records_max,
    )
    return [contact_task.task_id for contact_task in found]


def rows_at(*offsets_ms: int) -> list[tuple[str, int]]:
    return [(f"t{place}", START_MS + offset) for place, offset in enumerate(offsets_ms)]


@pytest.mark.parametrize("bounds", BOUNDS, ids=BOUND_NAMES)
@settings(max_examples=100)
@given(data=st.data())
def test_every_contact_task_of_the_interval_is_found_once(bounds: tuple[bool, bool], data: Any):
    """Small gaps make ties across page edges and rows on the interval's own bounds."""
    page_size = data.draw(st.integers(3, 6))
    gaps = data.draw(st.lists(st.sampled_from([0, 0, 1, 1, 2, 7, 90_000]), max_size=40))
    offset, offsets = -2, []
    for gap in gaps:
        offset += gap
        offsets.append(offset)
    # As many in three milliseconds as a page holds cannot be told apart from a cut: tested below.
    for place in range(len(offsets) - 1, -1, -1):
        at = offsets[place]
        if any(
            sum(abs(each - middle) <= 1 for each in offsets) >= page_size
            for middle in (at - 1, at, at + 1)
        ):
            del offsets[place]
    rows = [(f"t{place}", START_MS + each) for place, each in enumerate(offsets)]
    end_ms = START_MS + data.draw(st.sampled_from([1, 2, 5, 20, 3_600_000]))
    records_max = data.draw(st.sampled_from([page_size * 2, page_size * 3 + 1, 100_000]))
    search = FakeSearch(
        rows,
        page_size=page_size,
        records_max=records_max,
        from_inclusive=bounds[0],
        to_inclusive=bounds[1],
        order=data.draw(st.sampled_from(list(ORDERS))),
        end=data.draw(st.sampled_from(list(ENDS))),
        rows_max=data.draw(st.sampled_from([0, page_size - 1])),
    )
    interval = Interval(from_epoch_ms(START_MS), from_epoch_ms(end_ms))

    found = walk(search, interval, page_size=page_size, records_max=records_max)

    assert sorted(found) == sorted(name for name, ms in rows if START_MS <= ms < end_ms)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 10, 99, 100, 101])
@pytest.mark.parametrize("end", [name for name in ENDS if name.startswith(("both", "only has"))])
def test_a_query_costs_no_more_than_its_pages(count: int, end: str):
    search = FakeSearch(rows_at(*range(0, count * 7, 7)), end=end)

    assert len(walk(search)) == count

    assert len(search.queries) == max(1, math.ceil(count / 5))


def test_rows_that_slip_between_pages_are_found():
    """Ties whose order changes from request to request: one comes twice, another not at all."""
    rows = rows_at(*[0] * 4, *[1_000] * 4, *[2_000] * 4, *[3_000] * 4)
    search = FakeSearch(rows, order="ties in another order each time")

    assert sorted(walk(search)) == sorted(name for name, _ in rows)
    assert len(search.queries) > 4


def test_a_contact_task_that_is_listed_while_paging_shifts_nothing_away():
    def insert(search: FakeSearch, number: int) -> None:
        if number == 2:
            search.rows.append(("new", START_MS + 299))

    search = FakeSearch(rows_at(*range(0, 300, 10)), before_answer=insert)

    found = walk(search)

    assert sorted(found) == sorted(name for name, _ in search.rows)


@pytest.mark.parametrize("records_max", [10, 13, 15, 40])
@pytest.mark.parametrize("order", ["newest first", "oldest first"])
def test_the_silent_end_of_a_search_is_not_the_end(records_max: int, order: str):
    rows = rows_at(*range(0, 2_000, 10))
    search = FakeSearch(rows, records_max=records_max, order=order)

    assert sorted(walk(search, records_max=records_max)) == sorted(name for name, _ in rows)


@pytest.mark.parametrize("bounds", BOUNDS, ids=BOUND_NAMES)
@pytest.mark.parametrize(
    ("knobs", "ties"),
    [({"records_max": 10}, 11), ({"rows_max": 3}, 4), ({"order": list(ORDERS)[2]}, 30)],
    ids=["more than a search brings", "too large", "in another order each time"],
)
def test_what_cannot_be_had_whole_fails_and_never_loops(
    bounds: tuple[bool, bool], knobs: dict[str, Any], ties: int
):
    rows = rows_at(5, *[1_000] * ties, 2_000)
    search = FakeSearch(
        rows, from_inclusive=bounds[0], to_inclusive=bounds[1], requests_max=200, **knobs
    )

    with pytest.raises(PermanentError, match="channel_types"):
        walk(search, records_max=knobs.get("records_max", 100_000))


class EndlessSearch(FakeSearch):
    """Answers with the next page info whatever is asked."""

    def __init__(self, page: list[Any], page_infos: Iterator[dict[str, Any]]) -> None:
        super().__init__([])
        self._page, self._page_infos = page, page_infos

    def post_query(self, path: str, query: str, parameters: dict[str, Any]) -> dict[str, Any]:
        super().post_query(path, query, parameters)
        return answer_of(self._page, next(self._page_infos))


@pytest.mark.parametrize(
    "page", [[], [{"id": "a", "createdTime": START_MS}]], ids=["empty", "a row"]
)
@pytest.mark.parametrize("is_new", [True, False], ids=["always new", "the same"])
def test_cursors_without_end_fail_and_never_loop(page: list[Any], is_new: bool):
    numbers = range(100_000)
    page_infos = (
        {"hasNextPage": True, "endCursor": str(each if is_new else 1)} for each in numbers
    )

    with pytest.raises(PermanentError, match="channel_types"):
        walk(EndlessSearch(page, page_infos), records_max=50)


@pytest.mark.parametrize("page_info", [{"hasNextPage": True, "endCursor": None}, {}, None], ids=str)
def test_a_full_page_without_a_cursor_is_not_the_end(page_info: object):
    class CursorlessSearch(FakeSearch):
        def post_query(self, path: str, query: str, parameters: dict[str, Any]) -> dict[str, Any]:
            answer = super().post_query(path, query, parameters)
            return answer_of(answer["data"]["taskDetails"]["tasks"], page_info)

    rows = rows_at(*range(0, 400, 10))

    assert sorted(walk(CursorlessSearch(rows))) == sorted(name for name, _ in rows)


def test_several_channel_types_are_several_searches():
    search = FakeSearch(rows_at(1, 2))

    assert sorted(walk(search, channel_types=("telephony", "email"))) == ["t0", "t1"]

    found = [
        re.findall(r"filter: \{channelType: \{equals: (\w+)\}\}", each) for each in search.queries
    ]
    assert found == [["email"], ["telephony"]]


def test_nothing_is_asked_about_the_future():
    search = FakeSearch([])

    walk(search, Interval(NOW - HOUR, NOW + HOUR))
    walk(search, Interval(NOW, NOW + HOUR))

    assert len(search.queries) == 1
    assert f"to: {NOW_MS}," in search.queries[0]


def test_years_are_asked_for_in_windows_that_the_api_allows():
    search = FakeSearch([])

    walk(search, Interval(NOW - SEARCH_REACH, NOW))

    spans = [tuple(map(int, re.findall(r"(?:from|to): (\d+)", each))) for each in search.queries]
    assert len(spans) == 4
    assert all(to_ms - from_ms <= 365 * 86_400_000 for from_ms, to_ms in spans)


def test_an_interval_beyond_the_reach_is_refused_without_asking():
    """The API might answer nothing instead of refusing, and nothing would be missed."""
    search = FakeSearch([])
    start = NOW - SEARCH_REACH - timedelta(seconds=1)

    with pytest.raises(PermanentError, match="36 months"):
        walk(search, Interval(start, start + HOUR))

    assert search.queries == []


class DriftingSearch(FakeSearch):
    """Refuses unknown fields in the words of a test, all at once."""

    def __init__(self, rows: list[tuple[str, int]], unknown: set[str], words: str) -> None:
        super().__init__(rows, requests_max=10)
        self._unknown, self._words = unknown, words

    def post_query(self, path: str, query: str, parameters: dict[str, Any]) -> dict[str, Any]:
        answer = super().post_query(path, query, parameters)
        selected = selected_fields(query)
        if faulty := sorted(selected & self._unknown):
            raise Refused("400", " ".join(self._words.replace("#", name) for name in faulty))
        return answer


WORDS = {
    "a path": "Validation error (FieldUndefined@[taskDetails/tasks/#]) : unknown",
    "a path within": "Validation error (SubSelectionNotAllowed@[taskDetails/tasks/#/id]) : no fields",
    "a name": "Field '#' in type 'TaskDetails' is undefined",
    "a name in JSON": json.dumps('Cannot query field "#" on type "Task".'),
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_unknown_fields_are_left_out(words: str):
    search = DriftingSearch(rows_at(1, 2), {"lastQueue", "recordingCount", "owner"}, words)

    assert sorted(walk(search)) == ["t0", "t1"]

    assert len(search.queries) == 2
    for name in ("queue { id name }", "lastAgent", "captureRequested"):
        assert name in search.queries[1]
    for name in ("lastQueue", "recordingCount"):
        assert name not in search.queries[1]


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_even_all_fields_but_two_can_be_left_out(words: str):
    asked = FakeSearch([])
    walk(asked)
    unknown = (selected_fields(asked.queries[0]) | {"queue", "owner"}) - {
        "id",
        "createdTime",
        "name",
    }
    search = DriftingSearch(rows_at(1, 2), unknown, words)

    assert sorted(walk(search)) == ["t0", "t1"]
    assert "tasks { id createdTime }" in search.queries[-1]


@pytest.mark.parametrize("name", ["id", "createdTime"])
def test_id_and_creation_time_are_never_left_out(name: str):
    search = DriftingSearch(rows_at(1), {name}, WORDS["a path"])

    with pytest.raises(Refused):
        walk(search)

    assert len(search.queries) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"data": {}},
        {"data": {"taskDetails": None}},
        {"data": {"taskDetails": {}}},
        answer_of({}, {}),
    ],
    ids=["no root", "null", "no list", "an object"],
)
def test_an_answer_without_a_place_for_contact_tasks_is_not_an_empty_one(answer: dict[str, Any]):
    class OddSearch(FakeSearch):
        def post_query(self, path: str, query: str, parameters: dict[str, Any]) -> dict[str, Any]:
            return answer

    with pytest.raises(TransientError, match="without a list of contact tasks"):
        walk(OddSearch([]))


def test_every_field_is_read_and_unknown_ones_are_kept():
    item = {
        "id": "fb53",
        "status": "ended",
        "channelType": "telephony",
        "createdTime": str(START_MS),
        "endedTime": START_MS + 5,
        "direction": "inbound",
        "origin": "+12125550142",
        "destination": "+18005550100",
        "captureRequested": True,
        "lastWrapupCodeName": "Credit",
        "lastQueue": {"id": "q1", "name": "Q_Main"},
        "lastAgent": {"id": "o1", "name": "Ada"},
        "isRecordingDeleted": False,
        "recordingCount": None,
    }

    task = parse_searched_contact_task(item, NOW)

    assert task == ContactTask(
        task_id="fb53",
        created_time=from_epoch_ms(START_MS),
        channel_type="telephony",
        status="ended",
        capture_requested=True,
        direction="inbound",
        origin="+12125550142",
        destination="+18005550100",
        reason_code="Credit",
        owner_id="o1",
        owner_name="Ada",
        queue_id="q1",
        queue_name="Q_Main",
        extra={"endedTime": START_MS + 5, "isRecordingDeleted": False},
    )


@pytest.mark.parametrize("earlier", [None, [{"id": "q0"}]], ids=["one", "all"])
def test_earlier_names_are_read_too(earlier: list[object] | None):
    queue = [*earlier, {"id": "q1"}] if earlier else {"id": "q1"}

    task = parse_searched_contact_task({"id": "a", "queue": queue, "owner": {"id": "o1"}}, NOW)

    assert (task.queue_id, task.owner_id) == ("q1", "o1")
    assert task.extra == ({"queue": earlier} if earlier else {})


@pytest.mark.parametrize("value", [None, "null", 0, "", [], {}, "maybe"])
def test_an_unknown_capture_requested_is_never_false(value: object):
    assert (
        parse_searched_contact_task({"id": "a", "captureRequested": value}, NOW).capture_requested
        is None
    )


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.text() | st.sampled_from(["id", "createdTime", "lastQueue", "owner"]), inner
            )
        ),
        max_leaves=15,
    )
)
def test_any_json_becomes_a_row(item: object):
    task = parse_searched_contact_task(item, NOW)

    assert task.task_id
    task.task_id.encode("utf-8")


def granted(client: WebexClient) -> int:
    assert isinstance(client.budget, CountingBudget)
    return client.budget.granted


def comparable(contact_task: ContactTask) -> tuple[object, ...]:
    """What the list and the search must tell alike."""
    return (
        contact_task.created_time, contact_task.channel_type, contact_task.capture_requested,
        contact_task.direction, contact_task.origin, contact_task.destination, contact_task.reason_code,
        contact_task.owner_id, contact_task.owner_name, contact_task.queue_id, contact_task.queue_name,
    )  # fmt: skip


@pytest.mark.parametrize("bounds", BOUNDS, ids=BOUND_NAMES)
@pytest.mark.parametrize("cursors", ["stable", "shifting"])
def test_the_search_finds_what_the_list_finds(
    start_sandbox: Callable[..., Sandbox], bounds: tuple[bool, bool], cursors: str
):
    """For windows of any size that both reach, on the edges of contact tasks and elsewhere."""
    sandbox = start_sandbox(
        tasks_per_hour=400,
        tied_share=0.5,
        tied_group_size=4,
        requested_never_known_share=0.2,
        from_inclusive=bounds[0],
        to_inclusive=bounds[1],
        search_cursor=cursors,
    )
    client = a_client_of(sandbox)
    truth = sandbox.truth(START_MS, NOW_MS, with_sha256=False)
    edges = [row["created_ms"] for row in truth]
    instants = st.sampled_from(edges) | st.integers(START_MS, NOW_MS)
    ends = st.tuples(instants, instants).filter(lambda pair: pair[0] < pair[1])

    @settings(max_examples=12, deadline=None)
    @given(pair=ends)
    def compare(pair: tuple[int, int]) -> None:
        interval = Interval(from_epoch_ms(pair[0]), from_epoch_ms(pair[1]))
        listed = list(iter_contact_tasks(client, interval, NOW))
        before = granted(client)

        searched = list(iter_searched_contact_tasks(client, interval, NOW))

        assert {each.task_id: comparable(each) for each in searched} == {
            each.task_id: comparable(each) for each in listed
        }
        assert len(searched) == len(listed)
        # With inclusive bounds, the rows of the milliseconds before and after come too.
        assert granted(client) - before <= math.ceil((len(listed) + 8) / 250)

    compare()
    client.close()


@pytest.mark.parametrize(
    ("per_hour", "requests"), [(0, 1), (249, 1), (250, 1), (251, 2), (1_000, 4)]
)
def test_an_hour_of_two_years_ago_costs_one_request_for_each_page(
    start_sandbox: Callable[..., Sandbox], per_hour: int, requests: int
):
    sandbox = start_sandbox(tasks_per_hour=per_hour)
    client = a_client_of(sandbox)
    start = NOW - 730 * DAY

    found = list(iter_searched_contact_tasks(client, Interval(start, start + HOUR), NOW))

    truth = sandbox.truth(epoch_ms(start), epoch_ms(start + HOUR), with_sha256=False)
    assert [task.task_id for task in reversed(found)] == [row["task_id"] for row in truth]
    assert len(found) == per_hour
    assert granted(client) == requests
    assert {task.status for task in found} <= {"ended"}
    client.close()


@pytest.mark.parametrize("records_max", [500, 1_000])
def test_the_most_records_of_a_search_hide_nothing(
    start_sandbox: Callable[..., Sandbox], records_max: int
):
    sandbox = start_sandbox(tasks_per_hour=1_500, search_records_max=records_max)
    client = a_client_of(sandbox)

    found = list(
        iter_searched_contact_tasks(
            client, Interval(NOW - 2 * HOUR, NOW - HOUR), NOW, records_max=records_max
        )
    )

    assert len({task.task_id for task in found}) == len(found) == 1_500
    client.close()


@pytest.mark.parametrize("told", ["http_400", "graphql"])
@pytest.mark.parametrize("shape", ["api", "wrapper"])
def test_field_names_that_drift_are_told_over_http(
    start_sandbox: Callable[..., Sandbox], told: str, shape: str
):
    sandbox = start_sandbox(
        search_unknown_fields="lastQueue,lastAgent,owner,recordingCount",
        search_query_error=told,
        error_body=shape,
        queue_missing_share=0.0,
    )
    client = a_client_of(sandbox)

    found = list(iter_searched_contact_tasks(client, Interval(NOW - 2 * HOUR, NOW - HOUR), NOW))

    assert len(found) == 40
    assert {task.owner_id for task in found} == {None}
    assert all(task.queue_name for task in found)
    assert not any("recordingCount" in task.extra for task in found)
    assert granted(client) == 1 + 4  # the sandbox tells one unknown field at a time
    client.close()


def test_36_months_back_can_be_searched_from_its_first_moment(
    start_sandbox: Callable[..., Sandbox],
):
    client = a_client_of(start_sandbox())
    start = NOW - SEARCH_REACH

    found = list(iter_searched_contact_tasks(client, Interval(start, start + HOUR), NOW))

    assert len(found) == 40
    client.close()


def test_only_the_chosen_channel_types_are_found(start_sandbox: Callable[..., Sandbox]):
    sandbox = start_sandbox(tasks_per_hour=300)
    client = a_client_of(sandbox)
    interval = Interval(NOW - 2 * HOUR, NOW - HOUR)

    found = list(iter_searched_contact_tasks(client, interval, NOW, ("email", "chat")))

    listed = iter_contact_tasks(client, interval, NOW, ("email", "chat"))
    assert {task.task_id for task in found} == {task.task_id for task in listed}
    assert {task.channel_type for task in found} == {"email", "chat"}
    client.close()


def test_a_refusal_of_anything_else_is_not_swallowed(start_sandbox: Callable[..., Sandbox]):
    client = a_client_of(start_sandbox())

    with pytest.raises(Refused, match="400"):
        list(iter_searched_contact_tasks(client, Interval(NOW - HOUR, NOW), NOW, ("fax",)))

    assert granted(client) == 1
    client.close()
