"""Parts of what keeps the promise, taken out again: the simulation has to notice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from beatd.brokers.memory.lead import MemoryLead
from beatd.scheduler import takeover
from beatd.timetable.ledger import LedgerCopy


def _forget_slot(emit: Callable[..., Any]) -> Callable[..., Any]:
    def emit_whatever_is_known(broker: Any, emission: Any, *more: Any) -> Any:
        broker._ledger.pop(emission.entry, None)
        return emit(broker, emission, *more)

    return emit_whatever_is_known


def _without_rows(found: LedgerCopy, ours: LedgerCopy, what: object) -> LedgerCopy:
    return LedgerCopy({}, found.era, found.edition)


MUTATIONS: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
    # The broker puts a slot on the queue that its ledger has already.
    "known-slots": (MemoryLead, "_emit", _forget_slot),
    # A term goes on from a copy, although the broker's ledger is newer.
    "broker-is-right": (takeover, "settled", lambda _: lambda found, ours, what: ours),
    # A term goes on as if the broker had no ledger.
    "ledger-is-read": (takeover, "settled", lambda _: _without_rows),
}
"""By name of what is taken out: where it is, and what takes its place."""


@contextmanager
def without(name: str) -> Iterator[None]:
    """Take one part out for a while; an empty name takes out nothing."""
    if not name:
        yield
        return
    place, attribute, change = MUTATIONS[name]
    before = getattr(place, attribute)
    setattr(place, attribute, change(before))
    try:
        yield
    finally:
        setattr(place, attribute, before)
