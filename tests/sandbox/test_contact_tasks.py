import gzip
import json
from collections import Counter

import pytest

from tests.sandbox.client import HOUR_MS, NOW_MS

DAY_MS = 24 * HOUR_MS
FROM_MS = NOW_MS - 6 * HOUR_MS
TO_MS = NOW_MS - 4 * HOUR_MS


def test_a_walk_finds_exactly_the_truth(open_sandbox):
    client = open_sandbox(tasks_per_hour=300)

    found = client.walk(FROM_MS, TO_MS, page_size=70)

    truth = client.sandbox.truth(FROM_MS, TO_MS, with_sha256=False)
    assert [row["id"] for row in found] == [row["task_id"] for row in truth]
    assert [row["attributes"] for row in found] == [row["attributes"] for row in truth]
    assert len(found) == 600


def test_the_list_ascends_and_is_cut_silently(open_sandbox):
    client = open_sandbox(tasks_per_hour=300)

    answer = client.contact_tasks(from_=FROM_MS).json()

    created = [row["attributes"]["createdTime"] for row in answer["data"]]
    assert len(created) == 100
    assert created == sorted(created)
    assert answer.keys() == {"meta", "data"}


def test_some_contact_tasks_share_a_millisecond(open_sandbox):
    found = open_sandbox(tasks_per_hour=300).walk(FROM_MS, TO_MS)

    ties = Counter(row["attributes"]["createdTime"] for row in found)
    assert max(ties.values()) == 3


def test_a_whole_page_can_share_a_millisecond(open_sandbox):
    client = open_sandbox(tasks_per_hour=300, tied_share=1.0, tied_group_size=150)

    page = client.contact_tasks(from_=FROM_MS - 1, pageSize=150).json()["data"]

    assert len({row["attributes"]["createdTime"] for row in page}) == 1


@pytest.mark.parametrize("from_inclusive", [False, True], ids=["after from", "at from"])
@pytest.mark.parametrize("to_inclusive", [False, True], ids=["before to", "at to"])
def test_each_bound_is_inclusive_or_not_by_switch(open_sandbox, from_inclusive, to_inclusive):
    client = open_sandbox(tied_share=0.0, from_inclusive=from_inclusive, to_inclusive=to_inclusive)
    first, middle, last = client.sandbox.truth(FROM_MS, TO_MS, with_sha256=False)[:3]

    answer = client.contact_tasks(from_=first["created_ms"], to=last["created_ms"]).json()

    wanted = [first] * from_inclusive + [middle] + [last] * to_inclusive
    assert [row["id"] for row in answer["data"]] == [each["task_id"] for each in wanted]


def test_a_channel_filter_keeps_only_those_channels(open_sandbox):
    client = open_sandbox()
    everything = client.walk(FROM_MS, TO_MS)

    answer = client.contact_tasks(from_=FROM_MS - 1, to=TO_MS, channelTypes="email,chat").json()

    assert answer["data"] == [
        row for row in everything if row["attributes"]["channelType"] in ("email", "chat")
    ]


def test_a_channel_nobody_uses_is_answered_at_once(open_sandbox):
    client = open_sandbox(social_weight=0.0, tasks_per_hour=20_000)

    answer = client.contact_tasks(from_=NOW_MS - 180 * DAY_MS, channelTypes="social")

    assert answer.json()["data"] == []


