"""A monitor as Celery's users have them: `celery events`, Flower."""

import threading
from typing import Any

from celery import Celery

from tests.servers import eventually


class Listener:
    """Celery's receiver of events, in a thread."""

    def __init__(self, client: Celery) -> None:
        self.events: list[dict[str, Any]] = []
        self.state = client.events.State()
        self._connection = client.connection_for_read()
        self._receiver = client.events.Receiver(self._connection, {"*": self._take})
        self._thread = threading.Thread(target=self._receiver.capture)

    def __enter__(self) -> "Listener":
        self._thread.start()
        eventually(lambda: self.events)  # it asks all workers for a heartbeat
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._thread.join()
        self._connection.release()

    def _take(self, event: dict[str, Any]) -> None:
        self.state.event(event)
        self.events.append(event)

    def of(self, task_id: str) -> list[str]:
        """Return the types of a task's events, in order."""
        return [one["type"] for one in self.events if one.get("uuid") == task_id]

    def has_ended(self, task_id: str) -> bool:
        ends = {"task-succeeded", "task-failed", "task-revoked"}
        return not ends.isdisjoint(self.of(task_id))

    def sent(self, task_id: str | None = None) -> list[dict[str, Any]]:
        """Return the events of calls, or of one call, that were sent."""
        told = [one for one in self.events if one["type"] == "task-sent"]
        return [one for one in told if task_id in (None, one["uuid"])]
