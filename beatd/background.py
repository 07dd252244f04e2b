"""Work in threads beside a loop: its steps, its retries and its stop."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, TypeAlias, TypeVar

from beatd.clock import Clock, SystemClock
from beatd.errors import BeatdError, BrokerRefused, ItemRefused, NoThread
from beatd.event_log import EventLog
from beatd.instant import MINUTE, SECOND, Span
from beatd.text import counted

tell = EventLog(__name__)

T = TypeVar("T")

BATCH = 500
"""Items in the largest batch: others may have to wait until it is done."""

RETRY_FIRST, RETRY_LAST = SECOND // 10, SECOND
"""The shortest and the longest rest after a failed try; it is doubled each time."""

OWN_AFTER: Span = 5 * SECOND
"""How long a part of a server is away before that counts as a fault of its own."""

Step: TypeAlias = Callable[[], Span | None]
"""Does one turn of a service's work, and may wait inside for something to do.

Returns how long to rest before the next step; None when there will be no more to do.
"""

OnCrash: TypeAlias = Callable[[BaseException], object]
"""Called in a thread that ends by an unforeseen error."""


@dataclass
class Outage:
    """A fault that lasts: logged when it begins and when it ends, counted in between.

    Several threads that meet the same fault may share an Outage.
    """

    what: str
    """What is logged before the reason: `the broker is away`."""
    event: str
    clock: Clock = field(default_factory=SystemClock)
    meanwhile: str = ""
    """What is logged after the reason: what goes on, and how."""
    part_of: "Outage | None" = None
    """That of the whole server: while it lasts, this part of it says nothing."""
    since: Span | None = field(default=None, init=False)
    tries: int = field(default=0, init=False)
    reason: str = field(default="", init=False)
    """Why the last try failed; empty while there is no fault."""
    _is_said: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def meet(self, error: BeatdError) -> None:
        """Take note of one failed try."""
        with self._lock:
            self.tries += 1
            self.reason = str(error)
            if self.since is None:
                self.since = self.clock.elapsed()
            if self._is_said or not self._is_of_this_part(error, self.since):
                return
            self._is_said = True
        more = f"; {self.meanwhile}" if self.meanwhile else ""
        tell.error(f"{self.event}.lost", "%s: %s%s", self.what, error, more)

    def end(self) -> None:
        """Take note of one try that succeeded."""
        if self.since is None:
            return
        with self._lock:
            if self.since is None:
                return
            lasted, tries = self.clock.elapsed() - self.since, self.tries
            self.since, self.tries, self.reason = None, 0, ""
            was_said, self._is_said = self._is_said, False
        if not was_said:
            return
        tell.warning(
            f"{self.event}.back",
            "over after %.1f s and %s: %s",
            lasted / SECOND,
            counted(tries, "try"),
            self.what,
        )

    def _is_of_this_part(self, error: BeatdError, since: Span) -> bool:
        """Return whether a fault that began then is not that of the whole server."""
        if self.part_of is None or isinstance(error, BrokerRefused):
            return True
        if self.part_of.since is not None:
            return False
        # The other threads, which ask the same server, would have met it by now.
        return self.clock.elapsed() - since >= OWN_AFTER


@dataclass
class Faults:
    """Faults of one kind: each is counted, and at most one a minute is said."""

    clock: Clock = field(default_factory=SystemClock)
    unsaid: int = field(default=0, init=False)
    _said_at: Span | None = field(default=None, init=False)

    def meet(self) -> int:
        """Count one more; return how many are to be said now, 0 for none."""
        self.unsaid += 1
        now = self.clock.elapsed()
        if self._said_at is not None and now < self._said_at + MINUTE:
            return 0
        self._said_at = now
        number, self.unsaid = self.unsaid, 0
        return number


class Backoff:
    """How long to rest before the next try; a success makes the rest short again."""

    def __init__(self, first: Span = RETRY_FIRST, last: Span = RETRY_LAST) -> None:
        self._first = self._next = max(min(first, last), 1)  # never 0
        self._last = max(last, 1)

    def lengthen(self) -> Span:
        """Return the rest after one more failed try."""
        rest, self._next = self._next, min(2 * self._next, self._last)
        return rest

    def reset(self) -> None:
        """Begin again with the shortest rest."""
        self._next = self._first


def retried(
    step: Step,
    faults: type[BeatdError],
    outage: Outage,
    backoff: Backoff | None = None,
) -> Step:
    """Return a step that, after one of `faults`, rests; the next step tries again."""
    backoff = backoff or Backoff()

    def one_try() -> Span | None:
        try:
            rest = step()
        except faults as error:
            outage.meet(error)
            return backoff.lengthen()
        if rest is not None:  # else nothing was tried
            outage.end()
            backoff.reset()
        return rest

    return one_try


class Halves(Generic[T]):
    """Does batches; one that is refused is halved until the item at fault stands alone.

    `work` raises ItemRefused, having done nothing, for a batch with such an item.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], object],
        on_refused: Callable[[T, ItemRefused], object],
    ) -> None:
        self._work = work
        self._on_refused = on_refused
        self._parts: list[Sequence[T]] = []
        """What is left to do of the batch that has begun."""

    def do(self, batch: Callable[[], Sequence[T]]) -> None:
        """Do the batch that `batch` returns.

        If `work` raises another error, the next call goes on with what is left, without
        another question for the batch: nothing is done or made twice.
        """
        if not self._parts and (items := batch()):
            self._parts = [items]
        while self._parts:
            self._parts[:1] = self._halves_after(self._parts[0])

    def _halves_after(self, part: Sequence[T]) -> list[Sequence[T]]:
        """Do a part; return the parts that are to be done in its place."""
        try:
            self._work(part)
        except ItemRefused as refusal:
            if half := len(part) // 2:
                return [part[:half], part[half:]]
            self._on_refused(part[0], refusal)
        return []


