"""What entries send: a call for each, as an app makes it or as none does."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any, NamedTuple, Protocol

from beatd.errors import MessageError
from beatd.message import EntryMessage, MessageFormat, Template
from beatd.message.options import kind_of
from beatd.message.shape import Shape, shape_for, shape_key
from beatd.message.template import of_shape
from beatd.routing import Queue, Route, Router


class EntryCall(NamedTuple):
    """The call that an entry makes for each slot."""

    entry: str
    task: str
    args: Any
    kwargs: Any
    options: Mapping[str, Any]
    zone: tzinfo
    """Slots are written in it."""
    slot_argument: str | None
    """The keyword argument that says the slot."""
    schedule: Any = None
    """The schedule, as it is written."""


def in_zone(options: Mapping[str, Any], zone: tzinfo) -> Mapping[str, Any]:
    """Return options whose moments that name no zone are in this one."""
    if not options:
        return options
    naive = {
        name: value.replace(tzinfo=zone)
        for name in ("eta", "expires")
        if isinstance(value := options.get(name), datetime) and value.tzinfo is None
    }
    return {**options, **naive} if naive else options


def check_arguments(args: object, kwargs: object) -> None:
    """Raise MessageError for arguments that cannot be passed to a function."""
    if not isinstance(args or (), list | tuple):
        raise MessageError(f"args: expected a list or tuple, got {kind_of(args)}")
    kwargs = kwargs or {}
    if not isinstance(kwargs, Mapping):
        raise MessageError(f"kwargs: expected a dict, got {kind_of(kwargs)}")
    for name in kwargs:
        if not isinstance(name, str):
            raise MessageError(f"kwargs: expected text as names, got {kind_of(name)}")


class Calls(Protocol):
    """Makes messages of calls."""

    def message(self, call: EntryCall) -> EntryMessage:
        """Return what is sent. Raises MessageError that says what cannot be."""
        ...

    def queues(self) -> Collection[Queue]:
        """Return the queues to declare, beside those of the settings."""
        ...


@dataclass(frozen=True, slots=True)
class PlainCalls:
    """Calls of tasks of which nothing is known but their names."""

    format: MessageFormat
    router: Router
    default_priority: int | None = None
    _shapes: dict[Hashable, Shape] = field(default_factory=dict, init=False)
    """By task, options and zone: what the messages of such calls have in common."""

    def message(self, call: EntryCall) -> EntryMessage:
        """Return what is sent. Raises MessageError that says what cannot be."""
        options = in_zone(call.options, call.zone)
        return self.encoded(call, options, registered=False)

    def queues(self) -> Collection[Queue]:
        """Return none: the settings name all."""
        return ()

    def encoded(
        self, call: EntryCall, options: Mapping[str, Any], *, registered: bool
    ) -> Template:
        """Return what is sent of a call with these options."""
        return of_shape(
            self._shape_of(call, options, registered),
            call.args,
            call.kwargs,
            entry=call.entry,
            slot_argument=call.slot_argument,
        )

    def _shape_of(
        self, call: EntryCall, options: Mapping[str, Any], registered: bool
    ) -> Shape:
        """Return the shape of a call; it is made once for calls that have the same."""
        key = (call.task, call.zone, registered, shape_key(options))
        known = self._shapes if self.router.is_fixed else {}
        try:
            return known[key]
        except KeyError:
            shape = known[key] = self._new_shape(call, options, registered)
            return shape
        except TypeError:  # some option is a list or a dict
            return self._new_shape(call, options, registered)

    def _new_shape(
        self, call: EntryCall, options: Mapping[str, Any], registered: bool
    ) -> Shape:
        options, route = self.routed(call, options)
        common = self.format, route, registered, True, call.zone
        return shape_for(options, call.task, *common)

    def routed(
        self, call: EntryCall, options: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Route]:
        """Return all options of a call that has these, and where its messages go."""
        args: Sequence[Any] = call.args or ()
        kwargs: Mapping[str, Any] = call.kwargs or {}
        if self.default_priority is not None:
            options = {"priority": self.default_priority, **options}
        return self.router.routed(call.task, options, args, kwargs)
