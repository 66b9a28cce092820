"""Capture events in Airflow's API server: received without a login, kept in the bucket, and a wake-up follows."""

import asyncio
import hashlib
import hmac
import json
import time

from include.domain.interval import epoch_ms, utc_now

SECRET = "a secret of the tests, long enough".replace(" ", "-")
CONNECTION = "AIRFLOW_CONN_WXCC_CAPTURE_EVENTS"


def post(client, runner, secret: str = SECRET) -> int:
    now = epoch_ms(utc_now())
    event = {
        "id": f"event-{time.monotonic_ns()}",
        "type": "capture:available",
        "comciscoorgid": runner.webex["extra"]["org_id"],
        "comciscotimestamp": now,
        "data": {"taskId": "task-1", "createdTime": now},
    }
    body = json.dumps(event).encode()
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return client.post(
        "/wxcc/events", content=body, headers={"X-WebexCC-Signature": digest}
    ).status_code


def wake_ups() -> int:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    of_hints = AssetModel.name == "wxcc_capture_hints"
    assets = select(AssetModel.id).where(of_hints)
    query = select(func.count(AssetEvent.id)).where(AssetEvent.asset_id.in_(assets))
    with create_session() as session:
        return session.scalar(query) or 0


def test_a_signed_event_is_in_the_bucket_and_airflow_knows_of_it(runner, monkeypatch):
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from plugins.wxcc_plugin import WxccPlugin, _Pages

    fields = {"host": "https://hooks.example.com/wxcc/events", "password": SECRET}
    runner.run("recheck_captures")  # Airflow has stored the DAG and its asset
    before = wake_ups()
    airflow = FastAPI()
    airflow.mount(WxccPlugin.fastapi_apps[0]["url_prefix"], _Pages())
    with TestClient(airflow) as client:
        assert post(client, runner) == 404
    monkeypatch.setenv(CONNECTION, json.dumps({"conn_type": "http"} | fields))
    airflow = FastAPI()
    airflow.mount("/wxcc", _Pages())

    with TestClient(airflow) as client:
        assert post(client, runner, "another-secret-as-long-as-the-other") == 204
        assert wake_ups() == before
        assert [key for key in runner.archived.keys if key.startswith("hints/")] == []
        assert {post(client, runner) for _ in range(3)} == {204}
        hints = [key for key in runner.archived.keys if key.startswith("hints/")]
        assert hints
        deadline = time.monotonic() + 10
        while wake_ups() == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert wake_ups() == before + 1


def test_a_burst_has_two_wake_ups_and_the_last_event_is_not_forgotten():
    from plugins.receive_capture_events import WakeUp

    calls: list[float] = []

    def call() -> None:
        calls.append(time.monotonic())
        raise OSError

    async def burst() -> float:
        wake_up = WakeUp(call, seconds=0.5)
        for _ in range(10):
            wake_up.ask()
            await asyncio.sleep(0.02)
        last = time.monotonic()
        await asyncio.sleep(1.2)
        return last

    last = asyncio.run(burst())
    assert len(calls) == 2
    assert calls[1] > last
