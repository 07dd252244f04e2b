"""The timetable: what is due, in which order, at what cost."""

from collections.abc import Iterable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant, Span
from beatd.schedules.interval import Every
from beatd.timetable.entry import Due, Entry, Policy
from beatd.timetable.ledger import Mark
from beatd.timetable.timetable import Timetable
from tests.fakes import NOON, CountedSchedule, entry

LIMIT = 1000


@dataclass(frozen=True)
class FixedTime:
    """Noon of every day, as a fixed cron job."""

    fingerprint: str = "noon"
    wildcard: bool = False

    def next_after(self, instant: Instant) -> Instant | None:
        return Every(DAY, offset=NOON % DAY).next_after(instant)

    def last_until(self, instant: Instant, since: Instant) -> Instant | None:
        return Every(DAY, offset=NOON % DAY).last_until(instant, since)

    def count(self, first: Instant, last: Instant) -> int:
        return Every(DAY, offset=NOON % DAY).count(first, last)


def timetable_of(*entries: Entry, now: Instant = NOON) -> Timetable:
    timetable = Timetable()
    timetable.place(entries, {}, now)
    return timetable


def names(batch: Iterable[Due]) -> list[str]:
    return [entry.name for due in batch for entry in due.entries]


def take(timetable: Timetable, now: Instant) -> list[tuple[str, Instant]]:
    """Take all that is due, each on its newest slot."""
    taken = []
    while batch := timetable.due(now, LIMIT):
        for due in batch:
            timetable.advance(due, due.mark._replace(slot=due.latest))
            taken += [(entry.name, due.latest) for entry in due.entries]
    return taken


def test_what_is_due_first_is_no_paused_entry() -> None:
    def off(name: str, period: Span) -> Entry:
        return entry(name, Every(period), enabled=False)

    paused = [off("often", SECOND), off("beside", HOUR), off("seldom", DAY)]
    timetable = timetable_of(*paused, entry("on", Every(HOUR)))

    assert [one and one[0].name for one in (timetable.first(),)] == ["on"]
    timetable.due(NOON + MINUTE, LIMIT)
    first = timetable.first()
    assert first is not None
    assert (first[0].name, first[1]) == ("on", NOON + HOUR)
    assert timetable_of(*paused).first() is None


def test_a_new_entry_runs_at_its_next_slot() -> None:
    timetable = timetable_of(entry("tick", Every(MINUTE)))

    assert timetable.due(NOON, LIMIT) == []
    assert timetable.next_at() == NOON + MINUTE
    assert names(timetable.due(NOON + MINUTE, LIMIT)) == ["tick"]


def test_looking_takes_nothing() -> None:
    timetable = timetable_of(entry("tick", Every(MINUTE)))

    first = timetable.due(NOON + MINUTE, LIMIT)

    assert timetable.due(NOON + MINUTE, LIMIT) == first
    assert timetable.next_at() == NOON + MINUTE


def test_an_entry_goes_on_from_its_mark() -> None:
    tick = entry("tick", Every(MINUTE))
    timetable = Timetable()
    mark = Mark(NOON - HOUR, tick.schedule.fingerprint, runs=7)

    changed = timetable.place([tick], {"tick": mark}, NOON)

    [due] = timetable.due(NOON, LIMIT)
    assert changed == {}
    assert (due.slot, due.latest, due.following, due.mark) == (
        NOON - HOUR + MINUTE,
        NOON,
        NOON + MINUTE,
        mark,
    )


def test_a_changed_schedule_counts_from_the_change() -> None:
    tick = entry("tick", Every(MINUTE))
    timetable = Timetable()
    mark = Mark(NOON - HOUR, "another schedule", runs=7, last=NOON - HOUR)

    changed = timetable.place([tick], {"tick": mark}, NOON)

    fingerprint = tick.schedule.fingerprint
    assert changed == {"tick": Mark(NOON, fingerprint, runs=0, last=NOON - HOUR)}
    assert timetable.due(NOON, LIMIT) == []


