"""Jobs that a pool was given and did not get to."""

from collections.abc import Sequence
from threading import Event, Thread
from typing import Any

import pytest

from beatd.app import Beatd
from beatd.brokers.items import Act, Answer, Begin
from beatd.brokers.memory import MemoryBroker
from beatd.instant import SECOND
from beatd.pools.base import Finished, Returned, Started
from beatd.runs.report import Report, pack_report
from beatd.tasks import Task
from beatd.worker.inbox import Stop, WorkerEvent
from tests.fakes import NOON
from tests.servers import PATIENCE
from tests.worker.bench import Bench, HeldPool, SharingPool, with_held_pool
from tests.worker.test_steering import command

DONE = pack_report(Report(state="SUCCESS"))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def task_of(app: Beatd, **options: object) -> Task[[int], None]:
    @app.task(name="proj.note", **options)
    def note(number: int) -> None: ...

    return note


def called(bench: Bench, pool: HeldPool, number: int, **options: object) -> list[str]:
    """Have so many calls reach the pool; give their tokens."""
    note = task_of(bench.app, **options)
    for index in range(number):
        note.delay(index)
    bench.run()
    assert len(pool.jobs) == number
    return [job.token for job in pool.jobs]


def give_back(bench: Bench, tokens: list[str]) -> None:
    bench.inbox.put(Returned(tokens))
    bench.run()


def test_a_pool_is_given_as_many_as_it_wants(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)
    pool.demand = 3
    note = task_of(bench.app)
    for index in range(4):
        note.delay(index)
    bench.run()

    assert len(pool.jobs) == 3


def test_what_is_returned_runs_before_all_others_in_its_order(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)
    pool.demand = 3
    first, *others = called(bench, pool, 3)
    bench.inbox.put(Started(first, 1))
    task_of(bench.app).delay(3)
    pool.demand = 1
    give_back(bench, others)
    assert len(pool.jobs) == 3

    pool.demand = 4
    bench.inbox.put(Finished(first, DONE))
    bench.run()

    again = [job.token for job in pool.jobs[3:]]
    assert again[:2] == others
    assert len(again) == 3


def test_what_expires_before_it_is_returned_is_not_run(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)
    result = task_of(bench.app).apply_async((1,), expires=5)
    bench.run()
    bench.clock.go_to(NOON + 6 * SECOND)

    give_back(bench, [pool.jobs[0].token])

    assert len(pool.jobs) == 1
    assert result.state == "REVOKED"


def test_a_rate_limit_does_not_count_twice_what_is_returned(bench: Bench) -> None:
    pool = with_held_pool(bench, size=2)
    tokens = called(bench, pool, 1, rate_limit="1/h")

    give_back(bench, tokens)

    assert [job.token for job in pool.jobs] == tokens * 2


def test_what_is_revoked_before_it_begins_is_called_back(bench: Bench) -> None:
    pool = with_held_pool(bench, size=2)
    result = task_of(bench.app).delay(1)
    bench.run()

    command(bench, "revoke", task_id=result.id)
    assert pool.recalled
    give_back(bench, [pool.jobs[0].token])

    assert len(pool.jobs) == 1
    assert result.state == "REVOKED"


def test_a_run_that_has_begun_is_not_called_back(bench: Bench) -> None:
    pool = with_held_pool(bench, size=2)
    result = task_of(bench.app).delay(1)
    bench.run()
    bench.inbox.put(Started(pool.jobs[0].token, 1))
    bench.run()

    command(bench, "revoke", task_id=result.id)

    assert not pool.recalled


def tell(bench: Bench, *events: WorkerEvent) -> None:
    """Have the worker handle these, and settle what follows; it takes no more."""
    for event in events:
        bench.inbox.put(event)
        bench.handle()
    bench.settle()


def test_a_warm_stop_leaves_to_others_what_has_not_begun(bench: Bench) -> None:
    pool = with_held_pool(bench, size=2)
    begun, unbegun = called(bench, pool, 2)
    bench.inbox.put(Started(begun, 1))
    tell(bench, Stop.WARM)
    assert pool.recalled

    tell(bench, Returned([unbegun]), Finished(begun, DONE))

    assert len(pool.jobs) == 2
    assert bench.worker.held == 0
    assert bench.left() == 1


