"""What becomes of a contact task's captures, drawn as a state machine.

::

    captureRequested = false ─────────────────────────────► none       final
    nothing offered, null or true, young ─────────────────► pending ┐
    something offered, task open or not settled ──────────► pending ┤  looked at again at
    a capture offered without a URL ──────────────────────► pending ┘  next_check_time
    settled, everything offered is copied ────────────────► archived   final
    settled, something was purged before it was copied ───► gone       final
    a copy failed ────────────────────────────────────────► failed     a person or a re-run acts
    past the horizon, true and nothing offered ───────────► overdue    final, alerts a person
    past the horizon, null and nothing offered ───────────► none       final

``captureRequested`` has three values: null means "not yet known" and is never read as false
(documented: GET /v1/tasks, attribute captureRequested).
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.domain.rows import CaptureState, Outcome

# The documented statuses after which no new recording starts; a status the API adds counts as open.
CLOSED_STATUSES = frozenset({"completed", "abandoned", "ended"})


@dataclass(frozen=True)
class CapturePolicy:
    """How long captures may take. Webex promises no delay, so these are cautious settings.

    Attributes:
        settling_time: How long after a contact task's last update its set of captures may still grow
            (transcripts come after the audio, a recording may be stitched again).
        horizon: How long after its creation a contact task is looked at again; an e-mail or social
            task may stay open for days.
        first_check: The shortest distance between two looks at a contact task.
        last_check: The longest; in between, the distance is half the age of the contact task.
    """

    settling_time: timedelta = timedelta(days=2)
    horizon: timedelta = timedelta(days=14)
    first_check: timedelta = timedelta(minutes=30)
    last_check: timedelta = timedelta(days=1)


@dataclass(frozen=True)
class CaptureProgress:
    """The state of a contact task and when to look again (None: it is final, or a person acts)."""

    state: CaptureState
    next_check_time: datetime | None


def capture_progress(
    *,
    capture_requested: bool | None,
    status: str | None,
    created_time: datetime,
    last_updated_time: datetime | None,
    outcomes: Collection[Outcome],
    now: datetime,
    policy: CapturePolicy,
) -> CaptureProgress:
    """Where a contact task stands, given the outcome of each capture that was ever offered for it."""
    past_horizon = now - created_time >= policy.horizon
    if "failed" in outcomes:
        return CaptureProgress("failed", None)
    if capture_requested is False and not outcomes:
        return CaptureProgress("none", None)
    if not outcomes and past_horizon:
        return CaptureProgress("overdue" if capture_requested else "none", None)
    settled = (status or "").lower() in CLOSED_STATUSES and now - max(
        created_time, last_updated_time or created_time
    ) >= policy.settling_time
    if outcomes and "pending" not in outcomes and (settled or past_horizon):
        return CaptureProgress("gone" if "gone" in outcomes else "archived", None)
    if "pending" in outcomes and past_horizon:
        return CaptureProgress("overdue", None)
    distance = min(max((now - created_time) / 2, policy.first_check), policy.last_check)
    return CaptureProgress("pending", now + distance)
