"""What a batch costs in SQLite, in statements and in transactions, never in time."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from beatd.brokers.items import DONE, GONE, Acknowledge, Outcome
from beatd.instant import MINUTE
from beatd.routing import Queue, Route
from tests.brokers.making import NOON, emission, lead, lying_in, outgoing, settle
from tests.statements import CountedBroker

requests = count(1)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[CountedBroker]:
    broker = CountedBroker(tmp_path / "broker.db")
    broker.ping()
    yield broker
    broker.close()


def test_an_emission_costs_its_row_and_its_message_and_a_batch_one_transaction(
    broker: CountedBroker,
) -> None:
    term = lead(broker)

    def cost(number: int, slot: int) -> int:
        broker.asked.clear()
        batch = [emission(f"e{n}", slot) for n in range(number)]
        assert broker.emit(term, batch, MINUTE) == [Outcome.QUEUED] * number
        assert broker.asked.writes == 1
        return len(broker.asked)

    few, many = cost(10, NOON), cost(110, NOON + MINUTE)

    assert many - few == 2 * 100
    assert few < 2 * 10 + 10


def test_a_batch_that_is_known_costs_a_look_at_each_row(
    broker: CountedBroker,
) -> None:
    term = lead(broker)
    batch = [emission(f"e{n}") for n in range(100)]
    broker.emit(term, batch, MINUTE)
    broker.asked.clear()

    assert broker.emit(term, batch, MINUTE) == [Outcome.KNOWN] * 100

    assert broker.asked.beginning("INSERT INTO messages") == 0
    assert len(broker.asked) < 100 + 10


def test_bindings_are_looked_up_once_for_messages_that_share_a_route(
    broker: CountedBroker,
) -> None:
    term = lead(broker)
    broker.declare([Queue("q", "media", routing_key="k")])
    broker.asked.clear()

    route = Route("", "media", "k")
    batch = [emission(f"e{n}", route=route) for n in range(100)]
    broker.emit(term, batch, MINUTE)

    assert broker.asked.beginning("SELECT key, pattern") == 1


def test_a_delivery_costs_one_statement_to_take_and_one_to_settle(
    broker: CountedBroker,
) -> None:
    broker.join("w", MINUTE)
    broker.send([outgoing(b"m")] * 130)

    def cost(number: int) -> tuple[int, int]:
        broker.asked.clear()
        taken = broker.take("w", ["celery"], number, next(requests))
        to_take = len(broker.asked)
        answers = settle(broker, "w", *map(Acknowledge, taken))
        assert answers == [DONE] * number
        assert broker.asked.writes == 2
        return to_take, len(broker.asked) - to_take

    few, many = cost(10), cost(110)

    assert (many[0] - few[0], many[1] - few[1]) == (100, 100)
    assert max(few) < 10 + 15


def test_what_is_in_flight_costs_the_next_one_that_is_taken_nothing(
    broker: CountedBroker,
) -> None:
    broker.join("w", MINUTE)
    broker.send([outgoing(b"m")] * 220)

    def steps(number: int) -> int:
        broker.asked.clear()
        assert len(broker.take("w", ["celery"], number, next(requests))) == number
        return broker.asked.steps

    steps(1)
    few_in_flight = steps(5)
    steps(200)

    assert steps(5) == few_in_flight


def test_a_batch_in_which_one_is_in_flight_no_more_settles_all_others(
    broker: CountedBroker,
) -> None:
    broker.join("w", MINUTE)
    broker.send([outgoing(b"m")] * 3)
    taken = broker.take("w", ["celery"], 3, next(requests))
    settle(broker, "w", Acknowledge(taken[1]))

    answers = settle(broker, "w", *map(Acknowledge, taken))

    assert answers == [DONE, GONE, DONE]
    assert lying_in(broker) == []
