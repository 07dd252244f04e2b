"""An app that has a config: beatd's own, or one of Celery's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from beatd.config.faults import Unreadable, raised
from beatd.config.finding import App, app_named
from beatd.config.settings import spellings
from beatd.config.source import Source


def of_app(target: str, folder: Path) -> Source:
    """Return the config of the app that `-A` names as `target`."""
    app = app_named(target, folder)
    if isinstance(app, App):
        return replace(app.beatd_config(), app=app)
    try:
        return Source(target, _celery_config(app), app=app)
    except (Exception, SystemExit) as error:  # whatever their code may raise
        raise Unreadable(target, raised(error, "")) from error


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
