"""Each thing that keeps the archive from Webex is one sentence; checking spends nothing."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from include.domain.errors import PermanentError, TokenRejected, TransientError
from include.domain.interval import from_epoch_ms
from include.pipelines.check_access import check_access
from include.sandbox.server import Sandbox
from include.webex.connection import WebexConnection
from include.webex.http_client import WebexClient
from include.webex.tokens import TokenPair, request_token_pair
from tests.builders import (
    NOW,
    CountingBudget,
    MemoryTokenStore,
    RecordingSleep,
    a_connection,
    a_connection_to,
    a_token_pair,
)

ORG_B = "11111111-2222-4333-8444-555555555555"


class World:
    """A sandbox, a pair that it has just given, and what a check of it says."""

    def __init__(self, sandbox: Sandbox, **changes: Any) -> None:
        self.sandbox = sandbox
        self.connection = a_connection_to(sandbox, **changes)
        self.now = from_epoch_ms(sandbox.now_ms())
        assert self.connection.refresh_token
        self.pair = request_token_pair(
            self.connection, self.connection.refresh_token, lambda: self.now
        )
        sandbox.reset_requests()

    def check(
        self, connection: WebexConnection | None = None, *, needs_write_scope: bool = False
    ) -> str:
        connection = connection or self.connection

        def client_with(access_token: SecretStr) -> WebexClient:
            def read(spent: SecretStr | None) -> SecretStr:
                if spent:
                    raise TokenRejected("refused")
                return access_token

            return WebexClient(connection, read, CountingBudget(), RecordingSleep())

        return check_access(
            connection,
            MemoryTokenStore(self.pair),
            client_with,
            needs_write_scope=needs_write_scope,
            now=lambda: self.now,
        )

    def found(self, connection: WebexConnection | None = None, **changes: Any) -> list[str]:
        with pytest.raises(PermanentError) as raised:
            self.check(connection, **changes)
        return str(raised.value).splitlines()


def test_when_all_is_well_one_request_is_sent(start_sandbox: Callable[..., Sandbox]):
    world = World(start_sandbox())

    assert world.check().startswith(f"{world.connection.base_url} answers")
    assert world.sandbox.requests()["counts"] == {"tasks": {"200": 1}}


def test_a_host_of_another_data_centre_is_told(start_sandbox: Callable[..., Sandbox]):
    world, elsewhere = World(start_sandbox()), start_sandbox(seed=2)
    connection = replace(world.connection, base_url=a_connection_to(elsewhere).base_url)

    (sentence,) = world.found(connection)

    assert "of another data centre" in sentence
    assert "refuses an access token that Webex itself accepts" in sentence


def test_a_token_of_another_org_is_told(start_sandbox: Callable[..., Sandbox]):
    world = World(start_sandbox(token_org_id=ORG_B))

    first, *_ = world.found()

    assert first.startswith(f"The access token is of the org {ORG_B}, not of ")


def test_a_missing_scope_is_told(start_sandbox: Callable[..., Sandbox]):
    world = World(start_sandbox(scope="spark:people_read"))

    sentences = world.found(needs_write_scope=True)

    assert "lacks the scope cjp:config_read" in sentences[0]
    assert "lacks the scope cjp:config_write" in sentences[1]
    assert "answered 403" in sentences[2]
    assert len(sentences) == 3


def test_the_write_scope_is_needed_for_capture_events_only(start_sandbox: Callable[..., Sandbox]):
    world = World(start_sandbox(scope="cjp:config_read"))

    assert world.check()
    assert ["cjp:config_write" in it for it in world.found(needs_write_scope=True)] == [True]


@pytest.mark.parametrize(
    ("kind", "remedy"), [("service_app", "Control Hub"), ("integration", "/wxcc/connect")]
)
def test_an_application_that_is_authorised_no_more_is_told(
    start_sandbox: Callable[..., Sandbox], kind: Any, remedy: str
):
    world = World(start_sandbox())
    # To Webex the token is dead; by what Webex told when it made it, it lives.
    world.sandbox.advance(14 * 86_400)

    (sentence,) = world.found(replace(world.connection, kind=kind))

    assert "Webex accepts the access token no more" in sentence
    assert remedy in sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"expires_time": NOW + timedelta(days=3)}, "should have been refreshed long ago"),
        ({"expires_time": NOW}, "The access token has ended"),
        ({"refresh_token_expires_time": NOW + timedelta(days=29)}, "The refresh token ends"),
    ],
    ids=["access token ending", "access token ended", "refresh token ending"],
)
def test_a_wall_is_told_well_before(changes: dict[str, Any], sentence: str):
    connection = a_connection()
    pair = a_token_pair(connection, **{"refresh_token_lifetime": timedelta(days=90), **changes})

    with pytest.raises(PermanentError, match=sentence):
        check_access(
            connection,
            MemoryTokenStore(pair),
            NobodyHome,
            needs_write_scope=False,
            now=lambda: NOW,
        )


class NobodyHome:
    """A client that gets no answer."""

    def __init__(self, access_token: SecretStr) -> None: ...

    def get(self, path: str, parameters: dict[str, str | int]) -> dict[str, Any]:
        raise TransientError("503")

    def close(self) -> None: ...


@pytest.mark.parametrize("pair", [None, a_token_pair(a_connection(login="another"))])
def test_without_a_pair_of_this_client_nothing_is_sent(pair: TokenPair | None):
    with pytest.raises(PermanentError, match="refresh_access_token"):
        check_access(a_connection(), MemoryTokenStore(pair), NobodyHome, needs_write_scope=False)


def test_trouble_is_tried_again_when_nothing_else_is_found():
    connection = a_connection()
    store = MemoryTokenStore(a_token_pair(connection))

    with pytest.raises(TransientError, match="503"):
        check_access(connection, store, NobodyHome, needs_write_scope=False, now=lambda: NOW)
