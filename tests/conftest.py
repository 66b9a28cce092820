"""No sockets unless a test asks for them, and nothing of the machine's environment in any test."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import settings
from pytest_socket import disable_socket

from include.sandbox.scenario import Scenario
from include.sandbox.server import Sandbox
from tests.builders import NOW_MS

_SCRUBBED_PREFIXES = ("AIRFLOW_", "AWS_", "WXCC_")
_SCRUBBED_NAMES = frozenset(
    {"all_proxy", "http_proxy", "https_proxy", "no_proxy", "ftp_proxy", "netrc", "xdg_config_home",
     "boto_config", "requests_ca_bundle", "curl_ca_bundle", "ssl_cert_file", "ssl_cert_dir"}
)  # fmt: skip


def _scrub_environment() -> None:
    """Credentials, proxies and settings of whoever runs the tests must not decide their outcome."""
    for name in list(os.environ):
        if name.startswith(_SCRUBBED_PREFIXES) or name.lower() in _SCRUBBED_NAMES:
            del os.environ[name]
    home = tempfile.mkdtemp(prefix="wxcc-tests-home-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["HOME"] = home


# At import: the conftests of the folders below may set what they need afterwards.
_scrub_environment()

# Two cores that others use too: a slow example is no failure.
settings.register_profile("archive", deadline=None)
settings.load_profile("archive")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Block sockets, except the local ones that asyncio wakes itself with."""
    fixtures = getattr(item, "fixturenames", ())
    if "socket_enabled" not in fixtures and not item.get_closest_marker("enable_socket"):
        disable_socket(allow_unix_socket=True)


@pytest.fixture
def start_sandbox(socket_enabled: None) -> Iterator[Callable[..., Sandbox]]:
    """Starts sandboxes at a fixed instant and without a rate limit, unless told otherwise."""
    with ExitStack() as stack:

        def start(**knobs: Any) -> Sandbox:
            scenario = Scenario(**dict[str, Any](now_ms=NOW_MS, requests_per_minute=0) | knobs)
            return stack.enter_context(Sandbox(scenario))

        yield start
