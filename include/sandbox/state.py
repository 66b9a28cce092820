"""Everything one running sandbox is made of."""

import json
from typing import cast

from include.sandbox.bodies import Body, BodyMaker
from include.sandbox.bookmarks import Bookmarks
from include.sandbox.captures import Capture, CaptureLibrary
from include.sandbox.clock import Clock
from include.sandbox.contact_centre import ContactCentre, ContactTask
from include.sandbox.events import EventSender
from include.sandbox.faults import FaultBoard, parse_fault
from include.sandbox.journal import Journal
from include.sandbox.scenario import Scenario
from include.sandbox.signing import UrlSigner
from include.sandbox.subscriptions import SubscriptionDesk
from include.sandbox.throttle import Throttle
from include.sandbox.tokens import TokenDesk


class SandboxState:
    """The contact centre of a scenario, and the little that changes while it is served."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = Clock(scenario.now_ms)
        self.centre = ContactCentre(scenario)
        self.library = CaptureLibrary(self.centre)
        self.bodies = BodyMaker(scenario.seed)
        self.signer = UrlSigner(self.centre.key)
        self.tokens = TokenDesk(self.centre.key, scenario, self.clock)
        self.throttle = Throttle(self.clock, scenario.requests_per_minute)
        self.faults = FaultBoard(scenario.seed)
        self.journal = Journal(self.clock)
        self.bookmarks = Bookmarks()
        self.subscriptions = SubscriptionDesk(self.centre.key, scenario, self.clock)
        self.events = EventSender(
            scenario, self.clock, self.centre, self.library, self.subscriptions
        )
        self.set_faults(json.loads(scenario.faults))

    def body_of(self, contact_task: ContactTask, capture: Capture, now_ms: int) -> Body:
        """The capture's bytes as they are at a moment."""
        version = capture.version(now_ms)
        size_bytes = capture.size_bytes if version == 1 else capture.size_bytes * 5 // 4
        identity = f"{contact_task.id}/{capture.object_id}/{version}"
        return self.bodies.make(capture.form, identity, size_bytes)

    def set_faults(self, content: object) -> None:
        """Put the faults of a JSON list in force, instead of the present ones.

        Raises:
            ValueError: The list or a fault in it is not well formed; nothing is changed.
        """
        if not isinstance(content, list):
            raise ValueError("Faults are a JSON list.")  # noqa: TRY004 - a bad request, not a bug
        self.faults.replace([parse_fault(each) for each in cast("list[object]", content)])
