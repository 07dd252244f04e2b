"""The application that calls go through when they name none."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from beatd.instant import Span
from beatd.results.base import Meta


class Application(Protocol):
    """The application, as tasks and their results use it: app/."""

    def adopt(self, task: Any) -> None:
        """Make this Task what the settings want it to be, the first time."""
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
        """Run a call of this Task here and now; return its AsyncResult."""
        ...

    def meta_of(self, task_id: str) -> Meta:
        """Return what is known of a run; PENDING or EXPIRED when nothing is."""
        ...

    def await_meta(self, task_id: str, timeout: Span | None) -> Meta | None:
        """Return the meta once the run has ended; None after `timeout`."""
        ...

    def store_meta(self, meta: Meta) -> None:
        """Store this of a run that goes on."""
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
    """Let calls that name no application go through this one from now on."""
    _made[:] = [app]


def set_default(make: Callable[[], Application]) -> None:
    """Set what makes the application when one is asked for and there is none."""
    _makers[:] = [make]


def current_app() -> Application:
    """Return the application made last; without one, make one from the config."""
    if not _made:
        set_current(_makers[0]())
    return _made[0]
