"""Entries that other schedulers of Celery's keep, and that beatd does not schedule."""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import redis

from beatd.config.faults import raised_by_reading
from beatd.config.loading import Config, words_for
from beatd.config.settings import Problem
from beatd.errors import ConfigError
from beatd.migrate.redbeat import RedBeat
from beatd.text import counted, listed

_NAMED = 3  # entries that a warning names, at most


@dataclass(frozen=True, slots=True)
class Other:
    """Another scheduler, and the entries that it keeps."""

    name: str
    where: str
    """Where the entries are, for people."""
    command: str
    """The words behind `beatd import` that take it over."""
    entries: Sequence[str]
    """The names of its entries."""


def in_django(config: Config) -> Iterator[Problem]:
    """Yield a warning if django-celery-beat is installed and its tables have entries.

    The database is asked; its connections are closed again.
    """
    try:
        other = _django_celery_beat()
    except Exception as error:  # the database's driver, the project's router
        text = "django-celery-beat is installed, and its tables cannot be looked at"
        hint = "what is in them is not scheduled: it has to go into beat_schedule"
        reason = raised_by_reading(error)
        yield Problem(f"{text}: {reason}", hint, warning=True)
    else:
        yield from _elsewhere(other, config)


def in_redis(config: Config) -> Iterator[Problem]:
    """Yield a warning if RedBeat has entries in its Redis, which is asked."""
    yield from _elsewhere(_redbeat(config), config)


def last_runs_elsewhere(config: Config, known: Collection[str]) -> Iterator[Problem]:
    """Yield a warning for a scheduler of which no last run was taken over.

    `known` are the names of the ledger's entries. Both schedulers are asked.
    """
    with suppress(Exception):  # as above, where it is said
        yield from _not_taken_over(_django_celery_beat(), config, known)
    yield from _not_taken_over(_redbeat(config), config, known)


def _not_taken_over(
    other: Other | None, config: Config, known: Collection[str]
) -> Iterator[Problem]:
    ours = config.entry_names if other else ()
    both = [name for name in other.entries if name in ours] if other else []
    if other is None or not both or any(name in known for name in both):
        return
    ran = f"{other.name} ran {counted(len(both), 'entry')} of this config"
    text = f"{ran}, and beatd does not know yet what ran last"
    hint = f"take it over: beatd import {other.command} {words_for(config)}"
    yield Problem(text, hint, warning=True)


def _django_celery_beat() -> Other | None:
    """Return what is in its tables; None if it is not installed in this process.

    Raises what Django and the database raise.
    """
    django = sys.modules.get("django.apps")
    if django is None or not django.apps.ready:
        return None
    if not django.apps.is_installed("django_celery_beat"):
        return None
    from django.db import connections
    from django_celery_beat.models import PeriodicTask

    try:
        enabled = PeriodicTask.objects.filter(enabled=True).order_by("name")
        names = list(enabled.values_list("name", flat=True))
    finally:
        connections.close_all()
    word = "django-celery-beat"
    return Other(word, f"in the tables of {word}", word, names)


def _redbeat(config: Config) -> Other | None:
    """Return what is in its Redis; None if that is away or holds something else.

    The broker's own start says so.
    """
    try:
        names = RedBeat(config).names()
    except (redis.RedisError, ConfigError, OSError):
        return None
    return Other("RedBeat", "that RedBeat keeps in Redis", "redbeat", names)


def _elsewhere(other: Other | None, config: Config) -> Iterator[Problem]:
    """Yield a warning for what the config lacks of another scheduler's entries."""
    if other is None:
        return
    known = config.entry_names
    missing = [name for name in other.entries if name not in known]
    if not missing:
        return
    named = listed([*map(repr, missing)], _NAMED)
    verb = "is" if len(missing) == 1 else "are"
    text = f"{counted(len(missing), 'entry')} {other.where} {verb} not scheduled"
    named_config = words_for(config)
    command = f"beatd import {other.command} {named_config} --config-out entries.py"
    hint = f"beatd schedules what is in beat_schedule; as a module: {command}"
    yield Problem(f"{text}: {named}", hint, warning=True)
