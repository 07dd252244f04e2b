"""Holding the lead: for as long as the broker's lock cannot have run out, no longer."""

import pytest

from beatd.brokers.items import HeldLead, Term
from beatd.errors import BrokerRefused, BrokerUnavailable
from beatd.instant import DAY, MINUTE, SECOND, Span
from beatd.scheduler.leadership import Leadership
from tests.fakes import FakeClock, FlakyBroker

TTL: Span = 6 * SECOND


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def broker(clock: FakeClock) -> FlakyBroker:
    return FlakyBroker(clock)


@pytest.fixture
def leadership(broker: FlakyBroker, clock: FakeClock) -> Leadership:
    return Leadership(broker, clock, "here", TTL)


def wait(clock: FakeClock, length: Span) -> None:
    clock.go_to(clock.now() + length)


def test_the_lead_is_renewed_at_a_third_of_its_time(
    leadership: Leadership, broker: FlakyBroker, clock: FakeClock
) -> None:
    term = leadership.hold(0)
    broker.down = True  # nobody would answer if it asked
    wait(clock, TTL // 3 - 1)
    assert leadership.hold(0) == term

    broker.down = False
    for _ in range(10):
        wait(clock, TTL // 3)
        assert leadership.hold(0) == term
    assert not isinstance(broker.acquire("there", TTL, 0), Term)


@pytest.mark.parametrize("step", [DAY, -DAY])
def test_a_wall_clock_that_is_set_moves_no_end_of_the_lead(
    leadership: Leadership, broker: FlakyBroker, clock: FakeClock, step: Span
) -> None:
    leadership.hold(0)

    clock.step(step)
    wait(clock, TTL - 1)
    assert broker.leader() == "here"
    assert not isinstance(broker.acquire("there", TTL, 0), Term)

    wait(clock, 1)
    assert broker.leader() is None
    assert isinstance(broker.acquire("there", TTL, 0), Term)


def test_a_lead_is_kept_until_it_may_have_run_out_and_no_longer(
    leadership: Leadership, broker: FlakyBroker, clock: FakeClock
) -> None:
    leadership.hold(0)
    broker.down = True

    wait(clock, TTL - 1)
    with pytest.raises(BrokerUnavailable):
        leadership.hold(0)
    assert leadership.term is not None

    wait(clock, 1)
    with pytest.raises(BrokerUnavailable):
        leadership.hold(0)
    assert leadership.term is None


def test_the_lead_counts_from_the_question_and_not_from_its_answer(
    clock: FakeClock,
) -> None:
    class Slow(FlakyBroker):
        def acquire(self, holder: str, ttl: Span, floor: int) -> Term | HeldLead:
            term = super().acquire(holder, ttl, floor)
            wait(clock, TTL // 2)  # the answer was so long on its way
            return term

    broker = Slow(clock)
    leadership = Leadership(broker, clock, "here", TTL)
    leadership.hold(0)
    broker.down = True
    wait(clock, TTL // 2)

    with pytest.raises(BrokerUnavailable):
        leadership.hold(0)
    assert leadership.term is None


def test_a_renewal_that_is_refused_ends_the_term(
    leadership: Leadership, broker: FlakyBroker, clock: FakeClock
) -> None:
    first = leadership.hold(0)
    assert first is not None
    broker.resign(first)
    other = broker.acquire("there", TTL, 0)
    assert isinstance(other, Term)
    wait(clock, TTL // 3)

    assert leadership.hold(0) is None
    broker.resign(other)
    again = leadership.hold(0)
    assert again is not None
    assert again.number > first.number


@pytest.mark.parametrize(("request_lasts", "is_early"), [(0, True), (2, False)])
def test_a_lead_that_runs_out_while_it_is_asked_for_does_not_come_early(
    leadership: Leadership,
    broker: FlakyBroker,
    clock: FakeClock,
    request_lasts: Span,
    is_early: bool,
) -> None:
    class Slow(FlakyBroker):
        def acquire(self, holder: str, ttl: Span, floor: int) -> Term | HeldLead:
            wait(clock, request_lasts)
            return super().acquire(holder, ttl, floor)

    assert isinstance(broker.acquire("there", TTL, 0), Term)
    assert leadership.hold(0) is None
    wait(clock, TTL - 1)
    if is_early:
        broker.lose_all()
    broker.__class__ = Slow

    assert leadership.hold(0) is not None
    assert leadership.came_early() is is_early


def test_who_stands_by_gives_nothing_back(
    leadership: Leadership, broker: FlakyBroker
) -> None:
    assert isinstance(broker.acquire("there", TTL, 0), Term)
    assert leadership.hold(0) is None

    leadership.resign()

    assert broker.leader() == "there"


def test_who_waits_for_the_lead_is_woken_when_it_is_given_back(
    leadership: Leadership, broker: FlakyBroker
) -> None:
    class Released(FlakyBroker):
        def await_release(self, timeout: Span) -> bool:
            return next(answers)

    def wake() -> None:
        woken.append(None)
        watch.leave()

    answers = iter([False, True])
    woken: list[object] = []
    broker.__class__ = Released
    watch = leadership.watch(wake)
    watch.start("lead", on_crash=woken.append)

    assert watch.join(MINUTE)
    assert woken == [None]


def test_who_may_not_be_told_of_the_lead_says_so_once(
    leadership: Leadership, broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    class Closed(FlakyBroker):
        def await_release(self, timeout: Span) -> bool:
            asked.append(timeout)
            if len(asked) < 4:
                raise BrokerRefused("its ACL forbids us this")
            return True

    asked: list[Span] = []
    broker.__class__ = Closed
    watch = leadership.watch(lambda: watch.leave())
    watch.start("lead", on_crash=lambda error: None)

    assert watch.join(MINUTE)
    said = [one.getMessage() for one in caplog.records]
    assert said == [
        "not told when the lead is given back, asking for it: its ACL forbids us this"
    ]


def test_who_waits_for_the_lead_of_a_broker_that_is_away_asks_again(
    leadership: Leadership, broker: FlakyBroker
) -> None:
    class Away(FlakyBroker):
        def await_release(self, timeout: Span) -> bool:
            asked.append(timeout)
            if len(asked) < 3:
                raise BrokerUnavailable("nobody answers")
            return True

    asked: list[Span] = []
    broker.__class__ = Away
    watch = leadership.watch(lambda: watch.leave())
    watch.start("lead", on_crash=lambda error: None)

    assert watch.join(MINUTE)
    assert len(asked) == 3
