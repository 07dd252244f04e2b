"""What became of each slot: pages, rows, bounds, and who tells of it."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from beatd.brokers.items import MOST_PAGES
from beatd.errors import BrokerRefused, BrokerUnavailable
from beatd.instant import HOUR, MINUTE, SECOND, Instant
from beatd.message import MessageFormat, template
from beatd.routing import Route
from beatd.scheduler.chronicle import FOLD, MOST_UNTOLD, Chronicle
from beatd.scheduler.loop import Scheduler
from beatd.schedules.interval import Every
from beatd.timetable.entry import Overlap
from beatd.timetable.history import UNLIMITED, History, HistoryLimits
from beatd.timetable.pages import (
    EVERYWHERE,
    Page,
    Record,
    Told,
    What,
    batch_page,
    told_page,
)
from tests.brokers.making import lead
from tests.fakes import NOON, FakeClock, FlakyBroker, entry, scheduler_of

TICK = entry("tick", Every(MINUTE))
EACH = entry("each", Every(10 * SECOND), coalesce=False)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def broker(clock: FakeClock) -> FlakyBroker:
    return FlakyBroker(clock)


def page(number: int, *slots: Instant, entry: str = "a", letters: str = "") -> Page:
    """Return a page that tells of slots of one entry, each of which was sent."""
    at = max(slots)
    packed = batch_page(at, 0, [entry] * len(slots), slots, {}, [], [])
    return Page(number, f"{letters or 'q' * len(slots)} ".encode() + packed)


def kept(broker: FlakyBroker) -> History:
    """Return all of the history, that in pages included."""
    rows, pages = broker.read_history()
    history = History(rows)
    history.fold(pages)
    return history


def shown(history: History, entry: str) -> list[tuple[object, ...]]:
    """Return what became of an entry's slots, in seconds after noon."""
    return [
        ((one.slot - NOON) / SECOND, str(one.what), one.why, one.number)
        for one in history.of(entry).records
    ]


def live(scheduler: Scheduler, until: Instant, nap: int = SECOND) -> None:
    """Let the scheduler tick once a second until then."""
    clock = scheduler.clock
    assert isinstance(clock, FakeClock)
    while clock.now() < until:
        scheduler.tick(clock.now())
        clock.go_to(clock.now() + nap)


# Pages and rows ----------------------------------------------------------------------


def test_a_record_says_how_late_a_slot_was_sent() -> None:
    history = History({})
    packed = batch_page(NOON + 7, 3, ["a"], [NOON], {}, [], [])
    history.fold([Page(1, b"q " + packed)])

    [record] = history.of("a").records
    assert record == Record(NOON, 7, What.SENT, 3)
    assert record.at == NOON + 7


def test_only_what_was_done_is_told() -> None:
    history = History({})
    history.fold([page(1, *range(NOON, NOON + 4), letters="qkrd")])

    assert [(one.slot, one.what, one.why) for one in history.of("a").records] == [
        (NOON, What.SENT, ""),
        (NOON + 3, What.DROPPED, "unroutable"),
    ]


def test_a_page_that_is_folded_already_is_passed_over() -> None:
    history = History({})
    history.fold([page(1, NOON), page(2, NOON + 1)])
    rows, _ = history.changes()

    again = History(rows)
    again.fold([page(2, NOON + 1), page(3, NOON + 2)])

    assert [one.slot for one in again.of("a").records] == [NOON, NOON + 1, NOON + 2]
    assert again.lost == []


def test_the_history_begins_with_its_first_page() -> None:
    history = History({})
    assert history.since is None

    history.fold([page(8, NOON)])

    assert history.since == history.of("a").since == history.of("b").since == NOON
    assert history.lost == []  # what came before is told by `since`


@pytest.mark.parametrize("odd", [b"q none", b"", b"q \x78\x9c", b"\xff"])
def test_pages_that_are_missing_or_unreadable_are_lost(odd: bytes) -> None:
    history = History({})
    history.fold([page(1, NOON), Page(2, odd), page(4, NOON + 9)])

    assert history.lost == [(NOON, NOON + 9)]
    assert [one.slot for one in history.of("a").records] == [NOON, NOON + 9]
    assert history.unreadable == [f"no page of a history: {odd!r}"]


