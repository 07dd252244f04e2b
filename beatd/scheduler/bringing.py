"""Writes the marks of another scheduler into the ledger, as a leader does."""

from collections.abc import Callable, Mapping
from functools import partial
from queue import SimpleQueue

from beatd.brokers.items import Term
from beatd.clock import Wake
from beatd.errors import TermOver
from beatd.scheduler.leadership import STANDBY_LOOK
from beatd.scheduler.loop import Scheduler
from beatd.timetable.ledger import Mark


def bring(
    scheduler: Scheduler,
    marks: Mapping[str, Mark],
    on_wait: Callable[[], object] = lambda: None,
) -> str:
    """Write those of these marks that are further than the ledger's; emit nothing.

    They are written under a term of this process, into the broker's ledger and the
    schedule file, and then the lead is given back. Return the name of the process that
    leads instead, if one does: nothing has changed then. Empty: it is done. `on_wait`
    is called each time when the lead is left to a former leader for a while.

    Entries without such a mark stay as they are: another import, of another scheduler,
    may still know when they ran last.

    Raises BrokerUnavailable: some may be written then, and all may be again.
    """
    takeover, leadership = scheduler.takeover, scheduler.leadership
    takeover.brought = marks
    configs = takeover.configs
    configs.keep = [*configs.keep, *configs.entries]
    configs.entries = {
        name: entry for name, entry in configs.entries.items() if name in marks
    }
    inbox: SimpleQueue[Wake] = SimpleQueue()
    try:
        while True:
            if not takeover.aside.is_on:
                term = leadership.hold(scheduler.file.highest_term())
                if term is None:
                    return leadership.leader()
                if _begin(scheduler, term):
                    return ""
                on_wait()
            now = scheduler.clock.now()
            scheduler.clock.wait(inbox, now + STANDBY_LOOK, at_most=STANDBY_LOOK)
    finally:
        scheduler.stop()


def _begin(scheduler: Scheduler, term: Term) -> bool:
    """Begin a term; return whether it lasted for so long."""
    leadership = scheduler.leadership
    keep = partial(leadership.keep, term)
    try:
        for _ in scheduler.takeover.begin(term, scheduler.clock.now(), on_part=keep):
            keep()
    except TermOver:
        leadership.lose()
        return False
    return True
