"""Which contact tasks exist, and what the API tells of each at a given moment."""

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from include.sandbox.draws import Draws, draw_uuid
from include.sandbox.identifiers import ContactTaskIds
from include.sandbox.scenario import Scenario

HOUR_MS = 3_600_000

CHANNEL_TYPES = ("telephony", "email", "chat", "social")

_AGENTS = ("Ada Example", "Grace Sample", "Alan Muster", "Mary Placeholder", "Kurt Beispiel")
_QUEUES = ("Q_Main", "Q_Billing", "Q_Support", "Q_Sales")
_REASONS = ("Credit", "Billing", "Delivery", "Complaint")
_DIRECTIONS = ("inbound", "inbound", "inbound", "outbound", "outdial")

_QUEUED_AFTER_MS = 2_000
_ASSIGNED_AFTER_MS = 15_000

# Positions of a contact task's draws.
_JITTER, _TIE, _CHANNEL, _LENGTH, _LONG, _ABANDONED, _CAPTURED, _KNOWN = range(8)
_UNKNOWN, _NEVER_KNOWN, _FLIPS, _LISTED_LATE, _OWNER, _QUEUE, _PEOPLE, _FORM = range(8, 16)


@dataclass(frozen=True, slots=True)
class ContactTask:
    """One contact task with all that will ever be true of it; times are epoch ms."""

    id: str
    name: bytes
    created_ms: int
    ended_ms: int
    listed_ms: int
    requested_known_ms: float
    requested_flips_ms: int
    channel_type: str
    is_abandoned: bool
    has_captures: bool
    people: int
    form: int
    has_owner: bool
    has_queue: bool


