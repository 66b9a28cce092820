"""The walk over GET /v1/tasks, which cuts its answer silently and has no cursor."""

import math
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.domain.contact_centre import is_identified
from include.domain.errors import ArchiveError, PermanentError
from include.domain.interval import HOUR, Interval, epoch_ms, from_epoch_ms
from include.sandbox.server import Sandbox
from include.webex.contact_tasks import iter_contact_tasks, parse_contact_task
from include.webex.http_client import WebexClient
from include.webex.json_fields import boolean, instant, text
from tests.builders import NOW, NOW_MS, FakeListing, a_client_of

START_MS = NOW_MS - 3_600_000
BOUNDS = [(False, False), (False, True), (True, False), (True, True)]
BOUND_NAMES = ["both exclusive", "to inclusive", "from inclusive", "both inclusive"]


def walk(
    listing: FakeListing,
    page_size: int = 5,
    interval: Interval | None = None,
    channel_types: tuple[str, ...] = (),
) -> list[str]:
    interval = interval or Interval(from_epoch_ms(START_MS), NOW)
    client = cast("WebexClient", listing)
    found = list(iter_contact_tasks(client, interval, NOW, channel_types, page_size))
    return [contact_task.task_id for contact_task in found]


def rows_at(*offsets_ms: int) -> list[tuple[str, int]]:
    return [(f"t{place}", START_MS + offset) for place, offset in enumerate(offsets_ms)]


@pytest.mark.parametrize("bounds", BOUNDS, ids=BOUND_NAMES)
@settings(max_examples=80)
@given(data=st.data())
def test_every_contact_task_of_the_interval_is_found_once(bounds: tuple[bool, bool], data: Any):
    """Small gaps make ties across page edges and rows on the interval's own bounds."""
    page_size = data.draw(st.integers(3, 6))
    gaps = data.draw(st.lists(st.sampled_from([0, 0, 1, 1, 2, 7, 90_000]), max_size=40))
    offset, offsets = -2, []
    for gap in gaps:
        offset += gap
        offsets.append(offset)
    for tied in {each for each in offsets if offsets.count(each) >= page_size}:
        offsets = [each for each in offsets if each != tied]  # more ties than a page: tested below
    rows = [(f"t{place}", START_MS + each) for place, each in enumerate(offsets)]
    end_ms = START_MS + data.draw(st.sampled_from([1, 2, 5, 20, 3_600_000]))
    interval = Interval(from_epoch_ms(START_MS), from_epoch_ms(end_ms))
    from_inclusive, to_inclusive = bounds
    listing = FakeListing(
        rows, from_inclusive=from_inclusive, to_inclusive=to_inclusive, requests_max=400
    )

    found = walk(listing, page_size, interval)

    assert found == [name for name, ms in rows if START_MS <= ms < end_ms]


@pytest.mark.parametrize("bounds", BOUNDS, ids=BOUND_NAMES)
@settings(max_examples=40)
@given(data=st.data())
def test_a_contact_task_created_behind_the_cursor_while_paging_is_found(
    bounds: tuple[bool, bool], data: Any
):
    offsets = sorted(data.draw(st.lists(st.integers(0, 3_000), unique=True, max_size=40)))
    inserted: list[str] = []

    def insert(listing: FakeListing, number: int) -> None:
        if number > 8 or number % 2:
            return
        asked_ms = listing.requests[-1]["from"]
        name = f"new{number}"
        at_ms = asked_ms + data.draw(st.integers(1, 500)) + 1
        if at_ms < NOW_MS and sum(ms == at_ms for _, ms in listing.rows) < 2:
            listing.rows.append((name, at_ms))
            inserted.append(name)

    from_inclusive, to_inclusive = bounds
    listing = FakeListing(
        rows_at(*offsets),
        from_inclusive=from_inclusive,
        to_inclusive=to_inclusive,
        before_answer=insert,
        requests_max=200,
    )

    found = walk(listing)

    assert len(found) == len(set(found))
    assert set(found) >= {name for name, _ in rows_at(*offsets)} | set(inserted)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 10, 25, 26, 99, 100, 101])
@pytest.mark.parametrize("bounds", BOUNDS, ids=BOUND_NAMES)
def test_the_walk_asks_no_more_often_than_it_must(count: int, bounds: tuple[bool, bool]):
    """A page repeats at most one row of the one before, so large pages cost nothing extra."""
    page_size = 50
    rows = rows_at(*(place * 7 for place in range(count)))
    listing = FakeListing(rows, from_inclusive=bounds[0], to_inclusive=bounds[1])

    found = walk(listing, page_size)

    assert len(found) == count
    assert len(listing.requests) <= math.ceil(count / page_size) + 2


