import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tools.local_processes import ComponentDiedError, Components, reserve_port

PROJECT = Path(__file__).resolve().parents[2]

# Forks a child that leaves the process group, as Airflow's task processes do; both ignore SIGTERM.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
else:
    print(os.getpid(), child, flush=True)
time.sleep(60)
"""


def processes_in(log_path):
    deadline = time.monotonic() + 20
    while not (text := log_path.read_text() if log_path.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [int(word) for word in text.split()]


def is_running(process_id):
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_stopping_ends_what_ignores_sigterm_and_left_its_group(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.local_processes.ASK_AGAIN_SECONDS", 0.2)
    components = Components(tmp_path)
    components.start("stubborn", [sys.executable, "-c", STUBBORN], os.environ)
    members = processes_in(tmp_path / "stubborn.log")

    components.stop()

    assert not any(map(is_running, members))


def test_a_dead_component_is_named_with_the_end_of_its_log(tmp_path):
    components = Components(tmp_path)
    components.start("short", [sys.executable, "-c", "print('last words'); exit(3)"], os.environ)

    message = ""
    while not message:
        try:
            components.raise_if_one_died()
        except ComponentDiedError as error:
            message = str(error)

    components.stop()
    assert "short ended by itself (exit status 3)" in message
    assert "last words" in message


@pytest.mark.skipif(sys.platform != "linux", reason="reads the sessions of other processes")
def test_nothing_outlives_a_killed_launcher(tmp_path):
    launcher = (
        "import os, sys, time; from pathlib import Path; from tools.local_processes import Components;"
        "components = Components(Path(sys.argv[1]));"
        "components.start('stubborn', [sys.executable, '-c', sys.argv[2]], os.environ); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", launcher, str(tmp_path), STUBBORN], cwd=PROJECT
    ) as process:
        members = processes_in(tmp_path / "stubborn.log")
        process.send_signal(signal.SIGKILL)

    deadline = time.monotonic() + 30
    while any(map(is_running, members)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextlib.contextmanager
def another_process(statements):
    """A process that prints a port and then waits to be killed."""
    command = [sys.executable, "-c", f"{statements}; import time; time.sleep(60)"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.enable_socket
def test_a_busy_port_is_passed_over():
    listens = (
        "import socket; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True)"
    )
    with another_process(listens) as busy:
        assert reserve_port(busy) > busy


@pytest.mark.enable_socket
def test_a_port_that_nothing_listens_on_yet_is_promised_to_one_only_and_until_it_ends():
    """Two `make run`s that start at once would else both give PostgreSQL the same one."""
    reserves = (
        "from tools.local_processes import reserve_port; print(reserve_port(20_000), flush=True)"
    )
    mine = reserve_port(20_000)
    with another_process(reserves) as first, another_process(reserves) as second:
        assert len({mine, first, second, reserve_port(20_000)}) == 4

    assert reserve_port(first) == first
