"""Fetching: as much as there is room for, from all queues, through faults."""

import itertools
import threading
from collections.abc import Callable, Collection, Sequence

import pytest

from beatd.background import Outage
from beatd.brokers.items import (
    Acknowledge,
    Delivery,
    Outgoing,
    Suspects,
    idle,
    pass_over,
)
from beatd.brokers.memory import MemoryBroker
from beatd.clock import SystemClock
from beatd.errors import BrokerUnavailable, ConfigError
from beatd.instant import MINUTE, SECOND, Span
from beatd.routing import Route
from beatd.worker.fetcher import LONGEST_WAIT, Fetcher, order_of
from beatd.worker.holdings import Holdings
from beatd.worker.isolation import PATIENCE as PATIENCE_WITH_SUSPECTS
from beatd.worker.isolation import Isolation
from beatd.worker.lease import Lease
from beatd.worker.window import PrefetchWindow
from tests.fakes import FakeClock
from tests.servers import PATIENCE, eventually


class Flaky(MemoryBroker):
    """A broker that may lose answers, be away, and that notes who asked for what."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        super().__init__(clock)
        self.away = 0
        self.lost_answers = 0
        self.asked: list[list[str]] = []

    def join(self, worker: str, lease: Span, queues: Collection[str] = ()) -> None:
        if self.away:
            self.away -= 1
            raise BrokerUnavailable("nobody answers")
        super().join(worker, lease, queues)

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
        self.asked.append(list(queues))
        found = super().take(
            worker, queues, limit, request, on_refused, suspects, together, on_held_back
        )
        if self.lost_answers:
            self.lost_answers -= 1
            raise BrokerUnavailable("the connection was cut")
        return found


class Intake:
    """A fetcher and a lease on a broker."""

    def __init__(
        self,
        broker: Flaky,
        window: int = 4,
        at_once: int | None = None,
        queues: Sequence[str] = "a",
        clock: FakeClock | None = None,
        order: str = "round_robin",
        max_deliveries: int = 3,
    ) -> None:
        away = Outage("the broker is away", "broker")
        self.came: list[str] = []
        self.deliveries: list[Delivery] = []
        self.recovered: list[int] = []
        self.crashes: list[BaseException] = []
        self.window = PrefetchWindow(window, at_once or window)
        self.lost: list[int] = []
        """The number of the lease each time that one was lost."""
        self.holdings = Holdings()
        self.lease = Lease(
            broker,
            "me",
            10 * SECOND,
            self.holdings,
            lambda: self.lost.append(self.lease.number),
            self.recovered.append,
            away,
            clock or FakeClock(),
        )
        self.fetcher = Fetcher(
            broker,
            "me",
            queues,
            self.lease,
            self.holdings,
            self.window,
            Isolation(clock or SystemClock(), max_deliveries, lambda: 2),
            self._deliver,
            away,
            order=order,
            clock=clock,
        )

    def _deliver(self, deliveries: list[Delivery], lease: int) -> None:
        self.came += [delivery.message.decode() for delivery in deliveries]
        self.deliveries += deliveries


def fill(broker: MemoryBroker, queue: str, *messages: str) -> None:
    broker.send([Outgoing(Route(queue), message.encode()) for message in messages])


def test_no_more_is_taken_than_there_is_room_for() -> None:
    broker = Flaky()
    intake = Intake(broker, window=2)
    fill(broker, "a", "1", "2", "3")
    intake.lease.turn()

    assert intake.fetcher.turn() is True
    assert intake.fetcher.turn() is False
    intake.window.clear(1)
    intake.fetcher.turn()

    assert intake.came == ["1", "2", "3"]


def test_while_runs_wait_half_of_their_places_are_filled_at_a_time() -> None:
    broker = Flaky()
    intake = Intake(broker, window=8, at_once=2)
    fill(broker, "a", *"123456789abcdef")
    intake.lease.turn()
    intake.fetcher.turn()
    asked = len(broker.asked)

    intake.window.clear(2)
    assert intake.fetcher.turn() is False
    assert len(broker.asked) == asked
    intake.window.clear(1)
    assert intake.fetcher.turn() is True

    assert len(broker.asked) == asked + 1
    assert "".join(intake.came) == "123456789ab"


@pytest.mark.parametrize(
    ("size", "at_once"), [(1, 1), (4, 4), (2, 1), (16, 15), (10, 20), (4, 1), (400, 99)]
)
def test_what_runs_never_waits_for_a_place_to_be_worth_a_request(
    size: int, at_once: int
) -> None:
    window = PrefetchWindow(size, at_once)
    assert window.room() == size
    window.fill(size)
    assert window.room() == 0

    window.clear(max(1, size - at_once))

    assert window.room() > 0


def test_a_window_that_grows_has_room_at_once() -> None:
    window = PrefetchWindow(4, 1)
    window.fill(4)

    window.resize(8, 2)
    assert window.room() == 4
    window.resize(4, 1)

    assert (window.free(), window.room()) == (0, 0)


def test_what_was_taken_with_a_lost_answer_comes_with_the_next_one() -> None:
    broker = Flaky()
    intake = Intake(broker)
    fill(broker, "a", "1", "2")
    intake.lease.turn()
    broker.lost_answers = 1
    with pytest.raises(BrokerUnavailable):
        intake.fetcher.turn()
    intake.fetcher.turn()

    assert intake.came == ["1", "2"]


def test_each_queue_is_first_in_its_turn() -> None:
    broker = Flaky()
    intake = Intake(broker, queues=["a", "b", "c"])
    intake.lease.turn()
    for _ in range(4):
        intake.fetcher.turn()

    assert [queues[0] for queues in broker.asked] == ["a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("order", "before", "after"),
    [
        ("round_robin", ["c", "b", "a", "c"], ["d", "b", "d", "b"]),
        ("sorted", ["a", "a", "a", "a"], ["b", "b", "b", "b"]),
        ("priority", ["c", "c", "c", "c"], ["d", "d", "d", "d"]),
    ],
)
def test_the_queue_order_strategy_says_which_queue_is_first(
    order: str, before: list[str], after: list[str]
) -> None:
    broker = Flaky()
    intake = Intake(broker, queues=["c", "b", "a"], order=order)
    intake.lease.turn()
    for _ in range(4):
        intake.fetcher.turn()
    intake.fetcher.take_from(["d", "b"])
    for _ in range(4):
        intake.fetcher.turn()

    assert [queues[0] for queues in broker.asked] == [*before, *after]
    assert order_of({"queue_order_strategy": order}) == order


def test_a_queue_that_is_refused_holds_up_no_other_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    broker = Flaky(clock)
    broker.closed["b"] = "it is closed"
    intake = Intake(broker, queues=["a", "b", "c"], clock=clock, window=100)
    intake.lease.turn()

    for number in range(60):
        fill(broker, "a", f"a{number}")
        fill(broker, "c", f"c{number}")
        intake.fetcher.turn()
        intake.fetcher.turn()
        intake.window.clear(2)
        clock.go_to(clock.now() + SECOND)

    assert len(intake.came) == 120
    [said] = caplog.records
    assert getattr(said, "event", "") == "queue.refused"
    assert said.getMessage() == (
        "nothing is taken from queue b: it is closed; the other queues go on, and it"
        " is tried again until that is mended"
    )
    tries = sum("b" in queues for queues in broker.asked)
    assert 5 <= tries <= 10  # a back-off: after 1, 2, 4, ... seconds


def test_a_queue_that_was_refused_is_taken_from_when_that_is_mended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    broker = Flaky(clock)
    fill(broker, "b", "1")
    broker.closed["b"] = "it is closed"
    intake = Intake(broker, queues=["a", "b"], clock=clock)
    intake.lease.turn()
    intake.fetcher.turn()
    broker.closed.clear()
    intake.fetcher.turn()
    assert intake.came == []

    clock.go_to(clock.now() + MINUTE)
    intake.fetcher.turn()

    assert intake.came == ["1"]
    said = [getattr(record, "event", "") for record in caplog.records]
    assert said == ["queue.refused", "queue.accepted"]


def test_the_wait_leaves_out_a_refused_queue_until_it_is_tried_again() -> None:
    clock = FakeClock()
    waits: list[tuple[list[str], Span]] = []
    enough = threading.Event()

    class Waited(Flaky):
        """A broker that notes what it was to wait for; waiting takes no time."""

        def await_message(self, queues: Sequence[str], timeout: Span) -> bool:
            waits.append((sorted(queues), timeout))
            clock.go_to(clock.now() + timeout)
            if len(waits) >= 4:
                enough.set()
                return super().await_message(queues, LONGEST_WAIT)
            return False

    broker = Waited(clock)
    broker.closed["b"] = "it is closed"
    intake = Intake(broker, queues=["a", "b"], clock=clock)
    intake.fetcher.start(intake.crashes.append)
    assert enough.wait(PATIENCE)
    intake.fetcher.stop()

    assert intake.crashes == []
    assert waits[:3] == [(["a"], SECOND), (["a"], 2 * SECOND), (["a"], 4 * SECOND)]


def test_a_refused_queue_is_tried_before_it_is_waited_for() -> None:
    clock = FakeClock()
    waits: list[list[str]] = []
    enough = threading.Event()

    class Slow(Flaky):
        """A broker that answers after the rest of the refused queue has ended."""

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
            found = super().take(
                worker,
                queues,
                limit,
                request,
                on_refused,
                suspects,
                together,
                on_held_back,
            )
            if "b" not in queues:
                clock.go_to(clock.now() + MINUTE)
            return found

        def await_message(self, queues: Sequence[str], timeout: Span) -> bool:
            waits.append([*queues])
            if len(waits) >= 4:
                enough.set()
                return super().await_message(["a"], LONGEST_WAIT)
            return False

    broker = Slow(clock)
    broker.closed["b"] = "it is closed"
    intake = Intake(broker, queues=["a", "b"], clock=clock)
    intake.fetcher.start(intake.crashes.append)
    assert enough.wait(PATIENCE)
    intake.fetcher.stop()

    assert intake.crashes == []
    assert waits[:4] == [["a"]] * 4


def test_an_order_that_nobody_knows_is_refused() -> None:
    assert order_of({}) == "round_robin"
    with pytest.raises(ConfigError, match="one of round_robin, sorted, priority"):
        order_of({"queue_order_strategy": "fair"})


def test_the_lease_gives_back_what_dead_workers_held() -> None:
    clock = FakeClock()
    broker = Flaky(clock)
    fill(broker, "a", "1")
    broker.join("dead", SECOND)
    broker.take("dead", ["a"], 1, 1)
    intake = Intake(broker)
    intake.lease.turn()
    assert intake.recovered == []

    clock.go_to(clock.now() + SECOND)
    intake.lease.turn()
    intake.fetcher.turn()

    assert intake.recovered == [1]
    assert intake.came == ["1"]


def test_a_lease_that_others_ended_is_told_of_before_anything_else_is_taken() -> None:
    clock = FakeClock()
    broker = Flaky(clock)
    intake = Intake(broker, clock=clock)
    intake.lease.turn()
    clock.go_to(clock.now() + 10 * SECOND)
    broker.recover()

    broker.away = 1
    with pytest.raises(BrokerUnavailable):  # the new lease cannot begin yet
        intake.lease.turn()
    assert intake.lost == [1]
    intake.lease.turn()
    intake.lease.turn()

    assert intake.lost == [1]
    fill(broker, "a", "1")
    assert intake.fetcher.turn() is True


def test_what_was_left_in_flight_is_forgotten_with_its_lease() -> None:
    clock = FakeClock()
    broker = Flaky(clock)
    intake = Intake(broker, clock=clock)
    fill(broker, "a", "1")
    intake.lease.turn()
    intake.fetcher.turn()
    [left] = intake.deliveries
    intake.holdings.left(left.token)
    intake.holdings.settled([left.token])
    intake.lease.turn()
    assert [*intake.holdings.known()[1]] == [left.token]

    clock.go_to(clock.now() + 10 * SECOND)
    broker.recover()
    intake.lease.turn()

    assert [*intake.holdings.known()[1]] == []
    intake.fetcher.turn()
    assert intake.came == ["1", "1"]


def test_a_lease_that_nobody_ended_goes_on_however_late_it_is_renewed() -> None:
    clock = FakeClock()
    broker = Flaky(clock)
    intake = Intake(broker, clock=clock)
    intake.lease.turn()
    assert not intake.lease.has_run_out()

    clock.go_to(clock.now() + 10 * SECOND)
    assert intake.lease.has_run_out()
    intake.lease.turn()

    assert not intake.lease.has_run_out()
    assert intake.lost == []


def test_the_broker_is_told_with_each_lease_which_queues_are_taken_from() -> None:
    broker = Flaky()
    intake = Intake(broker)
    intake.lease.take_from(["celery"])
    intake.lease.turn()
    assert [[*one.queues] for one in broker.overview([]).workers] == [["celery"]]

    intake.lease.take_from(["celery", "mail"])
    intake.lease.turn()
    assert [[*one.queues] for one in broker.overview([]).workers] == [
        ["celery", "mail"]
    ]

    broker.leave("me")
    intake.lease.turn()
    assert [[*one.queues] for one in broker.overview([]).workers] == [
        ["celery", "mail"]
    ]


def test_a_fetcher_waits_for_messages_and_for_room_and_stops_at_once() -> None:
    broker = Flaky()
    intake = Intake(broker, window=1)
    intake.fetcher.start(intake.crashes.append)
    fill(broker, "a", "1", "2")
    eventually(lambda: intake.came == ["1"])
    intake.window.clear(1)
    eventually(lambda: intake.came == ["1", "2"])

    stopping = threading.Thread(target=intake.fetcher.stop)
    stopping.start()
    stopping.join(PATIENCE)

    assert not stopping.is_alive()
    assert intake.crashes == []


def test_a_broker_that_comes_late_is_waited_for() -> None:
    broker = Flaky()
    broker.away = 2
    broker.lost_answers = 1
    intake = Intake(broker)
    fill(broker, "a", "1")
    intake.fetcher.start(intake.crashes.append)
    eventually(lambda: intake.came == ["1"])
    intake.fetcher.stop()

    assert intake.crashes == []


def test_a_lease_is_renewed_until_it_is_stopped() -> None:
    broker = Flaky()
    broker.away = 1
    intake = Intake(broker)
    intake.lease.start(intake.crashes.append)
    fill(broker, "a", "1")
    numbers = itertools.count(1)
    eventually(lambda: broker.take("me", ["a"], 1, next(numbers)))
    intake.lease.stop()

    assert intake.crashes == []


def suspects(
    broker: Flaky, clock: FakeClock, queue: str, *names: str, deaths: int = 2
) -> None:
    """Have so many workers die, each of which has taken these messages."""
    fill(broker, queue, *names)
    for number in range(deaths):
        worker, some = f"{number} dies with {names}", len(names)
        broker.join(worker, SECOND)
        taken = broker.take(worker, [queue], some, 1, together=some)
        assert len(taken) == some
        broker.recover()  # another worker's heartbeat sees that it lives
        clock.go_to(clock.now() + SECOND)
        broker.recover()


class Isolated:
    """A fetcher that may hold four deliveries, after two workers have died."""

    def __init__(
        self,
        *died: str,
        deaths: int = 2,
        queues: str = "a",
        kind: type[Flaky] = Flaky,
        max_deliveries: int = 3,
    ) -> None:
        self.clock = FakeClock()
        self.broker = kind(self.clock)
        self.intake = Intake(
            self.broker,
            queues=queues,
            clock=self.clock,
            max_deliveries=max_deliveries,
        )
        self.intake.lease.turn()
        self._number = itertools.count(1)
        suspects(self.broker, self.clock, "a", *died, deaths=deaths)

    def fetch(self) -> list[str]:
        """Return what comes within a few turns."""
        self.intake.lease.turn()
        before = len(self.intake.came)
        for _ in range(3):
            self.intake.fetcher.turn()
        return self.intake.came[before:]

    def have_run(self, *messages: str) -> None:
        """Let these wait for a result backend that is away, as the worker does."""
        came = {one.message.decode(): one.token for one in self.intake.deliveries}
        tokens = [came[message] for message in messages]
        self.intake.holdings.have_run(tokens)
        self.intake.fetcher.isolation.settled(tokens)
        self.intake.window.clear(len(tokens))

    def pass_time(self, span: Span) -> None:
        for _ in range(span // SECOND):
            self.clock.go_to(self.clock.now() + SECOND)
            self.intake.lease.turn()

    def settle(self, message: str) -> None:
        """Settle a delivery as the loop does."""
        [one] = [d for d in self.intake.deliveries if d.message == message.encode()]
        self.broker.settle("me", [Acknowledge(one)], [], next(self._number))
        self.intake.fetcher.isolation.settled([one.token])
        self.intake.window.clear(1)


def test_nothing_is_taken_beside_a_message_that_a_worker_died_with() -> None:
    isolated = Isolated("s1", "s2")
    fill(isolated.broker, "a", "1", "2")

    assert isolated.fetch() == ["s1"]
    assert isolated.fetch() == []
    isolated.settle("s1")
    assert isolated.fetch() == ["s2"]
    isolated.settle("s2")
    assert isolated.fetch() == ["1", "2"]


def test_messages_that_one_worker_died_with_are_taken_as_the_pool_runs_them() -> None:
    isolated = Isolated("s1", "s2", "s3", "s4", deaths=1)  # the pool runs two
    fill(isolated.broker, "a", "1", "2")

    assert isolated.fetch() == ["s1", "s2"]
    assert isolated.fetch() == []
    isolated.settle("s1")
    assert isolated.fetch() == ["s3"]
    isolated.settle("s2")
    isolated.settle("s3")
    assert isolated.fetch() == ["s4"]
    assert isolated.fetch() == []  # nothing else beside it
    isolated.settle("s4")
    assert isolated.fetch() == ["1", "2"]


def test_messages_go_alone_whose_next_death_is_the_last() -> None:
    isolated = Isolated("s1", "s2", deaths=1, max_deliveries=2)

    assert isolated.fetch() == ["s1"]
    assert isolated.fetch() == []


def test_no_message_that_a_worker_died_with_waits_for_ever_for_those_like_it() -> None:
    isolated = Isolated("for hours", "s1", deaths=1)
    fill(isolated.broker, "a", "1", "2")
    assert isolated.fetch() == ["for hours", "s1"]
    isolated.settle("s1")
    assert isolated.fetch() == []

    isolated.pass_time(PATIENCE_WITH_SUSPECTS)

    assert isolated.fetch() == ["1", "2"]


def test_a_message_that_a_worker_died_with_waits_until_nothing_else_is_held() -> None:
    isolated = Isolated()
    fill(isolated.broker, "a", "1", "2")
    assert isolated.fetch() == ["1", "2"]
    suspects(isolated.broker, isolated.clock, "a", "s1")
    fill(isolated.broker, "a", "3")

    isolated.settle("1")
    assert isolated.fetch() == []
    isolated.settle("2")
    assert isolated.fetch() == ["s1"]


def test_a_task_of_hours_holds_up_no_message_that_a_worker_died_with() -> None:
    isolated = Isolated()
    fill(isolated.broker, "a", "for hours")
    assert isolated.fetch() == ["for hours"]
    suspects(isolated.broker, isolated.clock, "a", "s1", "s2")
    fill(isolated.broker, "a", "1")
    assert isolated.fetch() == []

    isolated.pass_time(PATIENCE_WITH_SUSPECTS)

    assert isolated.fetch() == ["s1"]
    isolated.settle("s1")
    assert isolated.fetch() == ["s2"]  # it does not wait for the same once more
    isolated.settle("s2")
    assert isolated.fetch() == ["1"]
    suspects(isolated.broker, isolated.clock, "a", "s3")
    assert isolated.fetch() == []


def test_other_queues_do_not_keep_a_suspect_waiting() -> None:
    isolated = Isolated(queues="ab")
    fill(isolated.broker, "b", "1", "2")
    held = isolated.fetch()
    suspects(isolated.broker, isolated.clock, "a", "s1")

    for number in range(3, 9):
        fill(isolated.broker, "b", str(number))
        came = isolated.fetch()
        held += came
        if "s1" in came:
            break
        isolated.settle(held.pop(0))

    assert held == ["s1"]


class LooksInOrder(Flaky):
    """A broker that says nothing of queues behind a suspect that waits."""

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
        refused: list[tuple[str, str]] = []

        def hold_back() -> None:
            refused.clear()
            on_held_back()

        found = super().take(
            worker,
            queues,
            limit,
            request,
            lambda queue, reason: refused.append((queue, reason)),
            suspects,
            together,
            hold_back,
        )
        for queue, reason in refused:
            on_refused(queue, reason)
        return found


def test_a_queue_behind_a_suspect_that_waits_does_not_count_as_accepted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    isolated = Isolated(queues="ab", kind=LooksInOrder)
    isolated.broker.closed["b"] = "it is closed"
    fill(isolated.broker, "a", "1")
    assert isolated.fetch() == ["1"]
    suspects(isolated.broker, isolated.clock, "a", "s1")

    for _ in range(5):
        assert isolated.fetch() == []
        isolated.pass_time(SECOND)

    said = [getattr(record, "event", "") for record in caplog.records]
    assert "queue.refused" in said
    assert "queue.accepted" not in said


def test_a_message_that_a_worker_died_with_holds_up_others_for_a_while_only() -> None:
    isolated = Isolated("for hours", "s2")
    fill(isolated.broker, "a", "1", "2", "3", "4")
    assert isolated.fetch() == ["for hours"]

    isolated.pass_time(PATIENCE_WITH_SUSPECTS - SECOND)
    assert isolated.fetch() == []
    isolated.pass_time(SECOND)

    assert isolated.fetch() == ["1", "2", "3"]  # never another one like it
    isolated.settle("for hours")
    for message in "123":
        isolated.settle(message)
    assert isolated.fetch() == ["s2"]


def test_runs_that_wait_for_their_results_keep_no_suspect_waiting() -> None:
    isolated = Isolated()
    fill(isolated.broker, "a", "1", "2")
    assert isolated.fetch() == ["1", "2"]
    suspects(isolated.broker, isolated.clock, "a", "s1", "s2")
    intake = isolated.intake
    intake.fetcher.start(intake.crashes.append)
    eventually(lambda: len(isolated.broker.asked) > 2)

    # The broker is told at once, not with a heartbeat: none comes here.
    isolated.have_run("1", "2")
    eventually(lambda: intake.came == ["1", "2", "s1"])
    isolated.have_run("s1")
    eventually(lambda: intake.came == ["1", "2", "s1", "s2"])
    intake.fetcher.stop()

    assert intake.crashes == []


def test_a_fetcher_waits_for_what_it_holds_while_a_suspect_waits() -> None:
    isolated = Isolated()
    fill(isolated.broker, "a", "1")
    assert isolated.fetch() == ["1"]
    suspects(isolated.broker, isolated.clock, "a", "s1")
    asked = len(isolated.broker.asked)
    fetcher = isolated.intake.fetcher
    fetcher.start(isolated.intake.crashes.append)
    eventually(lambda: len(isolated.broker.asked) > asked)

    isolated.settle("1")
    eventually(lambda: isolated.intake.came == ["1", "s1"])
    fetcher.stop()

    assert isolated.intake.crashes == []
    assert len(isolated.broker.asked) < asked + 10
