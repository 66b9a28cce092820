"""What the sandbox has been asked, for tests and for people; no secrets."""

from collections import Counter, deque
from typing import Any

from include.sandbox.clock import Clock
from include.sandbox.throttle import SlidingWindow

REFUSALS_KEPT = 200


class Journal:
    """Counts of requests since the last reset, and the last refusals with their reasons."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget everything noted so far."""
        self._counts: dict[str, Counter[str]] = {}
        self._refusals: deque[dict[str, Any]] = deque(maxlen=REFUSALS_KEPT)
        self._window = SlidingWindow(self._clock)
        self._contact_tasks_queried = 0
        self._media_bytes = 0

    def note(self, endpoint: str, outcome: str, path: str, reason: str) -> None:
        """Note one request: its status (or the fault that left it without one).

        ``path`` comes without its query, which may be a secret.
        """
        self._counts.setdefault(endpoint, Counter())[outcome] += 1
        if endpoint in ("tasks", "captures", "search"):
            self._window.add()
        if outcome.startswith("4"):
            self._refusals.append(
                {
                    "at_ms": self._clock.now_ms(),
                    "endpoint": endpoint,
                    "status": int(outcome),
                    "path": path,
                    "reason": reason,
                }
            )

    def note_contact_tasks_queried(self, count: int) -> None:
        """Note how many ids a captures query carried."""
        self._contact_tasks_queried += count

    def note_media_bytes(self, count: int) -> None:
        """Note how many bytes of a media body were handed to the network."""
        self._media_bytes += count

    def report(self) -> dict[str, Any]:
        """Everything noted, as ``GET /sandbox/requests`` shows it."""
        return {
            "counts": {name: dict(counts) for name, counts in sorted(self._counts.items())},
            "max_requests_in_60_seconds": self._window.most,
            "contact_tasks_queried": self._contact_tasks_queried,
            "media_bytes": self._media_bytes,
            "refusals": list(self._refusals),
        }
