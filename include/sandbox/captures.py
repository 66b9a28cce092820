"""Which captures a contact task has, when each appears, changes and disappears."""

from dataclasses import dataclass
from typing import Any, Literal

from include.sandbox.bodies import Form
from include.sandbox.contact_centre import HOUR_MS, ContactCentre, ContactTask, customer_address
from include.sandbox.draws import Draws, draw_uuid

Kind = Literal["recording", "transcript", "screen_recording"]
ShownWith = Literal["always", "stitched", "segments", "va", "screen", "versions"]

_LANGUAGES = ("en-US", "en-US", "en-GB", "de-DE", "es-ES")
_CONFIGURATIONS = ("cfg-id-101", "cfg-id-102", "cfg-id-103")
_DIGITAL = {"email": ("email", "email"), "chat": ("chat", "chat"), "social": ("sms", "facebook")}
_ODD_NAMES = (
    "../../{name}",
    "M\u00fcller \u6f22\u5b57 {name}",
    "a b+c%2F&d=e#{name}",
    "line\nbreak\u202e{name}",
    "/absolute/{name}",
    "x" * 240 + "{name}",
)

# Positions of a contact task's capture draws.
_DELAY, _TRANSCRIPT_DELAY, _LATE, _NEVER, _PURGED, _RESTITCHED, _LATE_SEGMENT, _SEGMENTS = range(8)
_CONSULT, _VA, _SCREEN, _TRANSCRIPT, _VCON, _BOTH, _LATE_TRANSCRIPT, _LANGUAGE = range(8, 16)


