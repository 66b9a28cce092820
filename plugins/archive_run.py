"""What one Airflow task of an archiving DAG runs with: its interval, clients, bucket and options."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from airflow.sdk import Param, get_current_context

from include.domain.errors import PermanentError
from include.domain.interval import Interval
from include.domain.object_keys import KeyLayout
from include.pipelines.archive import Archive
from include.pipelines.archive_captures import ArchiveOptions
from include.webex.captures import CaptureOptions
from include.webex.http_client import WebexClient
from include.webex.media import MediaClient
from plugins.store_hook import get_store
from plugins.webex_hook import WebexContactCenterHook

API_POOL = "wxcc_api"
# The documented values of the API's own filter; "Select nothing" archives channels it cannot filter too.
CHANNEL_TYPES = ("telephony", "email", "chat", "social")

ARCHIVE_PARAMS: dict[str, Param] = {
    "channel_types": Param(
        [],
        type="array",
        items={"type": "string", "enum": list(CHANNEL_TYPES)},
        examples=list(CHANNEL_TYPES),
        title="Channel types",
        description="Archive only these; none selected means all, also those that the API may add.",
    ),
    "include_segments": Param(
        default=False,
        type="boolean",
        title="Segments",
        description="Archive each segment of a call instead of one stitched recording.",
    ),
    "include_virtual_agent": Param(
        default=True,
        type="boolean",
        title="Virtual agent",
        description="Archive virtual agent recordings.",
    ),
    "include_screen_recordings": Param(
        default=True,
        type="boolean",
        title="Screen recordings",
        description="Archive screen recordings.",
    ),
    "recopy": Param(
        default=False,
        type="boolean",
        title="Copy again",
        description="Download every capture again, also those that are whole in the bucket.",
    ),
}


@dataclass(frozen=True)
class ArchiveRun:
    """The parts that a pipeline function asks for."""

    interval: Interval
    client: WebexClient
    media: MediaClient
    archive: Archive
    options: ArchiveOptions


@contextmanager
def archive_run() -> Generator[ArchiveRun]:
    """The run that this Airflow task belongs to; closes its connections at the end.

    Raises:
        PermanentError: The run has no interval, or a connection, a field or a parameter is unusable.
    """
    context: Any = get_current_context()
    dag_run = context["dag_run"]
    start, end = dag_run.data_interval_start, dag_run.data_interval_end
    if start is None or end is None:
        raise PermanentError(
            "This run has no data interval, so there is no hour to archive: trigger the DAG with a logical date, "
            "or use Backfill with a range of dates."
        )
    interval = Interval(start, end)
    options = archive_options(context["params"])
    hook = WebexContactCenterHook()
    store, prefix = get_store()
    client, media = hook.get_client(), hook.get_media_client()
    try:
        keys = KeyLayout(client.connection.org_id, prefix)
        archive = Archive(store, keys, f"{dag_run.dag_id}.{dag_run.run_id}")
        yield ArchiveRun(interval, client, media, archive, options)
    finally:
        client.close()
        media.close()


def archive_options(params: Mapping[str, Any]) -> ArchiveOptions:
    """The options in a run's parameters, which Airflow has checked against their schema."""
    return ArchiveOptions(
        channel_types=tuple(params["channel_types"]),
        captures=CaptureOptions(
            include_segments=params["include_segments"],
            include_virtual_agent=params["include_virtual_agent"],
            include_screen_recordings=params["include_screen_recordings"],
        ),
        recopy=params["recopy"],
    )
