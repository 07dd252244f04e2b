"""What a broker promises to its callers.

One class may be all of these ports; each caller sees only its own:

Lead           scheduler/leadership  the right to emit
HistoryKeeper  scheduler/chronicle   what became of each slot
NoteKeeper     alerts/journal        what else has to outlive the process that leads
Emitter        scheduler/loop        messages, ledger and history, in one step
Publisher      split                 messages of emissions, where no step writes both
SplitLedger    split                 lead and ledger, apart from the messages
Sender         app, worker           messages that are in no ledger
Consumer       worker                deliveries under a lease
DeadLetters    cli/dead              what workers have set aside
Observed       service/status        what lies there and who takes it, for people
Broadcast      control/pidbox        messages to all listeners, where a broker has that
Guarded        cli/probes            what our user may do, where a server bounds that
FileBroker     service/other_side    a broker that is a file of this host
Restorer       worker/restoring      what Celery's workers left, where they share it

Every method may raise BrokerUnavailable: no answer came, and the request may or may not
have been done. Calling again with the same arguments is safe, except for `Sender.send`,
which may then send twice. Its subclass BrokerRefused means that the broker answered,
and that somebody has to mend it first (read-only, out of memory, no permission). No
socket waits longer than its time-out.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from beatd.brokers.items import (
    Act,
    Answer,
    DeadLetter,
    Delayed,
    Delivery,
    Emission,
    Emitted,
    Forbidden,
    HeldLead,
    Outgoing,
    Overview,
    Promise,
    Suspects,
    Term,
    idle,
    pass_over,
)
from beatd.instant import Instant, Span
from beatd.routing import Queue
from beatd.timetable.imprint import Imprint
from beatd.timetable.ledger import Edition, LedgerCopy, Mark
from beatd.timetable.pages import Page


class Lead(Protocol):
    """The right to emit: one holder at a time."""

    lead_outlives_data: bool
    """Whether who leads is still known when the broker has lost its data: then whoever
    has the lead is alone, and otherwise a former leader may not know yet."""

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | HeldLead:
        """Take the lead if nobody holds it; return the term, or who holds it.

        The term's number is above `floor` and above those of all terms before.
        `holder` names the caller for people.
        """
        ...

    def last_resigned(self) -> Term | None:
        """Return the last term that was given back; None if that is not known."""
        ...

    def renew(self, term: Term, ttl: Span) -> bool:
        """Hold the lead for `ttl` from now on; False if the term is over."""
        ...

    def resign(self, term: Term) -> None:
        """Give the lead back and wake all standbys; do nothing if the term is over."""
        ...

    def let_go(self) -> None:
        """Let go of the lead without a request to the broker, and without an error.

        A lock with a time to live then runs out by itself.
        """
        ...

    def time(self) -> Instant:
        """Return what the broker's clock shows."""
        ...

    def leader(self) -> str | None:
        """Return the holder's name, as given to `acquire`; None when nobody leads."""
        ...

    def announce(self, term: Term, imprint: Imprint) -> None:
        """Let other schedulers know what the leader emits, for as long as it leads.

        Raises TermOver, having done nothing, if `term` is not the leader's.
        """
        ...

    def announced(self, unless: str = "") -> Imprint | None:
        """Return what the process that leads has announced under its term.

        None when nobody leads, when it has not announced anything, and when that has
        the digest `unless`.
        """
        ...

    def stand_by(self, holder: str, digest: str, unless: str = "") -> Imprint | None:
        """Return what `announced` does; let people see that `holder` stands by.

        `digest` stands for its entries. The mark lasts STANDBY_LASTS, in
        `Observed.overview`; that it cannot be left holds up nothing.
        """
        ...

    def await_release(self, timeout: Span) -> bool:
        """Return True as soon as the lead was given back, False after `timeout`.

        A lead that was free all the time was not given back. Called from a thread of
        its own, beside the other methods.
        """
        ...


class HistoryKeeper(Protocol):
    """The history that lies beside the ledger: new pages, and rows by entry.

    `emit` and `write_ledger` add the pages. At most MOST_PAGES are kept: the oldest go
    first, and are missed by their numbers.
    """

    def read_history(self) -> tuple[dict[str, bytes], list[Page]]:
        """Return all rows, and all pages that are not folded into them yet."""
        ...

    def read_pages(self, limit: int) -> list[Page]:
        """Return up to `limit` of the pages, the oldest first."""
        ...

    def fold_pages(
        self, term: Term, upto: int, rows: Mapping[str, bytes], gone: Collection[str]
    ) -> None:
        """Set these rows, remove those of `gone`, and the pages up to that number.

        Does nothing if none of these pages is there any more: then it was done before,
        and more since. Raises TermOver, having done nothing, if `term` is not the
        leader's.
        """
        ...


