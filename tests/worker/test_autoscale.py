"""The size of a pool follows the load: up at once, down after a while."""

import pytest

from beatd.instant import SECOND
from beatd.pools.base import Finished
from beatd.runs.report import Report, pack_report
from beatd.worker.autoscale import KEEPALIVE, Autoscale, bounds_of
from beatd.worker.inbox import Stop, TimePassed
from tests.worker.bench import Bench, HeldPool, with_held_pool


@pytest.fixture
def scale() -> Autoscale:
    return Autoscale(most=10, least=2)


@pytest.mark.parametrize(
    ("load", "size"),
    [(0, 2), (3, 3), (10, 10), (500, 10)],
    ids=["least", "load", "most", "above"],
)
def test_it_grows_at_once_to_the_load_within_its_bounds(
    scale: Autoscale, load: int, size: int
) -> None:
    assert scale.size(0, load) == size


def test_it_shrinks_to_the_least_when_there_was_nothing_to_do_for_the_whole_time(
    scale: Autoscale,
) -> None:
    scale.size(0, 10)

    assert scale.size(1, 0) == 10
    assert scale.size(KEEPALIVE - 1, 0) == 10
    assert scale.size(KEEPALIVE, 0) == 2


def test_it_shrinks_no_further_than_to_what_was_needed_in_that_time(
    scale: Autoscale,
) -> None:
    scale.size(0, 10)
    scale.size(10 * SECOND, 3)
    scale.size(20 * SECOND, 6)
    scale.size(25 * SECOND, 4)

    assert scale.size(30 * SECOND, 0) == 6
    assert scale.size(50 * SECOND, 0) == 4
    assert scale.size(55 * SECOND, 0) == 2


def test_a_load_that_comes_back_begins_the_time_anew(scale: Autoscale) -> None:
    scale.size(0, 10)
    scale.size(20 * SECOND, 10)

    assert scale.size(49 * SECOND, 0) == 10
    assert scale.size(50 * SECOND, 0) == 2


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("10,3", (10, 3)),
        ("3,10", (10, 3)),
        ("4", (4, 1)),
        ("4,0", (4, 1)),
        (" 8 , 2 ", (8, 2)),
    ],
)
def test_both_bounds_are_read_in_any_order(text: str, bounds: tuple[int, int]) -> None:
    assert bounds_of(text) == bounds


@pytest.mark.parametrize("text", ["", "a,b", "1,2,3", "0", "0,0", "5,-1", "2.5"])
def test_what_is_no_pair_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        bounds_of(text)


# In the worker


@pytest.fixture
def bench() -> Bench:
    bench = Bench()

    @bench.app.task(name="proj.wait")
    def wait() -> None: ...

    bench.worker.sizing.autoscale = Autoscale(most=3, least=1)
    return bench


def fetch(bench: Bench, number: int) -> None:
    for _ in range(number):
        bench.app.send_task("proj.wait")
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()


def end_all(bench: Bench, pool: HeldPool) -> None:
    for job in pool.jobs:
        bench.worker.handle(Finished(job.token, pack_report(Report())))
    pool.jobs.clear()


def test_a_worker_lets_its_pool_grow_with_what_it_holds(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)

    fetch(bench, 4)

    assert pool.size == 3
    assert len(pool.jobs) == 3


def test_an_idle_worker_lets_its_pool_shrink_though_nothing_comes(
    bench: Bench,
) -> None:
    pool = with_held_pool(bench, size=1)
    fetch(bench, 3)
    end_all(bench, pool)

    bench.clock.go_to(bench.clock.now() + KEEPALIVE)
    bench.worker.handle(TimePassed())

    assert pool.size == 1


def test_a_worker_that_stops_leaves_its_pool_as_it_is(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)
    bench.worker.handle(Stop.WARM)

    fetch(bench, 4)

    assert pool.size == 1


def test_a_worker_that_may_grow_takes_enough_to_see_the_load() -> None:
    bench = Bench(worker_prefetch_multiplier=2)
    bench.worker.sizing.autoscale = Autoscale(most=5, least=1)

    assert bench.worker.sizing.capacity == 10


def test_a_worker_that_is_resized_holds_accordingly_many() -> None:
    bench = Bench(worker_prefetch_multiplier=2)
    with_held_pool(bench, size=1)

    bench.worker.sizing.resize(5)
    assert bench.worker.window.free() == 10

    bench.worker.sizing.resize(2)
    assert bench.worker.window.free() == 4
