"""What `beatd import` would take over, entry by entry, and the doing of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from beatd.cli.output import (
    Failure,
    Screen,
    confirmed,
    document,
    moment,
    short_moment,
    since,
    stamps,
    until,
)
from beatd.config.loading import Config
from beatd.instant import Instant
from beatd.migrate.found import Found, FoundEntry
from beatd.migrate.marks import marks_of
from beatd.service.wiring.looking import ledger_of
from beatd.service.wiring.scheduler import bring_marks
from beatd.storage.sqlite_file import set_aside
from beatd.text import counted, listed
from beatd.timetable.entry import Entry
from beatd.timetable.ledger import LedgerCopy, Mark, with_later
from beatd.timetable.preview import ComingRuns, preview

_NAMED = 5
"""Entries that a line names, at most."""


class Step(Enum):
    """What becomes of an entry's last run."""

    TAKEN = "to take over"
    KEPT = "kept as beatd has it"
    NEW = "not known: begins with its next slot"


@dataclass(frozen=True)
class Plan:
    """A config, what another scheduler keeps, and what the ledger has already."""

    config: Config
    found: Found
    ledger: LedgerCopy
    now: Instant

    @classmethod
    def of(cls, config: Config, found: Found, now: Instant) -> "Plan":
        """Return the plan; the broker is asked for its ledger.

        Raises ConfigError and BrokerUnavailable.
        """
        return cls(config, found, ledger_of(config), now)

    @cached_property
    def marks(self) -> Mapping[str, Mark]:
        """The marks that the ledger gets, or has already."""
        return marks_of(self.config.entries, self.found.entries)

    @property
    def taken(self) -> list[Entry]:
        """The entries whose last run is taken over."""
        return [one for one in self.config.entries if self.step(one) is Step.TAKEN]

    @property
    def missing(self) -> list[FoundEntry]:
        """Entries that the other scheduler has, and the config has not."""
        ours = {entry.name for entry in self.config.entries}
        ours.update(bad.name for bad in self.config.bad)
        return [one for one in self.found.entries if one.name not in ours]

    def step(self, entry: Entry) -> Step:
        """Return what becomes of an entry's last run."""
        mark, known = self.marks.get(entry.name), self.ledger.marks.get(entry.name)
        if mark is None:
            return Step.NEW if known is None else Step.KEPT
        return Step.TAKEN if known is None or known.slot < mark.slot else Step.KEPT

    def coming(self) -> Mapping[str, ComingRuns]:
        """Return the coming runs of each entry, once its last run is taken over."""
        marks = with_later(self.ledger, self.marks).marks
        return preview(self.config.entries, marks, self.now)

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which times are shown."""
        return self.config.settings.zone

    def last(self, entry: Entry) -> Mark | None:
        """Return the mark with the last run that counts for an entry."""
        if self.step(entry) is Step.TAKEN:
            return self.marks[entry.name]
        return self.ledger.marks.get(entry.name)


def show(plan: Plan, out: Screen) -> None:
    """Print what is taken over, and what is not."""
    if plan.config.entries:
        for line in out.table([*_table(plan, out)]):
            out.say(line)
        out.say()
    if missing := plan.missing:
        out.say(f"not in {plan.config.source.name}: {_named(missing, out)}")
    if bad := plan.config.bad:
        out.say(f"bad, and so left out: {counted(len(bad), 'entry')}, see beatd check")
    for problem in plan.found.problems:
        out.say(f"cannot be taken over: {out.shown(problem)}")
    kept = sum(plan.step(one) is Step.KEPT for one in plan.config.entries)
    more = f", {kept} kept as beatd has them" if kept else ""
    source = out.shown(plan.found.source)
    out.say(f"{source}: {counted(len(plan.taken), 'last run')} to take over{more}.")


def _table(plan: Plan, out: Screen) -> Iterator[tuple[str, ...]]:
    yield ("ENTRY", f"LAST RUN ({plan.zone})", "RUNS", "NEXT", "LAST RUN IS")
    coming = plan.coming()
    for entry in plan.config.entries:
        mark, first = plan.last(entry), coming[entry.name].first()
        last = mark.last if mark else None
        yield (
            out.shown(entry.name),
            "-" if last is None else _past(last, plan),
            str(mark.runs) if mark else "-",
            "-" if first is None else _coming(first, plan),
            _becomes(plan.step(entry), mark),
        )


def _becomes(step: Step, mark: Mark | None) -> str:
    if step is Step.TAKEN and mark and mark.last is None:
        return "none yet: counts from when it was added"
    return step.value


def _past(instant: Instant, plan: Plan) -> str:
    at = short_moment(instant, plan.now, plan.zone)
    return f"{at:10}{since(instant, plan.now):>8}"


def _coming(instant: Instant, plan: Plan) -> str:
    at = moment(instant, plan.now, plan.zone)
    return f"{at}  {until(instant, plan.now)}"


def _named(entries: list[FoundEntry], out: Screen) -> str:
    return listed([repr(out.shown(one.name)) for one in entries], _NAMED)


def as_document(plan: Plan, *, written: bool) -> bytes:
    """Return the plan as a JSON document."""
    zone, coming = plan.zone, plan.coming()
    entries = []
    for entry in plan.config.entries:
        mark = plan.last(entry)
        entries.append(
            {
                "name": entry.name,
                "step": plan.step(entry).name.lower(),
                **stamps("last_run_at", mark.last if mark else None, zone),
                "runs": mark.runs if mark else 0,
                **stamps("next", coming[entry.name].first(), zone),
            }
        )
    return document(
        "beatd.import/1",
        plan.now,
        zone,
        source=plan.found.source,
        written=written,
        entries=entries,
        missing=[one.name for one in plan.missing],
        problems=[*plan.found.problems],
    )


# Doing it --------------------------------------------------------------------------


def is_wanted(plan: Plan, *, yes: bool, dry_run: bool) -> bool:
    """Return whether it is to be done now: told so, or answered so at the terminal."""
    if dry_run or not plan.taken:
        return False
    return yes or confirmed(f"take over {counted(len(plan.taken), 'last run')}?")


def carry_out(plan: Plan, shelve: Path | None = None) -> Path | None:
    """Write the last runs into ledger and schedule file.

    If the schedule file is to be where the shelve lies, that is renamed first: return
    its new path. Raises Failure, having changed nothing, while a scheduler leads.
    """
    if plan.found.in_use:
        raise Failure(f"{plan.found.in_use}\n  stop it first, then run this again")
    path = Path(plan.config.settings.beat_schedule_filename)
    with _out_of_the_way(path, shelve) as aside:
        leader = bring_marks(plan.config, plan.marks, _say_wait)
        if leader:
            text = f"a scheduler of beatd leads ({leader}): nothing was changed"
            way = "stop it, run this again, and start it: no slot is lost meanwhile"
            raise Failure(f"{text}\n  {way}")
    return aside


@contextmanager
def _out_of_the_way(path: Path, shelve: Path | None) -> Iterator[Path | None]:
    """Keep the shelve under another name, if the schedule file is to have its name."""
    if shelve is None or not (path.is_file() and path.samefile(shelve)):
        yield None
        return
    aside = set_aside(path, "celery")
    try:
        yield aside
    except BaseException:  # as it was, also after Ctrl-C
        if not path.exists():
            aside.rename(path)
        raise


def _say_wait() -> None:
    click.echo(
        "no last runs in this broker yet: waiting for a moment, in case that a"
        " scheduler which runs restores them",
        err=True,
    )
