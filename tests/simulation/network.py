"""A broker as a node reaches it over a network that fails."""

from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any

from beatd.errors import BeatdError, BrokerUnavailable
from beatd.instant import SECOND, Instant
from tests.simulation.world import Process, World

TIMEOUT = 3 * SECOND
"""After which a node gives an answer up."""

LONGEST_HOLD = 40 * SECOND
"""How much later than its time-out a request may still be carried out."""


class Fate(Enum):
    """What becomes of one request."""

    DONE = "done"
    LOST = "lost"  # it never arrives
    UNANSWERED = "unanswered"  # it is carried out, and nobody hears of it
    HELD = "held"  # it is carried out long after its sender gave up


class Network:
    """What lies between the nodes and the broker; it is whole but for some times."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.down_until: Instant = 0
        """Until then nobody reaches the broker."""
        self.bad_until: Instant = 0
        """Until then requests meet all fates."""
        self.met: dict[Fate, int] = dict.fromkeys(Fate, 0)

    def fate(self) -> Fate:
        """Draw what becomes of a request made now."""
        rng = self._world.rng
        bad = self._world.now < self.bad_until and rng.random() < 0.3
        fate = rng.choice(list(Fate)) if bad else Fate.DONE
        self.met[fate] += 1
        return fate

    @property
    def is_down(self) -> bool:
        return self._world.now < self.down_until


class Remote:
    """The broker for one process: each call takes time, and meets its fate.

    Stands for whatever port the broker has: names and arguments are passed on.
    """

    def __init__(
        self,
        broker: Any,
        network: Network,
        world: World,
        process: Callable[[], Process],
    ) -> None:
        self._broker = broker
        self._network = network
        self._world = world
        self._process = process

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._broker, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(lambda: method(*args, **kwargs))

        return call

    def let_go(self) -> None:
        """Do nothing, as the broker in memory: no request is made."""

    def _call(self, request: Callable[[], Any]) -> Any:
        rng, process = self._world.rng, self._process()
        process.sleep(self._world.now + rng.randint(1, 5))
        if self._network.is_down:
            raise BrokerUnavailable("the broker is down")
        fate = self._network.fate()
        if fate is Fate.DONE:
            answer = request()
            process.sleep(self._world.now + rng.randint(1, 5))
            return answer
        if fate is Fate.UNANSWERED:
            _try(request)
        elif fate is Fate.HELD:
            later = self._world.now + rng.randint(1, TIMEOUT + LONGEST_HOLD)
            self._world.at(later, lambda: _try(request))
        process.sleep(self._world.now + TIMEOUT)
        raise BrokerUnavailable(f"no answer: the request was {fate.value}")


def _try(request: Callable[[], Any]) -> None:
    """Carry a request out that nobody waits for."""
    with suppress(BeatdError):  # the answer that nobody hears
        request()
