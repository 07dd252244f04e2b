"""Deliveries under a lease: taken once, settled once, given back when a worker dies."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import (
    ENOUGH,
    Acknowledge,
    Begin,
    Delay,
    Delivery,
    GiveBack,
    Outgoing,
    SetAside,
    Suspects,
)
from beatd.clock import SystemClock
from beatd.instant import MINUTE, SECOND, Instant
from beatd.routing import Route
from tests.brokers.backends import LEASED, Backend
from tests.brokers.making import (
    CELERY,
    NOON,
    emission,
    lead,
    lying_in,
    messages,
    outgoing,
    settle,
    take_all,
)
from tests.servers import PATIENCE, eventually

LONG = int(PATIENCE) * SECOND


@pytest.fixture
def worker(broker: Broker) -> str:
    broker.join("w1", MINUTE)
    return "w1"


def fill(broker: Broker, *texts: bytes) -> None:
    broker.send([outgoing(text) for text in texts])


def now() -> Instant:
    return SystemClock().now()


@pytest.mark.parametrize("backend", LEASED, indirect=True)
def test_a_queue_that_is_refused_holds_up_no_other(
    backend: Backend, broker: Broker, worker: str
) -> None:
    fill(broker, b"1", b"2")
    broker.send([outgoing(b"3", "third")])
    backend.refuse("taken")
    refused: dict[str, str] = {}
    queues = ["taken", "celery", "third"]

    taken = broker.take(worker, queues, 10, 1, refused.__setitem__)
    nothing = broker.take(worker, queues, 10, 2)

    assert messages(taken) == [b"1", b"2", b"3"]
    assert refused.keys() == {"taken"}
    assert refused["taken"]
    assert nothing == []
    backend.admit("taken")
    refused.clear()
    broker.send([outgoing(b"4", "taken")])
    again = broker.take(worker, queues, 10, 3, refused.__setitem__)
    assert messages(again) == [b"4"]
    assert refused == {}


def test_what_one_takes_another_does_not_get(
    broker: Broker, other: Broker, worker: str
) -> None:
    fill(broker, b"1", b"2", b"3")
    other.join("w2", MINUTE)

    mine = broker.take(worker, ["celery"], 2, 1)
    theirs = other.take("w2", ["celery"], 2, 1)

    assert [(d.queue, d.message, d.deliveries) for d in mine] == [
        ("celery", b"1", 1),
        ("celery", b"2", 1),
    ]
    assert messages(theirs) == [b"3"]
    assert len({delivery.token for delivery in mine}) == 2


def test_priority_comes_before_the_order_of_queues(broker: Broker, worker: str) -> None:
    broker.send(
        [
            outgoing(b"b6", "b", 6),
            outgoing(b"a6", "a", 6),
            outgoing(b"b0", "b"),
            outgoing(b"a0", "a"),
        ]
    )

    taken = broker.take(worker, ["b", "a"], 3, 1)

    assert messages(taken) == [b"b0", b"a0", b"b6"]
    assert [delivery.queue for delivery in taken] == ["b", "a", "b"]


def test_nothing_to_take_is_an_empty_list(broker: Broker, worker: str) -> None:
    assert broker.take(worker, ["celery"], 5, 1) == []
    assert broker.take(worker, [], 5, 2) == []


def test_a_request_that_comes_late_takes_nothing(
    broker: Broker, other: Broker, worker: str
) -> None:
    nothing = broker.take(worker, ["celery"], 2, 1)
    fill(broker, b"1", b"2")

    # Held on its way: the worker has asked again meanwhile, and later for more.
    again = other.take(worker, ["celery"], 2, 1)
    [one] = broker.take(worker, ["celery"], 1, 2)
    late = other.take(worker, ["celery"], 2, 1)

    assert nothing == again == late == []
    assert messages([one]) == [b"1"]
    assert lying_in(broker) == [b"2"]


def test_a_request_made_again_gives_the_same_and_takes_no_more(
    broker: Broker, worker: str
) -> None:
    fill(broker, b"1", b"2", b"3")

    first = broker.take(worker, ["celery"], 2, 1)
    again = broker.take(worker, ["celery"], 2, 1)

    assert again == first
    assert lying_in(broker) == [b"3"]


def test_a_request_that_found_less_than_asked_takes_no_more_when_made_again(
    broker: Broker, worker: str
) -> None:
    fill(broker, b"1")
    first = broker.take(worker, ["celery"], 2, 1)
    fill(broker, b"2")

    assert broker.take(worker, ["celery"], 2, 1) == first
    assert messages(broker.take(worker, ["celery"], 2, 2)) == [b"2"]


def test_a_request_made_again_with_less_room_gives_the_same(
    broker: Broker, worker: str
) -> None:
    fill(broker, b"1", b"2", b"3")
    first = broker.take(worker, ["celery"], 3, 1)

    assert broker.take(worker, ["celery"], 1, 1) == first


def test_large_messages_come_one_by_one(broker: Broker, worker: str) -> None:
    large = b"x" * ENOUGH
    fill(broker, b"1", large, b"2", large, *(b"%d" % i for i in range(3, 40)))

    taken = [messages(broker.take(worker, ["celery"], 99, n)) for n in (1, 2, 3, 4)]

    assert taken[0] == [b"1", large]
    assert taken[1] == [b"2", large]
    assert taken[2] == [b"%d" % i for i in range(3, 40)]
    assert taken[3] == []


def test_who_has_no_lease_takes_nothing(broker: Broker) -> None:
    fill(broker, b"1")

    assert broker.take("stranger", ["celery"], 1, 1) == []

    assert lying_in(broker) == [b"1"]


def test_what_is_acknowledged_is_gone(broker: Broker, worker: str) -> None:
    fill(broker, b"1", b"2")
    one, two = broker.take(worker, ["celery"], 2, 1)

    settle(broker, worker, Acknowledge(one), Acknowledge(two))
    settle(broker, worker, Acknowledge(one))
    broker.leave(worker)

    assert lying_in(broker) == []


def test_what_follows_is_sent_in_the_same_step(broker: Broker, worker: str) -> None:
    fill(broker, b"1")
    [one] = broker.take(worker, ["celery"], 1, 1)

    settle(
        broker, worker, Acknowledge(one), sends=[outgoing(b"retry"), outgoing(b"next")]
    )

    assert lying_in(broker) == [b"retry", b"next"]


def test_an_acknowledgement_made_again_sends_nothing_twice(
    broker: Broker, worker: str
) -> None:
    fill(broker, b"1", b"2")
    one, two = broker.take(worker, ["celery"], 2, 1)

    for _ in range(2):
        broker.settle(worker, [Acknowledge(one)], [outgoing(b"after 1")], request=1)
    for _ in range(2):
        broker.settle(worker, [Acknowledge(two)], [outgoing(b"after 2")], request=2)

    assert lying_in(broker) == [b"after 1", b"after 2"]


def test_acknowledging_ends_the_current_run_only(broker: Broker, worker: str) -> None:
    term = lead(broker)
    broker.emit(term, [emission("a", run="id-1"), emission("b", run="id-2")], MINUTE)
    first, second = broker.take(worker, ["celery"], 2, 1)
    broker.emit(term, [emission("b", NOON + 1, run="id-3")], MINUTE)

    settle(
        broker,
        worker,
        Acknowledge(first, "a", "id-1"),
        Acknowledge(second, "b", "id-2"),
    )

    assert broker.running(["a", "b"]) == {"b": "id-3"}


def test_a_lost_delivery_is_passed_over_but_what_follows_is_sent(
    broker: Broker, other: Broker
) -> None:
    broker.emit(lead(broker), [emission("a", run="id-1")], MINUTE)
    broker.join("w1", 1)
    [lost] = broker.take("w1", ["celery"], 1, 1)
    eventually(other.recover)

    settle(broker, "w1", Acknowledge(lost, "a", "id-1"), sends=[outgoing(b"next")])

    assert lying_in(broker) == [b"a@0", b"next"]
    assert broker.running(["a"]) == {"a": "id-1"}


@pytest.mark.parametrize("next_one", ["w1", "w2"])
@pytest.mark.parametrize("how", ["acknowledge", "give_back", "delay", "set_aside"])
def test_what_was_lost_is_settled_by_its_new_worker_and_by_no_one_else(
    broker: Broker, other: Broker, how: str, next_one: str
) -> None:
    fill(broker, b"1")
    broker.join("w1", 1)
    [lost] = broker.take("w1", ["celery"], 1, 1)
    eventually(other.recover)
    other.join(next_one, MINUTE)
    [held] = other.take(next_one, ["celery"], 1, 2)

    if how == "acknowledge":
        settle(broker, "w1", Acknowledge(lost))
    elif how == "give_back":
        settle(broker, "w1", GiveBack(lost))
    elif how == "delay":
        settle(broker, "w1", Delay(lost, now() - SECOND))
    else:
        settle(broker, "w1", SetAside(lost, "no longer ours"))

    assert broker.dead_letters() == []
    other.join("w3", MINUTE)
    assert other.take("w3", ["celery"], 9, 3) == []
    settle(other, next_one, GiveBack(held))
    assert messages(other.take("w3", ["celery"], 9, 4)) == [b"1"]


def test_given_back_deliveries_are_next_again_and_not_counted(
    broker: Broker, worker: str
) -> None:
    fill(broker, b"1", b"2", b"3", b"4")
    one, two, three = broker.take(worker, ["celery"], 3, 1)

    settle(broker, worker, Acknowledge(two))
    settle(broker, worker, GiveBack(one), GiveBack(two), GiveBack(three))

    again = broker.take(worker, ["celery"], 5, 2)
    assert messages(again) == [b"1", b"3", b"4"]
    assert {delivery.deliveries for delivery in again} == {1}


def test_given_back_deliveries_keep_their_priority(broker: Broker, worker: str) -> None:
    broker.send([outgoing(b"low", priority=6), outgoing(b"high")])
    taken = broker.take(worker, ["celery"], 2, 1)

    settle(broker, worker, *map(GiveBack, taken))

    assert lying_in(broker) == [b"high", b"low"]


def test_who_leaves_gives_everything_back_in_order(
    broker: Broker, other: Broker, worker: str
) -> None:
    fill(broker, *(b"%d" % i for i in range(9)))
    for request in (2, 9, 10):
        broker.take(worker, ["celery"], 2, request)

    broker.leave(worker)

    other.join("w2", MINUTE)
    taken = other.take("w2", ["celery"], 9, 1)
    assert messages(taken) == [b"%d" % i for i in range(9)]
    assert {delivery.deliveries for delivery in taken} == {1}
    assert broker.take(worker, ["celery"], 1, 2) == []


def test_a_dead_workers_deliveries_come_back_first_and_counted(
    broker: Broker, other: Broker
) -> None:
    fill(broker, b"1", b"2", b"3")
    broker.join("dies", 20)
    taken = broker.take("dies", ["celery"], 2, 1)

    assert eventually(other.recover) == 2

    assert other.recover() == 0
    other.join("lives", MINUTE)
    again = take_all(other, "lives", ["celery"])
    assert [(d.message, d.deliveries) for d in again] == [
        (b"1", 2),
        (b"2", 2),
        (b"3", 1),
    ]
    settle(broker, "dies", *map(GiveBack, taken))
    assert lying_in(broker) == []


def test_what_dead_workers_had_comes_back_in_the_order_in_which_leases_ended(
    broker: Broker, other: Broker
) -> None:
    fill(broker, b"1", b"2", b"3")
    for worker, lease in (("z", 1), ("a", 2)):
        broker.join(worker, lease)
        broker.take(worker, ["celery"], 1, 1)

    # Whether one call finds both, or only the first one.
    if eventually(other.recover) == 1:
        eventually(other.recover)

    assert lying_in(broker) == [b"2", b"1", b"3"]


class Suspicious:
    """A queue whose first messages were in flight when their worker died."""

    def __init__(
        self, broker: Broker, suspects: int, others: int, since: int = 1
    ) -> None:
        """`since` is the number of the worker's next request to take."""
        self.broker = broker
        self._deaths = count(1)
        fill(broker, *(b"s%d" % number for number in range(suspects)))
        self.kill_with(suspects)
        fill(broker, *(b"o%d" % number for number in range(others)))
        broker.join("w", MINUTE)
        self.held_back = 0
        self._requests = count(since)

    def kill_with(self, number: int, together: int = 1) -> None:
        """Have a worker die that has taken so many of the next messages."""
        worker = f"dies {next(self._deaths)}"
        self.broker.join(worker, 1)
        taken = self.broker.take(worker, ["celery"], number, 1, together=together)
        assert len(taken) == number
        assert eventually(self.broker.recover) == number

    def take(
        self, suspects: Suspects = Suspects.ALONE, limit: int = 100, together: int = 1
    ) -> list[Delivery]:
        return self.broker.take(
            "w",
            ["celery"],
            limit,
            next(self._requests),
            suspects=suspects,
            together=together,
            on_held_back=self._hold_back,
        )

    def _hold_back(self) -> None:
        self.held_back += 1


