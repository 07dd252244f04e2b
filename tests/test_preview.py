"""What runs next, as people are told: exactly what a scheduler goes on to emit."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice, takewhile
from queue import SimpleQueue
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beatd.brokers.items import Emission, Emitted, Outcome, Term
from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant, Span, datetime_of
from beatd.schedules import cron
from beatd.schedules.base import Schedule, slots_between
from beatd.schedules.interval import Every, EveryFromLast, EveryRounded
from beatd.schedules.once import Once
from beatd.timetable.entry import Entry, Overlap
from beatd.timetable.ledger import Mark
from beatd.timetable.preview import ComingRuns, preview
from beatd.timetable.timetable import Timetable
from tests.fakes import (
    NOON,
    CountedSchedule,
    FakeClock,
    FlakyBroker,
    entry,
    scheduler_of,
)

SHOWN = 25
"""Runs of each entry that are compared, beside those that are overdue."""

NEVER: Instant = NOON + 500 * 365 * DAY

FOR_EVER: Span = 1000 * 365 * DAY
"""No lead runs out, and no nap is cut short: the clock goes from run to run."""


class NotingBroker(FlakyBroker):
    """A broker that notes when each entry's messages came."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.came: list[tuple[str, Instant]] = []

    def emit(self, term: Term, batch: Sequence[Emission], *rest: Any) -> list[Emitted]:
        outcomes = super().emit(term, batch, *rest)
        self.came += [
            (emission.entry, self._clock.now())
            for emission, outcome in zip(batch, outcomes, strict=True)
            if outcome is Outcome.QUEUED
        ]
        return outcomes


def emitted(
    entries: Sequence[Entry], marks: dict[str, Mark], now: Instant, end: Instant
) -> list[tuple[str, Instant]]:
    """Return what a scheduler that starts at `now` emits until `end`, and when."""
    clock = FakeClock(now, end + 1)
    broker = NotingBroker(clock)
    term = broker.acquire("who led before", FOR_EVER, 0)
    assert isinstance(term, Term)
    broker.write_ledger(term, marks, [], 0)
    broker.resign(term)
    scheduler = scheduler_of(*entries, broker=broker, clock=clock, ttl=FOR_EVER)
    scheduler.ended = lambda task_ids: task_ids
    scheduler.longest_nap = FOR_EVER
    scheduler.run(SimpleQueue(), reload=lambda: None)
    return broker.came


Situation: TypeAlias = tuple[Instant, list[Entry], dict[str, Mark]]
"""An instant, entries, and what the ledger knows of some of them then."""

# Any entry, at any time -------------------------------------------------------------

ZONES = st.sampled_from(
    [
        *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"),
        *("Australia/Lord_Howe", "Pacific/Apia"),
    ]
).map(ZoneInfo)

EXPRESSIONS = st.sampled_from(
    [
        *("* * * * *", "*/7 9-17 * * *", "30 2 * * *", "*/20 1-3 * * *"),
        *("0 0 1 * *", "15 */5 * * mon", "*/40 * * * * *", "59 23 29 2 *"),
    ]
)

INTERVALS = st.sampled_from(
    [SECOND, 7 * SECOND, MINUTE, 90 * SECOND, HOUR, 5 * HOUR, DAY, 9 * DAY]
)

NOWS = st.one_of(
    st.just(NOON),
    # In Berlin the clock changes at 01:00 UTC on 28 March and on 31 October 2027.
    st.sampled_from([1_806_195_600_000, 1_824_944_400_000]).flatmap(
        lambda change: st.integers(change - 5 * HOUR, change + 5 * HOUR)
    ),
    st.integers(NOON, NOON + 365 * DAY),
)


