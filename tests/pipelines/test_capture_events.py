"""Events are received, kept as hints and heeded by the recheck; whatever else is sent changes nothing."""

import asyncio
import hashlib
import hmac
import http.client
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import uvicorn

from include.domain.errors import TransientError
from include.domain.interval import Interval, epoch_ms, utc_now
from include.pipelines.subscribe_capture_events import subscribe_capture_events
from include.receiver.app import MAX_BODY_BYTES, MAX_READING_BYTES, Receiver
from include.storage.environment_connection import connection_fields
from include.storage.hints import Hint, read_hints, write_hints
from include.webex.subscriptions import CaptureEventsConnection
from tests.archived import assert_complete
from tests.pipelines.dag_runs import AirflowTasks, in_new_bucket, recheck
from tests.pipelines.killed_process import Run, killed_process
from tests.s3_servers import free_port

SECRET = "a-secret-of-the-tests-that-is-long-enough"
FORGED = "another secret, as long as the other"
ORG = "97cdbf45-ebe2-4687-8341-44d5c7abf101"
NO_SUCH_TASK = "no-such-task"


@contextmanager
def served(write, now=utc_now):
    receiver = Receiver(SECRET, ORG, write, now)
    config = uvicorn.Config(receiver, port=0, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def event(event_id="event", task_id="task-1", at_ms=None, **changes) -> dict:
    at_ms = at_ms or epoch_ms(utc_now())
    return {
        "id": event_id,
        "type": "capture:available",
        "comciscoorgid": ORG,
        "comciscotimestamp": str(at_ms),
        "data": {"taskId": task_id, "createdTime": at_ms},
    } | changes


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-WebexCC-Signature": digest, "Content-Type": "application/json"}


def post(connection, body: bytes, headers: dict[str, str], path="/wxcc/events") -> int:
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def send(port: int, body: bytes, headers: dict[str, str] | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        return post(connection, body, signed(body) if headers is None else headers)
    finally:
        connection.close()


def test_a_signed_event_is_kept_before_it_is_answered_and_a_repeat_is_not_kept_again():
    kept: list[Hint] = []
    with served(kept.extend) as port:
        body = json.dumps(event()).encode()
        assert send(port, body) == 204
        assert [hint.task_id for hint in kept] == ["task-1"]
        upper = {name: value.upper() for name, value in signed(body).items()}
        assert send(port, body, upper) == 204
    assert len(kept) == 1


OLD_MS = 1_600_000_000_000
DROPPED = {
    "forged": lambda body: signed(body, FORGED),
    "unsigned": lambda _: {},
    "not ascii": lambda _: {"X-WebexCC-Signature": "é" * 64},
    "old header": lambda body: {**signed(body), "X-WebExCC-Timestamp": str(OLD_MS)},
}


@pytest.mark.parametrize("headers", DROPPED.values(), ids=DROPPED)
def test_what_webex_did_not_send_now_is_dropped(headers):
    kept: list[Hint] = []
    body = json.dumps(event()).encode()
    with served(kept.extend) as port:
        assert send(port, body, headers(body)) == 204
    assert kept == []


USELESS = {
    "old": (json.dumps(event(at_ms=OLD_MS)), 204),
    "another org": (json.dumps(event(comciscoorgid="other")), 204),
    "another event": (json.dumps(event(type="task:ended")), 204),
    "no JSON": ("{", 204),
    "no object": ("[]", 204),
    "deep": ("[" * 60_000, 204),
    "no time": (json.dumps(event(comciscotimestamp=None)), 204),
    "long time": (json.dumps(event(comciscotimestamp="9" * 5000)), 204),
    "no data": (json.dumps(event(data=None)), 204),
    "an id with a path": (json.dumps(event(task_id="../x")), 204),
    "too large": (json.dumps(event()) + " " * MAX_BODY_BYTES, 413),
}


@pytest.mark.parametrize(("body", "status"), USELESS.values(), ids=USELESS)
def test_signed_nonsense_is_not_kept_and_webex_does_not_hear_of_it(body, status):
    kept: list[Hint] = []
    with served(kept.extend) as port:
        assert send(port, body.encode()) == status
    assert kept == []


def odd(**data) -> dict:
    return event(data={"taskId": "task-1"} | data)


ODD = {
    "no id": event(id=None),
    "no created time": odd(),
    "created null": odd(createdTime=None),
    "created zero": odd(createdTime=0),
    "created as text": odd(createdTime="2026-09-14T09:59:55Z"),
    "created by a clock that is ahead": odd(createdTime=epoch_ms(utc_now()) + 360_000),
    "sent as a float": event(comciscotimestamp=float(epoch_ms(utc_now()))),
    "org in capitals": event(comciscoorgid=ORG.upper()),
}


@pytest.mark.parametrize("odd_event", ODD.values(), ids=ODD)
def test_an_odd_event_of_webex_is_kept(odd_event):
    kept: list[Hint] = []
    body = json.dumps(odd_event).encode()
    with served(kept.extend) as port:
        assert send(port, body, {**signed(body), "X-WebexCC-Timestamp": "soon"}) == 204
    [hint] = kept
    assert hint.task_id == "task-1"
    assert hint.created_time <= utc_now()


def test_what_is_dropped_fills_no_log(caplog):
    with served(print) as port:
        assert {send(port, b"{}", {}) for _ in range(50)} == {204}
    lines = [record.message for record in caplog.records if "dropped" in record.message]
    assert 1 <= len(lines) <= 3
    assert lines[0].startswith("Deliveries were dropped (1)")


def test_bodies_that_nobody_signed_do_not_fill_the_memory():
    receiver = Receiver(SECRET, ORG, print)
    size, answers = MAX_BODY_BYTES, []
    over = 10

    async def stall(message) -> None:
        parts = [message]

        async def receive():
            if parts:
                return parts.pop()
            await asyncio.sleep(0.2)
            return {"type": "http.disconnect"}

        async def answer(told) -> None:
            if told["type"] == "http.response.start":
                answers.append(told["status"])

        scope = {"type": "http", "path": "/wxcc/events", "method": "POST", "headers": []}
        await receiver(scope, receive, answer)

    async def stall_many() -> None:
        part = {"type": "http.request", "body": b"x" * size, "more_body": True}
        await asyncio.gather(*(stall(part) for _ in range(MAX_READING_BYTES // size + over)))
        assert answers.count(503) == over
        await stall(part)  # the others have gone

    asyncio.run(stall_many())
    assert answers.count(503) == over


def test_a_receiver_that_is_alone_reads_both_forms_of_a_connection():
    as_json = {"host": "https://h.example/e", "login": "me", "password": "p/w", "extra": {"a": "b"}}
    uri = "http://me:p%2Fw@https%3A%2F%2Fh.example%2Fe/"
    assert connection_fields(json.dumps(as_json)) == as_json
    assert connection_fields(f"{uri}?a=b") == as_json
    assert connection_fields(f"{uri}?__extra__=%7B%22a%22%3A+%22b%22%7D") == as_json
    assert connection_fields("nothing") == connection_fields("aws://[") == {}


@pytest.mark.parametrize("trouble", [TransientError("The store is down."), OSError()])
def test_a_store_in_trouble_is_told_and_the_repeat_is_kept(trouble):
    kept: list[Hint] = []
    troubles = [trouble]

    def write(hints) -> None:
        if troubles:
            raise troubles.pop()
        kept.extend(hints)

    body = json.dumps(event()).encode()
    with served(write) as port:
        assert [send(port, body), send(port, body)] == [503, 204]
    assert len(kept) == 1


def test_a_hint_has_its_contact_task_looked_at_now_and_goes_with_the_publication(open_centre):
    centre = open_centre(
        tasks_per_hour=12,
        late_capture_share=1.0,
        late_capture_hours=0.2,
        access_token_seconds=60 * 24 * 3600,
    )
    hour = centre.hour(1)
    centre.run(hour)
    centre.sandbox.advance(25 * 60)
    assert centre.recheck() == 0
    before = copied(centre)
    rows = [row for row in centre.archived.rows("contact_tasks") if row["next_check_time"]]
    archive = centre.archive()
    hints = [Hint(row["task_id"], row["created_time"]) for row in rows]
    write_hints(archive.store, archive.keys, [*hints, hints[0]], centre.now)
    write_hints(archive.store, archive.keys, [Hint(NO_SUCH_TASK, centre.now)], centre.now)

    centre.recheck()

    assert copied(centre) > before
    assert hints_of(centre) == []
    for hours in (1, 2, 6, 12, 24):
        centre.sandbox.advance(hours * 3600)
        centre.recheck()
    # What the hourly runs alone would have come to.
    assert_complete(centre.archived, centre.truth(hour))


def test_a_hint_that_comes_while_a_recheck_runs_waits_for_the_next(open_centre):
    centre = open_centre(tasks_per_hour=2)
    centre.run(centre.hour(1))
    archive = centre.archive()
    hints = [
        Hint(row["task_id"], row["created_time"]) for row in centre.archived.rows("contact_tasks")
    ]
    write_hints(archive.store, archive.keys, hints, centre.now)

    class OneMoreHint(AirflowTasks):
        def run(self, name, action):
            if name == "publish_recheck":
                keys.append(write_hints(archive.store, archive.keys, hints, centre.now))
            return super().run(name, action)

    keys: list[str] = []
    recheck(centre, OneMoreHint())
    assert hints_of(centre) == keys
    assert len(keys) == 1


def copied(centre) -> int:
    return sum(row["outcome"] == "copied" for row in centre.archived.rows("captures"))


def hints_of(centre) -> list[str]:
    return [key for key in centre.archived.keys if key.startswith("hints/")]


def test_hints_of_what_does_not_exist_cost_one_walk_at_most_and_make_no_hour_archived(open_centre):
    centre = open_centre(tasks_per_hour=5)
    archive = centre.archive()
    hints = [Hint(f"bogus-{each}", centre.hour(each).start) for each in range(100)]
    write_hints(archive.store, archive.keys, hints, centre.now)
    centre.sandbox.reset_requests()

    assert centre.recheck() == 0

    assert centre.sandbox.requests()["counts"] == {"tasks": {"200": 1}}
    assert centre.archived.keys == []


def test_hints_of_what_does_not_exist_and_is_old_cost_no_request(open_centre):
    centre = open_centre(tasks_per_hour=5)
    archive = centre.archive()
    hints = [Hint(f"bogus-{each}", centre.hour(each + 4).start) for each in range(100)]
    write_hints(archive.store, archive.keys, hints, centre.now)
    centre.sandbox.reset_requests()

    assert centre.recheck() == 0

    assert centre.sandbox.requests()["counts"] == {}
    assert centre.archived.keys == []


@pytest.mark.parametrize("has_hourly_run", [True, False])
def test_a_recording_of_this_hour_is_archived_by_its_hint_and_the_hour_is_still_completed(
    open_centre, has_hourly_run
):
    centre = open_centre(tasks_per_hour=60, recording_after_seconds_max=120, call_seconds_max=120)
    centre.sandbox.advance(40 * 60)
    hour = centre.hour(0)
    archive = centre.archive()
    first = next(task for task in centre.truth(hour) if offered(task))
    hint = Hint(first["task_id"], centre.now)
    write_hints(archive.store, archive.keys, [hint], centre.now)

    centre.recheck()

    rows = centre.archived.rows("contact_tasks")
    assert [row["task_id"] for row in rows] == [hint.task_id]
    assert {row["outcome"] for row in centre.archived.rows("captures")} == {"copied"}
    assert hints_of(centre) == []
    centre.sandbox.advance(3600)
    if has_hourly_run:
        centre.run(hour)
    for _ in range(8):
        centre.sandbox.advance(8 * 3600)
        centre.recheck()
    assert_complete(centre.archived, centre.truth(hour))


EVENTS = {
    "event_lost_share": 0.3,
    "event_twice_share": 0.4,
    "event_forged_share": 0.2,
    "event_old_share": 0.1,
    "shuffle_events": True,
}


def test_lost_repeated_disordered_and_forged_events_change_nothing(open_centre):
    """The same hours are archived into two buckets, of which one has events too."""
    without = open_centre(
        **EVENTS,
        tasks_per_hour=6,
        recording_bytes_max=30_000,
        screen_share=0.0,
        call_seconds_max=600,
        digital_seconds_max=600,
        late_capture_share=0.4,
        late_capture_hours=0.7,
        late_listed_share=0.2,
        late_listed_minutes=100,
        access_token_seconds=60 * 24 * 3600,
    )
    with_events = in_new_bucket(without)
    hours = [without.hour(ago) for ago in (2, 1, 0, -1)]
    destination = {"host": "https://hooks.contoso.com/wxcc/events", "password": SECRET}
    subscribe_capture_events(CaptureEventsConnection.from_fields(**destination), without.client)
    kinds: set[str] = set()
    early = 0
    for hour in hours[:2]:
        without.run(hour)
        with_events.run(hour)

    for half_hour in range(4):
        without.sandbox.advance(1800)
        kinds |= deliver(with_events)
        with_events.recheck()
        early = max(early, copied(with_events) - copied(without))
        if half_hour % 2:
            without.run(hours[2 + half_hour // 2])
            with_events.run(hours[2 + half_hour // 2])
    for later in (1, 2, 6, 24, 48, 24):
        without.sandbox.advance(later * 3600)
        without.recheck()
        with_events.recheck()

    assert kinds == {"sent", "twice", "lost", "forged", "old"}
    assert early > 5, "no event has hastened anything"
    one, other = without.archived, with_events.archived
    # Nor is a hint left; there are more manifests where there were more runs.
    assert keys_but_of_manifests(other) == keys_but_of_manifests(one)
    for table in ("contact_tasks", "captures"):
        assert timeless(other.rows(table)) == timeless(one.rows(table))
    assert {key: other.bytes_of(key) for key in other.objects} == {
        key: one.bytes_of(key) for key in one.objects
    }
    assert_complete(other, without.truth(Interval(hours[0].start, hours[-1].end)))


def keys_but_of_manifests(archived) -> list[str]:
    return [key for key in archived.keys if not key.startswith("manifests/")]


def deliver(centre) -> set[str]:
    """What became available in the last hour, by a receiver that remembers nothing of the last time.

    Beside what the sandbox sends there is an event under a wrong signature, one of another org, and one of a
    contact task that does not exist, of which only the last becomes a hint.
    """
    now_ms = centre.sandbox.now_ms()
    archive = centre.archive()

    def write(hints) -> None:
        write_hints(archive.store, archive.keys, hints, centre.now)

    with served(write, lambda: centre.now) as port:
        url = f"http://127.0.0.1:{port}/wxcc/events"
        sent = centre.sandbox.send_events(now_ms - 3_600_000, now_ms, to=url)
        for task_id, secret, changes in (
            ("forged", FORGED, {}),
            ("of-another-org", SECRET, {"comciscoorgid": str(uuid.UUID(int=0))}),
            (NO_SUCH_TASK, SECRET, {}),
        ):
            body = json.dumps(event(task_id, task_id, now_ms, **changes)).encode()
            assert send(port, body, signed(body, secret)) == 204
    assert {each["status"] for each in sent} == {204, None}
    believed = {each["task_id"] for each in sent if each["kind"] in {"sent", "twice"}}
    _, hints = read_hints(archive.store, archive.keys)
    assert {hint.task_id for hint in hints} == {NO_SUCH_TASK, *believed}
    return {each["kind"] for each in sent}


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What does not tell when it was done."""
    when = {"first_seen_time", "checked_time", "copied_time"}
    told = [{name: row[name] for name in row.keys() - when} for row in rows]
    return sorted(told, key=lambda row: (row["task_id"], row.get("kind"), row.get("capture_id")))


def test_a_recheck_that_is_killed_forgets_no_hint(open_centre, s3_server):
    """Nothing but the hints tells of what is archived here: known contact tasks, and one of this hour."""
    centre = open_centre(
        tasks_per_hour=8,
        telephony_weight=1.0,
        email_weight=0.0,
        chat_weight=0.0,
        social_weight=0.0,
        captured_share=1.0,
        transcript_share=0.0,
        screen_share=0.0,
        recording_bytes_max=30_000,
        call_seconds_max=120,
        late_capture_share=0.5,
        late_capture_hours=0.2,
    )
    centre.run(centre.hour(1))
    centre.sandbox.advance(25 * 60)
    assert centre.recheck() == 0
    archive, before = centre.archive(), copied(centre)
    late = [row for row in centre.archived.rows("contact_tasks") if row["next_check_time"]]
    young = [task for task in centre.truth(centre.hour(0)) if offered(task)]
    hints = [Hint(row["task_id"], row["created_time"]) for row in late]
    hints.append(Hint(young[0]["task_id"], centre.now))
    write_hints(archive.store, archive.keys, hints[::2], centre.now)
    write_hints(archive.store, archive.keys, hints[1::2], centre.now)
    fields = centre.sandbox.airflow_connection()
    run = Run(
        dag="recheck_captures",
        now_ms=centre.sandbox.now_ms(),
        hour_ms=0,
        webex={name: fields[name] for name in ("host", "login", "password", "extra")},
        s3={
            "endpoint_url": s3_server.endpoint_url,
            "aws_access_key_id": s3_server.access_key,
            "aws_secret_access_key": s3_server.secret_key,
            "region_name": s3_server.region,
        },
        bucket="",
        part_bytes=centre.part_bytes,
    )
    with killed_process() as process:
        unharmed = in_new_bucket(centre, centre.bucket)
        writes = process.run(replace(run, bucket=unharmed.bucket)).writes
        expected = outcomes(unharmed)
        assert copied(unharmed) >= before + 3
        assert hints_of(unharmed) == []
        # The first of each kind: test_killed_anywhere has them all, without hints.
        kinds = {write.partition("/")[0]: write for write in reversed(writes)}
        assert {"PutObject due", "PutObject tables", "DeleteObject hints"} <= kinds.keys()
        for write in kinds.values():
            killed = in_new_bucket(centre, centre.bucket)
            ended = process.run(replace(run, bucket=killed.bucket, kill_at=write, moment="after"))
            assert ended.was_killed
            recheck(killed, AirflowTasks())
            assert outcomes(killed) >= expected, f"killed after {write}"
            assert hints_of(killed) == []


def offered(task: dict[str, Any]) -> bool:
    return any(capture["listed"] for capture in task["captures"])


def outcomes(centre) -> set[tuple[str, ...]]:
    names = ("task_id", "capture_id", "outcome", "sha256")
    return {tuple(row[name] for name in names) for row in centre.archived.rows("captures")}


def as_json(events: dict[str, str], store: dict[str, Any]) -> tuple[str, str]:
    return json.dumps({"conn_type": "http"} | events), json.dumps({"conn_type": "aws"} | store)


def as_uri(events: dict[str, str], store: dict[str, Any]) -> tuple[str, str]:
    return (
        f"http://:{quote(events['password'], safe='')}@{quote(events['host'], safe='')}",
        f"aws://{store['login']}:{store['password']}@/?"
        + urlencode({"__extra__": json.dumps(store["extra"])}),
    )


@pytest.mark.parametrize("form", [as_json, as_uri])
def test_the_receiver_runs_alone_with_the_connections_of_the_environment(s3_server, s3, form):
    bucket, port = f"alone-{uuid.uuid4().hex}", free_port()
    s3.create_bucket(Bucket=bucket)
    extra = {
        "endpoint_url": s3_server.endpoint_url,
        "region_name": s3_server.region,
        "service_config": {"s3": {"bucket_name": bucket}},
    }
    secret = "0123456789abcdef" * 2
    events, store = form(
        {"host": "https://hooks.contoso.com/wxcc/events", "password": secret},
        {"login": s3_server.access_key, "password": s3_server.secret_key, "extra": extra},
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "include.receiver", "--org-id", ORG, "--port", str(port)],
        env={
            **os.environ,
            "AIRFLOW_CONN_WXCC_CAPTURE_EVENTS": events,
            "AIRFLOW_CONN_WXCC_STORE": store,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        body = json.dumps(event()).encode()
        status = send_when_listening(process, port, body, signed(body, secret))
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=20)

    assert status == 204, said
    [found] = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert found["Key"].startswith(f"hints/org_id={ORG}/")
    assert secret not in said
    assert "task-1" not in said


def send_when_listening(process, port: int, body: bytes, headers: dict[str, str]) -> int | None:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return send(port, body, headers)
        except ConnectionRefusedError:
            time.sleep(0.1)
    return None
