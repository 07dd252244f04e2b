"""`beatd check`: all that is wrong with a config, at which line, and the way out."""

import linecache
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from beatd.cli.advice import advice
from beatd.cli.options import COLOR, CONFIG, JSON, given, wanted
from beatd.cli.output import Screen, counted, document, indented, printable, screen
from beatd.cli.schedule_view import line_of
from beatd.clock import SystemClock
from beatd.config.loading import Config, Report, examine
from beatd.config.settings import Place, Problem, did_you_mean, mask, table
from beatd.errors import BrokerUnavailable, ConfigError
from beatd.instant import Instant
from beatd.schedules.zones import UTC

BAD, UNREADABLE = 1, 78
"""Exit statuses: something is wrong; nothing could be read."""


@click.command("check", context_settings={"max_content_width": 100})
@CONFIG
@click.option(
    "-b",
    "--broker",
    metavar="[URL]",
    is_flag=False,
    flag_value="",
    help="Ask the broker, or the one at URL, whether it is there.",
)
@click.option("--import", "imports", is_flag=True, help="Import the tasks' modules.")
@click.option("--strict", is_flag=True, help="A warning is as bad as an error.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
)
@JSON
@COLOR
@click.pass_context
def command(
    context: click.Context,
    /,
    broker: str | None,
    imports: bool,
    strict: bool,
    form: str,
    as_json: bool,
    **_: Any,
) -> None:
    """Say whether the configuration is right, and change nothing.

    Exit status: 0 it is, 1 something is wrong, 78 it cannot be read at all. With
    --quiet nothing else is said.
    """
    if broker == "":
        del context.params["broker"]  # none is named: the config's is meant
    found = _examine(context, imports, ask=broker is not None)
    if not given(context).get("quiet"):
        if as_json or form == "json":
            click.echo(found.document(SystemClock().now()))
        elif form == "github":
            for problem in found.problems:
                click.echo(_annotation(problem))
        else:
            _print(found, screen(context))
    context.exit(found.status(strict))


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out about a config."""

    report: Report
    problems: list[Problem]
    refused: bool = False
    """Whether beatd does not start at all."""
    broker: str = ""
    """What the broker said, if it was asked and answered."""

    @property
    def errors(self) -> int:
        """How many problems are errors."""
        return sum(not problem.warning for problem in self.problems)

    @property
    def warnings(self) -> int:
        """How many are not."""
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
        """Give the exit status."""
        if self.report.config is None:
            return UNREADABLE
        return BAD if self.errors or (strict and self.warnings) else 0

    def document(self, now: Instant) -> bytes:
        """Say it all to programs; lines and columns count from 1."""
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


def _examine(context: click.Context, imports: bool, ask: bool) -> Findings:
    report = examine(wanted(context))
    config = report.config
    if config is None:
        return Findings(report, report.problems, refused=True)
    strangers = _strange_brokers(config)
    problems = [*report.problems, *strangers, *_strange_results(config)]
    problems += advice(config, SystemClock().now())
    refused = bool(report.errors or strangers)
    answer = ""
    if imports:
        problems += _import_problems(config)
    if ask and not refused:
        answer, unreachable = _ask_broker(config)
        problems += unreachable
    problems.sort(key=lambda one: one.place.line if one.place else sys.maxsize)
    return Findings(report, problems, refused, answer)


def _severity(problem: Problem) -> str:
    return "warning" if problem.warning else "error"


# Addresses -------------------------------------------------------------------------


def _strange_brokers(config: Config) -> list[Problem]:
    """Name brokers that Celery knows and beatd does not speak to."""
    from beatd import brokers

    settings = config.settings
    urls = dict.fromkeys((*settings.write_urls, *settings.read_urls))
    problems = []
    for url in urls:
        if _is_file(url):
            continue  # there a look would make one
        try:
            brokers.of_settings(settings, [url]).close()
        except ConfigError as error:
            place = _place_of(config, "broker_url")
            problems += [
                Problem(f"broker_url: {it}", "", place) for it in error.problems
            ]
    return problems


def _strange_results(config: Config) -> list[Problem]:
    """Name a result backend that only Celery's workers write to.

    A worker of beatd's does so too for the tasks of a Celery app.
    """
    from beatd import results
    from beatd.app import Beatd

    settings = config.settings
    app = config.source.app
    if settings.result_url is None or _is_file(settings.result_url):
        return []
    if app is not None and not isinstance(app, Beatd):
        return []
    try:
        results.connect(settings).close()
    except ConfigError as error:
        hint = "before Celery's workers that is well; `beatd worker` refuses to start"
        place = _place_of(config, "result_backend")
        return [
            Problem(f"result_backend: {it}", hint, place, warning=True)
            for it in error.problems
        ]
    return []


def _is_file(url: str) -> bool:
    return urlsplit(url).scheme in ("sqlite", "db+sqlite")


def _place_of(config: Config, setting: str) -> Place | None:
    """Give where a setting's value is written, in whichever spelling."""
    written = config.source.written.keys() & table()[setting].spellings
    places = (config.source.locate_value(word) for word in written)
    return next(filter(None, places), None)


