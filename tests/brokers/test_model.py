"""Any sequence of requests has the same answers from every broker as from memory."""

from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from beatd.brokers.base import Broker
from beatd.brokers.items import (
    Acknowledge,
    Act,
    Begin,
    Delay,
    Delivery,
    Emission,
    GiveBack,
    Outgoing,
    SetAside,
    Term,
)
from beatd.brokers.memory import MemoryBroker
from beatd.errors import LedgerMoved, TermOver
from beatd.instant import MINUTE
from beatd.routing import Queue, Route
from beatd.timetable.ledger import Edition, Mark
from tests.brokers.backends import Backend, Redis, SQLite
from tests.servers import Server, emptied

entries = st.sampled_from(["a", "b", "c"])
slots = st.integers(-2, 6)
queues = st.sampled_from(["q1", "q2"])
routes = st.one_of(
    st.builds(Route, queues, priority=st.integers(-1, 10)),
    st.just(Route("", "media", "video")),
    st.just(Route("", "media", "nowhere")),
)
rows = st.builds(
    Mark,
    slots,
    st.sampled_from(["f1", "f2"]),
    st.integers(0, 3),
    st.none() | slots,
    st.none() | slots,
)
emissions = st.builds(
    Emission,
    entries,
    rows,
    st.none() | routes,
    st.binary(max_size=4)
    | st.just(b'{"headers": {"beatd_entry": "a", "id": "id-1"}}')
    | st.just(b'{"headers": ["beatd_entry"]}'),
    st.sampled_from(["", "id-1", "id-2"]),
)


editions = st.none() | st.builds(
    Edition,
    st.sampled_from("xy"),
    st.integers(1, 4),
    st.sampled_from(["", "1:aa", "1:aa,3:bb"]),
)

acts: st.SearchStrategy[Callable[[Delivery], Act]] = st.sampled_from(
    [
        Acknowledge,
        GiveBack,
        lambda delivery: Acknowledge(delivery, "a", "id-1"),
        lambda delivery: Begin(delivery, "a", "id-1"),
        lambda delivery: Acknowledge(delivery, "a", "id-1", goes_on=True),
        lambda delivery: Delay(delivery, 2**45),
        lambda delivery: SetAside(delivery, "why"),
        lambda delivery: SetAside(delivery, "why", way_back=Route(delivery.queue)),
    ]
)


