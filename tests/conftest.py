"""Fixtures that several parts of the suite share."""

import compileall
import gc
import logging
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.processes import ROOT
from tests.rabbitmq import MISSING, Rabbit, VHost
from tests.servers import Server, emptied

# A busy machine is no bug: examples have no time limit of their own.
settings.register_profile("beatd", deadline=None)
settings.load_profile("beatd")

# A shell's background job ignores interrupts, and so would all programs it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Compile beatd once: the tests start it some hundred times, as it is installed.

    Where PYTHONDONTWRITEBYTECODE is set, each start would compile all of it again.
    """
    is_worker = hasattr(config, "workerinput")  # of xdist
    if not is_worker:
        compileall.compile_dir(ROOT / "beatd", quiet=2)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the groups of pytest-xdist hold: what is made once for many tests is so.

    Version 3.8 writes a test's group into a field that pytest 9.2 does not read.
    """
    for item in items:
        with_group = vars(item).get("_nodeid", item.nodeid)
        if with_group != item.nodeid:
            item._id = type(item._id).parse(with_group)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what collecting gives: compiled tests on disk, the rest out of sight.

    The garbage collector looks for circles the later the more it sees, and that would
    be a million objects: what tests have left would lie in memory by the hundred
    megabytes, and each fork would have to copy the map of it.
    """
    usual, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    gc.disable()
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = usual
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _same_logging() -> Iterator[None]:
    """Restore the logging of this process after a command that ran in it."""
    root, ours = logging.getLogger(), logging.getLogger("beatd")
    level, handlers, our_level = root.level, root.handlers[:], ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    assert ours.level == our_level, "the test left another level behind"
    logging.captureWarnings(False)


@pytest.fixture
def forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no module and no folder of a test be found by the next one."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name, module in [*sys.modules.items()]:
        if str(tmp_path) in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture(scope="session")
def _rabbit() -> Iterator[Rabbit]:
    if MISSING:
        give_up = pytest.fail if os.environ.get("NEEDS_RABBITMQ") else pytest.skip
        give_up(f"{MISSING}: apt-get install rabbitmq-server")
    with Rabbit() as rabbit:
        yield rabbit


@pytest.fixture
def vhost(_rabbit: Rabbit) -> Iterator[VHost]:
    """An empty virtual host of a real RabbitMQ.

    Tests that use it are of the group `rabbitmq`: one node serves them all.
    """
    vhost = VHost(_rabbit)
    yield vhost
    _rabbit.drop_vhost(vhost.name)


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def server(_server: Server) -> Iterator[Server]:
    """A real Valkey server, empty; do not stop it: other tests use it, too."""
    with emptied(_server) as server:
        config = server.config()
        yield server
        assert server.config() == config, "the test left another configuration behind"
