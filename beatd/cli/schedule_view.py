"""Entries, what the schedule file says of them, and when they will run."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from beatd.cli.options import wanted
from beatd.cli.output import Failure
from beatd.cli.running import who_runs
from beatd.cli.usage import NOTHING
from beatd.config.entries import spec_of
from beatd.config.entry_line import BadEntry
from beatd.config.loading import Config, load
from beatd.config.settings import Place, did_you_mean, file_of_url, table
from beatd.errors import BeatdError
from beatd.instant import Instant
from beatd.scheduler.file_view import View, view
from beatd.scheduler.pauses import Pause, read_pauses
from beatd.service.nodes import has_ended
from beatd.text import escaped
from beatd.timetable.entry import Entry
from beatd.timetable.imprint import imprint_of, trace_of
from beatd.timetable.ledger import Mark
from beatd.timetable.policy import Reason
from beatd.timetable.preview import ComingRuns, preview


class NoEntry(Failure):
    """No entry has a name that was given."""

    exit_code = NOTHING


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A config, and what its schedule file says."""

    config: Config
    path: Path
    file: View | None
    """None: there is none yet."""
    scheduler: str = ""
    """Which scheduler runs with that file, in words; empty if none does."""
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    """Entries that are paused while beatd runs, as far as the broker tells."""

    def paused(self, entry: Entry) -> str:
        """Return why an entry is paused, for people; empty if it is not."""
        if pause := self.pauses.get(entry.name):
            return escaped(pause.words)
        return "" if entry.policy.enabled else "paused by the config"

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which times are shown."""
        return self.config.settings.zone

    @property
    def source(self) -> str:
        """What is shown, the schedule file's name and who runs with it, for people."""
        runs = self.scheduler or "no scheduler runs with it"
        if self.file is None:
            runs = f"; {self.scheduler}" if self.scheduler else ""
            return f"configuration only, no schedule file {self.path} yet{runs}"
        return f"state file {self.path}; {runs}"

    def mark(self, entry: Entry) -> Mark | None:
        """Return an entry's mark in the schedule file, if it is that of this entry.

        An entry that was removed and came back is a new one.
        """
        mark = self.file.marks.get(entry.name) if self.file else None
        return None if mark is None or mark.is_removed else mark

    def coming(self, entries: Sequence[Entry], now: Instant) -> dict[str, ComingRuns]:
        """Return the coming runs of these entries, by name."""
        shown = map(self._as_it_goes, entries) if self.pauses else entries
        return preview([*shown], self.file.marks if self.file else {}, now)

    def _as_it_goes(self, entry: Entry) -> Entry:
        """Return an entry, paused if it is that while beatd runs."""
        if entry.name not in self.pauses:
            return entry
        return replace(entry, policy=replace(entry.policy, enabled=False))

    def dropped(self, entry: Entry) -> dict[str, int]:
        """Return how many slots of an entry were dropped, by reason."""
        return dict(self.file.dropped.get(entry.name, {})) if self.file else {}

    def refused(self, entry: Entry) -> str:
        """Return why the broker refuses an entry's emission; empty if it does not."""
        return self.file.refused.get(entry.name, "") if self.file else ""

    def held(self, entry: Entry) -> str:
        """Return why an entry waits for its run for too long; empty if it does not."""
        return self.file.held.get(entry.name, "") if self.file else ""

    @property
    def differs(self) -> bool:
        """Whether the scheduler that wrote the file last went by other entries."""
        theirs = self.file.config if self.file else ""
        own = imprint_of(map(trace_of, self.config.entries)) if theirs else None
        return own is not None and own.digest != theirs

    def uncertain(self, entries: Iterable[Entry]) -> int:
        """Return of how many slots of these it is uncertain whether they ran."""
        reason = str(Reason.UNCERTAIN)
        return sum(self.dropped(entry).get(reason, 0) for entry in entries)

    def written(self, name: str) -> Any:
        """Return an entry as the config has it."""
        return written_in(self.config, name)

    def words(self, entry: Entry) -> str:
        """Return an entry's schedule in a few words, with its zone if it differs."""
        written = self.written(entry.name)
        spec: Any = spec_of(written["schedule"], relative=bool(written.get("relative")))
        zone = zone_of(entry, self.zone)
        return _words(spec) if zone == self.zone else f"{_words(spec)} {zone}"


