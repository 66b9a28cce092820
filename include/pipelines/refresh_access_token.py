"""Keeps the token pair fresh; the only code that spends a refresh token."""

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import tenacity
from pydantic import SecretStr

from include.domain.errors import PermanentError, TokenRejected, TransientError
from include.domain.interval import utc_now
from include.webex.connection import CONNECTION_ID, WebexConnection
from include.webex.tokens import TokenPair, request_token_pair

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
MAX_WAIT_SECONDS = 120
_POLL_SECONDS = 5.0


class TokenStore(Protocol):
    """Where the current token pair lives; the Airflow variable ``wxcc_token`` unless told otherwise."""

    def read(self) -> str | None:
        """The stored text, or None when there is none."""
        ...

    def write(self, text: str) -> None:
        """Keep the text before anyone uses the pair in it."""
        ...


def refresh_access_token(
    connection: WebexConnection,
    store: TokenStore,
    now: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> TokenPair:
    """The stored pair when it is fresh, else a new one that was stored before anyone used it.

    A first refresh token newly put into the connection replaces the stored line. Must not run twice at
    once: where Webex rotates refresh tokens, the second would spend one that is already spent.

    Raises:
        TokenRejected: Webex refuses the credentials; a person must renew them.
        PermanentError: There is no refresh token at all, or the stored pair cannot be read back.
        TransientError: Webex could not be reached; the refresh token is still the stored one.
    """
    text = store.read()
    pair = _stored_pair(text, connection)
    if pair and pair.is_fresh(now()):
        log.info("The access token is fresh until %s.", pair.expires_time.isoformat())
        return pair
    refreshed = _refresh(connection, _refresh_tokens(pair, connection), now, sleep)
    store.write(refreshed.to_json())
    if store.read() != refreshed.to_json():
        raise PermanentError(
            "The variable wxcc_token does not read back as it was written: something shadows it. Remove the "
            "environment variable AIRFLOW_VAR_WXCC_TOKEN or the entry of the secrets backend."
        )
    log.info(
        "The access token was refreshed; it ends %s, the refresh token ends %s.",
        refreshed.expires_time.isoformat(),
        refreshed.refresh_token_expires_time or "at a time that Webex did not tell",
    )
    return refreshed


def _stored_pair(text: str | None, connection: WebexConnection) -> TokenPair | None:
    """The stored pair, unless the connection now speaks for another app or has a new first token."""
    if not text:
        return None
    try:
        pair = TokenPair.from_json(text)
    except PermanentError:
        if connection.refresh_token is None:
            raise
        return None
    return pair if pair.descends_from(connection) else None


def _refresh_tokens(pair: TokenPair | None, connection: WebexConnection) -> list[SecretStr]:
    """What may be spent, best first: the stored refresh token, then the connection's own."""
    first = [pair.refresh_token] if pair else []
    own = [connection.refresh_token] if connection.refresh_token else []
    tokens = list(dict.fromkeys(first + own))
    if not tokens:
        raise PermanentError(
            f"There is no refresh token: put the first one into the extra field refresh_token of the connection "
            f"{CONNECTION_ID} (Webex Developer Portal, service app, Org Authorizations)."
        )
    return tokens


def _refresh(
    connection: WebexConnection,
    refresh_tokens: list[SecretStr],
    now: Callable[[], datetime],
    sleep: Callable[[float], None],
) -> TokenPair:
    # After a broken answer the same refresh token is tried first: whether it was spent is unknown.
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_after_attempt(MAX_ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=1, max=10),
        sleep=sleep,
        reraise=True,
    )
    for refresh_token in refresh_tokens[:-1]:
        try:
            return attempts(request_token_pair, connection, refresh_token, now)
        except TokenRejected as refusal:
            log.warning("%s Trying the refresh token of the connection.", refusal)
    return attempts(request_token_pair, connection, refresh_tokens[-1], now)


def wait_for_access_token(
    connection: WebexConnection,
    store: TokenStore,
    spent: SecretStr | None = None,
    now: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> SecretStr:
    """An access token that is usable now; waits a bounded time for `refresh_access_token` to store one.

    Given the token that Webex has just refused, it answers at once: with another one, or not at all.

    Never refreshes: two DAGs that refresh would be a race. A pair of another app, org or token endpoint is
    never handed out, so that a token cannot reach a host it was not made for.

    Raises:
        TransientError: There is still none after the wait.
        PermanentError: The stored pair was made for another app, org or token endpoint.
    """
    waited, limit = 0.0, 0 if spent else MAX_WAIT_SECONDS
    while True:
        text = store.read()
        pair = TokenPair.from_json(text) if text else None
        if pair and not pair.belongs_to(connection):
            raise PermanentError(
                "The token pair in the variable wxcc_token was made for another org, client id or token URL than "
                f"the connection {CONNECTION_ID} names: correct its extra field org_id, its login or its extra "
                "field token_url, or run the DAG refresh_access_token if they are right."
            )
        if pair and pair.is_usable(now()) and pair.access_token != spent:
            return pair.access_token
        if waited >= limit:
            break
        if not waited:
            log.warning(
                "There is no usable access token yet; waiting for the DAG refresh_access_token."
            )
        sleep(_POLL_SECONDS)
        waited += _POLL_SECONDS
    state = "has ended" if pair else "is missing"
    raise TransientError(
        f"The access token {state} (variable wxcc_token) and the DAG refresh_access_token did not store a new one "
        f"within {MAX_WAIT_SECONDS} s: it may be paused, failing or not yet run; un-pause it, or trigger it."
    )
