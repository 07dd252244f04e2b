"""An app that has a config: beatd's own, or one of Celery's."""

from dataclasses import replace
from pathlib import Path

from beatd.config.celery_settings import celeryd_init, receivers_heard, settings_of
from beatd.config.faults import Unreadable, raised
from beatd.config.finding import App, app_named
from beatd.config.source import Source


def of_app(target: str, folder: Path, worker: str = "") -> Source:
    """Return the config of the app that `-A` names as `target`.

    `worker` is the node that reads it, if it is one: it is told to a Celery app.
    """
    # An app reads its config when its module, or one of its tasks', first asks for it.
    with receivers_heard() as raised_by_receivers:
        app = app_named(target, folder)
        if isinstance(app, App):
            return replace(app.beatd_config(), app=app)
        try:
            doubts = list(celeryd_init(app, worker)) if worker else []
            found = settings_of(app, target)
        except (Exception, SystemExit) as error:  # whatever their code may raise
            raise Unreadable(target, raised(error, "")) from error
        for problem in raised_by_receivers():
            raise Unreadable(target, problem)
    return replace(found, problems=[*doubts, *found.problems])
