"""A whole worker in one thread: an application, a broker in memory, the solo pool.

Nothing here waits: `run` does what lies ready, turn by turn, until nothing does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

from beatd.app import Beatd
from beatd.brokers.base import Broadcast, Broker
from beatd.brokers.items import Emission, Term
from beatd.brokers.memory import MemoryBroker
from beatd.errors import MessageError, ResultRefused, ResultUnavailable
from beatd.events.lamport import LamportClock
from beatd.instant import HOUR, Span
from beatd.message import Chord
from beatd.pools.base import Job, Pool
from beatd.pools.solo import Solo
from beatd.results import encoding_of
from beatd.results.base import READY_STATES, Meta, ResultBackend, State, Stored
from beatd.results.chords import Joined, Part
from beatd.results.encoding import Encoding
from beatd.routing import Route, Router
from beatd.runs.chords import ChordKeeper
from beatd.runs.execute import executor_for
from beatd.runs.report import limits_of
from beatd.service.wiring.worker_parts import Surroundings, assemble, broker_outage
from beatd.timetable.ledger import Mark
from beatd.worker.events import WorkerEvents
from beatd.worker.inbox import WorkerEvent
from beatd.worker.renewal import Modules
from beatd.worker.revoked import StateFile
from tests.fakes import FakeClock


@dataclass
class Header:
    """What is counted of a chord's header, in the shortest reading of the contract."""

    chord: Chord
    claim: str = ""
    parts: dict[str, Part] = field(default_factory=dict)


