"""One simulation: some hosts, a broker, a few hours, and the verdict on them."""

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from beatd.instant import HOUR, SECOND, Instant, Span
from beatd.timetable.history import History
from beatd.timetable.pages import What
from tests.simulation.checker import Evidence, Rewind, Told, Verdict, judge
from tests.simulation.faults import GAPS, OF_WORKERS, Faults, Kind
from tests.simulation.hosts import SchedulerHost
from tests.simulation.network import Network
from tests.simulation.plan import Plan, configs_of, plan_of
from tests.simulation.threads import greenlets_for_threads
from tests.simulation.work import Work, judge_work
from tests.simulation.workers import WorkerHost
from tests.simulation.world import World

COMMAND = "python -m tests.simulation"

ALL = frozenset(Kind)
"""What goes wrong unless other kinds are asked for."""

FORGETTING = frozenset({Kind.OLD_FILE, Kind.NO_FILE, Kind.POWER_CUT})
"""A host that forgets. With a broker that is emptied nobody would know what was due:
a seed that has both kinds draws which one it leaves out."""


@dataclass
class Result:
    """What one seed showed."""

    seed: int
    span: Span
    verdict: Verdict
    drawn: Counter[str] = field(default_factory=Counter)
    command: str = ""
    """Replays this simulation."""

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {len(self.verdict.wrong)} wrong"]
        lines += [f"  {one}" for one in self.verdict.wrong[:20]]
        return "\n".join([*lines, f"  again: {self.command}"])


def simulate(
    seed: int,
    span: Span = HOUR,
    kinds: Collection[Kind] = ALL,
    *,
    gaps: Sequence[Span] = GAPS,
    verbose: bool = False,
    on_network: Callable[[Network], object] = lambda network: None,
) -> Result:
    """Let so much time pass in a world of this seed, and judge what was queued.

    Faults come after one of these gaps, on average. `on_network` is called at the
    beginning with what is to carry the requests.
    """
    with directory_in_memory() as root:
        return _simulate(seed, span, kinds, gaps, root, on_network, verbose=verbose)


def _simulate(
    seed: int,
    span: Span,
    kinds: Collection[Kind],
    gaps: Sequence[Span],
    root: Path,
    on_network: Callable[[Network], object],
    *,
    verbose: bool,
) -> Result:
    world = World(seed, 0)
    plan = plan_of(world.random, span, has_workers=bool(OF_WORKERS & set(kinds)))
    world.begin = world.now = plan.begin
    network = Network(world)
    on_network(network)
    configs = configs_of(plan)
    hosts = [
        SchedulerHost(f"host{number}", world, network, root, configs)
        for number in range(world.random.choice([1, 2, 2, 3]))
    ]
    for host in hosts:
        world.after(world.random.randrange(3 * SECOND), host.start)
    workers = []
    if OF_WORKERS & set(kinds):
        number = world.random.choice([1, 2, 3])
        # After a tick of a far year hundreds of slots come at once.
        size = 48 if Kind.FAR in kinds else 4
        workers = [
            WorkerHost(f"worker{n}", world, network, size) for n in range(number)
        ]
    for worker in workers:
        world.after(world.random.randrange(3 * SECOND), worker.start)
    left_out = world.random.choice([FORGETTING, frozenset([Kind.EMPTIED])])
    drawn = frozenset(kinds)
    if Kind.EMPTIED in drawn and drawn & FORGETTING:
        drawn -= left_out
    faults = Faults(world, network, hosts, workers, drawn, gaps)
    end = plan.begin + span
    world.after(60 * SECOND, lambda: faults.begin(end))
    with _logged(world, show=verbose) as log, greenlets_for_threads():
        world.run(end)
        for host in hosts:
            host.crash()
        for worker in workers:
            worker.crash()
    history, told = _told(network, {fact.name for fact in plan.facts})
    evidence = Evidence(
        plan.begin,
        end,
        plan.facts,
        [
            (at, message, by.heard if by else at)
            for at, message, by in network.server.queued
        ],
        faults.troubles,
        losses=faults.losses,
        rewound=log.rewound,
        far=faults.far,
        deployed=faults.deployed,
        uncertain=set().union(*(host.disk.uncertain for host in hosts)),
        from_a_copy=log.from_a_copy,
        told=told,
        history_lost=[*history.lost],
    )
    verdict = judge(evidence)
    if workers:
        judge_work(_work(network, workers, plan, faults, end), verdict)
    return Result(
        seed,
        span,
        verdict,
        Counter({kind.value: number for kind, number in faults.drawn.items()})
        + faults.fates,
        _command(seed, span, kinds, gaps),
    )