def schedules(now: Instant) -> st.SearchStrategy[Schedule]:
    return st.one_of(
        st.builds(lambda text, zone: cron(text).in_zone(zone), EXPRESSIONS, ZONES),
        INTERVALS.map(Every),
        INTERVALS.map(lambda every: Every(every, offset=every // 3)),
        INTERVALS.map(EveryFromLast),
        st.builds(EveryRounded, INTERVALS, ZONES),
        st.builds(lambda ago, zone: once(now - ago, zone), spans(DAY), ZONES),
    )


def once(instant: Instant, zone: ZoneInfo) -> Once:
    return Once(datetime_of(instant, zone).replace(tzinfo=None), zone)


def spans(longest: Span) -> st.SearchStrategy[Span]:
    """Return lengths of time, of any order of magnitude, either way."""
    return st.one_of(
        st.integers(-longest, longest),
        st.integers(-5 * MINUTE, 5 * MINUTE),
        st.sampled_from([-1, 0, 1]),
    )


def policies(now: Instant) -> st.SearchStrategy[dict[str, Any]]:
    bound = spans(2 * DAY).map(lambda length: now + length)
    return st.fixed_dictionaries(
        {},
        optional={
            "coalesce": st.booleans(),
            "max_catchup": st.integers(1, 300),
            "misfire_grace": st.sampled_from([0, SECOND, HOUR, DAY]),
            "start": bound,
            "end": bound,
            "max_runs": st.integers(1, 150),
            "enabled": st.sampled_from([True, True, True, False]),
            "overlap": st.sampled_from(Overlap),
        },
    )


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    now = draw(NOWS)
    entries, marks = [], {}
    for number in range(draw(st.integers(1, 3))):
        one = entry(
            f"e{number}",
            draw(schedules(now)),
            offset=draw(st.sampled_from([0, 0, 1, 7 * SECOND, 10 * MINUTE, 2 * DAY])),
            **draw(policies(now)),
        )
        entries.append(one)
        age = draw(st.one_of(st.none(), spans(3 * HOUR), spans(9 * DAY)))
        if age is not None:
            mark = one.mark_from(None, now - age)
            ran = draw(st.booleans())
            marks[one.name] = mark._replace(
                runs=draw(st.integers(0, 3)), last=mark.slot if ran else None
            )
    return now, entries, marks


def catching_up() -> Situation:
    """More slots are overdue than one decision emits."""
    one = entry("one", Every(MINUTE), coalesce=False, max_runs=120)
    return NOON, [one], {"one": one.mark_from(None, NOON - 150 * MINUTE)}


def first_of(runs: Iterator[Instant], now: Instant) -> list[Instant]:
    """Return what is overdue at `now`, and the first runs after it."""
    found: list[Instant] = []
    for run in runs:
        found.append(run)
        if len(found) >= SHOWN and found[-SHOWN] > now:
            break
    return found


def horizon(one: Entry, runs: list[Instant], now: Instant) -> Instant:
    """Return how far to look: as far as the runs were told, NEVER if that is all.

    A paused entry has none, and costs the scheduler a step for each of its slots.
    """
    if len(runs) >= SHOWN and runs[-SHOWN] > now:
        return runs[-1]
    if one.policy.enabled:
        return NEVER
    slots = slots_between(one.schedule, one.schedule.next_after(now) or NEVER, NEVER)
    return [now, *islice(slots, SHOWN)][-1]


@settings(max_examples=300)  # rare things meet: a pause, a bound, a backlog
@given(situations())
@example(catching_up())
def test_what_is_told_to_run_next_is_what_a_scheduler_emits(
    situation: Situation,
) -> None:
    now, entries, marks = situation
    told = {
        name: first_of(runs.since(now), now)
        for name, runs in preview(entries, marks, now).items()
    }
    end = min(horizon(one, told[one.name], now) for one in entries)
    if end == NEVER:
        end = max([now, *chain(*told.values())]) + DAY

    came = emitted(entries, marks, now, end)

    for name, runs in told.items():
        expected = [at for at in runs if at <= end]
        assert [at for one, at in came if one == name] == expected


# Skipping ahead ---------------------------------------------------------------------

BERLIN = ZoneInfo("Europe/Berlin")

KINDS = {
    "cron": entry("cron", cron("*/7 9-17 * * *").in_zone(BERLIN)),
    "fixed": entry("fixed", cron("30 2 * * *").in_zone(BERLIN), offset=7 * MINUTE),
    "every": entry("every", Every(90 * SECOND)),
    "from last": entry("from last", EveryFromLast(100 * SECOND)),
    "rounded": entry("rounded", EveryRounded(7 * MINUTE, BERLIN)),
    "once": entry("once", once(NOON + 19 * HOUR, BERLIN)),
    "bounded": entry(
        "bounded", Every(MINUTE), start=NOON + 7 * HOUR, end=NOON + 8 * HOUR
    ),
    "counted": entry("counted", Every(MINUTE), max_runs=700),
    "started": entry("started", EveryFromLast(HOUR), start=NOON + 11 * HOUR + 7),
}


def runs_of(one: Entry, mark: Mark, now: Instant = NOON) -> ComingRuns:
    return preview([one], {one.name: mark}, now)[one.name]


@pytest.mark.parametrize("name", KINDS)
def test_the_first_run_is_what_the_timetable_waits_for(name: str) -> None:
    one = KINDS[name]
    mark = one.mark_from(None, NOON)
    timetable = Timetable()
    timetable.place([one], {name: mark}, NOON)

    assert runs_of(one, mark).first() == timetable.next_at()


@pytest.mark.parametrize("begin", [NOON, NOON + 10 * HOUR, NOON + 30 * DAY])
@pytest.mark.parametrize("name", KINDS)
def test_runs_from_a_later_beginning_are_those_that_one_comes_to(
    name: str, begin: Instant
) -> None:
    runs = runs_of(KINDS[name], KINDS[name].mark_from(None, NOON - 17 * SECOND))
    end = begin + 2 * DAY

    later = takewhile(lambda run: run < end, runs.since(begin))

    each = takewhile(lambda run: run < end, runs.since(NOON))
    assert [*later] == [run for run in each if run >= begin]


def test_skipping_ahead_takes_one_step_however_far() -> None:
    counted = CountedSchedule()
    runs = runs_of(entry("one", counted), Mark(NOON, ""))
    counted.asked.clear()

    assert next(runs.since(NOON + 3650 * DAY)) == NOON + 3650 * DAY
    assert len(counted.asked) <= 2


# What is overdue --------------------------------------------------------------------


def test_overdue_runs_are_counted_in_one_pass() -> None:
    schedule = CountedSchedule()
    late = entry("late", schedule, coalesce=False, overlap=Overlap.SKIP)

    runs = preview([late], {"late": Mark(NOON - 900 * MINUTE, "counted")}, NOON)

    assert runs["late"].overdue == 900
    assert len(schedule.asked) < 2 * 900


def test_equal_schedules_share_one_computation() -> None:
    counted = CountedSchedule()
    many = [entry(f"e{n}", counted) for n in range(500)]
    marks = {one.name: one.mark_from(None, NOON) for one in many}

    coming = preview(many, marks, NOON)

    assert len(set(coming.values())) == 1
    assert len(counted.asked) == 1


def test_a_changed_schedule_counts_from_now() -> None:
    first = runs_of(KINDS["every"], Mark(NOON - DAY, "another schedule")).first()

    assert first is not None
    assert first > NOON


def test_what_is_overdue_is_one_run_now_and_then_goes_on() -> None:
    every = KINDS["every"]

    now, then = islice(
        runs_of(every, every.mark_from(None, NOON - HOUR)).since(NOON), 2
    )

    assert now == NOON
    assert 0 < then - NOON <= 90 * SECOND


def test_an_entry_whose_end_has_passed_runs_no_more() -> None:
    bounded = KINDS["bounded"]
    later = NOON + DAY + MINUTE

    assert len([*preview([bounded], {}, NOON)["bounded"].since(NOON)]) == 61
    assert preview([bounded], {}, later)["bounded"].first() is None
