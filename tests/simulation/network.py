"""The broker's server, and the lines on which the processes of the service reach it."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from enum import Enum
from functools import partial
from typing import Any

from beatd.brokers.items import DONE, Act, Answer, Outgoing
from beatd.brokers.memory import MemoryBroker
from beatd.clock import Wake
from beatd.errors import BeatdError, BrokerUnavailable
from beatd.instant import SECOND, Instant, Span
from tests.simulation.world import Process, World

TIMEOUT: Span = 3 * SECOND
"""How long a request waits for its answer, as the sockets of the real brokers do."""

LONGEST_HELD: Span = 40 * SECOND
"""A proxy may hold a request for so long, and then deliver it all the same."""

_NOT_DATA = (
    *("_changed", "_clock", "_serial", "_nonces", "_leases", "world"),
    *("queued", "asking", "followed", "done", "mistaken", "leases_ended"),
)
"""What of the broker is not lost, or set back, with its data."""


FOLLOWING = "following"
"""The queue of what follows from runs."""


class Fate(Enum):
    """What becomes of one request."""

    ANSWERED = "answered"
    LOST = "lost"
    UNANSWERED = "unanswered"
    HELD = "held"


class ServerClock:
    """The clock of the broker's host, which is the world's."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> Instant:
        return self._world.now

    def elapsed(self) -> Span:
        return self._world.now

    def wait(self, inbox: object, until: Instant, at_most: Span) -> Wake:
        raise NotImplementedError("nobody waits in the server")


class Server(MemoryBroker):
    """The broker in memory, with a record of all that was ever queued."""

    def __init__(self, world: World) -> None:
        super().__init__(ServerClock(world), world.nonce)
        self.world = world
        self.queued: list[tuple[Instant, bytes, Process | None]] = []
        self.asking: Process | None = None
        """Whose request is executed; None if nobody hears the answer."""

        self.followed: list[tuple[Instant, bytes]] = []
        """Each message that followed from a run, and when it was sent."""
        self.done: list[tuple[Instant, str, bytes]] = []
        """When each act was done, which kind of act, and on which message."""
        self.mistaken: list[tuple[Instant, str, bytes]] = []
        """Those of these acts that were done to another message."""
        self.leases_ended: list[tuple[Instant, str]] = []
        """When it was found that a worker's lease had run out."""

    def _put(self, outgoing: Outgoing) -> bool:
        if outgoing.route.queue == FOLLOWING:
            # Nobody takes it.
            self.followed.append((self.world.now, outgoing.message))
            return True
        self.queued.append((self.world.now, outgoing.message, self.asking))
        return super()._put(outgoing)

    def _do(self, worker: str, act: Act) -> Answer:
        joined, token = self._workers.get(worker), act.delivery.token
        stored = joined.in_flight.get(token) if joined else None
        answer = super()._do(worker, act)
        if answer == DONE:
            kind, message = type(act).__name__, act.delivery.message
            self.done.append((self.world.now, kind, message))
            if stored and stored.message != message:
                self.mistaken.append(self.done[-1])
        return answer

    def recover(self) -> int:
        before = [*self._workers]
        number = super().recover()
        ended = [name for name in before if name not in self._workers]
        self.leases_ended += [(self.world.now, name) for name in ended]
        return number

    def snapshot(self) -> Mapping[str, Any]:
        """Return all data as they are now, to be set back to."""
        data = vars(self).items()
        return deepcopy({key: value for key, value in data if key not in _NOT_DATA})

    def set_back(self, data: Mapping[str, Any]) -> None:
        """Go on from these data."""
        self.__dict__.update(deepcopy(dict(data)))

    def lose_all(self) -> None:
        """Forget everything, like a server that comes back without its data."""
        self.set_back(Server(self.world).snapshot())


class Network:
    """Carries requests to the server, as well as the faults of the moment allow."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = Server(world)
        self.is_down = False
        self.latency: Span = 2
        self.draw: Callable[[Process], Fate] = lambda process: Fate.ANSWERED
        """Returns what becomes of the next request of a process."""
        self.execute: Callable[..., Any] = self._execute
        """Has the server do what a request asks for, by the name of a port's method."""

    def request(self, process: Process, name: str, *args: Any, **named: Any) -> Any:
        """Make one request of a process, and return or raise what comes of it."""
        execute = partial(self.execute, name, *args, **named)
        process.check()
        fate = self.draw(process)
        process.sleep(self._latency())
        if self.is_down:
            raise BrokerUnavailable("the connection is refused")
        match fate:
            case Fate.LOST:
                process.sleep(TIMEOUT)
            case Fate.UNANSWERED:
                self._execute_unheard(execute)
                process.sleep(TIMEOUT)
            case Fate.HELD:
                held = self.world.random.randrange(TIMEOUT, LONGEST_HELD)
                self.world.after(held, lambda: self._execute_unheard(execute))
                process.sleep(TIMEOUT)
            case Fate.ANSWERED:
                return self._answer(process, execute)
        raise BrokerUnavailable(f"no answer: {fate.value}")

    def _execute(self, name: str, *args: Any, **named: Any) -> Any:
        return getattr(self.server, name)(*args, **named)

    def _answer(self, process: Process, execute: Callable[[], Any]) -> Any:
        self.server.asking = process
        try:
            answer = execute()
        except BeatdError as error:
            process.sleep(self._latency())
            process.heard = self.world.now
            raise error
        process.sleep(self._latency())
        process.heard = self.world.now
        return answer

    def _execute_unheard(self, execute: Callable[[], Any]) -> None:
        """Execute a request whose answer nobody hears."""
        if self.is_down:
            return
        self.server.asking = None
        with suppress(BeatdError):
            execute()

    def _latency(self) -> Span:
        return self.world.below(self.latency)


class Line:
    """All ports of the broker, as one process calls them over the network."""

    lead_outlives_data = False

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def request(*args: Any, **named: Any) -> Any:
            return self._network.request(self._process, name, *args, **named)

        self.__dict__[name] = request
        return request

    def let_go(self) -> None:
        """Leave the lead to run out."""
        self._process.check()

    def await_message(self, queues: Any, timeout: Span) -> bool:
        """Wait as a blocking request does: ask now and then, at no cost."""
        end = self._process.world.now + timeout
        while not self._request("await_message", queues, 0):
            if self._process.world.now >= end:
                return False
            self._process.sleep(SECOND // 4, may_be_woken=True)
        return True

    def interrupt(self) -> None:
        """End an `await_message` that waits."""
        self._process.wake()

    def _request(self, name: str, *args: Any) -> Any:
        return self._network.request(self._process, name, *args)
