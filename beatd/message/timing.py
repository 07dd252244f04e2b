"""When a message is due and when it expires, by the options of its call."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Any, NamedTuple

from beatd.instant import Instant, Span, datetime_of, span_of
from beatd.message.options import moment_of


class Times(NamedTuple):
    """When a message is due and when it expires, as text."""

    eta: str | None
    expires: str | None
    expiration: str = ""
    """The property, comma in front, or nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Timing:
    """The options about eta and expiry."""

    eta: str | None
    countdown: Span | None
    expires: str | None
    expires_at: Instant | None
    expires_in: Span | None
    zone: tzinfo

    def at(self, now: Instant, expires: Instant | None) -> Times:
        """Return the times of a message sent `now`; `expires` overrides the options."""
        eta = self.eta
        if self.countdown is not None:
            eta = iso(now + self.countdown, self.zone)
        if expires is not None:
            return Times(eta, iso(expires, self.zone), _expiration(expires - now))
        if self.expires_in is not None:
            text = iso(now + self.expires_in, self.zone)
            return Times(eta, text, _expiration(self.expires_in))
        if self.expires_at is not None:
            return Times(eta, self.expires, _expiration(self.expires_at - now))
        return Times(eta, None)

    def expires_when_sent(self, sent: Instant) -> Instant | None:
        """Return when a message that was `sent` then expires."""
        return self.expires_at if self.expires_in is None else sent + self.expires_in

    def fixed(self) -> Times | None:
        """Return the times if they do not depend on the moment of sending."""
        moving = (self.countdown, self.expires_in, self.expires_at)
        return Times(self.eta, None) if moving == (None, None, None) else None


@lru_cache(maxsize=256)
def times_of(timing: Timing, now: Instant, expires: Instant | None) -> Times:
    """Return what `Timing.at` does; cached, for many are sent at one moment."""
    return timing.at(now, expires)


def timing_of(given: Mapping[str, Any], zone: tzinfo) -> Timing:
    """Return the eta and the expiry in these options; texts are written in `zone`."""
    eta, expires = given.get("eta"), given.get("expires")
    countdown = given.get("countdown") or None  # zero is none, as in Celery
    seconds = expires if isinstance(expires, int | float) else None
    return Timing(
        eta=_iso_text(eta),
        countdown=None if countdown is None else span_of(countdown),
        expires=None if seconds is not None else _iso_text(expires),
        expires_at=None if seconds is not None else moment_of(expires),
        expires_in=None if seconds is None else span_of(seconds),
        zone=zone,
    )


@lru_cache(maxsize=4096)
def iso(instant: Instant, zone: tzinfo) -> str:
    """Return an instant as ISO 8601; cached, for many entries share their slots."""
    return datetime_of(instant, zone).isoformat()


def _expiration(left: Span) -> str:
    return f', "expiration": "{max(left, 0)}"'


def _iso_text(moment: datetime | str | None) -> str | None:
    return moment.isoformat() if isinstance(moment, datetime) else moment
