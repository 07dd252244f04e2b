"""Parts of what keeps the promise, taken out again: the simulation has to notice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from beatd.brokers.memory import MemoryBroker
from beatd.brokers.memory.lead import MemoryLead
from beatd.scheduler import takeover
from beatd.timetable.ledger import Edition, Finding, LedgerCopy
from beatd.worker.begun import BegunMessages
from beatd.worker.settle import Settler
from tests.simulation.faults import OF_WORKERS, Kind
from tests.simulation.world import HostClock


def _forget_slot(emit: Callable[..., Any]) -> Callable[..., Any]:
    def emit_whatever_is_known(broker: Any, emission: Any, *more: Any) -> Any:
        broker._ledger.pop(emission.entry, None)
        return emit(broker, emission, *more)

    return emit_whatever_is_known


def _without_rows(found: LedgerCopy, ours: LedgerCopy, what: object) -> LedgerCopy:
    return LedgerCopy({}, found.era, found.edition)


def _deaf(wait: Callable[..., Any]) -> Callable[..., Any]:
    def wait_until(clock: Any, inbox: Any, until: int, at_most: int) -> Any:
        return wait(clock, inbox, until, at_most=until - clock.now())

    return wait_until


def _without_numbers(settle: Callable[..., Any]) -> Callable[..., Any]:
    def settle_again(broker: Any, worker: str, *more: Any) -> Any:
        broker._answered.pop(worker, None)
        return settle(broker, worker, *more)

    return settle_again


def _no_dead(recover: object) -> Callable[..., int]:
    def recover_nothing(broker: object) -> int:
        return 0

    return recover_nothing


def _whatever_is_answered(settler: object, part: object, answers: object) -> object:
    return part


def _with_gaps(add_page: Callable[..., Any]) -> Callable[..., Any]:
    def add_most_pages(broker: Any, stored: bytes) -> None:
        if len(stored) % 7:
            add_page(broker, stored)

    return add_most_pages


class Mutation(NamedTuple):
    """One part that is taken out, and the history that misses it."""

    place: Any
    attribute: str
    change: Callable[[Any], Any]
    kinds: frozenset[Kind]
    hint: int
    """With these kinds of faults, a quarter of an hour of this seed shows it, or of one
    of the next: each request more or less in a tick gives seeds other histories."""


SEARCHED = 80
"""So many seeds are tried, from the hint on, until a part is said not to be missed."""


RIGHT_CLOCKS = (
    frozenset(Kind)
    - OF_WORKERS
    - {
        Kind.EMPTIED,
        Kind.SET_BACK,
        Kind.STEP,
        Kind.AHEAD,
        Kind.FAR,
    }
)
"""Without the others no slot is doubled, or given up, for any reason."""

MUTATIONS = {
    # The broker puts a slot on the queue that its ledger has already.
    "known-slots": Mutation(MemoryLead, "_emit", _forget_slot, RIGHT_CLOCKS, 48),
    # The history is not told of some batches.
    "history-is-whole": Mutation(MemoryLead, "_add_page", _with_gaps, RIGHT_CLOCKS, 0),
    # A term goes on from a copy, although the broker's ledger is newer.
    "broker-is-right": Mutation(
        takeover,
        "settled",
        lambda _: lambda found, ours, what: ours,
        RIGHT_CLOCKS,
        1,
    ),
    # A term goes on as if the broker had no ledger.
    "ledger-is-read": Mutation(
        takeover, "settled", lambda _: _without_rows, RIGHT_CLOCKS, 0
    ),
    # Nobody finds out that the broker's ledger is older than what is known.
    "versions": Mutation(
        takeover,
        "finding",
        lambda _: lambda found, ours, told: Finding.RIGHT,
        frozenset([Kind.SET_BACK]),
        0,
    ),
    # A scheduler whose writes were lost, and replaced, does not find that out.
    "terms-in-versions": Mutation(
        Edition,
        "parts_from",
        lambda _: lambda edition, other: False,
        frozenset([Kind.SET_BACK, Kind.PAUSE]),
        59,
    ),
    # The nap is as long as a clock says that is set back meanwhile.
    "bounded-nap": Mutation(
        HostClock, "wait", _deaf, frozenset([Kind.FAR, Kind.SLOW]), 4
    ),
    # The broker does again what a worker asked before.
    "settled-once": Mutation(
        MemoryBroker,
        "settle",
        _without_numbers,
        frozenset([Kind.WORKER_REQUESTS]),
        0,
    ),
    # Nobody gives back what dead workers had.
    "dead-workers": Mutation(
        MemoryBroker, "recover", _no_dead, frozenset([Kind.WORKER_DIES]), 0
    ),
    # A run begins, acknowledged early, although its message was gone by then.
    "answered-before-begin": Mutation(
        Settler,
        "_answered",
        lambda _: _whatever_is_answered,
        frozenset([Kind.WORKER_PAUSED, Kind.WORKER_REQUESTS]),
        19,
    ),
    # The same, where it lies in its queue once more, and the worker has it twice.
    "answered-after-a-loss": Mutation(
        Settler,
        "_answered",
        lambda _: _whatever_is_answered,
        frozenset([Kind.SET_BACK, Kind.WORKER_PAUSED]),
        133,
    ),
    # A worker does not know what it has begun before a loss.
    "begun-once": Mutation(
        BegunMessages,
        "add",
        lambda _: lambda begun, message: True,
        frozenset([Kind.SET_BACK, Kind.WORKER_PAUSED, Kind.WORKER_REQUESTS]),
        15,
    ),
}
"""By name of what is taken out."""


@contextmanager
def without(name: str) -> Iterator[None]:
    """Take one part out for a while; an empty name takes out nothing."""
    if not name:
        yield
        return
    place, attribute, change, *_ = MUTATIONS[name]
    before = getattr(place, attribute)
    setattr(place, attribute, change(before))
    try:
        yield
    finally:
        setattr(place, attribute, before)
