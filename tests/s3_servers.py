"""Real S3 servers for tests, each a context manager on a free loopback port.

They differ exactly where an archive is at risk, which is why there are several:

| server      | If-Match, If-None-Match on PUT         | wrong secret                | objects are |
| ----------- | -------------------------------------- | --------------------------- | ----------- |
| `ministack` | as AWS (412, or 404 without an object) | accepted                    | plain files |
| `moto`      | as AWS (412, or 404 without an object) | accepted                    | in memory   |
| `swift`     | 501, 412 (two at once can both win)    | 403 `SignatureDoesNotMatch` | files       |
| `rclone`    | both ignored: the object is replaced   | 403 `SignatureDoesNotMatch` | plain files |
"""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import local_s3

_BUILD_RINGS = """
import sys
from swift.common.ring import RingBuilder
for argument in sys.argv[2:]:
    kind, port = argument.split("=")
    ring = RingBuilder(part_power=0, replicas=1, min_part_hours=0)
    where = {"ip": "127.0.0.1", "port": int(port), "device": "d1"}
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "meta": "", **where})
    ring.rebalance()
    ring.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""

# Eventlet's own name resolution would import trio, which is there for selenium and knows no green sockets.
_SWIFT_ENVIRONMENT = {"EVENTLET_NO_GREENDNS": "yes"}
START_SECONDS = 30.0
STOP_SECONDS = 10.0
SECONDS_BETWEEN_LOOKS = 0.02  # how often a server in a thread looks whether it shall end
_MOTO_CHANGES = threading.Lock()


@dataclass(frozen=True)
class S3Server:
    """How to reach a running S3 server, and what it can be trusted with."""

    name: str
    endpoint_url: str
    access_key: str
    secret_key: str
    region: str
    has_conditional_writes: bool
    checks_credentials: bool


@contextlib.contextmanager
def ministack_server(directory: Path) -> Iterator[S3Server]:
    """Run ministack, keeping the objects in `directory`: a second run serves them again."""
    local_s3.repair_persisted_objects(directory)
    port = free_port()
    environment = local_s3.ministack_environment(directory, port)
    with _running(
        local_s3.ministack_command(),
        environment,
        directory.parent,
        log_name="ministack",
        ports=[port],
    ):
        yield S3Server(
            name="ministack",
            endpoint_url=f"http://127.0.0.1:{port}",
            access_key=local_s3.ACCESS_KEY,
            secret_key=local_s3.SECRET_KEY,
            region=local_s3.REGION,
            has_conditional_writes=True,
            checks_credentials=False,
        )


@contextlib.contextmanager
def rclone_server(directory: Path) -> Iterator[S3Server]:
    """Run `rclone serve s3` over `directory`: buckets are its folders, objects plain files."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("rclone")),
        *("serve", "s3", str(directory)),
        *("--addr", f"127.0.0.1:{port}"),
        *("--config", os.devnull, "--cache-dir", f"{directory}.cache", "--log-level", "NOTICE"),
    ]
    # The key pair goes through the environment, so that it is in no process list.
    environment = {"RCLONE_AUTH_KEY": '"rclone-access-key,rclone-secret-key"'}
    with _running(command, environment, directory.parent, "rclone", ports=[port]):
        yield S3Server(
            name="rclone",
            endpoint_url=f"http://127.0.0.1:{port}",
            access_key="rclone-access-key",
            secret_key="rclone-secret-key",
            region="us-east-1",
            has_conditional_writes=False,
            checks_credentials=True,
        )


