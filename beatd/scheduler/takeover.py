"""How a term begins, and what a standby keeps ready for that."""

import secrets
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterator,
    Mapping,
    Set,
)
from dataclasses import dataclass, field

from beatd.brokers.base import Emitter
from beatd.brokers.items import Term
from beatd.clock import Clock
from beatd.errors import BrokerUnavailable
from beatd.event_log import EventLog
from beatd.instant import EARLIEST, MINUTE, Instant, Span
from beatd.parts import in_parts
from beatd.routing import Queue
from beatd.scheduler.aside import Aside
from beatd.scheduler.findings import say_finding, say_rewound
from beatd.scheduler.leadership import STANDBY_LOOK, Leadership
from beatd.scheduler.ledger_file import LedgerFile
from beatd.scheduler.lost_writes import Lost, LostWrites
from beatd.scheduler.over import over_by_bounds, tell_over
from beatd.scheduler.succession import Succession
from beatd.timetable.history import DEFAULT_LIMITS, HistoryLimits
from beatd.timetable.ledger import (
    NO_EDITION,
    Edition,
    Finding,
    LedgerCopy,
    Mark,
    finding,
    latest,
    newest,
    remembered,
    settled,
    with_later,
)
from beatd.timetable.pages import EVERYWHERE, Record, Told, What, told_page
from beatd.timetable.timetable import CLOCK_TOLERANCE, Timetable

tell = EventLog(__name__)

AT_ONCE = 10_000
"""Entries to place, or rows to compare or to write, in one part: those entries that are
alike in it are placed together. In larger parts it leaves the heap in holes: 150 bytes
more for an entry."""

DECLARED_AT_ONCE = 30
"""Queues in one part: few, should a broker need a round trip for each."""

MOST_TOLD = 10_000
"""Entries of which the history is told one by one that they count anew."""

REFRESH: Span = MINUTE
"""How often a standby reads the leader's ledger, in case the broker loses it."""

REFRESH_SHARE = 100
"""A standby spends at most one part in this many of its time on that reading."""


