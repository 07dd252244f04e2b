"""Short ways to say what the contract's cases hand to a broker."""

from collections.abc import Sequence
from itertools import count

from beatd.brokers.base import Broker
from beatd.brokers.items import (
    Act,
    Answer,
    Delivery,
    Emission,
    Outgoing,
    Suspects,
    Term,
)
from beatd.instant import MINUTE, Instant
from beatd.routing import Route
from beatd.timetable.ledger import Mark

NOON: Instant = 1_768_737_600_000

CELERY = Route("celery", routing_key="celery")

_requests = count(1)


def lead(broker: Broker) -> Term:
    """Make `broker` the leader for a minute."""
    term = broker.acquire("the test", MINUTE, 0)
    assert isinstance(term, Term)
    return term


def taken(broker: Broker, holder: str) -> Term | None:
    """Return the term if `holder` could take the lead for a minute."""
    answer = broker.acquire(holder, MINUTE, 0)
    return answer if isinstance(answer, Term) else None


def mark(slot: Instant, runs: int = 1) -> Mark:
    return Mark(slot, "*/5 * * * *;UTC", runs, slot)


def emission(
    entry: str,
    slot: Instant = NOON,
    *,
    route: Route | None = CELERY,
    message: bytes = b"",
    run: str = "",
) -> Emission:
    """Return an emission whose message names the entry and slot unless it is given."""
    text = message or f"{entry}@{slot - NOON}".encode()
    return Emission(entry, mark(slot), route, text, run)


def outgoing(message: bytes, queue: str = "celery", priority: int = 0) -> Outgoing:
    return Outgoing(Route(queue, routing_key=queue, priority=priority), message)


def lying_in(broker: Broker, *queues: str) -> list[bytes]:
    """Take everything, see what it was, and put it back as it lay."""
    broker.join("looker", MINUTE)
    taken = take_all(broker, "looker", queues or ("celery",))
    broker.leave("looker")
    return messages(taken)


def take_all(broker: Broker, worker: str, queues: Sequence[str]) -> list[Delivery]:
    """Take everything, in order, also what is otherwise taken alone."""

    def some() -> list[Delivery]:
        request, how = next(_requests), Suspects.IN_COMPANY
        return broker.take(worker, queues, 1000, request, suspects=how)

    return [delivery for part in iter(some, []) for delivery in part]


def messages(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.message for delivery in deliveries]


def settle(
    broker: Broker, worker: str, *acts: Act, sends: Sequence[Outgoing] = ()
) -> list[Answer]:
    """Settle in one request of its own."""
    return broker.settle(worker, acts, sends, next(_requests))
