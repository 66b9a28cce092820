"""Asks which captures contact tasks have: POST /v1/captures/query, ten contact tasks at a time."""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from pydantic import SecretStr

from include.domain.contact_centre import Capture, JsonObject
from include.domain.object_keys import Kind
from include.domain.redaction import without_signed_urls
from include.domain.rows import CaptureRow
from include.webex.http_client import Refused, TooLarge, WebexClient
from include.webex.json_fields import (
    Fields,
    boolean,
    elements,
    fields_of,
    instant,
    text,
    unidentified,
)

log = logging.getLogger(__name__)

MAX_CONTACT_TASKS_PER_CAPTURES_QUERY = 10  # documented: maxItems
URL_EXPIRATION_MINUTES = 60  # documented: the maximum, in minutes

_KINDS: dict[str, Kind] = {
    "recording": "recording",
    "transcription": "transcript",
    "screenRecordings": "screen_recording",
}
_PLAIN_NAME = re.compile(r"[A-Za-z]{1,30}")


@dataclass(frozen=True)
class CaptureOptions:
    """What a captures query asks for beside the stitched recordings and the transcripts.

    An archive of record wants all there is, so the newer flags are on by default; they are sent only when
    they are on, since how older cells treat them is unknown (see `CapturesQuery`).
    """

    include_segments: bool = False
    include_virtual_agent: bool = True
    include_screen_recordings: bool = True

    def ask_for(self, kind: Kind, call_type: str | None, *, is_segment: bool | None) -> bool:
        """Whether a query with these flags would answer such a capture, if the contact task has it."""
        if kind == "screen_recording":
            return self.include_screen_recordings
        call_type = (call_type or "").lower()
        if kind == "recording" and call_type.startswith("va-"):
            return self.include_virtual_agent
        if kind == "recording" and call_type != "consult" and is_segment is not None:
            return is_segment == self.include_segments
        return True

    def to_query(self) -> JsonObject:
        """The flags as members of the request's ``query`` object."""
        query: JsonObject = {"includeSegments": self.include_segments}
        if self.include_virtual_agent:
            query["includeVARecordings"] = True
        if self.include_screen_recordings:
            query["includeScreenRecordings"] = True
        return query


