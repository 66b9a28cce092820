"""Lists the contact tasks of any interval: from the task list, or from the search where that is too old."""

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta

from include.domain.contact_centre import ContactTask
from include.domain.interval import Interval
from include.webex.contact_task_search import iter_searched_contact_tasks
from include.webex.contact_tasks import REACH, iter_contact_tasks
from include.webex.http_client import WebexClient

# The clocks differ, "12 months" may be counted in two ways, and a walk takes its time.
_MARGIN = timedelta(days=1)


def list_contact_tasks(
    client: WebexClient, interval: Interval, now: datetime, channel_types: Collection[str] = ()
) -> Iterator[ContactTask]:
    """Each contact task created in the interval that the API shows, once.

    What the task list reaches comes from there, since it tells more and lags behind nothing; what was
    created earlier comes from the search, up to 36 months back.

    Raises:
        PermanentError: The interval begins more than 36 months ago, or too many contact tasks share one
            millisecond to be told apart from those that an answer leaves out.
    """
    reach = now - REACH + _MARGIN
    if interval.start < reach:
        searched = Interval(interval.start, min(interval.end, reach))
        yield from iter_searched_contact_tasks(client, searched, now, channel_types)
    if interval.end > reach:
        listed = Interval(max(interval.start, reach), interval.end)
        yield from iter_contact_tasks(client, listed, now, channel_types)
