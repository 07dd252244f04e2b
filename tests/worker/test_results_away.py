"""A result back end that is away: the pool goes on, nothing is lost or run twice."""

import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from beatd.brokers.items import Acknowledge, Delivery
from beatd.errors import ResultUnavailable
from beatd.instant import MINUTE
from beatd.message import Chord
from beatd.pools.base import Started, TimedOut
from beatd.results import encoding_of
from beatd.results.base import State, Stored
from beatd.results.chords import Joined, Part
from beatd.tasks import Task
from beatd.worker.settlement import Settlement
from beatd.worker.unkept import MOST_BYTES, MOST_RUNS, Unkept
from tests.fakes import NOON
from tests.servers import PATIENCE, Server, eventually
from tests.worker.bench import Bench, FakeResults, HeldPool, with_held_pool
from tests.worker.project import Project


class Faltering(FakeResults):
    """Results of which each third request about chords is not answered."""

    requests = 0

    def join_chords(self, parts: Sequence[Part]) -> list[Joined]:
        self.requests += 1
        if self.requests % 3 == 0:
            raise ResultUnavailable("nobody answers")
        return super().join_chords(parts)


def bench_with(**options: Any) -> Bench:
    return Bench(**{"worker_prefetch_multiplier": 4, **options})


def counting(bench: Bench, **options: Any) -> tuple[list[int], Task[..., Any]]:
    """Return a task, and the list in which each run of it leaves its argument."""
    runs: list[int] = []

    @bench.app.task(**options)
    def count(number: int, size: int = 0) -> str:
        runs.append(number)
        return "x" * size

    return runs, count


def run_while_away(bench: Bench) -> None:
    """Let the worker do all that it can do without its results."""
    worker, before = bench.worker, -1
    worker.intake.lease.turn()
    while before != (before := worker.workload.total.total()):
        settling = worker.settler.settling
        while worker.intake.fetcher.turn() | bench.handle() | settling.turn():
            pass
        with pytest.raises(ResultUnavailable):
            worker.settler.keeping.turn()


def end_runs(bench: Bench, pool: HeldPool) -> None:
    """Let the worker take what it can, and the pool's runs end."""
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()
    for job in pool.jobs:
        bench.inbox.put(TimedOut(job.token, 1))
    pool.jobs.clear()
    bench.handle()
    with suppress(ResultUnavailable):
        bench.worker.settler.keeping.turn()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__.get("event", "") for record in caplog.records]


def places(bench: Bench) -> int:
    return bench.worker.window.free()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"task_acks_late": False},
        {"worker_disable_prefetch": True},
        {"worker_prefetch_multiplier": 1},
        {"task_track_started": True},
    ],
    ids=str,
)
def test_the_pool_goes_on_without_its_result_back_end(how: dict[str, Any]) -> None:
    bench = bench_with(**how)
    runs, count = counting(bench)
    results = [count.delay(number) for number in range(50)]
    bench.results.away = True

    run_while_away(bench)

    assert runs == list(range(50))
    assert places(bench) == bench.worker.sizing.capacity
    bench.results.away = False
    bench.run()
    assert runs == list(range(50))
    assert bench.results.states.count("SUCCESS") == 50
    assert all(result.get(timeout=0) == "" for result in results)
    assert places(bench) == bench.worker.sizing.capacity
    assert bench.left() == 0


def test_what_is_not_kept_yet_stays_in_flight() -> None:
    bench = bench_with()
    runs, count = counting(bench)
    for number in range(50):
        count.delay(number)
    bench.results.away = True
    run_while_away(bench)
    bench.worker.intake.lease.turn()  # the worker says what it holds: all of it
    assert len(runs) == 50

    assert bench.left() == 50


def test_no_place_is_made_free_twice_when_the_back_end_fails_in_a_batch() -> None:
    results = Faltering(encoding_of(Bench().settings))
    bench = bench_with(results=results)
    runs, count = counting(bench)
    bodies: list[int] = []

    @bench.app.task
    def body(found: list[str]) -> None:
        bodies.append(len(found))

    worker, is_busy = bench.worker, True
    results.begin_chords([Chord("g", 50)])
    for number in range(50):
        member: dict[str, Any] = {
            "group_id": "g",
            "group_index": number,
            "chord": body.s(),
        }
        count.apply_async((number,), **member)
    worker.intake.lease.turn()
    while is_busy:
        is_busy = worker.intake.fetcher.turn() | bench.handle()
        try:
            is_busy |= worker.settler.keeping.turn()
        except ResultUnavailable:
            is_busy = True
        is_busy |= worker.settler.settling.turn() | bench.handle()
        assert places(bench) <= worker.sizing.capacity

    assert runs == list(range(50))
    assert bodies == [50]
    assert places(bench) == worker.sizing.capacity
    assert bench.left() == 0


def test_a_pool_that_is_resized_meanwhile_keeps_its_window() -> None:
    bench = bench_with()
    pool = with_held_pool(bench, size=1)
    _, count = counting(bench)
    for number in range(20):
        count.delay(number)
    bench.results.away = True

    for size in (3, 2, 1):
        bench.worker.sizing.resize(size)
        end_runs(bench, pool)
        in_place = len(bench.worker.backlog) + len(bench.worker.workload)
        assert places(bench) == bench.worker.sizing.capacity - in_place

    bench.results.away = False
    while bench.worker.held:
        end_runs(bench, pool)
        bench.run()
    assert places(bench) == bench.worker.sizing.capacity
    assert bench.results.states == ["FAILURE"] * 20


