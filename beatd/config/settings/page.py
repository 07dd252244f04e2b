"""The page of the documentation, made from the table: `docs/settings.md`."""

from beatd.config.settings.reading import Row, table

_GROUPS = {
    "beat": "Scheduler",
    "broker": "Broker",
    "result": "Results",
    "redis": "Redis as result backend",
    "task": "Tasks and messages",
    "worker": "Worker",
    "control": "Remote control",
    "event": "Events",
    "cache": "Result backends and signing that beatd does not have",
    "security": "Result backends and signing that beatd does not have",
    "database": "Result backends and signing that beatd does not have",
}

_INTRODUCTION = """\
# Settings

<!-- Made by `python -m beatd.config.settings` from the table in its rows/. -->

beatd reads Celery's settings in all their spellings, in any mixture: the name
(`task_time_limit`), the old name (`CELERYD_TASK_TIME_LIMIT`), and the name with
`CELERY_` in front (`CELERY_TASK_TIME_LIMIT`). Two spellings of one setting that
contradict each other are an error. The command line wins over the environment
(`CELERY_BROKER_URL`, `CELERY_BROKER_READ_URL`, `CELERY_BROKER_WRITE_URL`,
`CELERY_RESULT_BACKEND`), the environment over the config, the config over the defaults.

**beatd** marks settings that Celery does not have. Lengths of time are seconds or a
`timedelta`, a hundred years (3155760000 seconds) at most. No whole number is larger
than 2147483647.
"""


def page() -> str:
    """Return `docs/settings.md`."""
    groups: dict[str, list[Row]] = {}
    for row in table().values():
        title = _GROUPS.get(row.name.partition("_")[0], "General")
        groups.setdefault(title, []).append(row)
    return _INTRODUCTION + "".join(_section(title, groups[title]) for title in groups)


def _section(title: str, rows: list[Row]) -> str:
    head = (
        f"\n## {title}\n\n| setting | old name | value | default | meaning |\n"
        "|---|---|---|---|---|\n"
    )
    return head + "".join(map(_line, rows))


def _line(row: Row) -> str:
    note = row.note
    default = "unset" if row.default is None else f"`{row.default!r}`"
    meaning = note.meaning
    if note.own:
        meaning = f"**beatd** {meaning}"
    if note.differs:
        meaning += f" *Differs:* {note.differs}"
    if note.unused:
        meaning += f" *No effect:* {note.unused}."
    cells = (f"`{row.name}`", f"`{row.old}`", row.words, default, meaning)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"
