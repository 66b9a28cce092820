"""Where the next page of a search begins."""

from collections import OrderedDict

BOOKMARKS_KEPT = 256


class Bookmarks:
    """The last contact task of pages answered lately, so that the next page goes on there.

    A bounded number is kept; whoever asks for a page whose bookmark is gone counts from
    the first row, which is slower and finds the same unless the data changed meanwhile.
    """

    def __init__(self) -> None:
        self._ids: OrderedDict[tuple[str, int], str] = OrderedDict()

    def find(self, page: tuple[str, int]) -> str | None:
        """The contact task after which this page of this question begins, if still known."""
        return self._ids.get(page)

    def put(self, page: tuple[str, int], contact_task_id: str) -> None:
        """Remember after which contact task this page of this question begins."""
        self._ids[page] = contact_task_id
        self._ids.move_to_end(page)
        if len(self._ids) > BOOKMARKS_KEPT:
            self._ids.popitem(last=False)
