"""Signatures: calls to make later, and how they are put together; Celery's names.

    add.s(2, 2) | add.s(4)            one after the other, a chain
    group(add.s(i, i) for i in ids)   all at once
    chord(header, total.s())          all at once, and then one call with their values
    add.chunks(pairs, 10)             a call for each ten of many arguments

A signature is a dict, as messages carry it (message/canvas.py turns it into calls); the
classes here are dicts with methods. None of them is changed by being sent.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from beatd.errors import MessageError
from beatd.message import is_empty_group
from beatd.message.options import listed
from beatd.tasks.async_result import AsyncResult
from beatd.tasks.composed import Composed, members_of
from beatd.tasks.current import Application, Args, Kwargs
from beatd.tasks.group_result import GroupResult, first_of
from beatd.tasks.signature import Signature, joined, signature
from beatd.tasks.stamping import StampingVisitor, stamped


class chain(Composed):
    """Calls one after the other, each with the value of the one before.

    A group that is followed by another call is the header of a chord, as in Celery.
    """

    _TASK = "celery.chain"
    _VISITED = "chain"

    def __init__(
        self, *tasks: Any, app: Application | None = None, **options: Any
    ) -> None:
        steps = [step for one in members_of(_listed(tasks)) for step in one._steps()]
        self._compose(app, tasks=steps, options=options)

    def link_error(self, errback: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have `errback` called after each step that fails.

        With `task_allow_error_cb_on_chord_header`, after each call of a header.
        """
        if self.app.settings.task_allow_error_cb_on_chord_header:
            for step in self.tasks[:-1]:
                for one in step.tasks if isinstance(step, group) else ():
                    one.link_error(signature(errback))
            for step in self.tasks:
                for one in step.tasks if isinstance(step, chord) else ():
                    one.link_error(signature(errback))
        return super().link_error(errback)

    def apply(self, args: Args = None, kwargs: Kwargs = None, **options: Any) -> Any:
        """Run the calls in this thread, up to one that fails; return the last result.

        One that ends without a value, by Ignore or Reject, is the last. Raises what a
        call before the last has raised.
        """
        link, before = options.pop("link", None), None
        steps = self._steps()
        for callback in listed(link) or ():
            for last in steps[-1:]:
                last.link(callback)
        for step in steps:
            if before is None:
                result = step.apply(args, kwargs, **options)
            else:
                result = step.apply((before.get(),), **options)
                first_of(result).parent = before
            before = result
            if isinstance(result, AsyncResult) and result.ended_without_value:
                break
        return before

    def freeze(self, _id: str | None = None) -> Any:
        """Set its calls' ids; return the result of the last, whose id it has."""
        result = super().freeze(_id)
        if result is not None:
            self.options["task_id"] = result.id
        return result

    def _begins(self) -> Iterator[Signature]:
        for first in self.tasks[:1]:
            yield from first._begins()

    def _steps(self) -> list[Signature]:
        steps = [step.clone() for step in self.tasks]
        steps = [one for one in steps if not is_empty_group(one)] or steps[-1:]
        for callback in listed(self.options.get("link")) or ():
            for last in steps[-1:]:
                last.link(callback)
        for errback in listed(self.options.get("link_error")) or ():
            for step in steps:
                step.link_error(errback)
        return steps

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.tasks)) or "chain()"