def test_a_message_that_a_worker_died_with_is_taken_alone(broker: Broker) -> None:
    queue = Suspicious(broker, suspects=2, others=3)

    first = queue.take()
    nothing = queue.take()
    settle(broker, "w", *map(Acknowledge, first))
    second = queue.take()
    settle(broker, "w", *map(Acknowledge, second))
    others = queue.take()

    assert messages(first) == [b"s0"]
    assert nothing == []
    assert messages(second) == [b"s1"]
    assert messages(others) == [b"o0", b"o1", b"o2"]
    assert queue.held_back == 1


def test_messages_that_one_worker_died_with_may_be_taken_together(
    broker: Broker,
) -> None:
    queue = Suspicious(broker, suspects=3, others=1)

    some = queue.take(together=2)
    nothing = queue.take(together=2)
    settle(broker, "w", *map(Acknowledge, some))
    one = queue.take(together=2)
    settle(broker, "w", *map(Acknowledge, one))
    other = queue.take(together=2)

    assert messages(some) == [b"s0", b"s1"]
    assert {one.deliveries for one in some} == {2}
    assert nothing == []
    assert messages(one) == [b"s2"]
    assert messages(other) == [b"o0"]
    assert queue.held_back == 1


def test_more_of_those_that_one_worker_died_with_may_be_taken_beside_them(
    broker: Broker,
) -> None:
    queue = Suspicious(broker, suspects=4, others=1)

    taken = [queue.take(together=2)]
    for together in (1, 2):
        taken.append(queue.take(Suspects.ALIKE, together=together))
    nothing = queue.take(Suspects.ALIKE, together=2)
    for some in taken:
        settle(broker, "w", *map(Acknowledge, some))
    other = queue.take(together=2)
    settle(broker, "w", *map(Acknowledge, other))

    assert [messages(some) for some in taken] == [[b"s0", b"s1"], [b"s2"], [b"s3"]]
    assert nothing == []
    assert messages(other) == [b"o0"]
    assert queue.held_back == 1
    assert queue.take(Suspects.ALIKE) == []
    assert queue.held_back == 1  # nothing is there


