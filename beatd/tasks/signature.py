"""A call to make later: a dict, as messages carry it, with Celery's methods."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, cast

from beatd.errors import MessageError
from beatd.message.options import is_signature, listed, whole
from beatd.tasks.async_result import AsyncResult
from beatd.tasks.current import Application, Args, Kwargs, current_app
from beatd.tasks.stamping import StampingVisitor, stamped
from beatd.text import quoted

S = TypeVar("S", bound="Signature")


class Signature(dict[str, Any]):
    """One call of a task, to be made later."""

    _kinds: ClassVar[dict[str, type["Signature"]]] = {}
    """The classes of composed signatures, by their `subtask_type`."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        Signature._kinds.setdefault(cls.__name__, cls)

    def __init__(
        self,
        task: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Application | None = None,
        **more: Any,
    ) -> None:
        """Take a task, or its name, with its call's parts; or a signature as a dict.

        Further keywords are options of the call.
        """
        self._app = app
        self._task: Any = None
        if isinstance(task, Mapping):
            super().__init__(whole(task))
            return
        if not isinstance(task, str):
            if not hasattr(task, "name"):
                expected = "expected a task, its name or a signature"
                raise TypeError(f"{expected}, got {quoted(task)}")
            self._task, task = task, task.name
        super().__init__(
            task=task,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options={**(options or {}), **more},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    # Its parts

    @property
    def task(self) -> str:
        """Return the task's name."""
        return cast(str, self["task"])

    name = task

    @property
    def args(self) -> Sequence[Any]:
        """Return the arguments; those of an earlier call's result go before them."""
        return cast(Sequence[Any], self["args"])

    @args.setter
    def args(self, args: Sequence[Any]) -> None:
        self["args"] = args

    @property
    def kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments; a composed signature has its parts here."""
        return cast(dict[str, Any], self["kwargs"])

    @kwargs.setter
    def kwargs(self, kwargs: dict[str, Any]) -> None:
        self["kwargs"] = kwargs

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of `apply_async`."""
        return cast(dict[str, Any], self["options"])

    @options.setter
    def options(self, options: dict[str, Any]) -> None:
        self["options"] = options

    @property
    def subtask_type(self) -> str | None:
        """Return "chain", "group", "chord", ..., or None for a call of a task."""
        return cast("str | None", self["subtask_type"])

    @property
    def immutable(self) -> bool:
        """Return whether it takes no arguments but its own."""
        return bool(self["immutable"])

    @immutable.setter
    def immutable(self, immutable: bool) -> None:
        self["immutable"] = immutable

    @property
    def id(self) -> str | None:
        """Return the id of the call, if it has one yet."""
        return self.options.get("task_id")

    @property
    def app(self) -> Application:
        """Return the application that it is sent through."""
        return self._known_app() or current_app()

    @property
    def type(self) -> Any:
        """Return the task itself. Raises NotRegistered if it is not known here."""
        return self._task or self.app.tasks[self.task]

    # Changed and copied

    def set(self, immutable: bool | None = None, **options: Any) -> "Signature":
        """Set options; return the signature itself."""
        if immutable is not None:
            self.immutable = immutable
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Set whether it takes no arguments but its own."""
        self.immutable = immutable

    def clone(
        self, args: Args = None, kwargs: Kwargs = None, **options: Any
    ) -> "Signature":
        """Return a copy, with `args` before its own, and these added to the others."""
        own = self._merged(args, kwargs, options)
        parts = {"args": own[0], "kwargs": dict(own[1]), "options": _copy(own[2])}
        copied = _made(type(self), {**self, **parts}, self._app)
        copied._task = self._task
        return copied

    partial = clone

    def replace(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> "Signature":
        """Return a copy with these parts in place of its own."""
        copied = self.clone()
        parts = {"args": args, "kwargs": kwargs, "options": options}
        copied.update({name: part for name, part in parts.items() if part is not None})
        return copied

    def link(self, callback: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have `callback` called with the value of a success; return `callback`."""
        return self._append("link", callback)

    def link_error(self, errback: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have `errback` called after a failure; return `errback`."""
        return self._append("link_error", errback)

    def on_error(self, errback: Mapping[str, Any]) -> "Signature":
        """Have `errback` called after a failure; return the signature itself."""
        self.link_error(errback)
        return self

    def stamp(
        self,
        visitor: StampingVisitor | None = None,
        append_stamps: bool = False,
        **headers: Any,
    ) -> "Signature":
        """Stamp the call with these, or as `visitor` says; return itself.

        What is linked to it gets them, too. With `append_stamps`, a stamp that it has
        already keeps its value beside the new one.
        """
        self.stamp_links(visitor, append_stamps, **headers)
        more = visitor.on_signature(self, **headers) if visitor else None
        return self.set(**stamped(headers, more, self.options, append=append_stamps))

    def stamp_links(
        self,
        visitor: StampingVisitor | None = None,
        append_stamps: bool = False,
        **headers: Any,
    ) -> None:
        """Stamp the callbacks and errbacks."""
        for name, hook in (("link", "on_callback"), ("link_error", "on_errback")):
            links = [signature(one) for one in listed(self.options.get(name)) or ()]
            for link in links:
                more = getattr(visitor, hook)(link, **headers) if visitor else None
                given = stamped(headers, more, {}, append=append_stamps)
                link.stamp(visitor, append_stamps, **given)
            if links:
                self.options[name] = links

    def flatten_links(self) -> list["Signature"]:
        """Return the signature, its callbacks, their callbacks, and so on."""
        found = [self]
        for link in listed(self.options.get("link")) or ():
            found += signature(link).flatten_links()
        return found

    # Sent, and called

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Queue the call, with `args` before its own; return its result."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Args = None, kwargs: Kwargs = None, **options: Any
    ) -> Any:
        """Queue the call, with `args` before its own; return its AsyncResult.

        Raises what `Task.apply_async` raises.
        """
        args, kwargs, options = self._merged(args, kwargs, options)
        task = self._task or self.app.tasks.get(self.task)
        if task is None:
            return self.app.send_task(self.task, args, kwargs, **options)
        return task.apply_async(args, kwargs, **options)

    def apply(self, args: Args = None, kwargs: Kwargs = None, **options: Any) -> Any:
        """Run the call in this thread, as a worker would; return its AsyncResult."""
        own_args, own_kwargs, own = self._merged(args, kwargs, options)
        return self.type.apply(own_args, own_kwargs, **own)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task's own code here; return what it returns."""
        own_args, own_kwargs, _ = self._merged(args, kwargs, {})
        return self.type(*own_args, **own_kwargs)

    def __invert__(self) -> Any:
        """Queue the call, wait for its end, and return its value."""
        return self.apply_async().get()

    def freeze(self, _id: str | None = None) -> Any:
        """Set the id that the call will have; return its AsyncResult."""
        task_id = self.options.setdefault("task_id", _id or self.app.new_id())
        return AsyncResult(task_id, app=self.app)

    # Put together

    # Of other dicts, `|` makes one that has the parts of both: the first call would be
    # lost in silence.

    def __or__(self, other: Any) -> Any:
        chain: Any = Signature._kinds["chain"]
        return chain(self, joined(other), app=self._app)

    def __ior__(self, other: Any) -> Any:
        return self | other

    def __ror__(self, other: Any) -> Any:
        return joined(other) | self

    def _steps(self) -> list["Signature"]:
        """Return what it is in a chain: itself, or its own steps."""
        return [self]

    def _begins(self) -> Iterator["Signature"]:
        """Yield the calls that begin at once."""
        yield self

    def _known_app(self) -> Application | None:
        """Return the application that it, its task or a part of it names, if any."""
        return self._app or (self._task.app if self._task is not None else None)

    def _own_parts(self) -> None:
        """Make the signatures that this one is made of its own."""

    def _merged(
        self,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> tuple[Sequence[Any], Mapping[str, Any], dict[str, Any]]:
        """Return its parts with these added, and what a sender may not change kept."""
        firm = {"group_id", "stamped_headers", *self._stamps}
        own = self.options
        merged = own | {
            name: value
            for name, value in options.items()
            if value is not None and not (name in firm and name in own)
        }
        if self.immutable:
            return self.args, self.kwargs, merged
        return (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}, merged

    @property
    def _stamps(self) -> Sequence[str]:
        return self.options.get("stamped_headers") or ()

    def _append(self, name: str, one: Mapping[str, Any]) -> Mapping[str, Any]:
        if not is_signature(one):
            raise MessageError(f"{name}: expected a signature, got {quoted(one)}")
        known = listed(self.options.get(name)) or []
        if one not in known:
            self.options[name] = [*known, one]
        return one

    def __reduce__(self) -> tuple[Any, ...]:
        return signature, (dict(self),)

    def __repr__(self) -> str:
        named = [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.task}({', '.join([*map(repr, self.args), *named])})"


def signature(
    task: Any,
    *args: Any,
    app: Application | None = None,
    **more: Any,
) -> Signature:
    """Return the signature of a task, by itself or its name, or of a dict.

    Of a signature, return a copy. The other arguments are those of `Signature`. Raises
    MessageError for what is no signature.
    """
    if isinstance(task, Signature):
        return task.clone()
    if not isinstance(task, Mapping):
        return Signature(task, *args, app=app, **more)
    if not is_signature(task):
        raise MessageError(f"expected a signature, got {quoted(task)}")
    kind = Signature._kinds.get(task.get("subtask_type") or "", Signature)
    return _made(kind, whole(task), app)


def maybe_signature(
    task: Mapping[str, Any] | None, app: Application | None = None
) -> Signature | None:
    """Return a signature as it is, a dict as a signature, and None as None."""
    if task is None or isinstance(task, Signature):
        return task
    return signature(task, app=app)


def joined(other: object) -> Signature:
    """Return what stands beside a `|` as a signature. Raises TypeError."""
    if isinstance(other, Mapping) and is_signature(other):
        return other if isinstance(other, Signature) else signature(other)
    raise TypeError(f"| puts signatures together, and this is none: {quoted(other)}")


def _made(kind: type[S], parts: Mapping[str, Any], app: Application | None) -> S:
    """Return a signature of this class with these parts."""
    made = kind.__new__(kind)
    made.update(parts)
    made._app, made._task = app, None
    made._own_parts()
    return made


def _copy(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that may be changed, with the links in them."""
    return {
        name: copy.deepcopy(value) if isinstance(value, dict | list) else value
        for name, value in options.items()
    }
