"""`app.control`: commands to workers, Celery's too, and what they answer."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from beatd.app.connections import Connections
from beatd.bounds import seconds_of
from beatd.brokers.base import Broadcast
from beatd.brokers.items import Outgoing
from beatd.errors import ConfigError, MessageError
from beatd.event_log import EventLog
from beatd.instant import span_of
from beatd.message import Notice, read_notice, write_notice
from beatd.routing import Queue, Route
from beatd.text import one_line

tell = EventLog(__name__)

Answers: TypeAlias = list[dict[str, Any]]
"""Of each worker one dict: its name, and what it has answered."""


class Control:
    """Sends commands to all workers, or to those that `destination` names.

    With `reply=True` a command returns what workers answer within `timeout` seconds,
    else None at once. Every method raises ConfigError on a broker that carries no
    remote control.
    """

    def __init__(self, connections: Callable[[], Connections]) -> None:
        self._connections = connections

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Sequence[str] | str | None = None,
        *,
        reply: bool = False,
        timeout: float = 1.0,
        limit: int | None = None,
        callback: Callable[[Any], object] | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
        connection: object = None,
        **more: Any,
    ) -> Answers | None:
        """Send a command; further keywords are arguments of it.

        `pattern` picks workers by name, as a `glob` or another `matcher`. `limit` and
        `callback` are for answers.
        """
        if isinstance(destination, str):
            destination = [destination]
        body = {
            "method": command,
            "arguments": {**(arguments or {}), **more},
            "destination": destination,
            "pattern": pattern,
            "matcher": matcher,
        }
        if not reply:
            self._broker.send([self._message(body)])
            return None
        answers = self._asked(body, timeout)[:limit]
        for answer in answers:
            if callback:
                callback(answer)
        return answers

    def inspect(
        self,
        destination: Sequence[str] | str | None = None,
        timeout: float = 1.0,
        **more: Any,
    ) -> "Inspect":
        """Return what asks workers how they are."""
        return Inspect(self, destination, timeout=timeout, **more)

    def ping(
        self,
        destination: Sequence[str] | None = None,
        timeout: float = 1.0,
        **more: Any,
    ) -> Answers:
        """Return which workers answer: `[{"celery@host": {"ok": "pong"}}]`."""
        answers = self.broadcast(
            "ping", {}, destination, reply=True, timeout=timeout, **more
        )
        return answers or []

    def revoke(
        self,
        task_id: str | Sequence[str],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str | None = "SIGTERM",
        **more: Any,
    ) -> Answers | None:
        """Tell workers not to begin these runs any more.

        With `terminate`, the processes of runs that have begun are sent `signal`,
        where each run has a process of its own.
        """
        arguments = {"task_id": task_id, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke", arguments, destination, **more)

    def terminate(
        self,
        task_id: str | Sequence[str],
        destination: Sequence[str] | None = None,
        signal: str | None = "SIGTERM",
        **more: Any,
    ) -> Answers | None:
        """Revoke runs, and end those that have begun."""
        return self.revoke(task_id, destination, True, signal, **more)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str | None = "SIGTERM",
        **more: Any,
    ) -> Answers | None:
        """Revoke all runs that have one of these stamps."""
        arguments = {"headers": headers, "terminate": terminate, "signal": signal}
        command = "revoke_by_stamped_headers"
        return self.broadcast(command, arguments, destination, **more)

    def rate_limit(
        self,
        task_name: str,
        rate_limit: str | float,
        destination: Sequence[str] | None = None,
        **more: Any,
    ) -> Answers | None:
        """Set how often a task may begin on each worker: `10/m`, 5 (a second), 0."""
        arguments = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", arguments, destination, **more)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Sequence[str] | None = None,
        **more: Any,
    ) -> Answers | None:
        """Set the time limits of a task, in seconds."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", arguments, destination, **more)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        **more: Any,
    ) -> Answers | None:
        """Have workers take from one more queue."""
        arguments = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
            **(options or {}),
        }
        return self.broadcast("add_consumer", arguments, destination, **more)

    def cancel_consumer(self, queue: str, *to: Any, **more: Any) -> Answers | None:
        """Have workers take from a queue no more."""
        return self.broadcast("cancel_consumer", {"queue": queue}, *to, **more)

    def pool_grow(self, n: int = 1, *to: Any, **more: Any) -> Answers | None:
        """Have workers run `n` more tasks at a time."""
        return self.broadcast("pool_grow", {"n": n}, *to, **more)

    def pool_shrink(self, n: int = 1, *to: Any, **more: Any) -> Answers | None:
        """Have workers run `n` fewer tasks at a time."""
        return self.broadcast("pool_shrink", {"n": n}, *to, **more)

    def autoscale(self, max: int, min: int, *to: Any, **more: Any) -> Answers | None:
        """Set between how many processes workers scale."""
        return self.broadcast("autoscale", {"max": max, "min": min}, *to, **more)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        *to: Any,
        **more: Any,
    ) -> Answers | None:
        """Have workers replace the processes of their pools."""
        arguments = {"modules": modules, "reload": reload, "reloader": None}
        return self.broadcast("pool_restart", arguments, *to, **more)

    def enable_events(self, *to: Any, **more: Any) -> Answers | None:
        """Have workers send events of tasks."""
        return self.broadcast("enable_events", {}, *to, **more)

    def disable_events(self, *to: Any, **more: Any) -> Answers | None:
        """Have workers send no events of tasks."""
        return self.broadcast("disable_events", {}, *to, **more)

    def heartbeat(self, *to: Any, **more: Any) -> Answers | None:
        """Have workers send a heartbeat now."""
        return self.broadcast("heartbeat", {}, *to, **more)

    def shutdown(self, *to: Any, **more: Any) -> Answers | None:
        """Stop workers. Those of beatd obey if `worker_remote_shutdown` is set."""
        return self.broadcast("shutdown", {}, *to, **more)

    def purge(self, connection: object = None) -> int:
        """Remove all messages that wait in the queues of the settings; return how many.

        Those in flight, and those that wait for their time, stay.
        """
        connections = self._connections()
        return connections.broker.purge(list(connections.router.queues))

    discard_all = purge

    @property
    def _broker(self) -> Broadcast:
        broker = self._connections().broker
        if not isinstance(broker, Broadcast):
            problem = "remote control goes over Redis, and this broker is another one"
            raise ConfigError("broker_url", [problem])
        return broker

    @property
    def _exchange(self) -> str:
        return f"{self._connections().settings.control_exchange}.pidbox"

    def _message(self, body: Mapping[str, Any]) -> Outgoing:
        route = Route("", self._exchange, "", "fanout")
        notice = Notice({"clock": 0, "expires": 0}, dict(body))
        message = write_notice(notice, route, tag=str(uuid.uuid4()), delivery_mode=2)
        return Outgoing(route, message)

    def _asked(self, body: Mapping[str, Any], timeout: float) -> Answers:
        """Send a command and return the answers that come in time."""
        oid, reply = str(uuid.uuid4()), f"reply.{self._exchange}"
        way_back = {"exchange": reply, "routing_key": oid}
        body = {**body, "ticket": str(uuid.uuid4()), "reply_to": way_back}
        expires = self._connections().settings.control_queue_expires
        answers = Queue(f"{oid}.{reply}", reply, "direct", oid, expires)
        limit = span_of(seconds_of(timeout))
        found: Answers = []
        for raw in self._broker.ask(self._message(body), answers, limit):
            try:
                answer = read_notice(raw).body
            except MessageError as error:
                words = "passed over an answer that cannot be read: %s"
                tell.warning("control.garbage", words, one_line(str(error)))
                continue
            if isinstance(answer, dict):
                found.append(answer)
        return found