# What only the outside can tell ----------------------------------------------------


def _import_problems(config: Config) -> list[Problem]:
    """Import the modules of tasks, and look for each entry's task."""
    from beatd.tasks import import_modules

    try:
        import_modules(config.settings.modules)
    except ConfigError as error:
        return [Problem(f"cannot import {problem}") for problem in error.problems]
    known = _known_tasks()
    problems = []
    for entry in config.entries:
        task = entry.message.task
        if task not in known:
            said = f"entry {entry.name!r}: no task named {task!r} was imported"
            hint = (
                did_you_mean(task, known) or "name its module in 'imports', or use -A"
            )
            problems.append(Problem(said, hint, line_of(config, entry.name)))
    return problems


def _known_tasks() -> set[str]:
    """Give the names of all tasks that were imported, Celery's too."""
    from beatd.app import Beatd
    from beatd.tasks.current import current_app

    app = current_app()
    known = set(app.tasks) if isinstance(app, Beatd) else set()
    if celery := sys.modules.get("celery"):
        known |= set(celery.current_app.tasks)
    return known


def _ask_broker(config: Config) -> tuple[str, list[Problem]]:
    """Say which broker answers, and what goes wrong where none does."""
    first, *others = config.settings.write_urls
    answer, problems = _ask_at(config, first)
    for url in others:
        _, found = _ask_at(config, url)
        problems += [replace(one, warning=True) for one in found]
    return answer, problems


def _ask_at(config: Config, url: str) -> tuple[str, list[Problem]]:
    from beatd import brokers

    if _is_made_later(url):
        return f"{url}: it will be made when it is first used", []
    try:
        broker = brokers.of_settings(config.settings, [url])
        try:
            answer = broker.ping()
            risks = broker.risks()
        finally:
            broker.close()
    except ConfigError as error:
        return "", [Problem(f"broker: {problem}") for problem in error.problems]
    except BrokerUnavailable as error:
        said = str(error)
        if mask(url) not in said:
            said = f"{mask(url)}: {said}"
        return "", [Problem(f"broker {said}")]
    problems = [Problem(f"broker {mask(url)}: {risk}", warning=True) for risk in risks]
    return f"{mask(url)}: {answer}; each slot is queued exactly once", problems


def _is_made_later(url: str) -> bool:
    """Whether asking would make a file, which may then belong to the wrong user."""
    path = Path(unquote(urlsplit(url).path[1:]))
    return _is_file(url) and not path.exists() and path.parent.is_dir()


# For people ------------------------------------------------------------------------


def _print(found: Findings, out: Screen) -> None:
    out.say(_headline(found))
    if found.broker:
        out.say(f"broker {found.broker}")
    for problem in found.problems:
        out.say()
        for line in _lines(problem, out):
            out.say(line)
    if closing := _closing(found):
        out.say()
        out.say(closing)


def _headline(found: Findings) -> str:
    name = printable(found.report.name)
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
    kind = out.style(_severity(problem))
    yield f"{printable(where)}{kind}: {printable(problem.message)}"
    if problem.place and (excerpt := _excerpt(problem.place, out)):
        yield indented(excerpt)
    if problem.hint:
        yield indented(printable(problem.hint))


def _excerpt(place: Place, out: Screen) -> str:
    """Give the line with carets below; nothing for a name, which the message has.

    Nothing either for a line that seems to hold a secret.
    """
    linecache.checkcache(place.file)
    line = linecache.getline(place.file, place.line).rstrip().replace("\t", " ")
    if not place.column or not line or mask(line) != line or _SECRET.search(line):
        return ""
    lead = f"{place.line} | "
    if out.width is not None:
        line = line[: out.width - len(lead) - _INDENT]
    end = min(max(place.end_column, place.column + 1), len(line))
    carets = " " * place.column + "^" * (end - place.column)
    bar = " " * (len(lead) - 2) + "|"
    return f"{lead}{printable(line)}\n{bar} {carets}".rstrip()


_INDENT = 4
_SECRET = re.compile(r"passw|secret|token|api_?key", re.IGNORECASE)


def _closing(found: Findings) -> str:
    """Say what beatd does as long as the errors are there."""
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


def _annotation(problem: Problem) -> str:
    """Give a workflow command of GitHub's, which shows it beside the line."""
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
    """Give a place with all that is known of it, counted from 1."""
    has_columns = place is not None and place.end_column > place.column
    return {
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column + 1 if place and has_columns else None,
        "end_column": place.end_column if place and has_columns else None,
    }
