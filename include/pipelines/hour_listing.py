"""Lists the contact tasks of many hours in few walks, and hands them out hour by hour."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from include.domain.contact_centre import ContactTask
from include.domain.interval import HOUR, Interval, hour_of
from include.webex.contact_task_listing import list_contact_tasks
from include.webex.http_client import WebexClient

MAX_HOURS_OF_ONE_WALK = 24  # what is listed at once lies in memory


def with_contact_tasks(
    client: WebexClient, hours: Sequence[datetime], to_list: Collection[datetime], now: datetime
) -> Iterator[tuple[datetime, list[ContactTask]]]:
    """Each hour, ascending, with the contact tasks that a listing shows now; none where it is not to be listed.

    Neighbouring hours are listed in one walk: its pages are full, where a walk for each hour would end with
    a page that is not.
    """
    spans = {span[0]: span for span in _spans(sorted(to_list))}
    listed: dict[datetime, list[ContactTask]] = defaultdict(list)
    for hour in hours:
        if hour in spans:
            interval = Interval(hour, spans[hour][-1] + HOUR)
            for contact_task in list_contact_tasks(client, interval, now):
                listed[hour_of(contact_task.created_time)].append(contact_task)
        yield hour, listed.pop(hour, [])


def _spans(hours: Sequence[datetime]) -> list[list[datetime]]:
    """Ascending hours, as runs of neighbours."""
    spans: list[list[datetime]] = []
    for hour in hours:
        last = spans[-1] if spans else []
        if last and hour - last[-1] == HOUR and len(last) < MAX_HOURS_OF_ONE_WALK:
            last.append(hour)
        else:
            spans.append([hour])
    return spans
