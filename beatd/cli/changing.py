"""Entries that are others each time that the config is read: for `beatd check`."""

import re
import sys
from pathlib import Path

from beatd.cli.schedule_view import line_of
from beatd.config.loading import Config
from beatd.config.options import Options
from beatd.config.settings import Problem
from beatd.errors import ConfigError
from beatd.service.rereading import read_again
from beatd.timetable.entry import Entry


def changing_entries(config: Config, options: Options) -> list[Problem]:
    """Return a warning for each entry that is another when the config is read again.

    It is read again, by a new interpreter, only if its code may have drawn something
    or asked what time it is.
    """
    if not any(_may_draw(module, config) for module in [*sys.modules.values()]):
        return []
    try:
        again = {one.name: one for one in read_again(options, "beat").entries}
    except ConfigError as error:
        problem = f"the config cannot be read a second time: {error.problems[0]}"
        return [Problem(problem, warning=True)]
    problems = []
    for entry in config.entries:
        other = again.get(entry.name)
        if other and (found := _change(entry, other)):
            what, hint = found
            place = line_of(config, entry.name)
            text = f"entry {entry.name!r} {what}"
            problems.append(Problem(text, hint, place, warning=True))
    return problems


def _may_draw(module: object, config: Config) -> bool:
    """Return whether a module of the project draws numbers, or asks for the time."""
    path = Path(getattr(module, "__file__", None) or "")
    if path.suffix != ".py" or "site-packages" in path.parts:
        return False
    if not path.is_relative_to(Path.cwd()) and str(path) != config.source.file:
        return False
    try:
        return bool(_DRAWS.search(path.read_text()))
    except (OSError, ValueError):
        return False


_DRAWS = re.compile(r"random|secrets|uuid|\bnow\(|today\(|time\.time\(")


def _change(one: Entry, other: Entry) -> tuple[str, str] | None:
    if one.schedule.fingerprint != other.schedule.fingerprint:
        return (
            "has another schedule each time that the config is read",
            "each scheduler, and each restart, has other slots; H in a cron expression"
            " is a number that the entry's name decides: cron('H 3 * * *')",
        )
    if one.policy != other.policy or one.offset != other.offset:
        return (
            "has other bounds or policies each time that the config is read",
            "write what is the same in each scheduler and after each restart",
        )
    return None
