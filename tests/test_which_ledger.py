"""Which ledger is right when a broker has lost data: histories of schedulers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from beatd.brokers.items import Emitted, idle
from beatd.errors import BrokerUnavailable, LedgerMoved, TermOver
from beatd.instant import DAY, HOUR, SECOND, Instant, Span
from beatd.scheduler.leadership import STANDBY_LOOK
from beatd.scheduler.loop import Scheduler
from beatd.schedules.interval import Every
from beatd.timetable.ledger import NO_EDITION, Edition, LedgerCopy
from tests.fakes import (
    NOON,
    TTL,
    FakeClock,
    FakeFile,
    FlakyBroker,
    entry,
    scheduler_of,
)

EACH = entry("each", Every(10 * SECOND), coalesce=False)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def broker(clock: FakeClock) -> FlakyBroker:
    return FlakyBroker(clock)


def fresh(broker: FlakyBroker, file: FakeFile | None = None, **more: Any) -> Scheduler:
    assert isinstance(broker._clock, FakeClock)
    return scheduler_of(EACH, broker=broker, clock=broker._clock, file=file, **more)


def live(
    until: Instant, *schedulers: Scheduler, nap: Span = STANDBY_LOOK
) -> FlakyBroker:
    """Let time pass until an instant; all of them tick as often as a standby does."""
    clock, broker = schedulers[0].clock, schedulers[0].broker
    assert isinstance(clock, FakeClock)
    assert isinstance(broker, FlakyBroker)
    while clock.now() < until:
        for scheduler in schedulers:
            scheduler.tick(clock.now())
        clock.go_to(clock.now() + nap)
    return broker


def every_ten_seconds(until: Instant) -> list[Instant]:
    return list(range(NOON + 10 * SECOND, until + 1, 10 * SECOND))


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__.get("event", "") for record in caplog.records]


def test_a_broker_emptied_twice_within_a_minute_doubles_nothing(
    broker: FlakyBroker,
) -> None:
    leader, standby = fresh(broker), fresh(broker)
    live(NOON + 25 * SECOND, leader, standby)

    for end in (45, 75):
        broker.lose_all()
        live(NOON + end * SECOND, standby, leader)

    assert leader.leadership.term is not None
    assert broker.slots() == every_ten_seconds(NOON + 75 * SECOND)


def test_a_broker_emptied_twice_within_seconds_doubles_nothing(
    broker: FlakyBroker,
) -> None:
    leader, standby = fresh(broker), fresh(broker)
    live(NOON + 25 * SECOND, leader, standby)

    for end in (27, 30, 33, 75):
        broker.lose_all()
        live(NOON + end * SECOND, standby, leader)

    assert broker.slots() == every_ten_seconds(NOON + 75 * SECOND)


def test_a_snapshot_that_is_restored_under_a_living_leader_doubles_nothing(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    file = FakeFile()
    leader, standby = fresh(broker, file), fresh(broker)
    live(NOON + 25 * SECOND, leader, standby)
    snapshot = broker.snapshot()
    live(NOON + 45 * SECOND, leader, standby)

    broker.restore(snapshot)
    broker.renew(snapshot["_term"], TTL)  # a lead that is not over is restored, too
    live(NOON + 95 * SECOND, leader, standby)

    assert broker.slots() == every_ten_seconds(NOON + 95 * SECOND)
    assert events(caplog).count("ledger.set_back") == 1
    said = next(r for r in caplog.records if r.__dict__["event"] == "ledger.set_back")
    named = "each 2027-01-15 12:00:30+00:00, each 2027-01-15 12:00:40+00:00"
    assert named in said.message
    assert file.dropped == {("each", "uncertain"): 2}
    assert file.uncertain == [
        ("each", NOON + 30 * SECOND),
        ("each", NOON + 40 * SECOND),
    ]


def test_a_snapshot_that_is_restored_with_another_lead_doubles_nothing(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    leader, standby = fresh(broker), fresh(broker)
    live(NOON + 25 * SECOND, leader, standby)
    snapshot = broker.snapshot()
    live(NOON + 45 * SECOND, leader, standby)

    broker.restore(snapshot | {"_lead_ends": 0})
    live(NOON + 95 * SECOND, standby, leader)

    assert leader.leadership.term is not None
    assert broker.slots() == every_ten_seconds(NOON + 95 * SECOND)
    assert events(caplog).count("ledger.set_back") == 1


def test_a_standby_that_was_not_told_the_last_version_leaves_the_lead_to_who_knows(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    leader, standby = fresh(broker), fresh(broker)
    live(NOON + 30 * SECOND, leader, standby)
    snapshot = broker.snapshot()
    leader.tick(NOON + 30 * SECOND)  # the standby has not asked since

    broker.restore(snapshot | {"_lead_ends": 0})
    live(NOON + 65 * SECOND, standby, leader)

    assert leader.leadership.term is not None
    assert broker.slots() == every_ten_seconds(NOON + 65 * SECOND)
    assert events(caplog).count("lead.aside") == 1
    assert events(caplog).count("ledger.set_back") == 1


def test_a_leader_that_comes_back_too_late_names_what_may_run_twice(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    file = FakeFile()
    leader, standby = fresh(broker, file), fresh(broker)
    live(NOON + 30 * SECOND, leader, standby)
    snapshot = broker.snapshot()
    leader.tick(NOON + 30 * SECOND)

    broker.restore(snapshot | {"_lead_ends": 0})
    live(NOON + 45 * SECOND, standby)  # the leader stands still meanwhile
    live(NOON + 65 * SECOND, standby, leader)

    said = [r for r in caplog.records if r.levelname == "WARNING"]
    assert [r.__dict__["event"] for r in said if "ledger" in r.__dict__["event"]] == [
        "ledger.gap",
        "ledger.parted",
    ]
    assert "each 2027-01-15 12:00:30+00:00" in said[-1].message
    assert file.uncertain == [("each", NOON + 30 * SECOND)]
    assert file.dropped == {("each", "uncertain"): 1}
    doubled = [NOON + 30 * SECOND]
    assert sorted(broker.slots()) == sorted(
        [*every_ten_seconds(NOON + 65 * SECOND), *doubled]
    )


def test_a_lead_that_ran_out_under_the_eyes_of_a_standby_is_taken_at_once(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    leader, standby = fresh(broker), fresh(broker)
    live(NOON + 25 * SECOND, leader, standby)

    live(NOON + 45 * SECOND, standby)

    assert broker.slots() == every_ten_seconds(NOON + 45 * SECOND)
    assert "lead.aside" not in events(caplog)


def test_a_lead_that_is_given_back_is_taken_at_once(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    leader, standby = fresh(broker), fresh(broker)
    live(NOON + 25 * SECOND, leader, standby)

    leader.stop()
    standby.tick(NOON + 25 * SECOND)

    assert standby.leadership.term is not None
    assert "lead.aside" not in events(caplog)


def test_a_replica_that_lacks_the_last_write_doubles_nothing(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    file = FakeFile()
    leader = fresh(broker, file)
    live(NOON + 25 * SECOND, leader)
    replica = broker.snapshot()
    live(NOON + 31 * SECOND, leader)
    leader.stop()

    broker.restore(replica)
    clock.go_to(NOON + 35 * SECOND)
    live(NOON + 65 * SECOND, fresh(broker, file))

    assert broker.slots() == every_ten_seconds(NOON + 65 * SECOND)
    assert file.dropped == {("each", "uncertain"): 1}


def test_lost_writes_are_sent_again_under_the_same_ids_if_wanted(
    broker: FlakyBroker,
) -> None:
    leader = fresh(broker, resend=True)
    live(NOON + 15 * SECOND, leader)
    snapshot = broker.snapshot()
    live(NOON + 45 * SECOND, leader)
    sent = [one.message for one in broker.emitted]

    broker.restore(snapshot)
    live(NOON + 65 * SECOND, leader)

    tens = [(slot - NOON) // SECOND for slot in broker.slots()]
    assert tens == [10, 20, 30, 40, 20, 30, 40, 50, 60]
    ids = [message[message.index(b'"id"') :][:50] for message in sent[1:]]
    again = [one.message for one in broker.emitted[4:7]]
    assert [message[message.index(b'"id"') :][:50] for message in again] == ids
    assert broker.read_ledger().marks["each"].runs == 6


def test_lost_writes_that_are_refused_when_sent_again_are_named(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    leader = fresh(broker, resend=True)
    live(NOON + 15 * SECOND, leader)
    snapshot = broker.snapshot()
    live(NOON + 45 * SECOND, leader)

    broker.restore(snapshot)
    broker.closed["celery"] = "it is closed"
    live(NOON + 49 * SECOND, leader)
    del broker.closed["celery"]
    live(NOON + 65 * SECOND, leader)

    tens = [(slot - NOON) // SECOND for slot in broker.slots()]
    assert tens == [10, 20, 30, 40, 50, 60]
    [said] = [r for r in caplog.records if r.levelname == "ERROR"]
    assert said.__dict__["event"] == "emit.not_sent_again"
    assert "12:00:20+00:00 on is refused" in said.message


def test_an_emptied_broker_at_which_a_new_scheduler_comes_first_waits_for_the_leader(
    broker: FlakyBroker,
) -> None:
    leader = fresh(broker)
    live(NOON + 45 * SECOND, leader)

    broker.lose_all()
    live(NOON + 95 * SECOND, fresh(broker), leader)

    assert leader.leadership.term is not None
    assert broker.slots() == every_ten_seconds(NOON + 95 * SECOND)


def test_who_led_last_founds_an_emptied_ledger_anew_at_once_above_all_versions(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    file = FakeFile()
    leader = fresh(broker, file)
    live(NOON + 45 * SECOND, leader)
    before = broker.read_ledger().edition

    broker.lose_all()
    live(NOON + 48 * SECOND, leader)

    edition = broker.read_ledger().edition
    assert edition.lineage == before.lineage
    assert edition.version > before.version
    assert file.edition == edition
    assert "lead.aside" not in events(caplog)


def test_an_emptied_broker_whose_leader_is_gone_goes_on_from_the_newest_copy(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    leader, standby = fresh(broker), fresh(broker)
    live(NOON + 62 * SECOND, leader, standby)  # the copy is of a minute ago
    live(NOON + 75 * SECOND, leader)

    broker.lose_all()
    live(NOON + 95 * SECOND, standby)

    slots = broker.slots()
    assert sorted(set(slots)) == every_ten_seconds(NOON + 95 * SECOND)
    assert set(slots[:7]) >= set(slots[7:-2])  # once more, at most
    assert max(map(slots.count, slots)) <= 2
    said = [r for r in caplog.records if r.__dict__["event"] == "ledger.founded"]
    assert [(r.levelname, "once more" in r.message) for r in said] == [
        ("WARNING", True)
    ]


def test_at_a_new_broker_a_first_scheduler_waits_and_draws_a_lineage(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    broker.lose_all()
    first, second = fresh(broker), fresh(broker)

    live(NOON + 2 * TTL // 3, first, second)
    assert broker.read_ledger().edition == NO_EDITION
    live(NOON + TTL, first, second)

    assert broker.read_ledger().edition.lineage
    assert [bool(one.leadership.term) for one in (first, second)].count(True) == 1
    said = [r for r in caplog.records if r.__dict__["event"] == "lead.aside"]
    assert {(r.levelname, r.message[:28]) for r in said} == {
        ("INFO", "the broker has no ledger yet")
    }


def test_who_waits_alone_at_a_new_broker_does_not_say_that_another_leads(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    broker.lose_all()
    alone = fresh(broker)

    live(NOON + 2 * TTL, alone)

    assert alone.leadership.term is not None
    assert "lead.aside" in events(caplog)
    assert "standby" not in events(caplog)


def test_who_waited_for_a_leader_names_it_when_it_leads(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    broker.lose_all()
    two = fresh(broker), fresh(broker)

    live(NOON + 3 * TTL, *two)

    assert [one.leadership.term for one in two].count(None) == 1
    assert events(caplog).count("standby") == 1


def test_a_lead_that_outlives_the_data_needs_no_waiting(broker: FlakyBroker) -> None:
    broker.lose_all()
    broker.lead_outlives_data = True
    scheduler = fresh(broker)

    scheduler.tick(NOON)

    assert scheduler.leadership.term is not None
    assert broker.read_ledger().edition.version == 1


def test_an_entry_that_was_removed_comes_back_as_new_beside_an_older_file(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    old = FakeFile()
    leader = fresh(broker, old)
    live(NOON + 15 * SECOND, leader)
    leader.stop()
    without = scheduler_of(entry("x", Every(DAY)), broker=broker, clock=clock)
    live(NOON + 45 * SECOND, without)
    without.stop()

    live(NOON + 55 * SECOND, fresh(broker, old))

    assert broker.slots("each") == [NOON + 10 * SECOND, NOON + 50 * SECOND]


def test_an_old_file_of_a_later_clock_era_changes_nothing(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    old = FakeFile()
    leader = fresh(broker, old)
    live(NOON + 15 * SECOND, leader)
    leader.stop()
    old.era = 7
    other = fresh(broker)
    live(NOON + 45 * SECOND, other)
    other.stop()

    heir = fresh(broker, old)
    live(NOON + 65 * SECOND, heir)

    assert broker.slots() == every_ten_seconds(NOON + 65 * SECOND)
    assert heir.era == old.era == 0


def test_a_row_that_the_broker_cannot_read_is_taken_from_the_copy(
    broker: FlakyBroker,
) -> None:
    file = FakeFile()
    leader = fresh(broker, file)
    live(NOON + 15 * SECOND, leader)
    leader.stop()
    damaged = broker._ledger.pop("each")

    class Damaged(FlakyBroker):
        def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
            return replace(super().read_ledger(on_part), unreadable=("each",))

    broker.__class__ = Damaged
    heir = fresh(broker, file)
    heir.tick(NOON + 15 * SECOND)

    assert heir.timetable.mark("each") == damaged


def test_a_file_of_another_lineage_is_kept_under_its_name_and_not_used(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = FakeFile()
    theirs = fresh(FlakyBroker(clock), foreign)
    theirs.tick(NOON)
    theirs.stop()
    foreign.edition = Edition("theirs", 9)
    clock.go_to(NOON + HOUR)

    live(NOON + HOUR + 15 * SECOND, fresh(broker, foreign))

    assert broker.slots() == [NOON + HOUR + 10 * SECOND]
    assert foreign.kept["theirs"]["each"].slot == NOON
    assert foreign.edition.lineage == "before"
    assert events(caplog).count("ledger.other") == 1


def test_a_file_of_an_earlier_build_is_version_0_of_what_is_there(
    broker: FlakyBroker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    file = FakeFile()
    first = fresh(broker, file)
    live(NOON + 15 * SECOND, first)
    first.stop()
    file.edition = NO_EDITION
    broker._edition = NO_EDITION

    live(NOON + 45 * SECOND, fresh(broker, file))

    assert broker.slots() == every_ten_seconds(NOON + 45 * SECOND)
    assert file.edition == broker.read_ledger().edition != NO_EDITION
    assert not {"ledger.set_back", "ledger.other", "lead.aside"} & {*events(caplog)}


def test_rows_of_entries_that_cannot_be_read_now_outlive_an_emptied_broker(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = fresh(broker)
    live(NOON + 15 * SECOND, scheduler)
    scheduler.replace({}, keep=["each"], queues=())
    live(NOON + 20 * SECOND, scheduler)

    broker.lose_all()
    live(NOON + 25 * SECOND, scheduler)

    assert broker.read_ledger().marks["each"].slot == NOON + 10 * SECOND


def test_a_first_sending_that_the_broker_knows_is_said_and_begins_a_term_anew(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    leader = fresh(broker)
    live(NOON + 15 * SECOND, leader)
    number = leader.leadership.term
    ahead = broker._ledger["each"]._replace(slot=NOON + 20 * SECOND)
    broker._ledger["each"] = ahead  # by whatever came past the term

    live(NOON + 25 * SECOND, leader)
    live(NOON + 45 * SECOND, leader)

    assert broker.slots() == [NOON + n * SECOND for n in (10, 30, 40)]
    assert events(caplog).count("emit.known_at_first") == 1
    assert number is not None
    assert leader.leadership.term is not None
    assert leader.leadership.term.number > number.number


def test_a_repeated_sending_that_the_broker_knows_is_ordinary(
    broker: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    leader = fresh(broker)
    live(NOON + 15 * SECOND, leader)
    term = leader.leadership.term
    broker.loses_answers = True
    live(NOON + 21 * SECOND, leader)
    broker.loses_answers = False
    live(NOON + 35 * SECOND, leader)

    assert broker.slots() == every_ten_seconds(NOON + 35 * SECOND)
    assert "emit.known_at_first" not in events(caplog)
    assert leader.leadership.term == term


def test_a_second_writer_under_the_same_term_does_not_make_the_loop_run_hot(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Shared(FlakyBroker):
        moves = True

        def emit(self, *request: Any) -> list[Emitted]:
            if self.moves:
                self._edition = self._edition._replace(version=99 + clock.now())
            return super().emit(*request)

    broker = Shared(clock)
    leader = fresh(broker)
    live(NOON + 10 * SECOND, leader)
    for _ in range(12):
        clock.go_to(leader.tick(clock.now()))
    passed = clock.now() - NOON
    broker.moves = False
    live(NOON + 35 * SECOND, leader)

    assert events(caplog).count("ledger.moved") == 12
    assert 19 * SECOND < passed < 20 * SECOND
    assert broker.slots() == [NOON + n * SECOND for n in (10, 20, 30)]


@pytest.mark.parametrize(
    ("doubt", "refusal"),
    # A reload has the same request answered first: the late one finds a later ledger.
    [("a clock set back", TermOver), ("a reload", LedgerMoved)],
)
def test_an_emission_that_arrives_after_a_term_began_anew_is_refused(
    clock: FakeClock, doubt: str, refusal: type[Exception]
) -> None:
    class Holding(FlakyBroker):
        held: tuple[Any, ...] | None = None
        holds = False

        def emit(self, *request: Any) -> list[Emitted]:
            if self.holds:
                self.held = request
                raise BrokerUnavailable("no answer")
            return super().emit(*request)

    broker = Holding(clock)
    leader = fresh(broker)
    live(NOON + 15 * SECOND, leader)
    broker.holds = True
    live(NOON + 21 * SECOND, leader)
    broker.holds = False
    assert broker.held is not None
    if doubt == "a reload":
        leader.replace({"each": EACH}, keep=(), queues=())
    else:
        clock.step(-5 * SECOND)
    live(clock.now() + SECOND, leader)

    with pytest.raises(refusal):
        broker.emit(*broker.held)
