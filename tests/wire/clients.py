"""A real Celery client that leaves nothing open.

Celery's own `close` leaves connections to the collector, and what that finds open is
the failure of whichever test runs then.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from kombu import pools

_open: list[Celery] = []


@contextmanager
def celery_client(broker: str, backend: str | None = None) -> Iterator[Celery]:
    """Lend a client for the block's time."""
    client = Celery("client", broker=broker, backend=backend)
    _open.append(client)
    try:
        yield client
    finally:
        _open.remove(client)
        if backend:
            _leave(client.backend)
        client.close()
        if not _open:  # clients of one address share a pool
            pools.reset()  # type: ignore[no-untyped-call] # kombu has no types


def _leave(backend: Any) -> None:
    # Results that nobody waited for say farewell when they are freed, by a connection
    # that is opened for that.
    backend.result_consumer.cancel_for = lambda task_id: None
    backend.result_consumer.stop()
    backend.client.connection_pool.disconnect()
