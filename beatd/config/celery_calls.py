"""What the entries of a Celery app send: what Celery's beat would, by Celery's code.

Celery is imported here only where an app of its own has imported it already.
"""

import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from beatd.config.called import CalledMessage, calling, check_sender
from beatd.config.calls import EntryCall, check_arguments, in_zone
from beatd.config.celery_code import CeleryCode
from beatd.config.recording import Recorder
from beatd.message import Made, Template
from beatd.message.options import check_options
from beatd.message.recorded import (
    MARK,
    Recorded,
    filled_with,
    template_of,
)
from beatd.message.shape import Shape
from beatd.message.timing import Timing, timing_of
from beatd.routing import Queue, Route

_one_at_a_time = threading.RLock()
"""Held while the state of Celery's that all threads share is changed for a call."""

_SAMPLE = str(uuid.uuid4())
"""The task id of calls that are made once: nothing else contains it."""


class CeleryCalls:
    """Makes the very calls of Celery's beat, and takes what they would publish.

    A call whose message differs from slot to slot only where Celery's own code makes
    the difference is made once. All others are made for each slot, when it has come.
    """

    def __init__(
        self, app: Any, body_encoding: str, sentry_monitors: bool = True
    ) -> None:
        self.app = app
        self._monitored = sentry_monitors
        self.code = CeleryCode(app)
        self._recorder = Recorder(app, body_encoding)
        self._repr_levels = app.conf.get("task_repr_maxlevels", 3)  # since Celery 5.7
        self._events = app.conf.event_exchange  # the scheduler sends them by itself
        self._kinds: dict[object, _Kind] = {}

    def message(self, call: EntryCall) -> CalledMessage:
        """Return what is sent. Raises MessageError that says what cannot be."""
        check_arguments(call.args, call.kwargs)
        check_sender(call)
        if str(call.zone) != str(self.app.timezone):
            call = call._replace(options=in_zone(call.options, call.zone))
        key = _key_of(call)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kind(call)
            if key is not None:
                self._kinds[key] = kind
        why = kind.why or _differs(call)
        made = None
        if not (why or self.code.listened_to()):
            made = self._template(call, kind)
            why = "" if made else "what is sent is not the same each time"
        route = made.route if made else self._expected_route(call, kind)
        return CalledMessage(self, call, kind.timing, route, made, why)

    def queues(self) -> Collection[Queue]:
        """Return the queues that messages were sent to."""
        return self._recorder.queues.values()

    def listened_to(self) -> str:
        """Return who takes part in each call just now; empty if nobody does."""
        return self.code.listened_to()

    def publish(
        self,
        call: EntryCall,
        id: str,
        headers: Mapping[str, Any],
        arguments: Mapping[str, Any],
        more: Mapping[str, Any],
    ) -> list[Made]:
        """Make a call under this task id, with more headers, arguments and options.

        Returns what it would send of the entry. Raises MessageError.
        """
        recorded = self._send(call, id, headers, arguments, more)
        with calling(call.task):  # receivers may have put anything anywhere
            return [_made(one, id) for one in recorded]

    def _send(
        self,
        call: EntryCall,
        id: str,
        headers: Mapping[str, Any],
        arguments: Mapping[str, Any],
        more: Mapping[str, Any],
    ) -> list[Recorded]:
        """Make a call under this task id, with more headers, arguments and options.

        Returns what it has published of the entry. Raises MessageError.
        """
        options = {"task_id": id, **call.options}
        options["headers"] = {**(options.get("headers") or {}), **headers, MARK: True}
        options["producer"] = self._recorder.producer
        options |= more
        task = self.app.tasks.get(call.task)

        def send() -> None:
            args = [_value_of(value) for value in call.args or ()]
            kwargs = {k: _value_of(v) for k, v in (call.kwargs or {}).items()}
            kwargs |= arguments
            if task:
                task.apply_async(args, kwargs, **options)
            else:
                self.app.send_task(call.task, args, kwargs, **options)

        if headers and self._monitored and self.code.is_around_beat():
            send = partial(_as_monitored, self.app, call, options, send)
        with calling(call.task), _as_in_beat(self.app):
            published = self._recorder.record(send)
        return [one for one in published if one.route.exchange != self._events]

    # Made once

    def _kind(self, call: EntryCall) -> "_Kind":
        task = self.app.tasks.get(call.task)
        options = _own_options(task) | dict(call.options)
        check_options({"expires": options.get("expires")})
        timing = timing_of(options, self.app.timezone)
        return _Kind(task, options, timing, self.code.calls_for_each(task))

    def _template(self, call: EntryCall, kind: "_Kind") -> Template | None:
        """Return what the call publishes, to be completed for each slot."""
        if kind.is_proven and (made := self._filled(call, kind)):
            return made
        published = self._send(call, _SAMPLE, {}, {}, {})
        if len(published) != 1 or MARK not in published[0].envelope["headers"]:
            return None
        recorded = published[0]
        made = template_of(
            recorded,
            task=call.task,
            id=_SAMPLE,
            own_id=call.options.get("task_id"),
            timing=kind.timing,
            zone=call.zone,
            entry=call.entry,
            of_process=(recorded.envelope["headers"]["origin"], self.app.thread_oid),
            repr_bounds=(self.app.amqp.argsrepr_maxsize, self._repr_levels),
        )
        if made is None:
            return None
        if kind.shape is None:
            if made.shape.body.tail is not None:
                kind.shape = made.shape
            return made
        filled = self._filled(call, kind)
        if filled is None or _sample_of(filled) != _sample_of(made):
            return made
        # The second message of a kind shows whether a third has to be recorded.
        kind.is_proven = True
        return filled

    def _filled(self, call: EntryCall, kind: "_Kind") -> Template | None:
        """Return a message of its kind, with other arguments; None if it is not sure.

        If they are wrong, recording the call says so in Celery's words.
        """
        if kind.shape is None:
            return None
        args, kwargs = list(call.args or ()), dict(call.kwargs or {})
        try:
            if kind.task and kind.task.typing:
                kind.task.__header__(*args, **kwargs)
            return filled_with(kind.shape, args, kwargs, call.entry)
        except (TypeError, ValueError, RecursionError):
            return None

    # For each slot

    def _expected_route(self, call: EntryCall, kind: "_Kind") -> Route:
        """Return where the messages go unless the code of the task decides otherwise.

        Nothing is published: that has consequences elsewhere, as locks.
        """
        amqp = self.app.amqp
        args, kwargs = call.args or (), call.kwargs or {}
        given = {name: it for name, it in kind.options.items() if it is not None}
        with calling(call.task):  # or about a queue's name
            way = amqp.router.route(given, call.task, args, kwargs, kind.task)
            queue = way.get("queue") or amqp.default_queue
            queue = amqp.queues[queue] if isinstance(queue, str) else queue
            exchange, key = way.get("exchange"), way.get("routing_key")
            exchange = getattr(exchange, "name", exchange)
            priority = int(way.get("priority") or 0)
        type_ = way.get("exchange_type") or queue.exchange.type
        if type_ == "direct" and not (exchange and key):
            return Route(queue.name, "", queue.name, type_, priority)
        exchange = exchange or queue.exchange.name
        return Route("", exchange, key or queue.routing_key, type_, priority)


