"""Entries that are over: that is said once."""

from collections.abc import Iterator

from beatd.event_log import EventLog
from beatd.parts import in_parts
from beatd.timetable.entry import Entry
from beatd.timetable.ledger import Mark
from beatd.timetable.timetable import Timetable

tell = EventLog(__name__)

_AT_ONCE = 10_000
"""Entries to look at in one part."""


def tell_over(entry: Entry, mark: Mark) -> None:
    """Log, when it comes to that and at no later start, that an entry is over."""
    why = entry.end_after(mark)
    tell.info("entry.over", "%s is over: %s", entry.name, why, entry=entry.name)


def is_over_by_bounds(timetable: Timetable, name: str) -> bool:
    """Return whether other bounds would let an entry that is over go on."""
    if not timetable.is_over(name):
        return False
    schedule = timetable.entry(name).schedule
    return schedule.next_after(timetable.mark(name).slot) is not None


def over_by_bounds(timetable: Timetable) -> Iterator[set[str]]:
    """Yield, part by part, the entries that are over by their bounds."""
    for part in in_parts([*timetable.over], _AT_ONCE):
        yield {name for name in part if is_over_by_bounds(timetable, name)}
