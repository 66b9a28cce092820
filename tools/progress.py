"""One line that says what is being waited for."""

from __future__ import annotations

import time
from typing import TextIO

PLAIN_LINE_SECONDS = 5.0


class Progress:
    """Rewrites its line on a terminal; elsewhere writes a plain line now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rewrites = stream.isatty()
        self._started = time.monotonic()
        self._last_text = ""
        self._last_time = float("-inf")

    def show(self, text: str) -> None:
        """Show what happens now."""
        now = time.monotonic()
        if self._rewrites:
            self._stream.write(f"\r\033[K{self._clock(now)}  {text}")
        elif text != self._last_text and now - self._last_time >= PLAIN_LINE_SECONDS:
            self._stream.write(f"{self._clock(now)}  {text}\n")
            self._last_text, self._last_time = text, now
        self._stream.flush()

    def finish(self, text: str) -> None:
        """Show what has been reached; the line stays."""
        clear = "\r\033[K" if self._rewrites else ""
        self._stream.write(f"{clear}{self._clock(time.monotonic())}  {text}\n")
        self._stream.flush()
        self._last_text, self._last_time = "", float("-inf")

    def interrupt(self) -> None:
        """Leave the line as it is and go to the next, for another text."""
        if self._rewrites:
            self._stream.write("\n")
            self._stream.flush()

    def _clock(self, now: float) -> str:
        return f"{now - self._started:4.0f} s"
