"""What becomes of a contact task's captures, drawn as a state machine.

::

    captureRequested = false, nothing offered ────────────► none       final
    nothing offered, null or true, young ─────────────────► pending ┐
    something offered, task open or not settled ──────────► pending ┤  looked at again at
    offered without a URL, or a newer version not copied ─► pending ┘  next_check_time
    a copy failed, or the API refuses to tell ────────────► failed     the same, until the horizon;
                                                                       then a person acts
    settled or past the horizon, all offered is copied ───► archived   final
    the same, but something was purged before a copy ─────► gone       final
    past the retention, true and nothing offered ─────────► gone       final
    past the horizon, true and nothing offered ───────────► overdue    final, alerts a person
    past the horizon, what was offered is not all copied ─► overdue    final, alerts a person
    past the horizon, null and nothing offered ───────────► none       final

Settled: its status is closed, and neither it nor the set of its captures changed for the settling time.
Past the retention is past the horizon as well. A final state is left when a listing shows a change of the
contact task (its status opens again, null turns true) or a run that is repeated finds another capture.

``captureRequested`` has three values: null means "not yet known" and is never read as false
(documented: GET /v1/tasks, attribute captureRequested).

The state follows from what is in the row and from the moment of its last check, never from the
clock: whoever merges two rows comes to the same state as one run that saw both.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.domain.rows import CaptureState, ContactTaskRow, Outcome

# The documented statuses after which no new recording starts; a status the API adds counts as open.
CLOSED_STATUSES = frozenset({"completed", "abandoned", "ended"})


@dataclass(frozen=True)
class CapturePolicy:
    """How long captures may take. Webex promises no delay, so these are cautious settings.

    Attributes:
        settling_time: How long after the last update of a contact task, or after its last late capture, the
            set of its captures may still grow (transcripts come after the audio, a recording may be
            stitched again).
        horizon: How long after its creation a contact task is looked at again; an e-mail or social
            task may stay open for days.
        first_check: The shortest distance between two looks at a contact task.
        last_check: The longest. In between, the distance is the age of the contact task: the age
            doubles from look to look, so that a day costs about six queries of ten contact tasks.
        retention: How long after its creation Webex keeps a capture (the org's purge policy), or None
            when it is not known or nothing is purged.
        purge_warning: How long before the end of the retention what is not archived raises an alarm;
            never more than half of the retention.
    """

    settling_time: timedelta = timedelta(days=2)
    horizon: timedelta = timedelta(days=14)
    first_check: timedelta = timedelta(minutes=30)
    last_check: timedelta = timedelta(days=1)
    retention: timedelta | None = None
    purge_warning: timedelta = timedelta(days=7)

    def purge_time(self, created_time: datetime) -> datetime | None:
        """When Webex deletes what was captured of a contact task, as far as it is known."""
        return created_time + self.retention if self.retention else None

    def is_purge_near(self, created_time: datetime, now: datetime) -> bool:
        """Whether what is not archived of a contact task will soon be lost, and is not lost yet."""
        if self.retention is None:
            return False
        left = created_time + self.retention - now
        return timedelta(0) < left <= min(self.purge_warning, self.retention / 2)


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
    last_change_time: datetime | None,
    outcomes: Collection[Outcome],
    is_refused: bool,
    now: datetime,
    policy: CapturePolicy,
) -> CaptureProgress:
    """Where a contact task stands, given the outcome of each capture that was ever offered for it.

    Args:
        capture_requested: As the API told it last; None is not yet known.
        status: The contact task's, as the API writes it.
        created_time: Its creation.
        last_change_time: When it, or the set of its captures, was last seen to change.
        outcomes: One for each capture.
        is_refused: The API refused to tell its captures at the last check.
        now: The moment of the last check.
        policy: The distances.
    """
    purge_time = policy.purge_time(created_time)
    is_purged = purge_time is not None and now >= purge_time
    past_horizon = is_purged or now - created_time >= policy.horizon
    # A distance, not an instant: what is told of the last change may be the end of all time.
    unsettled_for = policy.settling_time - (
        now - max(created_time, last_change_time or created_time)
    )
    is_settled = (status or "").lower() in CLOSED_STATUSES and unsettled_for <= timedelta(0)
    state: CaptureState = "pending"
    if is_refused or "failed" in outcomes:
        state = "failed"
    elif not outcomes:
        if capture_requested is False or (capture_requested is None and past_horizon):
            state = "none"
        elif past_horizon:
            state = "gone" if is_purged else "overdue"
    elif "pending" in outcomes:
        state = "overdue" if past_horizon else "pending"
    elif past_horizon or is_settled:
        state = "gone" if "gone" in outcomes else "archived"
    if past_horizon or state not in {"pending", "failed"}:
        return CaptureProgress(state, None)
    distance = _distance(created_time, now, policy)
    if outcomes and set(outcomes) <= {"copied", "gone"} and unsettled_for > timedelta(0):
        # All that can be had is here: the look that may call it final need not wait for the next doubling.
        distance = min(distance, unsettled_for)
    return CaptureProgress(state, now + distance)


def is_at_risk(row: ContactTaskRow) -> bool:
    """Whether something of a contact task is not archived that a purge would end for good."""
    is_awaited = row.capture_state == "pending" and row.capture_requested and not row.capture_count
    return is_awaited or row.capture_state in {"failed", "overdue"}


def _distance(created_time: datetime, now: datetime, policy: CapturePolicy) -> timedelta:
    """How long to wait for the next look: the age so far, or less where a purge is near."""
    distance = min(max(now - created_time, policy.first_check), policy.last_check)
    purge_time = policy.purge_time(created_time)
    if purge_time is not None and purge_time > now:
        distance = min(distance, max((purge_time - now) / 2, policy.first_check))
    return distance
