"""Emissions of which it is uncertain whether they ran: the broker was set back."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from beatd.clock import Clock
from beatd.event_log import EventLog, stamp
from beatd.instant import EARLIEST, Instant
from beatd.scheduler.ledger_file import LedgerFile
from beatd.text import counted
from beatd.timetable.entry import Due, Entry
from beatd.timetable.ledger import LARGEST, Edition, LedgerCopy, Mark
from beatd.timetable.pages import Record, Told, What
from beatd.timetable.policy import Decision, Reason

tell = EventLog(__name__)

NAMED = 10
"""The most slots in doubt that one line of the log names."""

MOST_IN_DOUBT = 1000
"""The most slots in doubt that are found of one entry; the others are only counted."""

MOST_RECENT = 10_000
"""Of how many entries a process remembers decisions, to name their slots if it must."""


class Recent:
    """What this process emitted last, and which version of the ledger has it."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, Sequence[tuple[Due, Decision]]]] = deque()
        self._size = 0

    def add(self, version: int, decided: Sequence[tuple[Due, Decision]]) -> None:
        """Remember decisions that the broker has carried out, or may have."""
        self._steps.append((version, decided))
        self._size += _size(decided)
        while self._size > MOST_RECENT:
            self._size -= _size(self._steps.popleft()[1])

    def after(self, version: int) -> dict[str, list[Instant]]:
        """Return by entry the slots that only later versions have; forget them."""
        found: dict[str, set[Instant]] = {}
        while self._steps and self._steps[-1][0] > version:
            _, decided = self._steps.pop()
            self._size -= _size(decided)
            for due, decision in decided:
                for entry in due.entries if decision.emit else ():
                    found.setdefault(entry.name, set()).update(decision.emit)
        return {name: sorted(slots) for name, slots in found.items()}


def _size(decided: Sequence[tuple[Due, Decision]]) -> int:
    return sum(len(due.entries) for due, _ in decided)


class Lost(NamedTuple):
    """Emissions of one entry that the broker may have lost."""

    entry: Entry
    mark: Mark
    """The entry's mark after the last of them."""
    slots: Sequence[Instant]
    number: int
    """How many emissions there were; more than `slots` if very many."""


def lost_between(
    old: LedgerCopy, new: LedgerCopy, entries: Mapping[str, Entry]
) -> dict[str, Lost]:
    """Return by entry what was emitted after `old` and up to `new`."""
    found = {}
    for name, entry in entries.items():
        mark, before = new.marks.get(name), old.marks.get(name)
        if before is None and not old.edition.lineage:
            continue  # it is not known that the entry was emitted at all
        if mark is not None and (lost := _lost(entry, before, mark)):
            found[name] = lost
    return found


