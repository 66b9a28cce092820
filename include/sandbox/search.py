"""``POST /search``: the Search API, as far as an archive of old contact tasks asks it."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from include.sandbox.answers import Answer, RefusalError, compressed, json_answer
from include.sandbox.captures import CaptureFlags
from include.sandbox.contact_centre import CHANNEL_TYPES, HOUR_MS, ContactTask, requested_at
from include.sandbox.graphql import (
    EnumName,
    Query,
    QueryError,
    Selected,
    Variable,
    parse_query,
    put_variables,
    used_variables,
)
from include.sandbox.state import SandboxState

DAY_MS = 24 * HOUR_MS
# Documented: 36 months and 365 days.
MAX_AGE_MS = 3 * 365 * DAY_MS
MAX_SPAN_MS = 365 * DAY_MS
PAGE_SIZE = 250
# Epoch seconds stay below this until the year 5138, epoch milliseconds are above it since 1973.
FIRST_PLAUSIBLE_MS = 100_000_000_000

_ROOTS = ("task", "taskDetails")
_ARGUMENTS = ("from", "to", "timeComparator", "filter", "pagination")
_SCALARS = (
    "id",
    "status",
    "isActive",
    "channelType",
    "channelSubType",
    "createdTime",
    "endedTime",
    "totalDuration",
    "connectedDuration",
    "direction",
    "origin",
    "destination",
    "captureRequested",
    "recordingCount",
    "recordingErrorCount",
    "recordingFileSize",
    "isRecordingDeleted",
    "isTranscriptionAvailable",
    "lastWrapupCodeName",
    "terminationType",
)
_NOTHING: dict[str, object] = {}
_PERSON: dict[str, object] = {"id": _NOTHING, "name": _NOTHING}
# Every field that can be selected of a root, with the fields within it.
_RESPONSE: dict[str, object] = {
    "tasks": dict.fromkeys(_SCALARS, _NOTHING)
    | {"lastQueue": _PERSON, "lastAgent": _PERSON, "owner": _PERSON, "queue": _PERSON},
    "pageInfo": {"hasNextPage": _NOTHING, "endCursor": _NOTHING},
}
_CAPTURE_FIELDS = frozenset(
    {
        "recordingCount",
        "recordingErrorCount",
        "recordingFileSize",
        "isRecordingDeleted",
        "isTranscriptionAvailable",
    }
)

# Documented is "ended"; the others are inferred from the names that task events bear.
_STATUS = {
    "created": "created",
    "queued": "parked",
    "assigned": "connected",
    "abandoned": "ended",
    "completed": "ended",
}
_CURSOR = re.compile(r"NA|0|[1-9][0-9]{0,8}")


def answer_search(
    state: SandboxState,
    org_id: str,
    *,
    asked_org_id: str | None,
    content_type: str,
    body: bytes,
    accept_encoding: str,
) -> Answer:
    """One page of contact tasks, latest creation first, with exactly the selected fields.

    Documented: bounds, the 36 months and 365 days, 250 rows a page, the most records of a
    query, compression. Reported: the order, cursors that are page numbers, a silently empty
    answer for seconds. Unknown, therefore switches: how a bad query is told, variables in
    ``pagination``, whether pages shift while data change, how far the data lag behind.
    """
    if asked_org_id not in (None, org_id):
        raise RefusalError(403, "The token does not open this organisation.")
    text, variables = _read_request(content_type, body)
    try:
        asked = _read_query(
            text,
            variables,
            state.clock.now_ms(),
            unknown_fields=frozenset(state.scenario.search_unknown_fields.split(",")),
            variables_in_pagination=state.scenario.search_variables_in_pagination,
        )
    except QueryError as error:
        if state.scenario.search_query_error == "http_400":
            raise RefusalError(400, str(error)) from None
        extensions = {"classification": error.kind}
        return json_answer(
            {"errors": [{"message": str(error), "extensions": extensions}], "data": None},
            reason=str(error),
        )
    rows, end_cursor = _page(state, asked) if org_id == state.scenario.org_id else ([], None)
    page_info = {"hasNextPage": end_cursor is not None, "endCursor": end_cursor}
    found = {
        part.name: (
            rows
            if part.name == "tasks"
            else {each.name: page_info[each.name] for each in part.selection}
        )
        for part in asked.root.selection
    }
    answer = json_answer({"data": {asked.root.name: found}})
    return compressed(answer, state.scenario.gzip_above_bytes, accept_encoding)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query that was found right; times are epoch milliseconds, ``to`` is as given."""

    root: Selected
    from_ms: int
    to_ms: int
    by_ended_time: bool
    conditions: tuple[tuple[str, str | bool], ...]
    page: int

    @property
    def question(self) -> str:
        """The same on every page."""
        members = (self.from_ms, self.to_ms, self.by_ended_time, self.conditions)
        return f"{self.root.name}{members}"

    @property
    def fields(self) -> tuple[Selected, ...]:
        """What is selected of each contact task."""
        return next((each.selection for each in self.root.selection if each.name == "tasks"), ())

    def matches(self, contact_task: ContactTask, seen_ms: int) -> bool:
        """Whether every condition holds; an unknown captureRequested equals nothing."""
        return all(
            (
                contact_task.channel_type
                if name == "channelType"
                else requested_at(contact_task, seen_ms)
            )
            == wanted
            for name, wanted in self.conditions
        )


