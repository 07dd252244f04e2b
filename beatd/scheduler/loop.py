"""The loop that emits each slot once."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from queue import SimpleQueue
from typing import Protocol, TypeVar

from beatd.brokers.base import Emission, Emitter, LedgerCopy, Outcome, Term
from beatd.clock import Clock, Wake
from beatd.errors import BrokerUnavailable, TermOver
from beatd.ids import run_id
from beatd.instant import MINUTE, SECOND, Instant, Span, datetime_of
from beatd.routing import Queue
from beatd.scheduler.leadership import STANDBY_LOOK, Leadership
from beatd.schedules.base import Schedule
from beatd.timetable.entry import Due, Entry, Mark, Overlap
from beatd.timetable.policy import Decision, Drop, decide
from beatd.timetable.timetable import Timetable

logger = logging.getLogger(__name__)

LONGEST_NAP: Span = SECOND
"""The loop turns at least this often: to see a stepped clock, to hold the lead."""

BATCH = 1000
"""Emissions in one step of the broker, which nobody else can use meanwhile."""

AT_ONCE = 10_000
"""Entries to place, or rows to write, before the lead is looked after again."""

RETRY_FIRST, RETRY_LAST = SECOND // 10, SECOND
"""The pause after a failed step, doubled each time; short, since slots may be due."""

HOLD_LOOK: Span = SECOND // 2
"""How often a held slot asks whether the run before it has ended."""

CLOCK_TOLERANCE: Span = 3 * SECOND
"""Clocks that differ by less are the same: nothing is rewound."""

REFRESH: Span = MINUTE
"""How often a standby reads the leader's ledger, in case the broker loses it."""

REFRESH_SHARE = 100
"""A standby spends at most one part of so many of its time on that."""

_T = TypeVar("_T")


class LedgerFile(Protocol):
    """The schedule file, as the scheduler uses it: schedule_file.py.

    No method raises for a file that cannot be used just now: it says so once, keeps
    what was recorded in memory, and tries again.
    """

    def try_lock(self) -> bool:
        """Take the file for this process; False while another one has it."""
        ...

    def unlock(self) -> None:
        """Let others take the file."""
        ...

    def read(self) -> LedgerCopy:
        """Give the ledger as it was last written."""
        ...

    def highest_term(self) -> int:
        """Give the largest term number seen."""
        ...

    def rewrite(
        self, marks: Mapping[str, Mark], gone: Collection[str], era: int, term: int
    ) -> None:
        """Make the file say this ledger, era and term, at once."""
        ...

    def record(
        self, marks: Mapping[str, Mark], dropped: Mapping[tuple[str, str], int]
    ) -> None:
        """Keep these rows, and count what was dropped, at the next flush."""
        ...

    def flush(self) -> None:
        """Write what was recorded, in one transaction."""
        ...


class EmissionListener(Protocol):
    """Who is told what was emitted; what he makes of it keeps nobody waiting."""

    def emitted(self, emissions: Sequence[Emission]) -> None:
        """Take note of what was just put on queues."""
        ...

    def close(self) -> None:
        """There will be no more."""
        ...


@dataclass
class _Step:
    """Decisions, and the emissions they ask for; `sent` of these were answered."""

    decided: Sequence[tuple[Due, Decision]]
    emissions: Sequence[Emission]
    sent: int = 0


