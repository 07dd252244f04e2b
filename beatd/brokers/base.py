"""What a broker promises to those who call it.

One class may be all of these ports; each caller sees only its own:

Lead         leadership.py      who may emit
Emitter      scheduler.py       messages and the ledger, written in one step
Sender       app.py, worker     messages that no ledger knows
Consumer     worker/loop.py     deliveries under a lease
DeadLetters  cli/dead.py        what workers have set aside
Broadcast    worker/control.py  what is said to everybody, where a broker has that

Every method may raise BrokerUnavailable: no answer came, the request may or may not
have been done, and calling again with the same arguments is safe; not so with
`Sender.send`, which may then send twice. Its subclass BrokerRefused means that the
broker answered, and that someone has to mend it first (read-only, out of memory, no
permission). No socket waits longer than its time-out.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable

from beatd.instant import Instant, Span
from beatd.routing import Queue, Route
from beatd.timetable.ledger import LedgerCopy, Mark

ENOUGH = 8 * 1024 * 1024
"""Bytes of messages after which one `take` gives no more: large ones come one by one,
and do not lie in a worker's memory all at once."""


class Outcome(Enum):
    """What became of one emission."""

    QUEUED = "queued"
    DROPPED = "dropped"  # the ledger moved, and nothing was to be queued
    KNOWN = "known"  # the ledger has this slot already: all is well


class Term(NamedTuple):
    """One period of leadership: the fencing token.

    `number` only grows. `nonce` is drawn anew, so that no two terms are ever equal,
    even when the broker forgot its data.
    """

    number: int
    nonce: str


@dataclass(frozen=True, slots=True)
class Emission:
    """One slot of one entry: the ledger's new row and the message that goes with it."""

    entry: str
    mark: Mark
    """The ledger's row once this is done; `mark.slot` is the slot."""
    route: Route | None
    """None when the slot is dropped on purpose: only the ledger moves."""
    message: bytes = b""
    run: str = ""
    """The task id to remember as the entry's current run, when an overlap rule asks."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way to a queue, outside of any ledger."""

    route: Route
    message: bytes
    due: Instant | None = None
    """Not before this instant: the message waits in the broker. None: at once.

    Only for messages that no Celery worker shares, such as the retries of our worker.
    """


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message handed to one worker, under that worker's lease."""

    token: str
    """Names the delivery in the worker's in-flight set; unique, the broker's own."""
    queue: str
    message: bytes
    """The raw bytes as they lay in the queue, malformed or not."""
    deliveries: int = 1
    """How often this message was handed out, this time included."""


@dataclass(frozen=True, slots=True)
class Done:
    """A delivery that is settled, and the run that ended with it, if one did."""

    delivery: Delivery
    entry: str = ""
    run: str = ""


@dataclass(frozen=True, slots=True)
class Delayed:
    """A message that waits in the broker for its time."""

    queue: str
    message: bytes
    due: Instant
    """By this process's clock; the broker's own may differ, and is asked how far."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message on the dead-letter queue, and how it came there."""

    id: str
    """A number, small for people to type; the next one gets a larger one."""
    queue: str
    reason: str
    at: Instant
    deliveries: int
    """How often it had been handed out."""
    worker: str
    size: int
    """Bytes of the message."""
    task: str = ""
    task_id: str = ""
    """Task and id as far as they could be read."""


def idle() -> None:
    """Do nothing, between two parts of what takes long."""


class Lead(Protocol):
    """Who may emit."""

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | None:
        """Take the lead if nobody holds it; its number is above `floor` and all before.

        `holder` says who we are, for people. None while someone else leads.
        """
        ...

    def renew(self, term: Term, ttl: Span) -> bool:
        """Hold the lead for `ttl` from now on; False if the term is over."""
        ...

    def resign(self, term: Term) -> None:
        """Give the lead back and wake those who wait for it; nothing if it is over."""
        ...

    def let_go(self) -> None:
        """Let go of the lead as far as that asks no broker, nor fails.

        A lock with a time to live then runs out by itself.
        """
        ...

    def leader(self) -> str | None:
        """Give the holder's own words, None when nobody leads."""
        ...

    def await_release(self, timeout: Span) -> bool:
        """Return True as soon as the lead was given back, False after `timeout`.

        Called from a thread of its own, beside the other methods.
        """
        ...


class Emitter(Protocol):
    """Messages and the ledger, written in one step under a term."""

    def emit(self, term: Term, batch: Sequence[Emission], ttl: Span) -> list[Outcome]:
        """Queue each emission that the ledger does not know, in one atomic step.

        An emission is known when the ledger's row has its slot or a later one. The
        batch is bounded by the caller. Renews the lead for `ttl` in the same step.

        Raises TermOver, having queued nothing, if `term` is not the leader's.
        """
        ...

    def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        """Give every row, and the clock era (0 at first).

        Where it may take as long as a lead lives, `on_part` is called again and again.
        """
        ...

    def write_ledger(
        self, term: Term, marks: Mapping[str, Mark], gone: Collection[str], era: int
    ) -> None:
        """Set these rows whatever they were, remove the `gone` ones, set the era.

        Raises TermOver, having written nothing more, if `term` is not the leader's.
        """
        ...

    def running(self, entries: Collection[str]) -> dict[str, str]:
        """Give the current run's task id of those entries whose run has not ended."""
        ...

    def end_runs(self, runs: Mapping[str, str]) -> None:
        """Forget these runs (entry to task id) where they are still current."""
        ...


