"""Several broker addresses: a worker and its clients go on at the next one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from tests.promises.harness import Beatd, Scene
from tests.promises.workers import Shop, shop
from tests.servers import Server, eventually


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    with Server() as first, Server() as second:
        yield first, second


@pytest.fixture
def failing_over(
    tmp_path: Path, server: Server, pair: tuple[Server, Server]
) -> Iterator[Shop]:
    """A shop whose broker has two addresses; results are kept by a third server."""
    urls = ";".join(one.url() for one in pair)
    with shop(tmp_path, urls, server.url(1)) as made:
        yield made


def moves(worker: Beatd, to: Server) -> int:
    return worker.said(f"going on at {to.url()}: ")


def test_work_goes_on_at_the_next_address_and_is_said_to_once(
    failing_over: Shop, pair: tuple[Server, Server]
) -> None:
    shop, (first, second) = failing_over, pair
    worker = shop.worker("-c", "2")
    shop.send(["before"])
    shop.until_ended(["before"])
    shop.send(["meanwhile"], seconds=2)
    shop.until_running(worker)

    first.kill()
    shop.send(["1", "2", "3"])
    shop.until_ended(["meanwhile", "1", "2", "3"])
    ended = {name: len(runs) for name, runs in shop.runs().items()}
    moved = moves(worker, second)
    heard = replies(second)

    first.start()
    second.kill()
    shop.send(["4"])
    shop.until_ended(["4"])

    assert ended == {"before": 1, "meanwhile": 1, "1": 1, "2": 1, "3": 1}
    assert moved == 1
    assert heard
    assert (moves(worker, first), moves(worker, second)) == (1, 1)


def test_a_worker_starts_while_the_first_address_is_away(
    failing_over: Shop, pair: tuple[Server, Server]
) -> None:
    shop, (first, second) = failing_over, pair
    first.kill()

    worker = shop.worker("-c", "1")
    shop.send(["1"])
    shop.until_ended(["1"])

    assert moves(worker, second) == 1


def test_the_scheduler_stays_with_the_first_address(
    tmp_path: Path, pair: tuple[Server, Server]
) -> None:
    first, second = pair
    urls = ";".join(one.url() for one in pair)
    scene = Scene(tmp_path, NoQueue(), urls)
    scheduler = scene.beatd().start()
    scheduler.until("queued")

    first.kill()
    scheduler.until("stopped emitting")
    first.start()
    scheduler.until(": stopped emitting")
    scene.close()

    with second.client() as client:
        assert client.keys() == []
    said = f"the scheduler uses only {first.url()}, the first of 2 broker addresses"
    assert scheduler.said(said) == 1


class NoQueue:
    """The scene's own reader is of no use here: the first server loses its data."""

    def messages(self) -> list[bytes]:
        return []


def replies(server: Server) -> list[object]:
    """Wait until workers hear Celery's remote control at this server."""
    with Celery(broker=server.url(), set_as_current=False) as app:
        found: list[object] = eventually(lambda: app.control.ping(timeout=1))
        app.pool.force_close_all()
    return found
