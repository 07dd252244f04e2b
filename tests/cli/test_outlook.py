"""When entries will run, as commands foresee it."""

from itertools import islice, takewhile
from pathlib import Path

import pytest

from beatd.cli.schedule_view import runs_of
from beatd.config.loading import Wanted, load
from beatd.instant import DAY, HOUR, MINUTE, SECOND
from beatd.timetable.entry import Entry, Mark
from beatd.timetable.timetable import Timetable
from tests.cli.conftest import NOW

ENTRIES = """\
from datetime import UTC, datetime

from beatd.schedules import every, once

timezone = "Europe/Berlin"
beat_schedule = {
    "cron": {"task": "a", "schedule": "*/7 9-17 * * *"},
    "fixed": {"task": "a", "schedule": "30 2 * * *", "jitter": 600},
    "every": {"task": "a", "schedule": every(90)},
    "from-last": {"task": "a", "schedule": every(100, align=False)},
    "rounded": {"task": "a", "schedule": every(minutes=7, relative=True)},
    "once": {"task": "a", "schedule": once("2026-11-24T08:00")},
    "bounded": {
        "task": "a",
        "schedule": 60,
        "start_time": datetime(2026, 11, 23, 19, tzinfo=UTC),
        "end_time": datetime(2026, 11, 23, 20, tzinfo=UTC),
    },
}
"""

NAMES = ["cron", "fixed", "every", "from-last", "rounded", "once", "bounded"]


@pytest.fixture
def entries(folder: Path) -> dict[str, Entry]:
    (folder / "celeryconfig.py").write_text(ENTRIES)
    return {entry.name: entry for entry in load(Wanted()).entries}


def mark_of(entry: Entry, age: int) -> Mark:
    return entry.mark_from(None, NOW - age)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_run_is_what_the_timetable_waits_for(
    entries: dict[str, Entry], name: str
) -> None:
    entry = entries[name]
    mark = mark_of(entry, age=0)
    timetable = Timetable()
    timetable.place([entry], {name: mark}, NOW)

    assert next(runs_of(entry, mark, NOW)) == timetable.next_at()


@pytest.mark.parametrize("name", NAMES)
def test_runs_from_a_later_beginning_are_those_that_one_comes_to(
    entries: dict[str, Entry], name: str
) -> None:
    entry = entries[name]
    mark = mark_of(entry, age=17 * SECOND)
    begin, end = NOW + 10 * HOUR, NOW + 2 * DAY
    all_runs = takewhile(lambda run: run < end, runs_of(entry, mark, NOW))

    later = takewhile(lambda run: run < end, runs_of(entry, mark, NOW, begin))

    assert [*later] == [run for run in all_runs if run >= begin]


def test_a_changed_schedule_counts_from_now(entries: dict[str, Entry]) -> None:
    entry = entries["every"]
    mark = Mark(NOW - DAY, "another schedule")

    assert next(runs_of(entry, mark, NOW)) > NOW


def test_what_is_overdue_is_one_run_now_and_then_goes_on(
    entries: dict[str, Entry],
) -> None:
    entry = entries["every"]

    now, then = islice(runs_of(entry, mark_of(entry, age=HOUR), NOW), 2)

    assert now == NOW
    assert 0 < then - NOW <= 90 * SECOND


def test_an_entry_whose_end_has_passed_runs_no_more(entries: dict[str, Entry]) -> None:
    entry = entries["bounded"]

    assert len([*runs_of(entry, None, NOW)]) == 61
    assert [*runs_of(entry, None, NOW + DAY + MINUTE)] == []
