"""What the API told, as values: contact tasks and the captures offered for them."""

from dataclasses import dataclass, field
from datetime import datetime

from pydantic import SecretStr

from include.domain.object_keys import Kind

JsonObject = dict[str, object]
UNIDENTIFIED = "unidentified-"  # what the id of an element begins with to which the API gave none


@dataclass(frozen=True, kw_only=True)
class ContactTask:
    """One contact task of GET /v1/tasks. Everything but the id and the creation time may be missing."""

    task_id: str
    created_time: datetime
    channel_type: str | None = None
    status: str | None = None
    last_updated_time: datetime | None = None
    capture_requested: bool | None = None
    direction: str | None = None
    origin: str | None = None
    destination: str | None = None
    reason_code: str | None = None
    owner_id: str | None = None
    owner_name: str | None = None
    queue_id: str | None = None
    queue_name: str | None = None
    extra: JsonObject = field(default_factory=dict[str, object])


@dataclass(frozen=True, kw_only=True)
class Capture:
    """One capture as POST /v1/captures/query offered it.

    ``download_url`` is a credential that lives at most 60 minutes: it never leaves the Airflow task
    that asked for it. ``capture_id`` is unique in its task and kind; it is the API's id, except where
    the API gave one id to several different captures (a voice transcript's id names a configuration).
    """

    kind: Kind
    capture_id: str
    download_url: SecretStr | None
    file_name: str | None = None
    segment: bool | None = None
    call_type: str | None = None
    channel1: str | None = None
    channel2: str | None = None
    participants: tuple[str, ...] = ()
    sensitive: bool | None = None
    source: str | None = None
    provider: str | None = None
    language_code: str | None = None
    start_time: datetime | None = None
    stop_time: datetime | None = None
    extra: JsonObject = field(default_factory=dict[str, object])


def is_identified(task_id: str) -> bool:
    """Whether the API gave the id, so that it can be asked about."""
    return not task_id.startswith(UNIDENTIFIED)
