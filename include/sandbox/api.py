"""Three API endpoints: strict where the documents are, a switch where they are silent."""

import json
import random
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import parse_qsl

from include.sandbox.answers import (
    Answer,
    RefusalError,
    compressed,
    json_answer,
    retry_after_header,
)
from include.sandbox.captures import Capture, CaptureFlags, Kind
from include.sandbox.contact_centre import CHANNEL_TYPES, HOUR_MS, ContactTask
from include.sandbox.draws import Draws
from include.sandbox.identifiers import has_uuid_form
from include.sandbox.signing import object_path
from include.sandbox.state import SandboxState

DAY_MS = 24 * HOUR_MS
MAX_SPAN_MS = 184 * DAY_MS
MAX_AGE_MS = 365 * DAY_MS
MAX_PAGE_SIZE = 1_000
DEFAULT_PAGE_SIZE = 100
MAX_URL_EXPIRATION_MINUTES = 60
MAX_CONTACT_TASKS_PER_CAPTURES_QUERY = 10

_FLAGS = {
    "includeSegments": "include_segments",
    "includeVARecordings": "include_va",
    "includeScreenRecordings": "include_screen",
    "includeAllDigitalVersions": "include_all_digital",
}
_NEWER_FLAGS = {"includeVARecordings", "includeScreenRecordings", "includeAllDigitalVersions"}


def answer_token(state: SandboxState, content_type: str, body: bytes) -> Answer:
    """``POST /v1/access_token``: a form, nothing else (inferred: 415 for JSON)."""
    if content_type != "application/x-www-form-urlencoded":
        raise RefusalError(415, "Send application/x-www-form-urlencoded.", code="invalid_request")
    try:
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
    except UnicodeDecodeError:
        raise RefusalError(400, "The form is not UTF-8.", code="invalid_request") from None
    return json_answer(state.tokens.answer(form))


def answer_service_app_token(
    state: SandboxState,
    application_id: str,
    authorization: str | None,
    content_type: str,
    body: bytes,
) -> Answer:
    """``POST /v1/applications/{id}/token``: a service app's pair, for a helper integration's token."""
    if content_type != "application/json":
        raise RefusalError(415, "Send application/json.")
    try:
        content: object = json.loads(body)
    except ValueError:
        raise RefusalError(400, "The body is not JSON.") from None
    if not isinstance(content, dict):
        raise RefusalError(400, "The body is not a JSON object.")
    members = cast("dict[str, Any]", content)
    return json_answer(state.tokens.service_app_pair(application_id, members, authorization))


def authorize(
    state: SandboxState, authorization: str | None, scope: str = "cjp:config_read"
) -> str:
    """The organisation of an admitted request; the rate limit is charged.

    Raises:
        RefusalError: 400, 401 or 403 for the token; 429 when the budget is spent.
    """
    org_id = state.tokens.org_of(authorization, scope)
    wait_seconds = state.throttle.admit()
    if wait_seconds:
        headers = retry_after_header(state.scenario.retry_after, wait_seconds, state.clock.now_ms())
        raise RefusalError(429, "Too many requests. Rate limit exceeded.", headers=headers)
    return org_id