class ContactCentre:
    """A pure function of the scenario: nothing is stored, any hour can be asked for.

    Contact tasks are ordered by creation time within an hour, so a list can begin anywhere
    after a binary search and a lookup by id touches one contact task only.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.key = blake2b(str(scenario.seed).encode(), digest_size=32).digest()
        self._ids = ContactTaskIds(self.key)
        self._agents = [
            {"id": draw_uuid(self.key, b"agent" + name.encode()), "name": name} for name in _AGENTS
        ]
        self._queues = [
            {"id": draw_uuid(self.key, b"queue" + name.encode()), "name": name} for name in _QUEUES
        ]
        weights = (
            scenario.telephony_weight,
            scenario.email_weight,
            scenario.chat_weight,
            scenario.social_weight,
        )
        total = sum(weights) or 1.0
        self._channel_bounds = [
            (sum(weights[: place + 1]) / total, channel)
            for place, channel in enumerate(CHANNEL_TYPES)
            if weights[place]
        ]

    def has_channel(self, channel_type: str) -> bool:
        """Whether any contact task can be of this channel."""
        return any(channel == channel_type for _, channel in self._channel_bounds)

    def count(self, hour: int) -> int:
        """Contact tasks created in an hour since the epoch, whether yet or later."""
        scenario = self.scenario
        if not self._begins_by(hour) or not self._channel_bounds:
            return 0
        if scenario.empty_hour_share and Draws(self.key, b"hour%d" % hour).chance(
            0, scenario.empty_hour_share
        ):
            return 0
        if not scenario.daily_rhythm:
            return scenario.tasks_per_hour
        swing = math.cos((hour % 24 - 14) * math.tau / 24)
        return round(scenario.tasks_per_hour * (1 + scenario.daily_rhythm * swing))

    def find(self, contact_task_id: str) -> ContactTask | None:
        """The contact task of an id, or None where there is no such contact task."""
        place = self._ids.decode(contact_task_id)
        if place is None or place[1] >= self.count(place[0]):
            return None
        return self._make(*place)

    def created_between(self, from_ms: int, until_ms: int) -> Iterator[ContactTask]:
        """Contact tasks with ``from_ms <= created < until_ms``, in ascending order."""
        hour = max(from_ms, self.scenario.first_task_ms, 0) // HOUR_MS
        while hour * HOUR_MS < until_ms:
            count = self.count(hour)
            first = 0
            if hour * HOUR_MS < from_ms:
                first = bisect_left(
                    range(count), from_ms, key=lambda index, at=hour: self._created_ms(at, index)
                )
            for index in range(first, count):
                contact_task = self._make(hour, index)
                if contact_task.created_ms >= until_ms:
                    return
                yield contact_task
            hour += 1

    def created_between_latest_first(
        self, from_ms: int, until_ms: int, before: str | None = None
    ) -> Iterator[ContactTask]:
        """The same in the reverse order; ``before`` goes on after the contact task of this id."""
        place = None if before is None else self._ids.decode(before)
        if place is None:
            hour = (until_ms - 1) // HOUR_MS
            index = bisect_left(
                range(self.count(hour)), until_ms, key=lambda at: self._created_ms(hour, at)
            )
        else:
            hour, index = place
        while hour * HOUR_MS > from_ms - HOUR_MS and self._begins_by(hour):
            for at in range(index - 1, -1, -1):
                contact_task = self._make(hour, at)
                if contact_task.created_ms < from_ms:
                    return
                yield contact_task
            hour -= 1
            index = self.count(hour)

    def _begins_by(self, hour: int) -> bool:
        return hour >= 0 and hour * HOUR_MS >= self.scenario.first_task_ms

    @property
    def longest_ms(self) -> int:
        """No contact task lasts longer."""
        scenario = self.scenario
        longest_ms = 1_000 * max(scenario.call_seconds_max, scenario.digital_seconds_max)
        if scenario.long_task_share:
            longest_ms += int(scenario.long_task_hours * HOUR_MS)
        return longest_ms

    def connected_ms(self, contact_task: ContactTask) -> int:
        """How long an agent had it, once it has ended."""
        if contact_task.is_abandoned:
            return 0
        return max(0, contact_task.ended_ms - contact_task.created_ms - _ASSIGNED_AFTER_MS)

    def agent_id(self, number: int) -> str:
        """The id of some agent, the same for the same number."""
        return self._agents[number % len(self._agents)]["id"]

    def row(self, contact_task: ContactTask, now_ms: int) -> dict[str, Any]:
        """The contact task as the list shows it now.

        Documented members; ``owner`` and ``queue`` are missing as reported of live systems.
        """
        people = contact_task.people
        status, updated_ms = self._status(contact_task, now_ms)
        attributes: dict[str, Any] = {
            "channelType": contact_task.channel_type,
            "status": status,
            "createdTime": contact_task.created_ms,
            "lastUpdatedTime": updated_ms,
        }
        if status in ("assigned", "completed"):
            agent = self._agents[people % len(self._agents)]
            if contact_task.has_owner:
                attributes["owner"] = agent
            elif people & 7 == 0:
                attributes["owner"] = {"id": agent["id"]}
        if status != "created" and contact_task.has_queue:
            attributes["queue"] = self._queues[people // 8 % len(self._queues)]
        requested = requested_at(contact_task, now_ms)
        how = self.scenario.null_requested_as
        if requested is not None or how == "null" or (how == "mixed" and contact_task.form & 1):
            attributes["captureRequested"] = requested
        attributes["origin"], attributes["destination"] = _ends(contact_task)
        attributes["direction"] = (
            _DIRECTIONS[people % len(_DIRECTIONS)]
            if contact_task.channel_type == "telephony"
            else "inbound"
        )
        if status == "completed" and contact_task.form & 2:
            attributes["reasonCode"] = _REASONS[people % len(_REASONS)]
        if self.scenario.extra_members:
            attributes["sentimentOfTomorrow"] = {"score": people % 100, "labels": ["calm", None]}
        return {"id": contact_task.id, "attributes": attributes}

    def _status(self, contact_task: ContactTask, now_ms: int) -> tuple[str, int]:
        age_ms = now_ms - contact_task.created_ms
        if now_ms >= contact_task.ended_ms:
            status = "abandoned" if contact_task.is_abandoned else "completed"
            # Documented: it may move after closure, and is not a closing time.
            touched_ms = contact_task.ended_ms + contact_task.form % 600_000
            return status, touched_ms if now_ms >= touched_ms else contact_task.ended_ms
        if age_ms < _QUEUED_AFTER_MS:
            return "created", contact_task.created_ms
        if age_ms < _ASSIGNED_AFTER_MS or contact_task.is_abandoned:
            return "queued", contact_task.created_ms + _QUEUED_AFTER_MS
        return "assigned", contact_task.created_ms + _ASSIGNED_AFTER_MS

    def _draws(self, hour: int, index: int) -> Draws:
        return Draws(self.key, b"task%d:%d" % (hour, index))

    def _created_ms(self, hour: int, index: int, draws: Draws | None = None) -> int:
        group = index - index % self.scenario.tied_group_size
        if group != index:
            first = self._draws(hour, group)
            if first.chance(_TIE, self.scenario.tied_share):
                index, draws = group, first
        count = self.count(hour)
        start, stop = index * HOUR_MS // count, (index + 1) * HOUR_MS // count
        draws = draws or self._draws(hour, index)
        return hour * HOUR_MS + draws.between(_JITTER, start, max(start, stop - 1))

    def _make(self, hour: int, index: int) -> ContactTask:
        scenario = self.scenario
        draws = self._draws(hour, index)
        created_ms = self._created_ms(hour, index, draws)
        channel_type = next(
            (channel for bound, channel in self._channel_bounds if draws.chance(_CHANNEL, bound)),
            self._channel_bounds[-1][1],
        )
        if channel_type in ("telephony", "chat"):
            low, high = scenario.call_seconds_min, scenario.call_seconds_max
        else:
            low, high = scenario.digital_seconds_min, scenario.digital_seconds_max
        ended_ms = created_ms + draws.between(_LENGTH, low * 1_000, high * 1_000)
        if draws.chance(_LONG, scenario.long_task_share):
            ended_ms += int(scenario.long_task_hours * HOUR_MS)
        is_abandoned = draws.chance(_ABANDONED, scenario.abandoned_share)
        has_captures = not is_abandoned and draws.chance(_CAPTURED, scenario.captured_share)
        known_ms: float = ended_ms + draws.between(
            _KNOWN, 0, scenario.requested_known_after_seconds * 1_000
        )
        if draws.chance(_UNKNOWN, scenario.requested_unknown_share):
            known_ms += scenario.requested_unknown_hours * HOUR_MS
        if draws.chance(_NEVER_KNOWN, scenario.requested_never_known_share):
            known_ms = math.inf
        flips_ms = 0
        if has_captures and draws.chance(_FLIPS, scenario.requested_flips_share):
            flips_ms = ended_ms + int(scenario.requested_flips_after_hours * HOUR_MS)
        listed_ms = created_ms
        if draws.chance(_LISTED_LATE, scenario.late_listed_share):
            listed_ms += int(scenario.late_listed_minutes * 60_000)
        return ContactTask(
            id=self._ids.encode(hour, index),
            name=b"%d:%d" % (hour, index),
            created_ms=created_ms,
            ended_ms=ended_ms,
            listed_ms=listed_ms,
            requested_known_ms=known_ms,
            requested_flips_ms=flips_ms,
            channel_type=channel_type,
            is_abandoned=is_abandoned,
            has_captures=has_captures,
            people=draws.between(_PEOPLE, 0, (1 << 32) - 1),
            form=draws.between(_FORM, 0, (1 << 32) - 1),
            has_owner=not draws.chance(_OWNER, scenario.owner_missing_share),
            has_queue=not draws.chance(_QUEUE, scenario.queue_missing_share),
        )


def requested_at(contact_task: ContactTask, now_ms: int) -> bool | None:
    """What ``captureRequested`` tells at a moment; None is "not yet known"."""
    if now_ms < contact_task.requested_known_ms:
        return None
    return contact_task.has_captures and now_ms >= contact_task.requested_flips_ms


def customer_address(contact_task: ContactTask) -> str:
    """The customer's phone number or e-mail address, made up in reserved ranges."""
    number = contact_task.people >> 12
    if contact_task.channel_type == "telephony":
        return f"+1212555{number % 10_000:04d}"
    return f"customer{number % 100_000:05d}@example.com"


def _ends(contact_task: ContactTask) -> tuple[str, str]:
    destination = {
        "telephony": "+18005550100",
        "email": "support@example.org",
        "chat": "https://www.example.org/help",
        "social": "example-page",
    }[contact_task.channel_type]
    return customer_address(contact_task), destination
