"""`beatd next`."""

import json
from pathlib import Path
from typing import ClassVar
from zoneinfo import ZoneInfo

import pytest

from beatd.cli import main
from beatd.cli.next import Window, each_run
from beatd.cli.output import Screen
from beatd.instant import HOUR, MINUTE, Instant
from beatd.message import MessageFormat, template
from beatd.routing import Router
from beatd.schedules.interval import Every
from beatd.timetable.entry import Entry
from beatd.timetable.preview import preview
from tests.cli.conftest import Run, at, ran

UNTIL_THREE = """\
14:05:14  in 2 s       tick            every 2 s, 1643 more until 15:00
14:10:00  in 4m 48s    sync-crm        every 5 min, 10 more until 15:00
14:30:00  in 24m 48s   report-sales
3 entries run until 15:00 CET.
"""


@pytest.mark.usefixtures("running_shop")
def test_an_entry_that_runs_often_has_one_line_with_a_count(run: Run) -> None:
    assert run("next", "--until", "15:00", "--limit", "8").stdout == UNTIL_THREE


@pytest.mark.usefixtures("shop")
def test_it_needs_no_schedule_file(run: Run) -> None:
    assert run("next", "--until", "15:00").stdout == UNTIL_THREE


@pytest.mark.usefixtures("shop")
def test_it_shows_what_happens_in_the_night_of_a_clock_change(run: Run) -> None:
    window = ("--at", "2027-03-28 00:00", "--until", "2027-03-28 06:00")

    lines = run("next", *window, "nightly-*", "tick").stdout.splitlines()

    assert lines == [
        "Sun 28 Mar 2027 00:00 CET   in 124d 9h   tick            every 2 s,"
        " 9000 more until Sun 28 Mar 2027 06:00",
        "Sun 28 Mar 2027 03:00 CEST  in 124d 11h  nightly-backup",
        "2 entries run until Sun 28 Mar 2027 06:00 CEST.",
    ]


@pytest.mark.usefixtures("shop")
def test_a_single_entry_has_a_line_for_each_run_however_far_ahead(run: Run) -> None:
    assert (
        run("next", "invoice-run", "--limit", "3").stdout
        == """\
Tue  1 Dec 06:00       in 7d 15h    invoice-run
Fri  1 Jan 2027 06:00  in 38d 15h   invoice-run
Mon  1 Feb 2027 06:00  in 69d 15h   invoice-run
3 runs shown, times in Europe/Berlin: --limit N shows more.
"""
    )


@pytest.mark.usefixtures("shop")
def test_all_gives_each_run_a_line_of_its_own(run: Run) -> None:
    output = run("next", "--all", "--until", "14:10", "sync-crm", "report-*").stdout

    assert (
        output
        == """\
14:10:00  in 4m 48s    sync-crm
1 run until 14:10 CET.
"""
    )


def test_on_a_terminal_names_lose_their_middle_and_in_a_pipe_nothing(
    run: Run, folder: Path
) -> None:
    name = "a-name-that-is-longer-than-most-and-ends-in-a-backup"
    (folder / "celeryconfig.py").write_text(
        f'beat_schedule = {{"{name}": {{"task": "a", "schedule": "@hourly"}}}}\n'
    )

    narrow = run("next", screen=Screen(width=80, utf8=True)).stdout.splitlines()[0]
    piped = run("next").stdout.splitlines()[0]

    assert narrow == (
        "14:00:00  in 54m 48s   a-name-that-…in-a-backup "
        " hourly, 23 more until Tue 13:05"
    )
    assert len(narrow) == 80
    assert name in piped


@pytest.mark.usefixtures("shop")
def test_the_limit_says_what_it_hides(run: Run) -> None:
    assert run("next", "--limit", "1", "--until", "14:10").stdout.splitlines()[-1] == (
        "2 entries run until 14:10 CET, the first 1 are shown: --limit 2 shows all."
    )


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["nightly-backup", "--until", "15:00"],
            "nothing runs until 15:00 CET; then nightly-backup, Tue 02:30,"
            " in 12h 24m.\n",
        ),
        (["old-import"], "nothing runs: paused by the config.\n"),
    ],
)
def test_nothing_is_said_to_run_and_why(run: Run, words: list[str], said: str) -> None:
    assert run("next", *words).stdout == said