def answer_contact_tasks(
    state: SandboxState, org_id: str, query: Mapping[str, str], accept_encoding: str
) -> Answer:
    """``GET /v1/tasks``: one page of contact tasks in ascending order of creation.

    Documented: bounds, page size, channel filter, compression above 1 MB. Reported: the
    silent cut at ``pageSize`` without any cursor, unknown parameters ignored, at most 184
    days at once and 12 months back. Unknown, therefore switches: whether the bounds
    include their millisecond, a ``to`` in the future, 413, contact tasks listed late.
    """
    scenario, now_ms = state.scenario, state.clock.now_ms()
    if query.get("orgId", org_id) != org_id:
        raise RefusalError(403, "The token does not open this organisation.")
    page_size = _whole(query, "pageSize", DEFAULT_PAGE_SIZE)
    if not 1 <= page_size <= MAX_PAGE_SIZE:
        raise RefusalError(400, f"pageSize must be 1 to {MAX_PAGE_SIZE}.")
    from_ms, to_ms = _read_span(query, now_ms, future_to=scenario.future_to)
    channel_types = _channel_types(query.get("channelTypes", ""))

    rows: list[dict[str, Any]] = []
    if org_id == scenario.org_id and any(map(state.centre.has_channel, channel_types)):
        first_ms = from_ms if scenario.from_inclusive else from_ms + 1
        until_ms = min(to_ms + 1 if scenario.to_inclusive else to_ms, now_ms + 1)
        for contact_task in state.centre.created_between(first_ms, until_ms):
            if contact_task.listed_ms <= now_ms and contact_task.channel_type in channel_types:
                rows.append(state.centre.row(contact_task, now_ms))
                if len(rows) == page_size:
                    break
    if scenario.rows_max and len(rows) > scenario.rows_max:
        raise RefusalError(413, f"The answer has more than {scenario.rows_max} rows.")
    answer = json_answer({"meta": {"orgId": org_id}, "data": rows})
    return compressed(answer, scenario.gzip_above_bytes, accept_encoding)


def _read_span(query: Mapping[str, str], now_ms: int, *, future_to: str) -> tuple[int, int]:
    if "from" not in query:
        raise RefusalError(400, "from is required: epoch milliseconds.")
    from_ms, to_ms = _whole(query, "from", 0), _whole(query, "to", now_ms)
    if from_ms < now_ms - MAX_AGE_MS:
        raise RefusalError(400, "from must not be more than 12 months ago.")
    if to_ms - from_ms > MAX_SPAN_MS:
        raise RefusalError(400, "from and to must not be more than 184 days apart.")
    if "to" in query and to_ms < from_ms:
        raise RefusalError(400, "to must not be before from.")
    if to_ms > now_ms and future_to == "reject":
        raise RefusalError(400, "to must not be in the future.")
    return from_ms, to_ms


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise RefusalError(400, f"{name} must be a whole number.")
    return int(text)


def _channel_types(text: str) -> tuple[str, ...]:
    if not text:
        return CHANNEL_TYPES
    wanted = tuple(each.strip() for each in text.split(","))
    if not set(wanted) <= set(CHANNEL_TYPES):
        raise RefusalError(400, f"channelTypes must be of {', '.join(CHANNEL_TYPES)}, lower case.")
    return wanted


def answer_captures(
    state: SandboxState, org_id: str, content_type: str, body: bytes, base_url: str
) -> Answer:
    """``POST /v1/captures/query``: the captures of one to ten contact tasks.

    Documented: the ``query`` wrapper, the limits, ``orgId`` of a service app, empty lists
    for ids that match nothing. Inferred: 400, 403 and 415 for what breaks these. Unknown,
    therefore switches: presence and order of entries, key case, types of times.
    """
    scenario, now_ms = state.scenario, state.clock.now_ms()
    query = _read_query(content_type, body)
    minutes = query.get("urlExpiration", MAX_URL_EXPIRATION_MINUTES)
    if isinstance(minutes, bool) or not isinstance(minutes, int):
        raise RefusalError(400, "urlExpiration should be an integer.")
    if minutes <= 0:
        raise RefusalError(400, "urlExpiration should be greater than 0.")
    if minutes > MAX_URL_EXPIRATION_MINUTES:
        raise RefusalError(400, "urlExpiration should not be greater than 60 (minutes).")
    contact_task_ids = _read_contact_task_ids(query.get("taskIds"))
    flags = _read_flags(query, scenario.unknown_flags, knows_newer=scenario.newer_flags)
    asked_org_id = query.get("orgId")
    if not isinstance(asked_org_id, str):
        raise RefusalError(400, "orgId is required for service app tokens.")
    if asked_org_id != org_id:
        raise RefusalError(403, "The token does not open this organisation.")

    state.journal.note_contact_tasks_queried(len(contact_task_ids))
    writer = _EntryWriter(state, base_url, minutes * 60, now_ms)
    entries: list[dict[str, Any]] = []
    for contact_task_id in contact_task_ids:
        contact_task = state.centre.find(contact_task_id)
        if org_id != scenario.org_id or (contact_task and contact_task.created_ms > now_ms):
            contact_task = None
        found = (
            [
                capture
                for capture in state.library.captures_of(contact_task)
                if flags.show(capture) and capture.is_listed(now_ms)
            ]
            if contact_task
            else []
        )
        if found or not scenario.omit_unmatched:
            entries.append(writer.entry(contact_task_id, contact_task, found, flags))
    if scenario.shuffle_order:
        # Seeded by the question: the same query is answered in the same order.
        random.Random("".join(contact_task_ids)).shuffle(entries)  # noqa: S311 - order only
    return json_answer({"meta": {"orgId": org_id, "urlExpiration": minutes}, "data": entries})


