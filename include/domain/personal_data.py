"""What becomes of personal data in the rows: a policy for each column that may hold some.

Rows are made under it (`new_rows.py`), so that working files, tables and manifests all obey; and whatever
is published again is brought under it too, also a row whose contact task or capture Webex has purged.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, cast, get_args

from pydantic import SecretStr

from include.domain.contact_centre import Capture, ContactTask, JsonObject
from include.domain.errors import PermanentError
from include.domain.redaction import EMAIL, PHONE
from include.domain.rows import CaptureRow, ContactTaskRow, with_columns

Policy = Literal["keep", "mask", "hash", "drop"]
Column = Literal[
    "origin",
    "destination",
    "owner_id",
    "owner_name",
    "queue_name",
    "participants",
    "file_name",
    "extra_json",
]

MIN_SECRET_LENGTH = 32
MASK = "***"
OWN_NOTES = "archive"  # the member of a capture's extra_json that is not the API's
_POLICIES = get_args(Policy)
_COLUMNS = get_args(Column)
_TEXT_COLUMNS: tuple[Column, ...] = (
    "origin",
    "destination",
    "owner_id",
    "owner_name",
    "queue_name",
)
# Members that the API may show in another place, or in a type that the column cannot hold.
_MEMBERS: dict[str, Column] = {
    "origin": "origin",
    "destination": "destination",
    "agentid": "owner_id",
    "ownerid": "owner_id",
    "agentname": "owner_name",
    "ownername": "owner_name",
    "queuename": "queue_name",
    "participants": "participants",
    "filename": "file_name",
}
_INNER_MEMBERS: dict[tuple[str, str], Column] = {
    ("owner", "id"): "owner_id",
    ("owner", "name"): "owner_name",
    ("agent", "id"): "owner_id",
    ("agent", "name"): "owner_name",
    ("queue", "name"): "queue_name",
}
# Without a "+" only a whole text is one; 13 digits are an epoch in milliseconds.
_NATIONAL_PHONE = re.compile(r"(?!\d{4}-\d\d-\d\d\Z)\(?(?:\d[() .-]{0,2}){6,11}\d", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")
_Row = TypeVar("_Row", ContactTask, ContactTaskRow)


@dataclass(frozen=True)
class PersonalData:
    """The policy of each column; what is not named is kept.

    - ``mask``: the last two digits of a phone number, the domain of an e-mail address, the ending of a
      file name; of anything else only that there was something.
    - ``hash``: HMAC-SHA256 under the secret, in hex; the same text gives the same hash in every column.
    - ``drop``: null (an empty list of participants).

    In ``extra_json``, members that belong to a column follow its policy, and texts that look like a phone
    number or an e-mail address follow that of ``origin``; its own policy is ``keep`` or ``drop``.
    Null stays null.
    """

    policies: Mapping[Column, Policy] = field(default_factory=dict[Column, Policy])
    secret: SecretStr = field(default_factory=lambda: SecretStr(""))

    @classmethod
    def from_fields(cls, policies: object, secret: object) -> "PersonalData":
        """The policies that the connection's extra fields ask for.

        Raises:
            PermanentError: A column or a policy is unknown, or the secret is missing or too short.
        """
        if isinstance(policies, str):
            policies = _parse(policies)
        if policies is None:
            policies = {}
        if not isinstance(policies, dict):
            raise _no_object()
        told = cast("dict[object, object]", policies)
        for column, policy in told.items():
            if column not in _COLUMNS:
                raise PermanentError(
                    "The extra field 'personal_data' of the connection wxcc_store names a column that has no "
                    f"policy: the columns are {', '.join(_COLUMNS)}."
                )
            allowed = ("keep", "drop") if column == "extra_json" else _POLICIES
            if policy not in allowed:
                raise PermanentError(
                    "The extra field 'personal_data' of the connection wxcc_store has no such policy for "
                    f"{column}: give {', '.join(allowed[:-1])} or {allowed[-1]}."
                )
        key = secret if isinstance(secret, str) else ""
        if "hash" in told.values() and len(key) < MIN_SECRET_LENGTH:
            raise PermanentError(
                "The extra field 'personal_data_secret' of the connection wxcc_store is missing or too short: a "
                f"column that is hashed needs one of at least {MIN_SECRET_LENGTH} characters."
            )
        return cls(cast("dict[Column, Policy]", told), SecretStr(key))

    def contact_task(self, contact_task: ContactTask) -> ContactTask:
        """What may be kept of what the API told of a contact task."""
        if self._keeps_all:
            return contact_task
        told = self._text_columns(contact_task, is_stored=False)
        return replace(told, extra=self._extra(told.extra, is_stored=False))

    def capture(self, capture: Capture) -> Capture:
        """What may be kept of what the API told of a capture; its download URL stays as it is."""
        if self._keeps_all:
            return capture
        return replace(
            capture,
            file_name=self._one("file_name", capture.file_name, is_stored=False),
            participants=tuple(self._participants(capture.participants, is_stored=False)),
            extra=self._extra(capture.extra, is_stored=False),
        )

    def contact_task_row(self, row: ContactTaskRow) -> ContactTaskRow:
        """A row that was written before, under the policies of now; what is masked or hashed already stays."""
        if self._keeps_all:
            return row
        row = self._text_columns(row, is_stored=True)
        extra = self._extra(_json_object(row.extra_json), is_stored=True)
        return with_columns(row, extra_json=_json_text(extra))

    def capture_row(self, row: CaptureRow) -> CaptureRow:
        """A row that was written before, under the policies of now; what is masked or hashed already stays."""
        if self._keeps_all:
            return row
        told = _json_object(row.extra_json)
        notes = {OWN_NOTES: told.pop(OWN_NOTES)} if OWN_NOTES in told else {}
        return with_columns(
            row,
            file_name=self._one("file_name", row.file_name, is_stored=True),
            participants=self._participants(row.participants, is_stored=True),
            extra_json=_json_text({**self._extra(told, is_stored=True), **notes}),
        )

    @property
    def _keeps_all(self) -> bool:
        return all(policy == "keep" for policy in self.policies.values())

    def _policy(self, column: Column) -> Policy:
        return self.policies.get(column, "keep")

    def _text_columns(self, told: _Row, *, is_stored: bool) -> _Row:
        columns = {
            column: self._one(column, getattr(told, column), is_stored=is_stored)
            for column in _TEXT_COLUMNS
        }
        return replace(told, **columns)

    def _participants(self, told: Iterable[str], *, is_stored: bool) -> list[str]:
        found = (self._one("participants", each, is_stored=is_stored) for each in told)
        return [each for each in found if each is not None]

    def _one(self, column: Column, text: str | None, *, is_stored: bool) -> str | None:
        """One text under the policy of its column."""
        policy = self._policy(column)
        if text is None or policy == "keep":
            return text
        if policy == "drop":
            return None
        ending = ""
        if column == "file_name":  # says what the file is
            found = _ENDING.search(text)
            ending = found.group() if found else ""
            text = text.removesuffix(ending)
        if is_stored and (text.startswith(MASK) or _HASH.fullmatch(text)):
            return text + ending
        if policy == "hash":
            return self._hash(text) + ending
        return (MASK if column == "file_name" else mask(text)) + ending

    def _hash(self, text: str) -> str:
        key = self.secret.get_secret_value().encode()
        return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def _extra(self, extra: JsonObject, *, is_stored: bool) -> JsonObject:
        if self._policy("extra_json") == "drop":
            return {}
        return cast("JsonObject", self._any(extra, None, None, is_stored=is_stored))

    def _any(
        self, value: object, column: Column | None, parent: str | None, *, is_stored: bool
    ) -> object:
        """A value of ``extra_json``: as a member of a column where it is one, else by what it looks like."""
        if isinstance(value, dict):
            kept: JsonObject = {}
            for name, item in cast("JsonObject", value).items():
                plain = name.lower().partition("~")[0]
                own = column or _MEMBERS.get(plain) or _INNER_MEMBERS.get((parent or "", plain))
                if item is not None and own and self._policy(own) == "drop":
                    continue
                free = self._inside(name, is_stored=is_stored)
                while free in kept:
                    free += "~other"
                kept[free] = self._any(item, own, plain, is_stored=is_stored)
            return kept
        if isinstance(value, list):
            items = cast("list[object]", value)
            return [self._any(item, column, parent, is_stored=is_stored) for item in items]
        if (
            value is None
            or isinstance(value, bool)
            or (column is None and not isinstance(value, str))
        ):
            return value
        if column is not None and self._policy(column) != "keep":
            return self._one(column, str(value), is_stored=is_stored)
        return self._inside(value, is_stored=is_stored) if isinstance(value, str) else value

    def _inside(self, text: str, *, is_stored: bool) -> str:
        """A text whose phone numbers and e-mail addresses follow the policy of ``origin``."""
        if self._policy("origin") == "keep":
            return text

        def under_policy(found: re.Match[str]) -> str:
            return self._one("origin", found.group(), is_stored=is_stored) or MASK

        if _NATIONAL_PHONE.fullmatch(text):
            return _NATIONAL_PHONE.sub(under_policy, text)
        return PHONE.sub(under_policy, EMAIL.sub(under_policy, text))


def mask(text: str) -> str:
    """A text of which only the domain of an address or the last two digits of a number are left."""
    if "@" in text:
        domain = text.rpartition("@")[2]
        return f"{MASK}@{domain}" if re.fullmatch(r"[\w-]+(\.[\w-]+)+", domain) else MASK
    digits = re.sub(r"[+*() .-]", "", text)
    return MASK + digits[-2:] if len(digits) >= 7 and digits.isdecimal() else MASK


def _parse(text: str) -> object:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise _no_object() from None


def _no_object() -> PermanentError:
    return PermanentError(
        "The extra field 'personal_data' of the connection wxcc_store is no JSON object of columns and policies: "
        'write it as {"origin": "hash", "owner_name": "mask"}.'
    )


def _json_object(text: str | None) -> JsonObject:
    return cast("JsonObject", json.loads(text)) if text else {}


def _json_text(extra: JsonObject) -> str | None:
    return json.dumps(extra, sort_keys=True) if extra else None
