"""RedBeat's keys: its entries and their last runs, as JSON in Redis."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import redis

from beatd import schedules
from beatd.brokers.redis.connection import Address
from beatd.config.finding import is_celery
from beatd.config.loading import Config
from beatd.config.settings import mask_url
from beatd.errors import BrokerUnavailable, ConfigError
from beatd.instant import instant_of
from beatd.migrate.found import Found, FoundEntry, LastRun
from beatd.parts import in_parts
from beatd.schedules.zones import zone_of
from beatd.text import quoted

_SCHEMES = ("redis://", "rediss://", "unix://", "redis+socket://", "sentinel://")
_AT_ONCE = 1000


class RedBeat:
    """What RedBeat has in the Redis, and under the prefix, that a config names."""

    def __init__(self, config: Config, prefix: str | None = None) -> None:
        """Raises ConfigError for an address that is none of Redis."""
        settings = config.settings
        options: Any = _setting(config, "redbeat_redis_options")
        options = options or settings.broker_transport_options
        self.url = str(_setting(config, "redbeat_redis_url") or settings.write_urls[0])
        if self.url.startswith("redis-sentinel"):
            self.url, options = _at_sentinels(options)
        elif not self.url.startswith("sentinel://"):
            options = {}
        named = _setting(config, "redbeat_key_prefix")
        self.prefix = str(prefix or named or "redbeat:")
        if not self.url.startswith(_SCHEMES):
            problem = (
                f"{mask_url(self.url)!r} is no address of Redis: RedBeat's is named by"
                " redbeat_redis_url, or with -b"
            )
            raise ConfigError("redbeat_redis_url", [problem])
        tls: Any = _setting(config, "redbeat_redis_use_ssl") or settings.broker_use_ssl
        self._address = Address(self.url, options, tls or False)
        lock = str(_setting(config, "redbeat_lock_key") or f"{self.prefix}:lock")
        self._lock = lock if lock.startswith(self.prefix) else self.prefix + lock

    def keys(self) -> list[str]:
        """Return the keys of the entries; raise redis.RedisError."""
        try:
            found = self._client.zrange(f"{self.prefix}:schedule", 0, -1)
        finally:
            self._address.close()
        return [key.decode(errors="replace") for key in found]

    def names(self) -> list[str]:
        """Return the names of the entries; raise redis.RedisError."""
        return [key.removeprefix(self.prefix) for key in self.keys()]

    def read(self) -> Found:
        """Return the entries and their last runs; raise BrokerUnavailable."""
        entries: list[FoundEntry] = []
        problems: list[str] = []
        try:
            for part in in_parts(self.keys(), _AT_ONCE):
                for key, (definition, meta) in self._rows(part):
                    name = key.removeprefix(self.prefix)
                    try:
                        entries.append(_entry(name, definition, meta))
                    except _FOREIGN as error:
                        problems.append(f"{quoted(name)}: {error or type(error)}")
            in_use = self._in_use()
        except (redis.RedisError, OSError) as error:
            raise BrokerUnavailable(f"{mask_url(self.url)}: {error}") from error
        finally:
            self._address.close()
        source = f"RedBeat ({self.prefix}* in {mask_url(self.url)})"
        return Found(source, entries, problems, in_use)

    def _rows(self, keys: Sequence[str]) -> Iterator[tuple[str, tuple[Any, Any]]]:
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.hmget(key, "definition", "meta")
        yield from zip(keys, pipe.execute(), strict=True)

    def _in_use(self) -> str:
        """Return for people that a scheduler of RedBeat's holds its lock, if so."""
        left = self._client.pttl(self._lock)
        if left <= 0:
            return ""
        held = f"its lock {self._lock} is held, and ends in {left // 1000} s"
        return f"RedBeat's scheduler seems to run: {held}"

    @property
    def _client(self) -> Any:
        return self._address.client


_FOREIGN = (ValueError, TypeError, KeyError, AttributeError, OverflowError)
"""What the values of others' JSON may raise; UnicodeDecodeError is a ValueError."""