def _read_query(content_type: str, body: bytes) -> dict[str, Any]:
    if content_type != "application/json":
        raise RefusalError(415, "Send application/json.")
    try:
        content: object = json.loads(body)
    except ValueError:
        raise RefusalError(400, "The body is not JSON.") from None
    query = cast("dict[str, object]", content).get("query") if isinstance(content, dict) else None
    if not isinstance(query, dict):
        raise RefusalError(400, "query is required.")
    return cast("dict[str, Any]", query)


def _read_contact_task_ids(given: object) -> list[str]:
    if not isinstance(given, list):
        raise RefusalError(400, "taskIds is required: a list of UUIDs.")
    contact_task_ids = cast("list[object]", given)
    if not 1 <= len(contact_task_ids) <= MAX_CONTACT_TASKS_PER_CAPTURES_QUERY:
        raise RefusalError(400, "taskIds should have 1 to 10 ids.")
    ids = [each for each in contact_task_ids if isinstance(each, str) and has_uuid_form(each)]
    if len(ids) != len(contact_task_ids):
        raise RefusalError(400, "taskIds should be UUIDs.")
    if len({each.lower() for each in ids}) != len(ids):
        raise RefusalError(400, "taskIds should be unique.")
    return ids


def _read_flags(query: dict[str, Any], unknown_flags: str, *, knows_newer: bool) -> CaptureFlags:
    known = set(_FLAGS) if knows_newer else set(_FLAGS) - _NEWER_FLAGS
    unknown = sorted(query.keys() - known - {"orgId", "urlExpiration", "taskIds"})
    if unknown and unknown_flags == "reject":
        raise RefusalError(400, f"Unknown members: {', '.join(unknown)}.")
    values: dict[str, bool] = {}
    for name in known & query.keys():
        if not isinstance(query[name], bool):
            raise RefusalError(400, f"{name} should be a boolean.")
        values[_FLAGS[name]] = query[name]
    return CaptureFlags(**values)


