"""An app that has a config: beatd's own, or one of Celery's."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from beatd.config.faults import Unreadable, raised
from beatd.config.modules import import_module, put_on_path
from beatd.config.settings import Problem, did_you_mean, spellings
from beatd.config.source import Source


@runtime_checkable
class App(Protocol):
    """An app of beatd's, by the method that the config is read with."""

    def beatd_config(self) -> Source:
        """Return the app's config, read afresh at each call."""
        ...


def of_app(target: str, folder: Path) -> Source:
    """Return the config of the app named `target`: `proj`, `proj.celery`, `proj:app`.

    The app's module is imported as any other: its tasks register once.
    """
    put_on_path(folder)
    app = _find_app(target)
    if isinstance(app, App):
        return replace(app.beatd_config(), app=app)
    try:
        return Source(target, _celery_config(app), app=app)
    except (Exception, SystemExit) as error:  # whatever their code may raise
        raise Unreadable(target, raised(error, "")) from error


def _find_app(target: str) -> Any:
    module_name, _, attribute = target.partition(":")
    module = import_module(module_name)
    if attribute:
        for part in attribute.split("."):
            if not hasattr(module, part):
                words = [word for word in vars(module) if not word.startswith("_")]
                hint = did_you_mean(part, words)
                problem = Problem(f"{module_name!r} has no {part!r}", hint)
                raise Unreadable(target, problem)
            module = getattr(module, part)
    for candidate in _candidates(module):
        if _is_app(candidate):
            return candidate
    raise Unreadable(
        target,
        Problem(
            f"no app in {target!r}: looked for app, celery and any other beatd.Beatd"
            " or celery.Celery object",
            "name it, as in -A proj:app",
        ),
    )


def _candidates(found: Any) -> Iterator[Any]:
    """Yield the objects that may be the app, in Celery's order."""
    yield found
    if not isinstance(found, ModuleType):
        return
    for name in ("app", "celery"):
        yield getattr(found, name, None)
    if hasattr(found, "__path__") and find_spec(f"{found.__name__}.celery"):
        yield from _candidates(import_module(f"{found.__name__}.celery"))
    yield from list(vars(found).values())


def _is_app(value: object) -> bool:
    return not isinstance(value, type) and (
        isinstance(value, App)
        or any(
            (kind.__module__, kind.__name__) == ("celery.app.base", "Celery")
            for kind in type(value).__mro__
        )
    )


def _celery_config(app: Any) -> dict[str, object]:
    """Return the settings of a Celery app, by new names.

    Its task modules are imported first, as `celery beat` does, for they may add
    periodic tasks. The layers of `conf` are: changes by code, the config, defaults.
    """
    app.loader.init_worker()
    app.finalize()
    *layers, _ = app.conf.maps
    written = {
        name: layer[word]
        for layer in reversed(layers)
        for word, name in spellings().items()
        if word in layer
    }
    # Periodic tasks that code adds go into whichever layer has the schedule.
    if app.conf.beat_schedule:
        written["beat_schedule"] = app.conf.beat_schedule
    return written
