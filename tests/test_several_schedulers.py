"""Several schedulers on one broker: one leads, steadily; each slot is queued once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beatd.brokers.redis import RedisBroker
from beatd.brokers.sqlite import SQLiteBroker
from beatd.clock import SystemClock
from beatd.instant import MINUTE, SECOND
from beatd.routing import Queue
from beatd.scheduler.leadership import STANDBY_LOOK
from beatd.scheduler.loop import Scheduler
from beatd.schedules.interval import Every
from tests.brokers.making import messages
from tests.fakes import NOON, FakeClock, entry, scheduler_of
from tests.proxy import Fault, Proxy
from tests.servers import Server, eventually

TICK = entry("tick", Every(SECOND))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


Begin = Callable[[Path], Scheduler]


@pytest.fixture
def begin(clock: FakeClock) -> Iterator[Begin]:
    """Start one more scheduler on the database at a path, as another process would."""
    made: list[SQLiteBroker] = []

    def begin(path: Path) -> Scheduler:
        made.append(SQLiteBroker(path, namespace="test", clock=clock))
        return scheduler_of(TICK, broker=made[-1], clock=clock)

    yield begin
    for broker in made:
        broker.close()


def run(schedulers: list[Scheduler], clock: FakeClock, seconds: int) -> list[list[int]]:
    """Let time pass; return after each step the numbers of the terms that are held."""
    led = []
    for _ in range(seconds * SECOND // STANDBY_LOOK):
        for scheduler in schedulers:
            scheduler.tick(clock.now())
        terms = (scheduler.leadership.term for scheduler in schedulers)
        led.append([term.number for term in terms if term])
        clock.go_to(clock.now() + STANDBY_LOOK)
    return led


def queued(path: Path) -> int:
    broker = SQLiteBroker(path, namespace="test")
    broker.join("w", MINUTE)
    number = len(messages(broker.take("w", ["celery"], 1000, "a1")))
    broker.close()
    return number


@pytest.mark.parametrize("replaced", [False, True])
def test_one_leads_steadily_once_the_lock_file_was_removed(
    begin: Begin,
    clock: FakeClock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    replaced: bool,
) -> None:
    path = tmp_path / "broker.db"
    both = [begin(path), begin(path)]
    run(both, clock, 5)
    lock = path.with_name("broker.db.test.lock")
    lock.unlink()
    if replaced:
        lock.touch()

    led = run(both, clock, 60)

    assert [terms for terms in led[20:] if terms != led[-1]] == []
    assert len(led[-1]) == 1
    assert caplog.text.count("was removed or replaced while it was locked") == 1
    assert queued(path) == (clock.now() - STANDBY_LOOK - NOON) // SECOND


def test_two_names_of_one_database_have_one_lock(
    begin: Begin, clock: FakeClock, tmp_path: Path
) -> None:
    path, link = tmp_path / "broker.db", tmp_path / "link" / "other.db"
    link.parent.mkdir()
    first = begin(path)
    run([first], clock, 2)
    link.symlink_to(path)
    both = [first, begin(link)]

    led = run(both, clock, 20)

    assert {tuple(terms) for terms in led} == {(1,)}


def test_many_queues_behind_a_slow_line_do_not_cost_the_lead(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    queues = [Queue(f"q{number}", "media", "topic", "a.*") for number in range(300)]
    with Proxy(server.port) as proxy:
        proxy.latency = 0.01
        broker, clock = RedisBroker(proxy.url(), namespace="test"), SystemClock()
        scheduler = scheduler_of(TICK, broker=broker, clock=clock, ttl=SECOND)
        scheduler.takeover.queues = queues
        scheduler.takeover.declare = broker.declare

        def leads() -> bool:
            scheduler.tick(clock.now())
            return bool(scheduler.leadership.term) and not scheduler.outage

        def is_cut_off() -> bool:
            scheduler.tick(clock.now())
            return bool(scheduler.outage)

        eventually(leads)
        term = scheduler.leadership.term
        proxy.arm(Fault.LOSE_REPLY, b"EVALSHA")
        eventually(is_cut_off)
        eventually(leads)

        assert scheduler.leadership.term == term
        assert not [one for one in caplog.messages if "lost the lead" in one]
        scheduler.stop()
        broker.close()