def test_an_hour_of_full_pages_costs_one_request_for_each_page_and_its_edge():
    listing = FakeListing(rows_at(*range(0, 3_000_000, 300)), now_ms=NOW_MS)

    found = walk(listing, 1_000)

    assert len(found) == 10_000
    assert len(listing.requests) <= math.ceil(10_000 / 1_000) + 2
    assert {request["pageSize"] for request in listing.requests} == {1_000}


def test_the_default_page_is_the_largest_that_is_documented():
    listing = FakeListing([])
    client = cast("WebexClient", listing)

    assert list(iter_contact_tasks(client, Interval(NOW - HOUR, NOW), NOW)) == []

    assert listing.requests[0]["pageSize"] == 1_000
    assert listing.requests[0]["orgId"] == listing.connection.org_id


@pytest.mark.parametrize("ties", [5, 6, 50])
@pytest.mark.parametrize("bounds", BOUNDS, ids=BOUND_NAMES)
def test_more_ties_than_a_page_holds_fail_and_never_loop(ties: int, bounds: tuple[bool, bool]):
    """A full page of one millisecond may have been cut: nobody can tell, so it is said."""
    rows = rows_at(5, *[1_000] * ties, 2_000)
    listing = FakeListing(rows, from_inclusive=bounds[0], to_inclusive=bounds[1], requests_max=60)

    with pytest.raises(PermanentError, match="channel_types"):
        walk(listing)


@pytest.mark.parametrize("bounds", BOUNDS, ids=BOUND_NAMES)
def test_one_tie_less_than_a_page_holds_is_listed_whole(bounds: tuple[bool, bool]):
    rows = rows_at(5, 999, *[1_000] * 4, 1_001, 2_000)
    listing = FakeListing(rows, from_inclusive=bounds[0], to_inclusive=bounds[1], requests_max=80)

    assert walk(listing) == [name for name, _ in rows]


@pytest.mark.parametrize("bounds", BOUNDS, ids=BOUND_NAMES)
def test_ties_on_the_end_of_the_interval_belong_to_the_next_hour(bounds: tuple[bool, bool]):
    """They fill whole pages where bounds are inclusive; the walk must end there, not fail."""
    rows = rows_at(*[0] * 4, *[1_000] * 9)
    listing = FakeListing(rows, from_inclusive=bounds[0], to_inclusive=bounds[1], requests_max=80)
    interval = Interval(from_epoch_ms(START_MS), from_epoch_ms(START_MS + 1_000))

    assert walk(listing, 5, interval) == [name for name, _ in rows[:4]]


@pytest.mark.parametrize("rows_max", [1, 3, 4])
def test_a_refusal_as_too_large_shortens_the_window(rows_max: int):
    rows = rows_at(*range(0, 60, 2))
    listing = FakeListing(rows, rows_max=rows_max, requests_max=400)

    assert walk(listing) == [name for name, _ in rows]


def test_a_window_refused_as_too_large_at_its_smallest_fails():
    listing = FakeListing(rows_at(7, 7, 7), rows_max=2, requests_max=60)

    with pytest.raises(PermanentError, match="too large to be read"):
        walk(listing)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 40))
def test_rows_out_of_order_are_all_found(seed: int, count: int):
    def shuffled(page: list[Any]) -> list[Any]:
        random.Random(seed).shuffle(page)
        return page

    rows = rows_at(*(place * 3 for place in range(count)))
    listing = FakeListing(rows, answer_order=shuffled, requests_max=600)

    assert sorted(walk(listing)) == sorted(name for name, _ in rows)


def test_a_listing_cut_at_its_other_end_is_still_found_whole():
    """Newest first, the cut hides the oldest rows: a full page out of order proves nothing."""
    rows = rows_at(*(place * 3 for place in range(40)))
    listing = FakeListing(rows, newest_first=True, requests_max=200)

    assert sorted(walk(listing)) == sorted(name for name, _ in rows)


def test_the_walk_asks_nothing_about_the_future_even_after_halving():
    """With a `to` left out, windows past now would all be the same refused one, or start in the future."""
    rows = rows_at(*range(0, 60_000, 1_000))
    listing = FakeListing(rows, rows_max=4, requests_max=400)

    found = walk(listing, 5, Interval(from_epoch_ms(START_MS), NOW + 20 * HOUR))

    assert found == [name for name, _ in rows]
    assert all(request.get("to", 0) < NOW_MS for request in listing.requests)


def test_an_interval_that_has_not_begun_is_not_asked_about():
    listing = FakeListing([])

    assert walk(listing, 5, Interval(NOW, NOW + HOUR)) == []
    assert listing.requests == []


def test_the_last_part_of_a_millisecond_belongs_to_the_interval():
    rows = rows_at(0, 10, 11)
    end = from_epoch_ms(START_MS + 10) + timedelta(microseconds=1)

    assert walk(FakeListing(rows), 5, Interval(from_epoch_ms(START_MS), end)) == ["t0", "t1"]


