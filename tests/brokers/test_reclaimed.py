"""What lies in flight under a worker that does not know of it goes back."""

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import (
    DONE,
    Acknowledge,
    Begin,
    Delivery,
    GiveBack,
)
from beatd.brokers.redis import RedisBroker
from beatd.instant import MINUTE
from tests.brokers.making import lying_in, messages, outgoing, settle, take_all
from tests.brokers.test_current_runs import emit
from tests.servers import Server, eventually


@pytest.fixture
def taken(broker: Broker) -> list[Delivery]:
    """Have `w` take 1 and 2, then 3 and 4; 5 is left."""
    broker.send([outgoing(b"%d" % number) for number in range(1, 6)])
    broker.join("w", MINUTE)
    return [one for n in (8, 9) for one in broker.take("w", ["celery"], 2, n)]


def test_what_the_worker_does_not_know_goes_back_in_order_and_is_not_counted(
    broker: Broker, other: Broker, taken: list[Delivery]
) -> None:
    two = taken[1]

    assert broker.reclaim("w", [two.token], 10) == 3
    assert broker.reclaim("w", [two.token], 10) == 0

    other.join("v", MINUTE)
    again = other.take("v", ["celery"], 9, 1)
    assert messages(again) == [b"1", b"3", b"4", b"5"]
    assert {delivery.deliveries for delivery in again} == {1}
    broker.leave("w")
    assert lying_in(broker) == [b"2"]


def test_what_the_worker_holds_stays(broker: Broker, taken: list[Delivery]) -> None:
    assert broker.reclaim("w", [one.token for one in taken], 10) == 0

    assert lying_in(broker) == [b"5"]


def test_what_a_request_without_an_answer_took_stays(
    broker: Broker, taken: list[Delivery]
) -> None:
    one, _, three, four = taken

    assert broker.reclaim("w", [one.token], 9) == 1

    assert broker.take("w", ["celery"], 2, 9) == [three, four]
    assert lying_in(broker) == [b"2", b"5"]


def test_what_others_hold_is_none_of_it(
    broker: Broker, other: Broker, taken: list[Delivery]
) -> None:
    other.join("v", MINUTE)
    other.take("v", ["celery"], 9, 1)

    assert broker.reclaim("w", [], 10) == 4
    assert broker.reclaim("nobody", [], 10) == 0

    assert lying_in(broker) == [b"1", b"2", b"3", b"4"]


# What has ended


@pytest.fixture
def dying(broker: Broker) -> list[Delivery]:
    """Have `dies` take 1 to 4 under a short lease."""
    broker.send([outgoing(b"%d" % number) for number in range(1, 5)])
    broker.join("dies", 50)
    return broker.take("dies", ["celery"], 9, 1)


def held(broker: Broker, taken: list[Delivery], *ended: int) -> None:
    """Have the worker say that it holds all, and that these have ended."""
    tokens = [one.token for one in taken]
    assert broker.reclaim("dies", tokens, 2, [tokens[n - 1] for n in ended]) == 0


def after_its_death(broker: Broker) -> list[tuple[bytes, int]]:
    """Return all messages in their order, with the deliveries of each."""
    assert eventually(broker.recover)
    broker.join("w", MINUTE)
    taken = take_all(broker, "w", ["celery"])
    return [(one.message, one.deliveries) for one in taken]


def test_what_has_ended_is_not_counted_when_its_worker_dies(
    broker: Broker, dying: list[Delivery]
) -> None:
    held(broker, dying, 1, 3)

    assert after_its_death(broker) == [(b"1", 1), (b"2", 2), (b"3", 1), (b"4", 2)]


def test_what_has_ended_is_what_the_last_heartbeat_says(
    broker: Broker, dying: list[Delivery]
) -> None:
    held(broker, dying, 1, 2, 3, 4)
    held(broker, dying, 4)

    assert after_its_death(broker) == [(b"1", 2), (b"2", 2), (b"3", 2), (b"4", 1)]


def test_what_has_ended_does_not_clear_a_message_of_earlier_deaths(
    broker: Broker, dying: list[Delivery]
) -> None:
    assert eventually(broker.recover) == 4
    broker.join("dies", 50)
    again = broker.take("dies", ["celery"], 9, 2, together=4)
    tokens = [one.token for one in again]
    broker.reclaim("dies", tokens, 3, tokens[1:])

    assert after_its_death(broker) == [(b"1", 3), (b"2", 2), (b"3", 2), (b"4", 2)]


def test_what_has_ended_is_settled_as_all_else(
    broker: Broker, dying: list[Delivery]
) -> None:
    held(broker, dying, 1, 2)
    one, two, *_ = dying
    broker.join("dies", MINUTE)

    answers = settle(broker, "dies", Acknowledge(one), GiveBack(two))

    assert answers == [DONE, DONE]
    assert broker.reclaim("dies", [], 2, []) == 2
    assert lying_in(broker) == [b"3", b"4", b"2"]


def test_what_has_ended_is_no_company_for_a_suspect(
    broker: Broker, dying: list[Delivery]
) -> None:
    assert eventually(broker.recover) == 4
    broker.join("dies", MINUTE)
    [one] = broker.take("dies", ["celery"], 9, 2)
    beside = broker.take("dies", ["celery"], 9, 3)

    broker.reclaim("dies", [one.token], 4, [one.token])
    [two] = broker.take("dies", ["celery"], 9, 4)

    assert (one.message, beside, two.message) == (b"1", [], b"2")


# Runs that began


def test_a_run_ends_that_the_worker_does_not_know_to_have_begun(broker: Broker) -> None:
    emit(broker, ("a", "id-1"), ("b", "id-2"))
    broker.join("w", MINUTE)
    one, two = broker.take("w", ["celery"], 9, 1)
    settle(broker, "w", Begin(one, "a", "id-1"), Begin(two, "b", "id-2"))

    assert broker.reclaim("w", [two.token], 2) == 0

    assert broker.running(["a", "b"]) == {"b": "id-2"}
    assert broker.held_runs(["id-1", "id-2"]) == {"id-2"}
    assert lying_in(broker) == []


def test_a_run_goes_on_that_began_while_the_heartbeat_was_under_way(
    broker: Broker,
) -> None:
    emit(broker, ("a", "id-1"))
    broker.join("w", MINUTE)
    [one] = broker.take("w", ["celery"], 9, 7)
    settle(broker, "w", Begin(one, "a", "id-1"))

    # What the worker held before request 7 was answered.
    assert broker.reclaim("w", [], 7) == 0

    assert broker.running(["a"]) == {"a": "id-1"}
    assert broker.held_runs(["id-1"]) == {"id-1"}


def test_a_queue_that_is_refused_keeps_no_other_message_from_going_back(
    server: Server,
) -> None:
    broker = RedisBroker(server.url(), namespace="test")
    broker.send([outgoing(b"1", "taken"), outgoing(b"2")])
    broker.join("w", MINUTE)
    broker.take("w", ["celery", "taken"], 9, 1)
    with server.client() as client:
        client.set("taken", "of another program")

        assert broker.reclaim("w", [], 2) == 1

        client.delete("taken")
    assert broker.reclaim("w", [], 2) == 1
    assert lying_in(broker, "celery", "taken") == [b"2", b"1"]
    broker.close()
