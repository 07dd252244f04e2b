"""Entries that the broker refuses: said once, tried again, and in nobody's way."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from beatd.brokers.items import Emission, Emitted, Refused, Term
from beatd.errors import MessageError
from beatd.instant import HOUR, MINUTE, SECOND, Instant, Span
from beatd.message import Made, MessageFormat, template
from beatd.routing import Route
from beatd.scheduler.calls_watch import CallsWatch
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.refusals import LAST
from beatd.scheduler.step import BATCH
from beatd.schedules.base import Schedule
from beatd.schedules.interval import Every
from beatd.timetable.entry import Entry
from beatd.timetable.policy import Reason
from tests.fakes import (
    NOON,
    TTL,
    FakeClock,
    FakeFile,
    FlakyBroker,
    entry,
    scheduler_of,
)

TICK = entry("tick", Every(MINUTE))
TO_TAKEN = template(MessageFormat(), Route("taken"), "tasks.plain")


def to_taken(name: str, schedule: Schedule, **policy: Any) -> Entry:
    """Build an entry for the queue that is refused."""
    return replace(entry(name, schedule, **policy), message=TO_TAKEN)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class CountingBroker(FlakyBroker):
    """A broker that notes how often it was asked to emit an entry."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.asked: list[str] = []

    def emit(self, term: Term, batch: Sequence[Emission], *rest: Any) -> list[Emitted]:
        self.asked += [emission.entry for emission in batch]
        return super().emit(term, batch, *rest)


@pytest.fixture
def broker(clock: FakeClock) -> CountingBroker:
    broker = CountingBroker(clock)
    broker.closed["taken"] = "it is closed"
    return broker


def ticks(scheduler: Scheduler, until: Instant) -> Iterator[Instant]:
    """Tick whenever the loop asks for it; yield the instants, and end at `until`."""
    clock = scheduler.clock
    assert isinstance(clock, FakeClock)
    while True:
        now = clock.now()
        wake_at = scheduler.tick(now)
        yield now
        if now >= until:
            return
        clock.go_to(min(wake_at, until))


def run(scheduler: Scheduler, until: Instant) -> int:
    """Run until the clock shows `until`; return how many ticks that took."""
    return sum(1 for _ in ticks(scheduler, until))


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(record, "event", "") for record in caplog.records]


def test_an_entry_that_is_refused_holds_up_no_other(
    broker: CountingBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(
        to_taken("bad", Every(MINUTE)), TICK, broker=broker, clock=clock
    )

    run(scheduler, NOON + HOUR)

    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 61)]
    assert scheduler.outage == ""
    assert scheduler.refused.keys() == {"bad"}
    assert isinstance(scheduler.file, FakeFile)
    assert scheduler.file.refused == scheduler.refused


def test_a_refused_slot_is_recorded_neither_as_emitted_nor_as_dropped(
    broker: CountingBroker, clock: FakeClock
) -> None:
    file = FakeFile()
    bad = to_taken("bad", Every(MINUTE))
    scheduler = scheduler_of(bad, TICK, broker=broker, clock=clock, file=file)

    run(scheduler, NOON + 10 * MINUTE)

    assert file.marks["bad"].slot == broker.read_ledger().marks["bad"].slot == NOON
    assert scheduler.timetable.mark("bad").slot == NOON
    assert file.dropped == {}


