import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from include.sandbox import __main__ as command
from include.sandbox.pages import ROUTES, SAMPLED_PER_HOUR, count_hour
from include.sandbox.scenario import Scenario, knobs
from include.sandbox.server import Sandbox, SandboxApplication
from include.sandbox.state import SandboxState
from tests.sandbox.client import HOUR_MS, NOW_MS, Client


def test_the_page_tells_what_is_held_and_how_to_use_it(open_sandbox):
    client = open_sandbox(client_secret="not-for-the-page", error_body="html")

    pages = [client.send("GET", path) for path in ("/", "/sandbox/")]

    for page in pages:
        assert page.headers["Content-Type"].startswith("text/html")
        assert "2026-09-14 09:00:00 UTC" in page.text
        assert all("--" + knob.name.replace("_", "-") in page.text for knob in knobs())
        assert f"{client.sandbox.base_url}/sandbox/truth?from=" in page.text
        assert "not-for-the-page" not in page.text
        assert page.text.count("class=changed") == 4  # these two, the clock, the rate limit


def test_the_page_names_every_route():
    application = SandboxApplication(SandboxState(Scenario())).build()
    served = {
        (route.method, str(route.resource.canonical))
        for route in application.router.routes()
        if route.resource and str(route.resource.canonical).startswith("/sandbox/")
    }

    shown = {tuple(path.split()) for path, _, _ in ROUTES if "/sandbox/" in path}

    assert shown == {route for route in served if route[0] != "HEAD"}


def test_the_example_commands_are_well_formed(open_sandbox):
    client = open_sandbox()
    page = client.send("GET", "/").text

    body = re.search(r"-d &#x27;(\[.*?\])&#x27;", page)
    assert body
    faults = body[1].replace("&quot;", '"')
    assert client.send("POST", "/sandbox/faults", faults.encode()).status == 200


