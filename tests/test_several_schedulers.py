"""Several schedulers on one broker: one leads, steadily; each slot is queued once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beatd.brokers.items import Term
from beatd.brokers.redis import RedisBroker
from beatd.brokers.sqlite import SQLiteBroker
from beatd.clock import SystemClock
from beatd.errors import BrokerUnavailable
from beatd.instant import HOUR, MINUTE, SECOND
from beatd.routing import Queue
from beatd.scheduler.leadership import STANDBY_LOOK
from beatd.scheduler.loop import Scheduler
from beatd.schedules.interval import Every
from beatd.timetable.imprint import Imprint, imprint_of, trace_of
from tests.brokers.making import messages
from tests.fakes import NOON, FakeClock, FakeFile, FlakyBroker, entry, scheduler_of
from tests.processes import beatd, ended
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
    number = len(messages(broker.take("w", ["celery"], 1000, 1)))
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
        scheduler.takeover.configs.queues = queues
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


def test_a_standby_does_not_say_that_it_stopped_emitting(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker = FlakyBroker(clock)
    leader, standby = (scheduler_of(TICK, broker=broker, clock=clock) for _ in range(2))
    standby.leadership.holder = "there"
    for down in (False, True, True, False):
        broker.down = down
        for scheduler in (leader, standby):
            scheduler.tick(clock.now())
        assert bool(standby.outage) is bool(leader.outage) is down
        clock.go_to(clock.now() + SECOND)

    lost, at_standby = said(caplog, "broker.lost")
    assert lost.startswith("stopped emitting: ")
    assert at_standby.startswith("cannot reach the broker: ")
    assert at_standby.endswith("; until then this standby could not take over")
    over = "over after 2.0 s and 2 tries: "
    assert said(caplog, "broker.back") == [
        f"{over}stopped emitting",
        f"{over}cannot reach the broker",
    ]


# Several configs

TOCK = entry("tock", Every(SECOND))


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [
        one.getMessage() for one in caplog.records if getattr(one, "event", "") == event
    ]


def test_a_standby_with_another_config_says_once_what_nobody_emits(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker = FlakyBroker(clock)
    leader = scheduler_of(TICK, broker=broker, clock=clock)
    standby = scheduler_of(TICK, TOCK, broker=broker, clock=clock)

    run([leader, standby], clock, 120)

    [words] = said(caplog, "configs.differ")
    assert "nobody emits 'tock'" in words
    assert "beat_namespace" in words
    assert "here" in words
    assert standby.differs == "nobody emits 'tock'"
    assert leader.differs == ""


def test_the_end_of_a_rolling_deploy_is_said(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker = FlakyBroker(clock)
    old = scheduler_of(TICK, broker=broker, clock=clock)
    new, newer = (scheduler_of(TICK, TOCK, broker=broker, clock=clock) for _ in "ab")
    run([old, new, newer], clock, 10)
    assert len(said(caplog, "configs.differ")) == 2

    old.stop()
    run([new, newer], clock, 10)

    assert sorted(said(caplog, "configs.agree")) == [
        "the scheduler that leads (here) goes by the same entries again",
        "this scheduler leads now: what differed is emitted by its entries",
    ]
    assert (new.differs, newer.differs) == ("", "")


def test_a_standby_with_another_config_that_takes_the_lead_says_no_more_than_that(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker = FlakyBroker(clock)
    old = scheduler_of(TICK, broker=broker, clock=clock)
    new = scheduler_of(TICK, TOCK, broker=broker, clock=clock)
    run([old, new], clock, 10)

    old.stop()
    run([new], clock, 10)

    [words] = said(caplog, "configs.agree")
    assert "same entries" not in words
    assert "this scheduler leads now" in words
    assert new.differs == ""


def test_the_file_says_by_which_entries_its_writer_leads(clock: FakeClock) -> None:
    broker, file = FlakyBroker(clock), FakeFile()
    one = entry("one", Every(MINUTE))
    scheduler = scheduler_of(one, broker=broker, clock=clock, file=file)
    scheduler.tick(clock.now())
    assert file.config == imprint_of([trace_of(one)]).digest

    other = entry("other", Every(MINUTE))
    scheduler.replace({"other": other}, (), ())
    scheduler.tick(clock.now())
    scheduler.tick(clock.now())
    assert file.config == imprint_of([trace_of(other)]).digest


def test_a_leader_that_reloads_is_compared_anew(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker = FlakyBroker(clock)
    leader, standby = (scheduler_of(TICK, broker=broker, clock=clock) for _ in "ab")
    run([leader, standby], clock, 10)
    assert said(caplog, "configs.differ") == []

    leader.replace({"tock": TOCK}, keep=(), queues=())
    run([leader, standby], clock, 10)
    assert (
        standby.differs == "nobody emits 'tick'; 1 more that are not here are emitted"
    )

    standby.replace({"tock": TOCK}, keep=(), queues=())
    run([leader, standby], clock, 10)

    assert standby.differs == ""
    assert len(said(caplog, "configs.agree")) == 1


class Recorded(FlakyBroker):
    """A broker that knows how much was emitted before each announcement."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.announced_after: list[int] = []
        self.unanswered = 0

    def announce(self, term: Term, imprint: Imprint) -> None:
        self.announced_after.append(len(self.emitted))
        if self.unanswered:
            self.unanswered -= 1
            raise BrokerUnavailable("nobody answers")
        super().announce(term, imprint)