def test_a_row_that_cannot_be_read_stays_as_it_is() -> None:
    history = History({"a": b"\xc1"})
    history.fold([page(1, NOON), page(2, NOON, entry="b")])

    rows, gone = history.changes()
    assert ({*rows}, gone) == ({EVERYWHERE, "b"}, [])
    history.fold([page(3, NOON + MINUTE)])
    assert history.unreadable == ["the row of 'a'"]
    assert history.of("a").records == []


def test_a_head_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(ValueError, match="no head"):
        History({EVERYWHERE: b"\xc1"})


def test_losses_are_bounded() -> None:
    history = History({})
    lost = [
        (EVERYWHERE, Record(NOON + 10 * at, 0, What.LOST, last=NOON + 10 * at + 5))
        for at in range(30)
    ]
    history.fold([Page(1, b" " + told_page(NOON, 0, lost))])

    assert len(history.lost) == 20
    assert history.lost[0] == (NOON, NOON + 105)
    assert history.lost[-1] == (NOON + 290, NOON + 295)


# Bounds ----------------------------------------------------------------------------


def test_an_entry_keeps_its_last_records() -> None:
    history = History({}, HistoryLimits(per_entry=3, size=0))
    history.fold([page(at, NOON + at) for at in range(1, 6)])

    past = history.of("a")
    assert [one.slot for one in past.records] == [NOON + 3, NOON + 4, NOON + 5]
    assert past.since == NOON + 2


def test_an_entry_that_seldom_runs_keeps_its_runs_beside_one_that_often_does() -> None:
    history = History({}, HistoryLimits(per_entry=0, size=1000))
    history.fold([page(1, NOON, entry="seldom"), page(2, NOON + 1, entry="seldom")])
    for at in range(3, 500):
        history.fold([page(at, NOON + at)])

    assert [one.slot for one in history.of("seldom").records] == [NOON, NOON + 1]
    often = history.of("a")
    assert [one.slot for one in often.records] == [*range(often.since + 1, NOON + 500)]
    assert len(often.records) > 40
    rows, _ = history.changes()
    assert sum(len(name) + len(row) for name, row in rows.items()) < 1100


def test_of_too_many_entries_those_that_ran_last_keep_a_record() -> None:
    history = History({}, HistoryLimits(per_entry=0, size=1000))
    for at in range(1, 100):
        history.fold([page(at, NOON + at, entry=f"entry-{at}")])

    names = [*history]
    assert names == [f"entry-{at}" for at in range(100 - len(names), 100)]
    assert history.of("entry-1") == (history.since, [])
    assert history.since == NOON + 99 - len(names)
    rows, gone = history.changes()
    assert "entry-1" in gone
    assert "entry-1" not in rows


def test_slots_of_a_clock_that_was_wrong_hide_none_of_those_after_it() -> None:
    history = History({}, HistoryLimits(per_entry=2, size=0))
    far = NOON + 1000 * HOUR
    slots = (NOON, far, NOON + 5, NOON + 9)
    history.fold([page(number, slot) for number, slot in enumerate(slots, 1)])

    assert history.of("a").since == NOON + 4


# The scheduler ---------------------------------------------------------------------