def test_nobody_else_runs_what_was_acknowledged_so_a_stop_waits_for_it(
    bench: Bench,
) -> None:
    pool = with_held_pool(bench, size=2)
    begun, unbegun = called(bench, pool, 2, acks_late=False)
    bench.inbox.put(Started(begun, 1))
    give_back(bench, [unbegun])
    pool.demand = 1
    give_back(bench, [unbegun])
    tell(bench, Stop.WARM, Finished(begun, DONE))

    assert [job.token for job in pool.jobs] == [begun, unbegun, unbegun, unbegun]
    assert bench.worker.held == 1
    tell(bench, Finished(unbegun, DONE))
    assert bench.worker.held == 0


def test_a_cold_stop_tells_the_end_of_what_was_acknowledged(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)
    result = task_of(bench.app, acks_late=False).delay(1)
    bench.run()
    (job,) = pool.jobs
    pool.demand = 0
    give_back(bench, [job.token])
    tell(bench, Stop.COLD)

    assert result.state == "FAILURE"


def test_a_cold_stop_tells_the_end_of_what_is_being_acknowledged(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)
    result = task_of(bench.app, acks_late=False).delay(1)
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()
    tell(bench, Stop.COLD)
    bench.handle()
    bench.settle()

    assert pool.jobs == []
    assert bench.worker.held == 0
    assert result.state == "FAILURE"
    assert bench.left() == 0


def test_a_cold_stop_does_not_end_what_goes_back_to_its_queue_meanwhile(
    bench: Bench,
) -> None:
    pool = with_held_pool(bench, size=1)
    result = task_of(bench.app, acks_late=False).delay(1)
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()
    bench.broker.leave("here-1")  # as others end a lease that has run out
    tell(bench, Stop.COLD)
    bench.handle()
    bench.settle()

    assert pool.jobs == []
    assert bench.worker.held == 0
    assert result.state == "PENDING"
    assert bench.left() == 1


class Slow(MemoryBroker):
    """A broker that acknowledges what is to begin only when the pool is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.killed = Event(), Event()

    def settle(self, worker: str, acts: Sequence[Act], *more: Any) -> list[Answer]:
        if any(isinstance(act, Begin) for act in acts):
            self.asked.set()
            assert self.killed.wait(PATIENCE)
        return super().settle(worker, acts, *more)


def test_a_cold_stop_waits_for_the_answer_that_tells_whose_the_run_is() -> None:
    broker = Slow()
    bench = Bench(broker=broker)
    pool = with_held_pool(bench, size=1)
    pool.kill = broker.killed.set  # type: ignore[method-assign]
    result = task_of(bench.app, acks_late=False).delay(1)
    worker = Thread(target=bench.worker.run)
    worker.start()
    assert broker.asked.wait(PATIENCE)
    bench.inbox.put(Stop.COLD)
    worker.join(PATIENCE)

    assert not worker.is_alive()
    assert pool.jobs == []
    assert result.state == "FAILURE"


def test_what_comes_back_after_a_cold_stop_is_told_too(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)
    result = task_of(bench.app, acks_late=False).delay(1)
    bench.run()
    tell(bench, Stop.COLD, Returned([pool.jobs[0].token]))

    assert len(pool.jobs) == 1
    assert result.state == "FAILURE"


def test_the_run_of_an_entry_that_never_begins_is_over(bench: Bench) -> None:
    """Also when it was acknowledged before: its lease holds it until then."""
    pool = with_held_pool(bench, size=1)
    task_of(bench.app, acks_late=False)
    sent = bench.app.send_task(
        "proj.note", [1], headers={"beatd_entry": "each"}, expires=5
    )
    bench.remember_run("each", sent.id)
    bench.run()
    assert bench.broker.held_runs([sent.id]) == {sent.id}
    bench.clock.go_to(NOON + 6 * SECOND)
    give_back(bench, [pool.jobs[0].token])

    assert sent.state == "REVOKED"
    assert bench.broker.running(["each"]) == {}


def test_stamps_are_asked_again_of_what_has_not_begun(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)
    called(bench, pool, 1)
    command(bench, "revoke_by_stamped_headers", headers={"batch": ["7"]})

    assert pool.recalled


def test_where_no_run_can_be_ended_it_is_still_revoked() -> None:
    pool = SharingPool()
    bench = Bench(pool=pool)
    task_of(bench.app)
    running = bench.app.send_task("proj.note", [1])
    bench.run()
    bench.inbox.put(Started(pool.jobs[0].token, 1))
    bench.run()
    answer = command(bench, "revoke", task_id=[running.id, "elsewhere"], terminate=True)

    assert "cannot end a run" in answer["error"]
    assert bench.results.metas["elsewhere"].status == "REVOKED"
