"""What a benchmark runs in: its servers, a folder, a certificate authority, and how a program is measured."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
SECONDS_FOR_ONE_RUN = 3600
ACCESS_KEY = "benchmark"
SECRET_KEY = "benchmark-secret-key"  # noqa: S105 - the sink asks for none
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it


class RunFailedError(RuntimeError):
    """A peer failed, or did not deliver every byte; its figures would mean nothing."""


@dataclass(frozen=True)
class Cost:
    """What a program cost."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int


@dataclass
class Laboratory:
    """The servers and the folder of a benchmark.

    Attributes:
        directory: Where the captures are.
        webex_url: The API and the media.
        s3_url: The sink.
        ca_file: The certificate authority that clients must trust; None without TLS.
    """

    directory: Path
    webex_url: str
    s3_url: str
    ca_file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    def ask(self, url: str, body: bytes | None = None) -> bytes:
        """A request to one of the servers' own routes."""
        trusted = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        with urllib.request.urlopen(url, body, timeout=60, context=trusted) as answer:  # noqa: S310 - ours
            return answer.read()

    def measure(
        self, command: Sequence[str], more_environment: Mapping[str, str] | None = None
    ) -> tuple[Cost, str]:
        """Run a program; what it cost, and what it printed.

        Raises:
            RunFailedError: It failed, or takes too long.
        """
        result = self.directory / "cost.json"
        launcher = (sys.executable, "-I", "-S", str(PROJECT / "benchmarks" / "measure.py"))
        with subprocess.Popen(
            (*launcher, str(result), *command),
            cwd=PROJECT,
            env={**self.environment, **(more_environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, errors = process.communicate(timeout=SECONDS_FOR_ONE_RUN)
            except BaseException:
                os.killpg(process.pid, 9)
                raise
        if process.returncode:
            raise RunFailedError(
                f"{Path(command[0]).name} ended with {process.returncode}: {errors.strip()[-2000:]}"
            )
        return Cost(**json.loads(result.read_text())), output


@contextlib.contextmanager
def open_laboratory(*, is_tls: bool = False, space_bytes: int = 0) -> Iterator[Laboratory]:
    """Start the servers; nothing is left of them or the folder afterwards.

    Args:
        is_tls: All servers speak TLS, under a certificate authority made for this run.
        space_bytes: How much will be put into the folder; it lies in memory where there is plenty.
    """
    has_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 3 * space_bytes
    with (
        tempfile.TemporaryDirectory(
            prefix="wxcc-benchmark-", dir=_MEMORY if has_memory else None
        ) as name,
        contextlib.ExitStack() as stack,
    ):
        directory = Path(name)
        certificate = _make_certificate(directory) if is_tls else None
        scheme = "https" if is_tls else "http"
        webex, s3 = (
            f"{scheme}://127.0.0.1:{stack.enter_context(_served(server, directory, certificate))}"
            for server in ("webex", "s3")
        )
        ca_file = directory / "ca.pem" if is_tls else None
        yield Laboratory(directory, webex, s3, ca_file, _environment(directory, ca_file))


@contextlib.contextmanager
def _served(server: str, directory: Path, certificate: Path | None) -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.serve", server, "--directory", str(directory)]
    command += ["--certificate", str(certificate)] if certificate else []
    with subprocess.Popen(
        command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(10)


def _environment(directory: Path, ca_file: Path | None) -> dict[str, str]:
    """Nothing of the machine's own settings, such as a proxy or a log level, takes part."""
    found = {
        "HOME": str(directory),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "PYTHONPATH": str(PROJECT),
        "TMPDIR": str(directory),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    if ca_file:
        names = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
        found |= dict.fromkeys(names, str(ca_file))
    return found


def _make_certificate(directory: Path) -> Path:
    """A certificate authority for this run only, in ca.pem, and a certificate of 127.0.0.1 with its key."""
    key_type = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    _openssl(
        directory, "req", "-x509", *key_type, "-keyout", "ca.key", "-out", "ca.pem",
        "-subj", "/CN=benchmark CA", "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    _openssl(
        directory, "req", "-x509", *key_type, "-keyout", "server.key", "-out", "server.pem",
        "-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
        "-addext", "basicConstraints=critical,CA:FALSE",
    )  # fmt: skip
    both = directory / "certificate.pem"
    both.write_bytes(
        (directory / "server.pem").read_bytes() + (directory / "server.key").read_bytes()
    )
    return both


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(("openssl", *arguments), cwd=directory, check=True, capture_output=True)
