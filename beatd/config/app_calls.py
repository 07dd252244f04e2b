"""What the entries of an app of beatd's send: what calls of their tasks would."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from beatd.config.called import CalledMessage, calling, check_sender
from beatd.config.calls import EntryCall, PlainCalls, check_arguments, in_zone
from beatd.config.own_code import name_of
from beatd.message import Made, MessageFormat
from beatd.message.options import check_options
from beatd.message.recorded import MARK
from beatd.message.timing import timing_of
from beatd.routing import Queue, Router


class TaskCalls(Protocol):
    """Makes calls of an app's tasks by the code of the tasks."""

    def listened_to(self) -> str:
        """Return who takes part in each call just now; empty if nobody does."""
        ...

    def calls_for_each(self, name: str) -> str:
        """Return why a call of the task is to be made for each slot; empty if not."""
        ...

    def check(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError for arguments that the task does not take."""
        ...

    def options_of(
        self, name: str, options: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return the options of a call with those of its task, None without a task."""
        ...

    def publish(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Sequence[Made]:
        """Make a call, and return what it would send. It may raise anything."""
        ...


class TaskApp(Protocol):
    """An app of beatd's, by what it knows of its tasks."""

    def entry_calls(self, format: MessageFormat, router: Router) -> TaskCalls:
        """Return what makes the calls of entries."""
        ...


class AppCalls:
    """Calls of the tasks of an app of beatd's, as their `apply_async` makes them.

    They are made for each slot where code takes part that is not beatd's own.
    """

    def __init__(self, app: TaskApp, plain: PlainCalls) -> None:
        self._plain = plain
        self._tasks = app.entry_calls(plain.format, plain.router)

    def message(self, call: EntryCall) -> CalledMessage:
        """Return what is sent. Raises MessageError that says what cannot be."""
        check_arguments(call.args, call.kwargs)
        check_sender(call)
        call = call._replace(options=in_zone(call.options, call.zone))
        with calling(call.task):
            why = self._tasks.calls_for_each(call.task) or self._asked()
            options = self._tasks.options_of(call.task, call.options)
        known, is_known = options or call.options, options is not None
        if why:
            known, route = self._plain.routed(call, known)
            check_options({"expires": known.get("expires")})
            timing = timing_of(known, self._plain.format.zone)
            return CalledMessage(self, call, timing, route, None, why)
        kwargs = call.kwargs or {}
        if call.slot_argument is not None:
            kwargs = {**kwargs, call.slot_argument: ""}
        with calling(call.task):
            self._tasks.check(call.task, call.args or (), kwargs)
        made = self._plain.encoded(call, known, registered=is_known)
        return CalledMessage(self, call, made.shape.timing, made.route, made, "")

    def _asked(self) -> str:
        """Return which router is asked by each call; empty if none is."""
        router = self._plain.router.asked()
        if router is None:
            return ""
        return f"task_routes has {name_of(router)}, which answers each call"

    def queues(self) -> Collection[Queue]:
        """Return none: the settings name all."""
        return ()

    def listened_to(self) -> str:
        """Return who takes part in each call just now; empty if nobody does."""
        return self._tasks.listened_to()

    def publish(
        self,
        call: EntryCall,
        id: str,
        headers: Mapping[str, Any],
        arguments: Mapping[str, Any],
        more: Mapping[str, Any],
    ) -> Sequence[Made]:
        """Make a call under this task id, with more headers, arguments and options.

        Returns what it would send of the entry. Raises MessageError.
        """
        options = {"task_id": id, **call.options}
        options["headers"] = {**(options.get("headers") or {}), **headers, MARK: True}
        options |= more
        args, kwargs = list(call.args or ()), {**(call.kwargs or {}), **arguments}
        with calling(call.task):
            return self._tasks.publish(call.task, args, kwargs, options)
