"""What one Airflow task of an archiving DAG runs with: its interval, clients, bucket and options."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Param, get_current_context

from include.domain.errors import PermanentError
from include.domain.interval import Interval
from include.pipelines.archive import Archive
from include.pipelines.archive_captures import ArchiveOptions
from include.webex.captures import CaptureOptions
from include.webex.http_client import WebexClient
from include.webex.media import MediaClient
from plugins.store_hook import get_archive
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


def range_params(*, is_required: bool) -> dict[str, Param]:
    """The parameters of a DAG whose run may be given a range; each is on the form as a date and time.

    Without them, a run takes its data interval; a DAG without a schedule has none and requires them.
    """
    descriptions = {
        "from": "Where the range begins, such as 2026-11-01T00:00:00Z.",
        "to": "The first instant after it, such as 2026-12-01T00:00:00Z.",
    }
    # A parameter without a default is one that Airflow's form requires.
    kind: dict[str, Any] = (
        {"type": "string"} if is_required else {"default": None, "type": ["null", "string"]}
    )
    return {
        name: Param(format="date-time", title=name.title(), description=description, **kind)
        for name, description in descriptions.items()
    }


_CAPTURE_FLAGS = ("include_segments", "include_virtual_agent", "include_screen_recordings")
RECHECK_PARAMS: dict[str, Param] = {
    **{name: ARCHIVE_PARAMS[name] for name in _CAPTURE_FLAGS},
    "look_for_changes": Param(
        default=True,
        type="boolean",
        title="Look for changes",
        description="Ask the media host whether what was copied is still the same: one byte of each capture.",
    ),
}
VERIFY_PARAMS: dict[str, Param] = {
    **range_params(is_required=False),
    "days": Param(
        default=3,
        type="integer",
        minimum=1,
        title="Days",
        description="Without a range: how many days before the run are verified.",
    ),
    "sha256_percent": Param(
        default=1,
        type="number",
        minimum=0,
        maximum=100,
        title="Objects to read",
        description="Of how many objects, in percent, every byte is read and compared; others each day.",
    ),
}


@dataclass(frozen=True)
class ArchiveRun:
    """The parts that a pipeline function asks for."""

    params: Mapping[str, Any]
    data_interval: tuple[datetime | None, datetime | None]
    client: WebexClient
    media: MediaClient
    archive: Archive

    @property
    def interval(self) -> Interval:
        """What the run is about: its data interval, or the range that it was given.

        Raises:
            PermanentError: There is none, or a parameter is unusable.
        """
        return run_interval(self.params, *self.data_interval)

    @property
    def options(self) -> ArchiveOptions:
        """The options in the run's parameters."""
        return archive_options(self.params)

    @property
    def is_range_given(self) -> bool:
        """Whether a person gave a range."""
        return bool(self.params.get("from") or self.params.get("to"))

    @property
    def verified_interval(self) -> Interval:
        """The range that the run was given, or the last days before it: before now, or before a backfill's end."""
        if self.is_range_given:
            return self.interval
        now = self.archive.now()
        end = self.data_interval[1]
        if end is None or now - end < timedelta(days=1):
            end = now
        return Interval(end - timedelta(days=self.params["days"]), end)


@contextmanager
def archive_run() -> Generator[ArchiveRun]:
    """The run that this Airflow task belongs to; closes its connections at the end.

    Raises:
        PermanentError: A connection or a field of it is missing or unusable.
    """
    context: Any = get_current_context()
    dag_run = context["dag_run"]
    hook = WebexContactCenterHook()
    client, media = hook.get_client(), hook.get_media_client()
    try:
        archive = get_archive(
            client.connection.org_id,
            f"{dag_run.dag_id}.{dag_run.run_id}",
            client.connection.capture_policy,
        )
        data_interval = (dag_run.data_interval_start, dag_run.data_interval_end)
        yield ArchiveRun(context["params"], data_interval, client, media, archive)
    finally:
        client.close()
        media.close()


def run_interval(
    params: Mapping[str, Any], data_start: datetime | None, data_end: datetime | None
) -> Interval:
    """What a run is about: its parameters ``from`` and ``to`` where it was given them, else its data interval.

    Raises:
        PermanentError: There is neither, or only one of the parameters, or it is not an interval.
    """
    given = [_instant(name, params[name]) for name in ("from", "to") if params.get(name)]
    if len(given) == 1:
        raise PermanentError(
            "Only one of the parameters from and to is given: give both, or none for the run's data interval."
        )
    start, end = given or (data_start, data_end)
    if start is None or end is None:
        raise PermanentError(
            "This run has no data interval, so there is no hour to archive: trigger the DAG with a logical date, "
            "or use Backfill with a range of dates."
        )
    return Interval(start, end)


def _instant(name: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise PermanentError(
            f"The parameter {name} is not a date and time: write it as in 2026-11-01T00:00:00Z."
        ) from None


def archive_options(params: Mapping[str, Any]) -> ArchiveOptions:
    """The options in a run's parameters, which Airflow has checked against their schema; each DAG has its own."""
    return ArchiveOptions(
        channel_types=tuple(params.get("channel_types", ())),
        captures=CaptureOptions(
            include_segments=params["include_segments"],
            include_virtual_agent=params["include_virtual_agent"],
            include_screen_recordings=params["include_screen_recordings"],
        ),
        recopy=params.get("recopy", False),
        look_for_changes=params.get("look_for_changes", False),
    )
