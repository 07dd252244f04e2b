"""What is handed on to the broker, and how often, when a backend answers late."""

from collections.abc import Sequence

import pytest

from beatd.background import Outage
from beatd.brokers.base import Delivery, Done
from beatd.brokers.memory import MemoryBroker
from beatd.errors import ResultUnavailable
from beatd.results.base import State
from beatd.results.chords import Joined
from beatd.runs.chords import Failed, Recorded
from beatd.runs.report import Bookkeeping
from beatd.worker.settle import Acknowledge, Settlement, Settler
from tests.brokers.making import outgoing

FAILED = Failed(State.FAILURE, ValueError("no"), False)


class Hesitant:
    """Keeps what follows from one run, and for the next one is away at first."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def record_end(self, message: bytes, end: Bookkeeping | Failed) -> Recorded:
        self.asked.append(message)
        if len(self.asked) == 2:
            raise ResultUnavailable("nobody answers")
        return Recorded([outgoing(b"after " + message)], [])

    def forget(self, joined: Sequence[Joined]) -> None: ...


def test_nothing_is_handed_on_twice_when_a_part_of_a_batch_cannot_be_kept() -> None:
    broker = MemoryBroker()
    broker.join("me", 60_000)
    broker.send([outgoing(b"1"), outgoing(b"2")])
    deliveries = broker.take("me", ["celery"], 2, "t1")
    settled: list[Settlement] = []
    away = Outage("the broker is away", "broker")
    settler = Settler(
        broker, "me", None, settled.extend, away, lambda: None, Hesitant()
    )
    for one in deliveries:
        settler.put(settlement_of(one))

    with pytest.raises(ResultUnavailable):
        settler.keeping.turn()
    settler.settling.turn()
    settler.keeping.turn()  # the same batch once more
    settler.settling.turn()

    assert [one.token for one in settled] == [one.token for one in deliveries]
    sent = broker.take("me", ["celery"], 9, "t2")
    assert [one.message for one in sent] == [b"after 1", b"after 2"]


def settlement_of(delivery: Delivery) -> Settlement:
    return Settlement(delivery.token, Acknowledge(Done(delivery)), end=FAILED)
