"""What the sandbox really holds, told without the API's limits: the measure for tests."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from include.sandbox.bodies import Body
from include.sandbox.captures import CaptureFlags
from include.sandbox.state import SandboxState

_HASHES_KEPT = 4_096


class Truth:
    """Tells of contact tasks and captures; keeps a bounded number of computed hashes."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._hashes: OrderedDict[tuple[str, int], str] = OrderedDict()

    def rows(
        self, from_ms: int, to_ms: int, flags: CaptureFlags, at_ms: int, *, with_sha256: bool
    ) -> Iterator[dict[str, Any]]:
        """One row for each contact task with ``from_ms <= created < to_ms``, ascending.

        Its captures are all that a query with these flags ever answers, each with
        ``listed`` for the moment ``at_ms``; contact tasks created later are left out.
        """
        state = self._state
        for contact_task in state.centre.created_between(from_ms, min(to_ms, at_ms + 1)):
            captures: list[dict[str, Any]] = []
            for capture in state.library.captures_of(contact_task):
                if not flags.show(capture):
                    continue
                body = state.body_of(contact_task, capture, at_ms)
                captures.append(
                    {
                        "kind": capture.kind,
                        "id": capture.id,
                        "object_id": capture.object_id,
                        "file_name": capture.file_name,
                        "format": capture.form,
                        "size_bytes": body.size_bytes,
                        "sha256": self._sha256(body) if with_sha256 else None,
                        "start_ms": capture.start_ms,
                        "stop_ms": capture.stop_ms,
                        "available_ms": capture.available_ms,
                        "changed_ms": capture.changed_ms,
                        "purged_ms": capture.purged_ms,
                        "purged": capture.is_purged(at_ms),
                        "listed": capture.is_listed(at_ms),
                        **capture.metadata(),
                    }
                )
            yield {
                "task_id": contact_task.id,
                "created_ms": contact_task.created_ms,
                "ended_ms": contact_task.ended_ms,
                "visible": contact_task.listed_ms <= at_ms,
                "visible_ms": contact_task.listed_ms,
                "captured": contact_task.has_captures,
                "attributes": state.centre.row(contact_task, at_ms)["attributes"],
                "captures": captures,
            }

    def _sha256(self, body: Body) -> str:
        key = (body.entity_tag, body.size_bytes)
        known = self._hashes.get(key)
        if known is None:
            known = self._hashes[key] = body.sha256()
            if len(self._hashes) > _HASHES_KEPT:
                self._hashes.popitem(last=False)
        return known