@pytest.mark.usefixtures("shop")
def test_a_time_of_day_that_is_past_means_tomorrow(run: Run) -> None:
    lines = run("next", "--until", "03:00").stdout.splitlines()

    assert lines[-2:] == [
        "Tue 02:30  in 12h 24m   nightly-backup",
        "4 entries run until Tue 03:00 CET.",
    ]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--until", "soon"], "expected '15:00', '2027-03-28' or"),
        (["--at", "2027-13-01"], "expected '15:00', '2027-03-28' or"),
        (["--at", "9999-12-31"], "expected a date in the years 2 to 8999, got 9999"),
        (["--until", "2020-01-01"], "lies before the beginning"),
    ],
)
def test_a_time_that_cannot_be_read_is_an_error_of_usage(
    capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    assert main(["next", *words]) == 2
    assert problem in capsys.readouterr().err


def test_what_is_due_now_comes_first_and_bounds_are_kept(
    run: Run, folder: Path
) -> None:
    (folder / "celeryconfig.py").write_text(
        'timezone = "Europe/Berlin"\n'
        "beat_schedule = {\n"
        '    "late": {"task": "a", "schedule": "0 * * * *", "max_runs": 5},\n'
        '    "broken": {"task": "a", "schedule": "nonsense"},\n'
        "}\n"
    )
    ran(late="2026-11-23T11:00:00+01:00")

    result = run("next")

    assert result.stdout.splitlines() == [
        "14:05:12  due now      late            hourly, 1 more until Tue 14:05",
        "1 entry runs until Tue 14:05 CET.",
    ]
    assert result.stderr.startswith("1 entry cannot be used: beatd check\n")


def test_every_run_that_is_overdue_is_told_and_none_beyond_the_bounds(
    run: Run, folder: Path
) -> None:
    (folder / "celeryconfig.py").write_text(
        'timezone = "Europe/Berlin"\n'
        "beat_schedule = {\n"
        '    "late": {"task": "a", "schedule": 60, "coalesce": False,'
        ' "max_runs": 123},\n'
        "}\n"
    )
    ran(late="2026-11-23T11:35:00+01:00")  # the third of its runs

    assert run("next").stdout.splitlines() == [
        "14:05:12  due now      late            every 1 min, 119 more until Tue 14:05",
        "1 entry runs until Tue 14:05 CET.",
    ]
    assert run("next", "late").stdout.splitlines()[-2:] == [
        "14:05:12  due now      late",
        "20 runs shown, times in Europe/Berlin: --limit N shows more.",
    ]


@pytest.mark.usefixtures("running_shop")
def test_json_says_what_was_asked_and_each_run(run: Run) -> None:
    words = ("next", "--json", "--until", "15:00", "--limit", "2")
    document = json.loads(run(*words).stdout)

    assert document["schema"] == "beatd.next/1"
    assert document["until"] == "2026-11-23T15:00:00+01:00"
    assert document["truncated"] is True
    assert document["runs"][1] == {
        "entry": "sync-crm",
        "at": "2026-11-23T14:10:00+01:00",
        "at_ts": 1795439400,
        "due_now": False,
        "schedule": "every 5 min",
        "more": 10,
    }


class CountedMinutes(Every):
    """Each minute; notes what it is asked."""

    asked: ClassVar[list[Instant]] = []

    def next_after(self, instant: Instant) -> Instant:
        self.asked.append(instant)
        return super().next_after(instant)


def test_runs_of_equal_schedules_are_computed_once() -> None:
    schedule = CountedMinutes(MINUTE)
    message = template(MessageFormat(), Router().route("t", {}), "t")
    entries = [Entry(f"e{n:02}", schedule, message) for n in range(50)]
    now = at("2026-11-23T14:05:12+01:00")
    coming = preview(entries, {}, now)
    schedule.asked.clear()

    window = Window(now, now, now + HOUR, ZoneInfo("UTC"))
    runs = [*each_run(entries, coming, window)]

    assert len(runs) == 50 * 60
    assert runs == sorted(runs, key=lambda run: (run.at, run.entry.name))
    assert len(schedule.asked) == 60
