"""A Celery app before its first run: made ready for a worker, and its tasks read."""

import logging
from collections.abc import Sequence
from typing import Any

from beatd.celery_apps.signals import Controller, pass_on_worker
from beatd.config.settings import Settings
from beatd.errors import ConfigError
from beatd.tasks import Registry, Task, import_modules
from beatd.worker.renewal import OPTIONS


def prepare_app(
    app: Any, settings: Settings, hostname: str, include: Sequence[str]
) -> None:
    """Make the app ready to be run by a worker of these settings, and of this name.

    The modules that the app itself names are imported already: source.py.
    Raises ConfigError.
    """
    from celery.app.trace import setup_worker_optimizations

    _connect(app, settings)
    import_modules(include)
    # Threads without an app of their own get this one, and a task class whose
    # `__call__` calls that of its base class runs as one task, not as two.
    setup_worker_optimizations(app, hostname)
    # The worker's loop logs how each run ended; once is enough.
    logging.getLogger("celery.app.trace").addFilter(_says_more_than_how_a_run_ended)
    pass_on_worker(Controller(app, hostname, settings.worker_pool))


def _connect(app: Any, settings: Settings) -> None:
    """Have the app send to the broker and the backend of the worker's settings.

    The command line may have named others than the app did.
    """
    if not all("redis" in url.partition(":")[0] for url in settings.write_urls):
        problem = (
            "a Celery app sends retries, callbacks and chains by itself, and Redis is"
            " the broker that it shares with beatd; write redis://host:port/db"
        )
        raise ConfigError("broker_url", [problem])
    app.conf.broker_url = ";".join(settings.broker_urls)
    if settings.result_backend is not None:
        app.conf.result_backend = settings.result_backend


def _says_more_than_how_a_run_ended(record: logging.LogRecord) -> bool:
    """Say whether a record of Celery's tracer is of a fault of the tracer itself."""
    return record.levelno >= logging.CRITICAL or not hasattr(record, "data")


def registry_of(app: Any) -> Registry:
    """Return the app's tasks as the loop knows tasks: their names and options."""
    registry = Registry()
    for name, task in app.tasks.items():
        own = {option: _own(task, option) for option in OPTIONS}
        # Celery itself keeps STARTED, before any other state of the run.
        registry.register(Task(name=name, **own, track_started=False))
    return registry


def _own(task: Any, option: str) -> Any:
    """Return an option that somebody gave to the task; None: the settings decide.

    A task that is bound to its app gets what it lacks from the app's settings and,
    where these say nothing, from Celery's defaults, which are not always ours.
    """
    from celery.app.annotations import resolve_all

    value = getattr(task, option, None)  # older ones lack the newest
    setting = dict(task.from_config).get(option)
    if setting is None or value != task.app.conf[setting]:
        return value
    if any(option in one for one in resolve_all(task.app.annotations, task)):
        return value
    # The option may have been written all the same: what binding adds to the task's
    # class stands behind the mark that binding sets first.
    kind = next(kind for kind in type(task).__mro__ if option in vars(kind))
    names = list(vars(kind))
    added = names[names.index("__bound__") :] if "__bound__" in names else []
    return None if option in added else value
