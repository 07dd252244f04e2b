"""Entries that other schedulers of Celery's keep, and that beatd does not schedule."""

import sys
from collections.abc import Collection, Iterable, Iterator

import redis

from beatd.config.faults import raised_by_reading
from beatd.config.loading import Config, words_for
from beatd.config.settings import Problem
from beatd.errors import ConfigError
from beatd.migrate.redbeat import RedBeat
from beatd.text import counted

_NAMED = 3  # entries that a warning names, at most


def in_django(config: Config) -> Iterator[Problem]:
    """Yield a warning if django-celery-beat is installed and its tables have entries.

    The database is asked; its connections are closed again.
    """
    django = sys.modules.get("django.apps")
    if django is None or not django.apps.ready:
        return
    if not django.apps.is_installed("django_celery_beat"):
        return
    from django.db import connections
    from django_celery_beat.models import PeriodicTask

    try:
        enabled = PeriodicTask.objects.filter(enabled=True).order_by("name")
        names = list(enabled.values_list("name", flat=True))
    except Exception as error:  # the database's driver, the project's router
        text = "django-celery-beat is installed, and its tables cannot be looked at"
        hint = "what is in them is not scheduled: it has to go into beat_schedule"
        reason = raised_by_reading(error)
        yield Problem(f"{text}: {reason}", hint, warning=True)
    else:
        yield from _elsewhere(
            "in the tables of django-celery-beat", "django-celery-beat", names, config
        )
    finally:
        connections.close_all()


def in_redis(config: Config) -> Iterator[Problem]:
    """Yield a warning if RedBeat has entries in its Redis, which is asked."""
    try:
        names = RedBeat(config).names()
    except (redis.RedisError, ConfigError, OSError):
        return  # away, or it holds something else: the broker's own start says so
    yield from _elsewhere("that RedBeat keeps in Redis", "redbeat", names, config)


def _elsewhere(
    where: str, word: str, names: Iterable[str], config: Config
) -> Iterator[Problem]:
    """Yield a warning for what the config lacks of another scheduler's entries.

    `word` is the command that takes them over.
    """
    known: Collection[object] = config.settings.beat_schedule
    missing = [name for name in names if name not in known]
    if not missing:
        return
    named = [repr(name) for name in missing[:_NAMED]]
    if len(missing) > _NAMED:
        named.append(f"{len(missing) - _NAMED} more")
    verb = "is" if len(missing) == 1 else "are"
    text = f"{counted(len(missing), 'entry')} {where} {verb} not scheduled"
    command = f"beatd import {word} {words_for(config)} --config-out entries.py"
    hint = f"beatd schedules what is in beat_schedule; as a module: {command}"
    yield Problem(f"{text}: {', '.join(named)}", hint, warning=True)
