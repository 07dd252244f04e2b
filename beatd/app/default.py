"""The application of calls that name none, in a program that has made none."""

import os
from pathlib import Path

from beatd.app.application import Beatd
from beatd.config import places
from beatd.tasks.current import set_default


def _default_app() -> Beatd:
    """Make an application of the config that `beatd` itself would find."""
    app = Beatd(set_as_current=False)
    app._given.take(lambda: places.of_config(None, os.environ, Path.cwd()))
    return app


set_default(_default_app)
