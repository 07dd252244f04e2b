"""Rules of alerts, as they are written: what is told of an entry, and to whom."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from beatd.config.settings.kinds import (
    FLAG,
    POSITIVE,
    SECONDS,
    SOME_SECONDS,
    Kind,
    Unfit,
    is_web_address,
)
from beatd.config.settings.problems import did_you_mean
from beatd.config.settings.secrets import HIDDEN, safe_value
from beatd.instant import span_of
from beatd.text import is_encodable


class AlertKind(StrEnum):
    """What there is to tell of an entry."""

    LATE = "late"  # a slot was sent later than max_late
    MISSED = "missed"  # a slot was not sent, and nobody wanted that
    FAILED = "failed"  # so many runs failed in a row
    RECOVERED = "recovered"  # a run succeeded after one of the others
    NOT_TAKEN = "not_taken"  # no worker took a message for max_wait
    TOO_LONG = "too_long"  # a run goes on for longer than max_run
    PAUSED = "paused"  # beatd has paused the entry, as its runs fail


ALL_KINDS = frozenset(AlertKind)


@dataclass(frozen=True, slots=True)
class Ping:
    """Addresses that a dead-man's switch waits to be called at; empty: never.

    They are secrets: whoever knows them can say that all is well.
    """

    start: str = ""
    ok: str = ""
    fail: str = ""

    @property
    def shown(self) -> str:
        """What may be shown of them."""
        return shown_address(self.ok or self.fail or self.start)

    def __repr__(self) -> str:
        return f"Ping({self.shown})"


def shown_address(url: str) -> str:
    """Return an address without all that may be secret in it."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}/{HIDDEN}"


Changes: TypeAlias = Mapping[str, Any]
"""Fields of a rule (`AlertRule`) by their names, with the values that are written."""


def read_rule(value: object) -> Changes | None:
    """Return what a written rule says; None for False: nothing is told.

    Raises Unfit, with the first thing that is wrong.
    """
    if value is False:
        return None
    if not isinstance(value, Mapping):
        raise Unfit
    changes: dict[str, Any] = {}
    for key, written in value.items():
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS) or f"one of {', '.join(KEYS)}"
            raise Unfit(f"unknown key {safe_value('', key)}", hint)
        field, read = KEYS[key]
        if written is None:
            if field in _MAY_BE_NONE:
                changes[field] = None
            continue
        try:
            changes[field] = read(written)
        except Unfit as error:
            reason = error.reason or f"got {safe_value('', written)}"
            raise Unfit(f"{key}: {reason}", error.hint) from None
    return changes


def _kinds(value: object) -> frozenset[AlertKind]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple | set | frozenset):
        raise Unfit(f"expected a list of kinds, got {safe_value('', value)}")
    for name in names:
        if name not in ALL_KINDS:
            known = [*map(str, AlertKind)]
            hint = did_you_mean(str(name), known) or f"one of {', '.join(known)}"
            raise Unfit(f"no kind of alert named {safe_value('', name)}", hint)
    return frozenset(map(AlertKind, names))


def _ping(value: object) -> Ping:
    if isinstance(value, str):
        url = _address(value)
        return Ping(_below(url, "start"), url, _below(url, "fail"))
    parts = ("start", "ok", "fail")
    if not isinstance(value, Mapping):
        raise Unfit("expected an address, or a dict of start, ok and fail")
    for part in value:
        if part not in parts:
            hint = did_you_mean(str(part), parts) or f"one of {', '.join(parts)}"
            raise Unfit(f"unknown key {safe_value('', part)}", hint)
    if not any(value.values()):
        raise Unfit("expected an address for start, ok or fail")
    return Ping(**{str(k): _address(url) for k, url in value.items() if url})


def _address(value: object) -> str:
    """Return an address that can be called; no error shows what is secret in it."""
    if not isinstance(value, str):
        raise Unfit(f"expected an address, got {safe_value('', value)}")
    url = value.strip()
    if not is_web_address(url):
        raise Unfit("expected an http:// or https:// address, of plain letters")
    if urlsplit(url).username is not None:
        raise Unfit("a login in the address is not sent", "leave it out")
    return url


def _below(url: str, word: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{word}"))


def _command(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value or not value[0]:
        hint = "no shell reads it: ['mail', '-s', 'beatd', 'ops@example.org']"
        raise Unfit("expected a list of the program and its arguments", hint)
    for word in value:
        if not isinstance(word, str) or "\0" in word or not is_encodable(word):
            raise Unfit("expected a list of texts")
    return tuple(value)


_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*[.:][^\W\d]\w*")


def _function(value: object) -> str:
    if not isinstance(value, str) or not _DOTTED.fullmatch(value):
        hint = "write it as 'package.module.function'"
        raise Unfit("expected the dotted name of a function", hint)
    return value.replace(":", ".")


def _span(kind: Kind) -> Callable[[object], int]:
    return lambda value: span_of(kind.take(value))


KEYS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "on": ("kinds", _kinds),
    "max_late": ("max_late", _span(SECONDS)),
    "failures": ("failures", POSITIVE.take),
    "max_wait": ("max_wait", _span(SOME_SECONDS)),
    "max_run": ("max_run", _span(SOME_SECONDS)),
    "pause_after_failures": ("pause_after", POSITIVE.take),
    "ping": ("ping", _ping),
    "command": ("command", _command),
    "function": ("function", _function),
    "log": ("log", FLAG.take),
}
"""By key, the field of a rule, and what reads its value."""

_MAY_BE_NONE = {"max_wait", "max_run", "pause_after", "ping", "command", "function"}
"""Fields that None switches off; for others it is as good as leaving the key out."""


def _rules(value: object) -> dict[str, Changes | None]:
    if not isinstance(value, Mapping):
        raise Unfit
    found: dict[str, Changes | None] = {}
    for glob, written in value.items():
        if not isinstance(glob, str) or not glob:
            raise Unfit("expected the names of entries, or globs, as its keys")
        try:
            found[glob] = read_rule(written)
        except Unfit as error:
            reason = error.reason or f"expected {RULE.words}"
            raise Unfit(f"[{glob!r}]: {reason}", error.hint) from None
    return found


RULE = Kind("a dict of what is told, or False", read_rule)
Alerts: TypeAlias = Annotated[
    dict[str, Any], Kind("a dict of rules by entry, or glob", _rules)
]
