"""What a batch costs in SQLite, in statements and in transactions, never in time."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest

from beatd.brokers.items import DONE, GONE, Acknowledge, Emission, Outcome, Term
from beatd.brokers.sqlite.statements import AT_ONCE
from beatd.instant import MINUTE
from beatd.routing import Queue, Route
from tests.brokers.making import (
    CELERY,
    NOON,
    emission,
    lead,
    lying_in,
    mark,
    outgoing,
    settle,
)
from tests.statements import CountedBroker

requests = count(1)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[CountedBroker]:
    broker = CountedBroker(tmp_path / "broker.db")
    broker.ping()
    yield broker
    broker.close()


def cost_of(broker: CountedBroker, term: Term, batch: Sequence[Emission]) -> int:
    broker.asked.clear()
    assert broker.emit(term, batch, MINUTE) == [Outcome.QUEUED] * len(batch)
    assert broker.asked.writes == 1
    return len(broker.asked)


def test_emissions_with_equal_marks_and_routes_go_together_in_one_transaction(
    broker: CountedBroker,
) -> None:
    term = lead(broker)

    few = cost_of(broker, term, [emission(f"e{n}") for n in range(20)])
    many = cost_of(broker, term, [emission(f"f{n}") for n in range(220)])

    assert few < 15
    assert many - few == 2 * 200 / AT_ONCE


def test_an_emission_whose_mark_is_like_no_other_costs_a_statement_for_its_row(
    broker: CountedBroker,
) -> None:
    term = lead(broker)

    def batch(number: int, slot: int) -> list[Emission]:
        runs = range(number)
        return [Emission(f"e{n}", mark(slot, runs=n), CELERY, b"message") for n in runs]

    few = cost_of(broker, term, batch(20, NOON))
    many = cost_of(broker, term, batch(220, NOON + MINUTE))

    assert many - few == 200 + 200 / AT_ONCE


def test_messages_keep_their_order_whatever_they_share_with_their_neighbours(
    broker: CountedBroker,
) -> None:
    numbers = [*range(5), *range(50, 90), 5, 6, *range(90, 140)]
    queues = ["celery" if n >= 50 else "other" for n in numbers]
    batch = [
        outgoing(b"%d" % n, queue) for n, queue in zip(numbers, queues, strict=True)
    ]

    broker.send(batch)

    assert lying_in(broker) == [b"%d" % n for n in range(50, 140)]
    assert lying_in(broker, "other") == [b"%d" % n for n in range(7)]


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
