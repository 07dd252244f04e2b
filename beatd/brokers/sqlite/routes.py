"""Which queues a message reaches, by the bindings in the file."""

import sqlite3
from collections.abc import Sequence
from typing import Any, TypeAlias

from beatd.event_log import EventLog
from beatd.instant import Instant
from beatd.routing import Binding, Route, step_of

tell = EventLog(__name__)

Row: TypeAlias = tuple[Any, ...]


def rows_of(
    db: sqlite3.Connection,
    steps: Sequence[int],
    route: Route | None,
    message: bytes,
    due: Instant | None = None,
) -> list[Row]:
    """Return a row for every queue that the route reaches."""
    if route is None:
        return []
    step = step_of(route.priority, steps)
    return [(queue, step, message, due) for queue in _queues(db, route)]


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
