"""`task-sent`: monitors are told of each call, by client, run and scheduler alike."""

import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from beatd.brokers.base import Broadcast
from beatd.brokers.items import Emission, Outgoing
from beatd.brokers.memory import MemoryBroker
from beatd.config.settings import Settings
from beatd.errors import BrokerUnavailable
from beatd.events.event import EventFactory
from beatd.events.sender import MOST
from beatd.events.sent import TaskSentEvents
from beatd.instant import HOUR
from beatd.message import MessageFormat, read_notice, template
from beatd.routing import Queue, Route
from beatd.tasks import Task
from beatd.timetable.ledger import Mark
from tests.fakes import NOON
from tests.servers import eventually
from tests.worker.bench import Bench

ORIGIN = "gen7@host.example"


class Monitor:
    """Receives all events that are sent through a broker from now on."""

    def __init__(self, broker: Any) -> None:
        assert isinstance(broker, Broadcast)
        self._hearing = broker.listen(Queue("celeryev.me", "celeryev", "fanout", "#"))
        self._hearing.wait(0)

    def received(self) -> list[dict[str, Any]]:
        bodies = [read_notice(raw).body for raw in self._hearing.wait(0)]
        return [
            event
            for body in bodies
            for event in (body if isinstance(body, list) else [body])
        ]


def bench_with_monitor(**settings: Any) -> tuple[Bench, Monitor]:
    bench = Bench(**{"task_send_sent_event": True, **settings})
    return bench, Monitor(bench.broker)


class Shut:
    """Can be pickled, and not be had back here."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _stay_shut, ()


def _stay_shut() -> None:
    raise KeyError("a module that only workers have")


def test_a_call_that_cannot_be_read_here_is_sent_though_nobody_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pickled = {"task_serializer": "pickle", "accept_content": ["json", "pickle"]}
    bench, monitor = bench_with_monitor(task_protocol=1, **pickled)

    with caplog.at_level(logging.WARNING):
        bench.app.send_task("proj.add", [Shut()])

    bench.broker.join("reader", HOUR)
    assert len(bench.broker.take("reader", ["celery"], 9, 1)) == 1
    assert monitor.received() == []
    assert [r.__dict__["event"] for r in caplog.records] == ["events.dropped"]


def test_a_call_is_sent_without_its_event_where_events_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench, monitor = bench_with_monitor()
    refuse_events(bench)

    bench.app.send_task("proj.add", [2, 3])

    bench.broker.join("reader", HOUR)
    assert len(bench.broker.take("reader", ["celery"], 9, 1)) == 1
    assert monitor.received() == []
    assert [r.__dict__["event"] for r in caplog.records] == ["events.refused"]
    assert "no permission" in caplog.text


def test_what_follows_from_a_run_is_sent_without_its_event_where_these_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench, monitor = bench_with_monitor()
    ran: list[int] = []
    note = bench.app.task(name="proj.note")(ran.append)
    note.apply_async((1,), task_id="first", link=note.si(2))
    monitor.received()
    refuse_events(bench)

    bench.run()

    assert ran == [1, 2]
    assert bench.results.metas["first"].status == "SUCCESS"
    assert monitor.received() == []
    warned = [r.__dict__["event"] for r in caplog.records if r.levelname != "INFO"]
    assert warned == ["events.refused"]


def refuse_events(bench: Bench) -> None:
    """Let the broker refuse all events from now on."""
    assert isinstance(bench.broker, MemoryBroker)
    bench.broker.declare([Queue("monitors", "celeryev", "fanout", "")])
    bench.broker.closed["monitors"] = "no permission to publish"


def test_a_call_is_told_as_celery_tells_it() -> None:
    bench, monitor = bench_with_monitor()
    bench.app.send_task("proj.add", [2, 3], {"z": "four"}, queue="slow", expires=60)

    (event,) = monitor.received()
    assert list(event) == [
        *("hostname", "utcoffset", "pid", "clock", "uuid", "root_id", "parent_id"),
        *("name", "args", "kwargs", "retries", "eta", "expires"),
        *("queue", "exchange", "routing_key", "timestamp", "type"),
    ]
    assert event["hostname"] == f"gen{event['pid']}@{event['hostname'].split('@')[1]}"
    assert event["root_id"] == event["uuid"]
    fields = {key: event[key] for key in ("name", "args", "kwargs", "retries")}
    assert fields == {
        "name": "proj.add",
        "args": "[2, 3]",
        "kwargs": "{'z': 'four'}",
        "retries": 0,
    }
    assert event["expires"].startswith("2027-01-15T12:01")
    way = ("queue", "exchange", "routing_key", "type")
    assert [event[key] for key in way] == ["slow", "", "slow", "task-sent"]


def test_a_call_in_protocol_1_has_the_same_texts() -> None:
    bench, monitor = bench_with_monitor(task_protocol=1)
    bench.app.send_task("proj.add", [2], {"y": 3})

    (event,) = monitor.received()
    assert (event["args"], event["kwargs"]) == ("[2]", "{'y': 3}")


@pytest.mark.parametrize(
    "settings", [{"task_send_sent_event": False}, {"task_always_eager": True}]
)
def test_nothing_is_told_that_nobody_wants_or_sends(settings: dict[str, Any]) -> None:
    bench, monitor = bench_with_monitor(**settings)
    bench.app.task(name="proj.work", bind=True)(fail_first).delay()
    bench.run()

    assert monitor.received() == []


def fail_first(self: Task[..., Any]) -> str:
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return "done"


def test_what_a_run_has_sent_is_told_too() -> None:
    bench, monitor = bench_with_monitor()
    task = bench.app.task(name="proj.work", bind=True)(fail_first)
    bench.app.task(name="proj.after")(lambda value: value)
    first = task.apply_async(link={"task": "proj.after"})
    bench.run()

    told = [(one["name"], one["retries"]) for one in monitor.received()]
    assert told == [("proj.work", 0), ("proj.work", 1), ("proj.after", 0)]
    assert first.get(timeout=0) == "done"


def test_an_errback_of_a_run_that_never_began_is_told() -> None:
    bench, monitor = bench_with_monitor()
    bench.app.task(name="proj.errback")(lambda task_id: None)
    bench.app.send_task("proj.nobody", link_error={"task": "proj.errback"})
    bench.run()

    assert [one["name"] for one in monitor.received()] == [
        "proj.nobody",
        "proj.errback",
    ]


# The scheduler


class SlowBroker(MemoryBroker):
    """It may be away, and counts its requests."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.requests = 0

    def send(self, batch: Sequence[Outgoing]) -> None:
        if self.down:
            raise BrokerUnavailable("nobody answers")
        self.requests += 1
        super().send(batch)


