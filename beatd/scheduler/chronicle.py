"""The history as the leader writes it: a page with each batch, folded when idle."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from beatd.background import Faults
from beatd.brokers.base import Emitter
from beatd.brokers.items import Emission, Term
from beatd.clock import Clock
from beatd.errors import BrokerRefused, BrokerUnavailable
from beatd.event_log import EventLog
from beatd.instant import MINUTE, SECOND, Instant, Span
from beatd.scheduler.step import Step
from beatd.timetable.history import History, HistoryLimits
from beatd.timetable.pages import Told, batch_page, dropped_slots, told_page

tell = EventLog(__name__)

FOLD: Span = 15 * SECOND
"""How often pages are folded: each time, the rows of their entries are written."""

READ: Span = 3 * SECOND
"""The same while somebody reads them."""

REST: Span = MINUTE
"""How long to wait after the broker has refused that."""

PAGES = 64
"""The most pages that are asked for at once."""

RECORDS = 2000
"""After how many records a turn folds no further page."""

MOST_UNTOLD = 1000
"""Records that no page has, and that wait for the next fold; the oldest go first."""


class PageReader(Protocol):
    """Is told what pages say when they are folded, and never makes the loop wait."""

    @property
    def is_on(self) -> bool:
        """Whether it reads just now."""
        ...

    def begin_term(self) -> None:
        """Take note that a term begins: another process may have folded pages."""
        ...

    def take(self, number: int, at: Instant, told: Sequence[Told]) -> None:
        """Take note of a page: its number, when it was written, what it tells.

        It is taken out of the broker only after that, and may be told a second time.
        """
        ...


class Chronicle:
    """Tells the history what becomes of slots, and folds what it was told.

    The pages are written with the emissions. Folding them waits until nothing is due,
    and is left for a while where the broker refuses it: no emission depends on it.
    """

    def __init__(self, broker: Emitter, clock: Clock, limits: HistoryLimits) -> None:
        self._broker = broker
        self._clock = clock
        self._limits = limits
        self.reader: PageReader | None = None
        self._history: History | None = None
        """The history without the pages; None if it has to be read."""
        # The broker may refuse the history for ever.
        self._untold: deque[Told] = deque(maxlen=MOST_UNTOLD)
        self._fold_at: Span = clock.elapsed() + FOLD
        self._refusals = Faults(clock)

    def begin_term(self) -> None:
        """Read the history anew: another process may have written to it."""
        self._history = None
        self._fold_at = self._clock.elapsed() + self._rest
        if self.reader:
            self.reader.begin_term()

    def page(
        self, step: Step, part: Sequence[Emission], now: Instant, era: int
    ) -> bytes:
        """Return the page that goes with a part of a step."""
        if not (part and self._limits.per_entry):
            return b""
        drops, moved = {}, []
        if step.drops:
            for place, emission in enumerate(part):
                slot = emission.entry, emission.mark.slot
                if slot in step.drops:
                    drops[place] = [dropped_slots(*one) for one in step.drops[slot]]
                if slot in step.moved:
                    moved.append(place)
        return batch_page(
            now,
            era,
            [emission.entry for emission in part],
            [emission.mark.slot for emission in part],
            drops,
            moved,
            [place for place, emission in enumerate(part) if emission.route is None],
        )

    def tell(self, *told: Told) -> None:
        """Tell what no emission tells: it is written at the next fold."""
        if self._limits.per_entry:
            self._untold += told

    def fold(self, term: Term, now: Instant, era: int) -> bool:
        """Fold some pages, if it is time; return whether there are more.

        Raises TermOver and BrokerUnavailable, but not for what is refused.
        """
        elapsed = self._clock.elapsed()
        if elapsed < self._fold_at or not self._limits.per_entry:
            return False
        self._fold_at = elapsed + self._rest
        try:
            goes_on = self._fold(term, now, era)
        except (BrokerRefused, ValueError) as error:
            self._history = None
            self._fold_at = elapsed + REST
            if self._refusals.meet():
                words = "the history cannot be kept: %s; nothing else depends on it"
                tell.warning("history.refused", words, error)
            return False
        except BrokerUnavailable:
            # Whether that was done is not known.
            self._history = None
            raise
        if goes_on:
            self._fold_at = elapsed
        return goes_on

    @property
    def _rest(self) -> Span:
        return READ if self.reader and self.reader.is_on else FOLD

    def _fold(self, term: Term, now: Instant, era: int) -> bool:
        if self._history is None:
            rows, pages = self._broker.read_history()
            self._history = History(rows, self._limits)
        else:
            pages = self._broker.read_pages(PAGES)
        if self._untold and not pages:
            # Nothing may be emitted for long: what waits gets a page of its own.
            page = told_page(now, era, [*self._untold])
            self._broker.write_ledger(term, {}, (), era, page=page)
            self._untold.clear()
            return True
        history = self._history
        count = history.fold(pages, RECORDS, self.reader.take if self.reader else None)
        if not count:
            return False
        history.add(now, self._untold)
        rows, gone = history.changes()
        self._broker.fold_pages(term, pages[count - 1].number, rows, gone)
        self._untold.clear()
        for what in history.unreadable:
            words = "the history has what is none of ours, and is passed over: %s"
            tell.warning("history.unreadable", words, what)
        history.unreadable.clear()
        return count < len(pages) or len(pages) == PAGES
