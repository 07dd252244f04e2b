"""The contract of looking at what waits in the broker."""

from collections.abc import Collection

from beatd.brokers.base import Broker
from beatd.brokers.items import Delay, Outgoing
from beatd.clock import SystemClock
from beatd.instant import HOUR, MINUTE, Instant
from beatd.routing import Route
from tests.brokers.making import CELERY, outgoing, settle


def looked_at(
    broker: Broker, queues: Collection[str], limit: int, now: Instant
) -> list[tuple[str, bytes, int]]:
    """Return queue, message and the minutes, seen from `now`, until it is due."""
    found = broker.delayed(queues, limit)
    return [(one.queue, one.message, round((one.due - now) / MINUTE)) for one in found]


def test_what_waits_can_be_looked_at_the_next_one_first(broker: Broker) -> None:
    now = SystemClock().now()
    broker.send([Outgoing(CELERY, b"later", now + 2 * HOUR)])
    broker.send([Outgoing(CELERY, b"sooner", now + HOUR)])
    broker.send([Outgoing(Route("slow"), b"elsewhere", now + MINUTE)])
    broker.send([outgoing(b"ready")])

    assert looked_at(broker, ["celery"], 10, now) == [
        ("celery", b"sooner", 60),
        ("celery", b"later", 120),
    ]
    assert looked_at(broker, ["celery", "slow"], 1, now) == [("slow", b"elsewhere", 1)]
    assert broker.delayed([], 10) == []


def test_a_delivery_that_was_put_off_can_be_looked_at(broker: Broker) -> None:
    now = SystemClock().now()
    broker.send([outgoing(b"not yet", priority=6)])
    broker.join("w1", MINUTE)
    (delivery,) = broker.take("w1", ["celery"], 1, 1)
    settle(broker, "w1", Delay(delivery, now + HOUR))

    assert looked_at(broker, ["celery"], 10, now) == [("celery", b"not yet", 60)]
