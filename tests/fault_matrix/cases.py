"""Which fault meets which stage, with which capture, and what must come of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from include.sandbox.faults import KINDS
from tests.fault_matrix.s3_door import (
    WRONG_BYTE_BEHIND_THE_CHECK,
    WRONG_BYTE_REFUSED,
    WRONG_BYTE_UNTOLD,
    WRONG_BYTES_STORED,
)

Capture = Literal["small", "multipart", "transcript", "screen recording"]
WEBEX_STAGES: Mapping[str, str] = {
    "token": "token",
    "tasks": "tasks",
    "captures": "captures",
    "download": "media",
}
"""The stages at Webex, and what the sandbox calls their endpoints."""
S3_STAGES: Mapping[str, Capture] = {
    "single PUT": "small",
    "upload create": "multipart",
    "part": "multipart",
    "complete": "multipart",
    "table": "small",
    "manifest": "small",
    "working file": "small",
    "probe": "small",
    "due marker": "small",
    "listing": "small",
    "read of working file": "small",
    "read of table": "small",
    "removal": "small",
}
"""The stages at the store, and with which capture they are met."""

REFRESHED = "401, refreshed meanwhile"
_STALLING = {"stall", "stall before headers", "stall mid-body"}
# Each fault of Webex and of its media host by the name it has in the table.
_WEBEX_FAULTS: Mapping[str, Mapping[str, Any]] = {
    "429, seconds": {"kind": "throttle", "retry_after_seconds": 500},
    "429, date": {"kind": "throttle_http_date", "retry_after_seconds": 500},
    "429": {"kind": "throttle_no_header"},
    "500": {"kind": "http_500"},
    "503": {"kind": "http_503"},
    "401": {"kind": "http_401"},
    REFRESHED: {"kind": "http_401"},
    "403": {"kind": "http_403"},
    "403, expired": {"kind": "expired_url"},
    "404": {"kind": "http_404"},
    "404, purged": {"kind": "purged"},
    "redirect": {"kind": "redirect"},
    "HTML in 200": {"kind": "html_in_200"},
    "error in 200": {"kind": "json_error_in_200"},
    "empty 200": {"kind": "empty_body"},
    "reset before headers": {"kind": "reset_before_headers"},
    "reset after processing": {"kind": "reset_after_processing"},
    "reset mid-body": {"kind": "reset_mid_body"},
    "short body": {"kind": "short_body"},
    "short body, no length": {"kind": "short_body_chunked"},
    "extra bytes": {"kind": "extra_bytes"},
    "stall": {"kind": "stall", "seconds": 1.0},
    "stall before headers": {"kind": "stall_before_headers", "seconds": 1.0},
}
_API_ONLY = {"403", "404", REFRESHED}
_MEDIA_ONLY = {"403, expired", "404, purged"}
# Whether a body is whole is told by its format, where nothing else tells it.
_JUDGED_BY_FORMAT = {"HTML in 200", "error in 200", "short body, no length", "extra bytes"}
_AT_EVERY_S3_STAGE = (
    "500",
    "503",
    "SlowDown",
    "disk full",
    "403",
    "HTML in 200",
    "error in 200",
    "reset before headers",
    "reset after processing",
    "stall",
)
_WHERE_CAPTURES_PASS = (
    "429, seconds",
    "429, date",
    "429",
    "403, key pair expired",
    "403, clock",
    "404, bucket",
    "redirect",
    "empty 200",
    "extra bytes",
)
_UPLOADS = {"single PUT", "upload create", "part", "complete"}
_WITH_A_BODY = {"single PUT", "part", "table", "manifest"}
_BROKEN_READ = (
    "500",
    "HTML in 200",
    "error in 200",
    "short body",
    "reset mid-body",
    "stall mid-body",
)
# What is written and read beside captures, tables and manifests; the same requests, so that fewer faults do.
_ASIDE: Mapping[str, tuple[str, ...]] = {
    "working file": (
        "disk full",
        "HTML in 200",
        "error in 200",
        "reset while sending",
        WRONG_BYTE_REFUSED,
        *WRONG_BYTES_STORED,
    ),
    "probe": ("500", "403", "HTML in 200", "reset before headers", "reset after processing"),
    "due marker": ("500", "HTML in 200", "reset after processing"),
    "listing": _BROKEN_READ,
    "read of working file": _BROKEN_READ,
    "read of table": _BROKEN_READ,
    "removal": ("500", "403", "HTML in 200", "reset after processing"),
}
LEFT_OUT: Mapping[str, str] = {
    "`403, expired` and `404, purged` anywhere but at a download": "They are answers of the media host only.",
    "`401, refreshed meanwhile` at the token and at a download": "Neither is asked with an access token.",
    "stalls of the token endpoint": "Its time-out of 30 seconds is fixed here; it ends as a broken connection does.",
    "most faults at working files, due marker, listing, reads and removal": "They are the requests of other stages, "
    "with other keys.",
    "transcripts and screen recordings where the length or the status tells": "A format matters only "
    "where nothing else tells that a body is not whole.",
    "sizes at the token, tasks, captures, table and manifest": "They happen before or after a capture is copied, "
    "whatever its size.",
    "a wrong byte where no body is sent (upload create, due marker, reads, removal)": "There is nothing to flip. "
    "What was flipped while it was read is found by the checks of the format, of Parquet and of TLS.",
    "a disk that is full on our side": "Nothing is kept on a disk: a capture passes through memory, working files "
    "are objects.",
    "`409` at table and manifest": "They are written again 30 and 40 times, with waits: see "
    "tests/pipelines/test_publication.py.",
    "the abort of an upload": "It happens only beside another fault; what it leaves is swept a day later.",
}


@dataclass(frozen=True)
class Case:
    """One row of the matrix."""

    stage: str
    fault: str
    capture: Capture

    def __str__(self) -> str:
        return f"{self.stage} - {self.fault} - {self.capture}"

    @property
    def webex_fault(self) -> dict[str, Any] | None:
        """The fault as the sandbox takes it; None at a stage of the store."""
        if self.stage not in WEBEX_STAGES:
            return None
        # A screen recording comes beside a recording, which is left alone.
        match = ".mp4" if self.capture == "screen recording" else ""
        return {"endpoint": WEBEX_STAGES[self.stage], "match": match, **_WEBEX_FAULTS[self.fault]}

    @property
    def begins_after(self) -> tuple[str, ...]:
        """The Airflow tasks that the fault cannot concern, since it strikes after them."""
        if self.stage == "token":
            return ()
        if self.stage in {"tasks", "listing", "working file", "due marker"}:
            return ("refresh_access_token",)
        if self.stage in {"table", "manifest", "removal"}:
            return ("refresh_access_token", "plan_shards", "archive_shard")
        return ("refresh_access_token", "plan_shards")

    @property
    def is_stalling(self) -> bool:
        return self.fault in _STALLING

    @property
    def is_refreshed_meanwhile(self) -> bool:
        return self.fault == REFRESHED

    @property
    def leaves_an_upload(self) -> bool:
        """The store began one and could not say so."""
        return self.stage == "upload create" and self.fault == "reset after processing"

    @property
    def leaves_working_files(self) -> bool:
        """The store says that it removed them."""
        return self.stage == "removal" and self.fault == "HTML in 200"

    @property
    def damages_the_plan(self) -> bool:
        """The whole run must be cleared, since Airflow tasks that succeeded handed on what is damaged."""
        return self.stage == "working file" and self.fault in WRONG_BYTES_STORED

    @property
    def is_untold(self) -> bool:
        """The store proved that it checks, or lies in all that it says: only reading the object again tells."""
        # Only where captures are copied is a store asked to prove that it checks, and believed then.
        is_proven = self.fault == WRONG_BYTE_BEHIND_THE_CHECK and self.stage in _UPLOADS
        return is_proven or self.fault == WRONG_BYTE_UNTOLD

    @property
    def may_fail_at_once(self) -> bool:
        """Met once, it may end a run: it says that a person must act, or that something is gone."""
        return self.fault in {
            "401",
            "403",
            "404",
            "404, purged",
            "redirect",
            "403, key pair expired",
            "403, clock",
            "404, bucket",
        }


def all_cases() -> Iterator[Case]:
    """Every combination that makes sense, stage by stage."""
    for stage in WEBEX_STAGES:
        yield from _at_webex(stage)
    for stage, capture in S3_STAGES.items():
        for fault in _at_s3(stage):
            yield Case(stage, fault, capture)


def _at_webex(stage: str) -> Iterator[Case]:
    for fault in _WEBEX_FAULTS:
        if stage == "download":
            if fault in _API_ONLY:
                continue
            yield Case(stage, fault, "small")
            yield Case(stage, fault, "multipart")
            if fault in _JUDGED_BY_FORMAT:
                yield Case(stage, fault, "transcript")
                yield Case(stage, fault, "screen recording")
        elif fault not in _MEDIA_ONLY:
            if stage == "token" and fault in {REFRESHED, *_STALLING}:
                continue
            yield Case(stage, fault, "small")


def _at_s3(stage: str) -> Iterator[str]:
    if stage in _ASIDE:
        yield from _ASIDE[stage]
        return
    yield from _AT_EVERY_S3_STAGE
    if stage in _UPLOADS:
        yield from _WHERE_CAPTURES_PASS
    if stage in {"part", "complete"}:
        yield "404, upload"
    if stage in {"single PUT", "complete"}:
        yield "409"
    if stage in _WITH_A_BODY:
        yield from ("reset while sending", WRONG_BYTE_REFUSED, *WRONG_BYTES_STORED)


def unmet_kinds() -> set[str]:
    """Faults that the sandbox can make and no case has."""
    met = {members["kind"] for members in _WEBEX_FAULTS.values()}
    alike = {"http_502", "http_504"}  # taken like 500 and 503
    return (
        set(KINDS) - met - alike - {"graphql_errors_in_200"}
    )  # of the search, which archives nothing
