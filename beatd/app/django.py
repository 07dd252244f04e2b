"""Django around an application's tasks, where DJANGO_SETTINGS_MODULE names a project.

As Celery does it: Django is set up before modules of tasks are imported, each run
begins and ends without database connections that are too old, and no process of a pool
uses a connection of the process that it was forked from.
"""

import os
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

from beatd import signals
from beatd.tasks import Task

P = ParamSpec("P")
R = TypeVar("R")


class DjangoTask(Task[P, R]):
    """A task that can be called at the end of a database transaction."""

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Queue a call once the transaction has been committed; at once without one."""
        _on_commit(partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **options: Any) -> None:
        """Queue a call, as `apply_async` does, once the transaction is committed."""
        _on_commit(partial(self.apply_async, *args, **options))


def is_named() -> bool:
    """Return whether the environment names a project of Django, and Django is there."""
    return bool(os.environ.get("DJANGO_SETTINGS_MODULE")) and bool(find_spec("django"))


def set_up() -> None:
    """Set Django up, check the project, and watch the connections of runs.

    Raises what Django raises: what is wrong with the project's settings and models.
    """
    import django
    from django.core.checks import run_checks

    django.setup()
    if not os.environ.get("CELERY_SKIP_CHECKS"):
        run_checks()
    signals.task_prerun.connect(_begin)
    signals.task_postrun.connect(_end)
    signals.worker_process_init.connect(_leave_to_parent)


def _on_commit(call: Any) -> None:
    from django.db import transaction

    transaction.on_commit(call)


def _begin(task: Task[..., Any], **_: Any) -> None:
    from django.db import close_old_connections

    if not task.request.is_eager:
        close_old_connections()


def _end(task: Task[..., Any], **_: Any) -> None:
    from django.core.cache import caches
    from django.db import close_old_connections

    if not task.request.is_eager:
        close_old_connections()
        caches.close_all()


def _leave_to_parent(**_: Any) -> None:
    """Forget the connections that this process has from the one it was forked from.

    Only their files are closed here: a database that was told of an end would end them
    for the other process, too.
    """
    from django.core.cache import caches
    from django.db import connections

    for one in connections.all(initialized_only=True):
        with suppress(AttributeError, OSError, TypeError):
            os.close(one.connection.fileno())
        with suppress(Exception):  # any driver's: it is closed under its feet
            one.close()
    caches.close_all()
