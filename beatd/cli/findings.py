"""Findings of `beatd check`, for people and for programs."""

import linecache
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from beatd.cli.output import Screen, document, indented
from beatd.config.loading import ConfigReport
from beatd.config.settings import Place, Problem, mask, mentions_secret
from beatd.instant import Instant
from beatd.schedules.zones import UTC
from beatd.text import counted, escaped, width_of

BAD, UNREADABLE = 1, 78
"""Exit statuses: something is wrong; nothing could be read."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that `beatd check` found out about a config."""

    report: ConfigReport
    problems: list[Problem]
    refused: bool = False
    """Whether beatd does not start at all."""
    broker: str = ""
    """The broker's answer, if it was asked and has answered."""
    notes: Sequence[str] = ()
    """What is good to know, and nothing to mend."""

    @property
    def errors(self) -> int:
        """How many problems are errors."""
        return sum(not problem.warning for problem in self.problems)

    @property
    def warnings(self) -> int:
        """How many problems are warnings."""
        return len(self.problems) - self.errors

    @property
    def usable(self) -> int:
        """How many entries beatd would schedule."""
        config = self.report.config
        return 0 if config is None or self.refused else len(config.entries)

    @property
    def total(self) -> int:
        """How many entries there are."""
        config = self.report.config
        return len(config.entries) + len(config.bad) if config else 0

    def status(self, strict: bool) -> int:
        """Return the exit status."""
        if self.report.config is None:
            return UNREADABLE
        return BAD if self.errors or (strict and self.warnings) else 0

    def document(self, now: Instant) -> bytes:
        """Return the findings for programs; lines and columns count from 1."""
        return document(
            "beatd.check/1",
            now,
            UTC,
            config=self.report.name,
            entries=self.total,
            usable=self.usable,
            errors=self.errors,
            warnings=self.warnings,
            broker=self.broker or None,
            notes=list(self.notes),
            problems=[
                {
                    "severity": _severity(problem),
                    "message": problem.message,
                    "hint": problem.hint,
                    **_columns(problem.place),
                }
                for problem in self.problems
            ],
        )


# For people ------------------------------------------------------------------------


def print_findings(found: Findings, out: Screen) -> None:
    """Print the findings on a screen."""
    out.say(_headline(found))
    if found.broker:
        out.say(out.wrapped(f"broker {found.broker}", _INDENT))
    for note in found.notes:
        out.say(out.wrapped(escaped(note), _INDENT))
    for problem in found.problems:
        out.say()
        for line in _lines(problem, out):
            out.say(line)
    if closing := _closing(found):
        out.say()
        out.say(closing)


def _headline(found: Findings) -> str:
    name = escaped(found.report.name)
    if found.report.config is None:
        return f"{name}: cannot be read"
    if not found.problems:
        return f"{name}: {counted(found.total, 'entry')}, all is well"
    numbers = (
        counted(found.total, "entry"),
        counted(found.errors, "error"),
        counted(found.warnings, "warning"),
    )
    return f"{name}: {', '.join(numbers)}"


def _lines(problem: Problem, out: Screen) -> Iterator[str]:
    where = f"{problem.place}: " if problem.place else ""
    kind = _severity(problem)
    text = f"{escaped(where)}{kind}: {escaped(problem.message)}"
    first, *more = out.wrapped(text, _HANG).split("\n")
    yield first.replace(f"{kind}:", f"{out.style(kind)}:", 1)
    yield from more
    if problem.place and (excerpt := _excerpt(problem.place, out)):
        yield indented(excerpt)
    for line in escaped(problem.hint).splitlines():
        yield out.wrapped(indented(line), _INDENT)


def _excerpt(place: Place, out: Screen) -> str:
    """Return the line with carets below it.

    Return nothing for a line that seems to have a secret in it.
    """
    linecache.checkcache(place.file)
    line = linecache.getline(place.file, place.line).rstrip().replace("\t", " ")
    is_whole = place.end_column <= place.column
    if is_whole or not line or mask(line) != line or mentions_secret(line):
        return ""
    lead = f"{place.line} | "
    if out.width is not None:
        line = line[: out.width - len(lead) - _INDENT]
    end = min(max(place.end_column, place.column + 1), len(line))
    before, marked = line[: place.column], line[place.column : end]
    carets = " " * width_of(before) + "^" * max(width_of(marked), 1)
    bar = " " * (len(lead) - 2) + "|"
    return f"{lead}{escaped(line)}\n{bar} {carets}".rstrip()


_INDENT, _HANG = 4, 2
"""Columns before an excerpt or a hint, and before the rest of a long message."""


def _closing(found: Findings) -> str:
    """Return what beatd does as long as the errors are there."""
    if not found.errors:
        return ""
    if found.refused:
        return "fix the errors; until then beatd refuses to start."
    if found.usable == found.total:
        return ""
    others = {0: "nothing", 1: "the other entry"}.get(
        found.usable, f"the other {found.usable} entries"
    )
    return f"fix the errors; until then beatd schedules {others}."


# For programs ----------------------------------------------------------------------


def annotation(problem: Problem) -> str:
    """Return a workflow command of GitHub's: it shows the problem beside its line."""
    columns = _columns(problem.place)
    names = {"file": "file", "line": "line", "column": "col", "end_column": "endColumn"}
    place = ",".join(
        f"{theirs}={_escaped(str(columns[ours]), more=':,')}"
        for ours, theirs in names.items()
        if columns[ours] is not None
    )
    kind = f"{_severity(problem)} {place}".rstrip()
    text = f"{problem.message}\n{problem.hint}".rstrip()
    return f"::{kind}::{_escaped(text)}"


def _escaped(text: str, more: str = "") -> str:
    for sign in f"%\r\n{more}":
        text = text.replace(sign, f"%{ord(sign):02X}")
    return text


def _columns(place: Place | None) -> dict[str, Any]:
    """Return the line and the columns of a place, as far as known, counted from 1."""
    has_columns = place is not None and place.end_column > place.column
    return {
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column + 1 if place and has_columns else None,
        "end_column": place.end_column if place and has_columns else None,
    }


def _severity(problem: Problem) -> str:
    return "warning" if problem.warning else "error"
