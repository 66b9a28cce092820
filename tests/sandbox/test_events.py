import hmac
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.sandbox.client import HOUR_MS, NOW_MS
from tests.sandbox.test_subscriptions import SUBSCRIPTION, send


class Receiver(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/events"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.got.append((headers, body))
        self.send_response(204)
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """The tests' output is no place for it."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_each_capture_that_became_available_is_told_under_a_signature(open_sandbox, receiver):
    client = open_sandbox()
    send(client, "POST", **SUBSCRIPTION)

    sent = client.sandbox.send_events(NOW_MS - HOUR_MS, NOW_MS, to=receiver.url)

    assert len(sent) == len(receiver.got) > 10
    for headers, body in receiver.got:
        signature = hmac.digest(b"s" * 32, body, "sha256").hex()
        assert headers["x-webexcc-signature"] == signature
        event = json.loads(body)
        assert headers["x-webexcc-timestamp"] == event["comciscotimestamp"] == str(NOW_MS)
        assert event["type"] == "capture:available"
        assert client.captures([event["data"]["taskId"]]).status == 200
    ids = {each["task_id"] for each in sent}
    later = client.sandbox.send_events(NOW_MS, NOW_MS + HOUR_MS, to=receiver.url)
    assert len({each["task_id"] for each in later} | ids) > len(ids)


def test_nobody_is_told_without_an_active_subscription(open_sandbox, receiver):
    client = open_sandbox()
    send(client, "POST", **SUBSCRIPTION)
    client.sandbox.deactivate_subscriptions()

    assert client.sandbox.send_events(NOW_MS - HOUR_MS, NOW_MS, to=receiver.url) == []


def test_events_are_lost_sent_twice_forged_and_old_as_the_scenario_wants(open_sandbox, receiver):
    client = open_sandbox(
        event_lost_share=0.2,
        event_twice_share=0.3,
        event_forged_share=0.2,
        event_old_share=0.2,
        shuffle_events=True,
    )
    send(client, "POST", **SUBSCRIPTION)

    sent = client.sandbox.send_events(NOW_MS - HOUR_MS, NOW_MS, to=receiver.url)

    kinds = {each["kind"] for each in sent}
    assert kinds == {"sent", "twice", "lost", "forged", "old"}
    assert len(receiver.got) == sum(each["kind"] != "lost" for each in sent)
    assert client.sandbox.state.events.report() == sent
    delivered = [each for each in sent if each["kind"] != "lost"]
    for each, (headers, body) in zip(delivered, receiver.got, strict=True):
        event = json.loads(body)
        signature = hmac.digest(b"s" * 32, body, "sha256").hex()
        assert event["id"] == each["id"]
        assert (headers["x-webexcc-signature"] == signature) == (each["kind"] != "forged")
        late_ms = HOUR_MS if each["kind"] == "old" else 0
        assert headers["x-webexcc-timestamp"] == str(NOW_MS - late_ms)


def test_events_tell_only_of_what_became_available_then_and_in_another_order_by_switch(
    open_sandbox, receiver
):
    orders = []
    for is_shuffled in (False, True):
        client = open_sandbox(shuffle_events=is_shuffled)
        send(client, "POST", **SUBSCRIPTION)
        receiver.got.clear()
        client.sandbox.send_events(NOW_MS - HOUR_MS, NOW_MS, to=receiver.url)
        data = [json.loads(body)["data"] for _, body in receiver.got]
        assert all(NOW_MS - HOUR_MS <= each["createdTime"] < NOW_MS for each in data)
        orders.append([(each["taskId"], each["createdTime"]) for each in data])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_no_secret_no_signature(open_sandbox, receiver):
    client = open_sandbox()
    send(client, "POST", **{name: SUBSCRIPTION[name] for name in SUBSCRIPTION if name != "secret"})

    client.sandbox.send_events(NOW_MS - HOUR_MS, NOW_MS, to=receiver.url)

    assert receiver.got
    assert all("x-webexcc-signature" not in headers for headers, _ in receiver.got)
