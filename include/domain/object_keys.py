"""The only place that builds keys of the bucket.

The grammar is safe by construction. A part of a key (an id, a file name, a partition value) holds only
``A-Z a-z 0-9 . _ -`` and the escape ``~xx`` (one byte of UTF-8, in hex), never starts with a dot, is never
empty and has at most 120 characters, so that a key has no ``..``, no control or bidi characters and at
most 1,024 bytes. Two different ids give two different parts; a part too long keeps its beginning and ends
with ``~~`` and 128 bits of its SHA-256.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, NewType

from include.domain.errors import PermanentError
from include.domain.interval import hour_of

ObjectKey = NewType("ObjectKey", str)
Kind = Literal["recording", "transcript", "screen_recording"]
TableName = Literal["contact_tasks", "captures", "completeness"]
DueKind = Literal["check", "list"]

MAX_PART_LENGTH = 120
MAX_PREFIX_LENGTH = 256
_SAFE_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_SAFE_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", re.ASCII)
_DIGEST_LENGTH = 32
_PREFIX = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*")
_PERSONAL = re.compile(r"\+\d[\d*() .-]{5,}\d|[^\s/@]+@[^\s/@]+\.[A-Za-z]{2,}")
_UNNAMED = "unnamed"
# What lies beside the captures under the prefix.
_OWN_FOLDERS = frozenset({"captures", "tables", "manifests", "due", "_work", "hints"})
_HOUR_IN_KEY = re.compile(
    r"created_date=(\d{4}-\d{2}-\d{2})/(?:created_hour=(\d{2})/|(\d{2})\.parquet\Z)", re.ASCII
)
_DUE_MARKER = re.compile(r"(\d{8}T\d{6}Z)/(check|list)/(\d{8}T\d{2})Z", re.ASCII)
_DUE_TIME = "%Y%m%dT%H%M%SZ"
_DUE_HOUR = "%Y%m%dT%H"
_MANIFEST = re.compile(r"(\d{10})\.json", re.ASCII)
_LAST_MANIFEST = 9_999_999_999
_MAX_NAME_LENGTH = 1024


def safe_part(text: str) -> str:
    """One part of a key that stands for any text; different texts give different parts."""
    if len(text) <= MAX_PART_LENGTH and _SAFE_PART.fullmatch(text):
        return text  # as almost all are
    encoded = "".join(
        chr(byte)
        if byte in _SAFE_BYTES and not (position == 0 and byte == ord("."))
        else f"~{byte:02x}"
        for position, byte in enumerate(text.encode("utf-8", "surrogatepass"))
    )
    if 0 < len(encoded) <= MAX_PART_LENGTH:
        return encoded
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    return f"{encoded[: MAX_PART_LENGTH - _DIGEST_LENGTH - 2]}~~{digest}"


def safe_file_name(file_name: str | None) -> str:
    """The last part of a capture's key: readable, and without phone numbers and e-mail addresses.

    It need not be different for two captures: the capture id before it already is.
    """
    # Only the beginning is kept anyway; the search for addresses must not grow with a hostile name.
    beginning = (file_name or "")[:_MAX_NAME_LENGTH]
    return safe_part(_PERSONAL.sub("redacted", beginning) or _UNNAMED)


def _org(org_id: str) -> str:
    return f"org_id={safe_part(org_id)}"


@lru_cache(maxsize=64)  # keys are made hour by hour
def _partition(org_id: str, hour: datetime) -> str:
    return f"{_org(org_id)}/created_date={hour:%Y-%m-%d}"


@lru_cache(maxsize=64)
def _folder_of_hour(org_id: str, hour: datetime) -> str:
    return f"{_partition(org_id, hour)}/created_hour={hour:%H}"


@dataclass(frozen=True)
class DueMarker:
    """An empty object that says when an hour needs work: its captures checked, or its contact tasks listed."""

    due_time: datetime
    kind: DueKind
    hour: datetime
    key: ObjectKey


@dataclass(frozen=True)
class KeyLayout:
    """The keys of one org's archive, under the optional prefix of the bucket.

    Attributes:
        org_id: Whose archive it is.
        prefix: What all keys begin with.
        sensitive_prefix: Where captures lie, under the prefix, that the API calls sensitive; empty for
            beside the others.

    Raises:
        PermanentError: A prefix is not made of plain parts (letters, digits, ``. _ = -``), or the sensitive
            one is a folder of the archive.
    """

    org_id: str
    prefix: str = ""
    sensitive_prefix: str = ""

    def __post_init__(self) -> None:
        trimmed = self.prefix.strip("/")
        if trimmed and (len(trimmed) > MAX_PREFIX_LENGTH or not _PREFIX.fullmatch(trimmed)):
            raise PermanentError(
                "The extra field 'prefix' of the connection wxcc_store is not usable: give at most "
                f"{MAX_PREFIX_LENGTH} letters, digits, '.', '_', '=' or '-', in parts divided by '/'."
            )
        object.__setattr__(self, "prefix", f"{trimmed}/" if trimmed else "")
        sensitive = self.sensitive_prefix.strip("/")
        is_plain = len(sensitive) <= MAX_PREFIX_LENGTH - len(trimmed) and _PREFIX.fullmatch(
            sensitive
        )
        if sensitive and (not is_plain or sensitive.partition("/")[0] in _OWN_FOLDERS):
            raise PermanentError(
                "The extra field 'sensitive_prefix' of the connection wxcc_store is not usable: give letters, digits, "
                "'.', '_', '=' or '-', in parts divided by '/', at most "
                f"{MAX_PREFIX_LENGTH} together with the prefix, and no folder that the archive has already."
            )
        object.__setattr__(self, "sensitive_prefix", sensitive)

    @property
    def places(self) -> tuple[bool, ...]:
        """Whether captures lie there that are sensitive, for each place where captures lie: one, or two."""
        return (False, True) if self.sensitive_prefix else (False,)

    @property
    def _org(self) -> str:
        return _org(self.org_id)

    def _partition(self, hour: datetime) -> str:
        return _partition(self.org_id, hour)

    def captures(self, *, sensitive: bool = False) -> ObjectKey:
        """What the keys of all captures of the org begin with, in one of their places."""
        return ObjectKey(f"{self.prefix}{self._folder(sensitive=sensitive)}/{self._org}/")

    def _folder(self, *, sensitive: bool) -> str:
        return self.sensitive_prefix if sensitive and self.sensitive_prefix else "captures"

    def captures_of_hour(self, created_time: datetime, *, sensitive: bool = False) -> ObjectKey:
        """What the keys of all captures of the contact tasks created in one hour begin with."""
        hour = hour_of(created_time)
        folder = self._folder(sensitive=sensitive)
        return ObjectKey(f"{self.prefix}{folder}/{_folder_of_hour(self.org_id, hour)}/")

    def captures_of_contact_task(
        self, created_time: datetime, task_id: str, *, sensitive: bool = False
    ) -> ObjectKey:
        """What the keys of all captures of one contact task begin with."""
        hour_prefix = self.captures_of_hour(created_time, sensitive=sensitive)
        return ObjectKey(f"{hour_prefix}{safe_part(task_id)}/")

    def capture(
        self,
        created_time: datetime,
        task_id: str,
        kind: Kind,
        capture_id: str,
        file_name: str | None,
        *,
        sensitive: bool | None = None,
        version: str = "",
    ) -> ObjectKey:
        """The key of one capture; different (task, kind, capture id, version) never share one.

        Args:
            created_time: Of the contact task.
            task_id: The contact task.
            kind: Recording, transcript or screen recording.
            capture_id: Unique in its contact task and kind.
            file_name: As the API gave it.
            sensitive: Whether the API calls it so; None where it does not tell.
            version: Empty for the first; else lower-case hex digits that tell a later content apart.
        """
        task_prefix = self.captures_of_contact_task(
            created_time, task_id, sensitive=bool(sensitive)
        )
        # No id is ever written with "~v": an escape goes on with hex digits, a cut with another "~".
        capture = f"{safe_part(capture_id)}~v{version}" if version else safe_part(capture_id)
        return ObjectKey(f"{task_prefix}{kind}/{capture}/{safe_file_name(file_name)}")

    def is_misplaced(self, key: str, *, sensitive: bool | None) -> bool:
        """Whether a sensitive capture lies elsewhere: it became sensitive, or is from before the setting."""
        here = self.captures(sensitive=True)
        return bool(sensitive and self.sensitive_prefix) and not key.startswith(here)

    def table(self, table: TableName) -> ObjectKey:
        """What the keys of all partitions of a table begin with."""
        return ObjectKey(f"{self.prefix}tables/{table}/{self._org}/")

    def hour_of(self, key: ObjectKey) -> datetime | None:
        """The creation hour that the key of a capture or a partition names, or None where it names none."""
        found = _HOUR_IN_KEY.search(key)
        if not found:
            return None
        try:
            return datetime.fromisoformat(f"{found[1]}T{found[2] or found[3]}:00:00+00:00")
        except ValueError:
            return None

    def table_partition(self, table: TableName, hour: datetime) -> ObjectKey:
        """The one object that holds a table's rows of one hour."""
        hour = hour_of(hour)
        return ObjectKey(f"{self.prefix}tables/{table}/{self._partition(hour)}/{hour:%H}.parquet")

    def working_files(self) -> ObjectKey:
        """What the keys of all working files begin with; they are swept after a day."""
        return ObjectKey(f"{self.prefix}_work/")

    def working_file(self, run_id: str, name: str) -> ObjectKey:
        """A file that passes rows from one Airflow task of a run to the next."""
        return ObjectKey(f"{self.working_files()}{safe_part(run_id)}/{safe_part(name)}")

    def manifests(self) -> ObjectKey:
        """What the keys of all manifests of the org begin with."""
        return ObjectKey(f"{self.prefix}manifests/{self._org}/")

    def manifest(self, sequence: int) -> ObjectKey:
        """The manifest of a number from 1 on. The keys count down, so that the newest is listed first."""
        return ObjectKey(f"{self.manifests()}{_LAST_MANIFEST - sequence:010d}.json")

    def manifest_sequence(self, key: ObjectKey) -> int | None:
        """The number of a manifest, or None where the key is none."""
        found = _MANIFEST.fullmatch(key.removeprefix(self.manifests()))
        return _LAST_MANIFEST - int(found[1]) if found else None

    def due_markers(self) -> ObjectKey:
        """What the keys of all due markers begin with."""
        return ObjectKey(f"{self.prefix}due/{self._org}/")

    def hints(self) -> ObjectKey:
        """What the keys of all hints of the org begin with: contact tasks that an event told of."""
        return ObjectKey(f"{self.prefix}hints/{self._org}/")

    def hint_batch(self, received_time: datetime, unique: str) -> ObjectKey:
        """One object of hints that were received together; the keys sort by the time."""
        name = f"{received_time.astimezone(UTC):{_DUE_TIME}}-{safe_part(unique)}.json"
        return ObjectKey(f"{self.hints()}{name}")

    def due_marker(self, due_time: datetime, kind: DueKind, hour: datetime) -> DueMarker:
        """The marker of an hour; the keys sort by the time, rounded up to the second."""
        whole = due_time.astimezone(UTC).replace(microsecond=0)
        if whole < due_time:
            whole += timedelta(seconds=1)
        hour = hour_of(hour)
        name = f"{whole:{_DUE_TIME}}/{kind}/{hour:{_DUE_HOUR}}Z"
        return DueMarker(whole, kind, hour, ObjectKey(f"{self.due_markers()}{name}"))

    def parse_due_marker(self, key: ObjectKey) -> DueMarker | None:
        """The marker that a key stands for, or None where somebody else put something there."""
        found = _DUE_MARKER.fullmatch(key.removeprefix(self.due_markers()))
        if not found:
            return None
        try:
            # Not strptime, which takes ten times as long: a listing may have thousands of them.
            due_time = datetime.fromisoformat(found[1])
            hour = datetime.fromisoformat(f"{found[3]}Z")
        except ValueError:
            return None
        return DueMarker(due_time, "check" if found[2] == "check" else "list", hour, key)