def do_in_halves(
    work: Callable[[Sequence[T]], object],
    batch: Sequence[T],
    on_refused: Callable[[T, ItemRefused], object],
) -> None:
    """Do one batch as `Halves` does; after an error it is begun anew."""
    Halves(work, on_refused).do(lambda: batch)


def start_thread(thread: threading.Thread) -> None:
    """Start a thread. Raises NoThread, with the way out."""
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThread(
            f"{error} ({thread.name}): the system lets this process have no more, or"
            " has no memory for one; raise the limit (`ulimit -u`, TasksMax= of a"
            " systemd unit, the pids of a container), or end what else needs threads"
        ) from error


class Service:
    """A thread that takes one step after another until it is stopped."""

    def __init__(
        self, step: Step, interrupt: Callable[[], object] = lambda: None
    ) -> None:
        """`interrupt` ends a wait inside the present step, or the next one."""
        self._step = step
        self._interrupt = interrupt
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, name: str, on_crash: OnCrash, rest: Span = 0) -> None:
        """Begin, in a thread of this name, and after this rest.

        `on_crash` is called with an unforeseen error, and is to end the process, too.
        Raises NoThread when the system has no thread left.
        """

        def run() -> None:
            try:
                self._run(rest)
            except BaseException as error:  # no thread ends in silence
                on_crash(error)

        thread = threading.Thread(target=run, name=name, daemon=True)
        start_thread(thread)
        self._thread = thread

    def stop(self) -> None:
        """Take no further step; wait until the present one has ended."""
        self.leave()
        if self._thread:
            self._thread.join()

    def leave(self) -> None:
        """Take no further step; the present one goes on for as long as it takes."""
        self._stopping.set()
        if self._thread:
            self._interrupt()

    def join(self, patience: Span) -> bool:
        """Wait up to `patience` until the thread has ended; return whether it has."""
        if self._thread is None:
            return True
        self._thread.join(patience / SECOND)
        return not self._thread.is_alive()

    def _run(self, rest: Span | None) -> None:
        while rest is not None and not self._must_stop_after(rest):
            rest = self._step()

    def _must_stop_after(self, rest: Span) -> bool:
        # A wait of no length costs as much as the step of a quick task.
        return self._stopping.wait(rest / SECOND) if rest else self._stopping.is_set()


class BatchWorker(Generic[T]):
    """Hands items to `work`, in order and in batches, in a thread.

    A batch for which `work` raises one of `faults` is handed to it again: unchanged, or
    with others behind, after `gather`.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], None],
        faults: type[BeatdError],
        outage: Outage,
        backoff: Backoff | None = None,
        linger: Span = 0,
    ) -> None:
        """`linger` is how long the first item waits for others to go with it."""
        self._work = work
        self._linger = linger
        self._items: SimpleQueue[Sequence[T]] = SimpleQueue()
        self._batch: list[T] = []
        """What was taken out of `_items`; it may be more than BATCH."""
        self._stopping = threading.Event()
        self._service = Service(retried(self._step, faults, outage, backoff))

    def put(self, *items: T) -> None:
        """Have these items handed to `work` soon: together, as far as there is room."""
        self._items.put(items)

    @property
    def waiting(self) -> int:
        """How many puts are not in a batch yet."""
        return self._items.qsize()

    def gather(self) -> Sequence[T]:
        """Return all items that `work` has not worked off, those in hand first.

        Only for `work` itself to call.
        """
        for _ in range(self._items.qsize()):  # nobody else takes items out
            self._take(self._items.get_nowait())
        return self._batch

    def start(self, name: str, on_crash: OnCrash) -> None:
        """Begin to work, in a thread."""
        self._service.start(name, on_crash)

    def stop(self, patience: Span) -> bool:
        """Work off what was put in, for up to `patience`; return whether all is done.

        Called when nothing is put in any more. If not all is done, the batch in hand is
        the last one, and `work` may be at it still.
        """
        self._stopping.set()
        self._items.put(())  # for a thread that waits for an item
        done = self._service.join(patience)
        self._service.leave()  # not stop: a result backend may take its time
        return done

    def turn(self) -> bool:
        """Work off one batch in this thread; return whether there was any.

        Raises what `work` raises; the batch is kept for the next turn.
        """
        if not self._batch:
            self._fill()
        if not self._batch:
            return False
        batch = self._batch[:BATCH]
        self._work(batch)
        del self._batch[: len(batch)]
        return True

    def _step(self) -> Span | None:
        if not self._batch and not self._stopping.is_set():
            self._take(self._items.get())
            if self._linger and self.waiting < BATCH:
                self._stopping.wait(self._linger / SECOND)
            self._fill()
        return 0 if self.turn() else None

    def _fill(self) -> None:
        """Add to the batch the items that lie ready."""
        with suppress(Empty):
            while len(self._batch) < BATCH:
                self._take(self._items.get_nowait())

    def _take(self, items: Sequence[T]) -> None:
        self._batch += items
