"""The contract of looking at what waits in the broker."""

from beatd.brokers.base import Broker, Delayed, Outgoing
from beatd.clock import SystemClock
from beatd.instant import HOUR, MINUTE
from beatd.routing import Route
from tests.brokers.making import CELERY, outgoing


def test_what_waits_can_be_looked_at_the_next_one_first(broker: Broker) -> None:
    now = SystemClock().now()
    broker.send([Outgoing(CELERY, b"later", now + 2 * HOUR)])
    broker.send([Outgoing(CELERY, b"sooner", now + HOUR)])
    broker.send([Outgoing(Route("slow"), b"elsewhere", now + MINUTE)])
    broker.send([outgoing(b"ready")])

    assert broker.delayed(["celery"], 10) == [
        Delayed("celery", b"sooner", now + HOUR),
        Delayed("celery", b"later", now + 2 * HOUR),
    ]
    assert broker.delayed(["celery", "slow"], 1) == [
        Delayed("slow", b"elsewhere", now + MINUTE)
    ]
    assert broker.delayed([], 10) == []


def test_a_delivery_that_was_put_off_can_be_looked_at(broker: Broker) -> None:
    due = SystemClock().now() + HOUR
    broker.send([outgoing(b"not yet", priority=6)])
    broker.join("w1", MINUTE)
    (delivery,) = broker.take("w1", ["celery"], 1, "a1")
    broker.delay("w1", delivery, due)

    assert broker.delayed(["celery"], 10) == [Delayed("celery", b"not yet", due)]
