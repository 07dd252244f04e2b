"""A reload: one config takes the place of another, and no slot falls between them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from beatd.instant import Instant
from beatd.routing import Queue
from beatd.timetable.entry import Due, Entry
from beatd.timetable.ledger import Mark
from beatd.timetable.policy import Decision, Drop, Reason
from beatd.timetable.timetable import Timetable


@dataclass(frozen=True, slots=True)
class NewConfig:
    """A config that holds from `at` on; what is due by then is done by the one before.

    Without that, a slot of the one that nobody has emitted yet would be no slot of the
    other: an entry that is removed, has another schedule, or ends earlier.
    """

    entries: Mapping[str, Entry]
    keep: Collection[str]
    """Names of entries that cannot be read now: their ledger rows stay."""
    queues: Collection[Queue]
    at: Instant
    led_elsewhere: bool = False
    """Whether another process led since this config came, by whichever config."""

    def left_until(self, now: Instant) -> "NewConfig":
        """Return the same config, to hold when this process leads, not before `now`."""
        return replace(self, at=now, led_elsewhere=True)

    def until_it_holds(
        self, old: Mapping[str, Entry], marks: Mapping[str, Mark]
    ) -> Mapping[str, Entry]:
        """Return the entries to begin a term with before it goes over to this config.

        Whoever led meanwhile may have gone over already: entries are those of `old`
        only where the ledger has the old schedule.
        """
        if not self.led_elsewhere:
            return old
        still_old = {
            name: entry
            for name, entry in old.items()
            if (mark := marks.get(name)) is not None
            and mark.schedule == entry.schedule.fingerprint
        }
        return {**self.entries, **still_old}

    def ended_early(self, timetable: Timetable) -> set[str]:
        """Return the entries that would go on, and do not by their new bounds."""
        return {
            entry.name
            for entry in timetable
            if (new := self.entries.get(entry.name)) is not None
            and new.policy.bounds != entry.policy.bounds
            and not timetable.is_over(entry.name)
            and new.first_after(timetable.mark(entry.name)) is None
        }

    def last_decisions(
        self, timetable: Timetable, at: Instant
    ) -> Iterator[tuple[Due, Decision]]:
        """Yield what to decide of entries that change, once nothing is due by `at`."""
        for entry in timetable:
            if entry.name in self.keep:
                continue
            mark, slot = timetable.mark(entry.name), timetable.slot(entry.name)
            new, seen = self.entries.get(entry.name), at - entry.offset
            goes_on = new is not None and new.schedule.fingerprint == mark.schedule
            if slot is not None and slot <= seen:  # held, or refused by the broker
                if not goes_on or (new and not new.policy.admits(slot, mark.runs)):
                    yield _drop(entry, mark, slot, seen)
            elif goes_on and new and new.policy.bounds != entry.policy.bounds:
                first = new.first_after(mark)
                if first is not None and first <= seen:
                    # Only the new bounds admit it, and it has passed without them.
                    yield _pass_over(entry, mark, seen)


def _drop(
    entry: Entry, mark: Mark, slot: Instant, until: Instant
) -> tuple[Due, Decision]:
    end = entry.policy.end
    latest = until if end is None else min(until, end)
    last = entry.schedule.last_until(latest, slot) or slot
    due = Due([entry], mark, slot, last, entry.schedule.next_after(last))
    drop = Drop(Reason.REPLACED, slot, last)
    return due, Decision(dropped=(drop,), until=last)


def _pass_over(entry: Entry, mark: Mark, until: Instant) -> tuple[Due, Decision]:
    due = Due([entry], mark, until, until, entry.schedule.next_after(until))
    return due, Decision(until=until)
