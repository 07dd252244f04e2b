"""Simulated time: what happens next, in an order that the seed alone decides.

Everything runs in one thread. A process of the simulated service is a greenlet; where
the real one would wait (for time, or for an answer), it hands control back to the world
and goes on when the world's clock shows that instant.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from queue import SimpleQueue
from random import Random
from typing import TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from beatd.clock import Wake
from beatd.instant import Instant, Span

T = TypeVar("T")


class World:
    """The heap of events. Events of one instant come in an order drawn by the seed."""

    def __init__(self, seed: int, begin: Instant) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.begin = self.now = begin
        self.hub = getcurrent()
        self._events: list[tuple[Instant, float, int, Callable[[], object]]] = []
        self._number = count()
        self._until = begin

    def at(self, instant: Instant, action: Callable[[], object]) -> None:
        """Have `action` called, in the hub, when the clock shows `instant`."""
        place = max(instant, self.now), self.random.random(), next(self._number)
        heappush(self._events, (*place, action))

    def after(self, span: Span, action: Callable[[], object]) -> None:
        """Have `action` called, in the hub, after so much time."""
        self.at(self.now + span, action)

    def run(self, until: Instant) -> None:
        """Let everything happen up to this instant."""
        self._until = until
        while self._events and self._events[0][0] <= until:
            self.now, _, _, action = heappop(self._events)
            action()
        self.now = until

    def skip(self, span: Span) -> bool:
        """Let so much time pass at once, if nothing is to happen within it."""
        instant = self.now + span
        if instant > self._until or (self._events and self._events[0][0] <= instant):
            return False
        self.now = instant
        return True

    def nonce(self) -> str:
        """Return what a process would draw at random."""
        return f"{self.random.getrandbits(64):016x}"

    def below(self, span: Span) -> Span:
        """Draw a span below this one: as `randrange` does, in a third of its time."""
        return int(self.random.random() * span)

    def chance(self, probability: float) -> bool:
        """Return True as often as that."""
        return self.random.random() < probability


class Process:
    """Greenlets that end, stand still and go on together, as threads of one process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.alive = True
        self.began = world.now
        self.heard: Instant = world.now
        """When it was last answered, and knows what had happened by then."""
        self._stands_until: Instant = 0
        self._greenlets: list[greenlet] = []
        self._naps: list[Nap] = []

    def spawn(self, main: Callable[[], object]) -> None:
        """Begin `main` in a greenlet of this process, now."""
        one = greenlet(main, parent=self.world.hub)
        one.process = self
        self._greenlets = [*(old for old in self._greenlets if not old.dead), one]
        self.world.at(self.world.now, lambda: self._go_on(Nap(one)))

    def sleep(self, span: Span, *, may_be_woken: bool = False) -> None:
        """Let so much time pass for this greenlet, or more if the process is paused."""
        self.rest(self._naps if may_be_woken else [], span)

    def rest(self, sleepers: "list[Nap]", span: Span | None) -> None:
        """Sleep among those that `rouse` wakes together; None: until it does."""
        self.check()
        # Most naps are short, and the others sleep: no need to switch to them and back.
        awake = self._stands_until <= self.world.now
        if span is not None and awake and self.world.skip(span):
            return
        nap = Nap(getcurrent())
        sleepers[:] = [*(one for one in sleepers if not one.is_over), nap]
        if span is not None:
            self.world.after(span, lambda: self._go_on(nap))
        self.world.hub.switch()
        self.check()

    def wake(self) -> None:
        """End the sleep of those greenlets that may be woken."""
        self.rouse(self._naps)

    def rouse(self, sleepers: "list[Nap]") -> None:
        """End the sleep of these."""
        for nap in sleepers:
            self.world.after(0, lambda nap=nap: self._go_on(nap))  # type: ignore[misc]
        sleepers.clear()

    def check(self) -> None:
        """Let nothing more be done by a process that has died, not even its ends."""
        if not self.alive:
            raise GreenletExit

    def pause(self, span: Span) -> None:
        """Stand still for so long, as after SIGSTOP; the clocks go on."""
        self._stands_until = max(self._stands_until, self.world.now + span)

    def kill(self) -> None:
        """Die, as by SIGKILL: no greenlet does anything more."""
        self.alive = False
        greenlets, self._greenlets = self._greenlets, []
        for one in greenlets:
            one.throw(GreenletExit)

    def _go_on(self, nap: "Nap") -> None:
        if nap.is_over or not self.alive:
            return
        if self.world.now < self._stands_until:
            self.world.at(self._stands_until, lambda: self._go_on(nap))
            return
        nap.is_over = True
        nap.sleeper.switch()


class Nap:
    """A greenlet that sleeps."""

    def __init__(self, sleeper: greenlet) -> None:
        self.sleeper = sleeper
        self.is_over = False


def present_process() -> Process:
    """Return the process whose greenlet asks."""
    process: Process = getcurrent().process
    return process


class HostClock:
    """The clocks of one host, as one of its processes reads them."""

    def __init__(self, process: Process, skew: Callable[[], Span]) -> None:
        """`skew` is how far the host's wall clock is ahead of the world's."""
        self._process = process
        self._skew = skew

    def now(self) -> Instant:
        return self._process.world.now + self._skew()

    def elapsed(self) -> Span:
        return self._process.world.now - self._process.began

    def wait(self, inbox: SimpleQueue[Wake], until: Instant, at_most: Span) -> Wake:
        return self.wait_for(inbox, min(until - self.now(), at_most), Wake.ON_TIME)

    def wait_for(self, inbox: SimpleQueue[T], span: Span, otherwise: T) -> T:
        """Return what comes into the inbox within `span`, else `otherwise`."""
        if inbox.empty():
            self._process.sleep(max(span, 0), may_be_woken=True)
        return otherwise if inbox.empty() else inbox.get_nowait()
