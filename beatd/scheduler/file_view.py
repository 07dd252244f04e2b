"""What a schedule file says: its rows, read even while the leader writes them.

It is an SQLite file as sqlitedict makes it, with values in JSON: anybody can look into
it, and opening it runs no code:

ledger    entry -> {"slot", "fingerprint", "total_run_count", "last_run_at", "high" (how
          far it was before a clock was set back)}
dropped   entry -> {reason: how many slots were dropped for it}
meta      "namespace", "timezone", "term" (the largest number seen), "era"; "lineage",
          "version" and "terms" of the ledger (its edition); "refused" (entry -> why the
          broker refuses its emission) and "held" (entry -> why it waits for its run for
          too long), of some of them if very many; "uncertain" (entry and slot of the
          last emissions that the broker may have lost); "config" (the digest of the
          entries that the writer goes by), "over" (entries that are over by their
          bounds, of which that was said)

`slot` is in milliseconds since the epoch; the format's version is SQLite's
`user_version`.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from beatd.brokers.items import idle
from beatd.errors import ScheduleFileError
from beatd.event_log import EventLog
from beatd.instant import EARLIEST, LATEST, Instant, datetime_of, instant_of
from beatd.parts import calling
from beatd.storage.sqlite_file import (
    SCHEDULE_FILE,
    FileState,
    look,
    missing_tables,
    query,
)
from beatd.text import listed
from beatd.timetable.ledger import (
    LARGEST,
    LINEAGE,
    NO_EDITION,
    TERMS,
    Edition,
    Mark,
    mark_of,
)
from beatd.timetable.policy import Reason

tell = EventLog(__name__)

TABLES = ("ledger", "dropped", "meta")

_NAMED = 5
"""How many rows that cannot be read are named, at most."""

_PART = 1000
"""Rows that are read before a leader looks whether it has to renew its lead."""

_CONFIG = 78
"""The exit status of a bad configuration (sysexits.h)."""

_Slot = Annotated[int, msgspec.Meta(ge=EARLIEST, le=LATEST)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=LARGEST)]
_Lineage = Annotated[str, msgspec.Meta(pattern=f"^{LINEAGE.pattern}$")]
_Terms = Annotated[str, msgspec.Meta(pattern=f"^{TERMS.pattern}$")]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class _Row(msgspec.Struct, omit_defaults=True):
    """One entry's value in `ledger`, in the words that users know."""

    slot: _Slot
    fingerprint: str
    total_run_count: _Count
    last_run_at: _Moment | None
    high: _Slot | None = None


_row = msgspec.json.Decoder(_Row)
_counts = msgspec.json.Decoder(dict[str, _Count])
META: dict[str, msgspec.json.Decoder[Any]] = {
    "namespace": msgspec.json.Decoder(str),
    "timezone": msgspec.json.Decoder(str),
    "term": msgspec.json.Decoder(_Count),
    "era": msgspec.json.Decoder(_Count),
    "lineage": msgspec.json.Decoder(_Lineage),
    "version": msgspec.json.Decoder(_Count),
    "terms": msgspec.json.Decoder(_Terms),
    "refused": msgspec.json.Decoder(dict[str, str]),
    "held": msgspec.json.Decoder(dict[str, str]),
    "uncertain": msgspec.json.Decoder(tuple[tuple[str, _Slot], ...]),
    "config": msgspec.json.Decoder(str),
    "over": msgspec.json.Decoder(tuple[str, ...] | None),
}

