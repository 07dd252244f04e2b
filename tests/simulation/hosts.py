"""A host with a scheduler: its disk, its clock, its config, and the running process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue

from beatd.clock import Wake
from beatd.instant import SECOND, Span
from beatd.routing import Queue
from beatd.scheduler.leadership import STANDBY_LOOK, Leadership
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.succession import Succession
from beatd.scheduler.takeover import Takeover
from beatd.timetable.entry import Entry
from beatd.timetable.history import HistoryLimits
from beatd.timetable.timetable import Timetable
from tests.simulation.disk import Disk
from tests.simulation.network import Line, Network
from tests.simulation.world import HostClock, Process, World

TTL: Span = 5 * SECOND
"""How long a lead lives: the default of the setting."""


class SchedulerHost:
    """A host on which a scheduler is started, again after each crash."""

    def __init__(
        self,
        name: str,
        world: World,
        network: Network,
        root: Path,
        configs: Sequence[Sequence[Entry]],
    ) -> None:
        """`configs` are those that this host gets one after another, in a circle."""
        self.name = name
        self.world = world
        self.network = network
        self.disk = Disk(root / name)
        self._configs = [{entry.name: entry for entry in one} for one in configs]
        self.config = 0
        self.skew: Span = 0
        self.wrong: Span = 0
        """How far the clock is off beside that, while it is wrong."""
        # Hosts that look less often have quicker simulations, and other races.
        looks = [STANDBY_LOOK, SECOND, 2 * SECOND]
        (self.look,) = world.random.choices(looks, [1, 2, 3])
        self.process: Process | None = None
        self.scheduler: Scheduler | None = None
        self._inbox: SimpleQueue[Wake] = SimpleQueue()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """What the config on this host's disk says."""
        return self._configs[self.config % len(self._configs)]

    @property
    def is_up(self) -> bool:
        """Whether a process runs here, or stands still."""
        return self.process is not None

    def start(self, kept: int = -1) -> None:
        """Start a scheduler with what the disk has; `kept` counts its states."""
        process = self.process = Process(self.world)
        clock = HostClock(process, lambda: self.skew + self.wrong)
        file = self.disk.open(self.disk.kept[kept], process, clock)
        broker = Line(self.network, process)
        timetable = Timetable()
        leadership = Leadership(broker, clock, self.name, TTL)
        takeover = Takeover(
            Succession(self.entries, timetable, queues=[Queue("celery")]),
            timetable=timetable,
            leadership=leadership,
            broker=broker,
            file=file,
            clock=clock,
            declare=broker.declare,
            history=HistoryLimits(per_entry=2000, size=0),
        )
        scheduler = self.scheduler = Scheduler(
            takeover=takeover,
            timetable=timetable,
            leadership=leadership,
            broker=broker,
            file=file,
            clock=clock,
            namespace="sim",
            standby_look=self.look,
        )
        inbox = self._inbox = SimpleQueue()
        process.spawn(lambda: scheduler.run(inbox, self._reload))

    def crash(self, *, power_cut: bool = False) -> None:
        """Kill the process; a power cut also takes what the disk had not written."""
        if self.process is None:
            return
        self.process.kill()
        if not power_cut:
            self.disk.kept.append(self.disk.contents())
        self.disk.close()
        self.process = self.scheduler = None

    def stop(self) -> None:
        """Have the process stop in the ordinary way; it ends by itself."""
        self.tell(Wake.STOP)

    def tell(self, wake: Wake) -> None:
        """Put a word into the process's inbox, as a signal handler does."""
        if self.process is not None:
            self._inbox.put(wake)
            self.process.wake()

    def _reload(self) -> None:
        """Read the config again."""
        if self.scheduler is not None:
            self.scheduler.replace(self.entries, (), [Queue("celery")])
