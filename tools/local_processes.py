"""Programs that run for as long as the launcher does, and not a second longer.

Each component gets a session of its own: what it forks may change its process group (Airflow's
task processes do) but stays in the session, so the session is what is stopped. `Watchdog`, a small
process beside them, does the same when the launcher is killed with no chance to tidy up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ASK_AGAIN_SECONDS = 4.0
TIMES_ASKED = 2
LOG_TAIL_LINES = 15


class ComponentDiedError(RuntimeError):
    """A component ended by itself; the message has the end of its log."""


@dataclass(frozen=True)
class Component:
    """A started program: its name, its process (the leader of its session) and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log_path: Path


class Components:
    """The programs of one launcher, in the order in which they were started."""

    def __init__(self, log_directory: Path) -> None:
        self._log_directory = log_directory
        self._components: list[Component] = []
        self._watchdog: subprocess.Popen[bytes] | None = None

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a program; what it prints goes to `<log directory>/<name>.log`, made anew."""
        if self._watchdog is None:
            self._watchdog = _start_watchdog()
        self._log_directory.mkdir(parents=True, exist_ok=True)
        log_path = self._log_directory / f"{name}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._components.append(Component(name, process, log_path))
        if self._watchdog.stdin is not None:
            self._watchdog.stdin.write(f"{process.pid}\n".encode())
            self._watchdog.stdin.flush()

    def raise_if_one_died(self) -> None:
        """Do nothing while all run.

        Raises:
            ComponentDiedError: One has ended; says which, and how its log ends.
        """
        for component in self._components:
            status = component.process.poll()
            if status is not None:
                raise ComponentDiedError(
                    f"{component.name} ended by itself ({describe_status(status)}). "
                    f"Its log {component.log_path} ends with:\n{tail(component.log_path)}"
                )

    def stop(self, first: Collection[str] = (), last: Collection[str] = ()) -> None:
        """Stop everything, politely for some seconds, then at once; leave no process behind.

        Those named in `first` are stopped before the others: they need them to end cleanly; those
        in `last` after the others, which need them.
        """
        waves: tuple[list[int], ...] = ([], [], [])
        for it in self._components:
            waves[0 if it.name in first else 2 if it.name in last else 1].append(it.process.pid)
        for wave in waves:
            stop_sessions(wave)
        for component in self._components:
            component.process.wait()
        self._components.clear()
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
            self._watchdog.wait()
            self._watchdog = None


def stop_sessions(session_ids: Iterable[int]) -> None:
    """End every process of the sessions.

    Their leaders, who know in what order to end what they forked, are asked twice: Airflow's
    scheduler takes the first SIGTERM as "when the running Airflow tasks are done". Then the rest is
    killed, leaders last, so that no child is left for nobody to bury.
    """
    sessions = set(session_ids)
    started = time.monotonic()
    asked = 0
    while members := _members(sessions):
        waited = time.monotonic() - started
        leaders = sessions.intersection(members)
        if leaders and waited >= asked * ASK_AGAIN_SECONDS and asked < TIMES_ASKED:
            asked += 1
            _send(signal.SIGTERM, leaders)
        elif not leaders or waited >= TIMES_ASKED * ASK_AGAIN_SECONDS:
            children = set(members) - leaders
            _send(signal.SIGKILL, children or leaders)
        time.sleep(0.05)


def reserve_port(preferred: int) -> int:
    """Return the first loopback port from `preferred` on that nothing listens on, nor will soon.

    No other caller, in this process or another, gets it before this process has ended.
    """
    for port in range(preferred, preferred + 200):
        if _reserve(port):
            with socket.socket() as client:
                client.settimeout(0.5)
                if client.connect_ex(("127.0.0.1", port)) != 0:
                    return port
    raise RuntimeError(f"No port from {preferred} to {preferred + 199} is free on 127.0.0.1.")


def tail(log_path: Path) -> str:
    """Return the last lines of a log, indented."""
    lines = log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\n".join(f"    {line}" for line in lines) or "    (nothing)"


def describe_status(status: int) -> str:
    """Return an exit status in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _reserve(port: int) -> bool:
    """Hold the UDP port of the same number, which no server of ours uses: a lock that ends with its process."""
    with socket.socket(type=socket.SOCK_DGRAM) as holder, socket.socket() as listener:
        # As servers do: a port whose last connections linger (TIME_WAIT) is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("127.0.0.1", port))
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        holder.detach()  # stays open until this process ends; children do not inherit it
        return True


def _send(number: signal.Signals, process_ids: Iterable[int]) -> None:
    for process_id in process_ids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, number)


def _members(sessions: set[int]) -> list[int]:
    members: list[int] = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(OSError):
            is_running = process.info["status"] != psutil.STATUS_ZOMBIE
            if is_running and os.getsid(process.pid) in sessions:
                members.append(process.pid)
    return members


def _start_watchdog() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.local_processes"],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).resolve().parent.parent,
        start_new_session=True,
    )


def _watch() -> None:
    """Read session ids from standard input; when it closes, the launcher is gone: end them."""
    session_ids = [int(line) for line in sys.stdin]
    stop_sessions(session_ids)


if __name__ == "__main__":
    _watch()
