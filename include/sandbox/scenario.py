"""What the sandbox holds and how it behaves: every knob, with its default.

Each field's annotation carries its one-line description; the command line and the page
of the sandbox are generated from them, so a knob is written down once. A share is a
number of 0 to 1. Where the behaviour of the real service is unknown, the description
says so.
"""

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_type_hints

MAX_WAV_BYTES = 4_000_000_000
MIN_MEDIA_BYTES = 1_024
MAX_CONTACT_TASKS_PER_HOUR = 1 << 26


@dataclass(frozen=True)
class Scenario:
    """A contact centre and the behaviour of its API, as plain values.

    Two sandboxes with equal scenarios hold the same contact tasks, captures and bytes.
    """

    seed: Annotated[int, "Everything held is derived from this number."] = 1
    now_ms: Annotated[int, "Hold the clock at this epoch millisecond; 0 is real time."] = 0

    org_id: Annotated[str, "The organisation."] = "97cdbf45-ebe2-4687-8341-44d5c7abf101"
    token_org_id: Annotated[str, "Organisation tokens are minted for; empty: org_id."] = ""
    client_id: Annotated[str, "Client id of the service app."] = "C0ffee5a9dbox"
    client_secret: Annotated[str, "Client secret of the service app."] = "sandbox-client-secret"  # noqa: S105 - of a stand-in
    scope: Annotated[
        str,
        "Scopes of the tokens; to read, the API wants cjp:config_read, to write, cjp:config_write.",
    ] = "cjp:config_read cjp:config_write"
    client_kind: Annotated[
        Literal["service_app", "integration"],
        "What the client is; only an integration is let in by a person.",
    ] = "service_app"
    redirect_uri: Annotated[str, "Where the integration is called back."] = (
        "http://127.0.0.1:8080/wxcc/callback"
    )
    code_seconds: Annotated[int, "Life of an authorization code. Unknown."] = 600
    helper_client_id: Annotated[str, "Client id of the helper integration."] = "C0ffeehelper"
    helper_client_secret: Annotated[str, "Its client secret."] = "sandbox-helper-secret"  # noqa: S105 - of a stand-in
    helper_scope: Annotated[str, "Scopes of its tokens."] = "spark:applications_token"

    tasks_per_hour: Annotated[int, "Contact tasks created in one hour."] = 40
    daily_rhythm: Annotated[float, "How far hours of the day differ: 0 none, 1 nights empty."] = 0.0
    empty_hour_share: Annotated[float, "Share of hours without any contact task."] = 0.0
    first_task_ms: Annotated[int, "Hours that begin before this epoch millisecond are empty."] = 0
    tied_share: Annotated[float, "Share of groups whose contact tasks share a millisecond."] = 0.1
    tied_group_size: Annotated[int, "Contact tasks in such a group."] = 3
    telephony_weight: Annotated[float, "Weight of telephony in the mix of channels."] = 0.70
    email_weight: Annotated[float, "Weight of e-mail."] = 0.14
    chat_weight: Annotated[float, "Weight of chat."] = 0.10
    social_weight: Annotated[float, "Weight of social messaging."] = 0.06
    call_seconds_min: Annotated[int, "Shortest call (and chat)."] = 30
    call_seconds_max: Annotated[int, "Longest call (and chat)."] = 900
    digital_seconds_min: Annotated[int, "Shortest e-mail or social contact task."] = 300
    digital_seconds_max: Annotated[int, "Longest e-mail or social contact task."] = 7_200
    long_task_share: Annotated[float, "Share of contact tasks that stay open much longer."] = 0.0
    long_task_hours: Annotated[float, "How much longer, in hours."] = 72.0
    abandoned_share: Annotated[float, "Share abandoned before an agent took them."] = 0.08

    captured_share: Annotated[float, "Share of the others that are captured."] = 0.8
    requested_known_after_seconds: Annotated[
        int, "captureRequested is null until up to so long after the end. Unknown."
    ] = 120
    requested_unknown_share: Annotated[float, "Share whose captureRequested is null longer."] = 0.0
    requested_unknown_hours: Annotated[float, "How much longer, in hours."] = 6.0
    requested_never_known_share: Annotated[float, "Share whose captureRequested stays null."] = 0.0
    requested_flips_share: Annotated[
        float, "Share of captured whose captureRequested is false at first. Unknown."
    ] = 0.0
    requested_flips_after_hours: Annotated[float, "When it turns true, in hours."] = 2.0
    null_requested_as: Annotated[
        Literal["mixed", "absent", "null"], "How an unknown captureRequested is written."
    ] = "mixed"
    owner_missing_share: Annotated[
        float, "Share of rows with no (or a partial) owner, as reported; the specification: 0."
    ] = 0.5
    queue_missing_share: Annotated[float, "The same for queue."] = 0.5
    late_listed_share: Annotated[float, "Share of contact tasks listed late. Unknown."] = 0.0
    late_listed_minutes: Annotated[float, "How long after creation these are listed."] = 30.0

    recording_after_seconds_min: Annotated[int, "Soonest recording after the end. Unknown."] = 60
    recording_after_seconds_max: Annotated[int, "Latest recording after the end. Unknown."] = 600
    transcript_after_seconds_min: Annotated[int, "Soonest transcript after the recording."] = 60
    transcript_after_seconds_max: Annotated[int, "Latest transcript after the recording."] = 900
    late_capture_share: Annotated[float, "Share of captured whose captures come late."] = 0.0
    late_capture_hours: Annotated[float, "How late, in hours."] = 24.0
    never_comes_share: Annotated[float, "Share of captured whose captures never come."] = 0.0
    purged_share: Annotated[float, "Share of captured whose captures are purged."] = 0.0
    purged_after_hours: Annotated[float, "When, in hours after creation."] = 48.0
    purged_stay_listed: Annotated[
        bool, "Purged captures stay in the answer, their URL is 404. Unknown."
    ] = False
    restitched_share: Annotated[float, "Share of stitched recordings replaced. Unknown."] = 0.0
    restitched_after_hours: Annotated[float, "When, in hours after the first version."] = 2.0
    late_segment_share: Annotated[float, "Share of calls that get one more segment."] = 0.0
    late_segment_hours: Annotated[float, "When, in hours after the other segments."] = 2.0
    late_transcript_share: Annotated[float, "Share of transcripts that come late."] = 0.0
    late_transcript_hours: Annotated[float, "How late, in hours."] = 24.0

    segments_max: Annotated[int, "Most segments of a call."] = 3
    consult_share: Annotated[float, "Share of captured calls with a consult recording."] = 0.12
    va_share: Annotated[float, "Share of captured calls with a virtual-agent recording."] = 0.15
    screen_share: Annotated[float, "Share of captured calls with a screen recording."] = 0.15
    transcript_share: Annotated[float, "Share of captured calls with a transcript."] = 0.7
    vcon_share: Annotated[float, "Share of these whose transcript is a realtime vCon."] = 0.3
    both_transcripts_share: Annotated[float, "Share of these with both, under one id."] = 0.15
    digital_both_share: Annotated[float, "Share of digital with both generations."] = 0.3
    same_name_transcripts: Annotated[
        bool, "Two transcripts of one contact task share source and fileName too. Unknown."
    ] = False
    recording_bytes_min: Annotated[int, "Smallest recording."] = 20_000
    recording_bytes_max: Annotated[int, "Largest recording."] = 400_000
    transcript_bytes_min: Annotated[int, "Smallest transcript."] = 2_000
    transcript_bytes_max: Annotated[int, "Largest transcript."] = 20_000
    screen_bytes_min: Annotated[int, "Smallest screen recording."] = 50_000
    screen_bytes_max: Annotated[int, "Largest screen recording."] = 500_000
    odd_file_names_share: Annotated[
        float, "Share of captures whose fileName is hostile: dots, slashes, control, bidi."
    ] = 0.0

    from_inclusive: Annotated[bool, "`from` includes its millisecond. Unknown."] = False
    to_inclusive: Annotated[bool, "`to` includes its millisecond. Unknown."] = False
    future_to: Annotated[Literal["accept", "reject"], "A `to` in the future. Unknown."] = "accept"
    rows_max: Annotated[int, "413 for a page of more rows; 0 is never. Unknown."] = 0
    gzip_above_bytes: Annotated[int, "Compress a larger list when asked. Documented: 1 MB."] = (
        1_048_576
    )
    omit_unmatched: Annotated[bool, "Leave out empty entries of captures. Unknown."] = False
    shuffle_order: Annotated[bool, "Answer captures in another order. Unknown."] = False
    transcript_keys: Annotated[
        Literal["mixed", "lower", "upper"], "source or Source; the two documents disagree."
    ] = "mixed"
    time_types: Annotated[
        Literal["documented", "swapped", "mixed"],
        "Documented: numbers on recordings, strings on transcripts.",
    ] = "documented"
    drop_optional_share: Annotated[float, "Share of optional capture members missing."] = 0.0
    extra_members: Annotated[bool, "Add members that no specification knows."] = False
    unknown_flags: Annotated[
        Literal["ignore", "reject"], "Unknown members of a captures query. Unknown."
    ] = "ignore"
    newer_flags: Annotated[
        bool, "Virtual-agent, screen and digital-version flags are known; else as unknown."
    ] = True
    search_query_error: Annotated[
        Literal["http_400", "graphql"], "A bad query: 400, or errors[] in a 200. Unknown."
    ] = "http_400"
    search_unknown_fields: Annotated[
        str, "Fields that search does not know; reported: queue, the earlier name of lastQueue."
    ] = "queue"
    search_variables_in_pagination: Annotated[
        bool, "Variables may be used inside pagination. Unknown."
    ] = False
    search_cursor: Annotated[
        Literal["stable", "shifting"],
        "A page begins after the last row of the one before, or is counted anew. Unknown.",
    ] = "stable"
    search_lag_seconds: Annotated[int, "How far search lags behind the list. Unknown."] = 0
    search_records_max: Annotated[
        int, "Most records of a search; it then ends silently. Documented: 100,000."
    ] = 100_000
    error_body: Annotated[
        Literal["api", "wrapper", "gateway", "html", "empty"], "Shape of API errors. Unknown."
    ] = "api"
    media_content_type: Annotated[
        Literal["by_name", "binary", "absent"], "Content-Type of media. Unknown."
    ] = "by_name"
    media_host: Annotated[str, "host:port in download URLs; empty: the one asked."] = ""

    requests_per_minute: Annotated[int, "Rate limit of a client id; 0 is none."] = 300
    retry_after: Annotated[
        Literal["seconds", "absent", "date"], "Form of Retry-After. Documented: seconds."
    ] = "seconds"

    access_token_seconds: Annotated[int, "Life of an access token. Documented: 14 days."] = (
        1_209_600
    )
    refresh_token_seconds: Annotated[int, "Life of a refresh token. Documented: 90 days."] = (
        7_776_000
    )
    rotate_refresh_token: Annotated[bool, "A refresh gives a new refresh token. Unknown."] = True
    omit_refresh_token: Annotated[bool, "A refresh answers no refresh token. Unknown."] = False
    revoke_old_refresh_token: Annotated[bool, "A rotated token is dead at once. Unknown."] = False
    revoke_old_access_token: Annotated[bool, "A refresh kills older access tokens. Unknown."] = (
        False
    )
    token_error: Annotated[
        Literal["oauth", "wrapper", "html", "empty"],
        "Shape of token errors; the first two are reported.",
    ] = "oauth"  # noqa: S105 - a shape, not a secret

    subscriptions_max: Annotated[int, "Most subscriptions of the organisation."] = 20
    subscriptions_of_v1: Annotated[int, "How many of them version 1 made, which only count."] = 0
    deliver_events_to: Annotated[
        str,
        "Send events here instead of to the public address of their subscription; empty: send none.",
    ] = ""
    event_lost_share: Annotated[float, "Share of events that are never sent."] = 0.0
    event_twice_share: Annotated[float, "Share of events that are sent twice."] = 0.0
    event_forged_share: Annotated[float, "Share of events under a wrong signature."] = 0.0
    event_old_share: Annotated[float, "Share of events an hour old, under a right signature."] = 0.0
    shuffle_events: Annotated[bool, "Send the events of a batch in another order."] = False

    faults: Annotated[str, "Faults from the start: JSON as for POST /sandbox/faults."] = "[]"

    def __post_init__(self) -> None:
        """Refuse a scenario that cannot be held.

        Raises:
            ValueError: A value is out of its range; the message names the knob.
        """
        for knob in knobs():
            value = getattr(self, knob.name)
            if knob.choices and value not in knob.choices:
                raise ValueError(f"{knob.name} must be one of {', '.join(knob.choices)}.")
            if knob.kind in (int, float) and value < 0:
                raise ValueError(f"{knob.name} must not be negative.")
            if knob.name.endswith("_share") and value > 1:
                raise ValueError(f"{knob.name} is a share: at most 1.")
        for name in (
            "call_seconds",
            "digital_seconds",
            "recording_after_seconds",
            "transcript_after_seconds",
            "recording_bytes",
            "transcript_bytes",
            "screen_bytes",
        ):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low > high:
                raise ValueError(f"{name}_min must not exceed {name}_max.")
            if name.endswith("_bytes") and (low < MIN_MEDIA_BYTES or high > MAX_WAV_BYTES):
                raise ValueError(
                    f"{name}_min and {name}_max lie in {MIN_MEDIA_BYTES} to {MAX_WAV_BYTES}."
                )
        if self.tasks_per_hour >= MAX_CONTACT_TASKS_PER_HOUR // 2:
            raise ValueError(f"tasks_per_hour must be below {MAX_CONTACT_TASKS_PER_HOUR // 2}.")
        if self.tied_group_size < 1 or self.segments_max < 1:
            raise ValueError("tied_group_size and segments_max must be at least 1.")
        if self.daily_rhythm > 1:
            raise ValueError("daily_rhythm is at most 1.")


@dataclass(frozen=True)
class Knob:
    """One field of the scenario, as the command line and the page show it."""

    name: str
    kind: type
    choices: tuple[str, ...]
    default: Any
    description: str


def _read_knobs() -> tuple[Knob, ...]:
    hints = get_type_hints(Scenario, include_extras=True)
    found: list[Knob] = []
    for field in fields(Scenario):
        kind, description = get_args(hints[field.name])
        choices = get_args(kind)
        found.append(
            Knob(field.name, str if choices else kind, choices, field.default, description)
        )
    return tuple(found)


_KNOBS: list[Knob] = []


def knobs() -> tuple[Knob, ...]:
    """Every field of :class:`Scenario`, in order."""
    if not _KNOBS:
        _KNOBS.extend(_read_knobs())
    return tuple(_KNOBS)