@dataclass(slots=True)
class _Kind:
    """Calls of one task with the same options: they differ in their arguments."""

    task: Any
    """None if no task of the name is registered."""
    options: Mapping[str, Any]
    """Those of the task, too."""
    timing: Timing
    why: str
    """Why each call is made for each slot; empty if it is not."""
    shape: Shape | None = field(default=None, init=False)
    """That of the first message, if others may differ in the arguments only."""
    is_proven: bool = field(default=False, init=False)
    """Whether a second message did not."""


def _made(recorded: Recorded, id: str) -> Made:
    """Return a recorded message as that of the slot of this id."""
    properties = recorded.envelope["properties"]
    properties["delivery_tag"] = id
    message = recorded.text
    return Made(message, recorded.route, str(properties.get("correlation_id") or id))


@contextmanager
def _as_in_beat(app: Any) -> Iterator[None]:
    """Have a call publish a message, and do nothing else, as long as this lasts."""
    from celery._state import _set_task_join_will_block, task_join_will_block

    with _one_at_a_time:
        # Nobody waits here for results: else back ends subscribe to that of each call.
        joins, eager = task_join_will_block(), app.conf.task_always_eager
        _set_task_join_will_block(True)
        if eager:
            app.conf.task_always_eager = False
        try:
            yield
        finally:
            _set_task_join_will_block(joins)
            if eager:
                app.conf.task_always_eager = eager


def _as_monitored(
    app: Any, call: EntryCall, options: dict[str, Any], send: Callable[[], object]
) -> None:
    """Send by the method of Celery's beat around which Sentry has put its monitors.

    They read the entry's name and schedule, and add headers to its options.
    """
    from celery.beat import Scheduler
    from celery.schedules import maybe_schedule

    raised: list[Exception] = []

    def apply_async(entry: Any, **_: Any) -> None:
        options["headers"] = entry.options["headers"]
        try:
            send()
        except Exception as error:  # Celery's beat would only log it
            raised.append(error)

    entry = SimpleNamespace(
        name=call.entry,
        task=call.task,
        schedule=maybe_schedule(call.schedule, app=app),
        options={"headers": options["headers"]},
    )
    Scheduler.apply_entry(SimpleNamespace(app=app, apply_async=apply_async), entry)
    if raised:
        raise raised[0]


def _own_options(task: Any) -> dict[str, Any]:
    """Return the options that each call takes from its task."""
    options = {} if task is None else task._get_exec_options()
    return {name: value for name, value in options.items() if value is not None}


def _differs(call: EntryCall) -> str:
    """Return why the arguments of a call are not the same for each slot."""
    if call.slot_argument is not None:
        return f"the argument {call.slot_argument!r} is the slot"
    if any(map(_is_lazy, call.args or ())):
        return "an argument is a BeatLazyFunc"
    if call.kwargs and any(map(_is_lazy, call.kwargs.values())):
        return "an argument is a BeatLazyFunc"
    return ""


def _sample_of(template: Template) -> bytes:
    return template.complete(id=_SAMPLE, tag="", now=0, slot=0)


def _is_lazy(value: Any) -> bool:
    kind = type(value)
    return kind not in _PLAIN and any(
        (base.__module__, base.__name__) == ("celery.beat", "BeatLazyFunc")
        for base in kind.__mro__
    )


_PLAIN = {str, int, float, bool, type(None), list, dict, tuple}


def _value_of(value: Any) -> Any:
    return value() if _is_lazy(value) else value


def _key_of(call: EntryCall) -> object:
    """Return what is equal for calls that differ in their arguments only, or None."""
    options = call.options.items()
    # Equal values may be different options: True and 1, a moment in two zones.
    key = call.task, call.zone, tuple((name, it, repr(it)) for name, it in options)
    try:
        hash(key)
    except TypeError:  # some option is a list or a dict
        return None
    return key
