"""The calls that an application makes, each as the run that makes it would have it."""

from collections.abc import Mapping
from typing import Any, Protocol

from beatd.app.connections import Connections
from beatd.app.recorder import CallRecorder
from beatd.app.sending import CallSender, new_id
from beatd.brokers.items import Outgoing
from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.instant import Instant
from beatd.message import Canvas, Sending
from beatd.tasks import AsyncResult, Registry, current_request, sending_request


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
        options = dict(sending.options)
        # A drawn id is no option: calls with the same options share what is encoded.
        task_id: str = options.get("task_id") or new_id(now)
        if registered:
            options = self.known(options)
        options = {**options, **self.inherited(options)}
        recorder = options.pop("producer", None)
        sending = sending._replace(options=options)
        if isinstance(recorder, CallRecorder):
            recorder.keep(sending, task_id, now, registered=registered)
        else:
            sender = self.sender
            message = sender.message(sending, task_id, now, registered=registered)
            sender.send([(message, options)])
        result = self._app.AsyncResult(task_id)
        if (parent := current_request()) is not None:
            parent.children.append(result)
        return result

    def send_composed(self, signature: Mapping[str, Any]) -> None:
        """Send the calls that a signature with ids stands for: all, or none.

        Raises ChordError if the result back end counts no chords.
        """
        canvas = Canvas(self.new_id, **self.inherited({}))
        canvas.add(signature)
        now = self._clock.now()
        sends = list(map(self._completed, canvas.sends))
        calls = [(self.message(one, now), one.options) for one in sends]
        if canvas.chords:
            self._app.connections.begin_chords(canvas.chords)
        if calls:
            self.sender.send(calls)

    def message(
        self, sending: Sending, now: Instant, due: Instant | None = None
    ) -> Outgoing:
        """Return the message of a call whose options are complete."""
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
