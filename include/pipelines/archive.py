"""The bucket as one run sees it, with the run's own working files, clock and patience."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from include.domain.capture_state import CapturePolicy
from include.domain.object_keys import KeyLayout, ObjectKey, safe_part
from include.pipelines.refresh_access_token import utc_now
from include.storage.object_store import ObjectStore

WORKING_FILES_LIVE = timedelta(days=1)


@dataclass(frozen=True)
class Archive:
    """The bucket, its key layout, and the name under which one run keeps its working files."""

    store: ObjectStore
    keys: KeyLayout
    run_id: str
    policy: CapturePolicy = field(default_factory=CapturePolicy)
    now: Callable[[], datetime] = utc_now
    sleep: Callable[[float], None] = time.sleep

    def working_file(self, name: str) -> ObjectKey:
        """The key of one working file of this run."""
        return self.keys.working_file(self.run_id, name)

    def own_working_files(self) -> Iterator[ObjectKey]:
        """All working files of this run."""
        prefix = f"{self.keys.working_files()}{safe_part(self.run_id)}/"
        return (found.key for found in self.store.list(prefix))

    def stale_working_files(self, now: datetime) -> list[ObjectKey]:
        """What runs that failed for good left behind more than a day ago."""
        found = self.store.list(self.keys.working_files())
        return [file.key for file in found if now - file.last_modified > WORKING_FILES_LIVE]