def test_a_run_that_goes_on_has_its_place_while_its_state_is_not_kept() -> None:
    bench = bench_with(task_track_started=True)
    pool = with_held_pool(bench, size=1)
    _, count = counting(bench)
    count.delay(0)
    bench.results.away = True
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()
    bench.inbox.put(Started(pool.jobs[0].token, 1))
    bench.handle()

    with pytest.raises(ResultUnavailable):
        bench.worker.settler.keeping.turn()

    assert places(bench) == bench.worker.sizing.capacity - 1


def test_a_suspect_that_was_survived_keeps_the_worker_from_nothing_else() -> None:
    bench = bench_with()
    runs, count = counting(bench)
    count.delay(0)
    bench.broker.join("another", MINUTE)
    assert bench.broker.take("another", ["celery"], 1, 1)
    bench.clock.go_to(NOON + 2 * MINUTE)
    bench.broker.recover()  # the other one has died with it
    for number in range(1, 10):
        count.delay(number)
    bench.results.away = True

    run_while_away(bench)

    assert runs == list(range(10))


# The bounds


def ended(number: int, result: bytes = b"") -> Settlement:
    delivery = Delivery(str(number), "celery", b"", 1)
    stored = Stored(str(number), State.SUCCESS, result)
    return Settlement(delivery.token, Acknowledge(delivery), stored)


def test_only_so_many_runs_wait_without_a_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    freed: list[str] = []
    waiting = Unkept(freed.extend)

    waiting.add([ended(number) for number in range(MOST_RUNS)])
    assert events(caplog) == []
    for number in range(MOST_RUNS, MOST_RUNS + 5):
        waiting.add([ended(number)])
    assert len(freed) == MOST_RUNS
    assert events(caplog) == ["results.full"]
    assert "10000 runs (0.0 MiB) wait for the result back end" in caplog.text

    assert waiting.settled(["0", "1", str(MOST_RUNS)]) == 2
    waiting.add([ended(MOST_RUNS + number) for number in range(1, 5)])
    assert freed[MOST_RUNS:] == [str(MOST_RUNS + 1), str(MOST_RUNS + 2)]
    assert events(caplog) == ["results.full"]


def test_only_so_many_bytes_wait_without_a_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    freed: list[str] = []
    waiting, large = Unkept(freed.extend), bytes(MOST_BYTES // 4)

    waiting.add([ended(number, large) for number in range(6)])
    assert freed == ["0", "1", "2", "3"]
    assert events(caplog) == ["results.full"]

    assert waiting.settled(freed) == 4
    waiting.add([ended(4, large)])
    assert freed[4:] == ["4"]
    assert waiting.settled(["5"]) == 0


def test_a_window_whose_results_find_no_room_stops_the_worker() -> None:
    bench = bench_with(worker_prefetch_multiplier=1)
    runs, count = counting(bench)
    for number in range(9):
        count.delay(number, MOST_BYTES // 3)
    bench.results.away = True
    run_while_away(bench)
    assert runs == [0, 1, 2]  # what the third ended with found no room any more
    assert places(bench) == 0

    bench.results.away = False
    bench.run()
    assert runs == list(range(9))
    assert places(bench) == bench.worker.sizing.capacity


# A server


@pytest.mark.parametrize("early", [False, True])
def test_all_tasks_run_while_the_server_of_the_results_is_away(
    server: Server, tmp_path: Path, early: bool
) -> None:
    with Server(save='""', dir=tmp_path) as results:
        project = Project(tmp_path, server.url(), results.url())
        project.configure(worker_prefetch_multiplier=1, task_acks_late=not early)
        with project.worker("-c", "2") as worker:
            first = project.app.send_task("proj.mark", ["first"])
            assert first.get(timeout=PATIENCE) == "first"
            results.kill()
            calls = [
                project.app.send_task("proj.mark", [f"run-{number}"])
                for number in range(60)
            ]
            eventually(lambda: project.runs("run-59"), "the last run")
            worker.await_line("the result backend is away")

            results.start()

            for number, call in enumerate(calls):
                assert call.get(timeout=PATIENCE) == f"run-{number}"
            worker.await_line("over after")
        assert [project.runs(f"run-{number}") for number in range(60)] == [1] * 60
        assert "could not be settled" not in worker.log.read_text()


def test_a_worker_that_stops_meanwhile_gives_back_what_it_has_run_and_says_so(
    server: Server, tmp_path: Path
) -> None:
    with Server(save='""', dir=tmp_path) as results:
        project = Project(tmp_path, server.url(), results.url())
        with project.worker("-c", "2") as worker:
            results.kill()
            call = project.app.send_task("proj.mark", ["run"])
            worker.await_line("the result backend is away")
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
            worker.await_line("could not be settled is delivered again now")
        results.start()
        with project.worker("-c", "2"):
            assert call.get(timeout=PATIENCE) == "run"
        assert project.runs("run") == 2
