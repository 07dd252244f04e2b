"""Many calls of one task as few: Celery's map, starmap and chunks."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

from beatd.tasks.canvas import group
from beatd.tasks.current import Application, Args, Kwargs
from beatd.tasks.signature import Signature, signature


class _Many(Signature):
    """Calls of one task with many arguments, in as many runs as it says."""

    _TASK: ClassVar[str]

    def __init__(
        self,
        task: Mapping[str, Any],
        it: Iterable[Any],
        *,
        app: Application | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            self._TASK,
            kwargs={"task": signature(task), "it": list(it)},
            options=options,
            subtask_type=type(self).__name__,
            immutable=True,
            app=app,
        )

    def _known_app(self) -> Application | None:
        return self._app or signature(self.kwargs["task"])._known_app()

    def apply_async(
        self, args: Args = None, kwargs: Kwargs = None, **options: Any
    ) -> Any:
        """Queue the one call, by the route of the task that it calls many times."""
        _, kwargs, options = self._merged(args, kwargs, options)
        options.setdefault("route_name", self.kwargs["task"]["task"])
        return self.app.send_task(self.task, (), kwargs, **options)

    def apply(self, args: Args = None, kwargs: Kwargs = None, **options: Any) -> Any:
        """Run the one call in this thread; return its AsyncResult."""
        _, kwargs, options = self._merged(args, kwargs, options)
        return self.app.apply_task(self, (), kwargs, options)


class xmap(_Many):
    """One run that calls a task's code with each of many arguments."""

    _TASK = "celery.map"


class xstarmap(_Many):
    """One run that calls a task's code with each of many lists of arguments."""

    _TASK = "celery.starmap"


class chunks(Signature):
    """As many runs as there are chunks of `n` lists of arguments."""

    def __init__(
        self,
        task: Mapping[str, Any],
        it: Iterable[Sequence[Any]],
        n: int,
        *,
        app: Application | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            "celery.chunks",
            kwargs={"task": signature(task), "it": list(it), "n": n},
            options=options,
            subtask_type="chunks",
            immutable=True,
            app=app,
        )

    def group(self) -> group:
        """Return the runs as a group."""
        task, rest = self.kwargs["task"], iter(self.kwargs["it"])
        parts = iter(lambda: list(islice(rest, self.kwargs["n"])), [])
        members = [xstarmap(task, part, app=self._app) for part in parts]
        return group(members, app=self._app, **self.options)

    def apply_async(
        self, args: Args = None, kwargs: Kwargs = None, **options: Any
    ) -> Any:
        """Queue the runs; return their GroupResult."""
        return self.group().apply_async(**options)

    def apply(self, args: Args = None, kwargs: Kwargs = None, **options: Any) -> Any:
        """Run the runs in this thread; return their GroupResult."""
        return self.group().apply(**options)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Queue the runs; return their GroupResult."""
        return self.apply_async(**options)
