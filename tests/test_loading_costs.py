"""What it costs to load many entries: counted, not timed."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from beatd.brokers.memory import MemoryBroker
from beatd.config.calls import EntryCall, PlainCalls
from beatd.config.loading import Config, Wanted, examine
from beatd.instant import DAY, HOUR, MINUTE, SECOND
from beatd.message import MessageFormat
from beatd.routing import Route, Router
from beatd.scheduler.file_view import ledger_rows, understand
from beatd.schedules import cron, crontab
from beatd.schedules.interval import Every
from beatd.timetable.ledger import Mark
from beatd.timetable.timetable import Timetable
from tests.fakes import NOON, CountedSchedule, FakeClock, entry, scheduler_of

UTC_ZONE = ZoneInfo("UTC")


class CountingRouter(Router):
    """Counts how often it is asked."""

    asked_for = 0

    def routed(
        self,
        task: str,
        options: Mapping[str, Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> tuple[Mapping[str, Any], Route]:
        self.asked_for += 1
        return super().routed(task, options, args, kwargs)


def call(number: int, options: Mapping[str, Any]) -> EntryCall:
    return EntryCall(f"e{number}", "t", (number,), None, options, UTC, None)


def test_what_entries_of_one_task_and_options_share_is_made_once() -> None:
    router = CountingRouter(routes={"t": {"queue": "q"}})
    calls = PlainCalls(MessageFormat(), router)

    given = [{"priority": n % 2} for n in range(1000)]
    templates = [
        calls.encoded(call(n, options), options, registered=False)
        for n, options in enumerate(given)
    ]

    assert router.asked_for == 2
    assert len({id(one.shape) for one in templates}) == 2
    assert {one.route.queue for one in templates} == {"q"}


def test_equal_options_of_other_kinds_share_nothing() -> None:
    calls = PlainCalls(MessageFormat(), Router())

    one, other = (
        calls.encoded(call(1, options), options, registered=False)
        for options in ({"x": 1}, {"x": True})
    )

    assert one.shape is not other.shape


def test_a_router_of_the_users_is_asked_for_each_entry() -> None:
    def route(name: str, args: Any, *_: Any, **__: Any) -> str:
        return f"q{args[0]}"

    calls = PlainCalls(MessageFormat(), Router(routes=route))

    queues = [calls.message(call(n, {})).route.queue for n in range(3)]

    assert queues == ["q0", "q1", "q2"]


def test_more_schedules_than_a_small_cache_holds_are_read_once_each() -> None:
    def written(number: int) -> crontab:
        return crontab(number % 60, number // 60 % 24, day_of_month=1 + number // 1440)

    first = [written(number).fields for number in range(5000)]
    again = [written(number).fields for number in range(5000)]

    assert all(map(lambda one, other: one is other, first, again))


def test_more_expressions_than_a_small_cache_holds_are_read_once_each() -> None:
    def written(number: int) -> cron:
        return cron(f"{number % 60} {number // 60 % 24} {1 + number // 1440} * *")

    first = [written(number).in_zone(UTC_ZONE) for number in range(5000)]
    again = [written(number).in_zone(UTC_ZONE) for number in range(5000)]

    assert all(map(lambda one, other: one is other, first, again))


def test_entries_that_wait_where_they_are_to_be_are_not_placed_again() -> None:
    schedule = CountedSchedule()
    timetable = Timetable()
    marks = timetable.place([entry(f"e{n}", schedule) for n in range(100)], {}, NOON)
    schedule.asked.clear()
    loaded_again = [entry(f"e{n}", schedule) for n in range(100)]

    assert timetable.place(loaded_again, marks, NOON + 1) == {}
    assert schedule.asked == []
    assert all(timetable.entry(one.name) is one for one in loaded_again)


def test_entries_of_one_schedule_share_their_mark() -> None:
    schedule = Every(MINUTE)
    entries = [entry(f"e{n}", schedule) for n in range(100)]

    marks = Timetable().place(entries, {}, NOON)

    assert len({id(mark) for mark in marks.values()}) == 1


def test_equal_rows_of_the_schedule_file_share_their_mark() -> None:
    marks = {f"e{n}": Mark(NOON, "every 60000", 3, NOON) for n in range(100)}
    rows = [(key.encode(), text.encode()) for key, text in ledger_rows(marks)]

    seen, _ = understand({"ledger": rows})

    assert seen.marks == marks
    assert len({id(mark) for mark in seen.marks.values()}) == 1


CONFIG = """
from beatd import every

broker_url = "memory://"

def entry(number):
    return {"task": "t", "schedule": every(60), "args": (number,)}

