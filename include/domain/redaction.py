"""Takes secrets and personal data out of text that leaves the places made for them."""

import re
from typing import cast
from urllib.parse import urlsplit

_URL = re.compile(r"https?://[^\s\"'<>]+", re.IGNORECASE)
# The look-behind and the possessive quantifiers keep the search linear on text without any address.
EMAIL = re.compile(r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]++@[\w-]+(?:\.[\w-]+)+")
PHONE = re.compile(r"\+\d[\d*() .-]{5,}\d")
_TOKEN = re.compile(
    r"(?i)(bearer\s+|(?:token|secret|signature|credential)[\"']?\s*[=:]\s*[\"']?)[\w.~+/%-]{8,}=*"
    # A bare word after "token" is one only when no word of a sentence looks like it.
    r"|(token\s+)(?=[\w.~+/-]*\d)[\w.~+/-]{16,}=*"
)

_MAX_SHOWN_ID = 200


def without_query(url: str) -> str:
    """A URL without user, query and fragment: the parts of a signed URL that are credentials."""
    try:
        parts = urlsplit(url)
    except ValueError:  # an unclosed bracket: nothing in it can be told apart
        return "https://***"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def redact(text: str) -> str:
    """The text without signed URLs, tokens, e-mail addresses and phone numbers."""
    text = _URL.sub(lambda match: without_query(match.group()), text)
    text = _TOKEN.sub(lambda match: f"{match.group(1) or match.group(2)}***", text)
    text = EMAIL.sub("***@***", text)
    return PHONE.sub("+***", text)


def shown_id(text: str) -> str:
    """An id of the API as an error or a log line may name it: plain, short, and no secret in an id's place."""
    plain = redact(text[:_MAX_SHOWN_ID])
    shown = "".join(char if char.isascii() and char.isprintable() else "?" for char in plain)
    return shown + ("…" if len(text) > _MAX_SHOWN_ID else "")


def without_signed_urls(value: object) -> object:
    """A JSON value in which every URL has lost its query; for fields that the API may add."""
    if isinstance(value, str):
        return _URL.sub(lambda match: without_query(match.group()), value)
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {str(without_signed_urls(key)): without_signed_urls(item) for key, item in items}
    if isinstance(value, list):
        return [without_signed_urls(item) for item in cast("list[object]", value)]
    return value