class NoteKeeper(Protocol):
    """Small notes by name, in books of their own, beside the ledger."""

    def read_notes(self, book: str) -> dict[str, bytes]:
        """Return all notes of a book."""
        ...

    def write_notes(
        self,
        book: str,
        notes: Mapping[str, bytes],
        gone: Collection[str] = (),
        term: Term | None = None,
    ) -> None:
        """Remove the notes of `gone`, and set these, in one step.

        Raises TermOver, having done nothing, if a term is given that is not the
        leader's.
        """
        ...


class Emitter(HistoryKeeper, Protocol):
    """Messages, ledger and history, written in one step under a term."""

    def emit(
        self,
        term: Term,
        batch: Sequence[Emission],
        ttl: Span,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> list[Emitted]:
        """Queue each emission that the ledger does not know, in one atomic step.

        It makes the ledger `edition`; the next emission is to make the following one.

        An emission is known when the ledger's row has its slot or a later one. One that
        is refused holds up no other but the later ones of its entry, which are refused
        with it: the row must not pass its slot. A message that is refused by one of its
        places lies in none of them. What has a route that reaches no queue is no run:
        the row's runs and last slot stay as they were. The batch is bounded by the
        caller. Renews the lead for `ttl` in the same step.

        Unless all of them are known, `page` is added to the pages of the history, with
        a letter for each emission before it (`timetable.pages.Page`).

        Raises TermOver, having queued nothing, if `term` is not the leader's, and
        LedgerMoved if the ledger is neither one version below `edition` nor, after a
        lost answer, at it: set back, or another one. Without `edition` it may be any.
        """
        ...

    def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        """Return every row, the clock era (0 at first), and the edition.

        The rows are at least as new as the edition.

        Calls `on_part` again and again, where reading may take as long as a lead lives.
        """
        ...

    def write_ledger(
        self,
        term: Term,
        marks: Mapping[str, Mark],
        gone: Collection[str],
        era: int,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> None:
        """Remove the rows of `gone`, set these whatever they were, set the era.

        A row that is removed and set is never missing in between.

        Then makes the ledger `edition`, whatever it was. None leaves it as it is: what
        is written in several parts is whole only with the last one. `page` is added to
        the pages of the history.

        The current runs of `gone` are forgotten, too. Raises TermOver, having written
        nothing more, if `term` is not the leader's.
        """
        ...

    def running(self, entries: Collection[str]) -> dict[str, str]:
        """Return by entry the task id of its current run, if that has not ended."""
        ...

    def end_runs(self, runs: Mapping[str, str]) -> None:
        """Forget these runs (entry to task id), each if it is the entry's current one.

        Until then an overlap rule holds or drops the entry's slots.
        """
        ...

    def held_runs(self, runs: Collection[str]) -> set[str]:
        """Return those of these task ids that a worker holds under its lease.

        They are in flight, or were acknowledged by `Begin`. All that is in flight is
        looked through: this is to be asked seldom.
        """
        ...


class Publisher(Protocol):
    """Messages of emissions, where their ledger is written in another step."""

    def publish(self, batch: Sequence[Emission]) -> list[Emitted]:
        """Put each on its queues, and return when all that is not refused is safe.

        Raises BrokerUnavailable if that is unknown for any. Called again with the same
        emissions, it does not send those again of which it is known, until `forget`.
        DROPPED is one whose exchange reaches no queue.
        """
        ...

    def forget(self, batch: Sequence[Emission]) -> None:
        """Remember no more that these were sent: the ledger has them, or refused."""
        ...


class SplitLedger(Lead, HistoryKeeper, Protocol):
    """Lead and ledger, apart from the messages."""

    def known(
        self, term: Term, batch: Sequence[Emission], edition: Edition | None
    ) -> list[bool]:
        """Return for each emission whether the ledger has its slot, or a later one.

        Raises what `Emitter.emit` raises before anything is done.
        """
        ...

    def note(
        self,
        term: Term,
        batch: Sequence[Emission],
        outcomes: Sequence[Emitted],
        edition: Edition | None,
        page: bytes,
    ) -> None:
        """Do to the ledger and the history what `Emitter.emit` does to them.

        The outcomes are what became of the messages. Raises TermOver and
        BrokerUnavailable: then the messages are sent, and the ledger does not know.
        """
        ...


class Sender(Protocol):
    """Messages that are in no ledger: calls by users, retries, call-backs."""

    def declare(self, queues: Collection[Queue]) -> None:
        """Make the queues and their bindings known, as Celery's producers do."""
        ...

    def purge(self, queues: Collection[str]) -> int:
        """Remove all messages in these queues, of any priority; return their number.

        The runs of the messages that are removed end. Messages in flight, and those
        that wait for their time, stay.
        """
        ...

    def send(self, batch: Sequence[Outgoing]) -> None:
        """Put all of them on their queues, in order, in one step.

        Called again after a lost answer, it may put them there twice: a message that is
        sent again looks like another one of the same content.
        """
        ...


class Consumer(Protocol):
    """Deliveries to one worker, under its lease.

    A message that is taken stays in the worker's in-flight set until it is settled. A
    worker whose lease ran out is dead: `recover`, called by any other worker, puts the
    dead worker's messages back to the fronts of their queues. It counts the delivery of
    all but those whose runs had ended (`reclaim`): any of the others may have killed
    the worker. Runs that the dead worker had begun (`Begin`) are over.
    """

    def join(self, worker: str, lease: Span, queues: Collection[str] = ()) -> None:
        """Begin a lease under this name, which is unique to the process.

        `queues` are those that the worker takes from, for `Observed`: `take` may be
        asked for others. Called again it makes the lease longer, as `stay` does, and
        the queues are others.
        """
        ...

    def stay(self, worker: str, lease: Span) -> bool:
        """Hold the lease for `lease` from now on (the heartbeat); False if it is over.

        A lease is over once `recover` found that it had run out, and gave the worker's
        messages back. Before that it can be made longer, however late. Called several
        times within `lease`, from a thread of its own.
        """
        ...

    def reclaim(
        self,
        worker: str,
        held: Collection[str],
        request: int,
        ended: Collection[str] = (),
    ) -> int:
        """Put back what lies in flight under a worker that does not know of it.

        That is what was taken by its requests before `request`, and is not among the
        tokens `held`: from a broker that was set back to a snapshot, say. It goes to
        the fronts of the queues and is not counted as a delivery; runs that were begun
        (`Begin`) are over. Returns the number of messages. Called with each heartbeat.

        `ended` are those of `held` whose runs have ended, and which only wait to be
        settled. Until the next such request they are no suspects if the worker dies.
        """
        ...

    def leave(self, worker: str) -> None:
        """End the lease and put everything in flight back to the queues' fronts.

        For a graceful stop: the deliveries are not counted.
        """
        ...

    def take(
        self,
        worker: str,
        queues: Sequence[str],
        limit: int,
        request: int,
        on_refused: Callable[[str, str], object] = pass_over,
        suspects: Suspects = Suspects.ALONE,
        together: int = 1,
        on_held_back: Callable[[], object] = idle,
    ) -> list[Delivery]:
        """Move up to `limit` messages into the worker's in-flight set; never wait.

        Order: priority steps first, then `queues` in the order given. Messages whose
        delay is over go to the fronts of their queues first, the earliest in front.
        `request` is a number above 0 that grows with each of these requests of one
        worker. A request that is made again with the same number, because its answer
        was lost, returns the same deliveries, whatever the limit is by now, and takes
        no more; one with a smaller number comes too late, and takes nothing. After
        ENOUGH bytes, no further message is taken.

        A queue that the broker refuses (it is of a wrong type, or forbidden) is passed
        over and holds up no other: `on_refused` is called with its name and the reason.

        A message that a worker died with (`Delivery.deliveries` is above 1) is a
        suspect, and is never taken together with another message: so nothing that is
        taken with it is counted with it when it kills again. Only of those with which
        one worker has died, up to `together` are taken together. Unless they are passed
        over, suspects end what is taken before them. What is in flight and has ended
        (`reclaim`) is no company for them. `on_held_back` is called when nothing is
        taken because of suspects: `await_message` would not wait then.
        """
        ...

    def await_message(self, queues: Sequence[str], timeout: Span) -> bool:
        """Return True when `take` may find something, False after `timeout`.

        Returns early for a delayed message that comes due; and, where the broker cannot
        tell, at once for a queue that it refuses. Called from the thread that
        takes; `interrupt` ends it from any other.
        """
        ...

    def interrupt(self) -> None:
        """End an `await_message` that waits now, or the next one, from any thread."""
        ...

    def settle(
        self,
        worker: str,
        acts: Sequence[Act],
        sends: Sequence[Outgoing],
        request: int,
    ) -> list[Answer]:
        """Send these messages and do these acts in one step; return an answer for each.

        A delivery that is not in flight any more (its lease ran out, say) is passed
        over, but for one that was acknowledged and is set aside with its `way_back`;
        the messages are sent all the same. An act that is refused holds up no
        other act. GiveBack acts are done last and in reverse order, so that the first
        of them ends up in front of its queue.

        `request` is a number that grows with each request of one worker. A request that
        is made again with the same number, because its answer was lost, does nothing
        more and has the same answers; one with a smaller number comes too late, and
        does nothing. That holds for an hour after the lease has ended, too: copies may
        still be under way. A request of nothing but `Acknowledge` may be carried out
        again all the same: its deliveries are GONE by then.

        Raises BrokerRefused, having done nothing, when any of the messages is refused:
        the request may be made again, as it was or in parts.
        """
        ...

    def delayed(self, queues: Collection[str], limit: int) -> list[Delayed]:
        """Return up to `limit` delayed messages of these queues, the next one first.

        For people: where very many wait, those due later may be left out.
        """
        ...

    def recover(self) -> int:
        """Put back what dead workers had in flight; return the number of messages.

        One worker after the other, in the order in which their leases ended. Where the
        data were set back, as is seen by a lease older than any at the last look, each
        lease lasts its whole length again: its worker may live.
        """
        ...


class Subscription(Protocol):
    """Receives the messages that are published on one exchange, in one thread."""

    def wait(self, timeout: Span) -> list[bytes]:
        """Return the messages since the last call, in order; [] after `timeout`.

        Listening begins with the first call, and again with the next call after
        BrokerUnavailable: what is published in between is lost.
        """
        ...

    def interrupt(self) -> None:
        """End a `wait` that waits now, or the next one, from any thread."""
        ...

    def close(self) -> None:
        """Stop listening; called when no thread is in `wait`."""
        ...


@runtime_checkable
class Broadcast(Sender, Protocol):
    """Messages that reach all listeners of that moment, and are kept for no others.

    They are published by `send`, to a fan-out exchange.
    """

    def listen(self, queue: Queue) -> Subscription:
        """Return a subscription to the queue's exchange under its routing key.

        `#` and `*` in the key stand for any text, an empty key for an empty one. The
        queue is declared each time that listening begins, and holds no messages.
        """
        ...

    def ask(self, question: Outgoing, answers: Queue, timeout: Span) -> list[bytes]:
        """Publish a message, and return the messages that come to `answers`.

        Returns when all receivers have answered, or after `timeout`. The queue is
        declared before that, and removed after it.
        """
        ...


@runtime_checkable
class Guarded(Protocol):
    """A server that permits its users only some things."""

    @property
    def user(self) -> str:
        """The name of our user there."""
        ...

    def forbidden(self, queues: Collection[Queue]) -> list[Forbidden]:
        """Return what our user is forbidden that is needed, also for these queues.

        Nothing is left there, and nobody is told anything.
        """
        ...


@runtime_checkable
class FileBroker(Lead, Protocol):
    """A broker in a file of this host, which only beatd's own processes use."""

    @property
    def place(self) -> Path:
        """The file, by its whole path."""
        ...

    def is_unattended(self) -> bool:
        """Return whether messages lie ready, and no worker has a lease."""
        ...


@runtime_checkable
class Restorer(Protocol):
    """What Celery's workers hold, in a broker that they share with beatd's."""

    restore_interval: Span
    """How often to call `restore_unacked`."""

    def restore_unacked(self) -> int:
        """Put back what Celery's workers have held for too long; return the number.

        There may be more until it returns 0. What cannot be put back is said once, is
        left as it is, and holds up nothing else. Several workers may call it.
        """
        ...


class DeadLetters(Protocol):
    """The messages that workers have set aside, for people to decide about."""

    def dead_letters(self) -> list[DeadLetter]:
        """Return all of them, the oldest first."""
        ...

    def dead_message(self, letter: str) -> bytes | None:
        """Return the message of the letter with this id; None if there is none."""
        ...

    def retry_dead(
        self,
        letters: Collection[str],
        on_refused: Callable[[str, str], object] = pass_over,
    ) -> int:
        """Put these at the ends of their queues, as new ones; return their number.

        One that its queue refuses stays, and holds up no other: `on_refused` is called
        with its id and the reason.
        """
        ...

    def drop_dead(self, letters: Collection[str]) -> int:
        """Remove these for ever; return their number."""
        ...


class Observed(Protocol):
    """What lies in the broker and who takes it, for people: asked seldom."""

    def overview(self, queues: Collection[str]) -> Overview:
        """Return the state of these queues, of workers with leases, and of standbys.

        A queue that is refused holds up no other. Nothing is changed, and the parts are
        not of one moment.
        """
        ...

    def waiting(self, queue: str, limit: int) -> list[bytes]:
        """Return up to `limit` messages of a queue, the next to be taken first.

        What a worker holds, or waits for its time, is not among them.
        """
        ...


class SendingBroker(Lead, Emitter, NoteKeeper, Sender, Observed, Protocol):
    """All that a scheduler and a client need of a broker."""

    promise: Promise
    """How often a slot comes, whatever happens."""

    def ping(self) -> str:
        """Return in a few words what server answers (`valkey 9.1`), for people."""
        ...

    def risks(self) -> list[str]:
        """Return for people what in its settings may break these promises."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...


@runtime_checkable
class Broker(SendingBroker, Consumer, DeadLetters, Protocol):
    """All ports of one broker: workers take from it, too."""
