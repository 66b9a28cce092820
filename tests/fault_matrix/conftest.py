import logging
from collections.abc import Iterator

import pytest
import pytest_socket

from tests.fault_matrix.matrix import Matrix, matrix


@pytest.fixture(scope="session")
def running() -> Iterator[Matrix]:
    """The contact centres and the store, once for all cases."""
    pytest_socket.enable_socket()
    with matrix() as started:
        yield started


@pytest.fixture(autouse=True)
def _local_sockets(socket_enabled: None, caplog: pytest.LogCaptureFixture) -> None:
    """These tests talk to servers on this machine, and their log would be a thousand failures on purpose."""
    caplog.set_level(logging.CRITICAL)
