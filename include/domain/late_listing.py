"""When the contact tasks of an hour are listed again: Webex may list some late (how late is unknown).

The first listing again catches a lag of minutes to hours, the one after two days comes when the hour's
contact tasks settle, and the later ones tell what has become of contact tasks that stay open for days.
Each falls on the next boundary of its grid, so that neighbouring hours are listed in one walk of full
pages: six walks a day, whatever the number of contact tasks.
"""

from datetime import UTC, datetime, timedelta

from include.domain.interval import HOUR

DAY = timedelta(days=1)
LISTINGS = ((2 * HOUR, 6 * HOUR), (2 * DAY, DAY), (7 * DAY, DAY), (14 * DAY, DAY))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def next_listing_time(hour: datetime, listed_time: datetime) -> datetime | None:
    """When an hour that was listed at some time is due to be listed again; None when it is settled."""
    for age, grid in LISTINGS:
        earliest = hour + HOUR + age
        due_time = earliest + (_EPOCH - earliest) % grid
        if due_time > listed_time:
            return due_time
    return None
