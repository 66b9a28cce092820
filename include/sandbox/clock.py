"""The sandbox's clock, which can be held still and moved forward."""

import time


class Clock:
    """Real time, or a fixed instant, plus everything it was advanced by.

    ``now_ms`` never runs backwards by itself. ``monotonic_seconds`` always moves with real
    time as well, so that a rate window opens again even where the instant is fixed.
    """

    def __init__(self, fixed_ms: int = 0) -> None:
        self._fixed_ms = fixed_ms
        self._advanced_seconds = 0.0

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as the sandbox sees them."""
        start_ms = self._fixed_ms or time.time_ns() // 1_000_000
        return start_ms + int(self._advanced_seconds * 1_000)

    def monotonic_seconds(self) -> float:
        """Seconds since some moment; only differences mean anything."""
        return time.monotonic() + self._advanced_seconds

    def advance(self, seconds: float) -> None:
        """Move the clock forward.

        Raises:
            ValueError: The seconds are negative.
        """
        if seconds < 0:
            raise ValueError("The clock only moves forward: advance_seconds must not be negative.")
        self._advanced_seconds += seconds
