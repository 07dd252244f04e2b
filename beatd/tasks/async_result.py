"""The run of a task, as clients see it, by its id."""

from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from beatd.bounds import LONGEST, seconds_of
from beatd.errors import BeatdError
from beatd.instant import span_of
from beatd.results.base import PROPAGATE_STATES, READY_STATES, Meta, State
from beatd.tasks.current import Application, current_app

WITHOUT_VALUE = frozenset({"IGNORED", "REJECTED"})
"""The states of calls that were run where they are made, and ended so."""

R = TypeVar("R")
T = TypeVar("T")


class AsyncResult(Generic[R]):
    """One run, by its task id; any process may make an AsyncResult of it."""

    def __init__(self, id: str, *, app: Application | None = None) -> None:
        self.id = id
        self._app: Callable[[], Application] = (lambda: app) if app else current_app
        self._ended: Meta | None = None
        self._then: list[Callable[[AsyncResult[R]], object]] = []
        self.parent: Any = None
        """The result of the call before it in a chain, if this process sent that."""

    @classmethod
    def of(cls, meta: Meta, app: Application) -> "AsyncResult[Any]":
        """Return the AsyncResult of an ended run; it need not be stored."""
        result: AsyncResult[Any] = AsyncResult(meta.task_id, app=app)
        result._ended = meta
        return result

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, R], object] | None = None,
        **_unused: Any,
    ) -> R:
        """Wait for the run to end and return its value, after `callback(id, value)`.

        Raises the exception of a run that failed, unless `propagate` is false: with
        `follow_parents`, that of the first call of its chain that failed. Raises
        TimeoutError after `timeout` seconds, ValueError if these are no number from
        zero to a hundred years. Celery's other arguments (`interval`, ...)
        are accepted and have no effect: nothing is polled.
        """
        if self._ended is None:
            # Below zero is past already: TimeoutError, as for zero.
            seconds = None if timeout is None else seconds_of(timeout, -LONGEST)
            limit = None if seconds is None else span_of(seconds)
            self._has_ended(self._app().await_meta(self.id, limit))
        if self._ended is None:
            raise TimeoutError(f"task {self.id} has not ended after {timeout} seconds")
        if propagate and self._ended.status in PROPAGATE_STATES:
            for before in reversed(self._parents() if follow_parents else []):
                before.maybe_throw()
            self._raise_failure(self._ended)
        value: R = self._ended.result
        if callback is not None:
            callback(self.id, value)
        return value

    wait = get

    @property
    def state(self) -> str:
        """Return the run's state: a `State`, or a word of the task's own.

        PENDING: nothing is known of the run yet. EXPIRED: nothing is known of it any
        more, as it was sent longer ago than results are kept.
        """
        return str(self._meta().status)

    status = state

    @property
    def result(self) -> Any:
        """Return the value, or the exception, or what `update_state` stored last."""
        return self._meta().result

    info = result

    @property
    def traceback(self) -> str | None:
        """Return the traceback of a run that failed, as text."""
        return self._meta().traceback

    @property
    def date_done(self) -> datetime | None:
        """Return when the run ended."""
        done = self._meta().date_done
        return datetime.fromisoformat(done) if isinstance(done, str) else done

    @property
    def children(self) -> list[Any]:
        """Return the results of what this run sent: of runs and of groups."""
        return self._app().results_of(self._meta().children)

    @property
    def name(self) -> str | None:
        """Return the task's name, if it is stored: with `result_extended`.

        So are the properties that follow.
        """
        return cast("str | None", self._meta().extended.get("name"))

    @property
    def args(self) -> Any:
        """Return the call's arguments."""
        return self._meta().extended.get("args")

    @property
    def kwargs(self) -> Any:
        """Return the call's keyword arguments."""
        return self._meta().extended.get("kwargs")

    @property
    def worker(self) -> str | None:
        """Return the name of the worker that ran the task."""
        return cast("str | None", self._meta().extended.get("worker"))

    @property
    def retries(self) -> int | None:
        """Return how often the task was tried again."""
        return cast("int | None", self._meta().extended.get("retries"))

    @property
    def queue(self) -> str | None:
        """Return the queue that the call came from."""
        return cast("str | None", self._meta().extended.get("queue"))

    @property
    def ended_without_value(self) -> bool:
        """Return whether it is known that the run ended by Ignore or Reject."""
        return self._ended is not None and self._ended.status in WITHOUT_VALUE

    def ready(self) -> bool:
        """Return whether the run has ended, in whatever state."""
        return self.state in READY_STATES

    def successful(self) -> bool:
        """Return whether the run has succeeded."""
        return self.state == State.SUCCESS

    def failed(self) -> bool:
        """Return whether the run has failed."""
        return self.state == State.FAILURE

    def maybe_throw(self, propagate: bool = True, **_unused: Any) -> Any:
        """Raise the exception of the run if it has failed; return its value."""
        meta = self._meta()
        if propagate:
            self._raise_failure(meta)
        return meta.result

    throw = maybe_reraise = maybe_throw

    def then(self, callback: Callable[["AsyncResult[R]"], T]) -> None:
        """Call `callback` with this object once it knows that the run has ended.

        That is now, or in the `get`, `ready` or `state` that finds it out.
        """
        if self._ended is None:
            self._then.append(callback)
            self._meta()
        else:
            callback(self)

    def collect(self, timeout: float | None = None) -> Iterator[tuple[Any, Any]]:
        """Yield this result with its value, then those of the runs that it has sent.

        Each is awaited, for at most `timeout` seconds; raises what `get` raises.
        """
        waiting: deque[Any] = deque([self])
        while waiting:
            result = waiting.popleft()
            yield result, result.get(timeout=timeout)
            waiting.extend(result.children)

    def get_leaf(self) -> Any:
        """Return the value of the last run that this run, or one that it sent, sent."""
        *_, (_, value) = self.collect()
        return value

    def as_tuple(self) -> tuple[Any, Any]:
        """Return the id, and those of its parents, as Celery writes them."""
        return (self.id, self.parent and self.parent.as_tuple()), None

    def as_list(self) -> list[str]:
        """Return the id, and those of its parents."""
        return [self.id, *(self.parent.as_list() if self.parent else ())]

    def forget(self) -> None:
        """Remove what is stored of the run."""
        self._ended = None
        self._app().forget(self.id)

    def revoke(
        self, terminate: bool = False, signal: str | None = None, **_unused: Any
    ) -> None:
        """Tell all workers not to begin this run any more.

        With `terminate`, the process of a run that has begun is sent `signal`, where
        each run has a process of its own. Celery's other arguments (`wait`, ...) are
        accepted and have no effect.
        """
        self._app().revoke(self.id, terminate=terminate, signal=signal)

    @property
    def task_id(self) -> str:
        """Return the id, by Celery's other name for it."""
        return self.id

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<AsyncResult {self.id}>"

    def __eq__(self, other: object) -> bool:
        return (other.id if isinstance(other, AsyncResult) else other) == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def _meta(self) -> Meta:
        if self._ended:
            return self._ended
        meta = self._app().meta_of(self.id)
        if meta.status in READY_STATES:
            self._has_ended(meta)
        return meta

    def _parents(self) -> list[Any]:
        """Return the results of the calls before it, the last one first."""
        found, one = [], self.parent
        while one is not None:
            found.append(one)
            one = one.parent
        return found

    def _has_ended(self, meta: Meta | None) -> None:
        self._ended = meta
        if meta is not None:
            callbacks, self._then = self._then, []
            for callback in callbacks:
                callback(self)

    def _raise_failure(self, meta: Meta) -> None:
        if meta.status not in PROPAGATE_STATES:
            return
        if isinstance(meta.result, BaseException):
            raise meta.result
        raise BeatdError(f"task {self.id} ended as {meta.status}: {meta.result!r}")