def _told(network: Network, names: Collection[str]) -> tuple[History, dict[str, Told]]:
    """Return the history, and what it says of the entries that the ledger has."""
    rows, pages = network.server.read_history()
    history = History(rows)
    history.fold(pages)
    told = {}
    for name, mark in network.server.read_ledger().marks.items():
        past = history.of(name)
        if name in names and history.since is not None:
            began = [one.slot for one in past.records if one.what is What.BEGAN]
            spans = [
                (one.slot, one.reach)
                for one in past.records
                if one.what in (What.SENT, What.DROPPED, What.UNCERTAIN)
            ]
            told[name] = Told(max([past.since, *began]), mark.slot, spans)
    return history, told


def _work(
    network: Network,
    workers: Sequence[WorkerHost],
    plan: Plan,
    faults: Faults,
    end: Instant,
) -> Work:
    server = network.server
    return Work(
        end=end,
        queued=[(at, message) for at, message, _ in server.queued],
        runs=[run for worker in workers for run in worker.runs],
        followed=server.followed,
        done=server.done,
        mistaken=server.mistaken,
        leases_ended=server.leases_ended,
        ends=[end for worker in workers for end in worker.ends],
        losses=faults.losses,
        early={fact.name for fact in plan.facts if fact.early},
        alone={fact.name for fact in plan.facts if fact.overlap != "allow"},
        current=server.running([fact.name for fact in plan.facts]),
    )


def _command(
    seed: int, span: Span, kinds: Collection[Kind], gaps: Sequence[Span]
) -> str:
    words = f"{COMMAND} --seeds {seed} --span {span / HOUR:g} --verbose"
    if set(kinds) != ALL:
        words += f" --kinds {','.join(kind.value for kind in Kind if kind in kinds)}"
    if gaps != GAPS:
        words += f" --gaps {','.join(f'{gap / SECOND:g}' for gap in gaps)}"
    return words


@contextmanager
def directory_in_memory() -> Iterator[Path]:
    """Yield a directory in memory, where the system has one."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() else None
    root = Path(tempfile.mkdtemp(prefix="beatd-simulation-", dir=place))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


class _Log(logging.Handler):
    """Notes when a scheduler goes on from a copy; shows all, if that is wanted."""

    def __init__(self, world: World, *, show: bool) -> None:
        super().__init__()
        self._world = world
        self._show = show
        self.from_a_copy: list[Instant] = []
        self.rewound: list[Rewind] = []

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", "") in ("ledger.founded", "ledger.gap"):
            self.from_a_copy.append(self._world.now)
        if getattr(record, "event", "") == "clock.rewound":
            to = record.__dict__["to"]
            high = to + record.__dict__["ahead"]
            self.rewound.append(Rewind(self._world.now, to, high))
        if self._show:
            since = (self._world.now - self._world.begin) / SECOND
            print(f"{since:9.3f} {record.levelname:7} {record.getMessage()}")


@contextmanager
def _logged(world: World, *, show: bool) -> Iterator[_Log]:
    logger = logging.getLogger("beatd")
    before = logger.level, logger.propagate
    handler = _Log(world, show=show)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if show else logging.WARNING)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
