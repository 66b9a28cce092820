"""The bucket as one run sees it, with the run's own working files, clock and patience."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from include.domain.capture_state import CapturePolicy
from include.domain.interval import utc_now
from include.domain.late_listing import next_listing_time
from include.domain.object_keys import DueMarker, KeyLayout, ObjectKey, safe_part
from include.domain.personal_data import PersonalData
from include.storage.object_store import ObjectStore

log = logging.getLogger(__name__)

WORKING_FILES_LIVE = timedelta(days=1)


@dataclass(frozen=True)
class Archive:
    """The bucket, its key layout, and the name under which one run keeps its working files.

    Attributes:
        personal_data: What of it the rows may hold.
    """

    store: ObjectStore
    keys: KeyLayout
    run_id: str
    policy: CapturePolicy = field(default_factory=CapturePolicy)
    personal_data: PersonalData = field(default_factory=PersonalData)
    now: Callable[[], datetime] = utc_now
    sleep: Callable[[float], None] = time.sleep

    def working_file(self, name: str) -> ObjectKey:
        """The key of one working file of this run."""
        return self.keys.working_file(self.run_id, name)

    def own_working_files(self) -> list[ObjectKey]:
        """All working files of this run, in the order in which they are to be removed: the plan first.

        Whoever repeats a step of a run that died while it removed them finds no plan, and says so; with a plan
        whose shards are gone, it would take them for unfinished.
        """
        prefix = f"{self.keys.working_files()}{safe_part(self.run_id)}/"
        return sorted((found.key for found in self.store.list(prefix)), reverse=True)

    def sweep(self, now: datetime) -> None:
        """Remove what runs that were killed or failed for good left behind more than a day ago."""
        found = self.store.list(self.keys.working_files())
        self.store.delete(
            [file.key for file in found if now - file.last_modified > WORKING_FILES_LIVE]
        )
        for sensitive in self.keys.places:
            self.store.abort_uploads(
                self.keys.captures(sensitive=sensitive), now - WORKING_FILES_LIVE
            )

    def due_markers(self, until: datetime) -> Iterator[DueMarker]:
        """The markers of what is due by then, longest due first: one listing that ends there."""
        for found in self.store.list(self.keys.due_markers()):
            marker = self.keys.parse_due_marker(found.key)
            if marker is None:
                log.warning("%s is not ours: somebody else put it there.", found.key)
            elif marker.due_time > until:
                return
            else:
                yield marker

    def mark_for_listing(self, hours: Iterable[datetime], listed_time: datetime) -> None:
        """Have the contact tasks of hours that are listed now be listed again, unless they are settled."""
        for hour in hours:
            due_time = next_listing_time(hour, listed_time)
            if due_time:
                self.store.write(self.keys.due_marker(due_time, "list", hour).key, b"")
