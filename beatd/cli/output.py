"""What commands print: times, lengths, names, colours, tables and JSON documents."""

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, TextIO
from zoneinfo import ZoneInfo

import click

from beatd.cli.options import given
from beatd.instant import DAY, SECOND, Instant, datetime_of, duration
from beatd.text import escaped, indented_lines, width_of

NARROWEST = 80
"""Columns that every terminal is taken to have."""

SHORTEST_NAME = 14
"""Columns that names have at least, so that most lists look alike."""

SQUEEZED_NAME = 24
"""Columns that names of entries keep where a terminal is narrow."""

_ORANGE = 208  # of the 256 colours; not confused with red or green when colour-blind

STYLES: Mapping[str, Mapping[str, Any]] = {
    "bad": {"fg": "red", "bold": True},
    "FAIL": {"fg": "red", "bold": True},
    "error": {"fg": "red", "bold": True},
    "warning": {"fg": _ORANGE},
    "due now": {"fg": _ORANGE},
    "refused": {"fg": "red"},
    "held": {"fg": "red"},
    "paus": {"fg": "bright_black"},
    "over": {"fg": "bright_black"},
}
"""How words that matter look, where there are colours."""


@dataclass(frozen=True, slots=True)
class Screen:
    """The place where output goes, and what it can show."""

    width: int | None = None
    """Columns; None where lines may have any length, as in a pipe."""
    color: bool = False
    utf8: bool = False

    def say(self, text: str = "") -> None:
        """Print lines; characters that the output cannot show are escaped."""
        click.echo(self._escaped(text), color=self.color)

    def wrapped(self, text: str, indent: int = 0) -> str:
        """Return sentences as lines that fit; those after the first are indented.

        What `together` has joined stays in one line.
        """
        if self.width is None or len(text) <= self.width:
            return text.replace(_JOINED, " ")
        lines = textwrap.wrap(
            text,
            self.width,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return "\n".join(lines).replace(_JOINED, " ")

    def shown(self, text: str) -> str:
        """Return foreign text as one line, as wide as it will be in a table."""
        return self._escaped(escaped(text))

    def _escaped(self, text: str) -> str:
        if self.utf8:
            return text
        return text.encode("ascii", "backslashreplace").decode()

    def style(self, text: str, like: str = "") -> str:
        """Return `text` in the style of the word `like`; empty: of `text` itself."""
        looks = STYLES.get(like or text)
        return click.style(text, **looks) if looks else text

    def cut(self, text: str, width: int) -> str:
        """Return a text that is longer than `width` without its middle."""
        return _cut(text, width, at=1 / 2, mark=self._mark)

    def cut_end(self, text: str, width: int) -> str:
        """Return a text that is longer than `width` without its end."""
        return _cut(text, width, at=1, mark=self._mark)

    def table(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """Return the lines of a table, cut where the terminal ends."""
        lines, width = columns_of(rows), self.width
        return lines if width is None else [self.cut_end(one, width) for one in lines]

    @property
    def _mark(self) -> str:
        return "…" if self.utf8 else "..."


_JOINED = "\0"  # stands nowhere else: what is foreign is escaped


def together(words: str) -> str:
    """Return words that are not to be parted by the end of a line."""
    return words.replace(" ", _JOINED)


def screen_of(stream: TextIO, environ: Mapping[str, str], color: str) -> Screen:
    """Return what `stream` can show; `color` is `auto`, `always` or `never`."""
    terminal = stream.isatty()
    if color == "auto":
        color = _color(environ, terminal)
    columns = _columns(stream, environ) if terminal else None
    utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
    return Screen(
        width=None if columns is None else max(columns, NARROWEST),
        color=color == "always",
        utf8=utf8 and not (terminal and _is_plain_locale(environ)),
    )


def _is_plain_locale(environ: Mapping[str, str]) -> bool:
    """Return whether the locale is C: Python writes UTF-8 then without being asked to.

    A file takes that as it is; a terminal may show anything in its place.
    """
    asked = "utf8" in sys._xoptions or environ.get("PYTHONUTF8")
    return bool(sys.flags.utf8_mode) and not asked


def screen(context: click.Context) -> Screen:
    """Return the screen that was handed in, else that of standard output."""
    options = given(context)
    color = "never" if options.get("no_color") else options.get("color", "auto")
    if not sys.stdout:  # closed before the start
        return Screen()
    return context.find_object(Screen) or screen_of(sys.stdout, os.environ, color)


class Failure(click.ClickException):
    """What went wrong, and in the lines after the first the way out."""

    def show(self, file: IO[Any] | None = None) -> None:
        shown = indented_lines(self.message, indent="")
        click.echo(f"error: {shown}", file=file, err=True)


def confirmed(question: str) -> bool:
    """Ask the person at the terminal; without a terminal the answer is no."""
    return sys.stdin.isatty() and click.confirm(question, err=True)


def _color(environ: Mapping[str, str], terminal: bool) -> str:
    """Decide as no-color.org and bixense.com/clicolors say."""
    if environ.get("NO_COLOR"):
        return "never"
    if environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return "always"
    return "always" if terminal and environ.get("TERM") != "dumb" else "never"


def _columns(stream: TextIO, environ: Mapping[str, str]) -> int:
    columns = environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return NARROWEST


def _cut(text: str, width: int, at: float, mark: str) -> str:
    if width_of(text) <= width:
        return text
    kept = max(width - len(mark), 1)
    head = -int(-kept * at // 1)
    return _first(text, head) + mark + _first(text[::-1], kept - head)[::-1]


def _first(text: str, width: int) -> str:
    """Return as much of the beginning of a text as so many columns take."""
    taken = 0
    for at, character in enumerate(text):
        taken += width_of(character)
        if taken > width:
            return text[:at]
    return text


# Lengths of time -------------------------------------------------------------------


def until(instant: Instant, now: Instant) -> str:
    """Return how far `instant` lies ahead: `in 4m 48s`, `due now`."""
    return f"in {duration(instant - now)}" if instant > now else "due now"


def since(instant: Instant, now: Instant) -> str:
    """Return how long ago `instant` was: `35m 12s`; from one day on in whole days."""
    ago = max(now - instant, 0)
    return duration(ago - ago % (DAY if ago >= DAY else SECOND))


# Points in time --------------------------------------------------------------------


def day_word(instant: Instant, now: Instant, zone: ZoneInfo) -> str:
    """Return a day: "" for today, `Tue` within a week, `Tue  1 Dec`, with a year."""
    day, today = datetime_of(instant, zone), datetime_of(now, zone)
    distance = abs((day.date() - today.date()).days)
    if distance < 7:
        return f"{day:%a}" if distance else ""
    year = f" {day.year}" if day.year != today.year else ""
    return f"{day:%a} {day.day:2} {day:%b}{year}"


def clock_time(instant: Instant, zone: ZoneInfo) -> str:
    """Return the time of day, with seconds if there are any: `02:30`, `14:05:12`."""
    moment = datetime_of(instant, zone)
    return f"{moment:%H:%M:%S}" if moment.second else f"{moment:%H:%M}"


def moment(instant: Instant, now: Instant, zone: ZoneInfo) -> str:
    """Return day and time in full: `15:00`, `Tue 02:30`, `Tue  1 Dec 06:00`."""
    word, time = day_word(instant, now, zone), clock_time(instant, zone)
    return f"{word} {time}" if word else time


def short_moment(instant: Instant, now: Instant, zone: ZoneInfo) -> str:
    """Return a point in time in ten columns: `14:05:12`, `Tue 02:30`, `Tue  1 Dec`."""
    day = datetime_of(instant, zone)
    word = day_word(instant, now, zone)
    if not word:
        return f"{day:%H:%M:%S}"
    if len(word) == 3:
        return f"{word} {day:%H:%M}"
    return word if len(word) == 10 else f"{day:%Y-%m-%d}"


# Tables ----------------------------------------------------------------------------


def columns_of(rows: Sequence[Sequence[str]], gap: int = 2) -> list[str]:
    """Return `rows` as lines, each column as wide as its widest cell."""
    widths = [max(map(width_of, cells)) for cells in zip(*rows, strict=True)]
    gaps = " " * gap
    return [
        gaps.join(
            padded(cell, width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def padded(text: str, width: int) -> str:
    """Return a text with blanks behind it, so many columns wide at least."""
    return text + " " * (width - width_of(text))


def indented(text: str) -> str:
    """Return lines, indented by four columns."""
    return textwrap.indent(text, "    ")


# JSON ------------------------------------------------------------------------------


def document(schema: str, now: Instant, zone: ZoneInfo, /, **parts: object) -> bytes:
    """Return a JSON document; its schema says its name and version."""
    import msgspec  # `beatd --help` does not need it

    whole = {"schema": schema, **stamps("generated", now, zone), **parts}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2)


def stamps(name: str, instant: Instant | None, zone: ZoneInfo) -> dict[str, object]:
    """Return an instant as RFC 3339 text under `name`, and in seconds beside it."""
    if instant is None:
        return {name: None, f"{name}_ts": None}
    timespec = "milliseconds" if instant % SECOND else "seconds"
    text = datetime_of(instant, zone).isoformat(timespec=timespec)
    return {name: text, f"{name}_ts": instant / SECOND}
