"""A page about what each option and setting of `celery worker` does in beatd.

`python -m beatd.cli.worker_options` prints `docs/worker-options.md`, from the command's
own parameters and from the table of settings: only what neither knows stands here.
"""

from collections.abc import Iterable, Mapping

import click

from beatd.cli.worker import command
from beatd.config.settings import Row, table

WORKS, DIFFERS, NO_EFFECT, OURS, NOT_THERE = (
    "works",
    "works differently",
    "no effect",
    "beatd's own",
    "not there",
)

DIFFERENCES: Mapping[str, str] = {
    "--app": "The app may be beatd's or Celery's; also after the command.",
    "--config": "A path to a file too, not only the name of a module.",
    "--pool": "`threads`, `gevent` and `eventlet` as there; `asyncio` besides.",
    "--pool-start-method": "One new process imports the modules, and forks all others.",
    "--autoscale": "MAX alone means MAX,0, and at least one process stays.",
    "--time-limit": "In every pool, as far as it can: see [pools.md](pools.md).",
    "--soft-time-limit": "In every pool, as far as it can: see [pools.md](pools.md).",
    "--purge": "Says how many messages went.",
    "--statedb": "An SQLite file; a shelve is refused, and left as it is.",
    "--pidfile": "It is held by a lock: a stale file never blocks a start.",
    "--detach": "Ends when the worker has begun; if it does not, with its error.",
    "--umask": "In the foreground as well; unset, it stays as it is.",
    "--beat": "A thread, beside any pool; on many workers each slot is emitted once.",
    "--schedule-filename": "An SQLite file; a shelve is refused, and left as it is.",
    "--scheduler": "The scheduler is beatd's; the name of another class is an error.",
}
"""Options that do not quite do what they do in Celery."""

ABSENT: Mapping[str, str] = {
    "-P custom": "Pools written for Celery do not fit beatd's protocol of pools.",
    "--skip-checks": "It skips checks of Django, and beatd makes none.",
}
"""What Celery takes and beatd refuses as an unknown option or value."""

ADDED = {
    "--strict",
    "--log-format",
    "--debug",
    "--max-interval",
    "--http",
    "--autoscale-keepalive",
}
"""Options of `beatd worker` that `celery worker` does not have."""

_INTRODUCTION = """\
# The options and settings of `celery worker`

<!-- Made from beatd/cli/worker.py and beatd/config/settings/rows/ by
`python -m beatd.cli.worker_options`: edit those. -->

What each does for `beatd worker`. Celery's global options (`-A`, `-b`, ...) may stand
before the command or after it. Each may stand in the environment, too, by Celery's
name for it: `CELERY_WORKER_CONCURRENCY`, `CELERY_APP`, `BROKER_URL`. Values and
defaults: `beatd worker --help` and [settings.md](settings.md).

## Options

"""


def page() -> str:
    """Return `docs/worker-options.md`."""
    options = [option for option in command.params if isinstance(option, click.Option)]
    absent = [(f"`{name}`", NOT_THERE, why) for name, why in ABSENT.items()]
    settings = [row for row in table().values() if not row.note.own]
    return (
        _INTRODUCTION
        + _table("option", [*map(_of_option, options), *absent])
        + "\n## Settings\n\n"
        + _table("setting", map(_of_setting, settings))
    )


def _of_option(option: click.Option) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in option.opts)
    help_text = (option.help or "").partition("  [")[0]
    if help_text.startswith("Accepted; "):
        why = help_text.removeprefix("Accepted; ")
        return names, NO_EFFECT, f"Why: {why}"
    if ADDED.intersection(option.opts):
        return names, OURS, help_text
    for name in option.opts:
        if name in DIFFERENCES:
            return names, DIFFERS, f"{help_text} {DIFFERENCES[name]}".strip()
    return names, WORKS, help_text


def _of_setting(row: Row) -> tuple[str, str, str]:
    note = row.note
    name = f"`{row.name}`"
    if note.unused:
        return name, NO_EFFECT, f"{note.meaning} Why: {note.unused}."
    if note.differs:
        return name, DIFFERS, f"{note.meaning} {note.differs}"
    return name, WORKS, note.meaning


def _table(what: str, lines: Iterable[tuple[str, str, str]]) -> str:
    head = f"| {what} | here | what it does; how it differs, or why it does nothing |\n"
    rows = (" | ".join(cell.replace("|", "&#124;") for cell in line) for line in lines)
    return head + "|---|---|---|\n" + "".join(f"| {row} |\n" for row in rows)


if __name__ == "__main__":
    print(page(), end="")