Pair: TypeAlias = tuple[Any, Any]
"""A row as SQLite returns it: texts as bytes, and whatever other programs wrote."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class View:
    """What a schedule file says."""

    marks: Mapping[str, Mark] = field(default_factory=dict)
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    namespace: str = ""
    timezone: str = ""
    term: int = 0
    era: int = 0
    lineage: str = ""
    version: int = 0
    terms: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    uncertain: tuple[tuple[str, Instant], ...] = ()
    config: str = ""
    over: tuple[str, ...] | None = None

    @property
    def edition(self) -> Edition:
        """What the ledger was at when the rows were written."""
        if not self.lineage:
            return NO_EDITION
        return Edition(self.lineage, self.version, self.terms)


def view(
    path: Path,
    named: set[str] | None = None,
    on_part: Callable[[], object] = idle,
) -> View:
    """Read the file, even while a leader writes it; make, change and lock nothing.

    Without a file, the view is empty. Rows that cannot be understood are left out and
    named in the log, unless they are among those `named` already, to which they are
    added. `on_part` is called after each part of the rows. Raises ScheduleFileError.
    """
    seen, unreadable = understand(tables_of(path, TABLES), on_part)
    named = set() if named is None else named
    bad = [name for name in unreadable if name not in named]
    named.update(bad)
    if bad:
        tell.warning(
            "file.bad_rows",
            "%s: rows that cannot be understood are passed over: %s",
            path,
            listed(bad, _NAMED),
        )
    return seen


def tables_of(path: Path, names: Sequence[str]) -> dict[str, list[Pair]]:
    """Return the rows of these tables; none without a file.

    Raises ScheduleFileError.
    """
    found = look(path, SCHEDULE_FILE)
    match found.state:
        case FileState.ABSENT:
            return {}
        case FileState.REFUSED:
            raise unusable(path, found.problem)
        case FileState.DAMAGED:
            raise unusable(path, f"is damaged: {found.problem}")
    try:
        # A view of that name may have rows without an end.
        if missing := missing_tables(path, names):
            raise unusable(path, f"is damaged: {missing}")
        tables = query(path, *(f"SELECT key, value FROM {name}" for name in names))
    except (OSError, sqlite3.Error) as error:
        raise unusable(path, f"cannot be read: {error}") from error
    return dict(zip(names, tables, strict=True))


def view_of(path: Path, table: str) -> View:
    """Read one table only, and pass over rows that cannot be understood, unlogged."""
    seen, _ = understand(tables_of(path, [table]))
    return seen


def uncertain_in(path: Path) -> int:
    """Return of how many slots it is uncertain whether they ran, as the file says.

    0 for a file that cannot be read: whoever writes it says so.
    """
    if look(path, SCHEDULE_FILE).state is not FileState.OURS:
        return 0
    reason = str(Reason.UNCERTAIN)
    # Nearly always there is none: rows are looked through by SQLite.
    sql = f"SELECT key, value FROM dropped WHERE value LIKE '%{reason}%'"
    try:
        [rows] = query(path, sql)
    except (OSError, sqlite3.Error):
        return 0
    seen, _ = understand({"dropped": rows})
    return sum(counts.get(reason, 0) for counts in seen.dropped.values())


def understand(
    tables: Mapping[str, list[Pair]], on_part: Callable[[], object] = idle
) -> tuple[View, list[str]]:
    """Return what the rows say, and the names of those that cannot be understood."""
    bad: list[str] = []
    ledger = calling(on_part, tables.get("ledger", []), _PART)
    # Entries of one schedule mostly have equal rows: they share one mark.
    known: dict[Any, Mark] = {}

    def mark_of_row(_: str, value: Any) -> Mark:
        mark = known.get(value)
        if mark is None:
            mark = known[value] = _mark_of(value)
        return mark

    marks = _understood(ledger, mark_of_row, bad)
    dropped = _understood(
        tables.get("dropped", []), lambda _, value: _counts.decode(value), bad
    )
    meta = _understood(
        tables.get("meta", []), lambda name, value: META[name].decode(value), bad
    )
    return View(marks, dropped, **meta), bad


def _understood(
    rows: Iterable[Pair], decode: Callable[[str, Any], _T], bad: list[str]
) -> dict[str, _T]:
    """Decode each row; add to `bad` the names of those that cannot be decoded."""
    good = {}
    for key, value in rows:
        try:
            name = str(key, "utf-8")
            good[name] = decode(name, value)
        except (ValueError, KeyError, TypeError, RecursionError):
            bad.append(repr(key)[:80])
    return good


def _mark_of(value: bytes) -> Mark:
    row = _row.decode(value)
    last = None if row.last_run_at is None else instant_of(row.last_run_at)
    return mark_of(row.slot, row.fingerprint, row.total_run_count, last, row.high)


def ledger_rows(marks: Mapping[str, Mark]) -> list[tuple[str, str]]:
    texts = {mark: encode(_row_of(mark)) for mark in {*marks.values()}}
    return [(entry, texts[mark]) for entry, mark in marks.items()]


def _row_of(mark: Mark) -> _Row:
    last = None if mark.last is None else datetime_of(mark.last)
    return _Row(mark.slot, mark.fingerprint, mark.runs, last, mark.high)


def encoded_rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, encode(value)) for name, value in values.items()]


def encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def unusable(path: Path, problem: str) -> ScheduleFileError:
    # Unlike `Path.exists`, this answers for names that are too long, too.
    is_there = os.path.exists(path)  # noqa: PTH110
    left = "it was left as it is; " if is_there else ""
    message = f"{path} {problem}\n  {left}--schedule-filename names another file"
    return ScheduleFileError(message, _CONFIG)
