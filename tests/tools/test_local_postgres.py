"""The database of `make run`: who reaches it, and what a kill does to it."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest

from tools.local_postgres import LocalPostgres
from tools.local_processes import reserve_port

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def server(tmp_path) -> LocalPostgres:
    server = LocalPostgres(tmp_path, reserve_port(20_100))
    server.prepare()
    return server


@contextlib.contextmanager
def running(server: LocalPostgres) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(server.command(), stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(server.is_ready)
            yield process
        finally:
            process.send_signal(signal.SIGINT)


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask(server: LocalPostgres, *statements: str) -> object:
    with contextlib.closing(psycopg2.connect(server.url.replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchone() if cursor.description else None


def test_only_this_machine_reaches_it_and_only_with_the_password(server):
    with running(server) as process:
        listening = {
            connection.laddr.ip
            for connection in psutil.Process(process.pid).net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert ask(server, "select 1") == (1,)
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(server.url.replace("+psycopg2", "").replace("@", "x@"))

    assert listening == {"127.0.0.1"}
    assert oct((server.home / "password").stat().st_mode)[-3:] == "600"


def test_it_does_not_run_as_root(server):
    with running(server) as process:
        assert psutil.Process(process.pid).uids().effective != 0


def test_a_kill_loses_nothing_that_was_stored_a_second_ago(server):
    with running(server) as process:
        ask(server, "create table kept (number int)", "insert into kept values (7)", "checkpoint")
        process.kill()
        process.wait()
    assert (server.files / "postmaster.pid").exists()

    server.prepare()
    with running(server):
        assert ask(server, "select number from kept") == (7,)


def test_it_waits_for_the_server_of_a_killed_launcher_to_end(server):
    with running(server) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with subprocess.Popen(
            ["sh", "-c", f"sleep 2; kill -9 {process.pid}"], start_new_session=True
        ):
            started = time.monotonic()
            LocalPostgres(server.home.parent, 1).prepare()
            # The killed one stays a zombie until this process asks for its status.
            assert time.monotonic() - started >= 1.5


def test_a_number_noted_by_a_killed_server_may_belong_to_another_program_now(server):
    noted = server.files / "postmaster.pid"
    noted.write_text(f"{os.getpid()}\n")

    server.prepare()

    assert not noted.exists()


def test_files_that_a_killed_launcher_left_half_made_are_made_anew(tmp_path):
    server = LocalPostgres(tmp_path, reserve_port(20_100))
    half_made = server.home / "data.unfinished"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("16\n")

    server.prepare()
    with running(server):
        assert ask(server, "select 1") == (1,)


def test_an_archive_of_the_time_of_sqlite_is_left_alone(tmp_path: Path):
    (tmp_path / "airflow.db").write_bytes(b"SQLite format 3")
    (tmp_path / "migrated").write_text("3.3.2\n")

    LocalPostgres(tmp_path, reserve_port(20_100)).prepare()

    assert (tmp_path / "airflow.db").read_bytes() == b"SQLite format 3"
