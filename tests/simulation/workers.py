"""A host with a worker: the real one, with a pool whose tasks take simulated time."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

from beatd.app import Beatd
from beatd.brokers.items import Delivery, Outgoing, Suspects, idle, pass_over
from beatd.events.lamport import LamportClock
from beatd.instant import SECOND, Instant, Span
from beatd.pools.base import Finished, Job, PoolEvent, Started
from beatd.results.base import State
from beatd.routing import Route, Router
from beatd.runs.report import Report, pack_report
from beatd.service.wiring.worker_parts import Surroundings, assemble
from beatd.worker.inbox import Stop
from beatd.worker.renewal import Modules
from tests.simulation.network import FOLLOWING, Network
from tests.simulation.plan import EARLY_TASK, TASK
from tests.simulation.threads import Condition, Queue
from tests.simulation.world import HostClock, Process, World


@dataclass
class Run:
    """One run of a message, as the pool saw it."""

    name: str
    worker: str
    message: bytes
    began: Instant
    ended: Instant | None = None


class WorkerHost:
    """A host on which a worker is started, each time under a new name."""

    def __init__(self, name: str, world: World, network: Network, size: int) -> None:
        """`size` is that of its pool."""
        self.name = name
        self.world = world
        self.network = network
        self.size = size
        self.process: Process | None = None
        self.runs: list[Run] = []
        self.ends: list[tuple[Instant, str]] = []
        """When each worker here died, or began to stop."""
        self._starts = count(1)
        self._identity = ""
        self._inbox: Any = None

    @property
    def is_up(self) -> bool:
        """Whether a process runs here, or stands still."""
        return self.process is not None

    def start(self) -> None:
        """Start a worker."""
        process = self.process = Process(self.world)
        identity = self._identity = f"{self.name}-{next(self._starts)}"
        process.spawn(lambda: self._work(process, identity))

    def crash(self) -> None:
        """Kill the process."""
        if self.process is None:
            return
        self.ends.append((self.world.now, self._identity))
        self.process.kill()
        self.process = self._inbox = None

    def stop(self) -> None:
        """Have the worker stop once its tasks have ended."""
        if self._inbox is not None:
            self.ends.append((self.world.now, self._identity))
            self._inbox.put(Stop.WARM)

    def _work(self, process: Process, identity: str) -> None:
        app = _app()
        inbox: Any = Queue()
        self._inbox = inbox
        around = Surroundings(
            name=self.name,
            identity=identity,
            queues=["celery"],
            router=Router(),
            broker=WorkerLine(self.network, process),
            pool=SlowPool(process, identity, self.size, self.runs, inbox.put),
            tasks=app.tasks,
            settings=app.settings,
            given=(),
            inbox=inbox,
            results=None,
            chord_keeper=None,
            lamport=LamportClock(),
            modules=Modules(),
            clock=HostClock(process, lambda: 0),
        )
        assemble(around).run()


@cache
def _app() -> Beatd:
    app = Beatd("sim", set_as_current=False)

    @app.task(name=TASK)
    def run(entry: str) -> None:
        """Stand for a task; the pool takes the time."""

    @app.task(name=EARLY_TASK, acks_late=False)
    def run_early(entry: str) -> None:
        """Stand for a task whose messages are acknowledged before it runs."""

    return app


class SlowPool:
    """A pool whose runs take a drawn time; a message follows from each of them."""

    def __init__(
        self,
        process: Process,
        worker: str,
        size: int,
        runs: list[Run],
        on_event: Callable[[PoolEvent], object],
    ) -> None:
        self._process = process
        self._worker = worker
        self.size = self.demand = size
        self._runs = runs
        self._on_event = on_event

    def start(self) -> None:
        pass

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._process.spawn(lambda job=job: self._run(job))  # type: ignore[misc]

    def _run(self, job: Job) -> None:
        world = self._process.world
        name = f"{self._worker}:{len(self._runs)}"
        run = Run(name, self._worker, job.message, world.now)
        self._runs.append(run)
        self._on_event(Started(job.token, 1))
        longest = world.random.choice([SECOND // 10, SECOND, SECOND, 30 * SECOND])
        self._process.sleep(world.random.randrange(longest))
        run.ended = world.now
        following = Outgoing(Route(FOLLOWING), run.name.encode())
        report = Report(state=State.SUCCESS, sends=[following])
        self._on_event(Finished(job.token, pack_report(report)))

    def recall(self) -> None:
        pass

    def resize(self, size: int) -> None:
        pass

    def processes(self) -> list[int]:
        return []

    def stop(self) -> None:
        pass

    def kill(self) -> None:
        pass


class WorkerLine:
    """The ports that a worker uses, as its process calls them over the network."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process
        self._changed = Condition()
        self._is_interrupted = False

    def _request(self, name: str, *args: Any) -> Any:
        return self._network.request(self._process, name, *args)

    def declare(self, queues: Any) -> None:
        self._request("declare", queues)

    def purge(self, queues: Collection[str]) -> int:
        raise NotImplementedError

    def send(self, batch: Sequence[Outgoing]) -> None:
        self._request("send", batch)

    def join(self, worker: str, lease: Span, queues: Collection[str] = ()) -> None:
        self._request("join", worker, lease, queues)

    def stay(self, worker: str, lease: Span) -> Any:
        return self._request("stay", worker, lease)

    def reclaim(
        self,
        worker: str,
        held: Collection[str],
        request: int,
        ended: Collection[str] = (),
    ) -> Any:
        return self._request("reclaim", worker, set(held), request, set(ended))

    def leave(self, worker: str) -> None:
        self._request("leave", worker)

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
        # What is executed late calls nobody here.
        held_back: list[None] = []
        more = pass_over, suspects, together, lambda: held_back.append(None)
        found: list[Delivery] = self._request(
            "take", worker, list(queues), limit, request, *more
        )
        if held_back:
            on_held_back()
        return found

    def settle(self, *args: Any) -> Any:
        return self._request("settle", *args)

    def delayed(self, queues: Collection[str], limit: int) -> Any:
        return self._request("delayed", queues, limit)

    def recover(self) -> Any:
        return self._request("recover")

    def await_message(self, queues: Sequence[str], timeout: Span) -> bool:
        """Wait as a blocking request does: look now and then, at no cost."""
        end = self._process.world.now + timeout
        while not self._network.is_down and not self._is_interrupted:
            if self._network.server.await_message(queues, 0):
                return True
            if self._process.world.now >= end:
                return False
            self._changed.wait_for(lambda: self._is_interrupted, 0.5)
        self._is_interrupted = False
        self._request("await_message", queues, 0)
        return False

    def interrupt(self) -> None:
        self._is_interrupted = True
        self._changed.notify_all()
