"""Reads the pickles of celery beat without running anything that they name.

A pickle may call any function that it names. Here it gets plain dates and sets, zones
by their names, and for each class of Celery's a stand-in that only keeps what it was
given. Whatever else it names refuses the whole pickle.
"""

import io
import pickle
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Any

from beatd.schedules.zones import zone_of
from beatd.text import quoted

LARGEST = 64 << 20
"""Bytes of a pickle that is read: that of a million entries is larger."""

_PACKAGES = ("celery", "kombu", "vine", "django_celery_beat")
"""Packages whose objects become stand-ins."""

_KEPT = frozenset(
    {
        *("builtins.object", "builtins.bytearray", "builtins.complex"),
        *("builtins.range", "builtins.slice", "copyreg._reconstructor"),
        *("collections.OrderedDict", "collections.defaultdict", "collections.deque"),
        *("decimal.Decimal", "fractions.Fraction", "uuid.UUID", "functools.partial"),
    }
)
"""What else becomes a stand-in: arguments of tasks may have it."""


_OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules by their names in Python 2, which early protocols write."""


class Refused(ValueError):
    """A pickle that is not read, and why."""


class Kept:
    """Stands for an object, and keeps what it was made of."""

    origin = ""
    """The name of the object's class."""

    def __new__(cls, *arguments: object, **_: object) -> "Kept":
        self = super().__new__(cls)
        self.arguments = arguments
        return self

    def __init__(self, *_: object, **__: object) -> None:
        """The arguments are kept already."""

    arguments: tuple[object, ...]

    def __setstate__(self, state: object) -> None:
        """Leave out what it would be told beside its arguments."""

    def __setitem__(self, key: object, value: object) -> None:
        """Leave out what it would contain."""

    def append(self, one: object) -> None:
        """Leave out what it would contain."""

    def extend(self, some: object) -> None:
        """Leave out what it would contain."""


def read(
    data: bytes, local: tzinfo, allowed: Collection[str] = ()
) -> dict[object, object] | str | bool | None:
    """Return what a pickle of celery beat's has: a dict, or a plain value.

    `local` is the zone that Celery's local time means. Objects of the classes that
    `allowed` names (`proj.sched.Ours`) are kept as stand-ins, too. Raises Refused.
    """
    if len(data) > LARGEST:
        raise Refused(f"it has {len(data):,} bytes, more than {LARGEST:,}")
    try:
        found = _Reader(data, local, allowed).load()
    except Refused:
        raise
    except (Exception, MemoryError) as error:  # bytes of anybody's
        raise Refused(f"it is no pickle of celery beat's: {quoted(str(error))}") from (
            error
        )
    if not isinstance(found, dict | str | bool | None):
        raise Refused(f"expected a dict of entries, got {_kind(found)}")
    return found


def _kind(found: object) -> str:
    return found.origin if isinstance(found, Kept) else type(found).__name__


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes, local: tzinfo, allowed: Collection[str]) -> None:
        super().__init__(io.BytesIO(data))
        self._allowed = frozenset(allowed)
        self._kinds: dict[str, type[Kept]] = {}
        self._known: Mapping[str, Callable[..., object]] = {
            **_PLAIN,
            "celery.utils.time.LocalTimezone": lambda *_: _Local(local),
        }

    def find_class(self, module: str, name: str) -> Any:
        full = f"{_OLD_NAMES.get(module, module)}.{name}"
        if full in self._known:
            return self._known[full]
        package = module.partition(".")[0]
        if full in self._allowed or full in _KEPT or package in _PACKAGES:
            if full not in self._kinds:
                self._kinds[full] = type("Kept", (Kept,), {"origin": full})
            return self._kinds[full]
        raise Refused(f"it names {quoted(full)}, and that is no class of Celery's")

    def persistent_load(self, pid: object) -> object:
        raise Refused("it names an object that is kept elsewhere")


class _Local(tzinfo):
    """Celery's local time; it takes no state, unlike the zone that it stands for."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone

    def _at(self, moment: datetime) -> datetime:
        return moment.replace(tzinfo=self._zone)

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else self._zone.utcoffset(self._at(moment))

    def dst(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else self._zone.dst(self._at(moment))

    def tzname(self, moment: datetime | None) -> str | None:
        return None if moment is None else self._zone.tzname(self._at(moment))

    def __setstate__(self, state: object) -> None:
        """Leave out how the process that wrote it was set."""


class _Zones:
    """Stands for the class ZoneInfo: of that, pickles ask for zones by name only."""


def _zone(name: object, *_: object) -> tzinfo:
    return zone_of(str(name))


def _attribute(owner: object, name: object) -> Callable[..., object]:
    """Stands for `getattr`, by which earlier pickles ask for a method of ZoneInfo."""
    if owner is _Zones and name == "_unpickle":
        return _zone
    raise Refused(f"it asks for {quoted(name)} of an object")


def _bytes(text: object, encoding: object) -> bytes:
    """Stands for `_codecs.encode`, by which early protocols write bytes."""
    if isinstance(text, str) and encoding == "latin1":
        return text.encode("latin1")
    raise Refused(f"it encodes a text in {quoted(encoding)}")


def _utc(*_: object) -> tzinfo:
    return UTC


_PLAIN: Mapping[str, Callable[..., object]] = {
    "datetime.datetime": datetime,
    "datetime.date": date,
    "datetime.time": time,
    "datetime.timedelta": timedelta,
    "datetime.timezone": timezone,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.getattr": _attribute,
    "_codecs.encode": _bytes,
    "zoneinfo.ZoneInfo": _Zones,
    "zoneinfo.ZoneInfo._unpickle": _zone,
    "backports.zoneinfo.ZoneInfo": _Zones,
    "backports.zoneinfo.ZoneInfo._unpickle": _zone,
    "pytz._p": _zone,
    "pytz._UTC": _utc,
    "dateutil.tz.tz.tzutc": _utc,
}