def _read_request(content_type: str, body: bytes) -> tuple[str, dict[str, Any]]:
    if content_type != "application/json":
        raise RefusalError(415, "Send application/json.")
    try:
        content: object = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusalError(400, "The body is not JSON.") from None
    members = cast("dict[str, object]", content) if isinstance(content, dict) else {}
    text, variables = members.get("query"), members.get("variables")
    if not isinstance(text, str):
        raise RefusalError(400, "query is required: GraphQL as text.")
    if variables is None:
        variables = {}
    if not isinstance(variables, dict):
        raise RefusalError(400, "variables should be an object.")
    return text, cast("dict[str, Any]", variables)


def _read_query(
    text: str,
    variables: dict[str, Any],
    now_ms: int,
    *,
    unknown_fields: frozenset[str],
    variables_in_pagination: bool,
) -> _Asked:
    query = parse_query(text)
    for each in query.selection:
        if each.name not in _ROOTS:
            raise _undefined(each.name, "Query", each.name)
    root, *others = query.selection
    if others:
        raise QueryError("InvalidSyntax", "the sandbox answers one root in a query.")
    _check_fields(root, _RESPONSE, root.name, unknown_fields)
    _check_arguments(query, root)
    if used_variables(root.arguments.get("pagination")) and not variables_in_pagination:
        raise QueryError("WrongType", "pagination takes no variables: write the cursor.", root.name)
    given = _read_variables(query, variables)
    arguments = {
        name: found
        for name, value in root.arguments.items()
        if (found := put_variables(value, given)) is not None
    }
    from_ms, to_ms = _read_span(root.name, arguments, now_ms)
    comparator = arguments.get("timeComparator", EnumName("createdTime"))
    if not isinstance(comparator, EnumName) or comparator not in ("createdTime", "endedTime"):
        raise _wrong_type(root.name, "timeComparator", "createdTime or endedTime")
    return _Asked(
        root=root,
        from_ms=from_ms,
        to_ms=to_ms,
        by_ended_time=comparator == "endedTime",
        conditions=tuple(_read_filter(root.name, arguments.get("filter", {}))),
        page=_read_cursor(root.name, arguments.get("pagination", {})),
    )


def _undefined(name: str, owner: str, path: str) -> QueryError:
    return QueryError("FieldUndefined", f"Field '{name}' in type '{owner}' is undefined", path)


def _wrong_type(path: str, argument: str, wanted: str) -> QueryError:
    return QueryError("WrongType", f"argument '{argument}' should be {wanted}", path)


def _check_fields(
    selected: Selected, known: Mapping[str, object], path: str, unknown: frozenset[str]
) -> None:
    if known and not selected.selection:
        raise QueryError("SubSelectionRequired", f"select fields of '{selected.name}'", path)
    if selected.selection and not known:
        raise QueryError("SubSelectionNotAllowed", f"'{selected.name}' has no fields", path)
    if len({each.name for each in selected.selection}) < len(selected.selection):
        raise QueryError("FieldsConflict", "the sandbox merges no field selected twice", path)
    for each in selected.selection:
        within = f"{path}/{each.name}"
        if each.name not in known or each.name in unknown:
            raise _undefined(each.name, selected.name, within)
        if each.arguments:
            raise QueryError("UnknownArgument", f"'{each.name}' takes no argument", within)
        _check_fields(each, cast("dict[str, object]", known[each.name]), within, unknown)


