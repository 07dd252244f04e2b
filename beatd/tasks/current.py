"""The current application: for calls that name no application."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from beatd.instant import Span
from beatd.results.base import Meta


class Application(Protocol):
    """The application, as tasks and their results use it: app/."""

    def adopt(self, task: Any) -> None:
        """Apply the settings (annotations) to this Task, if that was not done."""
        ...

    def call_task(
        self,
        task: Any,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> Any:
        """Queue a call of this Task; return its AsyncResult."""
        ...

    def apply_task(
        self,
        task: Any,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> Any:
        """Run a call of this Task in this thread; return its AsyncResult."""
        ...

    def meta_of(self, task_id: str) -> Meta:
        """Return what is known of a run; PENDING or EXPIRED when nothing is."""
        ...

    def await_meta(self, task_id: str, timeout: Span | None) -> Meta | None:
        """Return the meta once the run has ended; None after `timeout`."""
        ...

    def store_meta(self, meta: Meta) -> None:
        """Store the meta of a run that goes on."""
        ...

    def forget(self, task_id: str) -> None:
        """Remove what is stored of a run."""
        ...

    def revoke(
        self,
        task_ids: str | Sequence[str],
        *,
        terminate: bool = False,
        signal: str | None = None,
    ) -> None:
        """Tell all workers not to begin these runs any more."""
        ...


_made: list[Application] = []
_makers: list[Callable[[], Application]] = []


def set_current(app: Application) -> None:
    """Make this the application of calls that name no application."""
    _made[:] = [app]


def set_default(make: Callable[[], Application]) -> None:
    """Set the function that makes an application if `current_app` finds none."""
    _makers[:] = [make]


def current_app() -> Application:
    """Return the application made last; without one, make one from the config."""
    if not _made:
        set_current(_makers[0]())
    return _made[0]
