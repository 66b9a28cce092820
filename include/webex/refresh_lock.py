"""Lets one process at a time refresh a client's token pair: each refresh may end the token that buys the next."""

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from include.domain.errors import TransientError
from include.webex.rate_budget import fingerprint_of

# Longer than the slowest refresh, which begins no request after its first five minutes.
MAX_WAIT_SECONDS = 600.0


@contextmanager
def refresh_lock_on_this_machine(
    client_id: str, folder: Path | None = None, wait_seconds: float = MAX_WAIT_SECONDS
) -> Generator[None]:
    """Held by one process of this machine's user at a time; the kernel frees it when that process dies.

    Raises:
        TransientError: Another process holds it all the time, or the folder cannot be written.
    """
    folder = folder or Path(tempfile.gettempdir())
    path = folder / f"wxcc-token-{os.getuid()}-{fingerprint_of(client_id)}.lock"
    lock = FileLock(path, timeout=wait_seconds)
    try:
        lock.acquire()
    except Timeout:
        raise another_refreshes(wait_seconds) from None
    except OSError as error:
        raise TransientError(
            f"The lock of the refresh cannot be kept in the folder for temporary files ({type(error).__name__}): "
            "free some room, or set TMPDIR to a folder that this user may write to."
        ) from None
    try:
        yield
    finally:
        lock.release()


def another_refreshes(wait_seconds: float) -> TransientError:
    """What to raise when the lock is not to be had."""
    return TransientError(
        f"Another process has been refreshing the access token for {wait_seconds:.0f} s: look for one that hangs."
    )