def test_messages_that_two_workers_died_with_are_never_taken_together(
    broker: Broker,
) -> None:
    queue = Suspicious(broker, suspects=3, others=0)
    queue.kill_with(2, together=2)

    nothing = queue.take(Suspects.ALIKE, together=9)
    taken = []
    for _ in range(3):
        taken.append(queue.take(together=9))
        settle(broker, "w", *map(Acknowledge, taken[-1]))

    assert nothing == []
    assert queue.held_back == 1
    assert [messages(some) for some in taken] == [[b"s0"], [b"s1"], [b"s2"]]
    assert [one.deliveries for some in taken for one in some] == [3, 3, 2]


def test_a_take_made_again_gives_the_same_suspects_together(broker: Broker) -> None:
    queue = Suspicious(broker, suspects=3, others=1)
    first = broker.take("w", ["celery"], 9, 1, together=3)
    again = broker.take("w", ["celery"], 9, 1, together=3)

    assert first == again
    assert messages(first) == [b"s0", b"s1", b"s2"]
    assert queue.held_back == 0


def test_a_message_that_a_worker_died_with_ends_what_is_taken_before_it(
    broker: Broker,
) -> None:
    queue = Suspicious(broker, suspects=1, others=2)
    [suspect] = queue.take()
    fill(broker, b"o2")
    first, second, third = [queue.take(Suspects.PASSED_OVER, 1)[0] for _ in range(3)]
    settle(broker, "w", Acknowledge(third))
    # In front: an ordinary message, the suspect, another one.
    settle(broker, "w", GiveBack(first), GiveBack(suspect), GiveBack(second))

    before = queue.take()
    held_back = queue.take()
    assert queue.held_back == 1
    settle(broker, "w", *map(Acknowledge, before))
    alone = queue.take()

    assert messages(before) == [b"o0"]
    assert held_back == []
    assert messages(alone) == [b"s0"]


