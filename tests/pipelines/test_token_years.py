"""Tokens over months, and many processes at once, against a server that rotates and revokes."""

import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.domain.errors import TransientError
from include.domain.interval import from_epoch_ms
from include.pipelines.refresh_access_token import HelperTokens, refresh_access_token
from include.sandbox.server import Sandbox
from include.webex.token_helper import TokenHelper
from include.webex.tokens import TokenPair
from tests.builders import MemoryTokenStore, RecordingSleep, a_client_of, a_connection_to
from tests.pipelines.refreshing_processes import Round

ROOT = Path(__file__).parents[2]
STRICT: dict[str, Any] = {
    "rotate_refresh_token": True,
    "revoke_old_refresh_token": True,
    "revoke_old_access_token": True,
    "requests_per_minute": 0,
}


def test_twenty_processes_refresh_once_for_each_expiry(
    start_sandbox: Callable[..., Sandbox], tmp_path: Path
):
    sandbox = start_sandbox(access_token_seconds=60, **STRICT)
    given = sandbox.airflow_connection()
    webex = {name: given[name] for name in ("host", "login", "password", "extra")}
    command = [sys.executable, "-m", "tests.pipelines.refreshing_processes"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        for expiries in range(1, 4):
            told = Round(20, sandbox.now_ms(), webex, str(tmp_path / "pair"))
            print(json.dumps(dataclasses.asdict(told)), file=process.stdin, flush=True)

            assert json.loads(process.stdout.readline()) == ["answered"] * 20
            assert sandbox.requests()["counts"]["token"] == {"200": expiries}
            sandbox.advance(60)
        process.stdin.close()


@pytest.mark.parametrize("access_token_hours", [12, 14 * 24])
def test_a_hundred_days_of_the_schedule_with_outages(
    start_sandbox: Callable[..., Sandbox], access_token_hours: int
):
    """Answers are lost as well, after the old refresh token was revoked: the helper then buys a new pair."""
    sandbox = start_sandbox(access_token_seconds=access_token_hours * 3_600, **STRICT)
    connection = a_connection_to(sandbox)
    store, helper_store, sleep = MemoryTokenStore(), MemoryTokenStore(), RecordingSleep()
    helper = HelperTokens(_helper_of(sandbox), helper_store)
    draw, outage_steps, seen = random.Random(5), 0, set[str]()
    down = {"endpoint": "token", "kind": "http_503"}
    lost = {"endpoint": "token", "kind": "reset_after_processing", "times": 1}

    for _ in range(100 * 96):
        now = from_epoch_ms(sandbox.now_ms())
        if outage_steps == 0 and draw.random() < 1 / 800:  # about a dozen
            outage_steps = draw.choice([0, 4, 24, 96])
            sandbox.set_faults([down] if outage_steps else [lost])
        elif outage_steps:
            outage_steps -= 1
            if outage_steps == 0:
                sandbox.set_faults([])
        try:
            refresh_access_token(
                connection, store, lambda now=now: now, sleep, helper=helper, is_asked=False
            )
        except TransientError:
            assert outage_steps, "Webex was up"
        if not outage_steps:
            pair = TokenPair.from_json(store.text or "")
            assert pair.is_usable(now)
            if pair.access_token.get_secret_value() not in seen:
                seen.add(pair.access_token.get_secret_value())
                _ask(sandbox, pair)
        sandbox.advance(900)

    refreshes = 100 * 24 / (access_token_hours / 2 if access_token_hours == 12 else 10 * 24)
    assert refreshes * 0.6 <= len(seen) <= refreshes * 1.1 + 6


def _helper_of(sandbox: Sandbox) -> TokenHelper:
    given = sandbox.helper_connection()
    return TokenHelper.from_fields(
        a_connection_to(sandbox),
        login=given["login"],
        password=given["password"],
        extra=given["extra"],
    )


def _ask(sandbox: Sandbox, pair: TokenPair) -> None:
    client = a_client_of(sandbox, lambda _spent: pair.access_token)
    now_ms = sandbox.now_ms()
    parameters = {"from": now_ms - 1, "pageSize": 1, "orgId": client.connection.org_id}
    client.get("/v1/tasks", parameters)
    client.close()