def _check_arguments(query: Query, root: Selected) -> None:
    for name in ("from", "to"):
        if root.arguments.get(name) is None:
            raise QueryError("MissingFieldArgument", f"Missing field argument '{name}'", root.name)
    for name in root.arguments:
        if name not in _ARGUMENTS:
            raise QueryError("UnknownArgument", f"Unknown field argument '{name}'", root.name)
    used = used_variables(root.arguments)
    if undeclared := sorted(used - query.declarations.keys()):
        raise QueryError("UndefinedVariable", f"Undefined variable '{undeclared[0]}'", root.name)
    if unused := sorted(query.declarations.keys() - used):
        raise QueryError("UnusedVariable", f"Unused variable '{unused[0]}'", root.name)
    for name in ("from", "to"):
        value = root.arguments[name]
        if isinstance(value, Variable):
            declared = query.declarations[value.name]
            if declared.kind != "Long" or not (declared.is_required or declared.default):
                raise QueryError(
                    "VariableTypeMismatch", f"Variable '{value.name}' should be Long!", root.name
                )


def _read_variables(query: Query, variables: dict[str, Any]) -> dict[str, object]:
    given: dict[str, object] = {}
    kinds: dict[str, type] = {"Long": int, "Int": int, "String": str, "Boolean": bool}
    for name, declared in query.declarations.items():
        value = variables.get(name, declared.default)
        if value is None and declared.is_required:
            raise QueryError("NullValueForNonNullType", f"Variable '{name}' is required", name)
        wanted = kinds.get(declared.kind, object)
        if value is not None and (
            not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))
        ):
            raise QueryError("CoercingParseValue", f"Variable '{name}' is no {declared.kind}", name)
        # Names of other types are not published; in JSON an enum's value is written as text.
        is_enum = declared.kind not in kinds and isinstance(value, str)
        given[name] = EnumName(value) if is_enum else value
    return given


def _read_span(path: str, arguments: dict[str, object], now_ms: int) -> tuple[int, int]:
    for name in ("from", "to"):
        value = arguments.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(path, name, "a Long: epoch milliseconds")
    from_ms, to_ms = cast("int", arguments["from"]), cast("int", arguments["to"])
    if from_ms < FIRST_PLAUSIBLE_MS:
        # Reported: seconds are not refused, they find nothing.
        return 0, 0
    if from_ms < now_ms - MAX_AGE_MS:
        raise RefusalError(400, "from must not be more than 36 months ago.")
    # Documented: a time in the future counts as now.
    if min(to_ms, now_ms) - from_ms > MAX_SPAN_MS:
        raise RefusalError(400, "from and to must not be more than 365 days apart.")
    return from_ms, to_ms


def _read_filter(path: str, given: object) -> Iterator[tuple[str, str | bool]]:
    if not isinstance(given, dict):
        raise _wrong_type(path, "filter", "an object")
    for name, value in cast("dict[str, Any]", given).items():
        if name == "and":
            if not isinstance(value, list):
                raise _wrong_type(path, "filter.and", "a list")
            for each in cast("list[Any]", value):
                yield from _read_filter(path, each)
            continue
        members = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        wanted = members.get("equals")
        if name not in ("channelType", "captureRequested") or members.keys() != {"equals"}:
            raise _wrong_type(path, f"filter.{name}", "channelType or captureRequested, equals")
        if name == "captureRequested" and not isinstance(wanted, bool):
            raise _wrong_type(path, "filter.captureRequested", "true or false")
        if name == "channelType" and not (isinstance(wanted, EnumName) and wanted in CHANNEL_TYPES):
            raise _wrong_type(path, "filter.channelType", f"one of {', '.join(CHANNEL_TYPES)}")
        yield name, cast("str | bool", wanted)


def _read_cursor(path: str, given: object) -> int:
    members = cast("dict[str, object]", given) if isinstance(given, dict) else {"": None}
    if not members.keys() <= {"cursor"}:
        raise _wrong_type(path, "pagination", "{cursor}")
    cursor = members.get("cursor")
    if cursor is None:
        return 0
    if not isinstance(cursor, str) or isinstance(cursor, EnumName) or not _CURSOR.fullmatch(cursor):
        raise _wrong_type(path, "pagination.cursor", "the endCursor of the page before, as text")
    return 0 if cursor == "NA" else int(cursor)


