"""What follows from a run may be refused: that run fails, and all others go on."""

from collections.abc import Callable
from typing import Any

import pytest

from beatd.brokers.memory import MemoryBroker
from beatd.brokers.redis import RedisBroker
from beatd.message import Chord
from beatd.results.base import State
from tests.servers import Server
from tests.worker.bench import Bench

TAKEN = "_kombu.binding.celery"
"""A queue whose key is a set: any client can name it."""

OTHERS = 20


@pytest.fixture(params=["memory", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "memory":
        bench = Bench()
        assert isinstance(bench.broker, MemoryBroker)
        bench.broker.closed[TAKEN] = "it is closed"
        return bench
    server: Server = request.getfixturevalue("server")
    with server.client() as client:
        client.flushall()
        client.sadd(TAKEN, "a")
        client.config_set("proto-max-bulk-len", 1024 * 1024)
    return Bench(broker=RedisBroker(server.url(), namespace="test"))


@pytest.fixture
def ran(bench: Bench) -> list[int]:
    """Declare the tasks; return the arguments with which `note` ran."""
    ran: list[int] = []

    @bench.app.task(name="proj.note")
    def note(*numbers: Any) -> Any:
        ran.append(numbers[-1] if numbers else -1)
        return numbers[-1] if numbers else None

    @bench.app.task(name="proj.told")
    def told(task_id: str) -> None: ...

    @bench.app.task(name="proj.again", bind=True)
    def again(self: Any) -> None:
        raise self.retry(queue=TAKEN, countdown=0)

    @bench.app.task(name="proj.fail")
    def fail() -> None:
        raise ValueError("no")

    return ran


def taken(bench: Bench, **options: Any) -> dict[str, Any]:
    return bench.app.tasks["proj.note"].signature(queue=TAKEN, **options)


def linked(bench: Bench) -> str:
    bench.app.tasks["proj.note"].apply_async((100,), task_id="bad", link=taken(bench))
    return "bad"


def chained(bench: Bench) -> str:
    step = taken(bench, task_id="step")
    bench.app.tasks["proj.note"].apply_async((100,), task_id="bad", chain=[step])
    return "step"


def retried(bench: Bench) -> str:
    bench.app.tasks["proj.again"].apply_async(task_id="bad")
    return "bad"


def with_errback(bench: Bench) -> str:
    fail = bench.app.tasks["proj.fail"]
    told = bench.app.tasks["proj.told"].signature(queue=TAKEN)
    fail.apply_async(task_id="bad", link_error=told)
    return "bad"


def with_body(bench: Bench) -> str:
    bench.results.begin_chords([Chord("g", 2)])
    body = taken(bench, task_id="body")
    for index in range(2):
        options: dict[str, Any] = {"group_id": "g", "group_index": index, "chord": body}
        bench.app.tasks["proj.note"].apply_async((100,), **options)
    return "body"


@pytest.mark.parametrize("call", [linked, chained, retried, with_errback, with_body])
def test_a_follow_up_that_is_refused_fails_its_run_and_no_other(
    bench: Bench, ran: list[int], call: Callable[[Bench], str]
) -> None:
    waited_for = call(bench)
    others = [bench.app.tasks["proj.note"].delay(n) for n in range(OTHERS)]

    bench.run()

    assert bench.results.metas[waited_for].status == State.FAILURE
    assert sorted(n for n in ran if 0 <= n < OTHERS) == list(range(OTHERS))
    assert {bench.results.metas[one.id].status for one in others} == {State.SUCCESS}
    assert bench.left() == 0


def test_the_reason_is_the_result_and_that_of_the_dead_letter(
    bench: Bench, ran: list[int]
) -> None:
    linked(bench)

    bench.run()

    [letter] = bench.broker.dead_letters()
    assert letter.task_id == "bad"
    assert "what was to follow cannot be sent" in letter.reason
    assert str(bench.results.metas["bad"].result) == letter.reason


def test_errbacks_are_told_of_a_follow_up_that_is_refused(
    bench: Bench, ran: list[int]
) -> None:
    note = bench.app.tasks["proj.note"]
    note.apply_async((100,), link=taken(bench), link_error=note.si(77))

    bench.run()

    assert ran == [100, 77]


def test_links_that_are_not_refused_are_sent_when_a_body_is(
    bench: Bench, ran: list[int]
) -> None:
    note = bench.app.tasks["proj.note"]
    bench.results.begin_chords([Chord("g", 1)])
    body = taken(bench, task_id="body")
    chord: dict[str, Any] = {"group_id": "g", "group_index": 0, "chord": body}
    note.apply_async((100,), task_id="part", link=note.si(77), **chord)

    bench.run()

    assert ran == [100, 77]
    assert bench.results.metas["part"].status == State.SUCCESS
    assert bench.results.metas["body"].status == State.FAILURE
    assert bench.results.chords == {}, "it is forgotten"


def test_a_follow_up_that_is_too_large_for_the_server_is_refused_alone(
    server: Server,
) -> None:
    with server.client() as client:
        client.flushall()
        client.config_set("proto-max-bulk-len", 1024 * 1024)
    bench = Bench(broker=RedisBroker(server.url(), namespace="test"))

    @bench.app.task(name="proj.large")
    def large() -> str:
        return "x" * 2 * 1024 * 1024

    @bench.app.task(name="proj.note")
    def note(*values: Any) -> None: ...

    result = large.apply_async(link=note.s())
    other = note.delay(1)

    bench.run()

    assert "is too large" in str(bench.results.metas[result.id].result)
    assert bench.results.metas[other.id].status == State.SUCCESS
