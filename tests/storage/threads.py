"""Several writers and readers at once."""

import threading
from collections.abc import Callable


def run_at_once(actions: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own; the first that raised is raised here."""
    errors: list[BaseException] = []

    def guarded(action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
