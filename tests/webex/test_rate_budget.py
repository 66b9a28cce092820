"""The budget of a client id over several processes, with a real file lock and a short window."""

import multiprocessing
import os
import signal
import time
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

from include.webex.rate_budget import DEFAULT_WINDOW_SECONDS, SharedRateBudget

WINDOW_SECONDS = 0.5
PER_WINDOW = 5
CLIENT_ID = "a-client-id"

_processes = multiprocessing.get_context("spawn")


def a_budget(folder: Path, client_id: str = CLIENT_ID) -> SharedRateBudget:
    return SharedRateBudget(client_id, PER_WINDOW, folder, WINDOW_SECONDS)


def _acquire_many(folder: Path, count: int, start: Barrier) -> None:
    budget = a_budget(folder)
    start.wait()
    granted = []
    for _ in range(count):
        budget.acquire()
        granted.append(time.time())
    budget.close()
    (folder / f"granted-{os.getpid()}").write_text("\n".join(map(repr, granted)))


def _acquire_for_ever(folder: Path, started: Event) -> None:
    budget = a_budget(folder)
    while True:
        budget.acquire()
        started.set()


def _hold_the_lock(folder: Path, started: Event) -> None:
    from filelock import FileLock

    (database,) = folder.glob("*.sqlite")
    with FileLock(f"{database}.lock"):
        started.set()
        time.sleep(60)


def test_processes_share_one_budget_in_every_window(tmp_path: Path):
    start = _processes.Barrier(4)  # all at once: without the file lock they overspend
    workers = [
        _processes.Process(target=_acquire_many, args=(tmp_path, 10, start)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    times = sorted(
        float(line) for path in tmp_path.glob("granted-*") for line in path.read_text().splitlines()
    )

    assert len(times) == 40
    # A busy machine notes a grant late; one too many in a window comes at the same moment as the others.
    slack = WINDOW_SECONDS / 2
    for first, later in zip(times, times[PER_WINDOW:], strict=False):
        assert later - first > WINDOW_SECONDS - slack
    assert times[-1] - times[0] < 40 / PER_WINDOW * WINDOW_SECONDS * 4


def test_a_process_killed_in_the_middle_does_not_block_the_others(tmp_path: Path):
    a_budget(tmp_path).close()
    for target in (_acquire_for_ever, _hold_the_lock):
        started = _processes.Event()
        worker = _processes.Process(target=target, args=(tmp_path, started))
        worker.start()
        assert started.wait(60)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(60)

        budget, begun = a_budget(tmp_path), time.monotonic()
        for _ in range(2):
            budget.acquire()
        budget.close()

        assert time.monotonic() - begun < 5


def test_another_client_id_has_a_budget_of_its_own(tmp_path: Path):
    first, other = a_budget(tmp_path), a_budget(tmp_path, "another")
    for _ in range(PER_WINDOW):
        first.acquire()
    begun = time.monotonic()
    for _ in range(PER_WINDOW):
        other.acquire()

    assert time.monotonic() - begun < WINDOW_SECONDS
    assert not any(CLIENT_ID in path.name for path in tmp_path.iterdir())
    first.close()
    other.close()


def test_a_window_of_the_server_fits_into_one_of_ours():
    assert DEFAULT_WINDOW_SECONDS > 60
