"""Jobs run in child processes, under supervision: the worker's side of the pool.

One thread decides which children there are and which job each runs: supervisor.py. The
code of a child is in child.py, the process that forks children in forkserver.py.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial

from beatd.background import start_thread
from beatd.clock import Clock, SystemClock
from beatd.event_log import EventLog
from beatd.pools.base import Job, PoolEvent, Runner
from beatd.pools.options import PoolOptions
from beatd.pools.prefork.child import ChildMain
from beatd.pools.prefork.children import Children
from beatd.pools.prefork.dispatch import Dispatcher
from beatd.pools.prefork.forkserver import forked
from beatd.pools.prefork.forkservers import ForkServers
from beatd.pools.prefork.requests import SupervisorRequests
from beatd.pools.prefork.supervisor import Supervisor

tell = EventLog(__name__)


class Prefork:
    """`size` child processes, each with one job at a time.

    An idle child is given a job, or several at once if its last jobs were quick; jobs
    that would wait behind a slow one are taken back. When a child ends, for whatever
    reason, only the job that it ran is lost, and another child takes its place.

    `start` should be called while the process has no other thread and no connection
    yet, and all task modules are imported: children are copies of that moment. Without
    `options.fork`, and in any case after `renew(fresh=True)`, they are copies of a new
    interpreter that `options.spawn` starts.
    """

    def __init__(
        self,
        runner: Runner,
        on_event: Callable[[PoolEvent], object],
        *,
        options: PoolOptions,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        main = ChildMain(
            runner,
            options.initialise,
            options.max_tasks_per_child,
            options.max_memory_per_child,
        )
        first = options.spawn if not options.fork else None
        self._can_load_afresh = options.spawn is not None
        self._on_crash = options.on_crash or _say_crash
        self._requests = SupervisorRequests()
        self._children = Children(options.size)
        self._dispatcher = Dispatcher(self._children, on_event, clock.elapsed)
        self._servers = ForkServers(
            first or forked(main.run), options.spawn, options.on_renewed
        )
        self._supervisor = Supervisor(
            self._requests,
            self._children,
            self._dispatcher,
            self._servers,
            clock,
            options.alive_timeout,
        )
        self._thread = threading.Thread(target=self._run, name="prefork", daemon=True)

    @property
    def size(self) -> int:
        return self._children.size

    @property
    def demand(self) -> int:
        return self._children.demand

    def start(self) -> None:
        self._supervisor.open()
        start_thread(self._thread)

    def submit(self, jobs: Sequence[Job]) -> None:
        self._requests.put(partial(self._dispatcher.add, tuple(jobs)))

    def recall(self) -> None:
        self._requests.put(self._dispatcher.return_all)

    def resize(self, size: int) -> None:
        self._children.size = size
        self._requests.wake()

    def processes(self) -> list[int]:
        return [child.pid for child in self._children if child.pid]

    def terminate(self, token: str, number: int) -> None:
        self._requests.put(partial(self._supervisor.signal_job, token, number))

    def renew(self, *, fresh: bool) -> bool:
        if not fresh:
            self._requests.put(self._supervisor.retire_all)
        elif self._can_load_afresh:
            self._requests.put(self._servers.load_afresh)
        else:
            return False
        return True

    def stop(self) -> None:
        self._requests.put(self._supervisor.wind_down)
        self._thread.join()

    def kill(self) -> None:
        self._requests.put(self._supervisor.end_now)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._supervisor.run()
        except BaseException as error:  # no thread ends in silence
            self._on_crash(error)
        finally:
            self._supervisor.close()


def _say_crash(error: BaseException) -> None:
    words = "the pool ended: nobody supervises its processes any more"
    tell.critical("pool.crash", words, exc_info=error)