def test_unknown_parameters_are_ignored(open_sandbox):
    client = open_sandbox()

    plain = client.contact_tasks(from_=FROM_MS)
    with_more = client.contact_tasks(from_=FROM_MS, channelType="email", page=3, offset=100)

    assert with_more.json() == plain.json()


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({}, "from is required"),
        ({"from_": "yesterday"}, "from must be a whole number"),
        ({"from_": f"{FROM_MS}.5"}, "from must be a whole number"),
        ({"from_": ""}, "from must be a whole number"),
        ({"from_": FROM_MS, "to": "now"}, "to must be a whole number"),
        ({"from_": FROM_MS // 1_000}, "12 months"),
        ({"from_": NOW_MS - 366 * DAY_MS, "to": NOW_MS - 300 * DAY_MS}, "12 months"),
        ({"from_": NOW_MS - 185 * DAY_MS}, "184 days"),
        ({"from_": TO_MS, "to": FROM_MS}, "before from"),
        ({"from_": FROM_MS, "pageSize": 0}, "pageSize"),
        ({"from_": FROM_MS, "pageSize": 1_001}, "pageSize"),
        ({"from_": FROM_MS, "pageSize": "many"}, "pageSize"),
        ({"from_": FROM_MS, "channelTypes": "Email"}, "channelTypes"),
        ({"from_": FROM_MS, "channelTypes": "email,fax"}, "channelTypes"),
    ],
    ids=str,
)
def test_a_bad_query_is_refused(open_sandbox, query, reason):
    client = open_sandbox()

    reply = client.contact_tasks(**query)

    assert reply.status == 400
    assert reason in reply.json()["error"]["message"][0]["description"]
    assert client.sandbox.requests()["refusals"][-1]["status"] == 400
    assert reason in client.sandbox.requests()["refusals"][-1]["reason"]


def test_184_days_up_to_12_months_ago_are_accepted(open_sandbox):
    client = open_sandbox()

    from_ms = NOW_MS - 365 * DAY_MS
    assert client.contact_tasks(from_=from_ms, to=from_ms + 184 * DAY_MS).status == 200


def test_a_future_to_is_accepted_or_refused_by_switch(open_sandbox):
    strict = open_sandbox(future_to="reject")

    assert open_sandbox().contact_tasks(from_=FROM_MS, to=NOW_MS + 1).status == 200
    assert strict.contact_tasks(from_=FROM_MS, to=NOW_MS + 1).status == 400
    assert strict.contact_tasks(from_=FROM_MS, to=NOW_MS).status == 200


def test_another_organisation_is_forbidden(open_sandbox):
    client = open_sandbox()

    assert client.contact_tasks(from_=FROM_MS, orgId=client.org_id).status == 200
    assert client.contact_tasks(from_=FROM_MS, orgId="another").status == 403


def test_a_token_of_another_organisation_opens_that_one_which_is_empty(open_sandbox):
    client = open_sandbox(token_org_id="11111111-2222-4333-8444-555555555555")

    answer = client.contact_tasks(from_=FROM_MS).json()

    assert answer == {"meta": {"orgId": "11111111-2222-4333-8444-555555555555"}, "data": []}
    assert client.captures(["11111111-2222-4333-8444-555555555555"]).status == 403


def test_too_many_rows_are_413_by_switch(open_sandbox):
    client = open_sandbox(rows_max=50)

    assert client.contact_tasks(from_=FROM_MS, pageSize=51).status == 413
    assert client.contact_tasks(from_=FROM_MS, pageSize=50).status == 200


def test_a_large_list_is_compressed_only_when_asked(open_sandbox):
    client = open_sandbox(gzip_above_bytes=5_000)

    plain = client.contact_tasks(from_=FROM_MS)
    packed = client.contact_tasks({"Accept-Encoding": "deflate, gzip;q=1.0"}, from_=FROM_MS)
    small = client.contact_tasks({"Accept-Encoding": "gzip"}, from_=FROM_MS, pageSize=3)

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.body)) == plain.json()
    assert "Content-Encoding" not in small.headers


def test_a_young_contact_task_is_open_and_goes_its_way(open_sandbox):
    client = open_sandbox(abandoned_share=0.0, captured_share=1.0, owner_missing_share=0.0)
    newest = client.contact_tasks(from_=NOW_MS - HOUR_MS).json()["data"][-1]
    contact_task_id, created_ms = newest["id"], newest["attributes"]["createdTime"]
    assert newest["attributes"]["status"] == "assigned"

    def seen_after(seconds: int) -> dict:
        truth = client.sandbox.truth(
            created_ms, created_ms + 1, at_ms=created_ms + seconds * 1_000, with_sha256=False
        )
        return next(row["attributes"] for row in truth if row["task_id"] == contact_task_id)

    assert seen_after(0)["status"] == "created"
    assert seen_after(3)["status"] == "queued"
    assert "owner" not in seen_after(3)
    assert seen_after(16)["status"] == "assigned"
    assert seen_after(86_400)["status"] == "completed"
    assert seen_after(3).get("captureRequested") is None
    assert seen_after(86_400)["captureRequested"] is True