class _EntryWriter:
    """Writes the entries of one captures answer, with download URLs that live so long."""

    def __init__(self, state: SandboxState, base_url: str, life_seconds: int, now_ms: int) -> None:
        self._state = state
        scheme, _, host = base_url.partition("://")
        self._host = state.scenario.media_host or host
        self._scheme = scheme
        self._life_seconds = life_seconds
        self._now_ms = now_ms
        self._writers = {
            "recording": self._recording,
            "transcript": self._transcript,
            "screen_recording": self._screen_recording,
        }

    def entry(
        self,
        contact_task_id: str,
        contact_task: ContactTask | None,
        captures: list[Capture],
        flags: CaptureFlags,
    ) -> dict[str, Any]:
        """One element of ``data``; both lists are empty where nothing matches."""
        lists: dict[Kind, list[dict[str, Any]]] = {
            "recording": [],
            "transcript": [],
            "screen_recording": [],
        }
        for capture in captures if contact_task else ():
            write = self._writers[capture.kind]
            lists[capture.kind].append(write(cast("ContactTask", contact_task), capture))
        entry: dict[str, Any] = {
            "taskId": contact_task_id,
            "recording": lists["recording"],
            "transcription": lists["transcript"],
        }
        if flags.include_screen:
            entry["screenRecordings"] = lists["screen_recording"]
        return entry

    def _url(self, contact_task: ContactTask, capture: Capture) -> str:
        org_id = self._state.scenario.org_id
        place = (org_id, contact_task.id, capture.object_id, capture.file_name)
        path = f"/media/{object_path(*place)}"
        query = self._state.signer.sign(self._host, path, self._now_ms, self._life_seconds)
        return f"{self._scheme}://{self._host}{path}?{query}"

    def _recording(self, contact_task: ContactTask, capture: Capture) -> dict[str, Any]:
        draws = self._draws(capture)
        attributes: dict[str, Any] = {
            "fileName": capture.file_name,
            "filePath": self._url(contact_task, capture),
        }
        optional: dict[str, Any] = {
            "startTime": self._time(draws, capture.start_ms, documented=int),
            "stopTime": self._time(draws, capture.stop_ms, documented=int),
            "participants": list(capture.participants),
            "channel1": capture.channel1,
            "channel2": capture.channel2,
            "callType": capture.call_type,
        }
        if capture.sensitive is not None:
            optional["sensitive"] = capture.sensitive
        entry: dict[str, Any] = {"id": capture.id}
        entry |= self._kept(draws, {"segment": capture.segment}, 7)
        entry["attributes"] = attributes | self._kept(draws, optional, 0) | self._extra()
        return entry

    def _transcript(self, contact_task: ContactTask, capture: Capture) -> dict[str, Any]:
        draws = self._draws(capture)
        how = self._state.scenario.transcript_keys
        is_upper = how == "upper" or (how == "mixed" and draws.chance(15, 0.5))
        optional: dict[str, Any] = {
            "Source" if is_upper else "source": capture.source,
            "Provider" if is_upper else "provider": capture.provider,
            "startTime": self._time(draws, capture.start_ms, documented=str),
            "languageCode": capture.language_code,
            "createTime": self._time(draws, capture.available_ms, documented=str),
        }
        return (
            {
                "id": capture.id,
                "fileName": capture.file_name,
                "filePath": self._url(contact_task, capture),
            }
            | self._kept(draws, optional, 0)
            | self._extra()
        )

    def _screen_recording(self, contact_task: ContactTask, capture: Capture) -> dict[str, Any]:
        draws = self._draws(capture)
        attributes: dict[str, Any] = {
            "fileName": capture.file_name,
            "filePath": self._url(contact_task, capture),
            "startTime": self._time(draws, capture.start_ms, documented=int),
            "stopTime": self._time(draws, capture.stop_ms, documented=int),
            "agentId": capture.agent_id,
            "screenId": capture.screen_id,
        }
        return {"id": capture.id, "attributes": attributes | self._extra()}

    def _draws(self, capture: Capture) -> Draws:
        return Draws(self._state.centre.key, b"entry" + capture.object_id.encode())

    def _time(self, draws: Draws, instant_ms: int, *, documented: type) -> int | str:
        how = self._state.scenario.time_types
        swap = how == "swapped" or (how == "mixed" and draws.chance(14, 0.5))
        return str(instant_ms) if (documented is str) != swap else instant_ms

    def _kept(self, draws: Draws, optional: dict[str, Any], position: int) -> dict[str, Any]:
        share = self._state.scenario.drop_optional_share
        return {
            name: value
            for place, (name, value) in enumerate(optional.items(), position)
            if not draws.chance(place, share)
        }

    def _extra(self) -> dict[str, Any]:
        if not self._state.scenario.extra_members:
            return {}
        return {"futureMember": {"version": 3, "labels": ["new", None]}}
