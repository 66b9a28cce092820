"""One holder at a time, on one machine and in a real Redis server; a dead holder holds nothing."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from pydantic import SecretStr

from include.domain.errors import PermanentError, TransientError
from include.webex.rate_budget_in_redis import RedisServer, refresh_lock_in_redis
from include.webex.refresh_lock import refresh_lock_on_this_machine
from tests.redis_server import a_free_port, a_redis_server

PASSWORD = "not a real one"
Lock = Callable[[str], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def _sockets(socket_enabled: None) -> None:
    """These tests start a Redis server on this machine."""


def one_holds_it(lock: Lock) -> None:
    with (
        lock("a"),
        lock("b"),
        pytest.raises(TransientError, match="Another process has been refreshing"),
        lock("a"),
    ):
        pass
    with lock("a"):
        pass


def test_one_process_of_a_machine_holds_it(tmp_path: Path):
    one_holds_it(lambda client_id: refresh_lock_on_this_machine(client_id, tmp_path, 0.2))


def test_one_process_of_many_machines_holds_it(tmp_path: Path):
    port = a_free_port()
    server = RedisServer("127.0.0.1", port, password=SecretStr(PASSWORD))
    wrong = RedisServer("127.0.0.1", port, password=SecretStr("wrong"))
    with a_redis_server(tmp_path, port, PASSWORD):
        one_holds_it(lambda client_id: refresh_lock_in_redis(client_id, server, 0.2))
        with pytest.raises(PermanentError, match="refuses"), refresh_lock_in_redis("a", wrong):
            pass
    with pytest.raises(TransientError), refresh_lock_in_redis("a", server):
        pass


def test_a_killed_process_holds_it_no_more(tmp_path: Path):
    fork = multiprocessing.get_context("spawn")
    is_held = fork.Event()
    process = fork.Process(target=hold, args=(tmp_path, is_held))
    process.start()
    assert is_held.wait(30)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    with refresh_lock_on_this_machine("a", tmp_path, 0.2):
        pass


def hold(folder: Path, is_held: Event) -> None:
    with refresh_lock_on_this_machine("a", folder, 0.2):
        is_held.set()
        signal.pause()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path):
    no_folder = tmp_path / "a file"
    no_folder.touch()

    with (
        pytest.raises(TransientError, match="TMPDIR"),
        refresh_lock_on_this_machine("a", no_folder, 0.2),
    ):
        pass