class SameAnswers(RuleBasedStateMachine):
    """Asks memory and another broker the same; leases outlast every sequence."""

    backend: Backend

    def __init__(self) -> None:
        super().__init__()
        self.brokers: list[Broker] = [MemoryBroker(), self.backend.connect()]
        self.terms: list[Term] = []
        self.leads = False
        self.attempts = 0
        self.requests = 0
        self.taken: list[tuple[Delivery, ...]] = []
        """What was taken since the worker joined, as each broker gave it."""
        self.joined = False
        bound = [Queue("q1", "media", "direct", "video"), Queue("q2", "q2", "direct")]
        for broker in self.brokers:
            broker.declare(bound)

    @precondition(lambda self: not self.leads)
    @rule(floor=st.integers(0, 9))
    def acquire(self, floor: int) -> None:
        self.terms = []
        for broker in self.brokers:
            term = broker.acquire("someone", MINUTE, floor)
            assert isinstance(term, Term)
            self.terms.append(term)
        self.leads = True
        assert self.terms[0].number == self.terms[1].number

    @precondition(lambda self: self.leads)
    @rule()
    def resign(self) -> None:
        for broker, term in zip(self.brokers, self.terms, strict=True):
            broker.resign(term)
        self.leads = False

    @precondition(lambda self: self.terms)
    @rule(batch=st.lists(emissions, max_size=6), edition=editions)
    def emit(self, batch: list[Emission], edition: Edition | None) -> None:
        answers: list[Any] = []
        for broker, term in zip(self.brokers, self.terms, strict=True):
            try:
                answers.append(broker.emit(term, batch, MINUTE, edition))
            except (TermOver, LedgerMoved) as error:
                answers.append(type(error))
        assert answers[0] == answers[1]
        self.look()

    @precondition(lambda self: self.leads)
    @rule(
        marks=st.dictionaries(entries, rows, max_size=2),
        gone=st.sets(entries, max_size=1),
        era=st.integers(0, 5),
        edition=editions,
    )
    def rewind(
        self,
        marks: dict[str, Mark],
        gone: set[str],
        era: int,
        edition: Edition | None,
    ) -> None:
        for broker, term in zip(self.brokers, self.terms, strict=True):
            broker.write_ledger(term, marks, gone, era, edition)
        self.look()

    @rule(batch=st.lists(st.builds(Outgoing, routes, st.binary(max_size=4))))
    def send(self, batch: list[Outgoing]) -> None:
        for broker in self.brokers:
            broker.send(batch)

    @rule()
    def join(self) -> None:
        self.joined = True
        for broker in self.brokers:
            broker.join("w", MINUTE)

    @rule()
    def stay(self) -> None:
        held = [broker.stay("w", MINUTE) for broker in self.brokers]
        assert held == [self.joined, self.joined]

    @rule(data=st.data(), request=st.integers(1, 99), ended=st.integers(0, 3))
    def reclaim(self, data: Any, request: int, ended: int) -> None:
        """What does not go back may be settled all the same, and what does is gone."""
        pairs = data.draw(st.permutations(self.taken))[: data.draw(st.integers(0, 3))]
        back = []
        for index, broker in enumerate(self.brokers):
            held = [pair[index].token for pair in pairs]
            back.append(broker.reclaim("w", held, request, held[:ended]))
        assert back[0] == back[1]
        self.look()

    @rule()
    def leave(self) -> None:
        self.joined = False
        self.taken.clear()
        for broker in self.brokers:
            broker.leave("w")
        self.look()

    @rule(data=st.data())
    def purge(self, data: Any) -> None:
        names = data.draw(st.sets(queues))
        one, other = (broker.purge(names) for broker in self.brokers)
        assert one == other
        self.look()

    @rule(order=st.permutations(["q1", "q2"]), limit=st.integers(0, 4))
    def take(self, order: list[str], limit: int) -> None:
        self.attempts += 1
        request = self.attempts
        taken = [broker.take("w", order, limit, request) for broker in self.brokers]
        assert _plain(taken[0]) == _plain(taken[1])
        self.taken += zip(*taken, strict=True)

    @precondition(lambda self: self.joined)
    @rule(
        data=st.data(),
        follows=st.lists(routes, max_size=2),
        times=st.sampled_from([1, 1, 2]),
    )
    def acknowledge(self, data: Any, follows: list[Route], times: int) -> None:
        pairs = data.draw(st.permutations(self.taken))[: data.draw(st.integers(0, 3))]
        entry, run = data.draw(entries), data.draw(st.sampled_from(["", "id-1"]))
        send = [Outgoing(route, b"follows") for route in follows]
        self.requests += 1
        for index, broker in enumerate(self.brokers):
            acts = [Acknowledge(pair[index], entry, run) for pair in pairs]
            for _ in range(times):
                broker.settle("w", acts, send, self.requests)
        self.taken = [pair for pair in self.taken if pair not in pairs]
        self.look()

    @rule(data=st.data())
    def give_back(self, data: Any) -> None:
        pairs = data.draw(st.permutations(self.taken))[: data.draw(st.integers(0, 3))]
        self.requests += 1
        for index, broker in enumerate(self.brokers):
            acts = [GiveBack(pair[index]) for pair in pairs]
            broker.settle("w", acts, [], self.requests)

    @rule(
        data=st.data(),
        follows=st.lists(routes, max_size=2),
        times=st.sampled_from([1, 1, 2]),
    )
    def settle(self, data: Any, follows: list[Route], times: int) -> None:
        pairs = data.draw(st.permutations(self.taken * 2))
        pairs = pairs[: data.draw(st.integers(0, 4))]
        kinds = data.draw(st.lists(acts, min_size=len(pairs), max_size=len(pairs)))
        send = [Outgoing(route, b"follows") for route in follows]
        self.requests += 1
        answers = []
        for index, broker in enumerate(self.brokers):
            chosen = [
                kind(pair[index]) for kind, pair in zip(kinds, pairs, strict=True)
            ]
            for _ in range(times if self.joined else 1):
                answers.append(broker.settle("w", chosen, send, self.requests))
        assert all(answer == answers[0] for answer in answers)
        self.look()

    def look(self) -> None:
        memory, other = self.brokers
        assert memory.read_ledger() == other.read_ledger()
        every = ["a", "b", "c"]
        assert memory.running(every) == other.running(every)
        ids = ["id-1", "id-2"]
        assert memory.held_runs(ids) == other.held_runs(ids)
        assert _waiting(memory) == _waiting(other)
        assert _dead(memory) == _dead(other)

    def teardown(self) -> None:
        left = []
        for broker in self.brokers:
            broker.leave("w")
            broker.join("last", MINUTE)
            left.append(_plain(broker.take("last", ["q1", "q2"], 1000, 1)))
        self.brokers[1].close()
        assert left[0] == left[1]


def _plain(taken: list[Delivery]) -> list[tuple[str, bytes, int]]:
    return [(one.queue, one.message, one.deliveries) for one in taken]


def _waiting(broker: Broker) -> list[tuple[str, bytes]]:
    return sorted((one.queue, one.message) for one in broker.delayed(["q1", "q2"], 99))


def _dead(broker: Broker) -> list[tuple[str, bytes | None, int]]:
    return [
        (one.queue, broker.dead_message(one.id), one.deliveries)
        for one in broker.dead_letters()
    ]


CALM = settings(
    max_examples=60,
    derandomize=True,
    report_multiple_bugs=False,  # shrinking one takes long enough
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_redis_answers_as_memory_does(server: Server) -> None:
    class OnRedis(SameAnswers):
        def __init__(self) -> None:
            with emptied(server):
                self.backend = Redis(server)
            super().__init__()

    run_state_machine_as_test(OnRedis, settings=CALM)


def test_sqlite_answers_as_memory_does(tmp_path: Path) -> None:
    class OnSQLite(SameAnswers):
        def __init__(self) -> None:
            self.backend = SQLite(Path(mkdtemp(dir=tmp_path)))
            super().__init__()

    run_state_machine_as_test(OnSQLite, settings=CALM)
