"""What is held depends on the scenario alone, and costs no memory."""

import json
import tracemalloc

import pytest

from include.sandbox.api import answer_contact_tasks
from include.sandbox.captures import CaptureFlags
from include.sandbox.scenario import Scenario
from include.sandbox.state import SandboxState
from include.sandbox.truth import Truth
from tests.sandbox.client import ALL_TRUTH_FLAGS, HOUR_MS, NOW_MS

FROM_MS = NOW_MS - 30 * HOUR_MS
TO_MS = NOW_MS - 28 * HOUR_MS


def truth_of(**knobs) -> list[dict]:
    truth = Truth(SandboxState(Scenario(now_ms=NOW_MS, **knobs)))
    flags = CaptureFlags(**ALL_TRUTH_FLAGS)
    return list(truth.rows(FROM_MS, TO_MS, flags, NOW_MS, with_sha256=True))


def test_equal_scenarios_hold_the_same():
    assert truth_of() == truth_of()


def test_another_seed_holds_something_else():
    first, second = truth_of(), truth_of(seed=2)

    assert not {row["task_id"] for row in first} & {row["task_id"] for row in second}
    hashes = [
        {each["sha256"] for row in rows for each in row["captures"]} for rows in (first, second)
    ]
    assert not hashes[0] & hashes[1]


def test_turning_one_knob_leaves_the_rest_alone():
    plain = truth_of()
    without_owner = truth_of(owner_missing_share=1.0)

    assert [row["captures"] for row in plain] == [row["captures"] for row in without_owner]
    assert [row["created_ms"] for row in plain] == [row["created_ms"] for row in without_owner]


def test_the_truth_at_another_moment_is_what_the_api_will_tell_then(open_sandbox):
    client = open_sandbox()
    later_ms = NOW_MS + 24 * HOUR_MS
    foretold = client.sandbox.truth(NOW_MS - HOUR_MS, NOW_MS, at_ms=later_ms)

    client.sandbox.advance(24 * 3_600)

    assert client.sandbox.truth(NOW_MS - HOUR_MS, NOW_MS) == foretold
    rows = client.walk(NOW_MS - HOUR_MS, NOW_MS)
    assert [row["attributes"] for row in rows] == [row["attributes"] for row in foretold]


def test_the_page_of_truth_streams_what_the_method_tells(open_sandbox):
    client = open_sandbox()
    flags = "&".join(f"{name}=true" for name in ALL_TRUTH_FLAGS)

    reply = client.send("GET", f"/sandbox/truth?from={FROM_MS}&to={TO_MS}&{flags}")

    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert lines == client.sandbox.truth(FROM_MS, TO_MS, **ALL_TRUTH_FLAGS)
    assert reply.headers["Content-Type"] == "application/x-ndjson"


def test_the_page_of_truth_can_leave_out_hashes_and_look_ahead(open_sandbox):
    client = open_sandbox()

    later = client.send(
        "GET", f"/sandbox/truth?from={NOW_MS}&to={NOW_MS + HOUR_MS}&at={TO_MS * 2}&sha256=false"
    )

    rows = [json.loads(line) for line in later.body.splitlines()]
    assert len(rows) == 40
    assert {each["sha256"] for row in rows for each in row["captures"]} == {None}


@pytest.mark.parametrize("query", ["", "from=1", "from=a&to=b", "from=1&to=2&at=now"])
def test_the_page_of_truth_wants_milliseconds(open_sandbox, query):
    assert open_sandbox().send("GET", f"/sandbox/truth?{query}").status == 400


def test_only_a_bounded_number_of_hashes_is_kept(monkeypatch):
    monkeypatch.setattr("include.sandbox.truth._HASHES_KEPT", 5)
    truth = Truth(SandboxState(Scenario(now_ms=NOW_MS)))

    list(truth.rows(FROM_MS, TO_MS, CaptureFlags(), NOW_MS, with_sha256=True))

    assert len(truth._hashes) == 5


def test_memory_stays_flat_at_20_000_contact_tasks_an_hour_over_50_hours():
    state = SandboxState(Scenario(now_ms=NOW_MS, tasks_per_hour=20_000, requests_per_minute=0))
    org_id = state.scenario.org_id

    def list_hour(hours_ago: int) -> None:
        query = {"from": str(NOW_MS - hours_ago * HOUR_MS), "pageSize": "200"}
        answer = answer_contact_tasks(state, org_id, query, "")
        assert answer.size_bytes > 40_000

    list_hour(51)
    tracemalloc.start(1)
    try:
        before = tracemalloc.get_traced_memory()[0]
        for hours_ago in range(50, 0, -1):
            list_hour(hours_ago)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 200_000
    assert peak - before < 10_000_000
