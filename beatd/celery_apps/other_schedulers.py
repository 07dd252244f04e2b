"""Entries that other schedulers of Celery's keep, and that beatd does not schedule."""

import sys
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import redis

from beatd.brokers.redis.connection import Address
from beatd.config.faults import raised_by_reading
from beatd.config.loading import Config
from beatd.config.settings import Problem
from beatd.errors import ConfigError
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
        yield from _elsewhere("in the tables of django-celery-beat", names, config)
    finally:
        connections.close_all()


def in_redis(app: Any, config: Config) -> Iterator[Problem]:
    """Yield a warning if RedBeat has entries in its Redis, which is asked."""
    conf, settings = app.conf, config.settings
    url = conf.get("redbeat_redis_url") or conf.get("REDBEAT_REDIS_URL")
    url = url or settings.write_urls[0]
    if not str(url).startswith(("redis://", "rediss://", "unix://", "redis+socket://")):
        return
    prefix = conf.get("redbeat_key_prefix") or conf.get("REDBEAT_KEY_PREFIX")
    prefix = prefix or "redbeat:"
    try:
        address = Address(url, {}, settings.broker_use_ssl or False)
        try:
            keys = address.client.zrange(f"{prefix}:schedule", 0, -1)
        finally:
            address.pool.disconnect()
    except (redis.RedisError, ConfigError, OSError):
        return  # away, or it holds something else: the broker's own start says so
    names = [key.decode(errors="replace").removeprefix(prefix) for key in keys]
    yield from _elsewhere("that RedBeat keeps in Redis", names, config)


def _elsewhere(where: str, names: Iterable[str], config: Config) -> Iterator[Problem]:
    known: Collection[object] = config.settings.beat_schedule
    missing = [name for name in names if name not in known]
    if not missing:
        return
    named = [repr(name) for name in missing[:_NAMED]]
    if len(missing) > _NAMED:
        named.append(f"{len(missing) - _NAMED} more")
    verb = "is" if len(missing) == 1 else "are"
    text = f"{counted(len(missing), 'entry')} {where} {verb} not scheduled"
    hint = "beatd schedules what is in beat_schedule: write them there"
    yield Problem(f"{text}: {', '.join(named)}", hint, warning=True)
