"""Which queues a message reaches, by the bindings in the file."""

import sqlite3
from collections.abc import Sequence
from typing import TypeAlias

from beatd.event_log import EventLog
from beatd.instant import Instant
from beatd.routing import Binding, Route, step_of

tell = EventLog(__name__)

Place: TypeAlias = tuple[str, int, Instant | None]
"""A queue, the priority step in it, and until when a message waits there."""


class Ways:
    """Where the messages of one step go: routes that they share are looked up once."""

    def __init__(self, db: sqlite3.Connection, steps: Sequence[int]) -> None:
        self._db = db
        self._steps = steps
        # By identity: to hash a route takes longer than to push a message. With the
        # route itself, so that no other one gets its identity meanwhile.
        self._known: dict[tuple[int, Instant | None], tuple[Route, list[Place]]] = {}

    def of(self, route: Route, due: Instant | None = None) -> Sequence[Place]:
        """Return the places that the route reaches; none is said once."""
        known = self._known.get((id(route), due))
        if known is None:
            step = step_of(route.priority, self._steps)
            places = [(queue, step, due) for queue in _queues(self._db, route)]
            known = self._known[id(route), due] = (route, places)
        return known[1]


def _queues(db: sqlite3.Connection, route: Route) -> list[str]:
    if route.queue and route.exchange_type != "fanout":
        return [route.queue]
    sql = "SELECT key, pattern, queue FROM bindings WHERE exchange = ?"
    bindings = map(Binding._make, db.execute(sql, (route.exchange,)))
    key, kind = route.routing_key, route.exchange_type
    queues = sorted({one.queue for one in bindings if one.matches(kind, key)})
    if not queues:
        tell.warning(
            "route.unbound",
            "no queue is bound to exchange %r under %r: the message is dropped",
            route.exchange,
            route.routing_key,
        )
    return queues
