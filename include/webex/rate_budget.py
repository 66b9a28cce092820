"""The rate budget of a client id, shared by everything that runs at once under it.

How many requests a minute, and until when none at all: both are one small state, kept where all processes
see it. `FileBudgetStore` keeps it for one machine, `include.webex.rate_budget_in_redis` for many.
"""

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from pyrate_limiter import GCRA, Decision, Rate, StateAlgorithm, StateStore

from include.domain.errors import TransientError

# A request is counted here when it is sent and there when it arrives; a second more or less of that way
# keeps every window on the server's clock within the budget.
SLACK_SECONDS = 1.0
MAX_PAUSE_SECONDS = 600.0


class RateBudget(Protocol):
    """Grants one API request at a time."""

    def acquire(self) -> None:
        """Return when one more request may be sent."""
        ...

    def pause(self, seconds: float) -> None:
        """Have nobody who shares the budget send anything for so long; at most ten minutes."""
        ...


class BudgetStore(Protocol):
    """Where the state of a budget is, with the one clock that all who share it go by."""

    def look(self) -> tuple[int, int]:
        """The milliseconds of the store's clock, and how many of them a pause still lasts."""
        ...

    def check(
        self, algorithm: StateAlgorithm, rates: list[Rate], now: int, weight: int
    ) -> Decision:
        """Spend ``weight`` requests where the state allows it, or tell how long to wait; atomic."""
        ...

    def pause(self, milliseconds: int) -> None:
        """Begin a pause; one that lasts longer already stays."""
        ...

    def reset(self) -> None:
        """Forget what was spent."""
        ...


class SharedRateBudget:
    """At most ``requests_per_minute`` requests in any 60 s, over all processes that use the same store.

    They are spread over the minute instead of sent at once: who waits, waits for the next place and not
    for the next minute (docs/decisions/0012-rate-budget.md).
    """

    def __init__(
        self,
        store: BudgetStore,
        requests_per_minute: int,
        window_seconds: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._sleep = sleep
        self._interval_ms = int((window_seconds + SLACK_SECONDS) * 1000)
        # A hundredth may be sent at once, so that a place that was missed by a hair is not lost. It is
        # taken off the rate: any window has room for `limit - 1` places apart and `burst` at once.
        burst = 1 + requests_per_minute // 100
        self._rate = Rate(requests_per_minute - burst + 1, self._interval_ms, burst)
        self._algorithm = GCRA()

    def acquire(self) -> None:
        """Return when one more request may be sent.

        Raises:
            PermanentError: The store refuses its credentials.
            TransientError: The store is out of reach; nothing is ever sent uncounted.
        """
        while wait_ms := self._milliseconds_to_wait():
            self._sleep(wait_ms / 1000)

    def pause(self, seconds: float) -> None:
        """Have nobody who uses the same store send anything for so long; at most ten minutes.

        Raises:
            ArchiveError: As of `acquire`.
        """
        self._store.pause(int(min(seconds, MAX_PAUSE_SECONDS) * 1000))

    def _milliseconds_to_wait(self) -> int:
        now_ms, pause_ms = self._store.look()
        if pause_ms > 0:
            return pause_ms
        decision = self._store.check(self._algorithm, [self._rate], now_ms, 1)
        if decision.allowed:
            return 0
        wait_ms = decision.retry_after_ms or 1
        if wait_ms > self._interval_ms:  # the clock was set back; without this, all wait it out
            self._store.reset()
            return 1
        return wait_ms


class FileBudgetStore(StateStore):
    """Keeps a budget for the processes of one user on one machine, in the folder for temporary files.

    Who spends holds the file locked; the kernel frees it when a process dies. What is written has always the
    same length and goes in one system call, so no process finds half of it.
    """

    def __init__(self, client_id: str, folder: Path | None = None) -> None:
        folder = folder or Path(tempfile.gettempdir())
        path = str(folder / f"wxcc-rate-budget-{os.getuid()}-{fingerprint_of(client_id)}")
        self._state_path, self._pause_path = Path(f"{path}.state"), Path(f"{path}.pause")

    def look(self) -> tuple[int, int]:
        """See `BudgetStore`."""
        now_ms = time.time_ns() // 1_000_000
        with _telling_the_folder():
            left_ms = next(iter(_numbers_of(self._pause_path)), 0) - now_ms
        # Longer than any pause: the clock was set back.
        return now_ms, left_ms if 0 < left_ms <= MAX_PAUSE_SECONDS * 1000 else 0

    def check(
        self, algorithm: StateAlgorithm, rates: list[Rate], now: int, weight: int
    ) -> Decision:
        """See `BudgetStore`."""
        with self._locked() as state_file:
            state, decision = algorithm.step(rates, self.read(algorithm, rates), now, weight)
            if decision.allowed:
                os.pwrite(state_file, _written(state), 0)
        return decision

    def read(self, algorithm: StateAlgorithm, rates: list[Rate]) -> tuple[float, ...]:
        """What was spent; nothing, where no file tells."""
        state = _numbers_of(self._state_path)
        return state if len(state) == len(rates) else algorithm.initial(rates)

    def pause(self, milliseconds: int) -> None:
        """See `BudgetStore`."""
        with self._locked():
            now_ms, left_ms = self.look()
            if milliseconds > left_ms:
                new_path = self._pause_path.with_suffix(".new")
                new_path.write_bytes(_written([now_ms + milliseconds]))
                new_path.replace(self._pause_path)

    def reset(self) -> None:
        """See `BudgetStore`."""
        with self._locked() as state_file:
            os.ftruncate(state_file, 0)

    @contextmanager
    def _locked(self) -> Generator[int]:
        """The file of the state, for this process alone."""
        with _telling_the_folder():
            state_file = os.open(self._state_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(state_file, fcntl.LOCK_EX)
                yield state_file
            finally:
                os.close(state_file)


def fingerprint_of(client_id: str) -> str:
    """Tells client ids apart in names that anybody may read."""
    return hashlib.sha256(client_id.encode()).hexdigest()[:16]


def _numbers_of(path: Path) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in path.read_bytes().split())
    except (FileNotFoundError, ValueError):
        return ()


def _written(numbers: Sequence[float]) -> bytes:
    return b" ".join(b"%020d" % int(number) for number in numbers)


@contextmanager
def _telling_the_folder() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError(
            f"The rate budget cannot be kept in the folder for temporary files ({type(error).__name__}): free "
            "some room, or set TMPDIR to a folder that this user may write to."
        ) from None
