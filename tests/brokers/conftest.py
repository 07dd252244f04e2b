"""One contract, all brokers: `broker` and `other` look at the same data."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from beatd.brokers.base import Broker
from tests.brokers.backends import Backend, Memory, Redis, SQLite


@pytest.fixture(params=["memory", "sqlite", "redis"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made: Backend
    match request.param:
        case "memory":
            made = Memory()
        case "sqlite":
            made = SQLite(tmp_path)
        case "redis":
            made = Redis(request.getfixturevalue("server"))
    yield made
    made.close()


@pytest.fixture
def broker(backend: Backend) -> Broker:
    return backend.connect()


@pytest.fixture
def other(backend: Backend) -> Broker:
    """Another process's broker object."""
    return backend.connect()
