"""Alerts of a scheduler that leads: a thread beside its loop reads what happened."""

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from beatd.alerts import journal
from beatd.alerts.courier import Courier
from beatd.alerts.event import Event
from beatd.alerts.journal import BOOK, Head
from beatd.alerts.lookup import Asked, RunBook, RunLookup
from beatd.alerts.state import OpenRun, Seen
from beatd.alerts.watch import LOOK, Watch
from beatd.background import Faults, OnCrash, Outage, Service
from beatd.brokers.base import NoteKeeper
from beatd.brokers.items import Term
from beatd.clock import Clock
from beatd.config.alert_rules import AlertRule, AlertRules
from beatd.config.settings import AlertKind
from beatd.errors import BrokerUnavailable, TermOver
from beatd.event_log import EventLog
from beatd.instant import SECOND, Instant, Span
from beatd.results.base import Keeper
from beatd.scheduler.pauses import BOOK as PAUSED
from beatd.scheduler.pauses import Pause, Pauses, pause_notes
from beatd.scheduler.pulse import Pulse
from beatd.text import counted, listed
from beatd.timetable.history import History
from beatd.timetable.pages import EVERYWHERE, Record, Told

tell = EventLog(__name__)

MOST_RECORDS = 10_000
"""Records that wait to be looked at, at most: more are dropped, and counted."""


class Book(RunBook, NoteKeeper, Protocol):
    """What of a broker the desk uses."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the alerts of a config go by."""

    rules: AlertRules
    namespace: str
    zone: ZoneInfo
    timeout: Span
    offsets: Mapping[str, Span]
    """By entry, how long after its slots it is sent, unless that is 0."""
    queues: Mapping[str, str]
    """By entry, the queue that its messages go to, if it is known beforehand."""
    connect: Callable[[], Keeper] | None
    """Connects to the results; None: there are none, and nobody tells how runs end."""


class _Page(NamedTuple):
    """What is to be looked at of one page of the history."""

    number: int
    at: Instant
    records: Sequence[Told]


