"""`kill -9` of a worker, of a child, of the main process alone: no task is lost."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.promises.harness import Beatd, moments
from tests.promises.workers import Shop, descendants, kill_family, shop
from tests.servers import Server, eventually

TIMES = 5
SECONDS = 0.4


@pytest.fixture(params=["redis", "sqlite"])
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    broker, backend = f"sqlite:///{tmp_path}/b.db", f"sqlite:///{tmp_path}/r.db"
    if request.param == "redis":
        server: Server = request.getfixturevalue("server")
        broker, backend = server.url(0), server.url(1)
    with shop(tmp_path, broker, backend) as made:
        yield made


def kill_a_child(shop: Shop, worker: Beatd) -> None:
    """Kill one whose task has died once at most: with its third death it is over."""

    def unlucky() -> list[int]:
        running = shop.until_running(worker)
        ends = [runs[-1] for runs in shop.runs().values() if len(runs) < 3]
        return [run.pid for run in ends if not run.end and run.pid in running]

    os.kill(eventually(unlucky, "another task to begin")[0], signal.SIGKILL)


def kill_main(shop: Shop, worker: Beatd) -> None:
    """Its children are killed with it, by the process that forked them."""
    family = descendants(worker.pid)
    worker.kill()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))


def kill_all(shop: Shop, worker: Beatd) -> None:
    kill_family(worker)


def survives(shop: Shop, kill: Callable[[Shop, Beatd], None], times: int) -> None:
    """Kill a worker that is busy, again and again; another one runs beside it."""
    victim, _ = shop.worker("-c", "2"), shop.worker("-c", "2")
    names: list[str] = []
    deaths = []
    for number, _ in enumerate(moments(4711, times, shortest=0.0, longest=0.4)):
        more = [f"{number}-{index}" for index in range(12)]
        shop.send(more, SECONDS)
        names += more
        shop.until_running(victim, 2)
        kill(shop, victim)
        deaths.append(time.monotonic())  # not before: a run may begin meanwhile
        if victim.process is None or victim.process.poll() is not None:
            victim = shop.worker("-c", "2")
    shop.until_ended(names)
    shop.check(deaths)


@pytest.mark.promise
@pytest.mark.parametrize("kill", [kill_main, kill_all])
def test_the_tasks_of_a_killed_worker_run_again_within_ten_seconds(
    on: Shop, kill: Callable[[Shop, Beatd], None]
) -> None:
    survives(on, kill, TIMES)


@pytest.mark.promise
def test_a_killed_child_costs_its_own_task_a_second_run(on: Shop) -> None:
    survives(on, kill_a_child, TIMES)


def test_a_warm_stop_of_the_whole_group_lets_running_tasks_end(on: Shop) -> None:
    worker = on.worker("-c", "2")
    on.send(["one", "two", "three"], until="go")
    on.until_running(worker, 2)

    os.killpg(worker.pid, signal.SIGTERM)
    worker.until("stopping, warm")
    on.release("go")

    assert worker.wait() == 0
    begun = on.runs()
    assert [len(runs) for runs in begun.values()] == [1, 1]
    assert all(run.end for runs in begun.values() for run in runs)
    on.worker("-c", "2")
    on.until_ended(["one", "two", "three"])
    on.check()
