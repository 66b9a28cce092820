from email.utils import parsedate_to_datetime

import pytest

from include.sandbox.clock import Clock
from include.sandbox.throttle import SlidingWindow
from tests.sandbox.client import NOW_MS

UNKNOWN_ID = "11111111-2222-4333-8444-555555555555"


def test_requests_beyond_the_budget_are_refused_until_the_window_slides(open_sandbox):
    client = open_sandbox(requests_per_minute=5)
    statuses = [client.contact_tasks(from_=NOW_MS).status for _ in range(4)]
    statuses.append(client.captures([UNKNOWN_ID]).status)
    assert statuses == [200] * 5

    refused = client.contact_tasks(from_=NOW_MS)
    assert refused.status == 429
    wait_seconds = int(refused.headers["Retry-After"])
    assert 1 <= wait_seconds <= 60

    client.sandbox.advance(wait_seconds)
    assert client.contact_tasks(from_=NOW_MS).status == 200


def test_a_throttled_request_is_not_processed_and_uses_nothing_up(open_sandbox):
    client = open_sandbox(requests_per_minute=1)
    client.captures([UNKNOWN_ID])
    for _ in range(3):
        assert client.captures([UNKNOWN_ID]).status == 429

    client.sandbox.advance(60)
    assert client.captures([UNKNOWN_ID]).status == 200

    report = client.sandbox.requests()
    assert report["contact_tasks_queried"] == 2
    assert report["counts"]["captures"] == {"200": 2, "429": 3}
    assert report["max_requests_in_60_seconds"] == 4


def test_tokens_and_media_do_not_count(open_sandbox):
    client = open_sandbox(requests_per_minute=1)

    assert [client.refresh().status for _ in range(3)] == [200] * 3
    assert [client.send("GET", "/media/x").status for _ in range(3)] == [403] * 3
    assert client.contact_tasks(from_=NOW_MS).status == 200


@pytest.mark.parametrize("form", ["absent", "date"])
def test_retry_after_has_other_forms(open_sandbox, form):
    client = open_sandbox(requests_per_minute=1, retry_after=form)
    client.contact_tasks(from_=NOW_MS)

    header = client.contact_tasks(from_=NOW_MS).headers["Retry-After"]

    if form == "absent":
        assert header is None
    else:
        assert 0 < parsedate_to_datetime(header).timestamp() - NOW_MS / 1_000 <= 60


def test_the_window_remembers_its_most_crowded_minute():
    clock = Clock()
    window = SlidingWindow(clock)
    for _ in range(3):
        window.add()
    clock.advance(61)
    window.add()

    assert (window.count(), window.most) == (1, 3)


def test_the_clock_moves_with_real_time_and_only_forward():
    clock = Clock()
    before_ms = clock.now_ms()
    clock.advance(2)

    assert 2_000 <= clock.now_ms() - before_ms < 60_000
    with pytest.raises(ValueError, match="only moves forward"):
        clock.advance(-1)
