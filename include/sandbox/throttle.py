"""The rate limit of a client id: a sliding window of sixty seconds."""

import math
from collections import deque

from include.sandbox.clock import Clock

WINDOW_SECONDS = 60.0


class SlidingWindow:
    """Times of the last sixty seconds, and the most there ever were in such a window."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._times: deque[float] = deque()
        self.most = 0

    def count(self) -> int:
        """How many times lie within the last sixty seconds."""
        since = self._clock.monotonic_seconds() - WINDOW_SECONDS
        while self._times and self._times[0] <= since:
            self._times.popleft()
        return len(self._times)

    def add(self) -> None:
        """Note that something happened now."""
        self._times.append(self._clock.monotonic_seconds())
        self.most = max(self.most, self.count())

    def seconds_until_below(self, limit: int) -> float:
        """How long until fewer than ``limit`` times are within the window; 0 if so already."""
        surplus = self.count() - limit
        if surplus < 0:
            return 0.0
        return self._times[surplus] + WINDOW_SECONDS - self._clock.monotonic_seconds()


class Throttle:
    """Documented: so many requests a minute for a client id, over all its endpoints.

    There is one client id here. The token endpoint and the media host do not count
    (inferred). A throttled request is not processed and uses up nothing.
    """

    def __init__(self, clock: Clock, requests_per_minute: int) -> None:
        self._limit = requests_per_minute
        self._accepted = SlidingWindow(clock)

    def admit(self) -> int:
        """0 where the request may proceed, else the whole seconds to wait."""
        if not self._limit:
            return 0
        seconds = self._accepted.seconds_until_below(self._limit)
        if seconds > 0:
            return max(1, math.ceil(seconds))
        self._accepted.add()
        return 0
