"""Reads a project with beatd and with Celery, in a process of its own; prints both.

python -m tests.switch.reading APP [SETTING...]
"""

import json
import sys
from pathlib import Path
from typing import Any

from celery.app.utils import find_app
from celery.beat import PersistentScheduler

from beatd.config.loading import Wanted, load


def main(word: str, names: list[str]) -> None:
    """Print settings and entries of the app named `word`, as both have them."""
    config = load(Wanted(app=word, folder=Path.cwd()))
    app = find_app(word)
    theirs = PersistentScheduler(app=app, schedule_filename="theirs").schedule
    print(
        json.dumps(
            {
                "ours": {name: getattr(config.settings, name) for name in names},
                "theirs": {name: app.conf[name] for name in names},
                "zone": [str(config.settings.zone), str(app.timezone)],
                "our_entries": {
                    name: _shown(entry)
                    for name, entry in config.settings.beat_schedule.items()
                },
                "their_entries": {
                    name: _shown(vars(entry)) for name, entry in theirs.items()
                },
                "bad": [bad.name for bad in config.bad],
                "warnings": list(map(str, config.warnings)),
            },
            default=repr,
        )
    )


def _shown(entry: Any) -> dict[str, Any]:
    return {
        "task": entry["task"],
        "args": list(entry.get("args") or ()),
        "kwargs": dict(entry.get("kwargs") or {}),
        "options": dict(entry.get("options") or {}),
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