def test_what_is_due_is_emitted_before_standbys_are_told_of_the_entries(
    clock: FakeClock,
) -> None:
    broker = Recorded(clock)
    first = scheduler_of(TICK, broker=broker, clock=clock)
    run([first], clock, 2)
    first.stop()
    emitted = len(broker.emitted)
    clock.go_to(clock.now() + 5 * SECOND)

    run([scheduler_of(TICK, broker=broker, clock=clock)], clock, 2)

    assert broker.announced_after[1:] == [emitted + 1]


def test_many_entries_are_told_in_parts_and_slots_between_them_are_in_time(
    clock: FakeClock,
) -> None:
    broker = Recorded(clock)
    many = [entry(f"e{number}", Every(HOUR)) for number in range(2500)]
    leader = scheduler_of(TICK, *many, broker=broker, clock=clock)
    turns = []
    while not broker.announced_after:
        wake_at = leader.tick(clock.now())
        turns.append((wake_at - clock.now(), len(broker.emitted)))
        clock.go_to(clock.now() + SECOND)

    assert turns == [(0, 0), (0, 1), (SECOND, 2)]
    standby = scheduler_of(TOCK, *many, broker=broker, clock=clock)
    run([standby], clock, 1)
    assert (
        standby.differs == "nobody emits 'tock'; 1 more that are not here are emitted"
    )


def test_a_burst_is_emitted_before_standbys_are_told_of_the_entries(
    clock: FakeClock,
) -> None:
    broker = Recorded(clock)
    many = [entry(f"e{number}", Every(SECOND)) for number in range(2500)]
    leader = scheduler_of(*many, broker=broker, clock=clock)
    leader.tick(clock.now())
    clock.go_to(clock.now() + SECOND)
    while not broker.announced_after:
        leader.tick(clock.now())

    assert broker.announced_after == [2500]


def test_an_announcement_without_an_answer_is_made_again_and_holds_up_no_slot(
    clock: FakeClock,
) -> None:
    broker = Recorded(clock)
    broker.unanswered = 2
    leader = scheduler_of(TICK, broker=broker, clock=clock)

    run([leader], clock, 5)

    assert broker.announced() is not None
    assert broker.slots() == [*range(NOON + SECOND, clock.now(), SECOND)]


def test_two_projects_on_one_server_see_it_at_once(
    server: Server, tmp_path: Path
) -> None:
    for name in "one", "two":
        (tmp_path / name).mkdir()
        (tmp_path / name / "celeryconfig.py").write_text(
            f'broker_url = "{server.url()}"\nbeat_schedule = {{'
            f' "{name}": {{"task": "tasks.{name}", "schedule": 3600}},'
            ' "both": {"task": "tasks.both", "schedule": 3600, "args": [1]} }\n'
        )
    with beatd("-l", "info", cwd=tmp_path / "one") as one:
        one.until("leading, term")
        with beatd("-l", "info", cwd=tmp_path / "two") as two:
            two.until("goes by other entries: nobody emits 'two'; 1 more")
            assert "beat_namespace" in two.output
            assert "'both'" not in two.output
        checked = ended("check", "--broker", cwd=tmp_path / "two")
        assert checked.returncode == 1
        assert "nobody emits 'two'" in checked.stdout
        assert ended("check", "--broker", cwd=tmp_path / "one").returncode == 0
    assert "differ" not in one.output