@dataclass(frozen=True, slots=True)
class CaptureFlags:
    """The four flags of a captures query that decide which captures are shown."""

    include_segments: bool = False
    include_va: bool = False
    include_screen: bool = False
    include_all_digital: bool = False

    def show(self, capture: "Capture") -> bool:
        """Whether a query with these flags answers the capture.

        Documented: segments instead of the stitched recording; consult in both; virtual
        agent, screen and second digital versions only when asked for.
        """
        return {
            "always": True,
            "stitched": not self.include_segments,
            "segments": self.include_segments,
            "va": self.include_va,
            "screen": self.include_screen,
            "versions": self.include_all_digital,
        }[capture.shown_with]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One recording, transcript or screen recording; times are epoch milliseconds."""

    kind: Kind
    shown_with: ShownWith
    form: Form
    id: str
    object_id: str
    file_name: str
    start_ms: int
    stop_ms: int
    available_ms: int
    size_bytes: int
    changed_ms: int | None = None
    purged_ms: int | None = None
    stays_listed: bool = False
    segment: bool | None = None
    call_type: str | None = None
    channel1: str | None = None
    channel2: str | None = None
    participants: tuple[str, ...] = ()
    sensitive: bool | None = None
    source: str | None = None
    provider: str | None = None
    language_code: str | None = None
    agent_id: str | None = None
    screen_id: str | None = None

    def is_purged(self, now_ms: int) -> bool:
        """Whether the bytes are gone: the download URL answers 404."""
        return self.purged_ms is not None and now_ms >= self.purged_ms

    def is_listed(self, now_ms: int) -> bool:
        """Whether a captures query answers it."""
        return now_ms >= self.available_ms and (self.stays_listed or not self.is_purged(now_ms))

    def version(self, now_ms: int) -> int:
        """1 at first; 2 once the recording was stitched anew under the same id."""
        return 2 if self.changed_ms is not None and now_ms >= self.changed_ms else 1

    def metadata(self) -> dict[str, Any]:
        """What the API tells of it besides id, name, URL and times."""
        return {
            "segment": self.segment,
            "call_type": self.call_type,
            "channel1": self.channel1,
            "channel2": self.channel2,
            "participants": list(self.participants),
            "sensitive": self.sensitive,
            "source": self.source,
            "provider": self.provider,
            "language_code": self.language_code,
            "agent_id": self.agent_id,
            "screen_id": self.screen_id,
        }


class CaptureLibrary:
    """The captures of any contact task, made afresh at each question."""

    def __init__(self, centre: ContactCentre) -> None:
        self._centre = centre
        self._scenario = centre.scenario

    def captures_of(self, contact_task: ContactTask) -> list[Capture]:
        """Every capture the contact task ever has, whatever the flags and the moment."""
        scenario = self._scenario
        if not contact_task.has_captures:
            return []
        draws = Draws(self._centre.key, b"captures" + contact_task.name)
        if draws.chance(_NEVER, scenario.never_comes_share):
            return []
        ready_ms = contact_task.ended_ms + 1_000 * draws.between(
            _DELAY, scenario.recording_after_seconds_min, scenario.recording_after_seconds_max
        )
        if draws.chance(_LATE, scenario.late_capture_share):
            ready_ms += int(scenario.late_capture_hours * HOUR_MS)
        if contact_task.channel_type == "telephony":
            found = self._recordings(contact_task, draws, ready_ms)
            found += self._voice_transcripts(contact_task, draws, ready_ms)
        else:
            found = self._digital_transcripts(contact_task, draws, ready_ms)
        return found

    def find(self, contact_task: ContactTask, object_id: str) -> Capture | None:
        """The capture stored under an object id of this contact task."""
        for capture in self.captures_of(contact_task):
            if capture.object_id == object_id:
                return capture
        return None

    def _capture(
        self, contact_task: ContactTask, draws: Draws, label: str, members: dict[str, Any]
    ) -> Capture:
        """A capture of these members; size, ids and name are drawn where they are absent."""
        scenario = self._scenario
        name = contact_task.name + label.encode()
        own = Draws(self._centre.key, b"capture" + name)
        kind: Kind = members["kind"]
        low, high = {
            "recording": (scenario.recording_bytes_min, scenario.recording_bytes_max),
            "transcript": (scenario.transcript_bytes_min, scenario.transcript_bytes_max),
            "screen_recording": (scenario.screen_bytes_min, scenario.screen_bytes_max),
        }[kind]
        members = dict(members)
        members.setdefault("size_bytes", own.between(0, low, high))
        members.setdefault("object_id", draw_uuid(self._centre.key, b"object" + name))
        members.setdefault("id", members["object_id"])
        members.setdefault("file_name", members["id"] + ".wav")
        if own.chance(1, scenario.odd_file_names_share):
            odd = own.pick(2, _ODD_NAMES)
            members["file_name"] = odd.replace("{name}", members["file_name"])
        if draws.chance(_PURGED, scenario.purged_share):
            members["purged_ms"] = contact_task.created_ms + int(
                scenario.purged_after_hours * HOUR_MS
            )
            members["stays_listed"] = scenario.purged_stay_listed
        return Capture(**members)

    def _recordings(self, contact_task: ContactTask, draws: Draws, ready_ms: int) -> list[Capture]:
        scenario = self._scenario
        start_ms, stop_ms = contact_task.created_ms, contact_task.ended_ms
        agent = self._centre.agent_id(contact_task.people)
        other = self._centre.agent_id(contact_task.people + 1)
        customer = customer_address(contact_task)
        masked = customer[:4] + "****" + customer[-4:]
        common: dict[str, Any] = {
            "kind": "recording",
            "form": "wav",
            "segment": False,
            "start_ms": start_ms,
            "stop_ms": stop_ms,
            "available_ms": ready_ms,
            "channel1": "Caller",
            "channel2": "Agent",
            "call_type": "main",
            "participants": (agent, masked),
        }
        late_segment = draws.chance(_LATE_SEGMENT, scenario.late_segment_share)
        changed_ms = None
        if late_segment:
            changed_ms = ready_ms + int(scenario.late_segment_hours * HOUR_MS)
        elif draws.chance(_RESTITCHED, scenario.restitched_share):
            changed_ms = ready_ms + int(scenario.restitched_after_hours * HOUR_MS)
        stitched = self._capture(
            contact_task,
            draws,
            "stitched",
            common
            | {
                "shown_with": "stitched",
                # Reported: a stitched recording bears the contact task's id and always this name.
                "id": contact_task.id,
                "object_id": contact_task.id,
                "file_name": "combinedRecordings.wav",
                "changed_ms": changed_ms,
            },
        )
        found = [stitched]
        count = draws.between(_SEGMENTS, 1, scenario.segments_max)
        span_ms = (stop_ms - start_ms) // (count + late_segment)
        for place in range(count + late_segment):
            part: dict[str, Any] = common | {
                "shown_with": "segments",
                "segment": True,
                "start_ms": start_ms + place * span_ms,
                "stop_ms": start_ms + (place + 1) * span_ms,
                "size_bytes": max(stitched.size_bytes // count, scenario.recording_bytes_min),
            }
            if place:
                part |= {"channel2": "Others", "participants": (agent, other, masked)}
            if place == count:
                part["available_ms"] = changed_ms
            found.append(self._capture(contact_task, draws, f"segment{place}", part))
        if draws.chance(_CONSULT, scenario.consult_share):
            consult = common | {
                "shown_with": "always",
                "channel1": "Agent",
                "call_type": "consult",
                "participants": (agent, other),
            }
            found.append(self._capture(contact_task, draws, "consult", consult))
        if draws.chance(_VA, scenario.va_share):
            va = common | {
                "shown_with": "va",
                "channel2": "VA",
                "call_type": "va-consult" if contact_task.form & 4 else "va-main",
                "participants": (f"va-{other[:8]}", masked),
                "sensitive": bool(contact_task.form & 8),
            }
            found.append(self._capture(contact_task, draws, "va", va))
        if draws.chance(_SCREEN, scenario.screen_share):
            screen: dict[str, Any] = {
                "kind": "screen_recording",
                "form": "mp4",
                "shown_with": "screen",
                "file_name": "screenRecording.mp4",
                "start_ms": start_ms,
                "stop_ms": stop_ms,
                "available_ms": ready_ms,
                "agent_id": agent,
                "screen_id": f"screen-{contact_task.form % 3}",
            }
            found.append(self._capture(contact_task, draws, "screen", screen))
        return found

    def _transcript_ready_ms(self, draws: Draws, ready_ms: int) -> int:
        scenario = self._scenario
        ready_ms += 1_000 * draws.between(
            _TRANSCRIPT_DELAY,
            scenario.transcript_after_seconds_min,
            scenario.transcript_after_seconds_max,
        )
        if draws.chance(_LATE_TRANSCRIPT, scenario.late_transcript_share):
            ready_ms += int(scenario.late_transcript_hours * HOUR_MS)
        return ready_ms

    def _voice_transcripts(
        self, contact_task: ContactTask, draws: Draws, ready_ms: int
    ) -> list[Capture]:
        scenario = self._scenario
        if not draws.chance(_TRANSCRIPT, scenario.transcript_share):
            return []
        common: dict[str, Any] = {
            "kind": "transcript",
            "shown_with": "always",
            # Documented: the id is that of a configuration, so it is shared by many.
            "id": _CONFIGURATIONS[contact_task.people % len(_CONFIGURATIONS)],
            "start_ms": contact_task.created_ms,
            "stop_ms": contact_task.ended_ms,
            "available_ms": self._transcript_ready_ms(draws, ready_ms),
            "provider": "CISCO",
            "language_code": draws.pick(_LANGUAGE, _LANGUAGES),
        }
        # Documented: a vCon made from a recording may keep the older source and name.
        recorded: dict[str, Any] = {
            "source": "recording",
            "file_name": "voiceTranscript.json",
            "form": "legacy" if contact_task.form & 48 else "vcon",
        }
        realtime: dict[str, Any] = {
            "source": "realtime-voice",
            "file_name": "realtimeVoiceTranscript.json",
            "form": "vcon",
        }
        if draws.chance(_BOTH, scenario.both_transcripts_share):
            recorded["form"] = "legacy"
            if scenario.same_name_transcripts:
                realtime = recorded | {"form": "vcon"}
            pair = [recorded, realtime]
        else:
            pair = [realtime if draws.chance(_VCON, scenario.vcon_share) else recorded]
        return [
            self._capture(contact_task, draws, f"voice{place}", common | each)
            for place, each in enumerate(pair)
        ]

    def _digital_transcripts(
        self, contact_task: ContactTask, draws: Draws, ready_ms: int
    ) -> list[Capture]:
        source, stem = _DIGITAL[contact_task.channel_type]
        common: dict[str, Any] = {
            "kind": "transcript",
            "id": f"CS{contact_task.people:08X}{contact_task.form:08X}",
            "file_name": f"{stem}Transcript.json",
            "start_ms": contact_task.created_ms,
            "stop_ms": contact_task.ended_ms,
            "available_ms": self._transcript_ready_ms(draws, ready_ms),
            "source": source,
            "provider": "CISCO",
            "language_code": draws.pick(_LANGUAGE, _LANGUAGES),
        }
        found = [
            self._capture(
                contact_task,
                draws,
                "digital",
                common | {"shown_with": "always", "form": "digital"},
            )
        ]
        if draws.chance(_BOTH, self._scenario.digital_both_share):
            newer: dict[str, Any] = {"shown_with": "versions", "form": "digital-versioned"}
            if not self._scenario.same_name_transcripts:
                newer["file_name"] = f"{stem}TranscriptV2.json"
            found.append(self._capture(contact_task, draws, "versioned", common | newer))
        return found
