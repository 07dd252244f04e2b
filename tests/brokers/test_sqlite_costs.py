"""What a batch costs in SQLite, in statements and in transactions, never in time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from beatd.brokers.items import Outcome
from beatd.instant import MINUTE
from beatd.routing import Queue, Route
from tests.brokers.making import NOON, emission, lead
from tests.statements import CountedBroker


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