def _at_sentinels(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return address and options in Celery's form, from those of RedBeat's.

    Raises ConfigError.
    """
    try:
        places = [(str(host), int(port)) for host, port in options["sentinels"]]
    except (KeyError, TypeError, ValueError) as error:
        problem = "expected a list of pairs of host and port in 'sentinels'"
        raise ConfigError("redbeat_redis_options", [problem]) from error
    user, password = (
        quote(str(options.get(name) or ""), safe="")
        for name in ("username", "password")
    )
    login = f"{user}:{password}@" if password else ""
    db = options.get("db") or 0
    urls = [f"sentinel://{login}{host}:{port}/{db}" for host, port in places]
    return ";".join(urls), {
        "master_name": options.get("service_name") or "master",
        "sentinel_kwargs": options.get("sentinel_kwargs"),
        "socket_timeout": options.get("socket_timeout"),
    }


def _setting(config: Config, name: str) -> object:
    """Return a setting of RedBeat's, of which beatd's own settings know nothing."""
    app: Any = config.source.app
    written: Any = app.conf if is_celery(app) else config.source.written
    return written.get(name) or written.get(name.upper())


def _entry(name: str, definition: bytes | None, meta: bytes | None) -> FoundEntry:
    """Return an entry of RedBeat's; raise one of _FOREIGN."""
    if definition is None:
        raise ValueError("its key is gone")
    said: Any = json.loads(definition, object_hook=_value)
    times: Any = json.loads(meta, object_hook=_value) if meta else {}
    at, runs = times.get("last_run_at"), times.get("total_run_count") or 0
    last = None if at is None else LastRun(instant_of(at), int(runs))
    try:
        schedule, zone = _schedule(said["schedule"])
    except ValueError as error:
        return FoundEntry(name, last, None, [f"its schedule: {error}"])
    written = {"task": said["task"], "schedule": schedule}
    written |= {key: said[key] for key in _KEYS if said.get(key)}
    if zone:
        written["timezone"] = zone
    if said.get("enabled") is False:
        written["enabled"] = False
    return FoundEntry(name, last, written)


_KEYS = ("args", "kwargs", "options")


def _value(found: dict[str, Any]) -> Any:
    """Return what RedBeat's JSON means by an object of the kind `datetime`."""
    if found.get("__type__") != "datetime":
        return found
    parts = {key: value for key, value in found.items() if key != "__type__"}
    zone = parts.pop("timezone", "UTC")
    if isinstance(zone, int | float):
        return datetime(**parts, tzinfo=timezone(timedelta(seconds=zone)))
    return datetime(**parts, tzinfo=UTC if zone == "UTC" else zone_of(zone))


def _schedule(said: Any) -> tuple[object, str]:
    """Return a schedule, and the zone that it has for itself; raise ValueError."""
    match said:
        case {"__type__": "crontab"}:
            fields = {key: said[key] for key in said if key != "__type__"}
            return schedules.crontab(**fields), ""
        case {"__type__": "interval", "every": length}:
            if said.get("relative"):
                return schedules.every(length, relative=True), ""
            return schedules.every(length, align=False), ""
        case {"__type__": "rrule"}:
            return _rrule(said)
    raise ValueError(f"beatd knows none like it: {quoted(said)}")


_FREQUENCIES = (
    *("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"),
)
_DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_NUMBERS = (
    *("bysetpos", "bymonth", "bymonthday", "byyearday", "byweekno"),
    *("byhour", "byminute", "bysecond"),
)


def _rrule(said: Mapping[str, Any]) -> tuple[object, str]:
    if said.get("byeaster") is not None:
        raise ValueError("byeaster is no part of RFC 5545")
    if said.get("dtstart") is None:
        raise ValueError("it has no dtstart: it would begin anew at each start")
    minutes = said.get("dtstart_tz") or 0
    if minutes % 60:
        raise ValueError(f"its clock is {minutes} minutes ahead of UTC, no whole hours")
    hours = int(minutes // 60)
    clock = timezone(timedelta(hours=hours))
    parts = [f"FREQ={_FREQUENCIES[said['freq']]}"]
    if (said.get("interval") or 1) != 1:
        parts.append(f"INTERVAL={said['interval']}")
    if said.get("count") is not None:
        parts.append(f"COUNT={said['count']}")
    if said.get("until") is not None:
        until = datetime.fromtimestamp(said["until"], UTC)
        parts.append(f"UNTIL={until:%Y%m%dT%H%M%SZ}")
    for name in _NUMBERS:
        if (value := said.get(name)) is not None:
            parts.append(f"{name.upper()}={_listed(value)}")
    if (days := said.get("byweekday")) is not None:
        parts.append(f"BYDAY={','.join(map(_day, _many(days)))}")
    if (start := said.get("wkst")) is not None:
        parts.append(f"WKST={_day(start)}")
    begin = datetime.fromtimestamp(said["dtstart"], clock).replace(tzinfo=None)
    zone = "UTC" if hours == 0 else f"Etc/GMT{-hours:+d}"
    return schedules.rrule(";".join(parts), begin.isoformat()), zone


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _listed(value: Any) -> str:
    return ",".join(str(int(one)) for one in _many(value))


def _day(value: Any) -> str:
    """Return a day by its number, or by what dateutil's weekday is written as."""
    return _DAYS[value["wkday"] if isinstance(value, Mapping) else value]
