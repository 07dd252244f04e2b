"""The runs of groups, as clients see them, and what a signature's value comes from."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

from beatd.bounds import LONGEST, seconds_of
from beatd.clock import SystemClock
from beatd.instant import SECOND, span_of
from beatd.message.options import listed
from beatd.tasks.async_result import AsyncResult
from beatd.tasks.current import Application, current_app

R = TypeVar("R")


class ResultSet(Generic[R]):
    """Several results, each of a run or of a group, asked and awaited together."""

    def __init__(
        self, results: Iterable[Any] = (), *, app: Application | None = None
    ) -> None:
        self.results: list[Any] = list(results)
        self._app: Callable[[], Application] = (lambda: app) if app else current_app

    def add(self, result: Any) -> None:
        """Add a result, if it is not in the set yet."""
        if result not in self.results:
            self.results.append(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add those of these results that are not in the set yet."""
        for result in results:
            self.add(result)

    def remove(self, result: Any) -> None:
        """Remove a result, or the one of this id. Raises KeyError if there is none."""
        task_id = result if isinstance(result, str) else result.id
        kept = [one for one in self.results if one.id != task_id]
        if len(kept) == len(self.results):
            raise KeyError(task_id)
        self.results = kept

    def discard(self, result: Any) -> None:
        """Remove a result if it is there."""
        if result in self.results:
            self.results.remove(result)

    def clear(self) -> None:
        """Remove all results from the set."""
        self.results = []

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        **_unused: Any,
    ) -> list[R]:
        """Wait for all runs to end and return their values, in order.

        With a `callback`, call `callback(id, value)` for each, and return nothing.
        Raises what `AsyncResult.get` raises; `timeout` counts for all together.
        """
        clock = SystemClock()
        seconds = None if timeout is None else seconds_of(timeout, -LONGEST)
        end = None if seconds is None else clock.elapsed() + span_of(seconds)
        values = []
        for result in self.results:
            left = None if end is None else max(end - clock.elapsed(), 0) / SECOND
            value = result.get(timeout=left, propagate=propagate)
            if callback is None:
                values.append(value)
            else:
                callback(result.id, value)
        return values

    join = join_native = get

    def ready(self) -> bool:
        """Return whether all runs have ended, in whatever states."""
        return all(result.ready() for result in self.results)

    def successful(self) -> bool:
        """Return whether all runs have succeeded."""
        return all(result.successful() for result in self.results)

    def failed(self) -> bool:
        """Return whether any run has failed."""
        return any(result.failed() for result in self.results)

    def waiting(self) -> bool:
        """Return whether any run has not ended yet."""
        return not self.ready()

    def completed_count(self) -> int:
        """Return how many of the results have succeeded."""
        return sum(bool(result.successful()) for result in self.results)

    def maybe_throw(self, propagate: bool = True) -> None:
        """Raise the exception of a run that has failed, if one has."""
        for result in self.results:
            result.maybe_throw(propagate=propagate)

    maybe_reraise = maybe_throw

    def forget(self) -> None:
        """Remove what is stored of the runs."""
        for result in self.results:
            result.forget()

    def revoke(
        self, terminate: bool = False, signal: str | None = None, **_unused: Any
    ) -> None:
        """Tell all workers not to begin these runs any more, as for one run."""
        ids = [one.id for one in self._runs()]
        self._app().revoke(ids, terminate=terminate, signal=signal)

    def _runs(self) -> Iterator[AsyncResult[Any]]:
        """Yield the results of runs, also those of groups within."""
        for result in self.results:
            if isinstance(result, ResultSet):
                yield from result._runs()
            else:
                yield result

    @property
    def supports_native_join(self) -> bool:
        """Return True: nothing is polled."""
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> Any:
        return self.results[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResultSet) and other.results == self.results

    def __hash__(self) -> int:
        return id(self)  # it may be changed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{', '.join(map(str, self.results))}]>"


class GroupResult(ResultSet[R]):
    """The runs of a group, by the group's id."""

    def __init__(
        self,
        id: str | None = None,
        results: Iterable[Any] = (),
        parent: Any = None,
        *,
        app: Application | None = None,
    ) -> None:
        super().__init__(results, app=app)
        self.id = id
        self.parent = parent
        """The result of the call before it in a chain, if this process sent that."""

    @property
    def children(self) -> list[Any]:
        """Return the results of the group's members."""
        return self.results

    def save(self, **_unused: Any) -> "GroupResult[R]":
        """Keep the ids of the runs in the result backend, for `restore`.

        They are kept for as long as results are.
        """
        self._app().group_ids.save_group(str(self.id), self.as_tuple())
        return self

    @classmethod
    def restore(
        cls, id: str, app: Application | None = None, **_unused: Any
    ) -> "GroupResult[Any] | None":
        """Return the group that was saved under this id; None if there is none."""
        app = app or current_app()
        written = app.group_ids.load_group(id)
        if written is None:
            return None
        found: GroupResult[Any] = result_from_tuple(written, app)
        return found

    def delete(self, **_unused: Any) -> None:
        """Remove what `save` has kept; the results of the runs stay."""
        self._app().group_ids.forget_group(str(self.id))

    def as_tuple(self) -> tuple[Any, Any]:
        """Return the ids, as Celery writes them."""
        parent = self.parent and self.parent.as_tuple()
        return (self.id, parent), [one.as_tuple() for one in self.results]

    def as_list(self) -> list[Any]:
        """Return the ids of the runs."""
        return [task_id for one in self.results for task_id in _ids(one)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupResult) and (other.id, other.results) == (
            self.id,
            self.results,
        )

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)


def _ids(result: Any) -> list[Any]:
    return cast(list[Any], result.as_list())


def result_from_tuple(written: Any, app: Application | None = None) -> Any:
    """Return the result of which `as_tuple`, or JSON of it, has come."""
    if isinstance(written, AsyncResult | ResultSet):
        return written
    (task_id, parent), members = written
    before = result_from_tuple(parent, app) if parent else None
    if members is None:
        result: AsyncResult[Any] = AsyncResult(task_id, app=app)
        result.parent = before
        return result
    return GroupResult(
        task_id, [result_from_tuple(one, app) for one in members], before, app=app
    )


def result_of(signature: Mapping[str, Any], app: Application) -> Any:
    """Return the result of a signature's value; its calls must have their ids.

    Its `parent` is the result of the call before, and so on.
    """
    parts: Mapping[str, Any] = signature.get("kwargs") or {}
    match signature.get("subtask_type"):
        case "chain":
            before = None
            for step in parts["tasks"]:
                result = result_of(step, app)
                first_of(result).parent = before
                before = result
            return before
        case "group":
            members = [result_of(one, app) for one in parts["tasks"]]
            return GroupResult(_id(signature), members, app=app)
        case "chord":
            result = result_of(parts["body"], app)
            members = [result_of(one, app) for one in listed(parts["header"]) or ()]
            first_of(result).parent = GroupResult(_id(signature), members, app=app)
            return result
        case _:
            return AsyncResult(str(_id(signature)), app=app)


def first_of(result: Any) -> Any:
    """Return the first result of the chain that this one is the last of."""
    while result.parent is not None:
        result = result.parent
    return result


def _id(signature: Mapping[str, Any]) -> str | None:
    task_id: str | None = signature["options"].get("task_id")
    return task_id
