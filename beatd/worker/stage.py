"""Work that is done in batches, by a thread of its own, until it succeeds."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, TypeAlias, TypeVar

from beatd.errors import BeatdError
from beatd.instant import SECOND, Span

logger = logging.getLogger(__name__)

T = TypeVar("T")

BATCH = 500
"""Items in one step, which others may have to wait for."""

RETRY_FIRST, RETRY_LAST = SECOND // 10, SECOND
"""The pause after a failed try, doubled each time."""


@dataclass
class Outage:
    """A fault that lasts: said once when it begins, counted, and said when it ends.

    Several threads that meet the same fault may share one.
    """

    what: str
    """The words before the reason: `the broker is away`."""
    event: str
    since: float | None = field(default=None, init=False)
    tries: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def meet(self, error: BeatdError) -> None:
        """Take note of one failed try."""
        with self._lock:
            self.tries += 1
            if self.since is not None:
                return
            self.since = time.monotonic()
        logger.error("%s: %s", self.what, error, extra={"event": f"{self.event}.lost"})

    def end(self) -> None:
        """Take note of one try that succeeded."""
        if self.since is None:
            return
        with self._lock:
            if self.since is None:
                return
            seconds, tries = time.monotonic() - self.since, self.tries
            self.since, self.tries = None, 0
        logger.warning(
            "over after %.1f s and %d tries: %s",
            seconds,
            tries,
            self.what,
            extra={"event": f"{self.event}.back"},
        )


class Backoff:
    """How long to wait before the next try; a success makes it short again."""

    def __init__(self, first: Span = RETRY_FIRST, last: Span = RETRY_LAST) -> None:
        self._first = self._next = max(min(first, last), 1)  # never none at all
        self._last = max(last, 1)

    def lengthen(self) -> float:
        """Give the pause after one more failed try, in seconds."""
        pause, self._next = self._next, min(2 * self._next, self._last)
        return pause / SECOND

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._next = self._first


OnCrash: TypeAlias = Callable[[BaseException], object]
"""Called in a thread that ends for a reason nobody foresaw."""


def spawn(name: str, target: Callable[[], None], on_crash: OnCrash) -> threading.Thread:
    """Start a thread; its unforeseen end is told, for the worker to end as well."""

    def run() -> None:
        try:
            target()
        except BaseException as error:
            on_crash(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


class BatchWorker(Generic[T]):
    """Hands what is put in to `work`, in order and in batches.

    A batch for which `work` raises one of `faults` is handed to it again, as it was.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], None],
        faults: type[BeatdError],
        trouble: Outage,
        pause: Backoff | None = None,
    ) -> None:
        self._work = work
        self._faults = faults
        self._trouble = trouble
        self._items: SimpleQueue[T | None] = SimpleQueue()
        self._ended = False
        self._batch: list[T] = []
        self._pause = pause or Backoff()
        self._give_up = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, item: T) -> None:
        """Have this done, some time soon."""
        self._items.put(item)

    @property
    def waiting(self) -> int:
        """How many items nobody has looked at yet."""
        return self._items.qsize()

    def start(self, name: str, on_crash: OnCrash) -> None:
        """Begin to work, in a thread."""
        self._thread = spawn(name, self._run, on_crash)

    def stop(self, patience: Span) -> bool:
        """Do what was put in before, for no longer than `patience`; say if it is done.

        Called when nobody puts anything in any more.
        """
        if self._thread is None:
            return True
        self._items.put(None)
        self._thread.join(patience / SECOND)
        done = not self._thread.is_alive()
        self._give_up.set()
        self._thread.join()
        return done

    def turn(self) -> bool:
        """Do what lies ready, here and now; say whether there was anything.

        What `work` raises comes out of here; the batch is kept for the next turn.
        """
        if not self._batch:
            self._fill()
        if not self._batch:
            return False
        self._work(self._batch)
        self._batch = []
        return True

    def _run(self) -> None:
        while not self._ended:
            self._take(self._items.get())
            self._fill()
            while self._batch and not self._give_up.is_set():
                self._try()

    def _try(self) -> None:
        try:
            self.turn()
        except self._faults as error:
            self._trouble.meet(error)
            self._give_up.wait(self._pause.lengthen())
        else:
            self._trouble.end()
            self._pause.reset()

    def _fill(self) -> None:
        """Take into the batch what lies ready."""
        with suppress(Empty):
            while len(self._batch) < BATCH and not self._ended:
                self._take(self._items.get_nowait())

    def _take(self, item: T | None) -> None:
        if item is None:
            self._ended = True
        else:
            self._batch.append(item)
