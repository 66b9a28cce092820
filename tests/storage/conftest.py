import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest

from include.storage.object_store import ObjectStore
from tests import s3_servers
from tests.s3_servers import S3Server
from tests.storage.buckets import SERVERS, Bucket, s3_client

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def _sockets_to_the_s3_servers(socket_enabled: None) -> None:
    """A store is only as good as its server: these tests speak to real ones, on loopback."""


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], S3Server]]:
    """Starts a server by its name, once in a session."""
    directory = tmp_path_factory.mktemp("s3")
    makers: dict[str, Callable[[], AbstractContextManager[S3Server]]] = {
        "ministack": lambda: s3_servers.ministack_server(directory / "ministack" / "objects"),
        "moto": s3_servers.moto_server,
        "swift": lambda: s3_servers.swift_server(directory / "swift"),
        "rclone": lambda: s3_servers.rclone_server(directory / "rclone" / "buckets"),
    }
    with ExitStack() as stack:
        running: dict[str, S3Server] = {}

        def start(name: str) -> S3Server:
            # The only skip: the three others run wherever the tests do, or fail.
            if name == "swift" and (why := s3_servers.why_swift_cannot_run(directory / "swift")):
                pytest.skip(why)
            if name not in running:
                running[name] = stack.enter_context(makers[name]())
            return running[name]

        yield start


@pytest.fixture(scope="session")
def _clients() -> dict[str, Any]:
    return {}


@pytest.fixture
def bucket_on(
    start_server: Callable[[str], S3Server], _clients: dict[str, Any]
) -> Callable[[str], Bucket]:
    """Makes a new bucket on the server of a name."""

    def make(server_name: str) -> Bucket:
        server = start_server(server_name)
        if server_name not in _clients:
            _clients[server_name] = s3_client(
                server.endpoint_url,
                aws_access_key_id=server.access_key,
                aws_secret_access_key=server.secret_key,
                region_name=server.region,
            )
        name = f"archive-{next(_numbers)}"
        _clients[server_name].create_bucket(Bucket=name)
        return Bucket(server, _clients[server_name], name)

    return make


@pytest.fixture(params=SERVERS)
def bucket(request: pytest.FixtureRequest, bucket_on: Callable[[str], Bucket]) -> Bucket:
    """A new bucket on each server in turn."""
    return bucket_on(request.param)


@pytest.fixture
def store(bucket: Bucket) -> ObjectStore:
    """The store of the new bucket."""
    return bucket.store
