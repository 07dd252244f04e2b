"""Where a config is looked for: what the command line names, else the environment."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from beatd.config.faults import Unreadable
from beatd.config.modules import of_file, of_name, put_on_path
from beatd.config.settings import Problem
from beatd.config.source import Source

DEFAULT_MODULE = "celeryconfig"


def of_config(target: str | None, environ: Mapping[str, str], folder: Path) -> Source:
    """Return the config named `target`, else by `$BEATD_CONFIG`, else celeryconfig.

    `target` is a module, an object in one (`mod.conf`, `mod:conf`) or a file. The
    file's folder, or for modules `folder` (the working directory), is put on
    `sys.path`, so that the config can import from there.
    """
    named = target or environ.get("BEATD_CONFIG") or environ.get("CELERY_CONFIG_MODULE")
    if named and (named.endswith(".py") or os.sep in named):
        return of_file(named, folder)
    put_on_path(folder)
    if not named and find_spec(DEFAULT_MODULE) is None:
        problem = Problem(
            f"no {DEFAULT_MODULE}.py in {folder}",
            "name a config with --config FILE or $BEATD_CONFIG, or an app with -A",
        )
        raise Unreadable(DEFAULT_MODULE, problem)
    return of_name(named or DEFAULT_MODULE)
