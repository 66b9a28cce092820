"""The S3 server of a developer's machine: ministack, which keeps its objects as plain files.

`python -m tools.local_s3` is ministack behind a door of ours (`WholeRequests`), because ministack
alone commits an upload whose connection broke half-way.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

REGION = "us-east-1"
ACCESS_KEY = "local-access-key"
# ministack takes any secret in a signed header; a presigned URL must be signed with this one.
SECRET_KEY = "local-secret-key"  # noqa: S105 - guards nothing: the server listens on loopback only
HEALTH_PATH = "/_ministack/health"

_ACCOUNT = "000000000000"
_SIDECAR = ".meta.json"


_Message = dict[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_Application = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class WholeRequests:
    """An ASGI application that hands on a request only once its whole body has arrived.

    ministack 1.4.21 takes a broken connection for the end of the body and stores what came, over
    the old object; and it appends pieces to one another, which takes 11 s for 50 MB. AWS S3 does
    neither.
    """

    def __init__(self, application: _Application) -> None:
        self._application = application

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one request, or drop it when its sender has gone."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        pieces: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
        whole = [{"type": "http.request", "body": b"".join(pieces), "more_body": False}]
        pieces.clear()

        async def receive_whole() -> _Message:
            return whole.pop() if whole else await receive()

        await self._application(scope, receive_whole, send)


def ministack_command() -> list[str]:
    """Return the program; everything else goes through its environment."""
    return [sys.executable, "-m", "tools.local_s3"]


def ministack_environment(directory: Path, port: int) -> dict[str, str]:
    """Return what makes ministack listen on loopback, serve only S3 and persist to `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    return {
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "MINISTACK_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3",
        "SFTP_ENABLED": "0",  # otherwise it listens on 2222 and 8883 too
        "IOT_MTLS_ENABLED": "0",
        # At its start ministack removes every container with its label: none of our business.
        "DOCKER_HOST": "unix:///nonexistent/docker.sock",
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(directory),
        "PERSIST_STATE": "0",
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "MINISTACK_REGION": REGION,
        "MINISTACK_WORKER_THREADS": "8",
        "LOG_LEVEL": "WARNING",
    }


def repair_persisted_objects(directory: Path) -> list[str]:
    """Remove what a killed ministack left half written; return the names, for the log.

    ministack writes the bytes to `<key>.tmp`, renames, then does the same with a sidecar (size,
    ETag). Killed in between it would offer `<key>.tmp` as an object of its own, or new bytes under
    the old ETag. Without a sidecar it computes both from the bytes. Run it only while no ministack
    uses `directory`.
    """
    repaired: list[str] = []
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        sidecar = path.with_name(path.name + _SIDECAR)
        if path.suffix == ".tmp" and not sidecar.exists():
            path.unlink()
            repaired.append(str(path.relative_to(directory)))
        elif sidecar.exists() and sidecar.stat().st_mtime_ns < path.stat().st_mtime_ns:
            sidecar.unlink()
            repaired.append(str(sidecar.relative_to(directory)))
    return repaired


def bucket_directory(directory: Path, bucket: str) -> Path:
    """Return where the objects of `bucket` lie as plain files, one per key."""
    return directory / _ACCOUNT / bucket


def serve() -> None:
    """Serve S3 until SIGINT or SIGTERM, as the environment of `ministack_environment` says."""
    # Both are of the sandbox extra only, and importing ministack starts to read the objects.
    from hypercorn.asyncio import serve as serve_with_hypercorn  # noqa: PLC0415
    from hypercorn.config import Config  # noqa: PLC0415
    from ministack.app import app  # noqa: PLC0415

    config = Config()
    config.bind = [f"127.0.0.1:{os.environ['GATEWAY_PORT']}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    config.loglevel = "WARNING"
    asyncio.run(serve_with_hypercorn(WholeRequests(app), config))  # pyright: ignore[reportArgumentType] - hypercorn types messages as a union of TypedDicts


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what would lead S3 clients or servers elsewhere."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "RCLONE_", "S3_", "MINISTACK_", "AIRFLOW"))
    }


if __name__ == "__main__":
    serve()