class Sender(Protocol):
    """Messages that no ledger knows: calls by users, retries, call-backs."""

    def declare(self, queues: Collection[Queue]) -> None:
        """Make the queues and their bindings known, as Celery's producers do."""
        ...

    def purge(self, queues: Collection[str]) -> int:
        """Remove all that lies in these queues, of any priority; say how many it was.

        What is in flight, and what waits for its time, stays.
        """
        ...

    def send(self, batch: Sequence[Outgoing]) -> None:
        """Put all of them on their queues, in order, in one step.

        Called again after a lost answer it may put them there twice: nothing tells a
        message that is sent again from another one like it.
        """
        ...


class Consumer(Protocol):
    """Deliveries to one worker, under its lease.

    What is taken stays in the worker's in-flight set until it is settled. A worker
    whose lease ran out is dead: `recover`, called by any other, gives its deliveries
    back to their queues, in front, counted once more.
    """

    def join(self, worker: str, lease: Span) -> None:
        """Begin to take under this name, unique to the process, for `lease` at first.

        Called again it makes the lease longer, as `stay` does.
        """
        ...

    def stay(self, worker: str, lease: Span) -> bool:
        """Hold the lease for so long from now on: the heartbeat. False if it is over.

        Over is a lease that somebody found to have run out, and gave back what was held
        under it; while nobody did, it can be made longer, however late that is. Called
        several times within `lease`, from a thread of its own.
        """
        ...

    def leave(self, worker: str) -> None:
        """End the lease and give everything in flight back to the queues' fronts.

        What a graceful stop does. The deliveries do not count as once more.
        """
        ...

    def take(
        self, worker: str, queues: Sequence[str], limit: int, attempt: str
    ) -> list[Delivery]:
        """Move up to `limit` messages into the worker's in-flight set; never wait.

        Order: priority steps first, then `queues` in the order given. Messages whose
        delay is over come back first, the one that was due first foremost. `attempt`
        names the request: one that is made again with the same `attempt`, because its
        answer was lost, gives the same deliveries, whatever the limit is by now, and
        takes no more. Less is given once it has ENOUGH bytes.
        """
        ...

    def await_message(self, queues: Sequence[str], timeout: Span) -> bool:
        """Return True when `take` may find something, False after `timeout`.

        Returns early for a delayed message that comes due. Called from the thread that
        takes; `interrupt` ends it from any other.
        """
        ...

    def interrupt(self) -> None:
        """End an `await_message` that waits now, or the next one, from any thread."""
        ...

    def acknowledge(
        self, worker: str, done: Sequence[Done], send: Sequence[Outgoing] = ()
    ) -> None:
        """Settle these deliveries and send what follows from them, in one step.

        A delivery that is no longer in flight (its lease ran out) is passed over; what
        is to be sent is sent all the same.
        """
        ...

    def give_back(self, worker: str, deliveries: Sequence[Delivery]) -> None:
        """Give these back to the front of their queues, not counted as once more."""
        ...

    def delay(self, worker: str, delivery: Delivery, until: Instant) -> None:
        """Let the message wait in the broker, out of flight, until that instant."""
        ...

    def delayed(self, queues: Collection[str], limit: int) -> list[Delayed]:
        """Look at up to `limit` messages of these queues that wait, next one first.

        For people: what is further ahead than many others may be left out.
        """
        ...

    def bury(
        self,
        worker: str,
        delivery: Delivery,
        reason: str,
        task: str = "",
        task_id: str = "",
    ) -> None:
        """Move the message to the dead-letter queue, with what is known of it."""
        ...

    def recover(self) -> int:
        """Give back what workers whose lease ran out had in flight; say how many."""
        ...


class Subscription(Protocol):
    """What is said on one exchange, heard in one thread."""

    def wait(self, timeout: Span) -> list[bytes]:
        """Give what was said since the last call, in order; [] after `timeout`.

        The first call begins to listen, as does the next one after BrokerUnavailable:
        what is said in between is lost.
        """
        ...

    def interrupt(self) -> None:
        """End a `wait` that waits now, or the next one, from any thread."""
        ...

    def close(self) -> None:
        """Listen no more; called when nobody waits."""
        ...


@runtime_checkable
class Broadcast(Sender, Protocol):
    """What everybody hears who listens at that moment, and nobody keeps.

    To say something is to `send` it to a fan-out exchange.
    """

    def listen(self, queue: Queue) -> Subscription:
        """Hear what is said on the queue's exchange under its routing key.

        `#` and `*` in the key stand for any text, an empty key for an empty one. The
        queue is declared each time that listening begins, and holds no messages.
        """
        ...

    def ask(self, question: Outgoing, answers: Queue, timeout: Span) -> list[bytes]:
        """Say something, and give what comes to `answers` meanwhile.

        Returns when all who heard it have answered, or after `timeout`. The queue is
        declared before, and removed after.
        """
        ...


class DeadLetters(Protocol):
    """What workers have set aside, for people to decide about."""

    def dead_letters(self) -> list[DeadLetter]:
        """Give all of them, the oldest first."""
        ...

    def dead_message(self, letter: str) -> bytes | None:
        """Give the message of the letter with this id; None if there is none."""
        ...

    def retry_dead(self, letters: Collection[str]) -> int:
        """Put these back at the ends of their queues, as new; say how many it were."""
        ...

    def drop_dead(self, letters: Collection[str]) -> int:
        """Remove these for ever; say how many it were."""
        ...


class Broker(Lead, Emitter, Sender, Consumer, DeadLetters, Protocol):
    """All ports of one broker."""

    def ping(self) -> str:
        """Say in a few words who answers (`valkey 9.1`), for people."""
        ...

    def risks(self) -> list[str]:
        """Say what in its own settings may break what is promised here, for people."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...
