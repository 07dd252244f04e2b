"""The parts of a worker that the commands of remote control use."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.events.lamport import LamportClock
from beatd.instant import SECOND, Span
from beatd.pools.base import Pool
from beatd.routing import Router
from beatd.tasks import Registry
from beatd.worker.backlog import Backlog
from beatd.worker.events import WorkerEvents
from beatd.worker.fetcher import Intake
from beatd.worker.renewal import Renewal
from beatd.worker.revoked import Revocations
from beatd.worker.sizing import Sizing
from beatd.worker.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Controlled:
    """The parts of a worker that commands read and change, in the worker's thread."""

    name: str
    tasks: Registry
    settings: Settings
    given: Collection[str]
    """The settings that were set, by name."""
    router: Router
    lamport: LamportClock
    events: WorkerEvents | None
    intake: Intake
    backlog: Backlog
    workload: Workload
    revocations: Revocations
    pool: Pool
    sizing: Sizing
    renewal: Renewal
    shut_down: Callable[[], object]
    """Begins a warm stop of the worker."""
    clock: Clock
    began: Span
    """When the worker was made, by a clock that only goes forward."""

    @property
    def uptime(self) -> int:
        """Return the seconds since the worker's start."""
        return (self.clock.elapsed() - self.began) // SECOND
