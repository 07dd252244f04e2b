"""The fields of log records: what each means, and how programs are given it.

Besides these a record may have whatever `extra` a task gives to its logger.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from datetime import date
from enum import Enum
from typing import NamedTuple, TypeAlias

from beatd.event_log import zone
from beatd.instant import SECOND, Instant, datetime_of
from beatd.text import encodable

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"
"""What JSON can have."""

DEEPEST = 5
"""Levels of lists and mappings in a field; what lies deeper is shown as text."""

LARGEST = 2**63
"""From here on, up and down, a whole number is text: few readers of JSON take it."""


class Kind(Enum):
    """What a field is, beyond text and numbers."""

    PLAIN = "as it is"
    INSTANT = "time"  # an Instant: to people with date and offset
    SPAN = "length of time"  # a Span


class Field(NamedTuple):
    """A field of the records of beatd's own events."""

    meaning: str
    kind: Kind = Kind.PLAIN


FIELDS: Mapping[str, Field] = {
    "entry": Field("The entry's name."),
    "task": Field("The task's name."),
    "id": Field("The task id of the run."),
    "run": Field("The task id of the entry's run that has not ended."),
    "queue": Field("The queue; for what goes to an exchange, the exchange."),
    "slot": Field("The slot; the first one, if there are several.", Kind.INSTANT),
    "last": Field("The last of several slots.", Kind.INSTANT),
    "late": Field("How late the slot was, its jitter left out.", Kind.SPAN),
    "slots": Field("A number of slots."),
    "entries": Field("A number of entries."),
    "took": Field("How long it took.", Kind.SPAN),
    "ran": Field("How long it has run by now.", Kind.SPAN),
    "to": Field("From when on entries are due again.", Kind.INSTANT),
    "ahead": Field("How far the ledger was ahead of the clock.", Kind.SPAN),
    "off": Field("How far this host's clock is off the broker's.", Kind.SPAN),
    "settings": Field("The names of settings."),
    "path": Field("A file."),
    "host": Field("The address that is listened at."),
    "port": Field("Its port."),
    "pid": Field("The process that is spoken of."),
    "signal": Field("The signal (`beatd.signals`) whose receiver failed."),
    "size": Field("How many runs go on at the same time."),
    "runs": Field("A number of runs."),
    "bytes": Field("What they take, in bytes."),
    "kind": Field("The kind of alert."),
    "number": Field("How many there are of them."),
}
"""The fields that beatd's own events have."""

_LOGGINGS_OWN = frozenset(
    {
        *vars(logging.makeLogRecord({})),
        # Set by formatters, or by later Pythons; the task's come by other names.
        *("message", "asctime", "taskName", "task_id", "task_name"),
    }
)


def is_own(record: logging.LogRecord) -> bool:
    """Return whether a record is beatd's, and not that of a task or a library."""
    return str(record.name).partition(".")[0] == "beatd"


def event_of(record: logging.LogRecord) -> str:
    """Return the name of a record's event; empty for what is not beatd's own."""
    event = vars(record).get("event") if is_own(record) else ""
    return event if isinstance(event, str) else ""


def extras_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what a record has beside the words: its `extra`, without the event.

    What others call an event is a field of theirs, `event_`.
    """
    fields = vars(record)
    found = {name: fields[name] for name in fields if name not in _LOGGINGS_OWN}
    event = found.pop("event", None)
    if event is not None and not is_own(record):
        found["event_"] = event
    return found


def for_json(extras: Mapping[str, object]) -> Iterator[tuple[str, Plain]]:
    """Yield fields as JSON has them.

    A time is text of RFC 3339, with seconds since the epoch beside it under its name
    and `_ts`; a length of time is a number of seconds.
    """
    for name, value in extras.items():
        kind = _kind(name, value)
        if kind is Kind.INSTANT:
            yield name, rfc3339(_span(value))
            yield f"{name}_ts", _span(value) / SECOND
        elif kind is Kind.SPAN:
            yield name, _span(value) / SECOND
        else:
            yield encodable(str(name)), plain(value)


def for_journal(extras: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield fields as the journal has them: times as in JSON, lengths as `LATE_MS`."""
    for name, value in extras.items():
        kind = _kind(name, value)
        if kind is Kind.INSTANT:
            yield name, rfc3339(_span(value))
        elif kind is Kind.SPAN:
            yield f"{name}_ms", str(_span(value))
        else:
            yield name, text_of(value)


def rfc3339(instant: Instant) -> str:
    """Return an instant in the zone of the log, with its offset."""
    return datetime_of(instant, zone()).isoformat(timespec="milliseconds")


def _kind(name: str, value: object) -> Kind:
    """Return what a field is; a task may use its name for something else."""
    field = FIELDS.get(name)
    is_span = type(value) is int and abs(value) < LARGEST
    return field.kind if field and is_span else Kind.PLAIN


def _span(value: object) -> int:
    assert isinstance(value, int)
    return value


def plain(value: object, deepest: int = DEEPEST) -> Plain:
    """Return a value, or what comes near to it, as JSON can have it. Never raises."""
    if value is None or value is True or value is False:
        return value
    if type(value) is int and abs(value) < LARGEST:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    try:
        if deepest and isinstance(value, Mapping):
            pairs = value.items()
            return {text_of(k): plain(v, deepest - 1) for k, v in pairs}
        if deepest and isinstance(value, list | tuple | set | frozenset):
            return [plain(one, deepest - 1) for one in value]
    except Exception:  # foreign code
        pass
    return text_of(value)


def text_of(value: object) -> str:
    """Return a value as Unicode text. Never raises."""
    try:
        if isinstance(value, bytes | bytearray):
            return bytes(value).decode(errors="backslashreplace")
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, list | tuple):
            return encodable(", ".join(map(str, value)))
        return encodable(str(value))
    except Exception:  # foreign code, or a number of too many digits to print
        return f"a value of type {type(value).__name__}"