def test_a_message_that_a_worker_died_with_may_be_taken_in_company(
    broker: Broker,
) -> None:
    queue = Suspicious(broker, suspects=1, others=2)
    ordinary = queue.take(Suspects.PASSED_OVER, 1)

    suspect = queue.take(Suspects.IN_COMPANY)
    rest = queue.take(Suspects.IN_COMPANY)

    assert [messages(some) for some in (ordinary, suspect, rest)] == [
        [b"o0"],
        [b"s0"],
        [b"o1"],
    ]
    assert queue.held_back == 0


def test_messages_that_a_worker_died_with_may_be_passed_over(broker: Broker) -> None:
    queue = Suspicious(broker, suspects=3, others=4)

    others = queue.take(Suspects.PASSED_OVER, 2)
    all_others = queue.take(Suspects.PASSED_OVER)
    none = queue.take(Suspects.PASSED_OVER)
    settle(broker, "w", *map(Acknowledge, [*others, *all_others]))

    assert messages(others) == [b"o0", b"o1"]
    assert messages(all_others) == [b"o2", b"o3"]
    assert none == []
    assert queue.held_back == 1
    assert [messages(queue.take(Suspects.IN_COMPANY)) for _ in range(3)] == [
        [b"s0"],
        [b"s1"],
        [b"s2"],
    ]


