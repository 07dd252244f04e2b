"""What follows from a run may be refused: that run fails, and all others go on."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from beatd.brokers.memory import MemoryBroker
from beatd.brokers.redis import RedisBroker
from beatd.config.settings import read
from beatd.instant import HOUR
from beatd.message import Chord, read_envelope
from beatd.results import connect
from beatd.results.base import State
from beatd.runs.chords import Failed
from tests.brokers.backends import SQLite
from tests.servers import Server, eventually
from tests.worker.bench import Bench

TAKEN = "_kombu.binding.celery"
"""A queue whose key is a set: any client can name it."""

OTHERS = 20


@pytest.fixture
def server(server: Server) -> Iterator[Server]:
    """A server that refuses messages and results of more than 1 MiB."""
    with server.configured("proto-max-bulk-len", str(1024 * 1024)):
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "memory":
        bench = Bench()
        assert isinstance(bench.broker, MemoryBroker)
        bench.broker.closed[TAKEN] = "it is closed"
        yield bench
        return
    if request.param == "sqlite":
        backend = SQLite(tmp_path)
        bench = Bench(broker=backend.connect())
        bench.broker.declare([])  # it makes the file
        backend.refuse(TAKEN)
        yield bench
        backend.close()
        return
    server: Server = request.getfixturevalue("server")
    with server.client() as client:
        client.flushall()
        client.sadd(TAKEN, "a")
    broker = RedisBroker(server.url(), namespace="test")
    yield Bench(broker=broker)
    broker.close()


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


@pytest.mark.parametrize("call", [linked, chained, retried])
def test_a_run_that_was_acknowledged_early_leaves_a_dead_letter_too(
    bench: Bench, ran: list[int], call: Callable[[Bench], str]
) -> None:
    for name in ("proj.note", "proj.again"):
        bench.app.tasks[name].acks_late = False
    waited_for = call(bench)

    bench.run()

    [letter] = bench.broker.dead_letters()
    assert (letter.queue, letter.task_id) == ("celery", "bad")
    assert "what was to follow cannot be sent" in letter.reason
    message = bench.broker.dead_message(letter.id)
    assert message
    assert read_envelope(message).id == "bad"
    assert bench.results.metas["bad"].status == State.FAILURE
    assert str(bench.results.metas["bad"].result) == letter.reason
    assert bench.results.metas[waited_for].status == State.FAILURE
    assert bench.broker.retry_dead([letter.id]) == 1
    assert bench.left() == 1


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


# What the back end refuses


@dataclass(frozen=True)
class Stranger:
    """Takes keys of the result back end for another program; reads what is stored."""

    take: Callable[[str], object]
    bench: Bench

    def state_of(self, task_id: str) -> str:
        return self.bench.app.meta_of(task_id).status


@pytest.fixture(params=["memory", "redis"])
def stranger(request: pytest.FixtureRequest) -> Iterator[Stranger]:
    """A worker, and a stranger beside it: in memory, and on a server."""
    if request.param == "memory":
        bench = Bench()
        yield Stranger(bench.results.refuse, bench)
        return
    server: Server = request.getfixturevalue("server")
    with server.client() as client:
        settings = read({"result_backend": server.url()}).settings
        results = connect(settings)
        bench = Bench(
            broker=RedisBroker(server.url(), namespace="test"), results=results
        )

        def take(name: str) -> None:
            client.sadd(f"celery-task-meta-{name}", "a")
            client.sadd(f"celery-taskset-meta-{name}.j", "a")

        yield Stranger(take, bench)
        results.close()


def declare(bench: Bench) -> list[Any]:
    """Declare the tasks; return the arguments with which `note` ran."""
    ran: list[Any] = []

    @bench.app.task(name="proj.note")
    def note(*values: Any) -> Any:
        ran.append(values[-1])
        return values[-1]

    @bench.app.task(name="proj.large")
    def large() -> str:
        return "x" * 2 * 1024 * 1024

    @bench.app.task(name="proj.large_failure")
    def large_failure() -> None:
        raise ValueError("x" * 2 * 1024 * 1024)

    return ran


def test_a_result_that_is_refused_fails_its_run_and_no_other(
    stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    bench = stranger.bench
    ran = declare(bench)
    note = bench.app.tasks["proj.note"]
    stranger.take("bad")
    note.apply_async((100,), task_id="bad", link=note.si(77), link_error=note.si(88))
    others = [note.delay(n) for n in range(OTHERS)]

    bench.run()

    assert sorted(ran) == [*range(OTHERS), 88, 100], "it counts as failed"
    assert {stranger.state_of(one.id) for one in others} == {State.SUCCESS}
    [letter] = bench.broker.dead_letters()
    assert letter.task_id == "bad"
    assert "its result cannot be stored" in letter.reason
    [said] = [one for one in caplog.records if event_of(one) == "result.refused"]
    assert said.levelname == "ERROR"
    assert "task bad" in said.getMessage()
    assert bench.left() == 0


@pytest.mark.parametrize("name", ["large", "large_failure"])
def test_a_result_that_is_too_large_leaves_a_short_reason(
    server: Server, name: str
) -> None:
    results = connect(read({"result_backend": server.url()}).settings)
    bench = Bench(results=results)
    ran = declare(bench)
    note = bench.app.tasks["proj.note"]
    bench.app.tasks[f"proj.{name}"].apply_async(task_id="bad", link_error=note.si(88))
    other = note.delay(1)

    bench.run()

    found = results.load(["bad", other.id])
    assert found["bad"].status == State.FAILURE
    assert "a result of 2" in str(found["bad"].result)
    assert "is too large" in str(found["bad"].result)
    assert found[other.id].status == State.SUCCESS
    assert sorted(ran) == [1, 88]
    results.close()


def test_a_chord_that_cannot_be_counted_fails_its_body_and_holds_up_nothing(
    stranger: Stranger,
) -> None:
    bench = stranger.bench
    ran = declare(bench)
    note = bench.app.tasks["proj.note"]
    stranger.take("g")
    body = note.signature(task_id="body")
    for index in range(2):
        options: dict[str, Any] = {"group_id": "g", "group_index": index, "chord": body}
        note.apply_async((100 + index,), task_id=f"part-{index}", **options)
    others = [note.delay(n) for n in range(OTHERS)]

    bench.run()

    assert sorted(ran) == [*range(OTHERS), 100, 101]
    assert stranger.state_of("body") == State.FAILURE
    assert stranger.state_of("part-1") == State.SUCCESS
    assert {stranger.state_of(one.id) for one in others} == {State.SUCCESS}
    assert bench.left() == 0


def test_a_chord_none_of_whose_parts_can_be_counted_calls_its_errbacks_once(
    stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    bench = stranger.bench
    ran = declare(bench)
    note = bench.app.tasks["proj.note"]
    called: list[str] = []

    @bench.app.task(name="proj.called")
    def called_here(request: Any, error: Exception, traceback: Any) -> None:
        called.append(request.id)

    stranger.take("g")
    body = note.signature(task_id="body", link_error=[note.si(88), called_here.s()])
    for index in range(3):
        options: dict[str, Any] = {"group_id": "g", "group_index": index, "chord": body}
        note.apply_async((100 + index,), task_id=f"part-{index}", **options)

    bench.run()
    eventually(lambda: called)

    assert sorted(ran) == [88, 100, 101, 102]
    assert called == ["body"]
    assert stranger.state_of("body") == State.FAILURE
    assert [event_of(one) for one in caplog.records].count("chord.failed") == 1


def test_who_tells_that_a_chord_has_no_body_tells_it_again_if_asked_again(
    stranger: Stranger,
) -> None:
    bench = stranger.bench
    declare(bench)
    note = bench.app.tasks["proj.note"]

    @bench.app.task(name="proj.told")
    def told_of(task_id: str) -> None: ...

    stranger.take("g")
    body = note.signature(task_id="body", link_error=told_of.s())
    for index in range(2):
        options: dict[str, Any] = {"group_id": "g", "group_index": index, "chord": body}
        note.apply_async((100,), task_id=f"part-{index}", **options)
    bench.broker.join("w", HOUR)
    one, other = bench.broker.take("w", ["celery"], 2, 1)
    end = Failed(State.FAILURE, ValueError("no"), False)

    told = [
        len(bench.chord_keeper.record_end(delivery.message, end).sends)
        for delivery in (one, other, one)  # the answer to the first one was lost, say
    ]

    assert told == [1, 0, 1]


def test_a_run_whose_chord_cannot_begin_fails() -> None:
    bench = Bench()
    ran = declare(bench)
    note = bench.app.tasks["proj.note"]
    bench.results.refuse("begin")
    chord = {
        "task": "celery.chord",
        "subtask_type": "chord",
        "kwargs": {"header": [note.si(1), note.si(2)], "body": note.s()},
    }
    note.apply_async((100,), task_id="bad", link=chord)
    other = note.delay(3)

    bench.run()

    assert sorted(ran) == [3, 100]
    assert bench.results.metas["bad"].status == State.FAILURE
    assert "cannot begin" in str(bench.results.metas["bad"].result)
    assert bench.results.metas[other.id].status == State.SUCCESS


def event_of(record: logging.LogRecord) -> str:
    return str(getattr(record, "event", ""))
