"""The tables of django-celery-beat: its entries and their last runs."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from beatd import schedules
from beatd.errors import BeatdError
from beatd.instant import instant_of
from beatd.migrate.found import Found, FoundEntry, LastRun
from beatd.text import quoted

_OWN = (
    *("name", "task", "args", "kwargs", "queue", "exchange", "routing_key"),
    *("headers", "priority", "expires", "expire_seconds", "one_off", "start_time"),
    *("enabled", "last_run_at", "total_run_count", "date_changed", "description"),
)
_OF_SCHEDULES = {
    "interval": ("every", "period"),
    "crontab": (
        *("minute", "hour", "day_of_week", "day_of_month", "month_of_year"),
        "timezone",
    ),
    "solar": ("event", "latitude", "longitude"),
    "clocked": ("clocked_time",),
}
_TABLES = {kind: f"django_celery_beat_{kind}schedule" for kind in _OF_SCHEDULES}
COLUMNS = (
    *_OWN,
    *(f"{kind}__{name}" for kind, names in _OF_SCHEDULES.items() for name in names),
)
"""The columns of a row, by the words of Django's queries."""

Row = Mapping[str, Any]


class TablesError(BeatdError):
    """Tables of django-celery-beat that are not there, or cannot be read."""


def read_django() -> Found:
    """Return what the Django that is set up here has in its tables.

    Raises TablesError.
    """
    try:
        from django.db import connections
        from django_celery_beat.models import PeriodicTask
    except Exception as error:  # Django's own, where it is not set up
        text = "django-celery-beat cannot be asked: it is not installed in this project"
        raise TablesError(f"{text} ({error})") from error
    try:
        rows = list(PeriodicTask.objects.order_by("name").values(*COLUMNS))
        database = PeriodicTask.objects.db
        name = connections[database].settings_dict.get("NAME")
    except Exception as error:  # the database's driver, the project's router
        raise TablesError(f"the tables of django-celery-beat: {error}") from error
    finally:
        connections.close_all()
    return _found(f"django-celery-beat ({name})", rows, UTC)


def read_database(path: Path, local: tzinfo) -> Found:
    """Return what an SQLite database of a Django project has in these tables.

    `local` is the zone of dates there, without `USE_TZ`. Raises TablesError.
    """
    if not path.is_file():
        raise TablesError(f"there is no file {path}")
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as db:
            db.row_factory = sqlite3.Row
            rows = [dict(row) for row in db.execute(_QUERY)]
    except sqlite3.Error as error:
        raise TablesError(f"{path}: {error}") from error
    return _found(f"django-celery-beat ({path})", rows, local)


_JOINED = [
    f't.{name} AS "{name}"'
    if name in _OWN
    else f'{name.replace("__", ".")} AS "{name}"'
    for name in COLUMNS
]
_QUERY = (
    f"SELECT {', '.join(_JOINED)} FROM django_celery_beat_periodictask AS t "
    + " ".join(
        f"LEFT JOIN {table} AS {kind} ON t.{kind}_id = {kind}.id"
        for kind, table in _TABLES.items()
    )
    + " ORDER BY t.name"
)


def _found(source: str, rows: Iterable[Row], local: tzinfo) -> Found:
    entries: list[FoundEntry] = []
    problems: list[str] = []
    for row in rows:
        try:
            entries.append(_entry(_Dated(row, local)))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            problems.append(f"{quoted(row['name'])}: {error}")
    return Found(source, entries, problems)


class _Dated:
    """A row whose dates are aware, in whichever form the database has them."""

    def __init__(self, row: Row, local: tzinfo) -> None:
        self._row = row
        self._local = local

    def __getitem__(self, name: str) -> Any:
        return self._row[name]

    def moment(self, name: str) -> datetime | None:
        """Return a date; None without one. Raises ValueError."""
        value = self._row[name]
        if value is None:
            return None
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(moment, datetime):
            raise ValueError(f"{name}: expected a date, got {quoted(value)}")
        return moment if moment.tzinfo else moment.replace(tzinfo=self._local)

    def json(self, name: str) -> Any:
        """Return what a text of JSON means; None without one. Raises ValueError."""
        return json.loads(self._row[name]) if self._row[name] else None


def _entry(row: _Dated) -> FoundEntry:
    """Return an entry; raise ValueError, TypeError, KeyError, OverflowError."""
    name, last = str(row["name"]), _last(row)
    try:
        schedule = _schedule(row)
    except ValueError as error:
        return FoundEntry(name, last, None, [f"its schedule: {error}"])
    written = {"task": row["task"], **schedule}
    for key in ("args", "kwargs"):
        if value := row.json(key):
            written[key] = value
    written["options"] = _options(row)
    written |= {key: value for key, value in _policy(row).items() if value is not None}
    return FoundEntry(name, last, written)


def _last(row: _Dated) -> LastRun | None:
    """Return the last run as django-celery-beat counts it.

    An entry that has not run yet counts from its last change.
    """
    at = row.moment("last_run_at")
    if at is not None:
        return LastRun(instant_of(at), int(row["total_run_count"]))
    changed = row.moment("date_changed")
    if changed is None or row["start_time"] is not None:
        return None
    return LastRun(instant_of(changed))


def _schedule(row: _Dated) -> dict[str, object]:
    """Return the schedule, and the zone that it has for itself; raise ValueError."""
    if row["crontab__minute"] is not None:
        fields = {
            name: row[f"crontab__{name}"].replace(" ", "")
            for name in _OF_SCHEDULES["crontab"][:-1]
        }
        zone = str(row["crontab__timezone"])
        return {"schedule": schedules.crontab(**fields), "timezone": zone}
    if row["interval__every"] is not None:
        length = {str(row["interval__period"]): row["interval__every"]}
        if "microseconds" in length:
            micro = length["microseconds"]
            return {"schedule": schedules.every(micro / 1_000_000, align=False)}
        return {"schedule": schedules.every(**length, align=False)}
    if row["solar__event"] is not None:
        place = (float(row["solar__latitude"]), float(row["solar__longitude"]))
        return {"schedule": schedules.solar(str(row["solar__event"]), *place)}
    if (at := row.moment("clocked__clocked_time")) is not None:
        return {"schedule": schedules.once(at)}
    raise ValueError("it has none")


def _options(row: _Dated) -> dict[str, object]:
    """Return what django-celery-beat gives `apply_async` for the entry."""
    names = ("queue", "exchange", "routing_key", "priority")
    options = {name: row[name] for name in names if row[name] is not None}
    expires = row.moment("expires") or row["expire_seconds"]
    if expires:
        options["expires"] = expires
    headers = {**(row.json("headers") or {}), "periodic_task_name": row["name"]}
    return {**options, "headers": headers}


def _policy(row: _Dated) -> dict[str, object]:
    ran = bool(row["one_off"]) and int(row["total_run_count"]) > 0
    return {
        "start_time": row.moment("start_time"),
        "end_time": row.moment("expires"),
        "max_runs": 1 if row["one_off"] else None,
        # One that has run its only time is switched off at the next look.
        "enabled": None if row["enabled"] and not ran else False,
        "description": row["description"] or None,
    }
