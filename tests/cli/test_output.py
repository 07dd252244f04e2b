"""Pieces that all commands print with."""

import io
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from beatd.cli.output import (
    Screen,
    columns_of,
    screen_of,
    short_moment,
    since,
    together,
    until,
)
from beatd.instant import DAY, HOUR, MINUTE, SECOND, Span, duration
from beatd.schedules.zones import zone_of
from tests.cli.conftest import NOW, at
from tests.processes import ROOT

BERLIN = zone_of("Europe/Berlin")


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def terminal(encoding: str = "utf-8") -> Terminal:
    return Terminal(io.BytesIO(), encoding=encoding)


def pipe() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (0, "0 s"),
        (850, "850 ms"),
        (2 * SECOND + 999, "2 s"),
        (MINUTE, "1m"),
        (4 * MINUTE + 48 * SECOND, "4m 48s"),
        (3 * HOUR + 12 * MINUTE + 59 * SECOND, "3h 12m"),
        (HOUR + 59 * SECOND, "1h"),
        (4 * DAY + 2 * HOUR, "4d 2h"),
        (22 * DAY + 59 * MINUTE, "22d"),
    ],
)
def test_a_length_of_time_has_two_units_at_most(span: Span, text: str) -> None:
    assert duration(span) == text


def test_what_is_past_is_told_in_whole_days_from_one_day_on() -> None:
    assert since(NOW - 23 * HOUR - 5 * MINUTE, NOW) == "23h 5m"
    assert since(NOW - 8 * DAY - 10 * HOUR, NOW) == "8d"
    assert since(NOW - 300, NOW) == "0 s"
    assert since(NOW + HOUR, NOW) == "0 s"  # written by a host whose clock is ahead


def test_what_has_come_is_due_now() -> None:
    assert until(NOW, NOW) == until(NOW - HOUR, NOW) == "due now"
    assert until(NOW + 1, NOW) == "in 1 ms"


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-11-23T14:05:14+01:00", "14:05:14"),
        ("2026-11-24T02:30:00+01:00", "Tue 02:30"),
        ("2026-11-17T02:30:00+01:00", "Tue 02:30"),
        ("2026-11-30T02:30:00+01:00", "Mon 30 Nov"),  # a week: no mere "Mon"
        ("2026-12-01T06:00:00+01:00", "Tue  1 Dec"),
        ("2027-03-28T03:00:00+02:00", "2027-03-28"),
        ("2026-11-23T23:30:00+00:00", "Tue 00:30"),  # today in UTC only
    ],
)
def test_a_point_in_time_takes_ten_columns(moment: str, text: str) -> None:
    assert short_moment(at(moment), NOW, BERLIN) == text


@pytest.mark.parametrize(
    ("environ", "color", "expected"),
    [
        ({"TERM": "xterm"}, "auto", True),
        ({"TERM": "dumb"}, "auto", False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "auto", False),
        ({"TERM": "xterm", "NO_COLOR": ""}, "auto", True),
        ({"TERM": "xterm", "NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, "auto", False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "always", True),
        ({"TERM": "xterm"}, "never", False),
    ],
)
def test_a_terminal_has_colours_unless_someone_says_no(
    environ: Mapping[str, str], color: str, expected: bool
) -> None:
    assert screen_of(terminal(), environ, color).color is expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [({}, False), ({"CLICOLOR_FORCE": "0"}, False), ({"CLICOLOR_FORCE": "1"}, True)],
)
def test_a_pipe_has_colours_by_force_only(
    environ: Mapping[str, str], expected: bool
) -> None:
    assert screen_of(pipe(), environ, "auto").color is expected


def test_a_terminal_has_80_columns_at_least_and_a_pipe_has_no_end() -> None:
    widths = [
        screen_of(terminal(), {"COLUMNS": columns}, "auto").width
        for columns in ("132", "40", "wide")
    ]

    assert widths == [132, 80, 80]
    assert screen_of(pipe(), {"COLUMNS": "132"}, "auto").width is None


def test_only_utf_8_has_more_than_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    assert screen_of(terminal("utf-8"), {}, "auto").utf8
    assert not screen_of(terminal("latin-1"), {}, "auto").utf8

    Screen(utf8=False).say("caf\xe9 \u2192")

    assert capsys.readouterr().out == "caf\\xe9 \\u2192\n"


@pytest.mark.parametrize(("utf8", "text"), [(True, "nightl…backup"), (False, None)])
def test_a_name_is_cut_in_its_middle(utf8: bool, text: str | None) -> None:
    screen = Screen(utf8=utf8)

    assert screen.cut("nightly-and-daily-backup", 13) == (text or "night...ackup")
    assert screen.cut("nightly", 7) == "nightly"
    assert screen.cut_end("nightly-backup", 9).startswith("nightl")
    assert len(screen.cut_end("nightly-backup", 9)) == 9


def test_sentences_go_on_in_further_lines_on_a_terminal() -> None:
    text = "13 entries, 1 bad.  Next: tick in 2 s."

    assert Screen(width=20).wrapped(text, 2) == (
        "13 entries, 1 bad.\n  Next: tick in 2 s."
    )
    assert Screen().wrapped(text, 2) == text


def test_what_belongs_together_stays_in_one_line() -> None:
    text = f"13 entries, 1 bad.  {together('What is wrong: beatd check.')}"

    assert Screen(width=40).wrapped(text).splitlines() == [
        "13 entries, 1 bad.",
        "What is wrong: beatd check.",
    ]
    assert Screen().wrapped(text) == "13 entries, 1 bad.  What is wrong: beatd check."


@pytest.mark.parametrize(
    ("locale", "glyphs"),
    [
        ({"LC_ALL": "C"}, False),
        ({"LANG": "C"}, False),
        ({"LC_ALL": "C.UTF-8"}, True),
        ({"LANG": "C", "PYTHONUTF8": "1"}, True),
    ],
)
def test_a_terminal_of_the_locale_c_gets_ascii(
    locale: dict[str, str], glyphs: bool
) -> None:
    """Python itself would write UTF-8 there: only a new process begins like that."""
    code = (
        "import io, os, sys; from beatd.cli.output import screen_of\n"
        "sys.stdout.isatty = lambda: True\n"
        "print(screen_of(sys.stdout, os.environ, 'never').utf8)"
    )
    plain = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        [sys.executable, "-c", code], env=plain | locale, capture_output=True, text=True
    )

    assert shown.stdout == f"{glyphs}\n", shown.stderr


def test_columns_align_where_characters_are_wide_or_take_no_room() -> None:
    names = ["ascii", "夜間", "cafe\u0301", "\uff21b"]

    lines = columns_of([[name, "|"] for name in names])

    assert lines == ["ascii  |", "夜間   |", "cafe\u0301   |", "\uff21b    |"]


def test_a_name_of_wide_characters_is_cut_to_the_columns_that_it_may_take() -> None:
    screen = Screen(utf8=True)

    assert screen.cut("夜間バックアップ", 9) == "夜間…ップ"
    assert screen.cut_end("夜間バックアップ", 6) == "夜間…"
    assert screen.cut("夜間", 4) == "夜間"