def test_a_run_that_was_acknowledged_before_it_began_is_no_company(
    broker: Broker,
) -> None:
    term = lead(broker)
    broker.emit(term, [emission("e", run="id-1")], MINUTE)
    broker.join("w", MINUTE)
    [early] = broker.take("w", ["celery"], 1, 1)
    settle(broker, "w", Begin(early, "e", "id-1"))
    queue = Suspicious(broker, suspects=1, others=0, since=2)

    assert messages(queue.take()) == [b"s0"]
    assert queue.held_back == 0


def test_a_take_made_again_gives_the_same_suspect(broker: Broker) -> None:
    queue = Suspicious(broker, suspects=2, others=0)
    first = broker.take("w", ["celery"], 9, 1)
    again = broker.take("w", ["celery"], 9, 1)

    assert first == again
    assert messages(first) == [b"s0"]
    assert queue.held_back == 0


def test_each_death_counts(broker: Broker) -> None:
    fill(broker, b"1")
    for attempt in range(3):
        broker.join(f"w{attempt}", 1)
        [delivery] = broker.take(f"w{attempt}", ["celery"], 1, 1)
        assert delivery.deliveries == attempt + 1
        eventually(broker.recover)

    broker.join("last", MINUTE)
    [delivery] = broker.take("last", ["celery"], 1, 1)
    settle(broker, "last", GiveBack(delivery))
    [delivery] = broker.take("last", ["celery"], 1, 2)
    assert delivery.deliveries == 4


def test_a_heartbeat_keeps_the_deliveries(broker: Broker, other: Broker) -> None:
    broker.join("w1", 1)
    broker.join("w1", MINUTE)
    fill(broker, b"1")
    broker.take("w1", ["celery"], 1, 1)

    threading.Event().wait(0.02)

    assert other.recover() == 0


def test_a_lease_is_held_until_somebody_finds_it_run_out(
    broker: Broker, other: Broker
) -> None:
    fill(broker, b"1")
    broker.join("w1", 1)
    [taken] = broker.take("w1", ["celery"], 1, 1)
    assert broker.stay("w1", 1)

    eventually(other.recover)
    assert not broker.stay("w1", MINUTE)
    assert broker.take("w1", ["celery"], 1, 2) == []

    broker.join("w1", 1)
    assert broker.stay("w1", MINUTE)
    assert other.recover() == 0
    [again] = broker.take("w1", ["celery"], 1, 3)
    assert again.token != taken.token


def test_who_left_has_no_lease_to_hold(broker: Broker, worker: str) -> None:
    broker.leave(worker)

    assert not broker.stay(worker, MINUTE)


def test_a_recovered_worker_takes_again_once_it_joins(broker: Broker) -> None:
    fill(broker, b"1")
    broker.join("w1", 1)
    broker.take("w1", ["celery"], 1, 1)
    eventually(broker.recover)

    assert broker.take("w1", ["celery"], 1, 2) == []
    broker.join("w1", MINUTE)
    assert messages(broker.take("w1", ["celery"], 1, 3)) == [b"1"]


