"""What goes into a broker and comes out of it: messages, acts, terms, answers."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

import msgspec

from beatd.errors import LedgerMoved
from beatd.instant import EARLIEST, LATEST, Instant, Span
from beatd.routing import Route
from beatd.timetable.ledger import Edition, Mark

ENOUGH = 8 * 1024 * 1024
"""Bytes of messages after which one `take` returns no more, and that one batch of
emissions has at most: large messages come one by one, and do not lie in a worker's or a
server's memory all at once."""


class Promise(Enum):
    """How often a broker has each slot, whatever happens."""

    EXACTLY_ONCE = "exactly-once"
    AT_LEAST_ONCE = "at-least-once"

    @property
    def words(self) -> str:
        """Say it to people."""
        if self is Promise.EXACTLY_ONCE:
            return "each slot is queued exactly once"
        return (
            "each slot is queued at least once: a crash of the leader at the wrong"
            " moment sends its last batch again, under the same ids"
        )


class Outcome(Enum):
    """What became of one emission."""

    QUEUED = "queued"
    DROPPED = "dropped"  # the slot moved on; no message, or no queue for it: no run
    KNOWN = "known"  # the ledger has this slot already: all is well


class Refused(msgspec.Struct, frozen=True):
    """The broker refuses this one emission: nothing was queued, its row is as it was.

    One of its places is of a wrong type or is forbidden, or the message is too large.
    """

    reason: str
    """Why, and the way out, for people."""


Emitted: TypeAlias = Outcome | Refused
"""What a broker answers to one emission."""


MOST_PAGES = 1000
"""The most pages of the history that wait to be folded: one for each batch."""

_LETTERS = {
    id(Outcome.QUEUED): "q",
    id(Outcome.DROPPED): "d",
    id(Outcome.KNOWN): "k",
}
"""By identity: to hash a member of an Enum is a call of Python code."""


def stored_page(outcomes: Sequence[Emitted], page: bytes) -> bytes | None:
    """Return a page with a letter for each emission; None if all were known."""
    if not page or all(outcome is Outcome.KNOWN for outcome in outcomes):
        return None
    letters = [_LETTERS.get(id(outcome), "r") for outcome in outcomes]
    return "".join(letters).encode() + b" " + page


class Term(NamedTuple):
    """One period of leadership; the broker emits nothing under one that is over.

    `number` only grows. `nonce` is random, so that no two terms are ever equal, even
    when the broker has lost its data.
    """

    number: int
    nonce: str

    @property
    def mark(self) -> str:
        """Names the term in the editions of the ledger that it makes."""
        return self.nonce[:8]


class HeldLead(NamedTuple):
    """What a process is told that asks for the lead while another one has it."""

    edition: Edition
    """What the ledger is at: so the process knows how far its copy is behind."""
    term: Term
    """The term under which the other one leads."""
    left: Span
    """How long that lead lives at least, unless it is given back; 0: for no time that
    is known."""


class Emission(msgspec.Struct, frozen=True):
    """One slot of one entry: the ledger's new row and the message that goes with it."""

    entry: str
    mark: Mark
    """The ledger's row once this is done; `mark.slot` is the slot."""
    route: Route | None
    """None when the slot is dropped on purpose: only the ledger moves on."""
    message: bytes = b""
    run: str = ""
    """The task id to remember as the current run of an entry with an overlap rule."""