@contextlib.contextmanager
def moto_server() -> Iterator[S3Server]:
    """Run moto's S3 in a thread; its buckets live in this process, shared by all its servers.

    It changes one thing at a time: moto itself looks whether a condition holds, and writes later.
    """
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import ThreadedWSGIServer

    class Server(ThreadedWSGIServer):
        def get_request(self) -> tuple[socket.socket, object]:
            accepted, address = super().get_request()
            return _Accepted(fileno=accepted.detach()), address

    # Not moto's own server, which looks through all its services for that of each request: a third of its time.
    moto = create_backend_app("s3")

    def one_change_at_a_time(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return moto(environ, start)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with _MOTO_CHANGES:
            return moto({**environ, "wsgi.input": io.BytesIO(body)}, start)

    server = Server("127.0.0.1", 0, one_change_at_a_time)
    thread = threading.Thread(
        target=server.serve_forever, args=(SECONDS_BETWEEN_LOOKS,), daemon=True
    )
    thread.start()
    try:
        yield S3Server(
            name="moto",
            endpoint_url=f"http://127.0.0.1:{server.server_port}",
            access_key="moto-access-key",
            secret_key="moto-secret-key",
            region="us-east-1",
            has_conditional_writes=True,
            checks_credentials=False,
        )
    finally:
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def swift_server(directory: Path) -> Iterator[S3Server]:
    """Run OpenStack Swift with its S3 API: one proxy and one account, container, object server."""
    ports = {kind: free_port() for kind in ("proxy", "account", "container", "object")}
    settings = directory / "etc"
    _write_swift_settings(directory, settings, ports)
    with contextlib.ExitStack() as stack:
        for kind in ("account", "container", "object", "proxy"):
            program = str(Path(sys.executable).with_name(f"swift-{kind}-server"))
            command = [
                sys.executable,
                "-W",
                "ignore",
                program,
                str(settings / f"{kind}.conf"),
                "-v",
            ]
            stack.enter_context(_running(command, _SWIFT_ENVIRONMENT, directory, f"swift-{kind}"))
        _wait_until_listening(list(ports.values()), lambda: _tail(directory / "swift-proxy.log"))
        yield S3Server(
            name="swift",
            endpoint_url=f"http://127.0.0.1:{ports['proxy']}",
            access_key="archive:writer",
            secret_key="swift-secret-key",
            region="us-east-1",
            has_conditional_writes=False,
            checks_credentials=True,
        )


def why_swift_cannot_run(directory: Path) -> str | None:
    """Return why `swift_server(directory)` cannot work on this machine, or None when it can."""
    if not Path(sys.executable).with_name("swift-proxy-server").exists():
        return "swift is not installed"
    if not hasattr(os, "setxattr"):
        return "Swift keeps its metadata in extended attributes, which this system lacks"
    probe = directory / "xattr-probe"
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.touch()
    try:
        os.setxattr(probe, "user.swift.metadata", b"probe")
    except OSError as error:
        return f"Swift keeps its metadata in extended attributes; the file system refuses: {error}"
    finally:
        probe.unlink()
    return None


class _Accepted(socket.socket):
    """A connection that this server forgot is no leak of the archive, and fails no test of it."""

    def __del__(self) -> None:
        self.close()


def free_port() -> int:
    """Return a loopback port that nothing listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _write_swift_settings(directory: Path, settings: Path, ports: Mapping[str, int]) -> None:
    device = directory / "devices" / "d1"
    for folder in (settings, device):
        folder.mkdir(parents=True, exist_ok=True)
    (settings / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = tests\n"
        "[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    common = (
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nworkers = 0\nuser = {getpass.getuser()}\n"
        f"swift_dir = {settings}\nlog_level = ERROR\n"
        f"devices = {device.parent}\nmount_check = false\nfallocate_reserve = 0\n"
    )
    for kind in ("account", "container", "object"):
        (settings / f"{kind}.conf").write_text(
            f"{common}bind_port = {ports[kind]}\n[pipeline:main]\npipeline = {kind}-server\n"
            f"[app:{kind}-server]\nuse = egg:swift#{kind}\n"
        )
    # In a process of its own: swift imports eventlet, whose deprecation warning fails a test.
    arguments = [f"{kind}={ports[kind]}" for kind in ("account", "container", "object")]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _BUILD_RINGS, str(settings), *arguments],
        env={**os.environ, **_SWIFT_ENVIRONMENT},
        check=True,
        timeout=START_SECONDS,
    )
    (settings / "proxy.conf").write_text(
        f"{common}bind_port = {ports['proxy']}\n[pipeline:main]\n"
        "pipeline = catch_errors s3api tempauth copy slo proxy-server\n"
        "[filter:catch_errors]\nuse = egg:swift#catch_errors\n"
        "[filter:s3api]\nuse = egg:swift#s3api\nlocation = us-east-1\ns3_acl = false\n"
        "[filter:tempauth]\nuse = egg:swift#tempauth\n"
        "user_archive_writer = swift-secret-key .admin\n"
        "[filter:copy]\nuse = egg:swift#copy\n"
        "[filter:slo]\nuse = egg:swift#slo\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\nallow_account_management = true\n"
        "account_autocreate = true\n"
    )


@contextlib.contextmanager
def _running(
    command: Sequence[str],
    environment: Mapping[str, str],
    log_directory: Path,
    log_name: str,
    *,
    ports: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the block ends; nothing of its process group outlives it."""
    log_directory.mkdir(parents=True, exist_ok=True)
    log_path = log_directory / f"{log_name}.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            env={**local_s3.clean_environment(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        if ports:
            _wait_until_listening(ports, lambda: _tail(log_path), process)
        yield process
    finally:
        _stop(process)


def _wait_until_listening(
    ports: Sequence[int],
    explain: Callable[[], str],
    process: subprocess.Popen[bytes] | None = None,
) -> None:
    deadline = time.monotonic() + START_SECONDS
    waiting = list(ports)
    while waiting:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"The S3 server ended with {process.returncode}:\n{explain()}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"Nothing listens after {START_SECONDS} s:\n{explain()}")
        waiting = [port for port in waiting if not _is_listening(port)]
        time.sleep(0.02)


def _is_listening(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    for request in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, request)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            break


def _tail(log_path: Path) -> str:
    return "\n".join(log_path.read_text(errors="replace").splitlines()[-20:])
