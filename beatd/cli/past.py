"""What became of slots, as the broker's history and the results tell it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import nlargest
from itertools import islice
from zoneinfo import ZoneInfo

import click

from beatd.cli.output import (
    SQUEEZED_NAME,
    Failure,
    Screen,
    clock_time,
    columns_of,
    day_word,
    stamps,
)
from beatd.config.loading import Config
from beatd.config.settings import mask_url
from beatd.errors import BeatdError, ConfigError
from beatd.ids import run_id
from beatd.instant import (
    MINUTE,
    SECOND,
    Instant,
    Span,
    datetime_of,
    delay,
    duration,
    instant_of,
)
from beatd.results.base import READY_STATES, Meta, State
from beatd.results.readable import why_failed
from beatd.service.status import Runs
from beatd.service.wiring.looking import history_of, metas_of
from beatd.text import counted
from beatd.timetable.history import History
from beatd.timetable.pages import Record, What


@dataclass(frozen=True, slots=True)
class PastView:
    """A config, and what its broker knows of the past."""

    config: Config
    history: History
    offsets: Mapping[str, Span] = field(default_factory=dict)
    """By entry, how long after its slots it is emitted."""

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which times are shown."""
        return self.config.settings.zone

    @property
    def place(self) -> str:
        """The broker's address, without what is secret in it."""
        return mask_url(self.config.settings.write_urls[0])

    def runs(
        self, names: Collection[str], begin: Instant | None, end: Instant | None
    ) -> Iterator[tuple[str, Record]]:
        """Yield the records of these entries whose slots lie in a stretch of time."""
        for name in names:
            for record in self.history.of(name).records:
                if (begin is None or record.reach >= begin) and (
                    end is None or record.slot <= end
                ):
                    yield name, record

    def newest(
        self,
        names: Collection[str],
        limit: int,
        begin: Instant | None = None,
        end: Instant | None = None,
    ) -> "list[Run]":
        """Return the last of these records, the newest first, with their states."""
        told = enumerate(self.runs(names, begin, end))
        latest = nlargest(limit, told, key=lambda one: (one[1][1].at, one[0]))
        found = [self._run(name, record) for _, (name, record) in latest]
        return _with_states(self.config, found)

    def summary(self, limit: int) -> Runs | None:
        """Return what the results tell of the last runs; None if they tell nothing."""
        sent = [one for one in self.newest([*self.history], limit) if one.id]
        ended = [one for one in sent if one.state in READY_STATES]
        if not ended:
            return None
        failed = sum(one.state != State.SUCCESS for one in ended)
        ran = sorted(one.ran for one in ended if one.ran is not None)
        p50 = ran[len(ran) // 2] / SECOND if ran else None
        return Runs(sent=len(sent), ended=len(ended), failed=failed, p50=p50)

    def failing(self, most: int) -> list[str]:
        """Return the entries whose last run that ended failed, by the `most` last ones.

        The last but one is asked for, too: the last may go on.
        """
        sent = []
        for entry in self.config.entries:
            records = self.history.of(entry.name).records
            last = [one for one in records if one.what is What.SENT][-2:]
            sent += [self._run(entry.name, record) for record in last]
        newest = nlargest(most, sent, key=lambda run: run.record.at)
        states = {
            run.entry: run.state
            for run in reversed(_with_states(self.config, newest))
            if run.state in READY_STATES
        }
        return sorted(name for name, state in states.items() if state == State.FAILURE)

    def recent(self, names: Collection[str], number: int) -> "dict[str, list[Run]]":
        """Return by entry the last slots of which something is decided, in order."""
        recent = {
            name: [
                self._run(name, record)
                for record in self.history.of(name).records
                if record.what in (What.SENT, What.UNCERTAIN, What.DROPPED)
            ][-number:]
            for name in names
        }
        found = _with_states(
            self.config, [run for runs in recent.values() for run in runs]
        )
        told = iter(found)
        return {name: [*islice(told, len(runs))] for name, runs in recent.items()}

    def _run(self, name: str, record: Record) -> "Run":
        late = record.late - self.offsets.get(name, 0)
        namespace = self.config.settings.beat_namespace
        was_sent = record.what in (What.SENT, What.UNCERTAIN)
        id = run_id(namespace, name, record.era, record.slot) if was_sent else ""
        return Run(name, record, late, id)

    @property
    def reach(self) -> str:
        """Return since when there is a history, for people."""
        since = self.history.since
        if since is None:
            return f"no history yet at {self.place}"
        begins = f"history at {self.place} begins {full(since, self.zone)}"
        for first, last in self.history.lost:
            gap = f"{full(first, self.zone)} to {full(last, self.zone)}"
            begins += f"; lost with the broker's data: {gap}"
        return begins


@dataclass(frozen=True, slots=True)
class Run:
    """A record, and what the results say of its run."""

    entry: str
    record: Record
    late: Span
    id: str
    """The task id; empty for what was not sent."""
    state: str = ""
    """As the results have it; empty if they have nothing."""
    ended: Instant | None = None
    ran: Span | None = None
    """How long the task's code ran; None if nobody told, as workers of Celery's."""
    error: str = ""
    """The exception of a run that failed."""

    @property
    def word(self) -> str:
        """The state of the run in one word; `unknown` if nobody told of it."""
        if not self.id:
            return ""
        return _WORDS.get(self.state, self.state.lower()) or "unknown"

    @property
    def took(self) -> Span | None:
        """How long after it was sent the run had ended."""
        return None if self.ended is None else self.ended - self.record.at

    @property
    def why(self) -> str:
        """What else there is to say of it, for people."""
        record = self.record
        match record.what:
            case What.DROPPED:
                return record.why
            case What.HELD | What.REFUSED:
                return f"for {duration(max(record.late, 0))}: {record.why}"
            case What.BEGAN:
                return "new or changed: counts from here"
            case _:
                return self.id


_WORDS = {"SUCCESS": "ok", "FAILURE": "FAIL", "STARTED": "run"}


def past_view(config: Config) -> PastView:
    """Return what the broker knows. Raises Failure, and BrokerUnavailable."""
    try:
        history = history_of(config)
    except ValueError as error:
        raise Failure(f"the broker's history cannot be read: {error}") from error
    offsets = {entry.name: entry.offset for entry in config.entries}
    return PastView(config, history, offsets)


def _with_states(config: Config, runs: Sequence[Run]) -> list[Run]:
    """Return the runs with what the results have of them.

    If they do not answer, standard error has that, and the runs are as they were.
    """
    try:
        ids = [run.id for run in runs if run.id]
        metas, unreadable = metas_of(config.settings, ids)
    except ConfigError:
        return [*runs]  # a backend of Celery's, say: each state is unknown
    except BeatdError as error:
        click.echo(f"no states of runs: {error}", err=True)
        return [*runs]
    for why in islice(unreadable.values(), 1):
        number = counted(len(unreadable), "run")
        click.echo(f"no state of {number}: {why}", err=True)
    return [
        Run(
            run.entry,
            run.record,
            run.late,
            run.id,
            str(meta.status),
            _ended(meta),
            None if meta.runtime is None else round(meta.runtime * SECOND),
            why_failed(meta),
        )
        if (meta := metas.get(run.id))
        else run
        for run in runs
    ]


def _ended(meta: Meta) -> Instant | None:
    done = meta.date_done
    try:
        moment = datetime.fromisoformat(done) if isinstance(done, str) else done
        return instant_of(moment) if moment else None
    except ValueError:
        return None  # a foreign worker's own form, or without a zone


# For people ------------------------------------------------------------------------


def full(instant: Instant, zone: ZoneInfo) -> str:
    """Return a point in time with its date: `23 Nov 2026 14:05:12`."""
    moment = datetime_of(instant, zone)
    return f"{moment.day} {moment:%b %Y %H:%M:%S}"


def at_second(
    instant: Instant, now: Instant, zone: ZoneInfo, *, exact: bool = False
) -> str:
    """Return a slot, with its day unless that is today: `Tue 02:30`, `14:05:12`.

    `exact` shows seconds even where there are none, as others in the column have some.
    """
    word, time = day_word(instant, now, zone), clock_time(instant, zone)
    if exact:
        time = f"{datetime_of(instant, zone):%H:%M:%S}"
    millis = f".{instant % SECOND:03}" if instant % SECOND else ""
    return f"{word} {time}{millis}".strip()


def lateness(span: Span) -> str:
    """Return how late something was: `+6 ms`, `+0.9 s`, `+4m 10s`."""
    return delay(span) if span < 0 else f"+{delay(span)}"


_LATE, _ENDED, _RAN = -5, -3, -2
"""Columns of the table, from its end."""


def table(
    runs: Sequence[Run], now: Instant, zone: ZoneInfo, out: Screen, *, named: bool
) -> list[str]:
    """Return the head and a line for each run.

    Where that is too wide, the column of ends goes, then that of ids: what was not sent
    then has its reason in the columns that are empty there.
    """
    exact = any(run.record.slot % MINUTE or run.record.reach % MINUTE for run in runs)
    head = [f"SLOT ({zone})", "", "LATE", "STATE", "ENDED", "RAN", "TASK ID, OR WHY"]
    rows = [["ENTRY", *head] if named else head]
    for run in runs:
        name = out.shown(run.entry)
        if out.width is not None:
            name = out.cut(name, SQUEEZED_NAME)
        row = _row(run, now, zone, out, exact=exact)
        rows.append([name, *row] if named else row)
    # When a run ended says little beside how long it ran.
    for form in (rows, [[*row[:_ENDED], *row[_RAN:]] for row in rows]):
        lines = columns_of(form)
        if out.width is None or max(map(len, lines)) <= out.width:
            return lines
    whys = ["", *("" if run.id else out.shown(run.why) for run in runs)]
    return out.table(_narrowed(rows, whys))


def _row(
    run: Run, now: Instant, zone: ZoneInfo, out: Screen, *, exact: bool
) -> list[str]:
    record = run.record
    slot = at_second(record.slot, now, zone, exact=exact)
    if record.last is not None:
        last = at_second(record.last, now, zone, exact=exact)
        slot = f"{slot} .. {last}, {counted(record.number, 'slot')}"
    return [
        slot,
        str(record.what),
        lateness(run.late) if run.id else "",
        run.word,
        "" if run.took is None else f"after {delay(run.took)}",
        "" if run.ran is None else delay(run.ran),
        out.shown(run.why),
    ]


def _narrowed(rows: Sequence[Sequence[str]], whys: Sequence[str]) -> list[list[str]]:
    """Return the lines of a narrow table, as rows of one cell."""
    lines = columns_of([[*row[:_ENDED], row[_RAN]] for row in rows])
    late = max(map(len, columns_of([row[:_LATE] for row in rows]))) + 2
    return [
        [f"{line[:late]:{late}}{why}" if why else line]
        for line, why in zip(lines, whys, strict=True)
    ]


# For programs ----------------------------------------------------------------------


def run_data(run: Run, zone: ZoneInfo) -> dict[str, object]:
    """Return a run for a JSON document."""
    record = run.record
    return {
        "entry": run.entry,
        "what": str(record.what),
        **stamps("slot", record.slot, zone),
        **stamps("last_slot", record.reach, zone),
        "slots": record.number,
        **stamps("at", record.at, zone),
        "late": run.late / SECOND,
        "reason": record.why or None,
        "era": record.era,
        "task_id": run.id or None,
        "state": run.state or None,
        **stamps("ended", run.ended, zone),
        "run_time": None if run.ran is None else run.ran / SECOND,
        "error": run.error or None,
    }


def lost_data(history: History, zone: ZoneInfo) -> list[dict[str, object]]:
    """Return for a JSON document what the history has lost."""
    return [
        {**stamps("from", first, zone), **stamps("to", last, zone)}
        for first, last in history.lost
    ]
