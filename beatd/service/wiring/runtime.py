"""What a worker runs: an app with its tasks, and all that its runs need."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo

import msgspec

from beatd import results, signals
from beatd.app import Beatd
from beatd.celery_apps.out_of_reach import out_of_reach
from beatd.celery_apps.reading import prepare_app, registry_of
from beatd.celery_apps.results import CeleryChordKeeper, CeleryResults
from beatd.celery_apps.runner import CeleryRunner
from beatd.config.finding import is_celery
from beatd.config.loading import Config
from beatd.config.settings import Problem, Settings
from beatd.events.zone import local_time, machine_zone
from beatd.pools.base import AsyncRunner
from beatd.results.base import Keeper
from beatd.runs.builtin import add_builtin_tasks, add_named_tasks
from beatd.runs.chords import ChordKeeper, in_a_thread
from beatd.runs.execute import executor_for
from beatd.runs.report import limits_of
from beatd.service.nodes import node_name
from beatd.service.wiring.choice import WorkerChoice
from beatd.tasks import Registry, check_tasks
from beatd.worker.settle import EndRecorder


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """The app whose tasks a worker runs, all its modules imported."""

    app: object
    hostname: str
    machine_zone: tzinfo
    """Local time before it became that of the settings."""


def loaded_app_of(config: Config, choice: WorkerChoice) -> LoadedApp:
    """Import the tasks that a worker runs.

    Raises ConfigError for modules that cannot be imported.
    """
    settings = config.settings
    own_zone = machine_zone()
    # Before any module of the user's is imported: it may ask what time it is.
    local_time(str(settings.zone))
    hostname = node_name(choice.hostname)
    app = config.source.app or Beatd()
    if isinstance(app, Beatd):
        app.use(settings)
        app.import_tasks(choice.include)
        add_builtin_tasks(app.tasks)
        add_named_tasks(app.tasks, settings.builtin_tasks)
    else:
        prepare_app(app, settings, hostname, choice.include)
    return LoadedApp(app, hostname, own_zone)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a worker runs: an app's tasks, and what is needed to run them."""

    tasks: Registry
    runner: AsyncRunner
    results: Keeper | None
    chord_keeper: EndRecorder
    initialise: Callable[[], object]


def runtime_of(loaded: LoadedApp, settings: Settings) -> Runtime:
    """Make what the tasks of a loaded app are run with. Raises ConfigError."""
    app = loaded.app
    check_tasks(tasks_of(app).values())
    if not isinstance(app, Beatd):
        return _celery_runtime_of(app, loaded.hostname, settings)
    limits = limits_of(settings)
    executor = executor_for(app, loaded.hostname, limits)
    kept = results.connect(settings) if settings.result_url else None
    continuations = msgspec.structs.replace(executor.continuations, apart=in_a_thread)
    chord_keeper = ChordKeeper(kept, continuations, limits)
    return Runtime(
        app.tasks, executor, kept, chord_keeper, signals.worker_process_init.send
    )


def unreached(config: Config) -> list[Problem]:
    """Return a warning for what a Celery app has that beatd does not use."""
    app = config.source.app
    return list(out_of_reach(app)) if is_celery(app) else []


def tasks_of(app: object) -> Registry:
    """Return the tasks of an app of beatd's or of Celery's."""
    return app.tasks if isinstance(app, Beatd) else registry_of(app)


def _celery_runtime_of(app: object, hostname: str, settings: Settings) -> Runtime:
    limits = limits_of(settings)
    runner = CeleryRunner(app, limits, hostname)
    kept = CeleryResults(app) if settings.result_url else None
    chord_keeper = CeleryChordKeeper(app, limits, hostname)
    tasks = tasks_of(app)
    return Runtime(tasks, runner, kept, chord_keeper, runner.initialise)
