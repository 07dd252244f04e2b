"""The report of a run to the worker's loop; options and results, as both see them."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from beatd.brokers.items import Outgoing
from beatd.config.settings import Settings
from beatd.errors import ConfigError, MessageError
from beatd.instant import Instant, datetime_of
from beatd.message import Call, Chord, Envelope, Limits
from beatd.message.codec import check_compression, content_types
from beatd.message.represent import bounded_repr
from beatd.results.base import READY_STATES, Meta, State, Stored
from beatd.results.chords import Part
from beatd.tasks import Task


class Fate(StrEnum):
    """What is to become of the message."""

    SETTLED = "settled"
    REQUEUED = "requeued"  # to the end of its queue
    SET_ASIDE = "set_aside"  # to the dead-letter queue


class Bookkeeping(msgspec.Struct, frozen=True, array_like=True):
    """What the result backend is to store when a run has ended, besides its result."""

    stored: list[Stored] = msgspec.field(default_factory=list)
    """Failures of calls that will never be sent."""
    begun: list[Chord] = msgspec.field(default_factory=list)
    """Chords that begin with what is sent."""
    parts: list[Part] = msgspec.field(default_factory=list)
    """Ends that count for chords which have begun earlier."""

    def __bool__(self) -> bool:
        return bool(self.stored or self.begun or self.parts)


class Report(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """How one run ended."""

    fate: Fate = Fate.SETTLED
    state: str = ""
    """A state of results; empty when the task has asked for no result to be stored."""
    stored: Stored | None = None
    """The result to store."""
    sends: list[Outgoing] = msgspec.field(default_factory=list)
    """Messages that follow: a retry, callbacks, the next step of a chain."""
    bookkeeping: Bookkeeping = msgspec.field(default_factory=Bookkeeping)
    reason: str = ""
    """In one line: the exception, or why the message is set aside."""
    result: str = ""
    """The value as text for people, cut if it is long."""
    exception: str = ""
    """The exception, in one line."""
    traceback: str = ""
    expected: bool = False
    """Whether the exception is among those that the task declares in `throws`."""
    seconds: float = 0
    ends_run: bool = True
    """Whether the run has ended; False: it goes on with another message."""

    @property
    def is_unsaid(self) -> bool:
        """Whether its process could not run it: nobody else tells those who wait."""
        return self.fate is Fate.SET_ASIDE and not (self.state or self.exception)


pack_report = msgspec.msgpack.Encoder().encode
read_report = msgspec.msgpack.Decoder(Report).decode


LONGEST_RESULT = 1024
"""Characters; Celery's."""


def result_text(value: object) -> str:
    """Return a run's value as monitors show it; never raises."""
    try:
        return bounded_repr(value, LONGEST_RESULT, 3)
    except BaseException as error:  # foreign code: `items`, `__iter__`
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def limits_of(settings: Settings) -> Limits:
    """Return the limits within which a worker decodes messages.

    Raises ConfigError for a serializer or a compression that only kombu knows.
    """
    try:
        check_compression(settings.task_compression or "gzip")
    except MessageError as error:
        hint = "a worker of beatd reads no others: leave it out, or let Celery run it"
        raise ConfigError("task_compression", [f"{error}; {hint}"]) from error
    try:
        return Limits(content_types(settings.accept_content))
    except MessageError as error:
        hint = "a worker of beatd decodes no others: leave it out, or let Celery run it"
        raise ConfigError("accept_content", [f"{error}; {hint}"]) from error


def option(task: Task[..., Any], name: str, settings: Settings) -> Any:
    """Return an option of the task, or that of the settings if the task has none."""
    own = getattr(task, name)
    return getattr(settings, f"task_{name}") if own is None else own


def ignores_result(
    envelope: Envelope, task: Task[..., Any] | None, settings: Settings
) -> bool:
    """Return whether to store no result: by the message, the task or the settings."""
    if envelope.ignore_result is not None:
        return envelope.ignore_result
    if task is None:
        return settings.task_ignore_result
    return bool(option(task, "ignore_result", settings))


def keeps(
    state: str, ignored: bool, task: Task[..., Any] | None, settings: Settings
) -> bool:
    """Return whether this state of a run is to be stored."""
    if not ignored:
        return True
    if state != State.FAILURE:
        return False
    if task is None:
        return settings.task_store_errors_even_if_ignored
    return bool(option(task, "store_errors_even_if_ignored", settings))


def meta_of(
    envelope: Envelope,
    state: State,
    result: object,
    settings: Settings,
    *,
    now: Instant,
    hostname: str,
    traceback: str | None = None,
    children: Sequence[Any] = (),
    arguments: tuple[Sequence[Any], Mapping[str, Any]] | None = None,
    call: Call | None = None,
    runtime: float | None = None,
) -> Meta:
    """Return the meta to store of a run; its arguments may come with the call."""
    ended = state in READY_STATES
    extended: dict[str, Any] = {}
    if settings.result_extended:
        if call:
            arguments = call.args, call.kwargs
        args, kwargs = arguments or (None, None)
        extended = {
            "name": envelope.task,
            "args": args,
            "kwargs": kwargs,
            "worker": hostname,
            "retries": envelope.retries,
            "queue": envelope.routing_key,
        }
    return Meta(
        envelope.id,
        state,
        result,
        traceback,
        list(children),
        datetime_of(now, settings.zone) if ended else None,
        envelope.group,
        envelope.parent_id,
        extended,
        runtime if runtime is None else round(runtime, 6),
        call,
    )
