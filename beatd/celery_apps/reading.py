"""Prepares a Celery app for a worker, and reads its tasks."""

import logging
import sys
from collections.abc import Sequence
from typing import Any

from beatd.celery_apps.signals import Controller, pass_on_worker
from beatd.config.settings import Settings
from beatd.errors import ConfigError
from beatd.runs.builtin import BUILTIN
from beatd.runs.report import limits_of
from beatd.tasks import Registry, Task, import_modules
from beatd.worker.renewal import OPTIONS
from beatd.worker.reporting import FAILURES


def prepare_app(
    app: Any, settings: Settings, hostname: str, include: Sequence[str]
) -> None:
    """Prepare the app for a worker with these settings, called `hostname`.

    The modules that the app itself names are imported already: config/apps.py.
    Raises ConfigError.
    """
    from celery.app.trace import setup_worker_optimizations

    _connect(app, settings)
    import_modules(include)
    for name in settings.builtin_tasks:
        app.task(name=name, bind=True)(BUILTIN[name])
    # Threads without an app of their own get this one. And a task whose own `__call__`
    # calls that of its base class counts as one task, not as two.
    setup_worker_optimizations(app, hostname)
    # The worker's loop logs how each run ended; once is enough.
    logging.getLogger("celery.app.trace").addFilter(_says_more_than_how_a_run_ended)
    if sentry := sys.modules.get("sentry_sdk.integrations.logging"):
        # It has the exception itself, as of Celery's tracer, whose log it ignores, too.
        sentry.ignore_logger(FAILURES)
    controller = Controller(app, hostname, settings.worker_pool)
    pass_on_worker(controller, limits_of(settings))


def _connect(app: Any, settings: Settings) -> None:
    """Have the app send to the broker and the backend of the worker's settings.

    The command line may have named others than the app itself.
    """
    schemes = [url.partition(":")[0] for url in settings.write_urls]
    if not all("redis" in one or one == "sentinel" for one in schemes):
        problem = (
            "a Celery app sends retries, callbacks and chains by itself, and Redis is"
            " the broker that it shares with beatd; write redis://host:port/db"
        )
        raise ConfigError("broker_url", [problem])
    app.conf.broker_url = ";".join(settings.broker_urls)
    if settings.result_backend is not None:
        app.conf.result_backend = settings.result_backend
        # What was made of the app's own address when it was read is not to be used.
        app._local.__dict__.pop("backend", None)
        app._backend_cache = None


def _says_more_than_how_a_run_ended(record: logging.LogRecord) -> bool:
    """Return whether a record of Celery's tracer is of a fault of the tracer itself."""
    return record.levelno >= logging.CRITICAL or not hasattr(record, "data")


def registry_of(app: Any) -> Registry:
    """Return the app's tasks in the form for the worker's loop: names and options."""
    registry = Registry()
    for name, task in app.tasks.items():
        own = {option: _own(task, option) for option in OPTIONS}
        # Celery itself stores STARTED, before any other state of the run.
        made: Task[..., Any] = Task(name=name, **own, track_started=False)
        made.__module__ = task.__module__
        registry.register(made)
    return registry


def _own(task: Any, option: str) -> Any:
    """Return an option if it was given to the task itself; None: the settings decide.

    Celery, when it binds a task to its app, sets the options that it lacks: from the
    app's settings or Celery's defaults, which are not always those of beatd.
    """
    from celery.app.annotations import resolve_all

    value = getattr(task, option, None)  # an older Celery lacks the newest
    setting = dict(task.from_config).get(option)
    if setting is None or value != task.app.conf[setting]:
        return value
    if any(option in one for one in resolve_all(task.app.annotations, task)):
        return value
    # The option may have been given with the same value as the setting. Options that
    # binding has set come behind `__bound__` in the class, which binding sets first.
    kind = next(kind for kind in type(task).__mro__ if option in vars(kind))
    names = list(vars(kind))
    added = names[names.index("__bound__") :] if "__bound__" in names else []
    return None if option in added else value
