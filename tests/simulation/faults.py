"""What goes wrong in a simulation, when, and for how long: drawn by the seed."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from typing import Any

from beatd.clock import Wake
from beatd.instant import MINUTE, SECOND, Instant, Span
from tests.simulation.checker import Far
from tests.simulation.hosts import SchedulerHost
from tests.simulation.network import Fate, Network
from tests.simulation.workers import WorkerHost
from tests.simulation.world import Process, World

RECOVERY: Span = 30 * SECOND
"""How long after a fault everything is as it should be."""

GAPS: Sequence[Span] = (15 * SECOND, 60 * SECOND, 180 * SECOND)
"""How far two faults are apart, on average: each seed draws one of these."""

YEAR: Span = 365 * 24 * 60 * MINUTE

QUIET: Span = 4 * MINUTE
"""At the end nothing goes wrong for so long: what is late then is lost."""


class Kind(StrEnum):
    """Each kind of fault is a switch of its own."""

    CRASH = "crash"
    POWER_CUT = "power-cut"
    PAUSE = "pause"
    ROLLING = "rolling-restart"
    SLOW = "slow-network"
    FLAKY = "lost-and-held-requests"
    DOWN = "broker-down"
    OLD_FILE = "older-file"
    NO_FILE = "no-file"
    EMPTIED = "broker-emptied"
    SET_BACK = "broker-set-back"
    SKEW = "clocks-differ"
    STEP = "clock-steps"
    AHEAD = "clock-runs-ahead"
    FAR = "one-tick-shows-2098"
    RELOAD = "reload"
    DEPLOY = "new-config"
    WORKER_DIES = "worker-dies"
    WORKER_RESTARTS = "worker-restarts"
    WORKER_PAUSED = "worker-paused"
    WORKER_REQUESTS = "worker-requests"


OF_WORKERS = frozenset(
    {
        Kind.WORKER_DIES,
        Kind.WORKER_RESTARTS,
        Kind.WORKER_PAUSED,
        Kind.WORKER_REQUESTS,
    }
)
"""With any of these the simulation has workers."""


class Faults:
    """Draws one fault after another, and remembers when something was wrong."""

    def __init__(
        self,
        world: World,
        network: Network,
        hosts: Sequence[SchedulerHost],
        workers: Sequence[WorkerHost],
        kinds: Collection[Kind],
        gaps: Sequence[Span] = GAPS,
    ) -> None:
        self.world = world
        self.network = network
        self.hosts = hosts
        self.workers = workers
        self.kinds = [kind for kind in Kind if kind in kinds]
        self.drawn: Counter[Kind] = Counter()
        self.fates: Counter[str] = Counter()
        self.troubles: list[tuple[Instant, Instant]] = []
        self.losses: list[Instant] = []
        self.far: list[Far] = []
        self.deployed: list[Instant] = []
        """When all hosts were given the next config."""
        self._gap = world.random.choice(gaps)
        self._flaky_until: Instant = 0
        self._workers_flaky_until: Instant = 0
        self._share = 0.0
        self._until: Instant = 0
        self._actions: dict[Kind, Callable[[], Span]] = {
            Kind.CRASH: self._crash,
            Kind.POWER_CUT: self._power_cut,
            Kind.PAUSE: self._pause,
            Kind.ROLLING: self._restart,
            Kind.SLOW: self._slow,
            Kind.FLAKY: self._flaky,
            Kind.DOWN: self._down,
            Kind.OLD_FILE: self._old_file,
            Kind.NO_FILE: self._no_file,
            Kind.EMPTIED: self._empty,
            Kind.SET_BACK: self._set_back,
            Kind.SKEW: self._skew,
            Kind.STEP: self._step,
            Kind.AHEAD: self._ahead,
            Kind.FAR: self._far,
            Kind.RELOAD: self._reload,
            Kind.DEPLOY: self._deploy,
            Kind.WORKER_DIES: self._worker_dies,
            Kind.WORKER_RESTARTS: self._worker_restarts,
            Kind.WORKER_PAUSED: self._worker_paused,
            Kind.WORKER_REQUESTS: self._worker_requests,
        }
        self._snapshot: Any = None
        network.draw = self._fate

    def begin(self, until: Instant) -> None:
        """Let things go wrong until a while before `until`."""
        self._until = until - QUIET
        self._plan_next()
        if Kind.SET_BACK in self.kinds:
            # Before this there was no ledger: to be set back to that is to be emptied.
            self._snapshot = self.network.execute("snapshot")
            self._keep_snapshot()

    # When

    def _plan_next(self) -> None:
        wait = round(self.world.random.expovariate(1 / self._gap))
        if self.kinds and self.world.now + wait < self._until:
            self.world.after(wait, self._strike)

    def _strike(self) -> None:
        kind = self.world.random.choice(self.kinds)
        self.drawn[kind] += 1
        lasts = self._actions[kind]()
        self.troubles.append((self.world.now, self.world.now + lasts + RECOVERY))
        self._plan_next()

    def _keep_snapshot(self) -> None:
        if self.world.chance(0.5):
            self._snapshot = self.network.execute("snapshot")
        self.world.after(20 * SECOND, self._keep_snapshot)

    def _length(self, *choices: Span) -> Span:
        """Draw a length up to one of these."""
        longest = self.world.random.choice(choices)
        return self.world.random.randrange(longest // 10, longest)

    # Processes

    def _host(self) -> SchedulerHost:
        return self.world.random.choice(self.hosts)

    def _down_for(self, host: SchedulerHost, kept: int = -1) -> Span:
        """Have a host that is down start again after a while."""
        rest = self._length(SECOND, 10 * SECOND, MINUTE)

        def start() -> None:
            if not host.is_up:
                host.start(kept)

        self.world.after(rest, start)
        return rest

    def _crash(self) -> Span:
        host = self._host()
        host.crash()
        return self._down_for(host)

    def _power_cut(self) -> Span:
        host = self._host()
        host.crash(power_cut=True)
        return self._down_for(host)

    def _old_file(self) -> Span:
        host = self._host()
        host.crash()
        return self._down_for(host, self.world.random.randrange(len(host.disk.kept)))

    def _no_file(self) -> Span:
        host = self._host()
        host.crash()
        return self._down_for(host, 0)

    def _restart(self) -> Span:
        for number, host in enumerate(self.hosts):
            at = self.world.now + number * 5 * SECOND
            self.world.at(at, lambda host=host: host.tell(Wake.STOP))  # type: ignore[misc]

            def again(host: SchedulerHost = host) -> None:
                host.crash()
                host.start()

            self.world.at(at + 4 * SECOND, again)
        return 5 * SECOND * len(self.hosts) + 4 * SECOND

    def _pause(self) -> Span:
        host, length = self._host(), self._length(2 * SECOND, 10 * SECOND, MINUTE)
        if host.process is not None:
            host.process.pause(length)
        return length

    def _reload(self) -> Span:
        self._host().tell(Wake.RELOAD)
        return 0

    def _skew(self) -> Span:
        self._host().skew = self.world.random.randrange(-1000, 1000)
        return 0

    def _deploy(self) -> Span:
        """Give all hosts the next config, some seconds apart, in whatever they do."""
        self.deployed.append(self.world.now)
        for host in self.hosts:
            later = self.world.random.randrange(5 * SECOND)
            host.config += 1
            self.world.after(later, lambda host=host: host.tell(Wake.RELOAD))  # type: ignore[misc]
        return 5 * SECOND

    def _step(self) -> Span:
        """Have a clock stepped for a while, forward or back, as by a bad NTP server."""
        longest = self.world.random.choice([5 * SECOND, MINUTE, 5 * MINUTE])
        by = self.world.random.randrange(-longest, longest)
        return self._set_wrong(by, self._length(20 * SECOND, 3 * MINUTE))

    def _ahead(self) -> Span:
        """Have a host that is some seconds ahead of all others, for minutes."""
        by = self.world.random.randrange(3 * SECOND, 20 * SECOND)
        return self._set_wrong(by, self._length(2 * MINUTE, 10 * MINUTE))

    def _far(self) -> Span:
        length = self.world.random.randrange(1, 3 * SECOND)
        now = self.world.now
        self.far.append(Far(now, now + length + SECOND, 70 * YEAR))
        return self._set_wrong(70 * YEAR, length)

    def _set_wrong(self, by: Span, length: Span) -> Span:
        """Have a host's clock wrong for so long; return until when that matters."""
        host = self._host()
        if host.wrong:
            return 0
        host.wrong = by
        self.world.after(length, lambda: setattr(host, "wrong", 0))
        felt = min(abs(by), 10 * MINUTE)
        if by < 0:
            self.troubles.append((self.world.now - felt, self.world.now))
        return length + felt

    # Workers

    def _worker_dies(self) -> Span:
        worker = self.world.random.choice(self.workers)
        worker.crash()
        return self._starts_again(worker)

    def _worker_restarts(self) -> Span:
        worker = self.world.random.choice(self.workers)
        worker.stop()
        rest = self.world.random.randrange(MINUTE)

        def end() -> None:
            worker.crash()
            self._starts_again(worker)

        self.world.after(rest, end)
        return rest + MINUTE

    def _starts_again(self, worker: WorkerHost) -> Span:
        rest = self._length(SECOND, 10 * SECOND, MINUTE)

        def start() -> None:
            if not worker.is_up:
                worker.start()

        self.world.after(rest, start)
        return rest

    def _worker_paused(self) -> Span:
        worker = self.world.random.choice(self.workers)
        length = self._length(6 * SECOND, 20 * SECOND, MINUTE)
        if worker.process is not None:
            worker.process.pause(length)
        return length

    def _worker_requests(self) -> Span:
        """Have workers' requests lost, unanswered or held, and nobody else's."""
        self._share = self.world.random.choice([0.05, 0.3, 0.8])
        length = self._length(5 * SECOND, 20 * SECOND, MINUTE)
        self._workers_flaky_until = self.world.now + length
        return length + 40 * SECOND

    # The broker and the way to it

    def _slow(self) -> Span:
        self.network.latency = self._length(SECOND, 4 * SECOND)
        length = self._length(10 * SECOND, MINUTE)
        self.world.after(length, lambda: setattr(self.network, "latency", 2))
        return length

    def _flaky(self) -> Span:
        self._share = self.world.random.choice([0.05, 0.3, 0.8])
        length = self._length(5 * SECOND, 20 * SECOND, MINUTE)
        self._flaky_until = self.world.now + length
        return length + 40 * SECOND

    def _fate(self, process: Process) -> Fate:
        now = self.world.now
        is_flaky = now < self._flaky_until or (
            now < self._workers_flaky_until
            and any(process is worker.process for worker in self.workers)
        )
        if not is_flaky or not self.world.chance(self._share):
            return Fate.ANSWERED
        fate = self.world.random.choice([Fate.LOST, Fate.UNANSWERED, Fate.HELD])
        self.fates[fate.value] += 1
        return fate

    def _down(self) -> Span:
        length = self._length(2 * SECOND, 10 * SECOND, MINUTE)
        self.network.is_down = True
        self.world.after(length, lambda: setattr(self.network, "is_down", False))
        return length

    def _empty(self) -> Span:
        self.losses.append(self.world.now)
        self.network.execute("lose_all")
        return 10 * SECOND

    def _set_back(self) -> Span:
        self.losses.append(self.world.now)
        self.network.execute("set_back", self._snapshot)
        return 10 * SECOND
