"""What a verification may find wrong, and what mends it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from include.domain.interval import HOUR

FindingKind = Literal[
    "manifest_altered",
    "manifest_missing",
    "hash_not_in_chain",
    "partition_missing",
    "partition_altered",
    "partition_unfinished",
    "partition_unknown",
    "partition_was_altered",
    "object_missing",
    "object_altered",
    "object_unknown",
    "row_unfit",
    "hour_not_archived",
    "contact_task_missing",
    "purge_near",
    "not_due",
]

_RESTORE = "restore the version before from the bucket's versions or a copy of it"
_WHAT: dict[FindingKind, tuple[str, str]] = {
    "manifest_altered": ("The manifest is not the one that was written", _RESTORE),
    "manifest_missing": ("The manifest is gone", _RESTORE),
    "hash_not_in_chain": (
        "No manifest has the SHA-256 that you hold",
        "the chain was cut or written anew since you were given it: compare with a copy of the bucket",
    ),
    "partition_missing": ("The partition is gone", f"{_RESTORE}, or {{run}}"),
    "partition_altered": (
        "The partition is not the one that was published",
        f"{_RESTORE}, or delete it and {{run}}",
    ),
    "partition_unfinished": (
        "The partition is an earlier one than the newest manifest says: a run was killed, or it was put back",
        "{run}",
    ),
    "partition_unknown": (
        "No manifest knows this partition",
        "if the manifests are gone, restore them; else find out who put it there",
    ),
    "partition_was_altered": (
        "The partition was altered or removed before a later run replaced it",
        "nothing mends the past: compare with a copy of the bucket",
    ),
    "object_missing": ("The object of a row is gone", f"{_RESTORE}, or {{run}}"),
    "object_altered": (
        "The object is not the one that was copied",
        f"{_RESTORE}, or {{recopy}}",
    ),
    "object_unknown": (
        "No row knows this object",
        "{run}; if it stays unknown, find out whose it is before anyone removes it: it may be the only copy "
        "of what Webex has purged, while its row was lost",
    ),
    "row_unfit": ("The rows do not fit each other", "{run}"),
    "hour_not_archived": ("The hour was never archived", "{run}"),
    "contact_task_missing": ("Webex lists a contact task that has no row", "{run}"),
    "purge_near": ("It is not archived, and Webex purges it soon", "{run}"),
    "not_due": ("It is not final, and nothing says when to look again", "{run}"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: What is wrong.
        subject: The key, contact task or manifest that it is about.
        hour: The creation hour that it belongs to, if it belongs to one.
        detail: What was found instead, if that says more.
    """

    kind: FindingKind
    subject: str
    hour: datetime | None = None
    detail: str = ""

    @property
    def sentence(self) -> str:
        """What is wrong, and where."""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{_WHAT[self.kind][0]}: {self.subject}{detail}."

    @property
    def remedy(self) -> str:
        """What mends it: an action, with the command where there is one."""
        if self.hour is None:
            return _WHAT[self.kind][1].format(
                run="find out who put it there", recopy="find out who put it there"
            )
        # A manual run at the end of an hour has the data interval of that hour.
        run = f"airflow dags trigger archive_captures --logical-date {self.hour + HOUR:%Y-%m-%dT%H:%M:%SZ}"
        return _WHAT[self.kind][1].format(
            run=f"run: {run}", recopy=f"run: {run} --conf '{{\"recopy\": true}}'"
        )
