"""Fixtures that several parts of the suite share."""

from collections.abc import Iterator

import pytest

from tests.servers import Server, emptied


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def server(_server: Server) -> Iterator[Server]:
    """A real Valkey server, empty; do not stop it, others use it after you."""
    with emptied(_server) as server:
        yield server
