"""From last runs to marks of the ledger."""

from collections.abc import Iterable, Mapping

from beatd.migrate.found import FoundEntry, LastRun
from beatd.schedules.interval import Every
from beatd.timetable.entry import Entry
from beatd.timetable.ledger import Mark


def marks_of(
    entries: Iterable[Entry], found: Iterable[FoundEntry]
) -> Mapping[str, Mark]:
    """Return the marks of those entries of which another scheduler knows a last run."""
    last = {one.name: one.last for one in found}
    return {
        entry.name: mark_of(entry, known)
        for entry in entries
        if (known := last.get(entry.name)) is not None
    }


def mark_of(entry: Entry, last: LastRun) -> Mark:
    """Return the mark of an entry that another scheduler ran last.

    Its slots after that run are due. An interval that is counted from the epoch has
    other slots than the other scheduler had: the run counts as the nearest of them, so
    that half an interval at least lies between it and the first run of beatd's.
    """
    slot, schedule = last.at, entry.schedule
    if isinstance(schedule, Every):
        nearest = schedule.last_until(slot + schedule.every // 2, slot - schedule.every)
        slot = slot if nearest is None else nearest
    # Runs count against `max_runs`, which no other scheduler knows.
    runs = 0 if entry.policy.max_runs is not None else last.runs
    return Mark(slot, schedule.fingerprint, runs, last=last.at if last.runs else None)
