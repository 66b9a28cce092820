"""The rate budget of a client id, shared by every process of one machine."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Protocol

from pyrate_limiter import Limiter, limiter_factory

# A request is counted here when it is sent and there when it arrives: one second of slack keeps every
# window of 60 s on the server's clock within the budget.
DEFAULT_WINDOW_SECONDS = 61.0


class RateBudget(Protocol):
    """Grants one API request at a time."""

    def acquire(self) -> None:
        """Return when one more request may be sent."""
        ...


class SharedRateBudget:
    """At most ``requests_per_minute`` requests in any 60 s, over all processes that name the client id.

    The count lies in an SQLite file under the system's folder for temporary files, guarded by a file
    lock that the kernel frees when a process dies (docs/decisions/0002-libraries.md).
    """

    def __init__(
        self,
        client_id: str,
        requests_per_minute: int,
        folder: Path | None = None,
        window_seconds: float = DEFAULT_WINDOW_SECONDS,
    ) -> None:
        fingerprint = hashlib.sha256(client_id.encode()).hexdigest()[:16]
        name = f"wxcc-rate-budget-{os.getuid()}-{fingerprint}.sqlite"
        self._limiter: Limiter = limiter_factory.create_sqlite_limiter(
            rate_per_duration=requests_per_minute,
            duration=int(window_seconds * 1000),
            db_path=str((folder or Path(tempfile.gettempdir())) / name),
            use_file_lock=True,
        )

    def acquire(self) -> None:
        """Return when one more request may be sent; the wait is at most a minute for each one before."""
        self._limiter.try_acquire("api", blocking=True)

    def close(self) -> None:
        """Stop the limiter's own thread and close its file."""
        self._limiter.close()