def test_a_small_hour_is_counted_and_a_large_one_sampled():
    hour = NOW_MS // HOUR_MS - 30
    small = SandboxState(Scenario(now_ms=NOW_MS))
    large = SandboxState(Scenario(now_ms=NOW_MS, tasks_per_hour=5_000))

    contact_tasks, captures, size_bytes, is_exact = count_hour(small, hour, NOW_MS)
    assert (contact_tasks, is_exact) == (40, True)
    about = count_hour(large, hour, NOW_MS)

    assert (about[0], about[3]) == (5_000, False)
    assert about[0] > SAMPLED_PER_HOUR
    assert 0.6 < about[1] / (captures * 125) < 1.6
    assert 0.5 < about[2] / (size_bytes * 125) < 2
    assert count_hour(large, NOW_MS // HOUR_MS + 1, NOW_MS) == (0, 0, 0, True)


def test_the_connection_is_the_one_airflow_reads(open_sandbox):
    client = open_sandbox(requests_per_minute=120)

    found = client.send("GET", "/sandbox/connection").json()

    base_url = client.sandbox.base_url
    assert (found["conn_type"], found["host"]) == ("webex_contact_center", base_url)
    assert (found["login"], found["password"]) == ("C0ffee5a9dbox", "sandbox-client-secret")
    assert found["extra"].keys() == {
        "org_id",
        "refresh_token",
        "token_url",
        "requests_per_minute",
        "media_hosts",
    }
    assert found["extra"]["requests_per_minute"] == 120
    assert found["extra"]["media_hosts"] == ["127.0.0.1"]
    assert client.refresh(refresh_token=found["extra"]["refresh_token"]).status == 200


def test_requests_are_counted_without_secrets(open_sandbox):
    client = open_sandbox()
    client.contact_tasks(from_=1)
    client.send("GET", "/media/a/b?X-Amz-Signature=secret")

    report = client.send("GET", "/sandbox/requests").json()

    assert report == client.sandbox.requests()
    assert report["counts"] == {"media": {"403": 1}, "tasks": {"400": 1}, "token": {"200": 1}}
    assert report["max_requests_in_60_seconds"] == 1
    assert [each["path"] for each in report["refusals"]] == ["/v1/tasks", "/media/a/b"]
    assert "secret" not in json.dumps(report)
    assert client.send("DELETE", "/sandbox/requests").json()["counts"] == {}


def test_faults_are_switched_over_http(open_sandbox):
    client = open_sandbox()
    faults = json.dumps([{"endpoint": "token", "kind": "http_500"}]).encode()

    assert client.send("POST", "/sandbox/faults", faults).status == 200
    assert client.refresh().status == 500
    assert client.send("GET", "/sandbox/faults").json()[0]["struck"] == 1
    assert client.send("POST", "/sandbox/faults", b"{").status == 400
    assert client.send("POST", "/sandbox/faults", b'[{"kind": 1}]').status == 400
    assert client.send("DELETE", "/sandbox/faults").json() == []
    assert client.refresh().status == 200


def test_the_clock_is_moved_over_http(open_sandbox):
    client = open_sandbox()

    assert client.send("GET", "/sandbox/clock").json() == {"now_ms": NOW_MS}
    moved = client.send("POST", "/sandbox/clock", b'{"advance_seconds": 90}')
    assert moved.json() == {"now_ms": NOW_MS + 90_000} == {"now_ms": client.sandbox.now_ms()}
    for body in (b"{}", b"[]", b'{"advance_seconds": -1}', b'{"advance_seconds": "x"}', b"x"):
        assert client.send("POST", "/sandbox/clock", body).status == 400


def test_a_port_in_use_is_an_error_at_once():
    with Sandbox() as first:
        port = int(first.base_url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"), Sandbox(port=port):
            pass


def test_what_was_asked_can_be_read_before_and_after():
    sandbox = Sandbox(Scenario(now_ms=NOW_MS))
    sandbox.set_faults([{"endpoint": "token", "kind": "http_500"}])
    with sandbox:
        assert Client(sandbox).refresh().status == 500

    assert sandbox.requests()["counts"] == {"token": {"500": 1}}


def test_an_ipv6_address_is_written_as_such():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        with Sandbox(host="::1") as sandbox:
            assert sandbox.base_url.startswith("http://[::1]:")
            assert sandbox.airflow_connection()["extra"]["media_hosts"] == ["::1"]
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")


def test_leaving_does_not_wait_for_a_stalled_download(open_sandbox):
    with Sandbox(Scenario(now_ms=NOW_MS)) as sandbox:
        sandbox.set_faults([{"endpoint": "token", "kind": "stall_before_headers", "seconds": 60}])
        port = int(sandbox.base_url.rpartition(":")[2])
        peer = socket.create_connection(("127.0.0.1", port), timeout=10)
        peer.sendall(b"POST /v1/access_token HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        while not sandbox.requests()["counts"]:
            time.sleep(0.01)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    peer.close()


def test_the_command_serves_until_it_is_interrupted(capsys):
    """In this process, so that its lines are seen by coverage."""
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    assert command.main(["--port", "0", "--tasks-per-hour", "3"]) == 0

    assert "listens on http://127.0.0.1:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--tied-share", "7"], ["--faults", "[{}]"]], ids=["share", "faults"]
)
def test_the_command_refuses_a_bad_scenario(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)

    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_stops_at_once_and_cleanly(number):
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "include.sandbox", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        base_url = re.search(r"http://[^/]+", process.stdout.readline())
        assert base_url
        with urllib.request.urlopen(f"{base_url[0]}/sandbox/clock", timeout=10) as response:
            assert response.status == 200
        begun = time.monotonic()
        process.send_signal(number)
        output = process.communicate(timeout=10)
    finally:
        process.kill()

    assert process.returncode == 0
    assert output == ("", "")
    assert time.monotonic() - begun < 3
