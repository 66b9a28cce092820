"""Errors, named by what the caller should do.

ArchiveError
├── TransientError     another attempt may succeed          → Airflow retries
├── PermanentError     the same request would be refused    → fail at once, a person acts
│   ├── TokenRejected  Webex refuses the credentials        → the same, about the service app
│   └── AlreadyRefused it did so before, and was told       → Airflow skips, without a request
├── CapturesFailed     the run did all it could; some captures are rows with the outcome `failed`
└── VerificationFailed the archive is not what it should be → a person mends what is named

A message is one sentence or two: what is wrong, which setting it concerns, what to do. It never
holds a token, a signed URL, a response body, a phone number or an e-mail address.
"""


class ArchiveError(Exception):
    """Base of every error that this program raises on purpose."""


class TransientError(ArchiveError):
    """Another attempt may succeed: the network, a server's trouble, a token not there yet."""


class PermanentError(ArchiveError):
    """The same request would be refused again: a setting is wrong and a person must act."""


class TokenRejected(PermanentError):
    """Webex refuses the client credentials, the refresh token or the access token."""


class AlreadyRefused(PermanentError):
    """Webex refused the same credentials lately, and a person was told; they were not sent again."""


class CapturesFailed(ArchiveError):
    """All the rest is archived; the named captures are rows with the outcome ``failed``."""


class VerificationFailed(ArchiveError):
    """Something is missing from the archive, or is not what it was: the message says what, and what mends it."""