beat_schedule = {f"e{n}": entry(n) for n in range(3)}
beat_schedule["bad"] = {"task": "t"}
"""
BAD = 'beat_schedule["bad"] = {"task": "t"}'


def config_of(text: str, folder: Path, *, entries_only: bool = True) -> Config:
    (folder / "costs_config.py").write_text(text)
    wanted = Wanted("costs_config", folder=folder, entries_only=entries_only)
    config = examine(wanted).config
    assert config is not None
    return config


@pytest.mark.usefixtures("forgotten")
def test_what_is_written_of_entries_is_let_go_of_once_they_are_read(
    tmp_path: Path,
) -> None:
    config = config_of(CONFIG, tmp_path)

    assert [entry.name for entry in config.entries] == ["e0", "e1", "e2"]
    [bad] = config.bad
    assert (bad.name, bad.why) == ("bad", "it has no 'schedule'")
    [problem] = bad.problems
    assert problem.place is not None
    assert problem.place.line == CONFIG.splitlines().index(BAD) + 1
    assert config.entry_names == {"e0", "e1", "e2", "bad"}
    written = config.source.written["beat_schedule"]
    assert isinstance(written, dict)
    assert set(written.values()) == {None}
    assert config.settings.beat_schedule == {}


@pytest.mark.usefixtures("forgotten")
def test_who_looks_for_a_schedule_that_was_let_go_of_is_told(tmp_path: Path) -> None:
    config_of(CONFIG, tmp_path)
    module = sys.modules["costs_config"]

    with pytest.raises(AttributeError, match="beatd has read it"):
        module.beat_schedule  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no attribute 'other'$"):
        module.other  # noqa: B018


@pytest.mark.usefixtures("forgotten")
def test_a_schedule_that_others_hold_stays_theirs(tmp_path: Path) -> None:
    (tmp_path / "costs_entries.py").write_text(CONFIG)
    config = config_of("from costs_entries import *", tmp_path)

    assert len(config.entries) == 3
    schedule = sys.modules["costs_entries"].beat_schedule
    assert all(schedule.values())


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(
    "more",
    [
        "def count(): return len(beat_schedule)",
        "def count(): return len(globals()['beat_schedule'])",
        "class Looks:\n    def count(self): return [len(beat_schedule) for _ in 'a']",
    ],
)
def test_what_code_of_the_config_looks_at_later_is_kept(
    more: str, tmp_path: Path
) -> None:
    config_of(f"{CONFIG}\n{more}\n", tmp_path)

    assert len(sys.modules["costs_config"].beat_schedule) == 4


@pytest.mark.usefixtures("forgotten")
def test_what_is_written_is_kept_for_who_shows_it(tmp_path: Path) -> None:
    config = config_of(CONFIG, tmp_path, entries_only=False)

    assert len(config.settings.beat_schedule) == 4
    assert len(sys.modules["costs_config"].beat_schedule) == 4


def test_the_slot_of_entries_that_are_alike_is_looked_for_once() -> None:
    schedule = CountedSchedule()
    timetable = Timetable()

    timetable.place([entry(f"e{n}", schedule) for n in range(100)], {}, NOON)

    assert schedule.asked == ["next_after"]
    assert [one.name for one in timetable] == [f"e{n}" for n in range(100)]


class Rows(dict[str, Any]):
    """Counts how often all of it is gone through."""

    passes = 0

    def __iter__(self) -> Iterator[str]:
        self.passes += 1
        return super().__iter__()

    def items(self) -> Any:
        self.passes += 1
        return super().items()

    def values(self) -> Any:
        self.passes += 1
        return super().values()


def test_a_tick_goes_through_what_is_due_and_not_through_what_exists() -> None:
    clock = FakeClock()
    often = [entry(f"often-{n}", Every(MINUTE)) for n in range(10)]
    seldom = [entry(f"seldom-{n}", Every(DAY, offset=HOUR)) for n in range(1000)]
    scheduler = scheduler_of(*often, *seldom, broker=MemoryBroker(clock), clock=clock)
    while scheduler.leadership.term is None or not scheduler.digest:
        clock.go_to(clock.now() + SECOND)
        scheduler.tick(clock.now())
    rows = scheduler.timetable._rows = Rows(scheduler.timetable._rows)
    entries = Rows(scheduler.takeover.configs.entries)
    scheduler.takeover.configs.entries = entries

    while clock.now() < NOON + 2 * MINUTE + 10 * SECOND:
        clock.go_to(clock.now() + SECOND)
        scheduler.tick(clock.now())

    assert scheduler.pulse.emitted == 20
    assert (rows.passes, entries.passes) == (0, 0)
