"""The current application: for calls that name no application."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from beatd.instant import Span
from beatd.results.base import Meta

Args: TypeAlias = Sequence[Any] | None
Kwargs: TypeAlias = Mapping[str, Any] | None


class GroupIds(Protocol):
    """Keeps the ids of groups' runs, in the result backend."""

    def save_group(self, group_id: str, members: Any) -> None:
        """Store the ids of a group's runs."""
        ...

    def load_group(self, group_id: str) -> Any:
        """Return the ids of a group's runs, or None."""
        ...

    def forget_group(self, group_id: str) -> None:
        """Remove the ids of a group's runs."""
        ...


class Application(Protocol):
    """The application, as tasks and their results use it: app/."""

    @property
    def settings(self) -> Any:
        """Return the settings."""
        ...

    @property
    def tasks(self) -> Mapping[str, Any]:
        """Return the tasks, by name."""
        ...

    def new_id(self) -> str:
        """Return an id for a call."""
        ...

    def adopt(self, task: Any) -> None:
        """Apply the settings (annotations) to this Task, if that was not done."""
        ...

    def call_task(
        self,
        task: Any,
        args: Args,
        kwargs: Kwargs,
        options: Mapping[str, Any],
    ) -> Any:
        """Queue a call of this Task; return its AsyncResult."""
        ...

    def send_task(
        self,
        name: str,
        args: Args = None,
        kwargs: Kwargs = None,
        **options: Any,
    ) -> Any:
        """Queue a call of a task that may not be known here; return its AsyncResult."""
        ...

    def call_many(
        self, task: Any, calls: Iterable[Sequence[Any]], options: Mapping[str, Any]
    ) -> Any:
        """Queue calls of this Task; return the list of their results."""
        ...

    def call_composed(self, signature: Mapping[str, Any]) -> None:
        """Queue the calls that a signature with ids stands for: all, or none."""
        ...

    def apply_task(
        self,
        task: Any,
        args: Args,
        kwargs: Kwargs,
        options: Mapping[str, Any],
    ) -> Any:
        """Run a call of this Task, or of its Signature, in this thread, as a worker.

        Returns its AsyncResult.
        """
        ...

    def meta_of(self, task_id: str) -> Meta:
        """Return what is known of a run; PENDING or EXPIRED when nothing is."""
        ...

    def await_meta(self, task_id: str, timeout: Span | None) -> Meta | None:
        """Return the meta once the run has ended; None after `timeout`."""
        ...

    def results_of(self, written: Sequence[Any]) -> list[Any]:
        """Return the results of runs and groups that a meta has as its children."""
        ...

    def store_meta(self, meta: Meta) -> None:
        """Store the meta of a run that goes on."""
        ...

    @property
    def group_ids(self) -> GroupIds:
        """Return what keeps the ids of groups' runs."""
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
