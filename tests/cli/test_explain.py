"""`beatd explain`."""

import json

import pytest

from beatd.cli import main
from tests.cli.conftest import Run

WEEKDAYS = """\
at 02:30 on every weekday from Monday to Friday, Europe/Berlin
  Tue 24 Nov 2026 02:30 CET    in 12h 24m
  Wed 25 Nov 2026 02:30 CET    in 1d 12h
  Thu 26 Nov 2026 02:30 CET    in 2d 12h
next clock change: Sun 28 Mar 2027 (gap 02:00-03:00): not on a weekday, nothing to do
"""


def test_an_expression_is_said_in_words_with_its_next_runs(run: Run) -> None:
    words = ("explain", "30 2 * * 1-5")
    assert run(*words, "--tz", "Europe/Berlin").stdout == WEEKDAYS
    assert run(*words, "--timezone", "Europe/Berlin").stdout == WEEKDAYS


@pytest.mark.parametrize(
    ("words", "first", "second"),
    [
        (["@daily"], "at 00:00 every day, UTC", "Tue 24 Nov 2026 00:00 UTC    in 10h"),
        (["30"], "every 30 s,", "Mon 23 Nov 2026 13:05:30 UTC    in 18 s"),
        (["every 5 min"], "every 5 min,", "Mon 23 Nov 2026 13:10 UTC    in 4m 48s"),
        (["90s"], "every 90 s,", "Mon 23 Nov 2026 13:06:00 UTC    in 48 s"),
        (["H 3 * * *", "--name", "a"], "by 'H 3 * * *', drawn", "Tue 24 Nov 2026 03:"),
        # Celery's crontab takes full names, and has all fields match.
        (["0 0 13 * friday", "--celery"], "at 00:00 on the 13th", "Fri 13 Aug 2027"),
    ],
)
def test_aliases_intervals_and_celery_s_form_are_read(
    run: Run, words: list[str], first: str, second: str
) -> None:
    lines = run("explain", *words).stdout.splitlines()

    assert lines[0].startswith(first)
    assert lines[1].startswith(f"  {second}")
    assert lines[-1] == "next clock change: none in UTC within a year"


def test_an_interval_has_no_zone_and_its_times_stand_in_line(run: Run) -> None:
    lines = run("explain", "30 s", "--tz", "Europe/Berlin").stdout.splitlines()

    assert lines[:3] == [
        "every 30 s, counted from 1970-01-01 00:00 UTC",
        "  Mon 23 Nov 2026 14:05:30 CET    in 18 s",
        "  Mon 23 Nov 2026 14:06:00 CET    in 48 s",
    ]


def test_a_schedule_that_ends_says_so(run: Run) -> None:
    output = run("explain", "0 0 1 1 * 0 2027", "--count", "5").stdout.splitlines()

    assert output[1:3] == [
        "  Fri  1 Jan 2027 00:00 UTC    in 38d 10h",
        "  no more runs",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["61 2 * * *"],
            "error: cannot use '61 2 * * *'\n  minute: cannot read '61'; expected",
        ),
        (
            ["0 6 31 2 *"],
            "error: cannot use '0 6 31 2 *'\n  day-of-month: can never occur: February"
            " has 28 or 29 days\n  did you mean 28?\n",
        ),
        (
            ["@daily", "--tz", "Europe/Berlim"],
            "error: no zone named 'Europe/Berlim'\n  did you mean 'Europe/Berlin'?\n",
        ),
        (
            ["H * * * *"],
            "error: cannot use 'H * * * *'\n  minute: 'h' needs an id that it is drawn"
            " from\n  --name ENTRY gives it\n",
        ),
        (
            ["every other day"],
            "error: cannot use 'every other day'\n  fields: expected 5, 6 or 7 fields,"
            " got 3 in 'every other day'\n  an interval is written 30, '30 s' or ",
        ),
        (["0 s"], "error: cannot use '0 s'\n  every: expected more than 0 seconds"),
        (
            ["99999999999999999999 d"],
            "error: cannot use '99999999999999999999 d'\n  every: expected at most",
        ),
    ],
)
def test_what_is_no_schedule_is_one_error_that_names_the_field(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["explain", *words]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message)


def test_json_has_words_runs_and_the_clock_change(run: Run) -> None:
    words = ("explain", "30 2 * * *", "--tz", "Europe/Berlin", "--count", "1", "--json")

    assert json.loads(run(*words).stdout) == {
        "schema": "beatd.explain/1",
        "generated": "2026-11-23T14:05:12+01:00",
        "generated_ts": 1795439112,
        "expression": "30 2 * * *",
        "words": "daily 02:30",
        "description": "at 02:30 every day",
        "seconds_first": None,
        "zone": "Europe/Berlin",
        "next": [{"at": "2026-11-24T02:30:00+01:00", "at_ts": 1795483800}],
        "clock_change": {
            "at": "2027-03-28T03:00:00+02:00",
            "at_ts": 1806195600,
            "kind": "gap",
            "first": "02:00",
            "end": "03:00",
            "affects": True,
            "note": "02:30 does not exist that day in Europe/Berlin;"
            " it runs at 03:00 CEST instead",
        },
    }


def test_six_fields_are_said_in_both_readings(run: Run) -> None:
    lines = run("explain", "0 0 12 * * *").stdout.splitlines()
    first = run("explain", "0 0 12 * * *", "--seconds", "first").stdout.splitlines()
    document = json.loads(run("explain", "0 0 12 * * *", "--json").stdout)

    assert lines[0] == (
        "every second, at minute 0 of hour 0 on the 12th of every month, UTC"
    )
    assert lines[-1] == "with the seconds first (--seconds first): at 12:00 every day"
    assert first[0] == "at 12:00 every day, UTC"
    assert "seconds first" not in first[-1]
    assert document["seconds_first"] == "at 12:00 every day"


def test_what_can_only_be_meant_with_the_seconds_first_says_so(run: Run) -> None:
    said = run("explain", "0 30 9 * * *", status=2).stderr

    assert "with the seconds first, write cron('0 30 9 * * *', seconds='first')" in said