def schedule_view(context: click.Context) -> ScheduleView:
    """Return the config that is wanted, with its schedule file if there is one.

    Raises ConfigError and ScheduleFileError.
    """
    config = load(wanted(context))
    path = Path(config.settings.beat_schedule_filename)
    file = view(path) if _is_there(path) else None
    who = who_runs(path)
    leader, pauses = _told_by_broker(config)
    if leader and not who:
        click.echo(warning_of_other_file(leader, path), err=True)
    return ScheduleView(config, path, file, who, pauses)


def warning_of_other_file(leader: str, path: Path) -> str:
    """Return that a scheduler leads, with another schedule file than this one."""
    return (
        f"warning: a scheduler leads ({escaped(leader)}) with another schedule file"
        f" than {path}: what it did is not known here; name its file with"
        " --schedule-filename"
    )


def _told_by_broker(config: Config) -> tuple[str, Mapping[str, Pause]]:
    """Return who leads at the broker, and what is paused, if it answers."""
    from beatd.service.wiring.looking import broker_to_look_at

    try:
        broker = broker_to_look_at(config)
        if broker is None:
            return "", {}
        with closing(broker):
            leader, pauses = broker.leader() or "", read_pauses(broker)
    except (BeatdError, OSError):  # of a broker that is away others tell
        return "", {}
    return "" if has_ended(leader) else leader, pauses


def broker_file(url: str) -> str:
    """Return in words which file an address is that of; empty if it is of none."""
    path = file_of_url(url)
    if path is None:
        return ""
    return f"{path.absolute()}{'' if _is_there(path) else ', which is not there yet'}"


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # it cannot be looked at: `view` says why
        return True


def written_in(config: Config, name: str) -> Any:
    """Return an entry as the config has it."""
    schedule = config.settings.beat_schedule
    if name in schedule:
        return schedule[name]
    # A member of an enumeration of texts: it is called by what `str` makes of it.
    return next(one for key, one in schedule.items() if str(key) == name)


def line_of(config: Config, name: str) -> Place | None:
    """Return the line at which an entry is written."""
    for word in table()["beat_schedule"].spellings:
        written = config.source.written.get(word)
        if isinstance(written, Mapping) and name in written:
            place = config.source.locate(word, name)
            return Place(place.file, place.line) if place else None
    return None


def zone_of(entry: Entry, default: ZoneInfo) -> ZoneInfo:
    """Return the zone in which an entry's schedule is read, if that matters to it."""
    zone: ZoneInfo = getattr(entry.schedule, "zone", default)
    return zone


@lru_cache(maxsize=4096)  # entries often share a schedule
def _words(spec: Any) -> str:
    words: str = spec.in_words()
    return words


# Which entries ---------------------------------------------------------------------


def chosen(
    config: Config, patterns: Sequence[str]
) -> tuple[list[Entry], list[BadEntry]]:
    """Return the good and the bad entries whose names match a pattern.

    Without a pattern, all match. A pattern that matches none raises NoEntry: it is
    likely a typo.
    """
    names = [entry.name for entry in config.entries]
    names += [entry.name for entry in config.bad]
    if not patterns:
        return config.entries, config.bad
    matched = named(names, patterns)
    return (
        [entry for entry in config.entries if entry.name in matched],
        [entry for entry in config.bad if entry.name in matched],
    )


def named(names: Collection[str], patterns: Sequence[str]) -> set[str]:
    """Return those of these names that match a pattern; NoEntry if one matches none."""
    matched: set[str] = set()
    for pattern in patterns:
        found = [pattern] if pattern in names else _matching(names, pattern)
        if not found:
            raise NoEntry(_no_match(pattern, names))
        matched.update(found)
    return matched


def _matching(names: Collection[str], pattern: str) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def _no_match(pattern: str, names: Collection[str]) -> str:
    if any(sign in pattern for sign in "*?["):
        return f"no entry matches {pattern!r}\n  all entries: beatd list"
    hint = did_you_mean(pattern, names)
    all_entries = "all entries: beatd list"
    return (
        f"no entry named {pattern!r}\n"
        f"  {f'{hint}   {all_entries}' if hint else all_entries}"
    )