class Outgoing(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message on its way to a queue, outside of any ledger."""

    route: Route
    message: bytes
    due: Instant | None = None
    """Until this instant the message waits in the broker; None: it does not wait.

    Only for messages that no worker of Celery's may take, such as our worker's retries.
    """
    is_event: bool = False
    """Whether it only tells monitors: where it is refused, the others go without it."""


class Delivery(msgspec.Struct, frozen=True):
    """One message handed to one worker, under that worker's lease."""

    token: str
    """Names the delivery in the worker's in-flight set; the broker chooses it.

    It never names another one, not even when data are lost: a copy of a request to
    take, which comes after that, takes other messages under tokens of their own.
    """
    queue: str
    message: bytes
    """The raw bytes as they lay in the queue, malformed or not."""
    deliveries: int = 1
    """How often this message was delivered, this time included."""


class Begin(msgspec.Struct, frozen=True):
    """The delivery is done before its run begins: that runs at most once.

    The entry's current run, if it is this one, lasts until `Acknowledge`, and no longer
    than the worker's lease.
    """

    delivery: Delivery
    entry: str = ""
    run: str = ""


class Acknowledge(msgspec.Struct, frozen=True):
    """The delivery is done, and so is the entry's run, if one ended with it."""

    delivery: Delivery
    entry: str = ""
    run: str = ""
    goes_on: bool = False
    """The run does not end: a message that is sent in the same request goes on."""


class GiveBack(msgspec.Struct, frozen=True):
    """The message goes to the front of its queue; the delivery is not counted."""

    delivery: Delivery


class Delay(msgspec.Struct, frozen=True):
    """The message waits in the broker, out of flight, until that instant."""

    delivery: Delivery
    until: Instant


class SetAside(msgspec.Struct, frozen=True):
    """The message becomes a dead letter, with what is known of it; its run ends."""

    delivery: Delivery
    reason: str
    task: str = ""
    task_id: str = ""
    """The task's name and id, where they could be read."""
    way_back: Route | None = None
    """The way to its queue of a message that was acknowledged before (`Begin`).

    It lies nowhere any more: the dead letter is made of what the act holds.
    """


Act: TypeAlias = Begin | Acknowledge | GiveBack | Delay | SetAside
"""What is to become of one delivery."""


class Forbidden(NamedTuple):
    """What the server of a broker, or of results, forbids our user."""

    part: str
    """Of beatd, for people: what needs it."""
    what: str
    """A command, a key or a channel."""
    rule: str
    """Of its ACL, which permits it."""


class Suspects(Enum):
    """How `take` is to treat suspects: messages with which a worker has died."""

    ALONE = "alone"  # they are taken by a worker that has nothing else in flight
    ALIKE = "alike"  # only those that one worker died with; all else stays
    IN_COMPANY = "in company"  # they are taken, whatever the worker has in flight
    PASSED_OVER = "passed over"  # they stay where they are; what lies behind is taken


def number_together(
    lying: Sequence[tuple[int, int]], suspects: Suspects, together: int
) -> int:
    """Return how many of the next messages are taken together.

    Each is given as the number of workers that died with it, and its bytes.
    """
    first = lying[0][0] if lying else 0
    if suspects is Suspects.ALIKE and first != 1:
        return 0
    most = {0: len(lying), 1: together}.get(first, 1)
    number = size = 0
    for deaths, length in lying[:most]:
        if size >= ENOUGH or deaths != first:
            break
        number, size = number + 1, size + length
    return number


class Effect(Enum):
    """What became of one act."""

    DONE = "done"
    GONE = "gone"  # the delivery is not in flight any more: nothing was done
    REFUSED = "refused"  # the delivery stays in flight; the act may be tried again


class Answer(NamedTuple):
    """What a broker answers to one act."""

    effect: Effect
    reason: str = ""
    """Why the act was refused, for people."""


DONE, GONE = Answer(Effect.DONE), Answer(Effect.GONE)


def do_in_turn(acts: Sequence[Act], do: Callable[[Act], Answer]) -> list[Answer]:
    """Do each act, in the order that `Consumer.settle` promises; return the answers."""
    answers = {at: do(acts[at]) for at in turns(acts)}
    return [answers[at] for at in range(len(acts))]


def turns(acts: Sequence[Act]) -> list[int]:
    """Return the places of the acts in the order in which they are to be done."""
    back = [at for at, act in enumerate(acts) if isinstance(act, GiveBack)]
    if not back:
        return [*range(len(acts))]
    others = [at for at, act in enumerate(acts) if not isinstance(act, GiveBack)]
    return [*others, *reversed(back)]


@dataclass(frozen=True, slots=True)
class Delayed:
    """A message that waits in the broker for its time."""

    queue: str
    message: bytes
    due: Instant
    """By this process's clock, whatever the broker's clock shows."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that a worker has set aside, and how that came."""

    id: str
    """A number, short to type; each later dead letter gets a larger one."""
    queue: str
    reason: str
    at: Instant
    deliveries: int
    """How often it had been delivered."""
    worker: str
    size: int
    """Bytes of the message."""
    task: str = ""
    task_id: str = ""
    """The task's name and id, where they could be read."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What lies in one queue."""

    name: str
    length: int | None
    """Messages that are ready to be taken; None: the broker does not say."""
    first: bytes = b""
    """The message that is taken next; empty if there is none."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What the broker knows of one worker that has a lease."""

    name: str
    queues: Sequence[str]
    """Those that it takes from; empty if an earlier version does not tell."""
    held: int
    """Deliveries in flight, with those that were acknowledged when they began."""
    left: Span
    """How long its lease lasts on; 0 if that is over, and nobody has ended it."""


STANDBY_LASTS: Span = 20_000
"""How long a process counts as standing by after it was heard; it tells every 5 s."""


@dataclass(frozen=True, slots=True)
class StandbyState:
    """What the broker knows of a process that stands by."""

    name: str
    """As given to `acquire`."""
    digest: str
    """What stands for its entries; empty if that was not known yet."""
    heard: Span
    """How long ago it has told that it stands by."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What lies in a broker, who takes it, and who would lead next."""

    queues: Sequence[QueueState]
    workers: Sequence[WorkerState]
    dead: int
    """Dead letters."""
    standbys: Sequence[StandbyState] = ()
    """By name; one that leads or has ended by now may be among them for a while."""

    @property
    def alive(self) -> Sequence[WorkerState]:
        """The workers whose leases last on: the others have died, or are cut off."""
        return [one for one in self.workers if one.left]


def letter_of(record: Mapping[str, object]) -> DeadLetter:
    """Return the dead letter that a stored record means.

    Raises ValueError for what is none.
    """
    letter = msgspec.convert(record, DeadLetter)
    if not EARLIEST <= letter.at <= LATEST:
        raise ValueError(f"no instant of a date: {letter.at}")
    return letter


def as_new(message: bytes) -> bytes:
    """Return a message of a dead letter with none of its requeues counted.

    `requeued` in message/resend.py has written that count, in this form.
    """
    return re.sub(rb'"beatd_requeues": \d+', b'"beatd_requeues": 0', message, count=1)


def ledger_moved(edition: Edition) -> LedgerMoved:
    """Return the error for a ledger that cannot be made `edition`."""
    return LedgerMoved(
        f"the ledger is not at version {edition.version - 1}, where it was left:"
        " the broker's data were set back, or replaced"
    )


def idle() -> None:
    """Do nothing between two parts of a long request."""


def pass_over(name: str, reason: str) -> None:
    """Take no note of what is refused."""