def test_delayed_messages_wait_until_they_are_due(broker: Broker, worker: str) -> None:
    before = now()
    fill(broker, b"there")
    broker.send([Outgoing(CELERY, b"late", due=before + MINUTE)])
    # Apart by more than what a request may take: Redis is told how long, not when.
    broker.send([Outgoing(CELERY, b"second", due=before - MINUTE)])
    broker.send([Outgoing(CELERY, b"first", due=before - 2 * MINUTE)])

    taken = broker.take(worker, ["celery"], 9, 1)

    assert messages(taken) == [b"first", b"second", b"there"]


def test_what_came_due_earlier_is_not_passed_by_what_comes_due_later(
    broker: Broker, worker: str
) -> None:
    # Apart by more than what a request may take: see above.
    broker.send([Outgoing(CELERY, b"%d" % n, due=n * MINUTE) for n in (2, 1)])
    taken = broker.take(worker, ["celery"], 1, 1)
    broker.send([Outgoing(CELERY, b"%d" % n, due=n * MINUTE) for n in (4, 3)])
    for request in (2, 3, 4):
        taken += broker.take(worker, ["celery"], 1, request)

    assert messages(taken) == [b"1", b"2", b"3", b"4"]


def test_what_comes_due_for_others_goes_back_to_its_queue(
    broker: Broker, other: Broker, worker: str
) -> None:
    broker.send([Outgoing(Route("b", routing_key="b"), b"theirs", due=1)])
    broker.send([Outgoing(CELERY, b"mine", due=2)])

    assert messages(broker.take(worker, ["celery"], 1, 1)) == [b"mine"]
    assert broker.await_message(["celery"], 1) is False
    other.join("w2", MINUTE)
    assert messages(other.take("w2", ["b"], 1, 1)) == [b"theirs"]


def test_a_delayed_delivery_leaves_the_flight_and_comes_back(
    broker: Broker, other: Broker, worker: str
) -> None:
    fill(broker, b"1")
    [one] = broker.take(worker, ["celery"], 1, 1)

    settle(broker, worker, Delay(one, now() + 30))
    settle(broker, worker, Delay(one, now() + 30))
    broker.leave(worker)

    other.join("w2", MINUTE)
    numbers = count(1)
    again: list[Delivery] = eventually(
        lambda: other.take("w2", ["celery"], 9, next(numbers))
    )
    assert messages(again) == [b"1"]
    assert again[0].deliveries == 1


def test_waiting_ends_when_there_is_something_already(broker: Broker) -> None:
    broker.send([outgoing(b"1", "b", 9)])

    assert broker.await_message(["a", "b"], LONG) is True


def test_waiting_ends_at_the_time_out(broker: Broker) -> None:
    broker.send([outgoing(b"1", "elsewhere")])

    assert broker.await_message(["celery"], 20) is False


def test_a_message_ends_the_waiting(broker: Broker, other: Broker, worker: str) -> None:
    for number in range(1, 4):
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(broker.await_message, ["celery"], LONG)
            threading.Event().wait(0.02)
            other.send([outgoing(b"1", priority=3)])
        assert waiting.result() is True
        assert broker.take(worker, ["celery"], 9, number)


def test_a_delayed_message_ends_the_waiting_when_it_is_due(
    broker: Broker, other: Broker
) -> None:
    other.send([Outgoing(CELERY, b"1", due=now() + 50)])
    begin = time.monotonic()

    assert broker.await_message(["celery"], LONG) is True

    assert time.monotonic() - begin < PATIENCE / 2


def test_a_message_delayed_meanwhile_ends_the_waiting_too(
    broker: Broker, other: Broker
) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(broker.await_message, ["celery"], LONG)
        threading.Event().wait(0.02)
        other.send([Outgoing(CELERY, b"1", due=now() + 20)])

    assert waiting.result() is True


def test_an_interrupt_ends_the_waiting(broker: Broker) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(broker.await_message, ["celery"], LONG)
        threading.Event().wait(0.02)
        broker.interrupt()

    assert waiting.result() is False


def test_an_interrupt_before_the_waiting_ends_the_next_one_only(broker: Broker) -> None:
    broker.interrupt()
    begin = time.monotonic()

    assert broker.await_message(["celery"], LONG) is False

    assert time.monotonic() - begin < PATIENCE / 2
    fill(broker, b"1")
    assert broker.await_message(["celery"], LONG) is True


def test_ping_says_who_answers(broker: Broker) -> None:
    assert broker.ping()
