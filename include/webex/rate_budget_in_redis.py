"""Keeps the rate budget of a client id, and the lock of its refresh, in a Redis server, for several machines.

A module of its own: most archives have one machine, and importing the client of Redis takes time.
"""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import cast

import redis
import redis.exceptions
from pydantic import SecretStr
from pyrate_limiter import Decision, Rate, RedisStateStore, StateAlgorithm
from redis.backoff import NoBackoff
from redis.retry import Retry

from include.domain.errors import PermanentError, TransientError
from include.webex.rate_budget import fingerprint_of
from include.webex.refresh_lock import MAX_WAIT_SECONDS, another_refreshes

CONNECTION_ID = "wxcc_rate_budget"
_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class RedisServer:
    """Where the Redis server is; the fields of the Airflow connection `wxcc_rate_budget`."""

    host: str
    port: int = 6379
    database: int = 0
    login: str | None = None
    password: SecretStr | None = None
    is_tls: bool = False

    @classmethod
    def from_fields(
        cls,
        *,
        host: str | None,
        port: int | None,
        schema: str | None,
        login: str | None,
        password: str | None,
        ssl: object,
    ) -> "RedisServer":
        """Check the fields of the Airflow connection.

        Raises:
            PermanentError: A field is missing or unusable; the sentence names it and the remedy.
        """
        if not host:
            raise _refusal("its host is empty: give the host name of the Redis server")
        database = (schema or "0").strip()
        if not database.isdecimal():
            raise _refusal("its schema is not the number of a database: leave it empty or give one")
        return cls(
            host=host,
            port=port or 6379,
            database=int(database),
            login=login or None,
            password=SecretStr(password) if password else None,
            is_tls=str(ssl or "").strip().lower() in {"true", "1", "yes", "required"},
        )

    def client(self) -> redis.Redis:
        """A client that repeats once what a connection that went stale has lost; the rest is its caller's."""
        return redis.Redis(
            host=self.host,
            port=self.port,
            db=self.database,
            username=self.login,
            password=self.password.get_secret_value() if self.password else None,
            ssl=self.is_tls,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),
        )


@contextmanager
def refresh_lock_in_redis(
    client_id: str, server: RedisServer, wait_seconds: float = MAX_WAIT_SECONDS
) -> Generator[None]:
    """As `include.webex.refresh_lock`, for many machines; where a holder dies, it is free again after that time.

    Raises:
        PermanentError: The server refuses its credentials.
        TransientError: Another process holds it all the time, or the server is out of reach.
    """
    name = f"wxcc-token:{fingerprint_of(client_id)}"
    with _telling_the_connection():
        lock = server.client().lock(name, timeout=MAX_WAIT_SECONDS, blocking_timeout=wait_seconds)
        is_held = lock.acquire()
    if not is_held:
        raise another_refreshes(wait_seconds)
    try:
        yield
    finally:
        # What was done under it is done; a lock that cannot be given back ends by itself.
        with suppress(redis.exceptions.RedisError, OSError):
            lock.release()


class RedisBudgetStore(RedisStateStore):
    """Keeps a budget for all who use the same server and database, by the clock of that server.

    So the clocks of the workers need not agree. Each look and each request spent is one atomic command or
    script; a server that is restarted is spoken to again.
    """

    def __init__(self, client_id: str, server: RedisServer) -> None:
        self._client = server.client()
        key = f"wxcc-rate-budget:{fingerprint_of(client_id)}"
        self._pause_key = f"{key}:pause"
        super().__init__(self._client, key)

    def look(self) -> tuple[int, int]:
        """See `BudgetStore`."""
        with _telling_the_connection():
            now = cast("tuple[int, int]", self._client.time())  # pyright: ignore[reportUnknownMemberType] - untyped there
            left_ms = cast("int", self._client.pttl(self._pause_key))
        return now[0] * 1000 + now[1] // 1000, max(0, left_ms)

    def check(
        self, algorithm: StateAlgorithm, rates: list[Rate], now: int, weight: int
    ) -> Decision:
        """See `BudgetStore`."""
        with _telling_the_connection():
            return cast("Decision", super().check(algorithm, rates, now, weight))

    def pause(self, milliseconds: int) -> None:
        """See `BudgetStore`; of two that begin at the same moment, either may hold."""
        with _telling_the_connection():
            if milliseconds > cast("int", self._client.pttl(self._pause_key)):
                self._client.set(self._pause_key, 1, px=milliseconds)

    def reset(self) -> None:
        """See `BudgetStore`."""
        with _telling_the_connection():
            super().reset()


@contextmanager
def _telling_the_connection() -> Generator[None]:
    """What a failure means. What the client of Redis says is not quoted: it may hold what was sent."""
    try:
        yield
    except (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError):
        raise PermanentError(
            f"The Redis server of the connection {CONNECTION_ID} refuses its login or password: correct them."
        ) from None
    except (redis.exceptions.RedisError, OSError, UnicodeError) as error:
        raise TransientError(
            f"The rate budget cannot be kept in the Redis server of the connection {CONNECTION_ID} "
            f"({type(error).__name__}): start the server, or correct host, port and schema of the connection."
        ) from None


def _refusal(remedy: str) -> PermanentError:
    return PermanentError(f"The connection {CONNECTION_ID} is not usable: {remedy}.")