class FakeResults:
    """Results in a dict; they can be away, and remember each state they were told."""

    def __init__(self, encoding: Encoding) -> None:
        self.away = False
        self.unreadable: set[str] = set()
        """Ids of runs whose results cannot be decoded."""
        self.chords: dict[str, Header] = {}
        self.metas: dict[str, Meta] = {}
        self.kept: dict[str, bytes] = {}
        self.groups: dict[str, Any] = {}
        self.states: list[str] = []
        self._encoding = encoding
        self._refused: set[str] = set()

    def refuse(self, name: str) -> None:
        """Refuse the results of this task, and the parts of this group."""
        self._refused.add(name)

    def store(self, metas: Sequence[Meta | Stored]) -> None:
        self._store(metas, corrects=False)

    def correct(self, metas: Sequence[Meta | Stored]) -> None:
        self._store(metas, corrects=True)

    def _store(self, metas: Sequence[Meta | Stored], *, corrects: bool) -> None:
        self._answer()
        refused: dict[int, str] = {}
        for place, meta in enumerate(metas):
            if meta.task_id in self._refused:
                refused[place] = "it is another program's"
                continue
            stored = self._encoding.store(meta)
            read = self._encoding.decode(stored.task_id, stored.data)
            self.states.append(read.status)
            before = self.metas.get(read.task_id)
            if before and before.status == State.SUCCESS and not corrects:
                continue
            self.metas[read.task_id] = read
            self.kept[read.task_id] = stored.data
        if refused:
            raise ResultRefused(refused)

    def load(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        self._answer()
        for key in self.unreadable.intersection(task_ids):
            raise MessageError(f"the result of {key} cannot be read")
        return {key: self.metas[key] for key in task_ids if key in self.metas}

    def save_group(self, group_id: str, members: Any) -> None:
        self.groups[group_id] = members

    def load_group(self, group_id: str) -> Any:
        return self.groups.get(group_id)

    def forget_group(self, group_id: str) -> None:
        self.groups.pop(group_id, None)

    def wait(self, task_id: str, timeout: Span | None) -> Meta | None:
        meta = self.load([task_id]).get(task_id)
        return meta if meta and meta.status in READY_STATES else None

    def forget(self, task_id: str) -> None:
        self.metas.pop(task_id, None)

    def close(self) -> None:
        pass

    def begin_chords(self, chords: Sequence[Chord]) -> None:
        self._answer()
        if "begin" in self._refused:
            raise ResultRefused(dict.fromkeys(range(len(chords)), "none may begin"))
        self.chords.update({chord.group: Header(chord) for chord in chords})

    def join_chords(self, parts: Sequence[Part]) -> list[Joined]:
        self._answer()
        if refused := [
            at for at, one in enumerate(parts) if one.group in self._refused
        ]:
            raise ResultRefused(dict.fromkeys(refused, "it is another program's"))
        return [joined for part in parts if (joined := self._join(part))]

    def end_chords(self, joined: Sequence[Joined]) -> None:
        self._answer()
        for one in joined:
            self.chords.pop(one.part.group, None)

    def _join(self, part: Part) -> Joined | None:
        header = self.chords.get(part.group)
        if header is None:
            return None
        header.parts.setdefault(part.task_id, part)
        if len(header.parts) < header.chord.size:
            return None
        header.claim = header.claim or part.task_id
        if header.claim != part.task_id:
            return None
        in_order = sorted(header.parts.values(), key=lambda one: one.index or 0)
        shape = header.chord.shape
        kept = None if shape is None else self._encoding.pack({"result": shape})
        return Joined(part, [one.data for one in in_order], kept)

    def _answer(self) -> None:
        if self.away:
            raise ResultUnavailable("nobody answers")


_counts = count(1)


class Bench:
    """What a worker's test is done on; `settings` are those of the application.

    Its prefetch window is four times its pool, unless a test says otherwise.
    """

    def __init__(
        self,
        *,
        name: str = "celery@here",
        broker: Broker | None = None,
        state_file: StateFile | None = None,
        is_monitored: bool = False,
        pool: Pool | None = None,
        results: ResultBackend | None = None,
        **settings: Any,
    ) -> None:
        """`is_monitored`: the worker has events; a test sends them by a turn.

        Without a `pool` runs are run at once, by one that a test may exchange. With
        `results` the worker has these; `Bench.results` is what it has without.
        """
        self.name = name
        self.clock = FakeClock()
        self.broker = broker or MemoryBroker(self.clock)
        given = {"worker_prefetch_multiplier": 4, **settings}
        settings = {"result_backend": "redis://nowhere", **given}  # never asked
        self.app = Beatd("proj", clock=self.clock, set_as_current=False, **settings)
        self.settings = self.app.settings
        self.results = FakeResults(encoding_of(self.settings))
        used = results or self.results
        self.app.use(self.settings, self.broker, used)
        self.inbox: SimpleQueue[WorkerEvent] = SimpleQueue()
        limits = limits_of(self.settings)
        execute = executor_for(self.app, name, limits, self.clock)
        self.execute = execute
        self.chord_keeper = ChordKeeper(used, execute.continuations, limits)
        self.pool: Any = pool or ExchangeablePool(Solo(execute, self.inbox.put))
        self.modules = Modules()
        self.lamport = LamportClock()
        self.events = self._events() if is_monitored else None
        self.away = broker_outage(self.clock)
        around = Surroundings(
            name=name,
            identity="here-1",
            queues=["celery"],
            router=Router(),
            broker=self.broker,
            pool=self.pool,
            tasks=self.app.tasks,
            settings=self.settings,
            given=settings,
            inbox=self.inbox,
            results=used,
            chord_keeper=self.chord_keeper,
            events=self.events,
            state_file=state_file,
            lamport=self.lamport,
            modules=self.modules,
            clock=self.clock,
            away=self.away,
        )
        self.worker = assemble(around)

    def _events(self) -> WorkerEvents:
        assert isinstance(self.broker, Broadcast)
        return WorkerEvents(
            self.broker, self.name, self.settings, self.lamport, self.clock
        )

    def run(self) -> None:
        """Let the worker do all that it can do now."""
        worker = self.worker
        worker.intake.lease.turn()
        while worker.intake.fetcher.turn() | self.handle() | self.settle():
            pass

    def handle(self) -> bool:
        """Let the loop empty its inbox."""
        handled = False
        while True:
            try:
                event = self.inbox.get_nowait()
            except Empty:
                return handled
            self.worker.handle(event)
            handled = True

    def settle(self) -> bool:
        """Let all stages do what lies ready."""
        settler = self.worker.settler
        stages = (
            settler.keeping,
            settler.settling,
            settler.refused,
            settler.forgetting,
        )
        turned = [stage.turn() for stage in stages]
        return any(turned)

    def remember_run(self, entry: str, task_id: str) -> None:
        """Have the broker know this as the current run of an entry."""
        term = self.broker.acquire("test", HOUR, 0)
        assert isinstance(term, Term)
        mark = Mark(self.clock.now(), "")
        run = Emission(entry, mark, Route("elsewhere"), b"", task_id)
        self.broker.emit(term, [run], HOUR)

    def left(self) -> int:
        """Return the number of messages that are in the queue or in flight."""
        self.broker.leave("here-1")
        self.broker.join("count", 1000)
        return len(self.broker.take("count", ["celery"], 100, next(_counts)))


class ExchangeablePool:
    """Hands all on to a pool that a test may exchange, also for one with processes."""

    def __init__(self, pool: Pool) -> None:
        self.pool: Any = pool

    @property
    def size(self) -> int:
        size: int = self.pool.size
        return size

    @property
    def demand(self) -> int:
        demand: int = self.pool.demand
        return demand

    def start(self) -> None:
        self.pool.start()

    def submit(self, jobs: Any) -> None:
        self.pool.submit(jobs)

    def recall(self) -> None:
        self.pool.recall()

    def resize(self, size: int) -> None:
        self.pool.resize(size)

    def processes(self) -> list[int]:
        processes: list[int] = self.pool.processes()
        return processes

    def stop(self) -> None:
        self.pool.stop()

    def kill(self) -> None:
        self.pool.kill()

    def terminate(self, token: str, number: int) -> None:
        self.pool.terminate(token, number)

    def renew(self, *, fresh: bool) -> bool:
        renewed: bool = self.pool.renew(fresh=fresh)
        return renewed


class SharingPool:
    """A pool that takes jobs and leaves the end of them to the test.

    It has no processes for them, as with threads.
    """

    def __init__(self, size: int = 2) -> None:
        self.size = self.demand = size
        self.recalled = False
        self.jobs: list[Job] = []
        self.killed = False

    def start(self) -> None:
        pass

    def submit(self, jobs: Any) -> None:
        self.jobs += jobs

    def recall(self) -> None:
        self.recalled = True

    def resize(self, size: int) -> None:
        self.size = self.demand = size

    def processes(self) -> list[int]:
        return [1234]

    def stop(self) -> None:
        pass

    def kill(self) -> None:
        self.killed = True


class HeldPool(SharingPool):
    """The same with processes, as prefork has."""

    def __init__(self, size: int = 2) -> None:
        super().__init__(size)
        self.signals: list[tuple[str, int]] = []
        self.renewed: list[bool] = []

    def terminate(self, token: str, number: int) -> None:
        self.signals.append((token, number))

    def renew(self, *, fresh: bool) -> bool:
        self.renewed.append(fresh)
        return True


def with_held_pool(bench: Bench, size: int = 2) -> HeldPool:
    """Put such a pool in place of the bench's; the room stays as it is."""
    pool = HeldPool(size)
    bench.pool.pool = pool
    return pool
