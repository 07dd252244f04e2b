"""What the log says of each emission: what was sent, for which slot, how late."""

import logging
from collections.abc import Mapping, Sequence

from beatd.brokers.items import Emission, Emitted, Outcome
from beatd.event_log import EventLog, stamp
from beatd.ids import run_id
from beatd.instant import Instant, delay
from beatd.timetable.entry import Entry
from beatd.timetable.timetable import Timetable

tell = EventLog(__name__)


def log_emissions(
    emissions: Sequence[Emission],
    outcomes: Sequence[Emitted],
    now: Instant,
    *,
    entries: Mapping[str, Entry],
    timetable: Timetable,
    namespace: str,
    era: int,
) -> None:
    """Log what was queued, or known to the broker already, if INFO is logged at all.

    What is refused or dropped is logged where it is decided what follows from that.
    """
    if not tell.logs_at(logging.INFO):
        return
    for emission, outcome in zip(emissions, outcomes, strict=True):
        if outcome is not Outcome.QUEUED and outcome is not Outcome.KNOWN:
            continue
        name, slot, route = emission.entry, emission.mark.slot, emission.route
        entry = entries.get(name)  # a reload may have taken it out
        task = entry.message.task if entry else ""
        id = emission.run or run_id(namespace, name, era, slot)
        queue = route.queue or route.exchange if route else ""
        late = now - slot - timetable.offset(name)
        tell.info(
            f"emit.{outcome.value}",
            "%s %s: %s[%s] in %s for %s, %s late",
            *(name, outcome.value, task, id, queue, stamp(slot), delay(late)),
            entry=name,
            task=task,
            id=id,
            queue=queue,
            slot=slot,
            late=late,
        )