def test_nothing_is_due_before_the_start_time() -> None:
    timetable = timetable_of(entry("tick", Every(MINUTE), start=NOON + HOUR))

    assert timetable.next_at() == NOON + HOUR


def test_an_offset_delays_each_slot() -> None:
    timetable = timetable_of(entry("tick", Every(MINUTE), offset=7 * SECOND))

    assert timetable.due(NOON + MINUTE, LIMIT) == []
    [due] = timetable.due(NOON + MINUTE + 7 * SECOND, LIMIT)
    assert due.slot == NOON + MINUTE


def test_equal_schedules_share_one_computation() -> None:
    schedule = CountedSchedule()
    timetable = timetable_of(*(entry(f"e{n}", schedule) for n in range(500)))
    schedule.asked.clear()

    taken = take(timetable, NOON + MINUTE)

    assert len(taken) == 500
    assert schedule.asked == ["next_after"]


def test_entries_behind_do_not_delay_those_in_time() -> None:
    behind = entry("behind", Every(SECOND))
    timetable = Timetable()
    marks = {"behind": Mark(NOON - HOUR, behind.schedule.fingerprint)}
    timetable.place([behind, entry("in time", Every(MINUTE))], marks, NOON)

    assert names(timetable.due(NOON + MINUTE, LIMIT)) == ["in time", "behind"]


def test_a_batch_is_bounded_and_the_rest_stays_due() -> None:
    timetable = timetable_of(*(entry(f"e{n}", Every(MINUTE)) for n in range(5)))

    batch = timetable.due(NOON + MINUTE, 3)
    for due in batch:
        timetable.advance(due, due.mark._replace(slot=due.latest))

    assert names(batch) == ["e0", "e1", "e2"]
    assert names(timetable.due(NOON + MINUTE, 3)) == ["e3", "e4"]


def test_a_large_group_lets_others_that_come_due_meanwhile_have_their_turn() -> None:
    many = (entry(f"e{n}", Every(MINUTE)) for n in range(5))
    timetable = timetable_of(*many, entry("later", Every(MINUTE), offset=1))
    for due in timetable.due(NOON + MINUTE, 2):
        timetable.advance(due, due.mark._replace(slot=due.latest))

    batch = timetable.due(NOON + MINUTE + 1, 2)

    assert names(batch) == ["e2", "e3"]
    assert names(timetable.due(NOON + MINUTE + 1, 2)) == ["later", "e2"]


def test_entries_that_are_due_alike_come_together() -> None:
    policy, fingerprint = Policy(), Every(MINUTE).fingerprint
    alike = [entry(f"e{n}", Every(MINUTE), policy=policy) for n in range(4)]
    timetable = timetable_of(*alike, entry("once", Every(MINUTE), max_runs=1))
    timetable.place(alike[2:], {"e2": Mark(NOON, fingerprint, runs=5)}, NOON)

    batch = timetable.due(NOON + MINUTE, LIMIT)

    together = [[one.name for one in due.entries] for due in batch]
    assert together == [["e0", "e1", "e3"], ["once"], ["e2"]]


def test_what_is_due_alike_is_moved_on_at_the_cost_of_one() -> None:
    schedule, policy = CountedSchedule(), Policy()
    timetable = timetable_of(
        *(entry(f"e{n}", schedule, policy=policy) for n in range(500))
    )
    schedule.asked.clear()

    taken = take(timetable, NOON + MINUTE)

    assert len(taken) == 500
    assert schedule.asked == ["next_after"]


def test_a_held_entry_keeps_its_slot_and_is_looked_at_later() -> None:
    timetable = timetable_of(entry("tick", Every(MINUTE)))
    [due] = timetable.due(NOON + MINUTE, LIMIT)

    timetable.hold(due, NOON + MINUTE + SECOND)

    assert timetable.due(NOON + MINUTE, LIMIT) == []
    assert timetable.next_at() == NOON + MINUTE + SECOND
    [again] = timetable.due(NOON + 3 * MINUTE, LIMIT)
    assert (again.slot, again.latest) == (NOON + MINUTE, NOON + 3 * MINUTE)