@dataclass
class LostWrites:
    """What the broker has lost of the ledger's writes, and which slots are in doubt."""

    file: LedgerFile
    clock: Clock
    recent: Recent = field(default_factory=Recent, init=False)
    _back_to: int = field(default=LARGEST, init=False)
    """The version to which the broker was set back, until a term has begun."""
    _doubtful: dict[str, Lost] | None = field(default=None, init=False)
    """What was found to be uncertain, by entry, until a term has begun; None if the
    broker was not set back."""
    _told: list[Told] = field(default_factory=list, init=False)
    """What is to be told to the history."""

    @property
    def doubtful(self) -> list[Lost]:
        """What was found to be uncertain, until a term has begun."""
        return [*(self._doubtful or {}).values()]

    def take_told(self) -> list[Told]:
        """Return what is to be told to the history, once."""
        told, self._told = self._told, []
        return told

    def note_set_back(
        self, found: LedgerCopy, base: LedgerCopy, entries: Mapping[str, Entry]
    ) -> None:
        """Find out what is uncertain, as the broker was set back to `found`."""
        self._doubtful = lost_between(found, base, entries) | (self._doubtful or {})
        self._back_to = min(self._back_to, found.edition.version)

    def note_parted(self, found: Edition, ours: Edition, era: int) -> bool:
        """Log, count and keep what others may have emitted a second time.

        That is so if the broker has lost writes of ours, and has others instead. Return
        whether it has.
        """
        if not found.parts_from(ours):
            return False
        slots = self.recent.after(found.shared(ours))
        _say_parted(slots, ours.version - found.shared(ours))
        self._keep({name: len(some) for name, some in slots.items()}, slots, era)
        return True

    def settle(self, era: int, *, sent_again: bool) -> None:
        """Log, count and keep the slots that the broker may have lost."""
        doubtful, self._doubtful = self._doubtful, None
        if doubtful is None:
            return
        # What was sent and had no answer may have been emitted, and lost, as well.
        slots = self.recent.after(self._back_to)
        for name, one in doubtful.items():
            slots[name] = sorted({*slots.get(name, ()), *one.slots})
        numbers = {name: len(some) for name, some in slots.items()}
        numbers |= {
            name: max(one.number, numbers[name]) for name, one in doubtful.items()
        }
        _say_uncertain(slots, sum(numbers.values()), sent_again=sent_again)
        self._keep(numbers, slots, era)
        self._back_to = LARGEST

    def _keep(
        self,
        numbers: Mapping[str, int],
        slots: Mapping[str, Sequence[Instant]],
        era: int,
    ) -> None:
        """Count and keep slots of which it is uncertain whether they ran."""
        if slots:
            reason = str(Reason.UNCERTAIN)
            counts = {(name, reason): number for name, number in numbers.items()}
            self.file.record({}, counts)
            self.file.note_uncertain(slots)
            now = self.clock.now()
            self._told += [
                (name, Record(slot, now - slot, What.UNCERTAIN, era))
                for name, some in slots.items()
                for slot in some
            ]


def _say_uncertain(
    slots: Mapping[str, Sequence[Instant]], number: int, *, sent_again: bool
) -> None:
    """Log which slots the broker may have lost; there may be more than are known."""
    tell.warning(
        "ledger.set_back",
        "the broker's data were set back: of %s of %s that were"
        " emitted after that it is uncertain whether they ran; they are %s"
        " (beat_lost_writes): %s",
        counted(number, "slot"),
        counted(len(slots), "entry"),
        "sent again" if sent_again else "not sent again",
        _named(slots, number),
        slots=number,
        entries=len(slots),
    )


def _say_parted(slots: Mapping[str, Sequence[Instant]], writes: int) -> None:
    """Log which slots of this process another one may have emitted once more."""
    number = sum(map(len, slots.values()))
    tell.warning(
        "ledger.parted",
        "the broker's data were set back, and another scheduler went on from there:"
        " lost are %s to its ledger that are known here; of %s of %s that this process"
        " emitted in them it is uncertain whether they ran, and whether once or twice:"
        " %s",
        counted(writes, "write"),
        counted(number, "slot"),
        counted(len(slots), "entry"),
        _named(slots, number),
        slots=number,
        entries=len(slots),
    )


def _named(slots: Mapping[str, Sequence[Instant]], number: int) -> str:
    """Return the first of so many slots in words."""
    pairs = ((name, slot) for name in slots for slot in slots[name])
    named = [f"{name} {stamp(slot)}" for name, slot in islice(pairs, NAMED)]
    more = f" and {number - len(named)} more" if number > len(named) else ""
    return (", ".join(named) or "none") + more


def _lost(entry: Entry, before: Mark | None, mark: Mark) -> Lost | None:
    """Return the emissions of an entry that lie between two of its marks, if any.

    An entry's mark says how many there were, and which was the last: that is exact
    unless slots between them were dropped.
    """
    same = before is not None and before.fingerprint == mark.fingerprint
    # A changed schedule counts its runs anew.
    number = mark.runs - before.runs if before and same else min(mark.runs, 1)
    since = EARLIEST if before is None else before.slot
    if number < 1 or mark.last is None or mark.last <= since:
        return None
    slots = [mark.last]
    while same and len(slots) < min(number, MOST_IN_DOUBT):
        earlier = entry.schedule.last_until(slots[-1] - 1, since)
        if earlier is None or earlier <= since:
            break
        slots.append(earlier)
    return Lost(entry, mark, slots[::-1], number)