@dataclass
class Takeover:
    """Begins terms: finds out which ledger is right, and places every entry by it.

    The broker's is, alone, unless its edition says that it has lost writes. Then the
    newest copy is: the schedule file, or what this process emitted itself, or saw of
    another leader's ledger while it stood by.

    The timetable only ever holds marks that are in the broker's ledger or are about to
    be written there, so that what an earlier term left in the timetable may be merged
    in a later one.
    """

    configs: Succession
    timetable: Timetable
    leadership: Leadership
    broker: Emitter
    file: LedgerFile
    clock: Clock
    declare: Callable[[Collection[Queue]], object] = lambda queues: None
    """Makes queues known to the broker; called with a part of them at a time."""
    on_declared: Callable[[], object] = lambda: None
    """Called when the broker knows all queues."""

    resend: bool = False
    """Whether slots are sent again that the broker may have lost."""

    brought: Mapping[str, Mark] = field(default_factory=dict)
    """Marks of another scheduler than beatd: where they are further than the ledger's,
    they hold."""

    history: HistoryLimits = DEFAULT_LIMITS
    """How much is kept of what became of each slot."""

    era: int = field(default=0, init=False)
    """The clock era: part of the ids of all that is emitted."""
    edition: Edition = field(default=NO_EDITION, init=False)
    """What the broker's ledger is at, by this process's last write in a term."""
    aside: Aside = field(init=False)
    lost_writes: LostWrites = field(init=False)
    lost: list[Lost] = field(default_factory=list, init=False)
    """What is to be sent again before anything else, once a term has begun."""
    _copy: LedgerCopy | None = field(default=None, init=False)
    """The newest ledger of another leader that this process read, or the one from which
    it was beginning a term; None once a term has begun: the timetable has it then."""
    _kept: Mapping[str, Mark] = field(default_factory=dict, init=False)
    """The rows of the ledger that are of no entry of the timetable."""
    _led_last: bool = field(default=False, init=False)
    """Whether no other process is known to have written to the ledger since."""
    _refresh_at: Span = field(default=0, init=False)
    _began: dict[str, Instant] = field(default_factory=dict, init=False)
    """By entry whose slots are counted anew, from when."""

    def __post_init__(self) -> None:
        self.aside = Aside(self.leadership, self.clock)
        self.lost_writes = LostWrites(self.file, self.clock)

    @property
    def has_begun(self) -> bool:
        """Whether a term of this process ever began."""
        return self.edition != NO_EDITION

    # While another process leads

    def leave_out_configs(self, ledger: Edition, now: Instant) -> None:
        """Go over only to the last config if others have led, and made this ledger."""
        self.configs.leave_out(ledger, self.edition, now)

    @property
    def refresh_is_due(self) -> bool:
        """Whether the copy of the leader's ledger is missing, or has become old.

        Or it has writes that the leader's has lost, and that has others instead.
        """
        known = self._copy.edition if self._copy else self.edition
        return (
            self.clock.elapsed() >= self._refresh_at
            or self.leadership.heard.parts_from(known)
        )

    def refresh(self) -> None:
        """Copy the leader's ledger: the broker may lose it when the leader dies."""
        asked = self.clock.elapsed()
        found = self.broker.read_ledger()
        took = self.clock.elapsed() - asked
        pause = STANDBY_LOOK if self.aside.is_on else REFRESH
        self._refresh_at = asked + max(pause, REFRESH_SHARE * took)
        ours = self._memory()
        what = finding(found, ours, self.leadership.told)
        has_parted = self._note_parted(found, ours)
        # If the broker has lost some of it, the earlier copy is what is left.
        if has_parted or what in (Finding.RIGHT, Finding.OTHER):
            self._led_last = self._led_last and found.edition == ours.edition
            self._copy = found
            self.aside.note_ledger(found.edition)

    def _memory(self) -> LedgerCopy:
        """Return the newest ledger that this process knows itself."""
        if self._copy is not None:
            return self._copy
        marks = {**self.timetable.marks(), **self._kept}
        return LedgerCopy(marks, self.era, self.edition)

    # When a term begins

    def begin(
        self, term: Term, now: Instant, on_part: Callable[[], object]
    ) -> Iterator[None]:
        """Find out which ledger is right, place every entry by it, and write it.

        With large ledgers this takes longer than a lead lives. After each part the
        generator yields, so that the caller can renew the lead, and goes on only while
        it has the lead; within a part, `on_part` is called for the same purpose.
        Nothing may be emitted before the end: a term left half-way must begin anew.

        Raises TermOver and BrokerUnavailable.
        """
        self.file.try_lock()
        file = self.file.read(on_part)
        yield
        found = self.broker.read_ledger(on_part)
        yield
        self.leave_out_configs(found.edition, now)
        ours, told = newest(self._memory(), file), self.leadership.told
        what = finding(found, ours, told)
        knows_most = self.aside.knows_most(
            what, found.edition, self.edition, led_last=self._led_last
        )
        if not (knows_most or self.aside.has_waited(ours)):
            self._copy = ours  # what is read meanwhile is compared with this
            self._refresh_at = self.clock.elapsed()
            # Of several that wait, those with a newer file of their own go first.
            wait = self.leadership.ttl * 2 // 3 if ours is file else self.leadership.ttl
            raise self.aside.step(what, ours, found.edition, wait)
        base = settled(found, ours, what)
        edition = _after(term, base, what, ours.edition, found.edition, told)
        say_finding(
            what, found, ours, told, led_last=self._led_last, knows_most=knows_most
        )
        self._note_parted(found, ours)
        if file.edition.lineage not in ("", edition.lineage):
            self.file.keep_as(file.edition.lineage)
        if what is Finding.SET_BACK:
            self.lost_writes.note_set_back(found, base, self.configs.entries)
        losses = _losses(found, base, now) if what is Finding.SET_BACK else []
        base = with_later(base, self.brought)
        # A term that is left half-way begins anew from this, too.
        self._copy = base
        yield
        placed = yield from self._place(base.marks, now)
        rewound = self.timetable.rewind(now, CLOCK_TOLERANCE, on_part)
        ahead = max((mark.high or now for mark in rewound.values()), default=now) - now
        # Asked before anything is written: if there is no answer, nothing was done.
        off = self.clock.now() - self.leadership.lead.time() if rewound else 0
        yield
        era = base.era + bool(rewound)
        marks = self.timetable.marks()
        yield
        keep = self.configs.all_kept
        others = {n: mark for n, mark in base.marks.items() if n not in marks}
        kept = {name: others.pop(name) for name in keep & others.keys()}
        removed = remembered(others)
        kept |= removed
        yield
        ledger = LedgerCopy({**kept, **marks}, era, edition)
        lost = [] if rewound or not self.resend else self.lost_writes.doubtful
        suspects = ledger.marks
        if base.marks is found.marks:
            suspects = {n: suspects[n] for n in (*placed, *rewound, *removed)}
        changed, gone = yield from self._differences(
            suspects, ledger, found, file, keep
        )
        for one in lost:
            changed.pop(one.entry.name, None)  # it is sent with its row
        if rewound:
            # Said before: a request whose answer is lost may set it back all the same.
            say_rewound(len(rewound), now, era, ahead, off)
        news = [*self._beginnings(found, base, now, era), *losses]
        page = told_page(now, era, news) if self.history.per_entry else b""
        yield from self._write_ledger(term, changed, gone, ledger, page)
        # Only now that the broker has it: with an era that the broker does not know,
        # ids of this process would not be those of others.
        self.era, self.edition, self._kept, self.lost = era, edition, kept, lost
        self._copy = self.configs.since = None
        self.aside.end()
        self._led_last = True
        yield from self._tell_over(marks, file, base)
        yield from self._declare()
        self.file.rewrite(
            ledger.marks, gone, era, term.number, edition, on_part=on_part
        )
        self.lost_writes.settle(era, sent_again=bool(lost))
        yield

    def _beginnings(
        self, found: LedgerCopy, base: LedgerCopy, now: Instant, era: int
    ) -> list[Told]:
        """Return for the history which entries count anew, and from when.

        Without a ledger the history itself begins now, and so do all of them.
        """
        if not found.marks:
            return []
        began = self._began | {
            name: mark.slot
            for name, mark in self.brought.items()
            if base.marks[name] is mark and name in self.timetable
        }
        if len(began) > MOST_TOLD:
            return [_lost_from(EARLIEST, now)]
        return [
            (name, Record(slot, now - slot, What.BEGAN, era))
            for name, slot in began.items()
        ]

    def _differences(
        self,
        suspects: Mapping[str, Mark],
        ledger: LedgerCopy,
        found: LedgerCopy,
        file: LedgerCopy,
        keep: Collection[str],
    ) -> Generator[None, None, tuple[dict[str, Mark], Set[str]]]:
        """Return the rows to write, and those to remove, so that copies are `ledger`.

        Of those to write, the rows that may differ are `suspects`. Rows of `keep` are
        left as they are.
        """
        changed: dict[str, Mark] = {}
        for part in in_parts(suspects.items(), AT_ONCE):
            yield
            changed.update(
                (name, mark) for name, mark in part if found.marks.get(name) != mark
            )
        yield
        names = self.timetable.names
        gone = {
            name
            for rows in (found.marks, file.marks)
            for name, mark in rows.items()
            if name not in names and name not in keep and mark != ledger.marks.get(name)
        }
        return changed, gone

    def _tell_over(
        self, marks: Mapping[str, Mark], file: LedgerCopy, base: LedgerCopy
    ) -> Iterator[None]:
        """Log which entries are over, if no other process has, and keep their names."""
        over: set[str] = set()
        for some in over_by_bounds(self.timetable):
            over |= some
            yield
        new = self.file.note_over(over, marks.keys())
        # Where the marks differ, another process emitted last, and said it then.
        unsaid = {name for name in new if file.marks.get(name) == base.marks.get(name)}
        for name in (self.configs.over | unsaid) & marks.keys():
            tell_over(self.timetable.entry(name), marks[name])
        self.configs.over.clear()

    def _note_parted(self, found: LedgerCopy, ours: LedgerCopy) -> bool:
        return self.lost_writes.note_parted(found.edition, ours.edition, self.era)

    def _place(
        self, marks: Mapping[str, Mark], now: Instant
    ) -> Generator[None, None, dict[str, Mark]]:
        """Make the timetable hold every entry, each where its mark says.

        Return the marks that this changed.
        """
        configs = self.configs
        entries = configs.entries_by(marks)
        for name in [name for name in self.timetable.names if name not in entries]:
            self.timetable.remove(name)
        self._began = {}
        all_changed: dict[str, Mark] = {}
        since = now if configs.since is None else min(now, configs.since)
        for part in in_parts(entries.values(), AT_ONCE):
            changed = self.timetable.place(part, marks, since)
            all_changed |= changed
            self._began |= {
                name: mark.slot
                for name, mark in changed.items()
                if (known := marks.get(name)) is None or known.schedule != mark.schedule
            }
            self.configs.over |= changed.keys() & self.timetable.over
            yield
        return all_changed

    def _write_ledger(
        self,
        term: Term,
        changed: Mapping[str, Mark],
        gone: Set[str],
        ledger: LedgerCopy,
        page: bytes,
    ) -> Iterator[None]:
        """Make the broker's ledger agree with the timetable."""
        for names in in_parts({**changed, **dict.fromkeys(gone)}, AT_ONCE):
            yield
            part = {name: changed[name] for name in names if name in changed}
            self._write(term, part, gone & {*names}, ledger.era)
        yield
        # Last of all: a ledger of this edition is whole.
        self._write(term, {}, (), ledger.era, ledger.edition, page)
        yield

    def _write(
        self,
        term: Term,
        changed: Mapping[str, Mark],
        gone: Collection[str],
        era: int,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> None:
        try:
            self.broker.write_ledger(term, changed, gone, era, edition, page)
        except BrokerUnavailable:
            # The request may yet arrive. It would then set back the rows of what is
            # emitted meanwhile under this term.
            self.leadership.doubt()
            raise

    def _declare(self) -> Iterator[None]:
        for part in in_parts(self.configs.queues, DECLARED_AT_ONCE):
            self.declare(part)
            yield
        self.on_declared()
        yield


def _losses(found: LedgerCopy, base: LedgerCopy, now: Instant) -> list[Told]:
    """Return from when on the history has lost records, with the ledger's rows."""
    slots = [
        mark.slot for name, mark in found.marks.items() if base.marks.get(name) != mark
    ]
    return [_lost_from(min(slots, default=now), now)]


def _lost_from(slot: Instant, now: Instant) -> Told:
    return EVERYWHERE, Record(slot, now - slot, What.LOST, last=now)


def _after(term: Term, base: LedgerCopy, what: Finding, *known: Edition) -> Edition:
    """Return the edition above all that are known, for the ledger to go on from."""
    lineage, version, _ = base.edition if what is Finding.OTHER else latest(*known)
    if not lineage:
        lineage = secrets.token_hex(8)
    return base.edition._replace(lineage=lineage).begun(term.mark, version + 1)
