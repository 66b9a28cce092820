"""Keeps the token pair fresh; the only code that spends a refresh token."""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ParamSpec, Protocol

import tenacity
from pydantic import SecretStr

from include.domain.errors import AlreadyRefused, PermanentError, TokenRejected, TransientError
from include.domain.interval import utc_now
from include.webex.connection import CONNECTION_ID, HELPER_CONNECTION_ID, WebexConnection
from include.webex.token_helper import (
    HelperTokenRefused,
    TokenHelper,
    request_service_app_pair,
)
from include.webex.tokens import TokenPair, request_token_pair, seed_of

P = ParamSpec("P")
log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
# No request begins later than this. The slowest then ends well before the lock in Redis does.
MAX_DURATION = timedelta(minutes=5)
MAX_WAIT_SECONDS = 120
REFUSED_FOR = timedelta(days=1)
_POLL_SECONDS = 5.0


class TokenStore(Protocol):
    """Where the current token pair lives; the Airflow variable ``wxcc_token`` unless told otherwise."""

    def read(self) -> str | None:
        """The stored text, or None when there is none."""
        ...

    def write(self, text: str) -> None:
        """Keep the text before anyone uses the pair in it; where another hides it, nothing is overwritten."""
        ...

    def lock(self) -> AbstractContextManager[None]:
        """Held by one process at a time, of all that may write."""
        ...


class Note(Protocol):
    """A text that outlives a run, and holds no secret."""

    def read(self) -> str | None:
        """The text, or None when there is none."""
        ...

    def write(self, text: str) -> None:
        """Keep the text."""
        ...


@dataclass(frozen=True)
class HelperTokens:
    """The helper integration, and where its own pair lives."""

    helper: TokenHelper
    store: TokenStore


def refresh_access_token(
    connection: WebexConnection,
    store: TokenStore,
    now: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
    *,
    helper: HelperTokens | None = None,
    refused_note: Note | None = None,
    is_asked: bool = True,
) -> TokenPair:
    """The stored pair when it is fresh, else a new one that was stored before anyone used it.

    Asks, in this order, with: the stored refresh token, the connection's own, the helper integration. A first
    refresh token newly put into the connection replaces the stored line. Of any number of processes that
    come at once, one asks, and the others take what it has stored.

    Trouble on the way is no failure while a quarter of the access token's life is left. Credentials that
    were refused are noted; unless a person asks for it, they are not sent again for a day.

    Raises:
        TokenRejected: Webex refuses the credentials; a person must renew them.
        AlreadyRefused: It did so lately; nothing was sent.
        PermanentError: There is no refresh token at all, or what is stored cannot be read back.
        TransientError: Webex could not be reached; the refresh token is still the stored one.
    """
    with store.lock():
        pair = _stored_pair(store, connection)
        if pair and pair.is_fresh(now()):
            log.info("The access token is fresh until %s.", pair.expires_time.isoformat())
            return pair
        steps = Recovery(connection, store, pair, helper, now, sleep, now() + MAX_DURATION)
        credentials = steps.fingerprint()
        if not is_asked:
            _heed_refusal(refused_note, credentials, now())
        try:
            return steps.refresh()
        except TokenRejected as refusal:
            if refused_note:
                refused_note.write(
                    json.dumps(
                        {
                            "credentials": credentials,
                            "time": now().isoformat(),
                            "refusal": str(refusal),
                        }
                    )
                )
            raise
        except TransientError as trouble:
            if pair is None or pair.is_ending(now()):
                raise
            log.warning(
                "%s The access token is usable until %s; the next run tries again.",
                trouble,
                pair.expires_time.isoformat(),
            )
            return pair


