"""Calls into bytes: encoded once, completed for each slot."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, tzinfo
from functools import lru_cache
from json.encoder import encode_basestring_ascii as json_string
from typing import Any, NamedTuple, NoReturn, Protocol

from beatd.errors import MessageError
from beatd.instant import Instant
from beatd.message import codec
from beatd.message.options import kind_of
from beatd.message.shape import MessageFormat, Shape, form_of, shape_for
from beatd.message.timing import Times, iso, times_of
from beatd.routing import Route
from beatd.text import quoted


class Made(NamedTuple):
    """What an entry sends for one slot, and where to."""

    message: bytes
    route: Route | None
    """None: nothing is sent, because the task's own code has decided so."""
    task_id: str


class EntryMessage(Protocol):
    """What an entry sends, but for the parts that differ from slot to slot."""

    @property
    def task(self) -> str:
        """The name of the task."""
        ...

    @property
    def route(self) -> Route:
        """Where the messages go, as far as that is known before the first one."""
        ...

    @property
    def made_anew(self) -> str:
        """Why each message is made when its slot has come; empty if it is not."""
        ...

    def expires_of(self, sent: Instant) -> Instant | None:
        """Return when a message that was `sent` then expires, by the options."""
        ...

    def made(
        self, *, id: str, now: Instant, slot: Instant, expires: Instant | None
    ) -> Made:
        """Return the message for one slot, sent `now` under this task id.

        `expires` goes before the options. Raises MessageError if the code of the task
        does not let the message be made now.
        """
        ...

    def essence(self) -> str:
        """Return what stands for all that is sent, whatever process sends it."""
        ...


class Template:
    """A message that is encoded except for the parts that differ from slot to slot.

    Templates that are equal in the other parts share one shape.
    """

    __slots__ = ("_args_text", "_body", "_kwargs_text", "entry", "shape")

    made_anew = ""

    def __init__(
        self,
        shape: Shape,
        body: str,
        args_text: str,
        kwargs_text: str,
        entry: str | None,
    ) -> None:
        """`body` is encoded, or, if the shape has a tail, the text before that."""
        self.shape = shape
        self._body = body
        self._args_text = args_text
        self._kwargs_text = kwargs_text
        self.entry = entry

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.shape.task

    @property
    def route(self) -> Route:
        """Where the message goes."""
        return self.shape.route

    @property
    def task_id(self) -> str | None:
        """The id that the options set for every message; None if each has its own."""
        return self.shape.task_id

    def expires_of(self, sent: Instant) -> Instant | None:
        """Return when a message that was `sent` then expires, by the options."""
        return self.shape.timing.expires_when_sent(sent)

    def made(
        self, *, id: str, now: Instant, slot: Instant, expires: Instant | None
    ) -> Made:
        """Return the message for one slot, sent `now` under this task id."""
        message = self._filled(id, id, now, slot, expires)
        return Made(message, self.shape.route, self.shape.task_id or id)

    def complete(
        self,
        *,
        id: str,
        tag: str,
        now: Instant,
        slot: Instant | None = None,
        expires: Instant | None = None,
    ) -> bytes:
        """Return the message for one slot, sent `now` under this task id.

        `tag` is the delivery tag, different for each message. `expires` goes before
        the options.
        """
        return self._filled(id, tag, now, slot, expires)

    def _filled(
        self,
        id: str,
        tag: str,
        now: Instant,
        slot: Instant | None,
        expires: Instant | None,
    ) -> bytes:
        shape = self.shape
        task_id = shape.task_id or id
        id_text = json_string(task_id)
        times = shape.fixed_times
        if times is None or expires is not None:
            times = times_of(shape.timing, now, expires)
        values = (
            self._encoded_body(task_id, times, slot),
            id_text,
            self._args_text,
            self._kwargs_repr(slot),
            "" if self.entry is None else json_string(self.entry),
            id_text if tag is task_id else json_string(tag),
        )
        return (form_of(shape, times, slot) % shape.pick(values)).encode("ascii")

    def essence(self) -> str:
        """Return what stands for all that is sent, whatever process sends it."""
        shared = _essence_of(self.shape)
        return f"{shared}\0{self._body}\0{self._args_text}\0{self._kwargs_text}"

    def _encoded_body(self, task_id: str, times: Times, slot: Instant | None) -> str:
        """Return the text between the quotes after `"body":`."""
        form = self.shape.body
        if form.tail is None:
            return self._body
        return form.wrap(f"[{self._body}{form.tail}".encode("ascii"))

    def _kwargs_repr(self, slot: Instant | None) -> str:
        return self._kwargs_text