class group(Composed):
    """Calls all at once; its value is the list of their values."""

    _TASK = "celery.group"
    _VISITED = "group"

    def __init__(
        self, *tasks: Any, app: Application | None = None, **options: Any
    ) -> None:
        members = _listed(tasks)
        if len(tasks) == 1 and isinstance(tasks[0], group):
            members = tasks[0].tasks
        self._compose(app, tasks=members_of(members), options=options)

    def apply_async(
        self, args: Args = None, kwargs: Kwargs = None, **options: Any
    ) -> Any:
        """Queue its calls; return their GroupResult.

        That of the members of one group, if that is all there is. Raises TypeError for
        `link` and `link_error`: a group has no end of its own.
        """
        for name in ("link", "link_error"):
            if options.get(name) is not None:
                problem = f"a group cannot be called with {name}"
                raise TypeError(f"{problem}: use a chord, or its members' {name}")
        result = super().apply_async(args, kwargs, **options)
        only = result.results[0] if len(result) == 1 else None
        return only if isinstance(only, GroupResult) else result

    def set_immutable(self, immutable: bool) -> None:
        """Set of each call whether it takes no arguments but its own."""
        for one in self.tasks:
            one.set_immutable(immutable)

    def skew(
        self, start: float = 1.0, stop: float | None = None, step: float = 1.0
    ) -> "group":
        """Have the calls begin one after the other, `step` seconds apart; return self.

        The first begins after `start` seconds; those that would begin after more than
        `stop` begin with the last one that does not.
        """
        last = len(self.tasks) if stop is None else (stop - start) // step
        for index, one in enumerate(self.tasks):
            one.set(countdown=start + min(index, last) * step)
        return self

    def apply(self, args: Args = None, kwargs: Kwargs = None, **options: Any) -> Any:
        """Run the calls in this thread, one after the other; return a GroupResult."""
        results = [one.apply(args, kwargs, **options) for one in self.tasks]
        app = self.app
        return GroupResult(self.id or app.new_id(), results, app=app)

    def link(self, callback: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have `callback` called, without a value, after the first call's success."""
        return self.tasks[0].link(signature(callback).set(immutable=True))

    def link_error(self, errback: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have `errback` called after each call that fails."""
        for one in self.tasks:
            one.link_error(signature(errback).clone())
        return errback

    def __or__(self, other: Any) -> Any:
        other = joined(other)
        if isinstance(other, group | chain) and not len(other):
            return self
        return chord(self, other, app=self._app)


class chord(Composed):
    """Calls all at once, its header; when all have ended, its body with their values.

    `chord(header)(body)` gives the body when it is sent.
    """

    _TASK = "celery.chord"
    _VISITED = "chord_header"

    def __init__(
        self,
        header: Any,
        body: Mapping[str, Any] | None = None,
        *,
        app: Application | None = None,
        **options: Any,
    ) -> None:
        body = None if body is None else signature(body)
        self._compose(
            app, header=_header(header), body=body, kwargs={}, options=options
        )

    @property
    def tasks(self) -> list[Signature]:
        """Return the header."""
        return cast(list[Signature], self.kwargs["header"])

    @tasks.setter
    def tasks(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        self.kwargs["header"] = members_of(tasks)

    @property
    def body(self) -> Signature:
        """Return the call that gets the header's values."""
        body = self.kwargs["body"]
        if body is None:
            raise MessageError("a chord needs a body: chord(header)(body)")
        return cast(Signature, body)

    @body.setter
    def body(self, body: Mapping[str, Any]) -> None:
        self.kwargs["body"] = signature(body)

    def __call__(self, body: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Queue the header, with this body; return the body's AsyncResult."""
        return self.apply_async((), {"body": body} if body else {}, **options)

    def apply_async(
        self, args: Args = None, kwargs: Kwargs = None, **options: Any
    ) -> Any:
        """Queue the header, with `args` before each one's own; `kwargs` may be a body.

        Returns the body's AsyncResult, whose parent is the header's GroupResult.
        """
        others = dict(kwargs or {})
        body = others.pop("body", None)
        if body is None:
            return super().apply_async(args, others, **options)
        complete = cast(chord, self.clone())
        complete.body = body
        return complete.apply_async(args, others, **options)

    def apply(self, args: Args = None, kwargs: Kwargs = None, **options: Any) -> Any:
        """Run the header and then the body in this thread; return the body's result."""
        header = group(self.tasks, app=self._app).apply(args, kwargs)
        result = self.body.apply((header.get(),), **options)
        first_of(result).parent = header
        return result

    def link(self, callback: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have `callback` called with the body's value."""
        return self.body.link(callback)

    def link_error(self, errback: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have `errback` called after a failure of the body, or of a header's call.

        With `task_allow_error_cb_on_chord_header`, after each call of the header.
        """
        on_header = self.app.settings.task_allow_error_cb_on_chord_header
        for one in self.tasks:
            if on_header:
                one.link_error(signature(errback))
            elif isinstance(one, chord):
                one.link_error(errback)
        return self.body.link_error(errback)

    def __or__(self, other: Any) -> Any:
        longer = cast(chord, self.clone())
        longer.body = longer.body | other
        return longer

    def _stamp_tasks(
        self, visitor: StampingVisitor | None, append: bool, headers: dict[str, Any]
    ) -> dict[str, Any]:
        headers = super()._stamp_tasks(visitor, append, headers)
        if self.kwargs["body"] is not None:
            more = visitor.on_chord_body(self, **headers) if visitor else None
            headers = stamped(headers, more, self.options, append=append)
            self.body.stamp(visitor, append, **headers)
        return headers

    def _parts(self) -> list[Signature]:
        body = self.kwargs["body"]
        return self.tasks if body is None else [*self.tasks, body]

    def _own_parts(self) -> None:
        super()._own_parts()
        if self.kwargs["body"] is not None:
            self.body = self.kwargs["body"]

    def __repr__(self) -> str:
        return f"chord({self.tasks!r}, {self.kwargs['body']!r})"


def _listed(tasks: Sequence[Any]) -> Iterable[Any]:
    """Return the arguments of a constructor, which may be one list, or iterator."""
    if len(tasks) == 1 and not isinstance(tasks[0], Mapping):
        return cast(Iterable[Any], tasks[0])
    return tasks


def _header(header: Any) -> list[Signature]:
    if isinstance(header, Mapping):
        header = signature(header)
        header = header.tasks if isinstance(header, group | chain) else [header]
    return members_of(header)
