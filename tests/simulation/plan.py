"""What a seed draws: the entries, the nodes and the faults."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from zoneinfo import ZoneInfo

from beatd.brokers.base import Outgoing
from beatd.brokers.memory import MemoryBroker
from beatd.clock import Clock
from beatd.instant import DAY, HOUR, MINUTE, SECOND, Instant, Span
from beatd.message import MessageFormat, template
from beatd.routing import Route
from beatd.schedules import cron
from beatd.schedules.base import Schedule
from beatd.schedules.interval import Every
from beatd.timetable.entry import Entry, Policy
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.world import NodeClock, World

STARTS: Sequence[Instant] = (
    1_800_014_400_000,  # 2027-01-15T12:00:00Z
    1_806_100_200_000,  # 2027-03-26T22:30:00Z: Berlin's clocks go forward in 26 h
    1_824_240_000_000,  # 2027-10-22T21:20:00Z, and back
    1_823_083_200_000,  # 2027-10-09T12:00:00Z
)

SETTLING: Span = 10 * MINUTE
"""At the start nothing is counted; at the end nothing fails for this long."""


class Fault(Enum):
    """What may happen to a node, to the network or to the broker."""

    CRASH = "crash"
    RESTART = "restart"
    PAUSE = "pause"
    BAD_NETWORK = "bad network"
    DOWN = "broker down"
    RELOAD = "reload"
    NO_DISK = "disk lost"
    OLD_DISK = "older disk"


@dataclass(frozen=True)
class Plan:
    """The entries of a world, each with how the checker is to read it."""

    crons: Mapping[str, tuple[str, str]]
    """By name: expression and zone."""
    intervals: Mapping[str, Span]
    coalesced: frozenset[str]
    """Names of those whose late slots may give way to later ones."""

    def entries(self) -> dict[str, Entry]:
        """Return the entries as a scheduler has them."""
        schedules: dict[str, Schedule] = {
            name: cron(expression).in_zone(ZoneInfo(zone), hash_id=name)
            for name, (expression, zone) in self.crons.items()
        }
        schedules |= {name: Every(every) for name, every in self.intervals.items()}
        return {name: self._entry(name, one) for name, one in schedules.items()}

    def _entry(self, name: str, schedule: Schedule) -> Entry:
        message = template(
            MessageFormat(origin="sim"), Route("celery"), "run", entry=name
        )
        policy = Policy(coalesce=name in self.coalesced, max_catchup=10_000)
        return Entry(name, schedule, message, policy)


PLAN = Plan(
    crons={
        "daily": ("30 2 * * *", "Europe/Berlin"),
        "thrice": ("15 1,2,3 * * *", "Europe/Berlin"),
        "often": ("*/10 * * * *", "Europe/Berlin"),
        "coalesced": ("*/10 * * * *", "America/New_York"),
    },
    intervals={"seven": 7 * MINUTE, "thirty": 30 * MINUTE},
    coalesced=frozenset({"coalesced"}),
)


class Recorder(MemoryBroker):
    """A broker whose queues are read at once: what came, and when."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.came: list[tuple[Instant, bytes]] = []
        super().__init__(_clock(world))

    def _put(self, outgoing: Outgoing) -> bool:
        self.came.append((self._world.now, outgoing.message))
        return True


def _clock(world: World) -> Clock:
    clock: object = NodeClock(world)
    return clock  # type: ignore[return-value] # a broker never waits here


@dataclass
class Run:
    """One simulated history."""

    seed: int
    folder: Path
    hours: float
    faults: Sequence[Fault] = tuple(Fault)
    nodes: list[Node] = field(init=False)
    drawn: dict[Fault, int] = field(init=False)
    troubles: list[tuple[Instant, Instant]] = field(default_factory=list)
    """When something was wrong, from and until."""

    def __post_init__(self) -> None:
        self.world = World(self.seed, 0)
        rng = self.world.rng
        self.start = rng.choice(STARTS) + rng.randrange(DAY)
        self.world.start = self.world.now = self.start
        self.end = self.start + int(self.hours * HOUR)
        self.broker = Recorder(self.world)
        self.network = Network(self.world)
        self.drawn = dict.fromkeys(self.faults, 0)
        self.nodes = [
            self._node(f"node{number}") for number in range(rng.choice((2, 2, 3)))
        ]
        self._pace = rng.choice((5, 20, 60)) * MINUTE

    def _node(self, name: str) -> Node:
        node = Node(
            name, self.world, self.broker, self.network, self.folder, PLAN.entries
        )
        # Clocks that differ by less count as equal.
        node.clock.off = self.world.rng.randint(-SECOND, SECOND)
        return node

    def go(self) -> None:
        """Let it all happen."""
        for node in self.nodes:
            node.start()
        self.world.at(self.start + SETTLING, self._next_fault)
        self.world.run(self.end)
        for node in self.nodes:
            if node.is_up:
                node.crash()

    def _next_fault(self) -> None:
        rng = self.world.rng
        if self.world.now > self.end - 2 * SETTLING:
            return
        fault, node = rng.choice(self.faults), rng.choice(self.nodes)
        lasts = rng.randint(SECOND, rng.choice((5, 60, 300)) * SECOND)
        if node.is_up:
            self.drawn[fault] += 1
            self.troubles.append((self.world.now, self.world.now + lasts))
            self._do[fault](self, node, self.world.now + lasts)
        # Two in a row are what breaks things.
        soon = rng.random() < 0.3
        pause = rng.randrange(20 * SECOND) if soon else rng.randrange(2 * self._pace)
        self.world.at(self.world.now + pause, self._next_fault)

    def _crash(self, node: Node, until: Instant) -> None:
        node.crash()
        self.world.at(until, node.start)

    def _no_disk(self, node: Node, until: Instant) -> None:
        self._crash(node, until)
        node.lose_disk()

    def _old_disk(self, node: Node, until: Instant) -> None:
        self._crash(node, until)
        node.restore_disk()

    def _restart(self, node: Node, until: Instant) -> None:
        node.stop()
        self.world.at(until, lambda: self._start_again(node))

    def _start_again(self, node: Node) -> None:
        if node.is_up:  # it still waits for an answer
            self.world.at(self.world.now + SECOND, lambda: self._start_again(node))
        else:
            node.start()

    def _pause(self, node: Node, until: Instant) -> None:
        assert node.process
        node.process.pause(until)

    def _bad_network(self, node: Node, until: Instant) -> None:
        self.network.bad_until = until

    def _down(self, node: Node, until: Instant) -> None:
        self.network.down_until = until

    def _reload(self, node: Node, until: Instant) -> None:
        node.reload()

    _do: Mapping[Fault, Callable[["Run", Node, Instant], None]] = field(
        default_factory=lambda: {
            Fault.CRASH: Run._crash,
            Fault.RESTART: Run._restart,
            Fault.PAUSE: Run._pause,
            Fault.BAD_NETWORK: Run._bad_network,
            Fault.DOWN: Run._down,
            Fault.RELOAD: Run._reload,
            Fault.NO_DISK: Run._no_disk,
            Fault.OLD_DISK: Run._old_disk,
        },
        repr=False,
    )