class Inspect:
    """Asks workers how they are.

    Each method returns the answers by the workers' names, or that of the one worker
    that `destination` names as text; None if no worker has answered.
    """

    def __init__(
        self,
        control: Control,
        destination: Sequence[str] | str | None = None,
        *,
        pattern: str | None = None,
        matcher: str | None = None,
        **more: Any,
    ) -> None:
        self._control = control
        self._destination = destination
        self._more = {"pattern": pattern, "matcher": matcher, **more}

    def _asked(self, command: str, **arguments: Any) -> Any:
        answers = self._control.broadcast(
            command,
            arguments,
            self._destination,
            reply=True,
            **self._more,
        )
        by_node = {node: value for one in answers or () for node, value in one.items()}
        if by_node and isinstance(self._destination, str):
            return by_node.get(self._destination)
        return by_node or None

    def ping(self, destination: object = None) -> Any:
        """Return `{"ok": "pong"}` of each worker."""
        return self._asked("ping")

    def active(self, safe: bool | None = None) -> Any:
        """Return the tasks that run now."""
        return self._asked("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:
        """Return the tasks that wait in workers for their time."""
        return self._asked("scheduled", safe=safe)

    def reserved(self, safe: bool | None = None) -> Any:
        """Return the tasks that workers have taken and not begun."""
        return self._asked("reserved", safe=safe)

    def revoked(self) -> Any:
        """Return the ids of revoked tasks."""
        return self._asked("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """Return the names of the tasks that workers have, with these attributes."""
        return self._asked("registered", taskinfoitems=taskinfoitems)

    registered_tasks = registered

    def active_queues(self) -> Any:
        """Return the queues that workers take from."""
        return self._asked("active_queues")

    def stats(self) -> Any:
        """Return figures of the workers and their pools."""
        return self._asked("stats")

    def report(self) -> Any:
        """Return texts about versions and settings."""
        return self._asked("report")

    def conf(self, with_defaults: bool = False) -> Any:
        """Return the settings; secrets are masked."""
        return self._asked("conf", with_defaults=with_defaults)

    def clock(self) -> Any:
        """Return the logical clocks."""
        return self._asked("clock")

    def query_task(self, *ids: Any) -> Any:
        """Return what workers know of these tasks, by id."""
        listed = ids[0] if len(ids) == 1 and isinstance(ids[0], list | tuple) else ids
        return self._asked("query_task", ids=listed)