def test_each_slot_of_a_running_scheduler_is_in_the_history(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    live(scheduler_of(EACH, broker=broker, clock=clock), NOON + 10 * MINUTE)

    slots = [one.slot for one in kept(broker).of("each").records]
    assert slots == broker.slots("each") == [*range(NOON + 10_000, clock.now(), 10_000)]
    assert kept(broker).since == NOON


def test_pages_are_folded_when_nothing_is_due(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(EACH, broker=broker, clock=clock)
    live(scheduler, NOON + FOLD)
    assert len(broker.read_pages(MOST_PAGES)) == 2  # of the term's beginning, too

    live(scheduler, NOON + FOLD + 2 * SECOND)

    rows, pages = broker.read_history()
    assert pages == []
    assert [one.slot for one in History(rows).of("each").records] == [NOON + 10_000]


def test_many_pages_are_folded_turn_by_turn(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    entries = [entry(f"e{at}", Every(MINUTE)) for at in range(4500)]
    scheduler = scheduler_of(*entries, broker=broker, clock=clock)
    live(scheduler, NOON + MINUTE)
    turns = []
    while scheduler.tick(clock.now()) == clock.now():
        turns.append(len(broker.read_pages(MOST_PAGES)))

    # None is folded before the burst is over, and then two in a turn.
    assert turns == [1, 2, 3, 4, 3, 1]
    assert broker.read_pages(9) == []
    assert len([*kept(broker)]) == 4500


def test_drops_are_in_the_history_with_their_reason_and_number(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    late = entry("late", Every(MINUTE), misfire_grace=30 * SECOND)
    off = entry("off", Every(MINUTE), enabled=False)
    scheduler = scheduler_of(TICK, late, off, broker=broker, clock=clock)
    scheduler.tick(clock.now())
    clock.go_to(NOON + 5 * MINUTE + 40 * SECOND)
    live(scheduler, clock.now() + 3 * SECOND)

    history = kept(broker)
    assert shown(history, "tick") == [
        (60, "dropped", "coalesced", 4),
        (300, "sent", "", 1),
    ]
    assert shown(history, "late") == [(60, "dropped", "misfire", 5)]
    assert shown(history, "off") == [(60, "dropped", "paused", 5)]
    assert history.of("off").records[0].last == NOON + 5 * MINUTE


def test_a_slot_whose_message_reaches_no_queue_is_in_the_history_as_unroutable(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    message = template(MessageFormat(), Route("", "media", "video"), "t")
    lost = replace(TICK, message=message)
    scheduler = scheduler_of(lost, broker=broker, clock=clock)
    live(scheduler, NOON + MINUTE + SECOND)

    assert shown(kept(broker), "tick") == [(60, "dropped", "unroutable", 1)]


def test_a_refusal_is_told_when_it_ends(broker: FlakyBroker, clock: FakeClock) -> None:
    broker.closed["celery"] = "it is closed"
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    live(scheduler, NOON + MINUTE + 30 * SECOND)
    assert shown(kept(broker), "tick") == []

    del broker.closed["celery"]
    live(scheduler, NOON + 3 * MINUTE)

    sent, refused, _ = kept(broker).of("tick").records
    assert (sent.slot, sent.what, sent.at) == (NOON + MINUTE, What.SENT, refused.at)
    assert (refused.slot, refused.what) == (NOON + MINUTE, What.REFUSED)
    assert refused.why == "the queue celery: it is closed"
    assert 30 * SECOND <= refused.late <= 60 * SECOND


def test_a_hold_is_told_when_it_ends(broker: FlakyBroker, clock: FakeClock) -> None:
    alone = entry("alone", Every(MINUTE), overlap=Overlap.QUEUE_ONE)
    scheduler = scheduler_of(alone, broker=broker, clock=clock)
    live(scheduler, NOON + 2 * MINUTE + 30 * SECOND)
    run = broker.running(["alone"])["alone"]
    broker.end_runs({"alone": run})
    live(scheduler, NOON + 3 * MINUTE)

    _, sent, held = kept(broker).of("alone").records
    assert (sent.slot, held.slot) == (NOON + 2 * MINUTE, NOON + 2 * MINUTE)
    assert (held.what, held.why) == (What.HELD, f"its run {run}")
    assert 30 * SECOND <= held.late <= 32 * SECOND


def test_a_batch_whose_answer_is_lost_is_in_the_history_once(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    live(scheduler, NOON + MINUTE)
    broker.loses_answers = True
    live(scheduler, NOON + MINUTE + 2 * SECOND)
    broker.loses_answers = False
    live(scheduler, NOON + 2 * MINUTE)

    assert shown(kept(broker), "tick") == [(60, "sent", "", 1)]


def test_an_entry_that_is_new_or_changed_is_told_to_begin(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(TICK, EACH, broker=broker, clock=clock)
    live(scheduler, NOON + 90 * SECOND)
    changed = replace(TICK, schedule=Every(2 * MINUTE))
    new = entry("new", Every(MINUTE))
    scheduler.replace({one.name: one for one in (changed, EACH, new)}, (), ())
    live(scheduler, NOON + 130 * SECOND)

    history = kept(broker)
    assert shown(history, "tick") == [
        (60, "sent", "", 1),
        (90, "began", "", 1),
        (120, "sent", "", 1),
    ]
    assert shown(history, "new") == [(90, "began", "", 1), (120, "sent", "", 1)]
    assert {what for _, what, *_ in shown(history, "each")} == {"sent"}


def test_a_broker_that_was_set_back_has_lost_history_and_names_uncertain_slots(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(EACH, TICK, broker=broker, clock=clock)
    live(scheduler, NOON + 25 * SECOND)
    snapshot = broker.snapshot()
    live(scheduler, NOON + 45 * SECOND)
    broker.restore(snapshot)
    live(scheduler, NOON + 85 * SECOND)

    history = kept(broker)
    [(first, last)] = history.lost
    assert (first - NOON, last - NOON) == (20 * SECOND, 46 * SECOND)
    told = shown(history, "each")
    assert [seconds for seconds, what, *_ in told if what == "sent"] == [
        *(10, 20, 50, 60, 70, 80)
    ]
    assert [one[:2] for one in told if one[1] == "uncertain"] == [
        *((30, "uncertain"), (40, "uncertain"))
    ]


def test_an_emptied_broker_begins_a_new_history(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(EACH, broker=broker, clock=clock)
    live(scheduler, NOON + 25 * SECOND)
    broker.lose_all()
    live(scheduler, NOON + 65 * SECOND)

    history = kept(broker)
    assert history.since == NOON + 27 * SECOND
    assert [one.slot for one in history.of("each").records] == [
        NOON + seconds * SECOND for seconds in (30, 40, 50, 60)
    ]


def test_without_records_no_history_is_kept(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    scheduler = scheduler_of(TICK, broker=broker, clock=clock)
    scheduler.takeover.history = UNLIMITED
    scheduler = replace(scheduler)
    live(scheduler, NOON + 3 * MINUTE)

    assert broker.slots() == [NOON + MINUTE, NOON + 2 * MINUTE]
    assert broker.read_history() == ({}, [])


def test_a_history_that_the_broker_refuses_holds_up_no_emission(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Forbidding(FlakyBroker):
        def read_history(self) -> Any:
            raise BrokerRefused("NOPERM no permission for the key history")

    broker = Forbidding(clock)
    live(scheduler_of(TICK, broker=broker, clock=clock), NOON + 5 * MINUTE)

    assert len(broker.slots()) == 4
    said = [one for one in caplog.records if "history" in one.__dict__["event"]]
    assert "NOPERM no permission" in said[0].message
    assert len(said) <= 5


class Losing(FlakyBroker):
    """A broker whose answer to the first fold is lost."""

    folds = 0

    def fold_pages(self, *asked: Any) -> None:
        super().fold_pages(*asked)
        self.folds += 1
        if self.folds == 1:
            raise BrokerUnavailable("the connection was cut")


def test_a_fold_whose_answer_is_lost_is_not_done_twice(clock: FakeClock) -> None:
    broker = Losing(clock)
    live(scheduler_of(EACH, broker=broker, clock=clock), NOON + 2 * MINUTE)

    assert broker.folds > 2
    slots = [one.slot for one in kept(broker).of("each").records]
    assert slots == broker.slots()
    assert kept(broker).lost == []


def fold_twice(broker: FlakyBroker, clock: FakeClock, *told: Told) -> None:
    """Have the history kept, with what no page tells, and once more."""
    term = lead(broker)
    chronicle = Chronicle(broker, clock, HistoryLimits(MOST_UNTOLD * 2, 0))
    chronicle.tell(*told)
    for _ in range(2):
        broker.write_ledger(term, {}, (), 0, page=told_page(NOON, 0, []))
        clock.go_to(clock.now() + FOLD)
        with suppress(BrokerUnavailable):
            chronicle.fold(term, clock.now(), 0)


def test_what_no_page_tells_is_there_once_though_the_answer_is_lost(
    clock: FakeClock,
) -> None:
    broker, held = Losing(clock), Record(NOON, 5, What.HELD, why="its run")
    fold_twice(broker, clock, ("a", held))

    assert broker.folds == 2
    assert [*kept(broker).of("a").records] == [held]


def test_what_no_page_tells_is_kept_though_nothing_is_emitted_after_it(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    chronicle = Chronicle(broker, clock, HistoryLimits(100, 0))
    held = Record(NOON, 5, What.HELD, why="its run")
    chronicle.tell(("a", held))
    term = lead(broker)
    clock.go_to(clock.now() + FOLD)
    while chronicle.fold(term, clock.now(), 0):
        pass

    assert [*kept(broker).of("a").records] == [held]
    rows, pages = broker.read_history()
    assert rows.keys() == {EVERYWHERE, "a"}
    assert not pages


def test_of_what_waits_to_be_kept_the_oldest_goes_first(
    broker: FlakyBroker, clock: FakeClock
) -> None:
    number = MOST_UNTOLD + 5
    told = [("a", Record(NOON + n, 0, What.HELD)) for n in range(number)]
    fold_twice(broker, clock, *told)

    slots = [one.slot - NOON for one in kept(broker).of("a").records]
    assert slots == [*range(5, number)]