def test_a_refusal_is_said_once_with_the_reason_and_so_is_its_end(
    broker: CountingBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bad = to_taken("bad", Every(MINUTE))
    scheduler = scheduler_of(bad, broker=broker, clock=clock)
    run(scheduler, NOON + 10 * MINUTE)

    [said] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert getattr(said, "event", "") == "emit.refused"
    assert said.getMessage() == (
        "bad is refused for 2027-01-15 12:01:00+00:00: the queue taken: it is closed;"
        " its slots stay due and are tried again until that is mended there,"
        " or the entry is changed"
    )
    assert "emit.accepted" not in events(caplog)

    broker.closed.clear()
    run(scheduler, NOON + 20 * MINUTE)
    assert events(caplog).count("emit.accepted") == 1
    assert events(caplog).count("emit.refused") == 1
    assert scheduler.refused == {}
    assert isinstance(scheduler.file, FakeFile)
    assert scheduler.file.refused == {}


def test_what_was_refused_is_emitted_under_its_policies_when_it_is_accepted(
    broker: CountingBroker, clock: FakeClock
) -> None:
    file = FakeFile()
    scheduler = scheduler_of(
        to_taken("latest", Every(MINUTE)),
        to_taken("each", Every(MINUTE), coalesce=False),
        to_taken("fresh", Every(HOUR), misfire_grace=MINUTE),
        broker=broker,
        clock=clock,
        file=file,
    )
    run(scheduler, NOON + HOUR + 5 * MINUTE + SECOND)

    broker.closed.clear()
    run(scheduler, NOON + HOUR + 10 * MINUTE)

    each = broker.slots("each")
    assert each == [NOON + n * MINUTE for n in range(1, 71)]
    latest = broker.slots("latest")
    assert latest == [NOON + n * MINUTE for n in range(71 - len(latest), 71)]
    assert file.dropped["latest", Reason.COALESCED] == 70 - len(latest)
    assert broker.slots("fresh") == []
    assert file.dropped["fresh", Reason.MISFIRE] == 1


def test_a_refused_entry_is_tried_again_with_a_bounded_back_off(
    broker: CountingBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(to_taken("bad", Every(SECOND)), broker=broker, clock=clock)

    turns = run(scheduler, NOON + HOUR)

    tries = broker.asked.count("bad")
    assert HOUR // LAST <= tries < HOUR // LAST + 10
    assert turns <= HOUR // SECOND + tries + 1  # the loop does not spin


def test_an_answer_that_is_lost_does_not_let_a_later_slot_pass(
    broker: CountingBroker, clock: FakeClock
) -> None:
    bad = to_taken("bad", Every(SECOND), coalesce=False)
    scheduler = scheduler_of(bad, TICK, broker=broker, clock=clock)
    scheduler.tick(NOON)
    broker.loses_answers = True
    run(scheduler, NOON + 10 * SECOND)
    broker.loses_answers = False
    run(scheduler, NOON + 20 * SECOND)
    broker.closed.clear()

    run(scheduler, NOON + MINUTE)

    assert broker.slots("bad") == [NOON + n * SECOND for n in range(1, 61)]
    assert broker.read_ledger().marks["bad"].runs == 60


def test_slots_after_a_refused_one_wait_even_in_a_later_part_of_the_step(
    clock: FakeClock,
) -> None:
    class Fickle(CountingBroker):
        """Refuses one message, and takes the next."""

        refuses = False

        def emit(
            self, term: Term, batch: Sequence[Emission], *rest: Any
        ) -> list[Emitted]:
            if self.refuses:
                self.refuses = False
                self.closed["taken"] = "it is closed"
            outcomes = super().emit(term, batch, *rest)
            self.closed.clear()
            return outcomes

    broker = Fickle(clock)
    each = [to_taken(f"e{n}", Every(MINUTE), coalesce=False) for n in range(15)]
    scheduler = scheduler_of(*each, broker=broker, clock=clock)
    scheduler.tick(NOON)
    clock.go_to(NOON + 2 * HOUR)
    scheduler.tick(clock.now())  # the lead is taken anew
    broker.refuses = True
    scheduler.tick(clock.now())
    assert len(broker.asked) > BATCH

    run(scheduler, NOON + 2 * HOUR + MINUTE - 1)

    for one in each:
        assert broker.slots(one.name) == [NOON + n * MINUTE for n in range(1, 121)]


def test_slots_before_the_refused_one_of_a_step_are_recorded(
    clock: FakeClock,
) -> None:
    class Narrow(CountingBroker):
        """Takes each entry's first message only."""

        def emit(
            self, term: Term, batch: Sequence[Emission], *rest: Any
        ) -> list[Emitted]:
            outcomes = super().emit(term, batch[:1], *rest)
            return [*outcomes, *[Refused("it is full") for _ in batch[1:]]]

    broker, file = Narrow(clock), FakeFile()
    each = entry("each", Every(MINUTE), coalesce=False, max_catchup=3)
    scheduler = scheduler_of(each, broker=broker, clock=clock, file=file)
    scheduler.tick(NOON)
    clock.go_to(NOON + 5 * MINUTE)

    scheduler.tick(clock.now())
    scheduler.tick(clock.now())

    assert broker.slots() == [NOON + 3 * MINUTE]
    assert file.marks["each"].slot == NOON + 3 * MINUTE
    assert file.marks["each"].runs == 1
    assert file.dropped == {("each", Reason.COALESCED): 2}
    assert scheduler.refused == {"each": "it is full"}


def test_an_entry_that_is_removed_is_refused_no_more(
    broker: CountingBroker, clock: FakeClock
) -> None:
    bad = to_taken("bad", Every(MINUTE))
    scheduler = scheduler_of(bad, TICK, broker=broker, clock=clock)
    run(scheduler, NOON + MINUTE)

    scheduler.replace({"tick": TICK}, keep=(), queues=())
    scheduler.tick(clock.now())

    assert scheduler.refused == {}


@pytest.mark.parametrize("policy", [{"enabled": False}, {"end": NOON}])
def test_an_entry_that_is_paused_or_over_is_refused_no_more(
    broker: CountingBroker, clock: FakeClock, policy: dict[str, Any]
) -> None:
    bad = to_taken("bad", Every(MINUTE))
    scheduler = scheduler_of(bad, TICK, broker=broker, clock=clock)
    run(scheduler, NOON + MINUTE)

    after = to_taken("bad", Every(MINUTE), **policy)
    scheduler.replace({"bad": after, "tick": TICK}, keep=(), queues=())
    run(scheduler, NOON + 2 * MINUTE)

    assert scheduler.refused == {}
    assert isinstance(scheduler.file, FakeFile)
    assert scheduler.file.refused == {}


def test_an_entry_that_goes_to_another_queue_is_accepted_at_once(
    broker: CountingBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(to_taken("moved", Every(HOUR)), broker=broker, clock=clock)
    run(scheduler, NOON + HOUR + 10 * MINUTE)

    scheduler.replace({"moved": entry("moved", Every(HOUR))}, keep=(), queues=())
    run(scheduler, clock.now() + SECOND)

    assert broker.slots() == [NOON + HOUR]


def test_a_restart_forgets_no_slot_that_was_refused(
    broker: CountingBroker, clock: FakeClock
) -> None:
    each = to_taken("each", Every(MINUTE), coalesce=False)
    first = scheduler_of(each, broker=broker, clock=clock)
    run(first, NOON + 5 * MINUTE)
    first.stop()
    broker.closed.clear()

    run(scheduler_of(each, broker=broker, clock=clock), NOON + 6 * MINUTE)

    assert broker.slots() == [NOON + n * MINUTE for n in range(1, 7)]


def test_a_request_is_bounded_in_bytes_but_holds_one_message(clock: FakeClock) -> None:
    class Weighing(FlakyBroker):
        """A broker that notes the sizes of requests."""

        sizes: ClassVar[list[list[int]]] = []

        def emit(
            self, term: Term, batch: Sequence[Emission], *rest: Any
        ) -> list[Emitted]:
            self.sizes.append([len(emission.message) for emission in batch])
            return super().emit(term, batch, *rest)

    heavy = template(MessageFormat(), Route("celery"), "tasks.plain", ["x" * 3_000_000])
    huge = template(MessageFormat(), Route("celery"), "tasks.plain", ["x" * 9_000_000])
    entries = [
        replace(entry(f"e{n}", Every(MINUTE)), message=heavy if n else huge)
        for n in range(6)
    ]
    broker = Weighing(clock)
    scheduler = scheduler_of(*entries, broker=broker, clock=clock)

    run(scheduler, NOON + MINUTE)

    assert len(broker.slots()) == 6
    assert [len(sizes) for sizes in broker.sizes if sizes] == [1, 2, 2, 1]


class Called:
    """A message that the code of its task makes for each slot."""

    task, made_anew = "tasks.called", "the task says so"
    route = Route("celery")

    def __init__(self) -> None:
        self.raises: str = ""
        self.sends_nothing = False
        self.asked: list[Instant] = []

    def expires_of(self, sent: Instant) -> Instant | None:
        return None

    def essence(self) -> str:
        return ""

    def made(
        self, *, id: str, now: Instant, slot: Instant, expires: Instant | None
    ) -> Made:
        self.asked.append(slot)
        if self.raises:
            raise MessageError(self.raises)
        if self.sends_nothing:
            return Made(b"", None, id)
        return Made(f"called@{slot - NOON}".encode(), self.route, id)


def called(name: str, message: Called, **policy: Any) -> Entry:
    return replace(entry(name, Every(MINUTE), **policy), message=message)


def test_what_a_task_raises_where_it_is_called_fails_that_emission_alone(
    broker: CountingBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    message = Called()
    bad = called("bad", message, coalesce=False)
    scheduler = scheduler_of(bad, TICK, clock=clock, broker=broker)
    scheduler.tick(clock.now())
    message.raises = "calling tasks.called raised ValueError: no tenant"
    run(scheduler, NOON + 3 * MINUTE)

    assert broker.slots("tick") == [NOON + n * MINUTE for n in (1, 2, 3)]
    assert broker.slots("bad") == []
    assert scheduler.refused == {"bad": message.raises}
    assert events(caplog).count("emit.refused") == 1

    message.raises = ""
    run(scheduler, NOON + 5 * MINUTE)

    assert broker.slots("bad") == [NOON + n * MINUTE for n in (1, 2, 3, 4, 5)]
    assert scheduler.refused == {}
    assert "emit.accepted" in events(caplog)


def test_a_task_whose_code_sends_nothing_is_asked_once_for_each_slot(
    broker: CountingBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    message = Called()
    message.sends_nothing = True
    locked = called("locked", message)
    scheduler = scheduler_of(locked, TICK, clock=clock, broker=broker)
    caplog.set_level("INFO", "beatd.scheduler")
    scheduler.tick(clock.now())
    run(scheduler, NOON + 2 * MINUTE)

    assert message.asked == [NOON + MINUTE, NOON + 2 * MINUTE]
    assert broker.slots("locked") == []
    assert events(caplog).count("emit.nothing") == 2
    assert scheduler.refused == {}


def test_a_message_that_was_made_is_sent_again_as_it_was_after_a_lost_answer(
    broker: CountingBroker, clock: FakeClock
) -> None:
    message = Called()
    scheduler = scheduler_of(called("once", message), clock=clock, broker=broker)
    scheduler.tick(clock.now())
    run(scheduler, NOON + MINUTE - SECOND)
    broker.loses_answers = True
    run(scheduler, NOON + MINUTE)
    broker.loses_answers = False
    run(scheduler, NOON + MINUTE + 30 * SECOND)

    assert message.asked == [NOON + MINUTE]
    assert broker.slots("once") == [NOON + MINUTE]
    assert broker.asked.count("once") == 2


class Slow(Called):
    """A message that takes long to make."""

    def __init__(self, clock: FakeClock, takes: Span) -> None:
        super().__init__()
        self._clock = clock
        self.takes = takes

    def made(
        self, *, id: str, now: Instant, slot: Instant, expires: Instant | None
    ) -> Made:
        self._clock.go_to(self._clock.time + self.takes)
        return super().made(id=id, now=now, slot=slot, expires=expires)


def test_messages_that_take_long_to_make_do_not_cost_the_lead(
    broker: CountingBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "beatd.scheduler")
    message = Slow(clock, SECOND // 2)
    slow = [called(f"slow-{n}", message) for n in range(40)]
    scheduler = scheduler_of(*slow, TICK, clock=clock, broker=broker)
    scheduler.tick(clock.now())
    run(scheduler, NOON + 2 * MINUTE - SECOND)

    assert len(message.asked) == 40
    assert len(broker.slots()) == 41
    assert events(caplog).count("lead.taken") == 1


def test_late_slots_of_one_entry_whose_messages_take_long_come_in_parts(
    broker: CountingBroker, clock: FakeClock
) -> None:
    message = Slow(clock, 0)
    every = called("slow", message, coalesce=False)
    scheduler = scheduler_of(every, TICK, clock=clock, broker=broker)
    scheduler.tick(clock.now())
    clock.go_to(NOON + HOUR)
    message.takes = SECOND // 2
    run(scheduler, NOON + HOUR + MINUTE - SECOND)

    assert broker.slots("slow") == [NOON + n * MINUTE for n in range(1, 61)]
    assert message.asked == broker.slots("slow")


@pytest.mark.parametrize("raises", ["", "calling tasks.called raised OSError: away"])
def test_a_message_that_takes_longer_than_the_lead_to_make_holds_up_no_other(
    raises: str,
    broker: CountingBroker,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    messages = [Slow(clock, 2 * TTL), Slow(clock, 2 * TTL)]
    messages[0].raises = raises
    slow = [called(f"slow-{n}", one) for n, one in enumerate(messages)]
    scheduler = scheduler_of(*slow, TICK, clock=clock, broker=broker)
    scheduler.tick(clock.now())
    run(scheduler, NOON + 2 * MINUTE - SECOND)

    assert broker.slots("slow-1") == [NOON + MINUTE]
    assert broker.slots("tick") == [NOON + MINUTE]
    assert messages[1].asked == [NOON + MINUTE]
    assert scheduler.refused == ({"slow-0": raises} if raises else {})
    assert "emit.slow" in events(caplog)


class Hanging(Slow):
    """A message whose making is looked at by another thread, each second."""

    def __init__(self, clock: FakeClock, takes: Span) -> None:
        super().__init__(clock, takes)
        self.watch: CallsWatch | None = None

    def made(
        self, *, id: str, now: Instant, slot: Instant, expires: Instant | None
    ) -> Made:
        end = self._clock.time + self.takes
        while self.watch and self._clock.time < end:
            self._clock.go_to(self._clock.time + self.watch.look())
        self.takes = 0
        return super().made(id=id, now=now, slot=slot, expires=expires)


def test_a_call_that_does_not_return_is_named_while_it_runs_and_ever_less_often(
    broker: CountingBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    message = Hanging(clock, 60 * SECOND)
    hangs = called("hangs", message)
    scheduler = scheduler_of(hangs, TICK, clock=clock, broker=broker)
    watch = message.watch = CallsWatch(lambda: scheduler.making, clock)
    scheduler.tick(clock.now())
    run(scheduler, NOON + 3 * MINUTE)
    watch.look()

    said = [one for one in caplog.records if vars(one).get("event") == "emit.stuck"]
    assert [vars(one)["ran"] // SECOND for one in said] == [5, 10, 20, 40]
    assert {one.levelname for one in said} == {"WARNING"}
    assert said[0].getMessage().startswith("hangs: the call of its task's code that is")
    assert scheduler.making is None
    assert broker.slots("hangs") == [NOON + 2 * MINUTE, NOON + 3 * MINUTE]