def test_a_removed_entry_is_never_due() -> None:
    timetable = timetable_of(entry("a", Every(MINUTE)), entry("b", Every(MINUTE)))
    timetable.due(NOON + MINUTE, LIMIT)

    timetable.remove("a")
    timetable.remove("nobody")

    assert names(timetable.due(NOON + MINUTE, LIMIT)) == ["b"]
    timetable.remove("b")
    assert timetable.next_at() is None


def test_a_finished_entry_stays_but_has_no_slots() -> None:
    timetable = timetable_of(entry("tick", Every(MINUTE)))
    [due] = timetable.due(NOON + MINUTE, LIMIT)

    timetable.finish(due)

    assert "tick" in timetable
    assert timetable.next_at() is None


def test_a_clock_set_back_makes_due_entries_wait_again() -> None:
    timetable = timetable_of(entry("tick", Every(MINUTE)))
    timetable.due(NOON + MINUTE, LIMIT)

    assert timetable.due(NOON + SECOND, LIMIT) == []
    assert timetable.next_at() == NOON + MINUTE
    assert names(timetable.due(NOON + MINUTE, LIMIT)) == ["tick"]


def test_a_rewind_moves_only_wildcards_of_those_that_ran() -> None:
    tick, noon = entry("tick", Every(MINUTE)), entry("noon", FixedTime())
    ran = {
        one.name: one.mark_from(None, NOON + HOUR)._replace(last=NOON + HOUR)
        for one in (tick, noon)
    }
    timetable = Timetable()
    timetable.place([tick, noon], ran, NOON + HOUR)

    rewound = timetable.rewind(NOON, 3 * SECOND)

    assert list(rewound) == ["tick"]
    assert rewound["tick"].slot == NOON
    assert timetable.mark("noon").slot == NOON + HOUR
    assert timetable.next_at() == NOON + MINUTE


def test_many_entries_are_set_back_and_on_in_parts() -> None:
    entries = [entry(f"e{n}", Every(MINUTE)) for n in range(30_000)]
    timetable = timetable_of(*entries, now=NOON + HOUR)
    parts: list[int] = []

    rewound = timetable.rewind(NOON, 3 * SECOND, lambda: parts.append(len(parts)))
    assert len(rewound) == 30_000
    assert len(parts) >= 6  # three to find them, three to set them back

    parts.clear()
    timetable.catch_up(NOON + HOUR, lambda: parts.append(len(parts)))
    assert len(parts) >= 6
    assert timetable.next_at() == NOON + HOUR + MINUTE


def test_a_small_difference_is_no_rewind() -> None:
    timetable = timetable_of(entry("tick", Every(MINUTE)), now=NOON + 2 * SECOND)

    assert timetable.rewind(NOON, 3 * SECOND) == {}


spans = st.sampled_from([SECOND, 7 * SECOND, MINUTE, 90 * SECOND, HOUR])


@given(
    st.lists(
        st.tuples(spans, st.integers(0, 20).map(lambda n: n * SECOND)), max_size=8
    ),
    st.lists(st.integers(1, 10 * MINUTE), max_size=12),
)
def test_looking_often_or_rarely_every_entry_ends_on_its_newest_slot(
    kinds: list[tuple[Span, Span]], steps: list[Span]
) -> None:
    entries = [
        entry(f"e{n}", Every(span), offset=offset)
        for n, (span, offset) in enumerate(kinds)
    ]
    timetable = timetable_of(*entries)
    now = NOON
    for step in steps:
        now += step
        take(timetable, now)

    for one in entries:
        newest = one.schedule.last_until(now - one.offset, NOON)
        assert timetable.mark(one.name).slot == (newest or NOON)