def test_channel_types_are_asked_for_by_name():
    listing = FakeListing([])

    walk(listing, channel_types=("telephony", "email"))

    assert listing.requests[0]["channelTypes"] == "email,telephony"


class OddListing:
    """Answers one page of whatever it is given."""

    def __init__(self, items: list[Any]) -> None:
        self.connection = FakeListing([]).connection
        self._items = items

    def get(self, path: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return {"data": self._items}


def test_an_item_without_id_or_creation_time_is_still_a_row():
    items = [
        {"id": "a", "attributes": {"createdTime": START_MS + 50}},
        {"id": "b"},
        {"attributes": {"status": "created"}},
        "not even an object",
    ]
    client = cast("WebexClient", OddListing(items))

    found = list(iter_contact_tasks(client, Interval(NOW - HOUR, NOW), NOW))

    assert [task.task_id for task in found[:2]] == ["a", "b"]
    assert len(found) == 4
    assert {epoch_ms(task.created_time) for task in found} == {START_MS + 50}
    assert [is_identified(task.task_id) for task in found] == [True, True, False, False]
    assert found[3].extra == {"value": "not even an object"}


@pytest.mark.parametrize(
    "told", [-1, 0, START_MS // 1000, 253_402_300_799_999, START_MS - 90_000_000, "soon", [START_MS]],
    ids=["-1", "zero", "seconds", "year 9999", "a day too early", "a word", "a list"],
)  # fmt: skip
def test_an_item_created_where_it_cannot_be_is_a_row_all_the_same(told: object):
    """Taken as it is, it would belong to another hour, and be in none."""
    items = [
        {"id": "a", "attributes": {"createdTime": START_MS + 50}},
        {"id": "b", "attributes": {"createdTime": told}},
    ]
    client = cast("WebexClient", OddListing(items))

    found = list(iter_contact_tasks(client, Interval(NOW - HOUR, NOW), NOW))

    assert [(task.task_id, epoch_ms(task.created_time)) for task in found] == [
        ("a", START_MS + 50), ("b", START_MS + 50),
    ]  # fmt: skip
    assert found[1].extra == {"createdTime": told}


def test_an_item_without_a_creation_time_after_the_last_of_the_hour_is_a_row_of_the_hour():
    items = [{"id": "a", "attributes": {"createdTime": NOW_MS - 1_800_000}}, {"id": "b"}]
    client = cast("WebexClient", OddListing(items))
    interval = Interval(NOW - HOUR, NOW - HOUR / 2)

    found = list(iter_contact_tasks(client, interval, NOW))

    assert [task.task_id for task in found] == ["b"]
    assert found[0].created_time in interval


def test_a_name_in_another_case_is_the_same_and_what_cannot_be_read_is_kept():
    item = {
        "ID": "a",
        "Attributes": {"CREATEDTIME": START_MS, "Owner": {"Id": "o", "Name": ["x"]}, "status": {}},
        "Status": ["created"],
        "direction": "inbound",
        "lastUpdatedTime": 253_402_300_799_999,
    }

    task = parse_contact_task(item, NOW)

    assert (task.task_id, task.created_time) == ("a", from_epoch_ms(START_MS))
    assert (task.owner_id, task.owner_name, task.direction) == ("o", None, "inbound")
    assert (task.status, task.last_updated_time) == (None, None)
    assert task.extra == {
        "Owner": {"Name": ["x"]},
        "Status": ["created"],
        "lastUpdatedTime": 253_402_300_799_999,
    }


def test_a_member_that_is_there_twice_is_kept_twice():
    item = {"id": "a", "new": 1, "attributes": {"createdTime": START_MS, "new": 2}}

    assert parse_contact_task(item, NOW).extra == {"new": 2, "new~other": 1}


def test_an_id_among_the_attributes_names_something_else():
    """Found by the hostile answers: it took the place of the contact task's own."""
    item = {"id": "a", "attributes": {"id": "b", "createdTime": START_MS}}

    task = parse_contact_task(item, NOW)

    assert (task.task_id, task.extra) == ("a", {"id": "b"})


def test_items_without_a_creation_time_that_fill_a_page_fail_and_never_loop():
    items = [{"id": f"t{place}"} for place in range(5)]
    client = cast("WebexClient", OddListing(items))

    with pytest.raises(PermanentError):
        list(iter_contact_tasks(client, Interval(NOW - HOUR, NOW), NOW, page_size=5))


def test_an_unidentified_item_keeps_its_id_in_every_run():
    item = {"attributes": {"status": "created", "origin": "\ud800"}}

    first, second = (parse_contact_task(dict(item), NOW) for _ in range(2))

    assert first.task_id == second.task_id
    assert first.task_id != parse_contact_task({"attributes": {}}, NOW).task_id


def test_every_documented_attribute_is_read_and_unknown_ones_are_kept():
    item = {
        "id": "fb53",
        "version": 2,
        "attributes": {
            "owner": {"id": "o1", "name": "Ada"},
            "queue": {"id": "q1", "name": "Q_Main"},
            "channelType": "telephony",
            "status": "completed",
            "createdTime": START_MS,
            "lastUpdatedTime": str(START_MS + 1),
            "captureRequested": True,
            "origin": "+12125550142",
            "destination": "+18005550100",
            "direction": "inbound",
            "reasonCode": "Credit",
            "context": {"a": 1},
        },
    }

    task = parse_contact_task(item, NOW)

    assert (task.task_id, task.owner_id, task.owner_name) == ("fb53", "o1", "Ada")
    assert (task.queue_id, task.queue_name) == ("q1", "Q_Main")
    assert (task.channel_type, task.status, task.direction) == ("telephony", "completed", "inbound")
    assert (task.origin, task.destination) == ("+12125550142", "+18005550100")
    assert (task.reason_code, task.capture_requested) == ("Credit", True)
    assert task.created_time == from_epoch_ms(START_MS)
    assert task.last_updated_time == from_epoch_ms(START_MS + 1)
    assert task.extra == {"context": {"a": 1}, "version": 2}


@pytest.mark.parametrize("value", [None, "null", 0, "", [], {}, "maybe"])
def test_an_unknown_capture_requested_is_never_false(value: object):
    task = parse_contact_task({"id": "a", "attributes": {"captureRequested": value}}, NOW)

    assert task.capture_requested is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.text()
                | st.sampled_from(
                    ["id", "attributes", "createdTime", "owner", "queue", "captureRequested"]
                ),
                inner,
            )
        ),
        max_leaves=15,
    )
)
def test_any_json_becomes_a_row(item: object):
    task = parse_contact_task(item, NOW)

    assert task.task_id
    task.task_id.encode("utf-8")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_789_380_000_000, NOW), ("1789380000000", NOW), (1_789_380_000_000.0, NOW),
        (True, None), (None, None), ("", None), ("soon", None), (10**30, None), ([], None),
        (float("nan"), None), (float("inf"), None),
    ],
)  # fmt: skip
def test_an_instant_is_read_from_a_number_or_a_text(value: object, expected: object):
    assert instant(value) == expected