def _page(state: SandboxState, asked: _Asked) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of the asked page and the cursor of the next, None at the end."""
    scenario = state.scenario
    seen_ms = state.clock.now_ms() - scenario.search_lag_seconds * 1_000
    records_max = scenario.search_records_max
    first, last = asked.page * PAGE_SIZE, min((asked.page + 1) * PAGE_SIZE, records_max)
    if first >= last:
        return [], None
    before = None
    if scenario.search_cursor == "stable":
        before = state.bookmarks.find((asked.question, asked.page))
    matching = _matching(state, asked, seen_ms, before)
    page = list(islice(matching, 0 if before else first, last - (first if before else 0)))
    has_next = last < records_max and next(matching, None) is not None
    if page and has_next:
        state.bookmarks.put((asked.question, asked.page + 1), page[-1].id)
    rows = [_row(state, each, asked.fields, seen_ms) for each in page]
    return rows, str(asked.page + 1) if has_next else None


def _matching(
    state: SandboxState, asked: _Asked, seen_ms: int, before: str | None
) -> Iterator[ContactTask]:
    scenario, centre = state.scenario, state.centre
    channels = {wanted for name, wanted in asked.conditions if name == "channelType"}
    if not all(centre.has_channel(str(channel)) for channel in channels):
        return
    # Nothing is known of later than what is seen, so a time in the future counts as now.
    first_ms = asked.from_ms if scenario.from_inclusive else asked.from_ms + 1
    until_ms = min(asked.to_ms + 1 if scenario.to_inclusive else asked.to_ms, seen_ms + 1)
    created_ms = first_ms - centre.longest_ms if asked.by_ended_time else first_ms
    for contact_task in centre.created_between_latest_first(created_ms, until_ms, before):
        if asked.by_ended_time and not first_ms <= contact_task.ended_ms < until_ms:
            continue
        if contact_task.listed_ms <= seen_ms and asked.matches(contact_task, seen_ms):
            yield contact_task


def _row(
    state: SandboxState, contact_task: ContactTask, fields: tuple[Selected, ...], seen_ms: int
) -> dict[str, Any]:
    names = [each.name for each in fields]
    attributes = state.centre.row(contact_task, seen_ms)["attributes"]
    has_ended = contact_task.ended_ms <= seen_ms
    queue, owner = attributes.get("queue"), attributes.get("owner")
    values: dict[str, Any] = {
        "id": contact_task.id,
        "status": _STATUS[attributes["status"]],
        "isActive": not has_ended,
        "endedTime": contact_task.ended_ms if has_ended else None,
        "totalDuration": contact_task.ended_ms - contact_task.created_ms if has_ended else None,
        "connectedDuration": state.centre.connected_ms(contact_task) if has_ended else None,
        "channelSubType": "facebook" if contact_task.channel_type == "social" else None,
        "lastQueue": queue,
        "lastAgent": owner,
        "owner": owner,
        "lastWrapupCodeName": attributes.get("reasonCode"),
        # Inferred: the words are not published.
        "terminationType": attributes["status"] if has_ended else None,
    }
    if not _CAPTURE_FIELDS.isdisjoint(names):
        values |= _capture_values(state, contact_task, seen_ms)
    found: dict[str, Any] = {}
    for field in fields:
        value = values[field.name] if field.name in values else attributes.get(field.name)
        if field.selection and value is not None:
            value = {each.name: value.get(each.name) for each in field.selection}
        found[field.name] = value
    return found


def _capture_values(state: SandboxState, contact_task: ContactTask, seen_ms: int) -> dict[str, Any]:
    """Inferred: they count what a captures query without flags answers."""
    captures = list(filter(CaptureFlags().show, state.library.captures_of(contact_task)))
    recordings = [each for each in captures if each.kind == "recording"]
    return {
        "recordingCount": sum(each.is_listed(seen_ms) for each in recordings),
        "recordingErrorCount": 0,
        "recordingFileSize": sum(
            state.body_of(contact_task, each, seen_ms).size_bytes
            for each in recordings
            if each.is_listed(seen_ms)
        ),
        "isRecordingDeleted": any(each.is_purged(seen_ms) for each in recordings),
        "isTranscriptionAvailable": any(
            each.kind == "transcript" and each.is_listed(seen_ms) for each in captures
        ),
    }