class _Rebuilt(Template):
    """A message whose body differs from slot to slot: encoded anew for each."""

    __slots__ = ("_args", "_kwargs", "_slot_argument")

    def __init__(
        self,
        shape: Shape,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        slot_argument: str | None,
        args_text: str,
        kwargs_text: str,
        entry: str | None,
    ) -> None:
        super().__init__(shape, "", args_text, kwargs_text, entry)
        self._args = args
        self._kwargs = kwargs
        self._slot_argument = slot_argument

    def essence(self) -> str:
        return _common(self)

    def _encoded_body(self, task_id: str, times: Times, slot: Instant | None) -> str:
        form = self.shape.body
        kwargs = self._with_slot(slot)
        if form.protocol_1 is None:
            return form.encode((self._args, kwargs, form.embed))
        volatile = {
            "id": task_id,
            "args": self._args,
            "kwargs": kwargs,
            "eta": times.eta,
            "expires": times.expires,
        }
        return form.encode({**form.protocol_1, **volatile})

    def _kwargs_repr(self, slot: Instant | None) -> str:
        if self._slot_argument is None or self.shape.kwargsrepr is not None:
            return self._kwargs_text
        return json_string(self.shape.represent(self._with_slot(slot)))

    def _with_slot(self, slot: Instant | None) -> dict[str, Any]:
        if self._slot_argument is None or slot is None:
            return self._kwargs
        return {**self._kwargs, self._slot_argument: iso(slot, self.shape.slot_zone)}


@lru_cache(maxsize=1024)
def _essence_of(shape: Shape) -> str:
    """Return what stands for what messages of a shape have in common."""
    return _common(Template(shape, "", "", "", ""))


def _common(template: Template) -> str:
    """Return a template's message without what differs between slots and processes."""
    message = template.complete(id="", tag="", now=0, slot=0).decode("ascii")
    for name in template.shape.of_process:
        message = message.replace(name, '""')
    return message


def template(
    format: MessageFormat,
    route: Route,
    task: str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    registered: bool = False,
    entry: str | None = None,
    zone: tzinfo = UTC,
    slot_argument: str | None = None,
) -> Template:
    """Return the template of a call; `options` are those of `apply_async`.

    Unknown options become properties of the message.

    `registered` says that the task is known here, and that the caller has put the
    task's own options under `options`. Messages of an `entry` carry its name and, in
    the entry's `zone`, the slot: as header `beatd_slot` and as keyword argument
    `slot_argument`.

    Raises MessageError that names the option or the argument that cannot be sent.
    """
    shape = shape_for(
        options or {}, task, format, route, registered, entry is not None, zone
    )
    return of_shape(shape, args, kwargs, entry=entry, slot_argument=slot_argument)


def of_shape(
    shape: Shape,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    entry: str | None = None,
    slot_argument: str | None = None,
) -> Template:
    """Return the template of a call whose messages have this shape.

    Raises MessageError that names the argument that cannot be sent.
    """
    args = args or ()
    if not isinstance(args, list | tuple):
        raise MessageError(f"args: expected a list or tuple, got {kind_of(args)}")
    kwargs = _checked_kwargs(kwargs or {})
    form = shape.body
    args_text = _shown_as(shape.argsrepr, args, shape)
    kwargs_text = _shown_as(shape.kwargsrepr, kwargs, shape)
    try:
        if form.protocol_1 is not None or slot_argument is not None:
            rebuilt = _Rebuilt(
                shape, args, kwargs, slot_argument, args_text, kwargs_text, entry
            )
            rebuilt.complete(id="", tag="", now=0, slot=0)  # it can be encoded
            return rebuilt
        if form.tail is None:
            body = form.encode((args, kwargs, form.embed))
        else:
            body = shared(codec.json_text((args, kwargs))[1:-1])
    except Exception as error:  # also `__json__` and the like, which are the user's
        _blame(error, args, kwargs, form.serializer)
    return Template(shape, body, args_text, kwargs_text, entry)


def _shown_as(given: str | None, value: Any, shape: Shape) -> str:
    """Return the text for `value` in logs, as JSON."""
    return shared(json_string(shape.represent(value) if given is None else given))


def _checked_kwargs(kwargs: Any) -> dict[str, Any]:
    if not isinstance(kwargs, dict) and not isinstance(kwargs, Mapping):
        raise MessageError(f"kwargs: expected a dict, got {kind_of(kwargs)}")
    for name in kwargs:
        if not isinstance(name, str):
            raise MessageError(f"kwargs: expected text as names, got {kind_of(name)}")
    return kwargs if isinstance(kwargs, dict) else dict(kwargs)


def _blame(error: Exception, args: Any, kwargs: Any, serializer: str) -> NoReturn:
    """Raise MessageError that says which argument cannot be encoded."""
    for name, value in (("args", args), ("kwargs", kwargs)):
        place, reason = _culprit(name, value, serializer, levels=20)
        if reason is not None:
            raise MessageError(f"{place}: {reason}") from error
    raise MessageError(f"cannot be encoded: {error}") from error


def _culprit(
    place: str, value: Any, serializer: str, levels: int
) -> tuple[str, MessageError | None]:
    """Return the innermost part that cannot be encoded on its own, and why."""
    try:
        codec.dumps(value, serializer)
    except MessageError as error:
        reason = error
    else:
        return place, None
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    for key, part in parts if levels else ():
        inner = _culprit(f"{place}[{quoted(key)}]", part, serializer, levels - 1)
        if inner[1] is not None:
            return inner
    return place, reason


@lru_cache(maxsize=4096)
def shared(text: str) -> str:
    """Return the same object for equal texts: many entries have equal ones."""
    return text
