"""Emissions of which it is uncertain whether they ran: the broker was set back."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from beatd.event_log import EventLog
from beatd.instant import EARLIEST, Instant, datetime_of
from beatd.timetable.entry import Entry
from beatd.timetable.ledger import LedgerCopy, Mark

tell = EventLog(__name__)

NAMED = 10
"""The most slots in doubt that one line of the log names."""

MOST_IN_DOUBT = 1000
"""The most slots in doubt that are found of one entry; the others are only counted."""


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


def say_uncertain(doubtful: Mapping[str, Lost], *, sent_again: bool) -> None:
    """Log which slots the broker may have lost."""
    number = sum(lost.number for lost in doubtful.values())
    slots = ((name, slot) for name, lost in doubtful.items() for slot in lost.slots)
    named = [
        f"{name} {datetime_of(slot):%Y-%m-%dT%H:%M:%SZ}"
        for name, slot in islice(slots, NAMED)
    ]
    tell.warning(
        "ledger.set_back",
        "the broker's data were set back: of %d slots of %d entries that were"
        " emitted after that it is uncertain whether they ran; they are %s"
        " (beat_lost_writes): %s%s",
        number,
        len(doubtful),
        "sent again" if sent_again else "not sent again",
        ", ".join(named) or "none",
        f" and {number - len(named)} more" if number > len(named) else "",
        slots=number,
        entries=len(doubtful),
    )


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
