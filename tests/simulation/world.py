"""The one true time, and the processes that wait in it."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random

from greenlet import GreenletExit, getcurrent, greenlet

from beatd.clock import Wake
from beatd.instant import Instant, Span


class World:
    """Runs one event after another; time passes only between them."""

    def __init__(self, seed: int, start: Instant) -> None:
        self.rng = Random(seed)
        self.start = self.now = start
        self._events: list[tuple[Instant, int, Callable[[], object]]] = []
        self._ties = count()
        self._hub = getcurrent()

    def at(self, instant: Instant, event: Callable[[], object]) -> None:
        """Have `event` happen at this instant, or now if that has passed."""
        heappush(self._events, (max(instant, self.now), next(self._ties), event))

    def run(self, until: Instant) -> None:
        """Let everything happen up to this instant."""
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heappop(self._events)
            event()
        self.now = until

    def hand_over(self) -> None:
        """Let the other processes run; returns when somebody resumes this one."""
        self._hub.switch()


class Process:
    """What runs on a node: it lives until it ends or crashes, and may be paused."""

    def __init__(self, world: World, run: Callable[[], object]) -> None:
        self._world = world
        self._greenlet = greenlet(run)
        self._waits = 0
        """Numbers the waits: an event that is to end an earlier one does nothing."""
        self._wakes = False
        self._paused_until: Instant = 0
        self.is_alive = True
        self._wake_at(world.now)

    def pause(self, until: Instant) -> None:
        """Let the process do nothing until then, as SIGSTOP and SIGCONT do."""
        self._paused_until = max(self._paused_until, until)

    def crash(self) -> None:
        """Let the process do nothing any more, not even its clean-up."""
        self.is_alive = False

    def sleep(self, until: Instant, *, wakes: bool = False) -> None:
        """Wait, in the process itself, until this instant of true time.

        With `wakes`, a call of `wake` ends it sooner.
        """
        self._waits += 1
        self._wakes = wakes
        self._wake_at(until)
        if self.is_alive:
            self._world.hand_over()
        if not self.is_alive:
            # Only met when Python clears the greenlet of a crashed process away.
            raise GreenletExit

    def wake(self) -> None:
        """End the present sleep now, if it is one that wakes."""
        if self._wakes:
            self._wake_at(self._world.now)

    def _wake_at(self, instant: Instant) -> None:
        number = self._waits
        self._world.at(instant, lambda: self._resume(number))

    def _resume(self, number: int) -> None:
        if not self.is_alive or number != self._waits:
            return
        if self._paused_until > self._world.now:
            self._wake_at(self._paused_until)
            return
        self._waits += 1
        self._greenlet.switch()
        if self._greenlet.dead:
            self.is_alive = False


class Inbox:
    """The inbox of a process: a SimpleQueue whose `put` wakes it."""

    def __init__(self) -> None:
        self.items: list[object] = []
        self.on_put: Callable[[], object] = lambda: None

    def put(self, item: object) -> None:
        self.items.append(item)
        self.on_put()


class NodeClock:
    """The clocks of one node: its wall clock may be wrong, and may be stepped."""

    def __init__(self, world: World, off: Span = 0) -> None:
        self._world = world
        self.off = off
        """How far the wall clock is ahead of the true time."""
        self.process: Process | None = None

    def now(self) -> Instant:
        return self._world.now + self.off

    def elapsed(self) -> Span:
        return self._world.now - self._world.start

    def wait(self, inbox: Inbox, until: Instant) -> object:
        """Return what the inbox holds, or ON_TIME when so much time has passed."""
        assert self.process
        end = self._world.now + until - self.now()
        while not inbox.items and self._world.now < end:
            self.process.sleep(end, wakes=True)
        return inbox.items.pop(0) if inbox.items else Wake.ON_TIME
