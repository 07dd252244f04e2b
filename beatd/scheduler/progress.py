"""What becomes of the timetable and the schedule file once a step is done."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from beatd.clock import Clock
from beatd.event_log import EventLog, stamp
from beatd.instant import SECOND, Instant, Span
from beatd.scheduler.holds import Holds
from beatd.scheduler.ledger_file import LedgerFile
from beatd.scheduler.over import is_over_by_bounds, tell_over
from beatd.scheduler.pulse import Pulse
from beatd.scheduler.refusals import Refusals
from beatd.scheduler.step import Step
from beatd.timetable.entry import Due, Entry
from beatd.timetable.ledger import Mark
from beatd.timetable.pages import Told
from beatd.timetable.policy import HOLD, Decision, Drop, Reason, slots_dropped
from beatd.timetable.timetable import Timetable

tell = EventLog(__name__)

HOLD_LOOK: Span = SECOND // 2
"""How often to ask whether the run before a held slot has ended."""


class Progress:
    """Moves each entry on to where the broker's answers leave it, and says so.

    An entry that the broker refuses rests, and stays due; one that is held is looked at
    again soon.
    """

    def __init__(
        self,
        timetable: Timetable,
        file: LedgerFile,
        clock: Clock,
        pulse: Pulse,
        tell_history: Callable[[Told], object],
        pause_of: Callable[[str], str] = lambda entry: "",
    ) -> None:
        """`pause_of` says why an entry is paused, unless the config has it so."""
        self._timetable = timetable
        self._file = file
        self._pulse = pulse
        self._pause_of = pause_of
        self._refusals = Refusals(clock, tell_history)
        self._holds = Holds(clock, tell_history)
        self._waiting: set[str] = set()
        """Entries that are held, or were, since `end_holds` was called last."""
        self._paused: set[str] = set()
        """Entries whose slots are dropped as they are paused, which has been said."""

    @property
    def refused(self) -> Mapping[str, str]:
        """By entry, why the broker refuses its emission."""
        return self._refusals.reasons()

    @property
    def held(self) -> Mapping[str, str]:
        """By entry, why an overlap rule has let none of its slots through for long."""
        return self._holds.problems()

    def note(self, step: Step, now: Instant, version: int | None) -> None:
        """Note a step that the broker has done, with `version` in its ledger now.

        None if the ledger is as it was: then nothing is written without need.
        """
        done = filter(step.is_open, step.emissions) if step.refused else step.emissions
        marks = {emission.entry: emission.mark for emission in done}
        dropped: Counter[tuple[str, str]] = Counter()
        for due, decided in step.answered():
            name, decision = due.entry.name, decided
            if name in step.unrouted and name not in step.refused:
                decision = decided.without_route(step.unrouted[name])
                marks[name] = decision.mark_after(due.mark)
            if name in step.refused:
                self._put_off(due, marks.get(name), now, *step.refused[name])
                if name not in marks:
                    continue  # no slot is decided: those to be dropped neither
            else:
                self._move_on(due, decision, step, now)
            if self._paused and decision.emit:
                self._paused.difference_update(entry.name for entry in due.entries)
            for drop in decision.dropped:
                number = slots_dropped(due.entry.schedule, drop)
                for entry in due.entries:
                    dropped[entry.name, drop.reason] += number
                    self._note_drop(entry.name, drop, number)
        self._file.record(marks, dropped, version)
        self._pulse.note_drops(dropped)
        self._note_problems()
        if step.refused and not step.decided:
            _say_not_sent_again(step.refused)

    def end_holds(self, now: Instant) -> None:
        """Decide anew about all held entries: there may be news of their runs."""
        waiting, self._waiting = self._waiting, set()
        for name in waiting:
            self._timetable.end_hold(name, now)

    def begin_term(self) -> None:
        """Forget what is wrong with entries that are over, or gone."""
        runs_on = [name for name in self.refused if not self._timetable.is_over(name)]
        self._refusals.keep(runs_on)
        self._holds.keep(self._timetable)
        self._paused = {name for name in self._paused if name in self._timetable}

    def end_term(self) -> None:
        """Forget what is wrong with entries: whoever leads next finds it anew."""
        self._refusals.keep(())
        self._holds.keep(())

    def _move_on(self, due: Due, decision: Decision, step: Step, now: Instant) -> None:
        """Move entries on to their next slot, or hold them."""
        self._timetable.apply(due, decision, look_again=now + HOLD_LOOK)
        if self._timetable.is_over(due.entry.name):
            self._note_over(due.entries)
        if self._refusals:
            for entry in due.entries:
                self._end_refusal(entry, decision, now)
        if decision is HOLD:
            self._waiting.update(entry.name for entry in due.entries)
        if self._holds or step.busy.runs:
            for entry in due.entries:
                self._holds.note(due.of(entry), decision, step.busy, now)

    def _note_over(self, entries: Sequence[Entry]) -> None:
        names = [entry.name for entry in entries]
        for entry in entries:
            tell_over(entry, self._timetable.mark(entry.name))
        if is_over_by_bounds(self._timetable, names[0]):
            self._file.note_over(names, names)

    def _put_off(
        self, due: Due, mark: Mark | None, now: Instant, slot: Instant, reason: str
    ) -> None:
        """Let an entry rest that was refused at `slot`; `mark` is of those before it.

        The policies decide anew when it is tried again.
        """
        if mark is not None:
            self._timetable.advance(due, mark)
            self._refusals.end(due.entry.name, now)
        rest = self._refusals.meet(due.entry.name, slot, reason)
        self._timetable.hold(due, now + rest)

    def _end_refusal(self, entry: Entry, decision: Decision, now: Instant) -> None:
        """Note that the broker accepted what was decided of an entry, if it did."""
        if decision.emit:
            self._refusals.end(entry.name, now)
        elif decision.over or decision.drops(Reason.PAUSED):
            self._refusals.forget(entry.name)

    def _note_drop(self, name: str, drop: Drop, number: int) -> None:
        """Log that slots are dropped; of a paused entry, only the first time."""
        if drop.reason is Reason.OVERLAP:
            self._holds.dropped(name, number)
        words, values = "%s dropped %d: %s", (name, number, str(drop.reason))
        about = {"entry": name, "slot": drop.first, "last": drop.last}
        if drop.reason is not Reason.PAUSED:
            tell.info(f"drop.{drop.reason}", words, *values, **about)
        elif name not in self._paused:
            self._paused.add(name)
            words = "%s is %s: its slots are dropped"
            why = self._pause_of(name) or "paused by the config"
            tell.info("drop.paused", words, name, why, **about)

    def _note_problems(self) -> None:
        """Keep in the file which entries are refused or held, if that changed."""
        if self._refusals.changed:
            self._file.note_refused(self.refused)
            self._refusals.changed = False
        if self._holds.changed:
            self._file.note_held(self.held)
            self._holds.changed = False


def _say_not_sent_again(refused: Mapping[str, tuple[Instant, str]]) -> None:
    """Log which lost slots stay lost: they are uncertain, and counted so already."""
    for name, (slot, reason) in refused.items():
        tell.error(
            "emit.not_sent_again",
            "%s: what the broker lost from %s on is refused, and not sent again: %s",
            name,
            stamp(slot),
            reason,
            entry=name,
            slot=slot,
        )
