"""The budget of a client id over many processes, in a folder and in a real Redis server."""

import fcntl
import logging
import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Event as SharedEvent
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from pyrate_limiter import GCRA, Decision, InMemoryStateStore, Rate

from include.domain.errors import PermanentError, TransientError
from include.webex.rate_budget import (
    MAX_PAUSE_SECONDS,
    SLACK_SECONDS,
    FileBudgetStore,
    SharedRateBudget,
)
from include.webex.rate_budget_in_redis import RedisBudgetStore, RedisServer
from tests.redis_server import a_free_port, a_redis_server

pytestmark = pytest.mark.enable_socket  # to Redis and to the server that counts

CLIENT_ID = "a-client-id"
PASSWORD = "a-password-that-nobody-may-see-77"
WINDOW_SECONDS = 3.0
PER_WINDOW = 60
PROCESSES = 20
# The forkserver imports all this once, not twenty times.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Place:
    """Tells another process where the budget is kept."""

    folder: Path
    redis_port: int | None = None

    def store(self, client_id: str = CLIENT_ID) -> FileBudgetStore | RedisBudgetStore:
        if self.redis_port is None:
            return FileBudgetStore(client_id, self.folder)
        server = RedisServer("127.0.0.1", self.redis_port, password=SecretStr(PASSWORD))
        return RedisBudgetStore(client_id, server)

    def budget(self, per_window: int = PER_WINDOW, client_id: str = CLIENT_ID) -> SharedRateBudget:
        return SharedRateBudget(self.store(client_id), per_window, WINDOW_SECONDS)


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = a_free_port()
    with a_redis_server(tmp_path_factory.mktemp("redis"), port, PASSWORD):
        yield port


@pytest.fixture(params=["on this machine", "in Redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "on this machine":
        return Place(tmp_path)
    port = request.getfixturevalue("redis_port")
    with redis.Redis(port=port, password=PASSWORD) as client:
        client.flushdb()
    return Place(tmp_path, port)


def _send_until(place: Place, address: tuple[str, int], end_time: float) -> None:
    budget = place.budget()
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        while time.monotonic() < end_time:
            budget.acquire()
            client.sendto(b"a request", address)


def most_in_a_window(times: list[float], seconds: float) -> int:
    return max(sum(1 for time in times if first <= time < first + seconds) for first in times)


def test_twenty_processes_keep_to_the_budget_and_use_it_up(place: Place):
    """By the clock of the server that counts."""
    begun = time.monotonic()
    end_time = begun + 7
    arrivals: list[float] = []
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.2)
        workers = [
            _processes.Process(target=_send_until, args=(place, server.getsockname(), end_time))
            for _ in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            try:
                server.recv(100)
            except TimeoutError:
                continue
            arrivals.append(time.monotonic())

    assert all(worker.exitcode == 0 for worker in workers)
    assert most_in_a_window(arrivals, WINDOW_SECONDS) <= PER_WINDOW
    used = [time for time in arrivals if time <= end_time]
    could_use = (end_time - used[0]) * PER_WINDOW / (WINDOW_SECONDS + SLACK_SECONDS)
    assert len(used) >= 0.95 * could_use


def test_who_spends_waits_for_who_is_spending(tmp_path: Path):
    """What the test above sees by chance: the second looks only at what the first has written."""
    first_is_spending, first_may_go_on = Event(), Event()
    seen: list[tuple[float, ...]] = []

    class Watched(GCRA):
        def step(
            self, rates: list[Rate], state: tuple[float, ...], now: int, weight: int
        ) -> tuple[tuple[float, ...], Decision]:
            seen.append(state)
            first_is_spending.set()
            assert len(seen) > 1 or first_may_go_on.wait(30)
            return super().step(rates, state, now, weight)

    def spend() -> Decision:
        return FileBudgetStore(CLIENT_ID, tmp_path).check(
            Watched(), [Rate(1, 60_000)], 1_000_000, 1
        )

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(spend)
        assert first_is_spending.wait(30)
        second = pool.submit(spend)
        with pytest.raises(TimeoutError):
            second.result(0.3)
        first_may_go_on.set()
        assert first.result(30).allowed
        assert not second.result(30).allowed
    assert seen[0] != seen[1]


class SteppedStore(InMemoryStateStore):
    """In memory, by a clock that only sleeping moves, always a little too far."""

    LATE_MS = 4

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000_000

    def look(self) -> tuple[int, int]:
        return self.now_ms, 0

    def pause(self, milliseconds: int) -> None:
        raise AssertionError(milliseconds)

    def sleep(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000) + self.LATE_MS


@pytest.mark.parametrize("per_minute", [1, 2, 49, 50, 99, 100, 300, 3_000])
def test_every_minute_fits_and_is_nearly_full(per_minute: int):
    store = SteppedStore()
    budget = SharedRateBudget(store, per_minute, sleep=store.sleep)
    times: list[int] = []
    while store.now_ms < 1_000_000 + 180_000:
        budget.acquire()
        times.append(store.now_ms)

    way_ms = int(SLACK_SECONDS * 1000) - 1  # of the last request, where the first needed none
    for first, after in zip(times, times[per_minute:], strict=False):
        assert after - first > 60_000 + way_ms
    assert len([time for time in times if time < 1_000_000 + 180_000]) >= 0.95 * 3 * per_minute


def test_a_pause_holds_for_all_who_share_the_budget(place: Place):
    place.budget().pause(0.7)
    place.budget().pause(0.1)  # the longer one stays
    begun = time.monotonic()
    place.budget(client_id="another").acquire()

    assert time.monotonic() - begun < 0.5

    place.budget().acquire()

    assert 0.6 < time.monotonic() - begun < 5


def test_a_pause_is_never_longer_than_ten_minutes(place: Place):
    store = place.store()
    SharedRateBudget(store, PER_WINDOW).pause(90_000)
    _, left_ms = store.look()

    assert 0 < left_ms <= MAX_PAUSE_SECONDS * 1000


def test_a_clock_that_was_set_back_blocks_nobody(place: Place):
    SharedRateBudget(place.store(), 1, 100_000).acquire()  # the next one in a day, as it seems then
    begun = time.monotonic()
    place.budget().acquire()

    assert time.monotonic() - begun < 2


def test_another_client_id_has_a_budget_of_its_own(place: Place):
    one_a_minute = [place.budget(1, client_id) for client_id in (CLIENT_ID, "another")]
    begun = time.monotonic()
    for budget in one_a_minute:
        budget.acquire()

    assert time.monotonic() - begun < WINDOW_SECONDS


def _acquire_for_ever(place: Place, started: SharedEvent) -> None:
    budget = place.budget(60_000)
    while True:
        budget.acquire()
        started.set()


def _hold_the_lock(place: Place, started: SharedEvent) -> None:
    (state_path,) = place.folder.glob("*.state")
    with state_path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        started.set()
        time.sleep(60)


@pytest.mark.parametrize("target", [_acquire_for_ever, _hold_the_lock])
def test_a_process_killed_in_the_middle_does_not_block_the_others(
    tmp_path: Path, target: Callable[[Place, SharedEvent], None]
):
    place = Place(tmp_path)
    place.budget().acquire()
    started = _processes.Event()
    worker = _processes.Process(target=target, args=(place, started))
    worker.start()
    assert started.wait(60)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)
    begun = time.monotonic()
    place.budget().acquire()

    assert time.monotonic() - begun < 5


def test_files_tell_no_client_id_and_half_of_one_counts_as_none(tmp_path: Path):
    place = Place(tmp_path)
    place.budget().acquire()
    place.budget().pause(0.01)
    for path in tmp_path.iterdir():
        assert CLIENT_ID not in path.name
        path.write_text("17x")

    place.budget().acquire()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path):
    no_folder = tmp_path / "a-file"
    budget = SharedRateBudget(FileBudgetStore(CLIENT_ID, no_folder), 5)
    no_folder.touch()

    for use in (budget.acquire, lambda: budget.pause(5)):
        with pytest.raises(TransientError, match="TMPDIR"):
            use()