def test_texts_are_never_empty_and_always_utf_8():
    assert [text(each) for each in ("", "a", 5, None, True, [], "\ud800")] == [
        None, "a", "5", None, None, None, "\\ud800",
    ]  # fmt: skip
    assert [boolean(each) for each in (True, False, "TRUE", "false", "x", 1)] == [
        True, False, True, False, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("bounds", BOUNDS, ids=BOUND_NAMES)
@pytest.mark.parametrize("rows_max", [0, 15])
def test_the_walk_over_the_sandbox_finds_what_the_sandbox_holds(
    start_sandbox: Callable[..., Sandbox], bounds: tuple[bool, bool], rows_max: int
):
    sandbox = start_sandbox(
        tasks_per_hour=150,
        tied_share=0.5,
        tied_group_size=4,
        from_inclusive=bounds[0],
        to_inclusive=bounds[1],
        rows_max=rows_max,
        future_to="reject",
    )
    client = a_client_of(sandbox)
    interval = Interval(NOW - 3 * HOUR, NOW - HOUR)

    found = list(iter_contact_tasks(client, interval, NOW, page_size=20))

    truth = sandbox.truth(epoch_ms(interval.start), epoch_ms(interval.end), with_sha256=False)
    assert [task.task_id for task in found] == [row["task_id"] for row in truth]
    assert [epoch_ms(task.created_time) for task in found] == [row["created_ms"] for row in truth]
    assert len(truth) > 200
    client.close()


def test_the_hour_that_is_not_over_is_listed_up_to_now(start_sandbox: Callable[..., Sandbox]):
    sandbox = start_sandbox(tasks_per_hour=100, future_to="reject")
    client = a_client_of(sandbox)
    interval = Interval(NOW - HOUR / 2, NOW + HOUR / 2)

    found = list(iter_contact_tasks(client, interval, NOW, page_size=7))

    truth = sandbox.truth(epoch_ms(interval.start), NOW_MS, with_sha256=False)
    assert [task.task_id for task in found] == [row["task_id"] for row in truth]
    client.close()


def test_a_refusal_of_the_listing_is_not_swallowed(start_sandbox: Callable[..., Sandbox]):
    client = a_client_of(start_sandbox())
    old = NOW - timedelta(days=400)

    with pytest.raises(ArchiveError, match="400"):
        list(iter_contact_tasks(client, Interval(old, old + HOUR), NOW))
    client.close()
