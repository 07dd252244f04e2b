"""A crontab as a config module, and what to say of it."""

import pwd
import shutil
from collections.abc import Sequence
from pathlib import Path

from beatd.cli.output import Failure
from beatd.cli.usage import NOTHING
from beatd.config.builtin_tasks import RUN
from beatd.config.settings import local_zone
from beatd.migrate.config_text import module_text
from beatd.migrate.crontab import Crontab, queue_of
from beatd.migrate.found import FoundEntry
from beatd.text import counted

_HEAD = """\
The jobs of {name}, as entries of the built-in task {run}.

Cron runs nothing late; beatd does, once for each entry. As cron has it:
beat_misfire_grace_time = 60.{users}"""

_USERS = """

Each job is to run as its user: start a worker as each of them, from its queue alone.
{workers}"""


class NoJobs(Failure):
    """A crontab in which there is nothing to schedule."""

    exit_code = NOTHING


def crontab_module(
    data: bytes, name: str, *, system: bool
) -> tuple[str, Sequence[str]]:
    """Return a config module of a crontab, and what is to be said of it.

    Raises NoJobs.
    """
    crontab = Crontab(_home, system=system)
    parts = list(crontab.parts(data))
    entries = [part for part in parts if isinstance(part, FoundEntry)]
    left_out = sum(isinstance(part, str) and "\n  left out: " in part for part in parts)
    more = f", {counted(left_out, 'line')} left out with the reason" if left_out else ""
    summary = [f"{name}: {counted(len(entries), 'entry')}{more}"]
    if not entries:
        raise NoJobs(f"{name}: no job in it can be an entry{more}")
    zone = local_zone()
    settings: dict[str, object] = {"builtin_tasks": [RUN]}
    if zone:
        settings["timezone"] = str(zone)
    else:
        summary.append("this machine's zone has no name: set timezone in the module")
    if not system and (users := _users_named(entries)):
        summary.append(
            f"jobs in it begin with users ({', '.join(users)}): if it is the system's,"
            f" as /etc/crontab is, beatd import crontab --system {name} reads it so"
        )
    workers = "\n".join(
        f"    beatd worker --uid {user} -Q {queue_of(user)} --config ..."
        for user in sorted(crontab.users)
    )
    of_users = _USERS.format(workers=workers) if workers else ""
    head = _HEAD.format(name=name, run=RUN, users=of_users)
    return module_text(head, settings, parts), summary


def _home(user: str | None) -> str | None:
    if user is None:
        return str(Path.home())
    try:
        return pwd.getpwnam(user).pw_dir
    except (KeyError, ValueError):  # a user of another machine's
        return None


def _users_named(entries: Sequence[FoundEntry]) -> list[str]:
    """Return the users that stand where commands do, and are no programs."""
    known = {one.pw_name for one in pwd.getpwall()}
    named = sorted(known.intersection(map(_program, entries)))
    return [one for one in named if shutil.which(one) is None]


def _program(entry: FoundEntry) -> str:
    kwargs = (entry.written or {})["kwargs"]
    command = kwargs["command"] if isinstance(kwargs, dict) else ""
    words = command.split() if isinstance(command, str) else [*map(str, command)]
    # An option follows programs alone, whatever else has their name: `mail -s`.
    return "" if words[1:2] and words[1].startswith("-") else words[0]