@dataclass
class Scheduler:
    """Emits each slot of the timetable once, for as long as it leads.

    The timetable is filled when a term begins, from the ledgers. It only ever holds
    marks that stand in the broker's ledger or are about to be written there, so that
    an earlier term's timetable may be merged into a later one's.
    """

    entries: Mapping[str, Entry]
    timetable: Timetable
    leadership: Leadership
    broker: Emitter
    file: LedgerFile
    clock: Clock
    namespace: str
    keep: Collection[str] = ()
    """Names whose ledger rows stay although they have no entry: the bad ones."""
    ended: Callable[[Collection[str]], Collection[str]] = lambda task_ids: ()
    """Which of these runs ended, by their results: for workers that are not ours."""
    queues: Collection[Queue] = ()
    """Those that the config declares."""
    declare: Callable[[Collection[Queue]], object] = lambda queues: None
    """Makes them known to the broker; called when a term begins."""
    witness: EmissionListener | None = None
    on_tick: Callable[["Scheduler"], None] = lambda scheduler: None
    """Called at the end of each turn of the loop: watchdog, status."""
    longest_nap: Span = LONGEST_NAP

    era: int = field(default=0, init=False)
    trouble: str = field(default="", init=False)
    """Why nothing can be emitted just now; empty when all is well."""
    standing_by: str = field(default="", init=False)
    """Who leads instead of us; empty while we lead, or while nobody knows."""
    _term: Term | None = field(default=None, init=False)
    _unanswered: _Step | None = field(default=None, init=False)
    _pause: Span = field(default=RETRY_FIRST, init=False)
    _offset: Span | None = field(default=None, init=False)
    _flushed_at: Span = field(default=0, init=False)
    _seen: LedgerCopy | None = field(default=None, init=False)
    """The leader's ledger, as we saw it last while standing by."""
    _look_at: Span = field(default=0, init=False)
    _aside_until: Span | None = field(default=None, init=False)
    """We gave the lead of an emptied broker back, and leave it to others until then."""

    def run(self, inbox: SimpleQueue[Wake], reload: Callable[[], None]) -> None:
        """Tick until told to stop; call `reload` when told to."""
        wake_at = self.clock.now()
        try:
            while (wake := self.clock.wait(inbox, until=wake_at)) is not Wake.STOP:
                if wake is Wake.RELOAD:
                    reload()
                wake_at = self.tick(self.clock.now())
                self.on_tick(self)
        finally:
            # Also after a fault of ours: the process may live on, as a worker.
            self.stop()

    def tick(self, now: Instant) -> Instant:
        """Emit one batch of what is due at `now`; return when to look again."""
        # Of the same moment as `now`: to begin a term may take long.
        offset = now - self.clock.elapsed()
        try:
            term = self._lead()
            if term is None:
                self._stand_by()
                return now + STANDBY_LOOK
            if term != self._term:
                self._begin(term, now)
            self._mind_the_clock(term, now, offset)
            self._emit(term, now)
        except TermOver:
            self.leadership.lose()
            return now + STANDBY_LOOK
        except BrokerUnavailable as error:
            # What was not emitted is still due, for us or for the next leader.
            return now + self._wait_out(error)
        self._well_again()
        nap = min(self.longest_nap, self.leadership.ttl // 3)
        wake_at = min(self.timetable.next_at() or now + nap, now + nap)
        self._flush(idle=wake_at > now)
        return wake_at

    def _lead(self) -> Term | None:
        if self._aside_until and self.clock.elapsed() < self._aside_until:
            return None
        return self.leadership.hold(self.file.highest_term())

    def replace(
        self,
        entries: Mapping[str, Entry],
        keep: Collection[str],
        queues: Collection[Queue],
    ) -> None:
        """Schedule these entries from now on; unchanged ones keep their place."""
        self.entries, self.keep, self.queues = entries, keep, queues
        # The term is begun once more: that places all entries by their ledger rows,
        # and declares the queues.
        self._term = None

    def stop(self) -> None:
        """Write the file and give the lead back; a broker away does not keep us."""
        try:
            self._flush(idle=True)
        finally:
            # A broker that is away would only cost us the time to give up on it.
            if not self.trouble:
                self._resign()
            self.leadership.let_go()
            self.file.unlock()
            if self.witness:
                self.witness.close()

    def _resign(self) -> None:
        try:
            self.leadership.resign()
        except BrokerUnavailable as error:
            logger.warning(
                "could not give the lead back, it runs out by itself: %s",
                error,
                extra={"event": "lead.left"},
            )

    def _stand_by(self) -> None:
        self._term = None
        if not self.standing_by:
            # Also after a term that ended while it began: the file was locked by then.
            self._flush(idle=True)
            self.file.unlock()
            self.standing_by = self._leader()
            logger.info(
                "standing by: %s leads", self.standing_by, extra={"event": "standby"}
            )
        self._refresh()
        self._well_again()

    def _leader(self) -> str:
        return self.leadership.lead.leader() or "another"

    def _refresh(self) -> None:
        """Read the leader's ledger now and then: the broker may lose it as it dies."""
        asked = self.clock.elapsed()
        if asked < self._look_at:
            return
        self.standing_by = self._leader()
        seen = self.broker.read_ledger()
        took = self.clock.elapsed() - asked
        self._look_at = asked + max(REFRESH, REFRESH_SHARE * took)
        # An empty one was lost just now: what we saw before is what is left of it.
        if seen.marks:
            self._seen, self._aside_until = seen, None

    def _begin(self, term: Term, now: Instant) -> None:
        """Start a term: merge all ledgers, place every entry, write what differs."""
        self.file.try_lock()
        self.standing_by, self._unanswered = "", None
        # With large ledgers each of these steps may take a good part of a lead's life.
        file = self.file.read()
        self.leadership.keep(term)
        broker = self.broker.read_ledger(partial(self.leadership.keep, term))
        self.leadership.keep(term)
        if self._seen and not broker.marks:
            self._step_aside()
        # What we saw of another's term is newer than what is left of our own last one.
        ours = self._seen or LedgerCopy(self.timetable.marks(), self.era)
        merged = merge(broker, file, ours)
        self.leadership.keep(term)
        rewound = self._place(term, merged.marks, now)
        era = merged.era + bool(rewound)
        marks = self.timetable.marks()
        changed = {
            name: mark for name, mark in marks.items() if broker.marks.get(name) != mark
        }
        gone = {*broker.marks, *file.marks} - marks.keys() - set(self.keep)
        self._write_ledger(term, changed, gone, era)
        # Not before: an era that the broker never heard of would hide what others
        # emit after us.
        self.era = era
        self._seen = self._aside_until = None
        if rewound:
            _log_rewound(rewound, era)
        self.declare(self.queues)
        self.leadership.keep(term)
        self.file.rewrite(marks, gone, era, term.number)
        self.leadership.keep(term)
        self._term = term

    def _step_aside(self) -> None:
        """Leave the lead of an emptied broker to who led, for as long as a lead lives.

        He knows all that he emitted, and we only what we saw; if he is gone, we begin
        after that. Raises TermOver when we do so.
        """
        if self._aside_until is not None:
            return
        self._aside_until = self.clock.elapsed() + self.leadership.ttl
        logger.warning(
            "the broker has lost its ledger: who led before us is to lead again",
            extra={"event": "lead.aside"},
        )
        self.leadership.resign()
        raise TermOver("we left the lead to who had it")

    def _place(self, term: Term, marks: Mapping[str, Mark], now: Instant) -> int:
        """Place every entry where its mark says; give how many were rewound."""
        for name in self.timetable.marks().keys() - self.entries.keys():
            self.timetable.remove(name)
        for part in _parts(self.entries.values()):
            self.timetable.place(part, marks, now)
            self.leadership.keep(term)
        rewound = self.timetable.rewind(now, CLOCK_TOLERANCE)
        self.leadership.keep(term)
        return len(rewound)

    def _write_ledger(
        self, term: Term, changed: Mapping[str, Mark], gone: Collection[str], era: int
    ) -> None:
        try:
            self.broker.write_ledger(term, {}, gone, era)
            for part in _parts(changed.items()):
                self.leadership.keep(term)
                self.broker.write_ledger(term, dict(part), (), era)
        except BrokerUnavailable:
            # Held in the network and let through later, it would set back the rows of
            # what is emitted meanwhile under this term.
            self.leadership.doubt()
            raise
        self.leadership.keep(term)

    def _mind_the_clock(self, term: Term, now: Instant, offset: Span) -> None:
        """Begin anew when the wall clock was set back against the monotonic one.

        `offset` is how far it was ahead of it at `now`.
        """
        if self._offset is None or offset > self._offset:
            self._offset = offset
        if offset < self._offset - CLOCK_TOLERANCE:
            self._begin(term, now)
            self._offset = offset

    def _emit(self, term: Term, now: Instant) -> None:
        # A step whose answer is lost is sent again as it was: what got through is
        # known to the broker's ledger, and counted once.
        step = self._unanswered = self._unanswered or self._decide(now)
        while part := step.emissions[step.sent : step.sent + BATCH]:
            asked = self.clock.elapsed()
            outcomes = self.broker.emit(term, part, self.leadership.ttl)
            self.leadership.renewed(asked)
            step.sent += len(part)
            _log(part, outcomes, now)
            if self.witness:
                self.witness.emitted(_queued(part, outcomes))
        # Only now, after the broker answered: a crash before this line emits the
        # batch again, and the broker's ledger knows it.
        self._unanswered = None
        self._advance(step, now)

    def _decide(self, now: Instant) -> _Step:
        batch = self.timetable.due(now, BATCH)
        busy = self._busy(batch)
        decided = [(due, decide(due, now, due.entry.name in busy)) for due in batch]
        emissions: list[Emission] = []
        for due, decision in decided:
            emissions += self._emissions(due, decision, now)
        return _Step(decided, emissions)

    def _advance(self, step: _Step, now: Instant) -> None:
        marks = {emission.entry: emission.mark for emission in step.emissions}
        dropped: dict[tuple[str, str], int] = {}
        for due, decision in step.decided:
            name = due.entry.name
            if decision.over:
                self.timetable.finish(due)
            elif decision.until is None:
                self.timetable.hold(due, now + HOLD_LOOK)
            else:
                self.timetable.advance(due, marks[name])
            for drop in decision.dropped:
                number = _count(due.entry.schedule, drop.first, drop.last)
                dropped[name, drop.reason] = number
                _log_drop(name, drop, number)
        self.file.record(marks, dropped)

    def _flush(self, *, idle: bool) -> None:
        """Write the schedule file when there is time, or it is a second behind."""
        elapsed = self.clock.elapsed()
        if idle or elapsed - self._flushed_at >= SECOND:
            self.file.flush()
            self._flushed_at = elapsed

    def _emissions(self, due: Due, decision: Decision, now: Instant) -> list[Emission]:
        """Give the emissions of one decision, oldest first, each with its own mark."""
        if not decision.emit:
            if decision.until is None:
                return []
            # Dropped on purpose: the ledger has to know, or a restart finds it again.
            mark = due.mark._replace(slot=decision.until)
            return [Emission(due.entry.name, mark, route=None)]
        runs = due.mark.runs
        return [
            self._emission(due, slot, runs + number, now)
            for number, slot in enumerate(decision.emit, start=1)
        ]

    def _emission(self, due: Due, slot: Instant, runs: int, now: Instant) -> Emission:
        entry = due.entry
        task_id = run_id(self.namespace, entry.name, self.era, slot)
        message = entry.message.complete(
            id=task_id,
            tag=task_id,
            now=now,
            slot=slot,
            expires=_expiry(due, slot, runs) if entry.expires_next else None,
        )
        mark = Mark(slot, due.mark.fingerprint, runs, last=slot)
        tracked = entry.policy.overlap is not Overlap.ALLOW
        run = (entry.message.task_id or task_id) if tracked else ""
        return Emission(entry.name, mark, entry.message.route, message, run)

    def _busy(self, batch: Sequence[Due]) -> Collection[str]:
        """Give the names of those entries, with an overlap rule, whose run goes on."""
        asking = [
            due.entry.name
            for due in batch
            if due.entry.policy.overlap is not Overlap.ALLOW
        ]
        if not asking:
            return ()
        runs = self.broker.running(asking)
        ended = set(self.ended(runs.values())) if runs else set()
        over = {name: run for name, run in runs.items() if run in ended}
        if over:
            self.broker.end_runs(over)
        return runs.keys() - over.keys()

    def _wait_out(self, error: BrokerUnavailable) -> Span:
        """Say what is wrong, once, and give the pause before the next try."""
        if not self.trouble:
            logger.error("stopped emitting: %s", error, extra={"event": "broker.lost"})
        self.trouble = str(error)
        pause, self._pause = self._pause, min(2 * self._pause, RETRY_LAST)
        return pause

    def _well_again(self) -> None:
        if self.trouble:
            logger.warning("emitting again", extra={"event": "broker.back"})
        self.trouble, self._pause = "", RETRY_FIRST


def merge(*copies: LedgerCopy) -> LedgerCopy:
    """Make one ledger of several: the larger slot wins, entry by entry.

    A copy of an older clock era is left out: its slots may lie beyond a rewind.
    """
    era = max(copy.era for copy in copies)
    marks: dict[str, Mark] = {}
    for copy in copies:
        if copy.era == era:
            for name, mark in copy.marks.items():
                if name not in marks or mark.slot > marks[name].slot:
                    marks[name] = mark
    return LedgerCopy(marks, era)


def _parts(items: Iterable[_T]) -> Iterator[list[_T]]:
    left = iter(items)
    while part := list(islice(left, AT_ONCE)):
        yield part


def _expiry(due: Due, slot: Instant, runs: int) -> Instant | None:
    """Give when the entry's next slot is emitted; None if `slot` is its last one."""
    entry, policy = due.entry, due.entry.policy
    following = due.following
    if slot != due.latest:
        following = entry.schedule.next_after(slot)
    if following is None or runs == policy.max_runs:
        return None
    if policy.end is not None and following > policy.end:
        return None
    return following + entry.offset


@lru_cache(maxsize=4096)  # after downtime, many entries miss the same slots
def _count(schedule: Schedule, first: Instant, last: Instant) -> int:
    return schedule.count(first, last)


def _log_rewound(number: int, era: int) -> None:
    logger.warning(
        "the clock was set back: %d entries go on from now, clock era %d",
        number,
        era,
        extra={"event": "clock.rewound"},
    )


def _queued(
    emissions: Sequence[Emission], outcomes: Sequence[Outcome]
) -> list[Emission]:
    pairs = zip(emissions, outcomes, strict=True)
    return [emission for emission, outcome in pairs if outcome is Outcome.QUEUED]


def _log(
    emissions: Sequence[Emission], outcomes: Sequence[Outcome], now: Instant
) -> None:
    if not logger.isEnabledFor(logging.INFO):
        return
    for emission, outcome in zip(emissions, outcomes, strict=True):
        if outcome is Outcome.DROPPED:
            continue
        event = {
            "event": f"emit.{outcome.value}",
            "entry": emission.entry,
            "slot": emission.mark.slot,
            "late": now - emission.mark.slot,
        }
        logger.info(
            "%s %s for %s, %d ms late",
            emission.entry,
            outcome.value,
            f"{datetime_of(emission.mark.slot):%Y-%m-%dT%H:%M:%SZ}",
            now - emission.mark.slot,
            extra=event,
        )


def _log_drop(name: str, drop: Drop, number: int) -> None:
    event = {
        "event": f"drop.{drop.reason}",
        "entry": name,
        "slot": drop.first,
        "last": drop.last,
    }
    logger.info("%s dropped %d: %s", name, number, drop.reason, extra=event)
