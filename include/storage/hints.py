"""Hints in the bucket: contact tasks of which an event told that they have something new."""

import json
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from include.domain.interval import epoch_ms, from_epoch_ms
from include.domain.object_keys import KeyLayout, ObjectKey
from include.storage.object_store import ObjectStore

log = logging.getLogger(__name__)

MAX_BATCHES_OF_ONE_READ = (
    500  # what is read at once lies in memory; the rest waits for the next read
)


@dataclass(frozen=True)
class Hint:
    """A contact task to look at, and when what the event told of was created."""

    task_id: str
    created_time: datetime


def write_hints(
    store: ObjectStore, keys: KeyLayout, hints: Sequence[Hint], now: datetime
) -> ObjectKey:
    """Keep hints as one object; they are durable when this returns.

    Raises:
        PermanentError: The bucket is not usable.
        TransientError: The store is in trouble or out of reach.
    """
    key = keys.hint_batch(now, uuid.uuid4().hex)
    rows = [[hint.task_id, epoch_ms(hint.created_time)] for hint in hints]
    store.write(key, json.dumps(rows).encode())
    return key


def read_hints(store: ObjectStore, keys: KeyLayout) -> tuple[list[ObjectKey], list[Hint]]:
    """The oldest objects of hints, and what they hold; what cannot be read tells nothing and is named in the log.

    Raises:
        PermanentError: The bucket is not usable.
        TransientError: The store is in trouble or out of reach.
    """
    batches: list[ObjectKey] = []
    hints: list[Hint] = []
    for found in islice(store.list(keys.hints()), MAX_BATCHES_OF_ONE_READ):
        batches.append(found.key)
        read = store.read(found.key)
        try:
            rows: Any = json.loads(read[0]) if read else []
            hints += [Hint(str(task_id), from_epoch_ms(int(ms))) for task_id, ms in rows]
        except (ValueError, TypeError, OverflowError):
            log.warning("%s does not hold hints: somebody else put it there.", found.key)
    return batches, hints
