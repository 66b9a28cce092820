"""Copies one capture into the bucket: visible only when it is whole and plausible."""

import hashlib
from dataclasses import dataclass, field

from include.domain.object_keys import Kind, ObjectKey
from include.storage.formats import FormatCheck, Implausible, format_check_for
from include.storage.object_store import Condition, ObjectStore, Source, StoredCopy


@dataclass(frozen=True)
class StoredCapture:
    """A whole capture in the bucket: length, SHA-256 in hex, and the format that its content showed.

    Attributes:
        etag: As the store gives it of what was stored just now; empty for what was read back.
    """

    size_bytes: int
    sha256: str
    format: str
    etag: str = field(default="", compare=False)


class ContentChanged(Exception):
    """The bytes are whole, but others than the ones that this key stands for; nothing was stored.

    Attributes:
        sha256: Of the bytes that came.
    """

    def __init__(self, sha256: str) -> None:
        super().__init__(sha256)
        self.sha256 = sha256


def store_capture(
    store: ObjectStore,
    key: ObjectKey,
    source: Source,
    *,
    size_bytes: int | None,
    kind: Kind,
    file_name: str | None,
    condition: Condition | None = None,
    expected_sha256: str | None = None,
) -> StoredCapture:
    """Copy a stream to its final key and say what is there.

    The object appears only after every byte passed the check of its format, and the announced length
    (which the source itself enforces); anything else leaves nothing behind and an older object as it was.

    Args:
        store: The bucket.
        key: Where to.
        source: The bytes.
        size_bytes: The announced length, if there is one.
        kind: What the format is checked for.
        file_name: As the API gave it.
        condition: When the object may appear.
        expected_sha256: What the bytes must be, where the key stands for known ones.

    Raises:
        Implausible: The bytes are not the file that was announced.
        ContentChanged: They are not the expected ones.
        ConditionFailed: Somebody else wrote the object.
        ArchiveError: What the source or the store raise.
    """
    if (size_bytes or 0) > store.max_object_bytes:
        raise Implausible(
            f"The file is announced with {size_bytes} bytes, which is more than the store takes."
        )
    checked = _Checked(source, format_check_for(kind, file_name))
    found_format = ""

    def approve(copy: StoredCopy) -> None:
        nonlocal found_format
        found_format = checked.check.finish(
            copy.size_bytes, is_length_announced=size_bytes is not None
        )
        if expected_sha256 not in {None, copy.sha256}:
            raise ContentChanged(copy.sha256)

    copy = store.write_stream(key, checked, condition, approve)
    return StoredCapture(copy.size_bytes, copy.sha256, found_format, copy.etag)


class _Checked:
    """A source whose bytes a format check sees as they pass."""

    def __init__(self, source: Source, check: FormatCheck) -> None:
        self.check = check
        self._source = source

    def readinto(self, view: memoryview, /) -> int:
        count = self._source.readinto(view)
        if count:
            self.check.feed(view[:count])
        return count


def read_back(
    store: ObjectStore, key: ObjectKey, *, kind: Kind, file_name: str | None
) -> StoredCapture:
    """What is stored under a key, found by reading every byte of it from the bucket.

    Raises:
        Implausible: The object is not such a file.
    """
    check = format_check_for(kind, file_name)
    digest = hashlib.sha256()
    size_bytes = 0
    for chunk in store.iter_bytes(key):
        check.feed(chunk)
        digest.update(chunk)
        size_bytes += len(chunk)
    return StoredCapture(
        size_bytes, digest.hexdigest(), check.finish(size_bytes, is_length_announced=True)
    )