@dataclass(frozen=True)
class Recovery:
    """All that may buy a new pair, best first."""

    connection: WebexConnection
    store: TokenStore
    pair: TokenPair | None
    helper: HelperTokens | None
    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    end_time: datetime

    def refresh(self) -> TokenPair:
        """A new pair, stored. See `refresh_access_token`."""
        pair = keep_new_pair(self.store, lambda: self._new_pair().after(self.pair))
        log.info(
            "The access token was refreshed; it ends %s, the refresh token ends %s.",
            pair.expires_time.isoformat(),
            pair.refresh_token_expires_time or "at a time that Webex did not tell",
        )
        return pair

    def fingerprint(self) -> str:
        """Tells whether anything has changed that Webex may answer differently to; it tells nothing of it."""
        parts = [
            *_secrets_of(self.connection),
            *(token.get_secret_value() for token in self._tokens),
        ]
        if self.helper:
            parts += [
                *_secrets_of(self.helper.helper.connection),
                self.helper.helper.application_id,
            ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def _tokens(self) -> list[SecretStr]:
        first = [self.pair.refresh_token] if self.pair else []
        own = [self.connection.refresh_token] if self.connection.refresh_token else []
        return list(dict.fromkeys(first + own))

    def _new_pair(self) -> TokenPair:
        refusal: TokenRejected | None = None
        for refresh_token in self._tokens:
            try:
                return self._attempt(request_token_pair, self.connection, refresh_token, self.now)
            except TokenRejected as error:
                refusal = error
                log.warning("%s", error)
        if self.helper is None:
            raise refusal or _no_refresh_token(self.connection)
        log.warning("Asking Webex for a new pair with the helper integration.")
        try:
            return self._pair_by_helper(self.helper)
        except PermanentError as error:
            raise TokenRejected(
                f"{refusal or _no_refresh_token(self.connection)} {error}"
            ) from None

    def _pair_by_helper(self, tokens: HelperTokens) -> TokenPair:
        token = self._helper_token(tokens, refused=None)
        try:
            return self._ask_helper(tokens, token)
        except HelperTokenRefused as refusal:
            log.warning("%s", refusal)
            return self._ask_helper(tokens, self._helper_token(tokens, refused=token))

    def _ask_helper(self, tokens: HelperTokens, token: SecretStr) -> TokenPair:
        application_id = tokens.helper.application_id
        return self._attempt(
            request_service_app_pair, self.connection, application_id, token, self.now
        )

    def _helper_token(self, tokens: HelperTokens, refused: SecretStr | None) -> SecretStr:
        """A usable access token of the helper; a new one is stored before it is used."""
        connection = tokens.helper.connection
        with tokens.store.lock():
            pair = _stored_pair(tokens.store, connection)
            if pair and pair.is_usable(self.now()) and pair.access_token != refused:
                return pair.access_token
            steps = Recovery(
                connection, tokens.store, pair, None, self.now, self.sleep, self.end_time
            )
            return steps.refresh().access_token

    def _attempt(
        self, request: Callable[P, TokenPair], *args: P.args, **kwargs: P.kwargs
    ) -> TokenPair:
        # After a broken answer the same request is tried first: whether it was served is unknown.
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_attempt(MAX_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=1, max=10),
            sleep=self.sleep,
            reraise=True,
        )
        return attempts(self._ask, request, *args, **kwargs)

    def _ask(self, request: Callable[P, TokenPair], *args: P.args, **kwargs: P.kwargs) -> TokenPair:
        if self.now() > self.end_time:
            raise TransientError(
                "The token endpoint answers too slowly: the refresh was given up after "
                f"{MAX_DURATION.total_seconds() / 60:.0f} minutes; it is tried again later."
            )
        return request(*args, **kwargs)


def _secrets_of(connection: WebexConnection) -> tuple[str, ...]:
    return (
        seed_of(connection),
        connection.client_secret.get_secret_value(),
    )


def _heed_refusal(note: Note | None, credentials: str, now: datetime) -> None:
    """Raise what was refused less than a day ago to the same credentials."""
    try:
        noted = json.loads((note.read() if note else None) or "{}")
        is_same = noted["credentials"] == credentials
        refused_time, refusal = datetime.fromisoformat(noted["time"]), str(noted["refusal"])
        is_recent = timedelta(0) <= now - refused_time < REFUSED_FOR
    except (KeyError, TypeError, ValueError):  # none, or somebody else's text
        return
    if is_same and is_recent:
        raise AlreadyRefused(
            f"Nothing was sent: Webex refused these credentials at {refused_time:%Y-%m-%d %H:%M} UTC, and will be "
            "asked again a day later, once they have changed, or when you trigger the DAG refresh_access_token. "
            f"{refusal}"
        )


def keep_new_pair(store: TokenStore, ask: Callable[[], TokenPair]) -> TokenPair:
    """The pair that was asked for, stored and read back. To be called with the store's lock held.

    Raises:
        PermanentError: The store cannot keep a pair; so none was asked for.
        ArchiveError: As of `ask`.
    """
    _check_writable(store)
    pair = ask()
    store.write(pair.to_json())
    if store.read() != pair.to_json():
        raise shadowed()
    return pair


def _check_writable(store: TokenStore) -> None:
    """Write what is there once more, with white space that nobody heeds, and read it back."""
    text = store.read() or ""
    probe = text.strip() + (" " if text.endswith("\n") else "\n")
    store.write(probe)
    if store.read() != probe:
        raise shadowed()


def shadowed() -> PermanentError:
    """What to raise where a text from elsewhere hides the stored one."""
    return PermanentError(
        "The variable wxcc_token does not read back as it was written: something shadows it. Remove the "
        "environment variable AIRFLOW_VAR_WXCC_TOKEN or the entry of the secrets backend (of the helper "
        "integration: AIRFLOW_VAR_WXCC_HELPER_TOKEN)."
    )


def _no_refresh_token(connection: WebexConnection) -> PermanentError:
    if connection.kind == "integration":
        return PermanentError(
            "Nobody has connected Airflow with Webex yet: open the page Connect with Webex of Airflow's menu "
            "(/wxcc/connect)."
        )
    name = HELPER_CONNECTION_ID if connection.kind == "helper" else CONNECTION_ID
    return PermanentError(
        f"There is no refresh token: put the first one into the extra field refresh_token of the connection "
        f"{name} (Webex Developer Portal, service app, Org Authorizations)."
    )


def _stored_pair(store: TokenStore, connection: WebexConnection) -> TokenPair | None:
    """The stored pair, unless the connection now speaks for another app or has a new first token."""
    text = (store.read() or "").strip()
    if not text:
        return None
    try:
        pair = TokenPair.from_json(text)
    except PermanentError:
        if connection.refresh_token is None:
            raise
        return None
    return pair if pair.descends_from(connection) else None


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
        text = (store.read() or "").strip()
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