def test_a_redis_server_that_was_restarted_is_spoken_to_again(tmp_path: Path):
    place = Place(tmp_path, a_free_port())
    budget = place.budget()
    for _ in range(2):
        with a_redis_server(tmp_path, place.redis_port or 0, PASSWORD):
            budget.acquire()


def test_the_clock_of_a_worker_that_is_wrong_is_not_asked(
    redis_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + 3_600)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 3_600 * 10**9)

    now_ms, _ = Place(tmp_path, redis_port).store().look()

    assert abs(now_ms / 1000 - real()) < 60


def test_without_its_redis_server_nothing_is_sent(tmp_path: Path):
    budget = Place(tmp_path, a_free_port()).budget()

    for use in (budget.acquire, lambda: budget.pause(1)):
        with pytest.raises(TransientError, match="connection wxcc_rate_budget"):
            use()


def test_a_refused_password_is_a_wrong_setting_and_is_never_shown(
    redis_port: int, caplog: pytest.LogCaptureFixture
):
    wrong = PASSWORD + "-wrong"
    server = RedisServer("127.0.0.1", redis_port, password=SecretStr(wrong))
    with caplog.at_level(logging.DEBUG), pytest.raises(PermanentError, match="password") as raised:
        SharedRateBudget(RedisBudgetStore(CLIENT_ID, server), 5).acquire()

    told = "".join(traceback.format_exception(raised.value)) + caplog.text + repr(server)
    assert PASSWORD not in told


FIELDS: dict[str, Any] = {
    "host": "redis", "port": None, "schema": None, "login": None, "password": None, "ssl": None
}  # fmt: skip


def test_the_fields_of_the_connection_have_the_defaults_of_redis():
    assert RedisServer.from_fields(**FIELDS) == RedisServer("redis", 6379, 0)


def test_the_fields_of_the_connection_are_taken():
    server = RedisServer.from_fields(
        host="redis", port=6380, schema="1", login="me", password="x", ssl="true"
    )

    assert server == RedisServer("redis", 6380, 1, "me", SecretStr("x"), is_tls=True)


@pytest.mark.parametrize(("name", "value"), [("host", ""), ("schema", "first")])
def test_an_unusable_field_of_the_connection_is_named(name: str, value: Any):
    with pytest.raises(PermanentError, match=f"wxcc_rate_budget is not usable: its {name}"):
        RedisServer.from_fields(**{**FIELDS, name: value})
