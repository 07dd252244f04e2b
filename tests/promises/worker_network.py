"""Faults between a worker and its servers: nothing is lost, and work goes on."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from beatd.brokers.redis.requests import script
from tests.promises.harness import moments
from tests.promises.workers import Shop, shop
from tests.proxy import Fault, Proxy
from tests.servers import PATIENCE, Server, eventually


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def behind_proxy(tmp_path: Path, server: Server, proxy: Proxy) -> Iterator[Shop]:
    """A shop whose workers reach the broker through the proxy."""
    broker, results = server.url(0), server.url(1)
    with shop(tmp_path, broker, results, through=proxy.url()) as made:
        yield made


def begin_late(shop: Shop, names: list[str], sent: float) -> dict[str, float]:
    """Return how long after `sent` those began that took longer than ten seconds."""
    first = {name: shop.runs()[name][0].begin - sent for name in names}
    return {name: seconds for name, seconds in first.items() if seconds > 10}


def test_a_message_whose_delivery_was_lost_on_its_way_runs_once(
    behind_proxy: Shop, proxy: Proxy
) -> None:
    shop = behind_proxy
    worker = shop.worker("-c", "1")
    names = [f"{number}" for number in range(5)]
    _, taken = script("take")

    for name in names:
        proxy.arm(Fault.LOSE_REPLY, taken.encode())
        sent = time.monotonic()
        shop.send([name])
        shop.until_ended([name])
        assert not proxy.armed
        assert begin_late(shop, [name], sent) == {}

    assert worker.said("the broker is away") >= 1
    shop.check()


@pytest.mark.promise
@pytest.mark.parametrize("delay", [0, 2, 4])
def test_work_goes_on_when_connections_die_without_a_word(
    behind_proxy: Shop, proxy: Proxy, delay: float
) -> None:
    shop = behind_proxy
    shop.worker("-c", "2")
    shop.worker("-c", "2")
    shop.send(["before"], 1)

    # Each has some that wait and some that work. A worker may replace a dead one
    # without having to say so.
    assert proxy.swallow() >= 4
    names = [f"{number}" for number in range(6)]
    for _ in moments(seed=0, number=1, shortest=delay, longest=delay):
        sent = time.monotonic()
        shop.send(names)
    shop.until_ended(["before", *names])

    assert begin_late(shop, names, sent) == {}
    shop.check()


@pytest.mark.promise
def test_a_task_four_times_as_long_as_the_lease_runs_once(
    tmp_path: Path, server: Server
) -> None:
    with shop(tmp_path, server.url(0), server.url(1)) as made:
        made.worker("-c", "1")
        made.worker("-c", "1")
        made.send(["long"], 24)

        made.until_ended(["long"], patience=24 + PATIENCE)
        made.send(["after"])
        made.until_ended(["after"])

        made.check()
        assert len(made.runs()["long"]) == 1


@pytest.mark.promise
@pytest.mark.parametrize("fault", ["frozen", "killed"])
def test_results_are_there_soon_after_their_backend_is_back(
    tmp_path: Path, server: Server, fault: str
) -> None:
    with Server() as results, shop(tmp_path, server.url(), results.url()) as made:
        made.worker("-c", "2")
        made.send(["before"])
        made.until_ended(["before"])
        leave, come_back = {
            "frozen": (results.freeze, results.thaw),
            "killed": (results.kill, results.start),
        }[fault]
        names = [f"{number}" for number in range(30)]

        leave()
        made.send(names, 0.1)
        for _ in moments(seed=0, number=1, shortest=6, longest=6):
            come_back()
        back = time.monotonic()

        def stored() -> bool:
            with results.client() as client:
                keys = [f"celery-task-meta-{name}" for name in names]
                metas = [json.loads(raw or b"{}") for raw in client.mget(keys)]
            return all(meta.get("status") == "SUCCESS" for meta in metas)

        eventually(stored, "all results", patience=15)
        assert time.monotonic() - back < 10
        made.check()
