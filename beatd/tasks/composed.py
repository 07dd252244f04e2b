"""A signature that stands for several calls: what chains, groups and chords share."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, cast

from beatd.message import Canvas
from beatd.tasks.current import Application, Args, Kwargs
from beatd.tasks.group_result import first_of, result_of
from beatd.tasks.request import sending_request
from beatd.tasks.signature import Signature, signature
from beatd.tasks.stamping import StampingVisitor, stamped


class Composed(Signature):
    """A signature that stands for several calls."""

    _TASK: ClassVar[str]
    _VISITED: ClassVar[str]
    """What stands for it in the names of a visitor's methods: `on_<this>_start`."""

    def _compose(self, app: Application | None, **parts: Any) -> None:
        """Begin as Celery's: a call of `celery.chain` and the like, with its parts."""
        options = parts.pop("options")
        kind = type(self).__name__
        super().__init__(self._TASK, kwargs=parts, options=options, subtask_type=kind)
        self._app = app

    @property
    def tasks(self) -> list[Signature]:
        """Return the signatures that it is made of."""
        return cast(list[Signature], self.kwargs["tasks"])

    @tasks.setter
    def tasks(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        self.kwargs["tasks"] = members_of(tasks)

    def apply_async(
        self, args: Args = None, kwargs: Kwargs = None, **options: Any
    ) -> Any:
        """Queue its calls, those that begin at once with `args` before their own.

        All are queued, or none is. Returns the result of its value, whose `parent`s are
        the results of the calls before. Raises ChordError if the result back end
        counts no chords, and else what `Task.apply_async` raises.
        """
        app = self.app
        if app.settings.task_always_eager:
            return self.apply(args, kwargs, **options)
        task_id = options.pop("task_id", None)
        begun = self.clone(args, **options)
        for first in begun._begins():
            first.kwargs.update({} if first.immutable else kwargs or {})
        result = begun.freeze(task_id)
        app.call_composed(begun)
        if (parent := sending_request()) is not None:
            parent.children.append(first_of(result))
        return result

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Queue its calls, with `args` before those of its first ones."""
        return self.apply_async(args, kwargs)

    def freeze(self, _id: str | None = None) -> Any:
        """Set its calls' ids; return the result of its value."""
        app = self._app = self.app  # its parts are plain dicts from now on
        canvas = Canvas(app.new_id)
        frozen = canvas.frozen(self, **({"task_id": _id} if _id else {}))
        self.update(frozen)
        self._own_parts()
        return result_of(self, app)

    def stamp(
        self,
        visitor: StampingVisitor | None = None,
        append_stamps: bool = False,
        **headers: Any,
    ) -> Signature:
        """Stamp its calls with these, or as `visitor` says; return itself."""
        self._stamp_tasks(visitor, append_stamps, headers)
        return self

    def _stamp_tasks(
        self, visitor: StampingVisitor | None, append: bool, headers: dict[str, Any]
    ) -> dict[str, Any]:
        """Stamp its calls; return the stamps that all of them have got."""
        begin = getattr(visitor, f"on_{self._VISITED}_start", None)
        more = begin(self, **headers) if begin else None
        headers = stamped(headers, more, self.options, append=append)
        self.stamp_links(visitor, append, **headers)
        for one in self.tasks:
            one.stamp(visitor, append, **headers)
        if visitor:
            getattr(visitor, f"on_{self._VISITED}_end")(self, **headers)
        return headers

    def _begins(self) -> Iterator[Signature]:
        """Yield the calls that begin at once."""
        for one in self.tasks:
            yield from one._begins()

    def _known_app(self) -> Application | None:
        known = (one._known_app() for one in self._parts())
        return self._app or next(filter(None, known), None)

    def _parts(self) -> list[Signature]:
        return self.tasks

    def _own_parts(self) -> None:
        self.kwargs = dict(self.kwargs)
        self.tasks = self.tasks

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        inner = ", ".join(map(repr, self.tasks))
        return f"{type(self).__name__}({inner})"


def members_of(tasks: Iterable[Mapping[str, Any]]) -> list[Signature]:
    """Return copies of signatures, or of dicts that are some."""
    return [signature(one) for one in tasks]
