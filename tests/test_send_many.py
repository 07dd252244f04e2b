"""Many calls in one go: as `apply_async` makes them, some in one step, none silent."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from beatd import Beatd, group
from beatd.app.bulk import LARGEST, MOST
from beatd.app.shapes import CallShapes
from beatd.brokers.items import Outgoing
from beatd.brokers.memory import MemoryBroker
from beatd.errors import (
    BrokerUnavailable,
    CallsNotSent,
    ItemRefused,
    MessageError,
)
from beatd.instant import HOUR
from beatd.message import Call, Limits, MessageFormat, Sending, read_body, read_envelope
from beatd.routing import Route, Router
from beatd.tasks import Task
from tests.fakes import FakeClock
from tests.worker.bench import Bench


class Shop(MemoryBroker):
    """A broker that counts requests to send, and refuses what it is told to."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.steps: list[int] = []
        """How many messages each request had."""
        self.closed_queue = ""
        """Messages for this queue are refused."""
        self.away_after: int | None = None
        """After so many requests it does not answer."""

    def send(self, batch: Sequence[Outgoing]) -> None:
        if self.away_after == len(self.steps):
            raise BrokerUnavailable("nobody answers")
        if any(one.route.queue == self.closed_queue for one in batch):
            raise ItemRefused(f"{self.closed_queue} is no list")
        self.steps.append(len(batch))
        super().send(batch)

    def calls(self, *queues: str) -> list[Call]:
        """Return the calls on these queues, in the order in which they were sent."""
        self.join("reader", HOUR)
        taken = self.take("reader", queues or ("celery",), 10_000, 1)
        return [
            read_body(read_envelope(one.message, Limits()), Limits()) for one in taken
        ]


def without_tag(call: Call) -> Any:
    """Return the message of a call without its tag, which no other has."""
    envelope = json.loads(call.envelope.raw)
    assert len(envelope["properties"].pop("delivery_tag")) == 36
    return envelope


@pytest.fixture
def broker() -> Shop:
    return Shop()


@pytest.fixture
def app(broker: Shop) -> Beatd:
    app = Beatd(set_as_current=False, task_publish_retry=False)
    app.use(app.settings, broker)
    return app


@pytest.fixture
def add(app: Beatd) -> Task[[int, int], int]:
    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    return add


def test_calls_of_one_task_are_queued_in_order_with_their_results(
    add: Task[[int, int], int], broker: Shop
) -> None:
    results = add.send_many((n, 2) for n in range(5))

    calls = broker.calls()
    assert [call.args for call in calls] == [[n, 2] for n in range(5)]
    ids = [call.envelope.id for call in calls]
    assert ids == [one.id for one in results]
    assert len({*ids}) == 5


def test_a_message_is_that_of_apply_async(
    app: Beatd, add: Task[[int, int], int], broker: Shop
) -> None:
    one = add.s(1, y=2).set(priority=3, headers={"who": "me"}, task_id="a")
    add.apply_async((1,), {"y": 2}, priority=3, headers={"who": "me"}, task_id="a")

    app.send_many([one, dict(one)])
    add.send_many([(1, 2)], priority=3, headers={"who": "me"})

    first, second, third, fourth = map(without_tag, broker.calls())
    assert first == second == third
    assert fourth["headers"]["who"] == "me"
    assert fourth["properties"]["priority"] == 3


def test_what_cannot_be_sent_is_named_and_all_others_are_sent(
    app: Beatd, add: Task[[int, int], int], broker: Shop
) -> None:
    broker.closed_queue = "closed"
    calls = [add.s(n, 2) for n in range(6)]
    calls[1] = add.s(1)
    calls[2] = add.s(object(), 2)
    calls[4].set(queue="closed")

    with pytest.raises(CallsNotSent) as caught:
        app.send_many(calls)

    problems = caught.value.problems
    assert {at: type(why) for at, why in problems.items()} == {
        1: TypeError,
        2: MessageError,
        4: ItemRefused,
    }
    assert [call.args for call in broker.calls()] == [[n, 2] for n in (0, 3, 5)]
    assert [one and one.id for one in caught.value.results].count(None) == 3
    first, *named = str(caught.value).splitlines()
    assert first == "3 of 6 calls were not sent"
    assert named[0].strip().startswith("call 1: missing a required argument: 'y'")
    assert named[2].strip() == "call 4: closed is no list"


def test_once_the_broker_is_away_the_calls_that_follow_are_not_tried(
    add: Task[[int, int], int], broker: Shop
) -> None:
    broker.away_after = 1

    with pytest.raises(CallsNotSent) as caught:
        add.send_many((n, 2) for n in range(3 * MOST))

    assert [*caught.value.problems] == [*range(MOST, 3 * MOST)]
    assert all(caught.value.results[:MOST])
    assert broker.steps == [MOST]
    assert "and 1995 more" in str(caught.value)


