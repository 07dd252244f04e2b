"""One host with a scheduler: its clock, its disk, and what happens to it."""

import shutil
from collections.abc import Callable, Collection, Mapping
from itertools import count
from pathlib import Path
from typing import Any, cast

from beatd.brokers.memory import MemoryBroker
from beatd.clock import Clock, Wake
from beatd.instant import SECOND, Span
from beatd.scheduler.leadership import Leadership
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.schedule_file import ScheduleFile
from beatd.scheduler.takeover import Takeover
from beatd.timetable.entry import Entry
from beatd.timetable.timetable import Timetable
from tests.simulation.network import Network, Remote
from tests.simulation.world import Inbox, NodeClock, Process, World

TTL: Span = 30 * SECOND
"""How long a lead lives: longer than by default, so that an hour has fewer events."""

LOOK: Span = 10 * SECOND
"""How often a standby asks for the lead: the same."""

FILE = "schedule.db"


class Node:
    """A host: its scheduler's process may crash, and start again on the same disk."""

    def __init__(
        self,
        name: str,
        world: World,
        broker: MemoryBroker,
        network: Network,
        folder: Path,
        entries: Callable[[], Mapping[str, Entry]],
    ) -> None:
        """`entries` returns what the config says now."""
        self.name = name
        self.world = world
        self.clock = NodeClock(world)
        self._broker = broker
        self._network = network
        self._folder = folder
        self._disks = count()
        self._entries = entries
        self._kept: list[Path] = []
        """Earlier states of the disk, the newest last."""
        self._former: list[Process] = []
        """Crashed processes are kept: to clear them away would let them clean up."""
        self._disk = self._new_disk(None)
        self.process: Process | None = None
        self._inbox = Inbox()
        self._file: ScheduleFile | None = None
        self.scheduler: Scheduler | None = None

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.is_alive

    def start(self) -> None:
        """Start the scheduler's process on the disk as it is."""
        self._inbox = Inbox()
        self.scheduler = scheduler = self._scheduler()
        reload = self._reload_of(scheduler)
        inbox = cast(Any, self._inbox)
        self.process = Process(self.world, lambda: scheduler.run(inbox, reload))
        self._inbox.on_put = self.process.wake
        self.clock.process = self.process

    def stop(self) -> None:
        """Ask the scheduler to stop."""
        self._inbox.put(Wake.STOP)

    def reload(self) -> None:
        """Ask the scheduler to read its config again."""
        self._inbox.put(Wake.RELOAD)

    def crash(self) -> None:
        """End the process between two of its lines; the disk stays as it was then."""
        assert self.process
        assert self._file
        self.process.crash()
        self._former.append(self.process)
        self._keep_disk()
        self._disk = self._new_disk(self._disk)
        self._file.unlock()  # the crashed process's, on the disk that nobody uses now

    def lose_disk(self) -> None:
        """Let the next start find an empty disk."""
        self._disk = self._new_disk(None)

    def restore_disk(self) -> None:
        """Let the next start find an earlier state of the disk, if one was kept."""
        if self._kept:
            self._disk = self._new_disk(self.world.rng.choice(self._kept))

    def _keep_disk(self) -> None:
        self._kept = [*self._kept[-2:], self._new_disk(self._disk)]

    def _new_disk(self, state: Path | None) -> Path:
        disk = self._folder / f"{self.name}-{next(self._disks)}"
        disk.mkdir()
        for file in state.iterdir() if state else ():
            if not file.name.endswith(".lock"):
                shutil.copy(file, disk)
        return disk

    def _scheduler(self) -> Scheduler:
        clock = cast(Clock, self.clock)
        remote: Any = Remote(self._broker, self._network, self.world, self._mine)
        self._file = ScheduleFile(
            self._disk / FILE, namespace="sim", timezone="UTC", clock=clock
        )
        leadership = Leadership(remote, clock, self.name, TTL)
        timetable = Timetable()
        takeover = Takeover(
            entries=self._entries(),
            timetable=timetable,
            leadership=leadership,
            broker=remote,
            file=self._file,
            clock=clock,
        )
        return Scheduler(
            takeover=takeover,
            timetable=timetable,
            leadership=leadership,
            broker=remote,
            file=self._file,
            clock=clock,
            namespace="sim",
            longest_nap=TTL,
            standby_look=LOOK,
        )

    def _mine(self) -> Process:
        assert self.process
        return self.process

    def _reload_of(self, scheduler: Scheduler) -> Callable[[], None]:
        nothing: Collection[Any] = ()
        return lambda: scheduler.replace(self._entries(), nothing, nothing)
