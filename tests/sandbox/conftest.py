from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from include.sandbox.scenario import Scenario
from include.sandbox.server import Sandbox
from tests.sandbox.client import NOW_MS, Client


@pytest.fixture(autouse=True)
def _sockets_to_the_sandbox(socket_enabled: None) -> None:
    """The sandbox is HTTP over real sockets, on the loopback interface only."""


@pytest.fixture
def open_sandbox(socket_enabled: None) -> Iterator[Callable[..., Client]]:
    """Starts sandboxes, at a fixed instant and without a rate limit unless told otherwise."""
    with ExitStack() as stack:

        def open_(**knobs: Any) -> Client:
            scenario = Scenario(**dict[str, Any](now_ms=NOW_MS, requests_per_minute=0) | knobs)
            return Client(stack.enter_context(Sandbox(scenario)))

        yield open_