def test_abandoned_contact_tasks_stay_queued_until_abandoned(open_sandbox):
    client = open_sandbox(abandoned_share=1.0)

    rows = client.walk(NOW_MS - 3 * HOUR_MS, NOW_MS)

    assert {row["attributes"]["status"] for row in rows} == {"queued", "abandoned"}
    assert not any(row["attributes"].get("captureRequested") for row in rows)


@pytest.mark.parametrize(
    ("how", "written"), [("null", {None}), ("absent", {"absent"}), ("mixed", {None, "absent"})]
)
def test_an_unknown_capture_requested_is_null_or_absent(open_sandbox, how, written):
    client = open_sandbox(requested_never_known_share=1.0, null_requested_as=how)

    rows = client.walk(FROM_MS, TO_MS)

    assert {row["attributes"].get("captureRequested", "absent") for row in rows} == written


def test_capture_requested_stays_unknown_longer_for_a_share(open_sandbox):
    client = open_sandbox(requested_unknown_share=1.0, requested_unknown_hours=10.0)

    def known() -> int:
        rows = client.walk(FROM_MS, TO_MS)
        return sum(row["attributes"].get("captureRequested") is not None for row in rows)

    assert known() == 0
    client.sandbox.advance(10 * 3_600)
    assert known() == 80


def test_capture_requested_can_turn_from_false_to_true(open_sandbox):
    client = open_sandbox(
        requested_flips_share=1.0,
        requested_flips_after_hours=10.0,
        abandoned_share=0.0,
        captured_share=1.0,
    )

    before = client.walk(FROM_MS, TO_MS)
    client.sandbox.advance(10 * 3_600)
    after = client.walk(FROM_MS, TO_MS)

    assert {row["attributes"]["captureRequested"] for row in before} == {False}
    assert {row["attributes"]["captureRequested"] for row in after} == {True}


def test_contact_tasks_can_be_listed_late(open_sandbox):
    client = open_sandbox(late_listed_share=0.5, late_listed_minutes=600.0)
    truth = client.sandbox.truth(FROM_MS, TO_MS, with_sha256=False)

    early = client.walk(FROM_MS, TO_MS)
    client.sandbox.advance(600 * 60)
    late = client.walk(FROM_MS, TO_MS)

    assert [row["id"] for row in early] == [row["task_id"] for row in truth if row["visible"]]
    assert 0 < len(early) < len(late) == len(truth)


def test_the_future_is_not_listed(open_sandbox):
    client = open_sandbox()

    before = client.walk(NOW_MS - HOUR_MS, NOW_MS + HOUR_MS)
    client.sandbox.advance(3_600)
    after = client.walk(NOW_MS - HOUR_MS, NOW_MS + HOUR_MS)

    assert len(before) in (39, 40)
    assert len(after) in (79, 80)


def test_long_contact_tasks_stay_open_for_days(open_sandbox):
    client = open_sandbox(long_task_share=1.0, long_task_hours=72.0)

    rows = client.walk(FROM_MS, TO_MS)

    assert {row["attributes"]["status"] for row in rows} <= {"assigned", "queued"}


def test_hours_can_be_empty_or_differ_over_the_day(open_sandbox):
    day = [(NOW_MS // HOUR_MS) - 24 + hour for hour in range(24)]
    flat, rhythmic, gappy, young = (
        [client.sandbox.state.centre.count(hour) for hour in day]
        for client in (
            open_sandbox(),
            open_sandbox(daily_rhythm=1.0),
            open_sandbox(empty_hour_share=0.5),
            open_sandbox(first_task_ms=NOW_MS - 2 * HOUR_MS),
        )
    )

    assert flat == [40] * 24
    assert min(rhythmic) == 0
    assert max(rhythmic) == 80
    assert set(gappy) == {0, 40}
    assert young == [0] * 22 + [40] * 2


def test_a_single_contact_task_has_no_path_of_its_own(open_sandbox):
    client = open_sandbox()

    reply = client.send("GET", "/v1/tasks/some-id", Authorization=client.authorization)

    assert reply.status == 404
    assert client.send("POST", "/v1/tasks").status == 405
    assert client.sandbox.requests()["counts"]["unknown"] == {"404": 1}
