"""What the broker asks of Redis: round trips, whatever the number of items."""

from collections.abc import Iterator
from itertools import count

import pytest

from beatd.brokers.base import Broker
from beatd.brokers.items import Acknowledge, Suspects
from beatd.instant import MINUTE
from tests.brokers.backends import Redis
from tests.brokers.making import NOON, emission, lead, outgoing, settle
from tests.counting import ROUND_TRIP, calls
from tests.servers import Server


@pytest.fixture
def broker(server: Server) -> Iterator[Broker]:
    backend = Redis(server)
    yield backend.connect()
    backend.close()


def test_a_batch_is_emitted_in_one_round_trip(broker: Broker) -> None:
    term = lead(broker)
    slots = count(NOON, MINUTE)
    asked = []
    for number in (1, 10, 1000, 10, 1000):  # the first loads scripts
        slot = next(slots)
        batch = [emission(f"e{n}", slot) for n in range(number)]
        with calls() as counted:
            broker.emit(term, batch, MINUTE)
        asked.append(counted[ROUND_TRIP])

    assert asked[1:] == [1, 1, 1, 1]


def test_many_deliveries_are_taken_and_settled_in_one_round_trip_each(
    broker: Broker,
) -> None:
    broker.join("w", MINUTE)
    requests, taken_in, settled_in = count(1), [], []
    for number in (1, 10, 200):
        settle(broker, "w", sends=[outgoing(b"m%d" % n) for n in range(number)])
        with calls() as counted:
            found = broker.take(
                "w", ["celery"], number, next(requests), suspects=Suspects.IN_COMPANY
            )
        taken_in.append(counted[ROUND_TRIP])
        acts = [Acknowledge(delivery) for delivery in found]
        assert len(acts) == number
        with calls() as counted:
            settle(broker, "w", *acts)
        settled_in.append(counted[ROUND_TRIP])

    assert taken_in[1:] == [1, 1]
    assert settled_in[1:] == [1, 1]