class Desk:
    """Reads the pages of the history as they are folded, and tells of what they say.

    Only the leader has a say. What it has read, the runs that are open and what is
    still to be told are kept in the broker under its term: whoever leads next goes on
    there. Between a telling and that note, a process may die: then the next one tells
    it again, and nothing is left out.
    """

    def __init__(
        self,
        setting: Setting,
        broker: Book,
        term: Callable[[], Term | None],
        refused: Callable[[], Mapping[str, str]],
        has_entry: Callable[[str], bool],
        clock: Clock,
        pulse: Pulse,
        pauses: Pauses | None = None,
    ) -> None:
        """`term` returns that of this process, `refused` the entries that are that.

        `has_entry` returns whether the config has an entry of a name, bad or not.
        """
        self._setting = setting
        self._broker = broker
        self._term = term
        self._refused = refused
        self._has_entry = has_entry
        self._clock = clock
        self._pulse = pulse
        self._pauses = pauses or Pauses(broker)
        self._lock = threading.Lock()
        self._pages: deque[_Page] = deque()
        self._records = 0
        """How many records of pages wait."""
        self._must_begin = True
        self._written: tuple[int | None, Term | None] = None, None
        self._begun: Term | None = None
        """The term for which the notes were read."""
        self._head = Head()
        self._events: list[Event] = []
        """What was found, and is still to be told."""
        self._lookup = RunLookup(broker, setting.connect)
        self._watch = self._new_watch()
        self._bell = threading.Event()
        self.courier = Courier(
            setting.rules,
            setting.namespace,
            setting.zone,
            setting.timeout,
            clock,
            pulse,
            # What is told is noted at once: until then it would be told again.
            on_told=self._bell.set,
        )
        self._away = Outage("alerts wait", "alerts.broker", clock)
        self._drops = Faults(clock)
        self._unknown: set[str] = set()
        """Entries of whose runs it was said that nobody tells how they end."""
        self._service = Service(self._step, self._bell.set)

    # From the loop ---------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        """Whether there is any rule."""
        return bool(self._setting.rules)

    def begin_term(self) -> None:
        """Read the notes anew: another process may have written there."""
        with self._lock:
            self._must_begin = True
            self._forget_pages()
        self._bell.set()

    def take(self, number: int, at: Instant, told: Sequence[Told]) -> None:
        """Look at a page of the history soon; nobody waits for that."""
        rules = self._setting.rules
        if not rules:
            return
        records = [one for one in told if rules.of(one[0]) and one[0] != EVERYWHERE]
        with self._lock:
            # Pages that tell nothing wait, too: how far they go is taken note of.
            is_full = len(self._pages) >= MOST_RECORDS
            kept = [] if is_full else records[: MOST_RECORDS - self._records]
            if not is_full:
                self._pages.append(_Page(number, at, kept))
                self._records += len(kept)
        if len(kept) < len(records):
            self._drop(len(records) - len(kept))
        if kept:
            self._bell.set()

    def use(self, setting: Setting) -> None:
        """Go by these rules from now on."""
        with self._lock:
            self._setting = setting
            self._must_begin = True
        self.courier.rules = setting.rules

    # The thread ------------------------------------------------------------------

    def start(self, on_crash: OnCrash) -> None:
        """Begin to tell."""
        self._service.start("beatd-alerts", on_crash)
        self.courier.start(on_crash)

    def leave(self) -> None:
        """Tell no more; what waits is told by whoever leads next."""
        self._service.leave()
        self.courier.leave()

    def turn(self) -> None:
        """Look at what happened since the last turn, and have it told."""
        term = self._term() if self.is_on else None
        if term is None:
            if self._begun is not None:
                self._begun = None
                self.courier.clear()
            with self._lock:
                self._must_begin = True
                self._forget_pages()
            return
        try:
            self._turn(term)
        except TermOver:
            self._begun = None
            self.courier.clear()
        except BrokerUnavailable as error:
            self._away.meet(error)
        else:
            self._away.end()

    def _turn(self, term: Term) -> None:
        with self._lock:
            must_begin, self._must_begin = self._must_begin, False
        try:
            if must_begin or term != self._begun:
                self._events = []  # whoever leads finds them anew
                self._events = self._begin(term)
        except BaseException:  # it goes on up
            self._must_begin = True
            raise
        now = self._clock.now()
        # What is found and not told yet, as the broker went away, is told next time.
        events = self._events
        for page in self._take_pages():
            if self._head.page is None or page.number > self._head.page:
                for entry, record in page.records:
                    events += self._watch.take(entry, record)
                self._head.page, self._head.at = page.number, page.at
        events += self._watch.refused(self._refused(), now)
        asked = [*self._watch.to_ask(now)]
        if asked and (seen := self._see(asked, now)) is not None:
            events += self._watch.look(seen, now)
        self._pause(events, term, now)
        self._tell(events)
        self._events = []
        self._say_unknown()
        self._write(term)

    def _begin(self, term: Term) -> list[Event]:
        """Go on from what the notes say; return what the history tells since then."""
        notes = self._broker.read_notes(BOOK)
        rows, _ = self._broker.read_history()
        self._head, states, odd = journal.read(notes)
        for name in odd:
            words = "the note of %r about alerts cannot be read, and is passed over"
            tell.warning("alert.unreadable", words, name)
        self._watch = self._new_watch()
        self._watch.load(states)
        self._watch.keep(self._has_entry)
        try:
            history = History(rows)
        except ValueError:
            history = History({})  # the chronicle says that it cannot be read
        before, read = self._head.at, self._head.page
        self._head.page, self._head.at = history.folded, history.folded_at
        self.courier.clear()
        self.courier.put_back(self._head.parcels)
        self._begun = term
        if read is not None and read < history.folded:
            return self._missed_since(history, before)
        return []

    def _missed_since(self, history: History, before: Instant) -> list[Event]:
        """Return what the rows of the history tell that nobody has told.

        Whoever led before has folded their pages, and was gone before it took note.
        """
        found: list[tuple[Instant, str, Record]] = []
        for entry in history:
            if self._setting.rules.of(entry) is None:
                continue
            for record in history.of(entry).records:
                if record.at > before:
                    found.append((record.at, entry, record))
        found.sort(key=lambda one: one[0])
        return [
            event
            for _, entry, record in found
            for event in self._watch.take(entry, record)
        ]

    def _see(
        self, asked: Sequence[tuple[str, OpenRun, AlertRule]], now: Instant
    ) -> Seen | None:
        """Look what became of runs; None if the results do not answer."""
        watch, queues = self._watch, self._setting.queues
        runs = [
            Asked(watch.id_of(entry, run), run, rule, queues.get(entry))
            for entry, run, rule in asked
        ]
        seen = self._lookup.see(runs, now)
        watch.knows_ends = self._lookup.knows_ends
        return seen

    def _pause(self, events: Collection[Event], term: Term, now: Instant) -> None:
        """Pause entries that fail, and count anew for those that were resumed."""
        found = {
            event.entry: Pause(event.reason, now, "beatd")
            for event in events
            if event.kind == AlertKind.PAUSED
        }
        if found:
            self._broker.write_notes(PAUSED, pause_notes(found), (), term)
        if found or self._watch.paused():
            self._pauses.look()
        for entry in self._watch.paused():
            if entry not in self._pauses.known:
                self._watch.resumed(entry)

    def _tell(self, events: Collection[Event]) -> None:
        for event in events:
            rule = self._setting.rules.of(event.entry)
            if rule is None:
                continue
            if event.is_alert:
                counts = self._pulse.alerts
                counts[event.kind] = counts.get(event.kind, 0) + 1
                if rule.log:
                    say(event)
            self.courier.put(event)

    def _write(self, term: Term) -> None:
        """Note in the broker how far it is, if that has changed."""
        watch, page = self._watch, self._head.page
        is_new = self._written != (page, self._begun)
        if not (watch.changed or self.courier.changed or is_new):
            return
        self.courier.changed = False
        parcels = self.courier.waiting(journal.MOST_PARCELS)
        head = Head(page, self._head.at, parcels)
        rows, gone = journal.rows(head, watch.states, watch.changed)
        try:
            self._broker.write_notes(BOOK, rows, gone, term)
        except BrokerUnavailable:
            self.courier.changed = True
            raise
        watch.changed.clear()
        self._written = page, self._begun

    def _say_unknown(self) -> None:
        """Say once of each entry that nobody tells how its runs end."""
        new, self._watch.unknown = self._watch.unknown - self._unknown, set()
        if not new:
            return
        self._unknown |= new
        tell.warning(
            "alert.unknown",
            "nobody tells how runs of %s end: no alert says that they failed or"
            " recovered. A result backend that beatd reads does, unless a task has"
            " ignore_result",
            listed(sorted(new), 3),
            entries=sorted(new)[:100],
        )

    def _drop(self, number: int) -> None:
        self._pulse.alerts_dropped += number
        self._drops.unsaid += number - 1
        if said := self._drops.meet():
            tell.warning(
                "alert.dropped",
                "%s of slots could not be looked at for alerts, as %d wait already",
                counted(said, "record"),
                MOST_RECORDS,
                number=said,
            )

    def _new_watch(self) -> Watch:
        setting = self._setting
        return Watch(
            setting.rules,
            setting.namespace,
            setting.zone,
            setting.offsets,
            knows_ends=self._lookup.knows_ends,
        )

    def _take_pages(self) -> list[_Page]:
        with self._lock:
            pages = [*self._pages]
            self._forget_pages()
        return pages

    def _forget_pages(self) -> None:
        self._pages.clear()
        self._records = 0

    def _step(self) -> Span | None:
        self._bell.wait(LOOK / SECOND)
        self._bell.clear()
        self.turn()
        return SECOND // 10  # what comes meanwhile goes into one turn


def say(event: Event) -> None:
    """Log an alert."""
    tell.warning(
        f"alert.{event.kind}",
        "alert: %s: %s",
        event.entry,
        event.words,
        entry=event.entry,
        kind=event.kind,
        slot=event.slot,
        id=event.run or None,
    )
