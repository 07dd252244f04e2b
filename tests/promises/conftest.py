"""Scenes for the promises: a queue, a config, schedulers to hurt."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.promises.harness import RedisQueue, Scene, SQLiteQueue
from tests.servers import Server


@pytest.fixture
def on_redis(server: Server, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path, RedisQueue(server), server.url())
    yield scene
    scene.close()


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path, SQLiteQueue(tmp_path / "broker.db"), broker=None)
    yield scene
    scene.close()


@pytest.fixture(params=["redis", "sqlite"])
def scene(request: pytest.FixtureRequest) -> Scene:
    """The same promise on both."""
    scene: Scene = request.getfixturevalue(f"on_{request.param}")
    return scene
