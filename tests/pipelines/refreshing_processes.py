"""Many processes that refresh at the same moment; started by test_token_years as a process without threads.

It reads a round as a line of JSON, forks that many children, lets them begin together, and answers with a line:
what became of each.
"""

import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from include.domain.interval import from_epoch_ms
from include.pipelines.refresh_access_token import refresh_access_token
from include.webex.connection import WebexConnection
from include.webex.http_client import WebexClient
from tests.pipelines.conftest import UncountedBudget
from tests.pipelines.killed_process import FileTokenStore


@dataclasses.dataclass(frozen=True)
class Round:
    """How many, when, and with which connection and token file."""

    processes: int
    now_ms: int
    webex: dict[str, Any]
    token_file: str


def _refresh_and_ask(told: Round) -> str:
    connection = WebexConnection.from_fields(**told.webex)
    store = FileTokenStore(Path(told.token_file))
    pair = refresh_access_token(connection, store, lambda: from_epoch_ms(told.now_ms))
    client = WebexClient(connection, lambda _spent: pair.access_token, UncountedBudget())
    with contextlib.closing(client):
        parameters = {"from": told.now_ms - 1, "pageSize": 1, "orgId": connection.org_id}
        client.get("/v1/tasks", parameters)
    return "answered"


def _fork(told: Round, start: int, results: int) -> int:
    pid = os.fork()
    if pid == 0:
        # Never back into the loop below, whatever happens.
        try:
            os.read(start, 1)
            outcome = _refresh_and_ask(told)
        except BaseException as error:  # noqa: BLE001 - told to the one who waits
            outcome = repr(error)
        os.write(results, f"{outcome}\n".encode())
        os._exit(0)
    return pid


def run(told: Round) -> list[str]:
    """What became of each process."""
    start, go = os.pipe()
    reading, results = os.pipe()
    pids = [_fork(told, start, results) for _ in range(told.processes)]
    os.write(go, b"!" * told.processes)
    for pid in pids:
        os.waitpid(pid, 0)
    for end in (start, go, results):
        os.close(end)
    with os.fdopen(reading) as pipe:
        return pipe.read().splitlines()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(Round(**json.loads(line)))), flush=True)
