"""Sunrise, sunset, noon and the like: slots at which the sun passes a height."""

from dataclasses import dataclass
from functools import lru_cache
from math import degrees
from typing import Any

from beatd.errors import ScheduleError
from beatd.instant import DAY, SECOND, Instant
from beatd.schedules.base import step_count

_NOON = "solar_noon"
_RISING = {
    "dawn_astronomical": -18.0,
    "dawn_nautical": -12.0,
    "dawn_civil": -6.0,
    "sunrise": -34 / 60,  # degrees by which the air lifts the sun at the horizon
}
_SETTING = {
    "sunset": -34 / 60,
    "dusk_civil": -6.0,
    "dusk_nautical": -12.0,
    "dusk_astronomical": -18.0,
}
EVENTS = (*_RISING, _NOON, *_SETTING)

_LONGEST_WAIT = 400  # solar days: near the poles the sun rises once a year
_EPHEM_EPOCH: Instant = -2_209_032_000_000  # ephem counts days from noon of 1899-12-31
_FIRST: Instant = -2_208_988_800_000  # 1900 and 2200: ephem's sun is right between them
_LAST: Instant = 7_258_118_400_000


@dataclass(frozen=True, slots=True)
class Solar:
    """One slot on each day on which the event happens, in whole seconds.

    Every solar day, from midnight to midnight by the sun, is computed by itself, so
    that an event does not depend on where a search for it began.
    """

    event: str
    lat: float
    lon: float

    def __post_init__(self) -> None:
        if self.event not in EVENTS:
            expected = ", ".join(EVENTS)
            raise ScheduleError("event", f"no {self.event!r}; expected {expected}")
        _check_degrees("lat", self.lat, 90)
        _check_degrees("lon", self.lon, 180)
        _ephem()

    @property
    def fingerprint(self) -> str:
        return f"solar {self.event} {float(self.lat)} {float(self.lon)}"

    @property
    def wildcard(self) -> bool:
        return False

    def next_after(self, instant: Instant) -> Instant | None:
        if not _FIRST <= instant <= _LAST:
            return None
        today = self._solar_day(instant)
        # True noon is up to a quarter of an hour off mean noon: begin a day earlier.
        for day in range(today - 1, today + _LONGEST_WAIT):
            slot = _event(self.event, self.lat, self.lon, day)
            if slot is not None and slot > instant:
                return slot
        return None

    def last_until(self, instant: Instant, since: Instant) -> Instant | None:
        instant, since = min(instant, _LAST), max(since, _FIRST)
        first, today = self._solar_day(since), self._solar_day(instant)
        first = max(first - 1, today - _LONGEST_WAIT)
        for day in range(today + 1, first - 1, -1):
            slot = _event(self.event, self.lat, self.lon, day)
            if slot is not None and slot <= instant:
                return slot if slot > since else None
        return None

    def count(self, first: Instant, last: Instant) -> int:
        return step_count(self, first, last)

    def _solar_day(self, instant: Instant) -> int:
        """Count days from mean midnight to mean midnight at this longitude."""
        return int((instant + self.lon / 360 * DAY) // DAY)


@lru_cache(maxsize=4096)  # a search asks for the same days again and again
def _event(event: str, lat: float, lon: float, day: int) -> Instant | None:
    """Return the instant of the event on one solar day; None if it does not happen."""
    ephem = _ephem()
    place, sun = ephem.Observer(), ephem.Sun()
    place.lat, place.lon, place.elevation, place.pressure = str(lat), str(lon), 0, 0
    morning = (day + 0.25 - lon / 360) - _EPHEM_EPOCH / DAY
    noon = place.next_transit(sun, start=morning)
    if event == _NOON:
        return _instant(noon)
    if event in _RISING:
        low, height = place.previous_antitransit(sun, start=noon), _RISING[event]
    else:
        low, height = place.next_antitransit(sun, start=noon), _SETTING[event]
    limb = event in ("sunrise", "sunset")

    def is_up(date: float) -> bool:
        place.date = date
        sun.compute(place)
        return degrees(sun.alt + (sun.radius if limb else 0)) > height

    if is_up(low) or not is_up(noon):
        return None
    high = float(noon)
    while abs(high - low) * DAY > SECOND / 4:
        middle = (low + high) / 2
        if is_up(middle):
            high = middle
        else:
            low = middle
    return _instant(high)


def _instant(date: float) -> Instant:
    return round(date * DAY / SECOND) * SECOND + _EPHEM_EPOCH


def _ephem() -> Any:
    try:
        import ephem
    except ImportError as error:
        raise ScheduleError(
            "schedule", "solar events need ephem: pip install 'beatd[solar]'"
        ) from error
    return ephem


def _check_degrees(name: str, value: object, most: int) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not -most <= value <= most:  # type: ignore[operator]  # a number
        raise ScheduleError(
            name, f"expected degrees from -{most} to {most}, got {value!r}"
        )
