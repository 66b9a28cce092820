"""The token pair of the service app, and the one request that refreshes it."""

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from pydantic import SecretStr

from include.domain.contact_centre import JsonObject
from include.domain.errors import PermanentError, TokenRejected, TransientError
from include.http.connection_pool import Answer, ConnectionPool, ConnectTimeout, Endpoint
from include.webex.connection import (
    CONNECTION_ID,
    HELPER_CONNECTION_ID,
    Kind,
    WebexConnection,
)
from include.webex.http_client import USER_AGENT, unreachable
from include.webex.json_answers import parse_json_object, read_body

_MAX_ANSWER_BYTES = 1 << 20
_SETTING = f"the extra field token_url of the connection {CONNECTION_ID}"
_SENDABLE = re.compile(r"[!-~]{1,16384}")
# What a path may hold as it is; a setting may be written with the rest, or with it encoded already.
_PLAIN_IN_PATH = "!$%&'()*+,/:;=@~"


class TimeOuts(NamedTuple):
    """How long to wait for a connection, for the headers or the next bytes of an answer, and for its whole body."""

    connect_seconds: float = 5.0
    read_seconds: float = 30.0
    body_seconds: float = 30.0


DEFAULT_TIME_OUTS = TimeOuts()


@dataclass(frozen=True)
class TokenPair:
    """An access token and the refresh token that buys the next one.

    Attributes:
        expires_time: When the access token ends; only ever taken from an answer (documented lives
            differ: 14 days on the service app page, 12 hours on older pages).
        lifetime: How long the access token lived when it was made.
        refresh_token_expires_time: When the refresh token ends, where Webex told.
        seed: A fingerprint of the connection from whose first refresh token this pair descends; a new
            first refresh token in the connection replaces the whole line.
        scope: What the access token may do, where Webex told.
        refresh_token_lifetime: The longest time that a refresh token of this line had before it.
    """

    access_token: SecretStr
    refresh_token: SecretStr
    expires_time: datetime
    lifetime: timedelta
    refresh_token_expires_time: datetime | None
    seed: str
    scope: str | None = None
    refresh_token_lifetime: timedelta | None = None

    def is_usable(self, now: datetime) -> bool:
        """Whether a request sent now would still be authorised when it arrives."""
        return now + timedelta(seconds=30) < self.expires_time

    def is_fresh(self, now: datetime) -> bool:
        """Whether a refresh can wait: half of the life is left, or four days of it.

        Refreshing early keeps both ends of the 90-day wall far away (each refresh resets it).
        """
        return self.expires_time - now > min(self.lifetime / 2, timedelta(days=4))

    def is_ending(self, now: datetime) -> bool:
        """Whether a refresh is long overdue: less than a quarter of the life is left."""
        return self.expires_time - now < self.lifetime / 4

    def is_refresh_token_ending(self, now: datetime) -> bool:
        """Whether less than a third is left of the longest life that Webex gave a refresh token of this line."""
        end, lifetime = self.refresh_token_expires_time, self.refresh_token_lifetime
        return end is not None and lifetime is not None and end - now < lifetime / 3

    def after(self, older: "TokenPair | None") -> "TokenPair":
        """This pair with what the line remembers: a refresh token's life, and a scope that is told once."""
        if older is None or older.seed != self.seed:
            return self
        lifetimes = (self.refresh_token_lifetime, older.refresh_token_lifetime)
        return replace(
            self,
            scope=self.scope or older.scope,
            refresh_token_lifetime=max(filter(None, lifetimes), default=None),
        )

    def belongs_to(self, connection: WebexConnection) -> bool:
        """Whether the pair was made for this app, org and token endpoint."""
        return self.seed.partition(":")[0] == seed_of(connection).partition(":")[0]

    def descends_from(self, connection: WebexConnection) -> bool:
        """Whether the connection's first refresh token, if it still has one, began this line of pairs."""
        own = seed_of(connection)
        return self.belongs_to(connection) and (
            connection.refresh_token is None or self.seed == own
        )

    def to_json(self) -> str:
        """The text that the token store keeps; it holds both secrets."""
        return json.dumps(
            {
                "access_token": self.access_token.get_secret_value(),
                "refresh_token": self.refresh_token.get_secret_value(),
                "expires_time": self.expires_time.isoformat(),
                "lifetime_seconds": self.lifetime.total_seconds(),
                "refresh_token_expires_time": self.refresh_token_expires_time.isoformat()
                if self.refresh_token_expires_time
                else None,
                "seed": self.seed,
                "scope": self.scope,
                "refresh_token_lifetime_seconds": self.refresh_token_lifetime.total_seconds()
                if self.refresh_token_lifetime
                else None,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "TokenPair":
        """Read what `to_json` wrote.

        Raises:
            PermanentError: The text is not a token pair of this program.
        """
        try:
            stored = json.loads(text)
            refresh_end = stored["refresh_token_expires_time"]
            refresh_seconds = stored.get("refresh_token_lifetime_seconds")
            return cls(
                access_token=SecretStr(_non_empty(stored["access_token"])),
                refresh_token=SecretStr(_non_empty(stored["refresh_token"])),
                expires_time=_aware(stored["expires_time"]),
                lifetime=timedelta(seconds=stored["lifetime_seconds"]),
                refresh_token_expires_time=_aware(refresh_end) if refresh_end else None,
                seed=_non_empty(stored["seed"]),
                scope=stored.get("scope"),
                refresh_token_lifetime=timedelta(seconds=refresh_seconds)
                if refresh_seconds
                else None,
            )
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            raise PermanentError(
                "The variable wxcc_token does not hold a token pair: delete it and run refresh_access_token."
            ) from None


def _non_empty(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _aware(value: str) -> datetime:
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError
    return instant


def seed_of(connection: WebexConnection) -> str:
    """The fingerprints of the app and of its first refresh token; they tell nothing about either."""
    refresh_token = connection.refresh_token.get_secret_value() if connection.refresh_token else ""
    app = (connection.token_url, connection.org_id, connection.client_id)
    return ":".join(
        hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        for parts in (app, (*app, refresh_token))
    )


def request_token_pair(
    connection: WebexConnection,
    refresh_token: SecretStr,
    now: Callable[[], datetime],
    time_outs: TimeOuts = DEFAULT_TIME_OUTS,
) -> TokenPair:
    """Spend a refresh token on a new pair. See `exchange`."""
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token.get_secret_value()}
    return exchange(connection, form, refresh_token, now, time_outs)


def exchange(
    connection: WebexConnection,
    form: Mapping[str, str],
    spent: SecretStr | None,
    now: Callable[[], datetime],
    time_outs: TimeOuts = DEFAULT_TIME_OUTS,
) -> TokenPair:
    """Exchange a grant for a pair (documented: POST /v1/access_token, form body).

    The client's credentials are added to the form. Where the answer brings no refresh token, the spent
    one is kept (rotation: unknown). Sends one request and never repeats it: whether to try again is the
    caller's choice.

    Raises:
        TokenRejected: 400, 401 or 403: the grant or the client's credentials are refused.
        PermanentError: The address is wrong, or the answer is not a token answer.
        TransientError: 429, 5xx or a broken connection.
    """
    secret = connection.client_secret.get_secret_value()
    content = {"client_id": connection.client_id, "client_secret": secret, **form}
    status, body = request("POST", connection.token_url, form=content, time_outs=time_outs)
    return read_token_answer(status, body, connection, spent, now())


def tells_token_expiry(connection: WebexConnection, access_token: SecretStr) -> bool:
    """Whether Webex tells when the token ends (documented; unknown for service apps): it then accepts it."""
    origin = urlsplit(connection.token_url)
    url = f"{origin.scheme}://{origin.netloc}/v1/authorizations/tokenExpiry"
    headers = {"Authorization": f"Bearer {access_token.get_secret_value()}"}
    status, body = request("GET", url, headers=headers)
    return status == 200 and "exp" in (parse_json_object(body) or {})


def org_of(access_token: SecretStr) -> str | None:
    """The org in a token of the form ``<opaque>_<cluster>_<org id>``; None in one of another form."""
    parts = access_token.get_secret_value().split("_")
    try:
        return str(uuid.UUID(parts[-1])) if len(parts) >= 3 else None
    except ValueError:
        return None


def request(
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    form: Mapping[str, str] | None = None,
    json_body: JsonObject | None = None,
    time_outs: TimeOuts = DEFAULT_TIME_OUTS,
) -> tuple[int, bytes]:
    """The status and the body of what the host of the token endpoint answers; a redirect is not followed.

    One request, over a connection of its own: what it spends may be spent although no answer comes, so nothing
    sends it again unseen. Of a body beyond a MiB, the rest is not read.

    Raises:
        PermanentError: The host does not exist.
        TransientError: A broken connection, or an answer that does not come or end in time.
    """
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "gzip",
        "User-Agent": USER_AGENT,
        **(headers or {}),
    }
    try:
        content = b""
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            content = urlencode(form).encode()
        elif json_body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(json_body).encode()
        connections = ConnectionPool(
            connect_seconds=time_outs.connect_seconds,
            read_seconds=time_outs.read_seconds,
            is_resending=False,
        )
        with closing(connections), _answer(connections, method, url, headers, content) as answer:
            answer.body_seconds = time_outs.body_seconds
            return answer.status, read_body(answer, _MAX_ANSWER_BYTES)
    # ValueError: what no header and no form can hold; its text would quote it.
    except (OSError, ValueError) as error:
        raise TransientError(
            f"The answer of the token endpoint broke off ({type(error).__name__})."
        ) from None


def _answer(
    connections: ConnectionPool, method: str, url: str, headers: Mapping[str, str], content: bytes
) -> Answer:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = (parts.hostname or "").encode("idna").decode()
    target = quote(parts.path or "/", safe=_PLAIN_IN_PATH)
    try:
        return connections.request(
            Endpoint(parts.scheme, host, port), method, target, headers, content
        )
    except OSError as error:
        if isinstance(error, TimeoutError) and not isinstance(error, ConnectTimeout):
            raise
        raise unreachable(url, _SETTING, error) from None


def read_token_answer(
    status: int, body: bytes, connection: WebexConnection, spent: SecretStr | None, now: datetime
) -> TokenPair:
    """The token pair of an answer; see `exchange`."""
    answer = parse_json_object(body) or {}
    if status in {400, 401, 403}:
        raise TokenRejected(_refusal_sentence(status, answer, connection))
    if status in {408, 425, 429} or status >= 500:
        raise TransientError(f"The token endpoint answered {status}; it is tried again later.")
    if status != 200:
        raise PermanentError(
            f"The token endpoint answered {status}: check the extra field token_url of {CONNECTION_ID}."
        )
    return token_pair(answer, spent, seed_of(connection), now)


# Which connection holds an application's credentials, and how a person gets it a new refresh token.
_CONNECTION_OF: Mapping[Kind, str] = {
    "service_app": CONNECTION_ID,
    "integration": CONNECTION_ID,
    "helper": HELPER_CONNECTION_ID,
}
_REMEDY_OF: Mapping[Kind, str] = {
    "service_app": "Generate a new pair for your org in the Webex Developer Portal (service app, Org "
    "Authorizations) and put its refresh token into the extra field refresh_token of the connection "
    f"{CONNECTION_ID}; if that does not help, check its login and password.",
    "integration": "Open the page Connect with Webex of Airflow's menu (/wxcc/connect) and connect again; if that does "
    f"not help, check login and password of the connection {CONNECTION_ID}.",
    "helper": "Put a new refresh token of the helper integration into the extra field refresh_token of the "
    f"connection {HELPER_CONNECTION_ID}; if that does not help, check its login and password.",
}


def _refusal_sentence(status: int, answer: JsonObject, connection: WebexConnection) -> str:
    """One sentence for both documented and seen shapes of a refusal; the body itself is not quoted."""
    text = json.dumps(answer).lower()
    name = _CONNECTION_OF[connection.kind]
    if "invalid_client" in text or ("client" in text and "secret" in text):
        return (
            f"Webex refuses the client id or the client secret ({status}): check login and password of the "
            f"connection {name} against the application in the Webex Developer Portal."
        )
    return (
        f"Webex refuses the refresh token ({status}): it is expired, revoked or already spent. "
        f"{_REMEDY_OF[connection.kind]}"
    )


def token_pair(answer: JsonObject, spent: SecretStr | None, seed: str, now: datetime) -> TokenPair:
    """The pair in the content of a 200; without a refresh token in it, the spent one goes on.

    Raises:
        PermanentError: There is no refresh token, neither in it nor before.
        TransientError: It is not a token answer.
    """
    access_token, expires_in = (
        _token(answer.get("access_token")),
        _seconds(answer.get("expires_in")),
    )
    if access_token is None or expires_in is None:
        raise TransientError(
            "The token endpoint answered 200 without access_token and expires_in; it is tried again later."
        )
    refresh_token = _token(answer.get("refresh_token")) or spent
    if refresh_token is None:
        raise PermanentError(
            "Webex answered without a refresh token: check in the Webex Developer Portal that the application is a "
            "service app or an integration."
        )
    refresh_expires_in = _seconds(answer.get("refresh_token_expires_in"))
    scope = answer.get("scope")
    return TokenPair(
        access_token=access_token,
        refresh_token=refresh_token,
        expires_time=now.astimezone(UTC) + timedelta(seconds=expires_in),
        lifetime=timedelta(seconds=expires_in),
        refresh_token_expires_time=now.astimezone(UTC) + timedelta(seconds=refresh_expires_in)
        if refresh_expires_in is not None
        else None,
        seed=seed,
        scope=scope if isinstance(scope, str) else None,
        refresh_token_lifetime=timedelta(seconds=refresh_expires_in)
        if refresh_expires_in is not None
        else None,
    )


def _token(value: object) -> SecretStr | None:
    """A token that can be sent; a text that no header can hold is none."""
    return SecretStr(value) if isinstance(value, str) and _SENDABLE.fullmatch(value) else None


def _seconds(value: object) -> float | None:
    """A number of seconds, sent as a number or as text: a millisecond at least, ten years at most."""
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if 0.001 <= seconds < 10 * 366 * 86400 else None
