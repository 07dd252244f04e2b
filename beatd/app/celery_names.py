"""What Celery's app has beside, said by what a Beatd application has."""

import os
from collections.abc import Sequence
from datetime import datetime, tzinfo
from pkgutil import resolve_name
from typing import Any, Self, cast

from beatd.app import django
from beatd.app.client_results import ClientResults
from beatd.app.connections import Connections
from beatd.clock import Clock
from beatd.config.settings import Settings
from beatd.errors import ConfigError
from beatd.instant import datetime_of
from beatd.tasks import GroupResult, ResultSet, Signature, signature
from beatd.tasks import Task as AnyTask
from beatd.tasks.current import Application, set_current
from beatd.tasks.shared import running_task


class CeleryNames:
    """Methods of an application by Celery's names; what they do stands elsewhere."""

    _clock: Clock
    _task_cls: type[AnyTask[..., Any]] | str | None

    @property
    def settings(self) -> Settings:
        """Return the settings."""
        raise NotImplementedError

    @property
    def connections(self) -> Connections:
        """Return the connections of this process."""
        raise NotImplementedError

    def config_from_object(
        self, obj: Any, *, namespace: str | None = None, **_unused: Any
    ) -> None:
        """Take settings from an object, or by its name."""
        raise NotImplementedError

    def config_from_envvar(
        self, variable_name: str, silent: bool = False, **more: Any
    ) -> bool:
        """Take settings from the module that an environment variable names.

        Returns whether it names one; without `silent`, raises ConfigError if not.
        """
        module = os.environ.get(variable_name)
        if module:
            self.config_from_object(module, **more)
        elif not silent:
            problem = f"the environment variable {variable_name} names no module"
            raise ConfigError("the app", [problem])
        return bool(module)

    def close(self) -> None:
        """Close the connections of this process."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_current(self) -> None:
        """Make this the application of calls that name none."""
        set_current(self._app)

    set_default = set_current

    @property
    def Task(self) -> type[AnyTask[..., Any]]:
        """Return the class of this application's tasks, to derive others from.

        It is `task_cls`; without that, one with `delay_on_commit` in a Django project.
        """
        if isinstance(self._task_cls, str):
            kind: type[AnyTask[..., Any]] = resolve_name(self._task_cls)
            self._task_cls = kind
        return self._task_cls or (django.DjangoTask if django.is_named() else AnyTask)

    @property
    def current_task(self) -> AnyTask[..., Any] | None:
        """Return the task whose run this code is in."""
        return running_task()

    @property
    def timezone(self) -> tzinfo:
        """Return the time zone of the settings."""
        return self.settings.zone

    def now(self) -> datetime:
        """Return the time of day in the time zone of the settings."""
        return datetime_of(self._clock.now()).astimezone(self.timezone)

    def GroupResult(self, id: str, results: Sequence[Any]) -> GroupResult[Any]:
        """Return the runs of a group, by its id."""
        return GroupResult(id, results, app=self._app)

    @property
    def group_ids(self) -> ClientResults:
        """Return what keeps the ids of groups' runs."""
        return self.connections.results

    def ResultSet(self, results: Sequence[Any]) -> ResultSet[Any]:
        """Return several results as one."""
        return ResultSet(results, app=self._app)

    def signature(self, task: Any, *args: Any, **more: Any) -> Signature:
        """Return the signature of a task, by its name, or of a dict."""
        return signature(task, *args, **{"app": self, **more})

    @property
    def _app(self) -> Application:
        return cast(Application, self)
