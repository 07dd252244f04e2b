"""Dead letters: set aside with what is known of them, put back or dropped by people."""

from itertools import count

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import (
    DONE,
    Begin,
    DeadLetter,
    GiveBack,
    Outgoing,
    SetAside,
)
from beatd.clock import SystemClock
from beatd.instant import MINUTE
from beatd.message import read_envelope, requeued
from beatd.routing import Route
from tests.brokers.backends import Backend
from tests.brokers.making import lying_in, messages, outgoing, settle
from tests.servers import PATIENCE, eventually


@pytest.fixture
def worker(broker: Broker) -> str:
    broker.join("w1", MINUTE)
    return "w1"


REQUESTS = count(1)
LAST = 10**9


def set_aside(broker: Broker, *batch: Outgoing) -> list[str]:
    """Send these and set them aside as they come; give the letters' ids."""
    known = {letter.id for letter in broker.dead_letters()}
    broker.send(batch)
    for delivery in broker.take("w1", ["celery"], len(batch), next(REQUESTS)):
        settle(broker, "w1", SetAside(delivery, "why"))
    return [one.id for one in broker.dead_letters() if one.id not in known]


def test_a_dead_letter_says_where_why_and_when(
    broker: Broker, other: Broker, worker: str
) -> None:
    broker.send([outgoing(b"\xff\x00 garbage", "reports"), outgoing(b"2", "reports")])
    garbage, two = broker.take(worker, ["reports"], 2, 1)

    settle(broker, worker, SetAside(garbage, "not a message"))
    settle(broker, worker, SetAside(garbage, "not a message"))
    settle(broker, worker, SetAside(two, "no such task", "shop.tasks.sync", "id-2"))

    first, second = other.dead_letters()
    assert abs(first.at - SystemClock().now()) < PATIENCE * 1000
    assert first == DeadLetter(
        first.id, "reports", "not a message", first.at, 1, "w1", size=10
    )
    assert int(second.id) > int(first.id)
    assert (second.task, second.task_id) == ("shop.tasks.sync", "id-2")
    assert other.dead_message(first.id) == b"\xff\x00 garbage"
    settle(broker, worker, GiveBack(garbage), GiveBack(two))
    assert lying_in(broker, "reports") == []


def test_a_dead_letter_knows_how_often_it_was_delivered(
    broker: Broker, worker: str
) -> None:
    broker.send([outgoing(b"1")])
    broker.join("dies", 1)
    broker.take("dies", ["celery"], 1, 1)
    eventually(broker.recover)
    [one] = broker.take(worker, ["celery"], 1, 1)

    settle(broker, worker, SetAside(one, "enough"))

    [letter] = broker.dead_letters()
    assert letter.deliveries == 2

    # Put back, it has all of its tries again.
    broker.retry_dead([letter.id])
    [again] = broker.take(worker, ["celery"], 1, 2)
    assert again.deliveries == 1


def test_what_was_requeued_too_often_has_all_of_its_tries_again(
    broker: Broker, worker: str
) -> None:
    headers = b'{"task": "proj.x", "id": "i", "retries": 0}'
    message = b'{"body": "", "properties": {}, "headers": %b}' % headers
    for _ in range(3):
        message = requeued(read_envelope(message))
    broker.send([outgoing(message)])
    [one] = broker.take(worker, ["celery"], 1, 1)
    settle(broker, worker, SetAside(one, "enough"))
    [letter] = broker.dead_letters()

    assert broker.retry_dead([letter.id]) == 1

    [again] = broker.take(worker, ["celery"], 1, 2)
    assert read_envelope(message).requeues == 3
    assert read_envelope(again.message).requeues == 0
    assert read_envelope(again.message).redelivered


def test_what_was_acknowledged_is_set_aside_from_the_act_and_put_back_to_its_place(
    broker: Broker, worker: str
) -> None:
    broker.send([outgoing(b"low", priority=6)])
    [low] = broker.take(worker, ["celery"], 1, 1)
    settle(broker, worker, Begin(low))
    act = SetAside(low, "no way", way_back=Route("celery", priority=6))

    assert broker.settle(worker, [act], [outgoing(b"told", "told")], LAST) == [DONE]
    assert broker.settle(worker, [act], [outgoing(b"told", "told")], LAST) == [DONE]

    [letter] = broker.dead_letters()
    assert (letter.queue, letter.reason, letter.size) == ("celery", "no way", 3)
    assert len(lying_in(broker, "told")) == 1
    broker.send([outgoing(b"other low", priority=6), outgoing(b"high")])
    assert broker.retry_dead([letter.id]) == 1
    taken = broker.take(worker, ["celery"], 9, 2)
    assert messages(taken) == [b"high", b"other low", b"low"]


@pytest.mark.usefixtures("worker")
def test_a_letter_that_is_retried_comes_back_last_and_as_new(
    broker: Broker, other: Broker
) -> None:
    high, low = set_aside(broker, outgoing(b"low", priority=6), outgoing(b"high"))
    broker.send([outgoing(b"other low", priority=6), outgoing(b"other high")])

    assert other.retry_dead([low, high]) == 2

    assert other.retry_dead([low, high]) == 0
    assert broker.dead_letters() == []
    taken = broker.take("w1", ["celery"], 9, 99)
    assert messages(taken) == [b"other high", b"high", b"other low", b"low"]
    assert {delivery.deliveries for delivery in taken} == {1}


def test_a_letter_that_its_queue_refuses_stays_and_holds_up_no_other(
    broker: Broker, worker: str, backend: Backend
) -> None:
    queues = ["taken", "celery"]
    broker.send([outgoing(b"1", "taken"), outgoing(b"2")])
    for delivery in broker.take(worker, queues, 2, 1):
        settle(broker, worker, SetAside(delivery, "why"))
    first, second = (letter.id for letter in broker.dead_letters())
    backend.refuse("taken")
    refused: dict[str, str] = {}

    assert broker.retry_dead([first, second], refused.__setitem__) == 1

    assert refused.keys() == {first}
    assert refused[first]
    assert [letter.id for letter in broker.dead_letters()] == [first]
    backend.admit("taken")
    assert broker.retry_dead([first, second], refused.__setitem__) == 1
    assert messages(broker.take(worker, queues, 2, 2)) == [b"1", b"2"]


@pytest.mark.usefixtures("worker")
def test_a_letter_that_is_dropped_is_gone(broker: Broker, other: Broker) -> None:
    one, two = set_aside(broker, outgoing(b"1"), outgoing(b"2"))

    assert other.drop_dead([one, "4711"]) == 1

    assert [letter.id for letter in broker.dead_letters()] == [two]
    assert broker.dead_message(one) is None
    assert lying_in(broker) == []


@pytest.mark.usefixtures("worker")
def test_no_id_is_given_twice(broker: Broker) -> None:
    [one] = set_aside(broker, outgoing(b"1"))
    broker.drop_dead([one])

    [two] = set_aside(broker, outgoing(b"2"))

    assert int(two) > int(one)


@pytest.mark.usefixtures("worker")
def test_ids_that_are_none_are_no_letters(broker: Broker) -> None:
    [one] = set_aside(broker, outgoing(b"1"))

    assert broker.retry_dead(["x", "", f"{one}x"]) == 0
    assert broker.drop_dead([]) == 0
    assert broker.dead_message("x") is None
    assert len(broker.dead_letters()) == 1
