"""The calls that an application makes, each as the run that makes it would have it."""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, Protocol

import beatd
from beatd.app.bulk import Bulk
from beatd.app.connections import Connections
from beatd.app.recorder import CallRecorder
from beatd.app.sending import CallMessage, CallSender, new_id
from beatd.brokers.items import Outgoing
from beatd.clock import Clock
from beatd.config.own_code import OwnCode
from beatd.config.settings import Settings
from beatd.errors import MessageError
from beatd.instant import Instant
from beatd.message import Canvas, Sending
from beatd.message.options import kind_of
from beatd.tasks import (
    AsyncResult,
    Registry,
    Signature,
    Task,
    current_request,
    sending_request,
)

_OWN = OwnCode.of("beatd", beatd.__file__)


class Caller(Protocol):
    """The application whose calls these are."""

    @property
    def settings(self) -> Settings:
        """Return the settings."""
        ...

    @property
    def tasks(self) -> Registry:
        """Return the tasks that are known here."""
        ...

    @property
    def connections(self) -> Connections:
        """Return the connections of this process."""
        ...

    def AsyncResult(self, task_id: str) -> AsyncResult[Any]:
        """Return the run of this id."""
        ...


def calls_for_each(app: Caller, name: str) -> str:
    """Return whose code makes each call of a task; empty if it is beatd's alone."""
    task = app.tasks.get(name)
    if task is None:
        return _OWN.foreign(app, "send_task")
    return _OWN.foreign(task, "apply_async") or _OWN.foreign(app, "call_task")


class Calls:
    """Completes calls by settings, tasks and the run under way, and sends them."""

    def __init__(self, app: Caller, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    @property
    def sender(self) -> CallSender:
        """Return the sender of this process."""
        return CallSender(self._app.connections)

    def new_id(self) -> str:
        """Return an id for a call that is made now."""
        return new_id(self._clock.now())

    def send(self, sending: Sending, *, registered: bool) -> AsyncResult[Any]:
        """Send one call; its task's own options are among its options already."""
        now = self._clock.now()
        options = self.completed(sending.options, registered=registered)
        # A drawn id is no option: calls with the same options share what is encoded.
        task_id: str = options.get("task_id") or new_id(now)
        recorder = options.pop("producer", None)
        sending = Sending(sending.task, sending.args, sending.kwargs, options)
        if isinstance(recorder, CallRecorder):
            recorder.keep(sending, task_id, now, registered=registered)
        else:
            sender = self.sender
            sender.send([sender.message(sending, task_id, now, registered=registered)])
        return self.sent(task_id)

    def send_many(self, signatures: Sequence[Signature]) -> list[Any]:
        """Send these calls; return their results. Raises CallsNotSent."""
        bulk = Bulk(self.sender, self._clock, self.sent)
        others = cache(self._made_by_others)
        for one in signatures:
            app: object = one.app
            if one.subtask_type or app is not self._app or others(one.task):
                bulk.call(one.apply_async)
            else:
                bulk.add(partial(self._call_of, one), one.task in self._app.tasks)
        return bulk.end()

    def send_many_of(
        self,
        task: Task[..., Any],
        calls: Sequence[Sequence[Any]],
        options: Mapping[str, Any],
    ) -> list[Any]:
        """Send calls of one task; return their results. Raises CallsNotSent.

        Raises MessageError, having sent nothing, for options that they cannot share.
        """
        if "task_id" in options:
            raise MessageError("task_id: each of many calls has its own")
        bulk = Bulk(self.sender, self._clock, self.sent)
        if self._made_by_others(task.name):
            for args in calls:
                bulk.call(partial(task.apply_async, args, **options))
            return bulk.end()
        shared = self.completed({**task.sent_options(), **options}, registered=True)

        def call_with(args: Sequence[Any]) -> Sending:
            if not isinstance(args, list | tuple):
                raise MessageError(f"expected a list or tuple, got {kind_of(args)}")
            task.check_arguments(args, {})
            return Sending(task.name, args, {}, shared)

        for args in calls:
            bulk.add(partial(call_with, args), True)
        return bulk.end()

    def _call_of(self, signature: Signature) -> Sending:
        """Return the call that `apply_async` of a signature makes. Raises TypeError."""
        name, args, kwargs = signature.task, signature.args, signature.kwargs
        options: Mapping[str, Any] = signature.options
        task = self._app.tasks.get(name)
        if task is not None:
            task.check_arguments(args, kwargs)
            options = {**task.sent_options(), **options}
        completed = self.completed(options, registered=task is not None)
        return Sending(name, args, kwargs, completed)

    def _made_by_others(self, name: str) -> bool:
        """Return whether a call of the task is not one message of beatd's making."""
        app = self._app
        return app.settings.task_always_eager or bool(calls_for_each(app, name))

    def sent(self, task_id: str) -> AsyncResult[Any]:
        """Return the run of a call that was sent, a child of the run under way."""
        result = self._app.AsyncResult(task_id)
        if (parent := current_request()) is not None:
            parent.children.append(result)
        return result

    def completed(
        self, options: Mapping[str, Any], *, registered: bool
    ) -> dict[str, Any]:
        """Return the options of a call with what it inherits, and of a known task."""
        complete = self.known(options) if registered else dict(options)
        return {**complete, **self.inherited(complete)}

    def send_composed(self, signature: Mapping[str, Any]) -> None:
        """Send the calls that a signature with ids stands for: all, or none.

        Raises ChordError if the result back end counts no chords.
        """
        canvas = Canvas(self.new_id, **self.inherited({}))
        canvas.add(signature)
        now = self._clock.now()
        sends = list(map(self._completed, canvas.sends))
        calls = [self._message(one, now) for one in sends]
        if canvas.chords:
            self._app.connections.begin_chords(canvas.chords)
        if calls:
            self.sender.send(calls)

    def message(
        self, sending: Sending, now: Instant, due: Instant | None = None
    ) -> Outgoing:
        """Return the message of a call whose options are complete."""
        return self._message(sending, now, due).message

    def _message(
        self, sending: Sending, now: Instant, due: Instant | None = None
    ) -> CallMessage:
        task_id = sending.options.get("task_id") or new_id(now)
        known = sending.task in self._app.tasks
        return self.sender.message(sending, task_id, now, due, registered=known)

    def _completed(self, sending: Sending) -> Sending:
        """Return a call of a canvas with its task's own options. Raises TypeError."""
        task = self._app.tasks.get(sending.task)
        if task is None:
            return sending
        task.check_arguments(sending.args, sending.kwargs)
        options = self.known({**task.sent_options(), **sending.options})
        return sending._replace(options=options)

    def known(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return a known task's options with what the settings say of all tasks."""
        settings = self._app.settings
        known = {"ignore_result": settings.task_ignore_result, **options}
        if settings.task_default_priority is not None:
            known.setdefault("priority", settings.task_default_priority)
        return known

    def inherited(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a call with these options inherits from the run that makes it."""
        parent = sending_request()
        if parent is None:
            return {}
        inherited = {"root_id": parent.root_id, "parent_id": parent.id}
        if self._app.settings.task_inherit_parent_priority:
            inherited["priority"] = parent.delivery_info.get("priority")
        return {name: v for name, v in inherited.items() if name not in options}