def batches(contact_task_ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The ids in batches as large as one captures query takes, each id once, order kept."""
    unique = list(dict.fromkeys(contact_task_ids))
    for start in range(0, len(unique), MAX_CONTACT_TASKS_PER_CAPTURES_QUERY):
        yield tuple(unique[start : start + MAX_CONTACT_TASKS_PER_CAPTURES_QUERY])


# What an earlier run called by the id that the API gave, told by `distinction`.
NamesGiven = Mapping[tuple[Kind, str], tuple[str, ...]]


class _Unattributed(Exception):
    """The answer has captures without saying whose they are; ask about one contact task."""


def _as_told(capture: Capture) -> Capture:
    return capture


@dataclass
class CapturesQuery:
    """Queries captures with one set of options; remembers when an older cell refuses the newer flags.

    Attributes:
        client: Sends them.
        options: What they ask for.
        names_given: What earlier runs called the captures of a contact task.
        as_kept: A capture as the rows of earlier runs tell of it, by which the two are compared.
        unknown: The names that the API told beside those of the documents; each is told once in the log.
    """

    client: WebexClient
    options: CaptureOptions
    names_given: Callable[[str], NamesGiven] = lambda _contact_task_id: {}
    as_kept: Callable[[Capture], Capture] = _as_told
    unknown: set[str] = field(default_factory=set[str])

    def __call__(self, contact_task_ids: Sequence[str]) -> Mapping[str, list[Capture] | None]:
        """The captures of one batch of contact tasks, by contact task id; never fewer keys than ids.

        A contact task without an entry, or with empty lists, has an empty list: that may mean none, not
        yet, purged or never existed (documented). None stands for a contact task that the API refuses to
        be asked about: a batch refused for no known reason is asked once more without the newer flags and
        then halved until the refused id is alone. So is one that is answered with something that does not
        say whose it is: asked alone, it belongs to the one that was asked about.

        Raises:
            ArchiveError: As `WebexClient.post`.
        """
        try:
            return self._query(contact_task_ids, self.options)
        except Refused:
            older = replace(
                self.options, include_virtual_agent=False, include_screen_recordings=False
            )
            if older == self.options:
                return self._halves(contact_task_ids)
        except (TooLarge, _Unattributed):
            return self._halves(contact_task_ids)
        try:
            answer = self._query(contact_task_ids, older)
        except (Refused, TooLarge, _Unattributed):
            return self._halves(contact_task_ids)
        self.options = older
        log.warning(
            "This org's cell refuses includeVARecordings or includeScreenRecordings: going on without them."
        )
        return answer

    def _halves(self, contact_task_ids: Sequence[str]) -> Mapping[str, list[Capture] | None]:
        if len(contact_task_ids) == 1:
            return {contact_task_ids[0]: None}
        middle = len(contact_task_ids) // 2
        found: dict[str, list[Capture] | None] = {}
        for half in (contact_task_ids[:middle], contact_task_ids[middle:]):
            found |= self(half)  # with both sets of flags: a bad id must not hide an older cell
        return found

    def _query(
        self, contact_task_ids: Sequence[str], options: CaptureOptions
    ) -> Mapping[str, list[Capture] | None]:
        query: JsonObject = {
            "orgId": self.client.connection.org_id,  # documented: required for a service app
            "urlExpiration": URL_EXPIRATION_MINUTES,
            "taskIds": list(contact_task_ids),
            **options.to_query(),
        }
        answer = self.client.post("/v1/captures/query", {"query": query})
        found: dict[str, list[Capture]] = {
            contact_task_id: [] for contact_task_id in contact_task_ids
        }
        whatever_case = _by_lower_case(contact_task_ids)
        for item in elements(answer["data"]):
            # What is no object can only be kept as it is.
            entry = fields_of(
                cast("object", item) if isinstance(item, dict) else {"recording": [item]}
            )
            told = entry.take("taskId", text)
            captures = list(self._parse_entry(entry))
            if told in found:
                found[told].extend(captures)
            elif told is not None and told.lower() in whatever_case:
                found[whatever_case[told.lower()]].extend(captures)
            elif told is not None:
                log.warning("A captures query was answered about a contact task not asked about.")
            elif captures and len(contact_task_ids) > 1:
                raise _Unattributed
            else:
                found[contact_task_ids[0]].extend(captures)
        return {
            contact_task_id: with_unique_ids(
                captures, self.names_given(contact_task_id), self.as_kept
            )
            for contact_task_id, captures in found.items()
        }

    def _parse_entry(self, entry: Fields) -> Iterator[Capture]:
        for name, kind in _KINDS.items():
            for member in entry.take_all(name):
                for element in elements(member):
                    yield parse_capture(kind, element)
        unknown = {name for name in entry.rest() if _PLAIN_NAME.fullmatch(name)} - self.unknown
        if unknown:
            self.unknown |= unknown
            log.warning("The API tells of captures what is not archived: %s.", sorted(unknown))


def _by_lower_case(contact_task_ids: Sequence[str]) -> dict[str, str]:
    """The ids that differ from one another in more than their case, by their lower case."""
    counts = Counter(contact_task_id.lower() for contact_task_id in contact_task_ids)
    return {each.lower(): each for each in contact_task_ids if counts[each.lower()] == 1}


def parse_capture(kind: Kind, element: object) -> Capture:
    """A capture from one element of an answer, whatever is missing, null or of another type.

    Recordings carry their fields under ``attributes``, transcripts directly. What cannot be read is kept
    in ``extra``, but for URLs of downloads, whatever their form.
    """
    fields = fields_of(element, "attributes")
    url = fields.take("filePath", text)
    fields.take_all("filePath")
    return Capture(
        kind=kind,
        download_url=SecretStr(url) if url else None,
        capture_id=fields.take_id("id")
        or fields.take_id("configId")
        or unidentified(fields.rest()),
        file_name=fields.take("fileName", text),
        segment=fields.take("segment", boolean),
        call_type=fields.take("callType", text),
        channel1=fields.take("channel1", text),
        channel2=fields.take("channel2", text),
        participants=fields.take("participants", _participants) or (),
        sensitive=fields.take("sensitive", boolean),
        source=fields.take("source", text),
        provider=fields.take("provider", text),
        language_code=fields.take("languageCode", text),
        start_time=fields.take("startTime", instant),
        stop_time=fields.take("stopTime", instant),
        extra=fields.rest(),
    )


def with_unique_ids(
    captures: Sequence[Capture],
    names_given: NamesGiven | None = None,
    as_kept: Callable[[Capture], Capture] = _as_told,
) -> list[Capture]:
    """The captures of one contact task, each under an id of its own within its kind.

    A voice transcript's id names a configuration (documented), so two transcripts of one contact task
    can share it. The one to which an earlier run gave the id keeps it, else the earliest; each other one
    gets a suffix made from what tells it apart, and so the same suffix in every run. Elements alike in all
    their members are told apart by the path of their URLs, which names the object; its query differs each
    time. Alike in that too, they are one.
    """
    if len(captures) < 2:  # as of most contact tasks; to compare takes as long as to read them
        return list(captures)
    taken: set[tuple[Kind, str]] = set()
    seen: set[tuple[str, str]] = set()
    members_seen: set[str] = set()
    unique: list[Capture] = []
    given = names_given or {}
    for capture in sorted(
        captures, key=lambda capture: (not _is_given(as_kept(capture), given), _order(capture))
    ):
        members, path = _members(capture), _path(capture)
        if (members, path) in seen or (not path and members in members_seen):
            continue
        capture_id = capture.capture_id
        if (capture.kind, capture_id) in taken:
            capture_id = f"{capture.capture_id}~{_digest(json.dumps(distinction(capture)))}"
        if (capture.kind, capture_id) in taken:
            capture_id = f"{capture.capture_id}~{_digest(members + path)}"
        seen.add((members, path))
        members_seen.add(members)
        taken.add((capture.kind, capture_id))
        unique.append(replace(capture, capture_id=capture_id))
    return unique


def _is_given(capture: Capture, names_given: NamesGiven) -> bool:
    """Whether an earlier run gave the id to this very capture, as far as its members tell."""
    return names_given.get((capture.kind, capture.capture_id)) == distinction(capture)


def _order(capture: Capture) -> tuple[str, ...]:
    """Earliest first; of what is alike, one that can be downloaded comes before one that cannot."""
    path = _path(capture)
    identity = (capture.kind, capture.capture_id, *distinction(capture), _members(capture))
    return (*identity, "with a URL" if path else "without", path)


def _members(capture: Capture) -> str:
    """Everything but the URL, as text that can be compared."""
    members = {**vars(capture), "download_url": None}
    return json.dumps(without_signed_urls(members), sort_keys=True, default=str)


def _path(capture: Capture) -> str:
    """What names the object in a download URL; the query differs each time and is a credential."""
    url = capture.download_url.get_secret_value() if capture.download_url else ""
    return re.sub(r"^[a-z]+://[^/?#]*|[?#].*", "", url, flags=re.IGNORECASE | re.DOTALL)


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()[:12]


def distinction(capture: Capture | CaptureRow) -> tuple[str, ...]:
    """What tells two captures under one id apart, earliest first; never the URL, which differs each time."""
    told = capture.extra if isinstance(capture, Capture) else json.loads(capture.extra_json or "{}")
    created = Fields(dict(sorted(told.items()))).take("createTime", instant)
    return (
        created.isoformat() if created else "",
        capture.start_time.isoformat() if capture.start_time else "",
        capture.file_name or "",
        capture.source or "",
        capture.provider or "",
        capture.language_code or "",
        capture.call_type or "",
    )


def _participants(value: object) -> tuple[str, ...] | None:
    """Documented as a list of strings, described as comma separated: both are read."""
    if isinstance(value, str):
        return tuple(part for part in (text(piece.strip()) for piece in value.split(",")) if part)
    if not isinstance(value, list):
        return None
    told = [item for item in cast("list[object]", value) if item is not None and item != ""]
    read = tuple(part for part in map(text, told) if part)
    return read if len(read) == len(told) else None
