"""Tells every day, each in one sentence, what keeps the archive from Webex or soon will."""

import logging
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from typing import Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from include.domain.contact_centre import JsonObject
from include.domain.errors import ArchiveError, PermanentError, TokenRejected, TransientError
from include.domain.interval import epoch_ms, utc_now
from include.pipelines.refresh_access_token import TokenStore
from include.webex.connection import CONNECTION_ID, WebexConnection
from include.webex.tokens import TokenPair, org_of, tells_token_expiry

log = logging.getLogger(__name__)

READ_SCOPES = {"cjp:config_read", "cjp:config"}
WRITE_SCOPE = "cjp:config_write"


class Client(Protocol):
    """What this needs of a `WebexClient`."""

    def get(self, path: str, parameters: dict[str, str | int]) -> JsonObject:
        """See `WebexClient.get`."""
        ...

    def close(self) -> None:
        """See `WebexClient.close`."""
        ...


def check_access(
    connection: WebexConnection,
    store: TokenStore,
    client_with: Callable[[SecretStr], Client],
    *,
    needs_write_scope: bool,
    now: Callable[[], datetime] = utc_now,
) -> str:
    """A sentence that says until when all is well. Sends two requests at most, and spends no refresh token.

    Raises:
        PermanentError: Something is not well: all sentences that were found.
        TransientError: Webex could not be asked, and nothing else was found.
    """
    text = (store.read() or "").strip()
    if not text:
        raise PermanentError(
            "There is no access token yet: un-pause the DAG refresh_access_token and see why it stores none."
        )
    pair = TokenPair.from_json(text)
    if not pair.belongs_to(connection):
        raise PermanentError(
            f"The stored token pair is of another org, client id or token URL than the connection {CONNECTION_ID} "
            "names: run the DAG refresh_access_token, or correct the connection."
        )
    problems = [
        *_walls(pair, now()),
        *_wrong_org(pair, connection),
        *_missing_scopes(pair, needs_write_scope=needs_write_scope),
    ]
    trouble: TransientError | None = None
    if pair.is_usable(now()):
        try:
            problems += _refusals(connection, pair, client_with, now())
        except TransientError as error:
            trouble = error
    for problem in problems:
        log.error("%s", problem)
    if problems:
        raise PermanentError("\n".join(problems))
    if trouble:
        raise trouble
    return f"{connection.base_url} answers; the access token ends {pair.expires_time.isoformat()}"


def _walls(pair: TokenPair, now: datetime) -> list[str]:
    found: list[str] = []
    if not pair.is_usable(now):
        found.append(
            f"The access token has ended ({pair.expires_time:%Y-%m-%d %H:%M} UTC): see why the DAG "
            "refresh_access_token is paused or fails."
        )
    elif pair.is_ending(now):
        found.append(
            f"The access token ends {pair.expires_time:%Y-%m-%d %H:%M} UTC and should have been refreshed long ago: "
            "see why the DAG refresh_access_token is paused or fails."
        )
    if pair.is_refresh_token_ending(now):
        found.append(
            f"The refresh token ends {pair.refresh_token_expires_time:%Y-%m-%d} and Webex does not lengthen its "
            "life: make a new first pair before that day (docs/operations.md, New refresh token)."
        )
    return found


def _wrong_org(pair: TokenPair, connection: WebexConnection) -> list[str]:
    org_id = org_of(pair.access_token)
    if org_id in {None, connection.org_id}:
        return []
    return [
        f"The access token is of the org {org_id}, not of {connection.org_id}: correct the extra field org_id of the "
        f"connection {CONNECTION_ID}, or make the pair in that org."
    ]


def _missing_scopes(pair: TokenPair, *, needs_write_scope: bool) -> list[str]:
    """Where Webex told no scope, the request below shows the one that the archive needs."""
    if pair.scope is None:
        return []
    scopes = set(pair.scope.split())
    found: list[str] = []
    if not scopes & READ_SCOPES:
        found.append(_MISSING_READ_SCOPE)
    if needs_write_scope and not scopes & {WRITE_SCOPE, "cjp:config"}:
        found.append(
            "The application lacks the scope cjp:config_write, which capture events need: add it in the Webex "
            "Developer Portal and have a full administrator approve the application anew in Control Hub, or delete "
            "the connection wxcc_capture_events."
        )
    return found


_MISSING_READ_SCOPE = (
    "The application lacks the scope cjp:config_read: add it in the Webex Developer Portal and have a full "
    "administrator approve the application anew in Control Hub."
)


def _refusals(
    connection: WebexConnection,
    pair: TokenPair,
    client_with: Callable[[SecretStr], Client],
    now: datetime,
) -> list[str]:
    parameters: dict[str, str | int] = {
        "from": epoch_ms(now) - 60_000,
        "pageSize": 1,
        "orgId": connection.org_id,
    }
    with closing(client_with(pair.access_token)) as client:
        try:
            client.get("/v1/tasks", parameters)
        except TransientError:
            raise
        except TokenRejected:
            return [_why_401(connection, pair.access_token)]
        except ArchiveError as error:
            return [str(error)]
    return []


def _why_401(connection: WebexConnection, access_token: SecretStr) -> str:
    """The general API, the same for all regions, knows whether it is the token or the place."""
    if tells_token_expiry(connection, access_token):
        return (
            f"{urlsplit(connection.base_url).hostname} refuses an access token that Webex itself accepts: it is the "
            f"API of another data centre than your org's, so correct the host of the connection {CONNECTION_ID}; or "
            "the token was ended in the last hour, and this is well once refresh_access_token has run."
        )
    if connection.kind == "integration":
        return (
            "Webex accepts the access token no more: the administrator's consent was withdrawn; open the page "
            "Connect with Webex (/wxcc/connect)."
        )
    return (
        "Webex accepts the access token no more: the service app is not authorised in Control Hub (Management, Apps, "
        f"Service Apps), or the host of the connection {CONNECTION_ID} is of another data centre than your org's."
    )
