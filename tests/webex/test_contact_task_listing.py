"""Which of the two sources an interval is listed from."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from include.domain.errors import PermanentError
from include.domain.interval import HOUR, Interval, epoch_ms
from include.sandbox.server import Sandbox
from include.webex.contact_task_listing import list_contact_tasks
from include.webex.contact_tasks import REACH
from tests.builders import NOW, a_client_of

DAY = timedelta(days=1)


def requests_of(sandbox: Sandbox) -> set[str]:
    counts: dict[str, Any] = sandbox.requests()["counts"]
    return {name for name, statuses in counts.items() if statuses} - {"token"}


@pytest.mark.parametrize(
    ("start", "asked"),
    [
        (NOW - HOUR, {"tasks"}),
        (NOW - REACH + DAY, {"tasks"}),
        (NOW - REACH + DAY - HOUR, {"search"}),
        (NOW - REACH + DAY - HOUR / 2, {"search", "tasks"}),
        (NOW - 700 * DAY, {"search"}),
        (NOW - 1_095 * DAY, {"search"}),
    ],
    ids=["now", "within reach", "just beyond", "across", "two years ago", "36 months ago"],
)
def test_each_hour_is_listed_whole_from_the_source_that_reaches_it(
    start_sandbox: Callable[..., Sandbox], start: Any, asked: set[str]
):
    sandbox = start_sandbox(tasks_per_hour=300)
    client = a_client_of(sandbox)

    found = list(list_contact_tasks(client, Interval(start, start + HOUR), NOW))

    truth = sandbox.truth(epoch_ms(start), epoch_ms(start + HOUR), with_sha256=False)
    assert sorted(task.task_id for task in found) == sorted(row["task_id"] for row in truth)
    assert requests_of(sandbox) == asked
    client.close()


def test_channel_types_are_chosen_from_both_sources(start_sandbox: Callable[..., Sandbox]):
    client = a_client_of(start_sandbox(tasks_per_hour=300))
    start = NOW - REACH + DAY - HOUR

    found = list(list_contact_tasks(client, Interval(start, start + 2 * HOUR), NOW, ("email",)))

    assert {task.channel_type for task in found} == {"email"}
    assert {task.status for task in found} >= {"ended", "completed"}
    client.close()


def test_what_nothing_reaches_is_said(start_sandbox: Callable[..., Sandbox]):
    sandbox = start_sandbox()
    client = a_client_of(sandbox)
    start = NOW - 1_096 * DAY

    with pytest.raises(PermanentError, match="36 months"):
        list(list_contact_tasks(client, Interval(start, start + HOUR), NOW))

    assert requests_of(sandbox) == set()
    client.close()