def emissions(number: int) -> list[Emission]:
    form = MessageFormat(origin=ORIGIN)
    route = Route("celery", routing_key="celery")
    made = template(form, route, "proj.tick", entry="tick")
    return [
        Emission(
            "tick",
            Mark(NOON, ""),
            route,
            made.complete(id=f"id-{count}", tag="t", now=NOON, slot=NOON),
        )
        for count in range(number)
    ]


def test_what_is_emitted_is_told_in_one_message() -> None:
    broker = SlowBroker()
    monitor = Monitor(broker)
    sent_events = TaskSentEvents(broker, EventFactory(ORIGIN, Settings()))

    sent_events.emitted(emissions(3))
    sent_events.close()

    received = monitor.received()
    assert [one["uuid"] for one in received] == ["id-0", "id-1", "id-2"]
    assert {one["hostname"] for one in received} == {ORIGIN}
    assert {one["queue"] for one in received} == {"celery"}
    assert broker.requests == 1


def test_a_broker_that_is_away_is_told_later() -> None:
    broker = SlowBroker()
    broker.down = True
    monitor = Monitor(broker)
    sent_events = TaskSentEvents(broker, EventFactory(ORIGIN, Settings()))
    sent_events.emitted(emissions(2))
    broker.down = False

    assert len(eventually(monitor.received)) == 2
    sent_events.close()


def test_what_is_too_much_is_dropped_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = SlowBroker()
    monitor = Monitor(broker)
    sent_events = TaskSentEvents(broker, EventFactory(ORIGIN, Settings()))

    with caplog.at_level(logging.WARNING):
        sent_events.emitted(emissions(1) * (MOST + 3))
        sent_events.emitted(emissions(1) * (MOST + 3))
    sent_events.close()
    received = monitor.received()

    assert len(received) <= 2 * MOST

    assert [one.getMessage() for one in caplog.records] == [
        "monitors do not know all: 3 events were dropped"
    ]


class Faulty(SlowBroker):
    """Fails in a way that nobody foresaw."""

    def send(self, batch: Sequence[Outgoing]) -> None:
        raise ZeroDivisionError("a fault of ours")


def test_who_crashed_is_mute_and_keeps_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent_events = TaskSentEvents(Faulty(), EventFactory(ORIGIN, Settings()))
    sent_events.emitted(emissions(1))
    eventually(lambda: "events are sent no more" in caplog.text)

    sent_events.emitted(emissions(1) * (MOST + 3))

    assert not sent_events.turn()
    sent_events.close()
    assert [r.__dict__["event"] for r in caplog.records] == ["events.crashed"]


def test_without_a_thread_nothing_is_told_and_emission_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    sent_events = TaskSentEvents(SlowBroker(), EventFactory(ORIGIN, Settings()))

    sent_events.emitted(emissions(1))
    sent_events.emitted(emissions(1))

    assert not sent_events.turn()
    assert len(caplog.records) == 1