def test_arguments_that_are_no_list_are_named(add: Task[[int, int], int]) -> None:
    wrong: Any = ["ab", 7]

    with pytest.raises(CallsNotSent, match=r"call 0: .*got str\n.*call 1: .*got int"):
        add.send_many(wrong)


def test_calls_share_no_id(add: Task[[int, int], int], broker: Shop) -> None:
    with pytest.raises(MessageError, match="task_id"):
        add.send_many([(1, 2)], task_id="a")

    assert broker.steps == []


def test_none_is_none(app: Beatd, broker: Shop) -> None:
    assert app.send_many([]) == []
    assert broker.steps == []


def test_a_step_has_bounds_in_calls_and_in_bytes(
    app: Beatd, add: Task[[int, int], int], broker: Shop
) -> None:
    add.send_many((n, 2) for n in range(2 * MOST + 5))
    assert broker.steps == [MOST, MOST, 5]

    broker.steps.clear()
    large = "x" * (LARGEST // 4)
    app.send_many([app.signature("other", (large,)) for _ in range(7)])
    assert broker.steps == [3, 3, 1]


def test_a_task_with_an_apply_async_of_its_own_and_a_canvas_go_by_it_in_their_place(
    app: Beatd, add: Task[[int, int], int], broker: Shop
) -> None:
    asked: list[Any] = []

    class Own(Task[..., Any]):
        def apply_async(
            self, args: Any = None, kwargs: Any = None, **options: Any
        ) -> Any:
            asked.append(args)
            if args == (2, 2):
                raise LookupError("sold out")
            return super().apply_async(args, kwargs, **options)

    own = app.task(name="own", base=Own)(lambda x, y: x)
    several = group(add.s(7, 2), add.s(8, 2))

    with pytest.raises(CallsNotSent) as caught:
        app.send_many([add.s(0, 2), own.s(1, 2), own.s(2, 2), several, add.s(9, 2)])

    assert asked == [(1, 2), (2, 2)]
    assert [*caught.value.problems] == [2]
    assert len(caught.value.results[3]) == 2
    assert [call.args[0] for call in broker.calls()] == [0, 1, 7, 8, 9]


def test_where_tasks_run_eagerly_they_do(broker: Shop) -> None:
    app = Beatd(set_as_current=False, task_always_eager=True)
    app.use(app.settings, broker)
    double = app.task(name="double")(lambda x: 2 * x)

    results = [*double.send_many([(1,), (2,)]), *app.send_many([double.s(3)])]

    assert [one.get() for one in results] == [2, 4, 6]
    assert broker.steps == []


def test_calls_of_a_run_are_its_children() -> None:
    bench = Bench()
    seen: list[Any] = []

    @bench.app.task(name="part", bind=True)
    def part(self: Task[..., Any], n: int) -> None:
        seen.append((n, self.request.parent_id))

    @bench.app.task(name="whole", bind=True)
    def whole(self: Task[..., Any]) -> list[str]:
        results = part.send_many([(1,), (2,)])
        assert self.request.children == results
        return [one.id for one in results]

    sent = whole.delay()
    bench.run()

    assert sorted(seen) == [(1, sent.id), (2, sent.id)]
    assert bench.results.metas[sent.id].status == "SUCCESS"


# Costs, counted


class CountingRouter(Router):
    """Counts how often it is asked."""

    asked_for = 0

    def routed(
        self,
        task: str,
        options: Mapping[str, Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> tuple[Mapping[str, Any], Route]:
        self.asked_for += 1
        return super().routed(task, options, args, kwargs)


def test_what_calls_of_one_task_share_is_made_once() -> None:
    router = CountingRouter(routes={"add": {"queue": "q"}})
    shapes = CallShapes(MessageFormat(), router)

    made = [
        shapes.of(Sending("add", (n,), {}, {"task_id": f"id-{n}"}), registered=True)
        for n in range(1000)
    ]

    assert router.asked_for == 1
    assert len({id(one.shape) for one in made}) == 1


def test_a_router_of_the_users_own_sees_each_call() -> None:
    asked: list[Any] = []

    def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:
        asked.append(args)
        return {"queue": f"q{args[0]}"}

    shapes = CallShapes(MessageFormat(), Router(routes=route))
    made = [
        shapes.of(Sending("add", (n,), {}, {}), registered=True).shape.route.queue
        for n in range(3)
    ]

    assert made == ["q0", "q1", "q2"]
    assert asked == [(0,), (1,), (2,)]
