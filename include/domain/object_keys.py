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
from datetime import datetime
from typing import Literal, NewType

from include.domain.errors import PermanentError
from include.domain.interval import hour_of

ObjectKey = NewType("ObjectKey", str)
Kind = Literal["recording", "transcript", "screen_recording"]
TableName = Literal["contact_tasks", "captures"]

MAX_PART_LENGTH = 120
MAX_PREFIX_LENGTH = 256
_SAFE_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_DIGEST_LENGTH = 32
_PREFIX = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*")
_PERSONAL = re.compile(r"\+\d[\d*() .-]{5,}\d|[^\s/@]+@[^\s/@]+\.[A-Za-z]{2,}")
_UNNAMED = "unnamed"
_MAX_NAME_LENGTH = 1024


def safe_part(text: str) -> str:
    """One part of a key that stands for any text; different texts give different parts."""
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


@dataclass(frozen=True)
class KeyLayout:
    """The keys of one org's archive, under the optional prefix of the bucket.

    Raises:
        PermanentError: The prefix is not made of plain parts (letters, digits, ``. _ = -``).
    """

    org_id: str
    prefix: str = ""

    def __post_init__(self) -> None:
        trimmed = self.prefix.strip("/")
        if trimmed and (len(trimmed) > MAX_PREFIX_LENGTH or not _PREFIX.fullmatch(trimmed)):
            raise PermanentError(
                "The extra field 'prefix' of the connection wxcc_store is not usable: give at most "
                f"{MAX_PREFIX_LENGTH} letters, digits, '.', '_', '=' or '-', in parts divided by '/'."
            )
        object.__setattr__(self, "prefix", f"{trimmed}/" if trimmed else "")

    def _partition(self, instant: datetime) -> str:
        return f"org_id={safe_part(self.org_id)}/created_date={hour_of(instant):%Y-%m-%d}"

    def captures_of_hour(self, created_time: datetime) -> ObjectKey:
        """What the keys of all captures of the contact tasks created in one hour begin with."""
        hour = hour_of(created_time)
        return ObjectKey(f"{self.prefix}captures/{self._partition(hour)}/created_hour={hour:%H}/")

    def captures_of_contact_task(self, created_time: datetime, task_id: str) -> ObjectKey:
        """What the keys of all captures of one contact task begin with."""
        return ObjectKey(f"{self.captures_of_hour(created_time)}{safe_part(task_id)}/")

    def capture(
        self,
        created_time: datetime,
        task_id: str,
        kind: Kind,
        capture_id: str,
        file_name: str | None,
    ) -> ObjectKey:
        """The key of one capture; different (task, kind, capture id) never share one."""
        task_prefix = self.captures_of_contact_task(created_time, task_id)
        return ObjectKey(f"{task_prefix}{kind}/{safe_part(capture_id)}/{safe_file_name(file_name)}")

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
