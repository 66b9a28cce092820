"""The receiver that runs alone, as the process that it is: under load, killed, and with clients that dawdle."""

import signal
import socket
import subprocess
import sys
import time
from typing import Any, cast

import pytest

from benchmarks.archive_shard_peer import open_archive
from benchmarks.capture_events import (
    BUCKET,
    HEADING,
    hinted,
    measure_events,
    receiver_process,
    sent,
)
from benchmarks.laboratory import PROJECT, Laboratory
from include.receiver.app import PATH
from include.receiver.impatient_http import MAX_HEAD_SECONDS

GET = f"GET {PATH} HTTP/1.1\r\nHost: receiver\r\n\r\n".encode()


def test_under_load_no_event_is_lost_and_the_memory_does_not_grow():
    """`make benchmark WHAT=events`, shortly; it fails where an answered event is not in the bucket."""
    first, last = cast("list[dict[str, Any]]", measure_events(4_000, parts=2)[HEADING])

    assert first["events"] == last["events"] == 1_880
    assert first["other deliveries"] == 120
    assert first["objects"] < 1_880 / 4
    # A tenth of what an idle machine does.
    assert min(first["events/s"], last["events/s"]) > 150
    if last["peak MiB so far"]:
        assert last["peak MiB so far"] < 150
        assert last["peak MiB so far"] - first["peak MiB so far"] < 5


@pytest.fixture
def store(tmp_path):
    """An S3 server that can be halted, and how to reach it."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serve", "s3"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout
        assert server.stdin
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        yield server, Laboratory(tmp_path, "", url, environment={"PYTHONPATH": str(PROJECT)})
        server.stdin.close()


def test_what_was_answered_before_the_receiver_was_killed_is_in_the_bucket(store):
    """It is killed in the middle of a load and of a write, which the store has not heard of yet."""
    server, laboratory = store
    with receiver_process(laboratory) as receiver:
        archive = open_archive(laboratory.s3_url, BUCKET)
        load = receiver.load(laboratory, 0, 1_000_000)
        deadline = time.monotonic() + 30
        while len(list(archive.store.list(archive.keys.hints()))) < 10:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        try:
            server.send_signal(signal.SIGSTOP)
            time.sleep(0.2)
            receiver.process.kill()
            told = sent(load)
        finally:
            server.send_signal(signal.SIGCONT)
        found, _ = hinted(laboratory)

    assert len(told.answered) > 100
    assert set(told.answered) <= found.keys()


def test_a_client_that_dawdles_with_its_headers_is_cut_off_and_one_that_does_not_is_kept(store):
    _, laboratory = store
    with receiver_process(laboratory) as receiver:
        silent, dripping, later, prompt = (
            socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(4)
        )
        dawdling = {silent: b"", dripping: GET, later: GET}
        ask(later)
        begun = time.monotonic()
        for number in range(int(MAX_HEAD_SECONDS * 4)):
            for connection, head in dawdling.items():
                connection.sendall(head[number : number + 1])
            if number % 4 == 0:
                ask(prompt)
            time.sleep(0.2)
        for connection in dawdling:
            connection.settimeout(MAX_HEAD_SECONDS)
            assert connection.recv(1) == b""
            connection.close()
        assert time.monotonic() - begun < MAX_HEAD_SECONDS + 1
        ask(prompt)
        prompt.close()


def ask(connection: socket.socket) -> None:
    connection.settimeout(5)
    connection.sendall(GET)
    assert connection.recv(1000).startswith(b"HTTP/1.1 405 ")
