"""The schedule file: this host's copy of the ledger, for people and for the next start.

`file_view` has the meaning of its rows. The broker's ledger is what makes a slot run
once: this copy is written after it, and may lag behind or be lost.
"""

import os
import sqlite3
from collections.abc import (
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from contextlib import suppress
from itertools import islice
from pathlib import Path
from threading import Lock, RLock

from sqlitedict import SqliteDict

from beatd.brokers.items import idle
from beatd.clock import Clock
from beatd.errors import ScheduleFileError
from beatd.event_log import EventLog
from beatd.instant import Instant, datetime_of
from beatd.scheduler.file_tables import Changes, Tables
from beatd.scheduler.file_view import (
    TABLES,
    View,
    understand,
    unusable,
    view,
    view_of,
)
from beatd.storage.file_lock import FileLock
from beatd.storage.sqlite_file import (
    SCHEDULE_FILE,
    FileState,
    Written,
    damage,
    look_to_write,
    make,
    set_aside,
    written,
)
from beatd.timetable.ledger import NO_EDITION, Edition, LedgerCopy, Mark

tell = EventLog(__name__)

_MAKE = 'CREATE TABLE "{}" (key TEXT PRIMARY KEY, value BLOB)'
"""As sqlitedict makes its tables; here in one transaction with the file's header."""

_TROUBLES = ("refused", "held")
"""The rows of `meta` that say by entry what is wrong."""

_MOST_IN_TROUBLE = 1000
"""Entries that are named in one of these rows, at most."""

_MOST_UNCERTAIN = 1000
"""Slots in doubt that are kept, at most: the last ones."""

_MOST_OVER = 1000
"""Entries that are over by their bounds and are known to be so, at most."""


class ScheduleFile:
    """The schedule file of one process; the one that has its lock may write it.

    While it cannot be written, what was recorded stays in memory and each flush tries
    again; `outage` says why. All methods are for one thread, but for `flush`: a thread
    that writes the file holds up no `record` or `note_...` of the other.
    """

    def __init__(
        self,
        path: Path,
        *,
        namespace: str,
        timezone: str,
        clock: Clock,
        open_dict: Callable[..., SqliteDict] = SqliteDict,
    ) -> None:
        """Look at the file; it is made when it is first locked.

        `open_dict` opens it as sqlitedict does: simulations do so without a thread.
        Raises ScheduleFileError for a file that is not ours or cannot be written, and
        leaves it as it is. One of ours that is damaged is no error.
        """
        self.path = path
        self.outage = ""
        self._namespace = namespace
        self._timezone = timezone
        self._clock = clock
        self._open_dict = open_dict
        self._holder = _holder(clock)
        self._tables: Tables | None = None
        self._wanted = False
        self._turn = RLock()
        """Held by who reads or writes the file, or opens or closes it."""
        self._memory = Lock()
        """Held for a moment by who changes `_changes`."""
        self._changes = Changes()
        self._read: Mapping[str, Mark] = {}
        self._uncertain: Sequence[tuple[str, Instant]] = ()
        self._over: Sequence[str] | None = None
        """What the file says of that; None if it does not."""
        self._named: set[str] = set()
        self._troubles: set[str] = set()
        """Those of these rows that are not empty."""
        self._term = 0
        self._looked_at: Written | None = None
        """What the file was like when its term was last read."""
        found = look_to_write(path, SCHEDULE_FILE)
        if found.state is FileState.REFUSED:
            raise unusable(path, found.problem)
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        if found.state is FileState.OURS:
            self._check_namespace()

    def try_lock(self) -> bool:
        """Take the file for this process; False while another one has it."""
        with self._turn:
            self._wanted = True
            self._open()
            return self._lock.held

    def unlock(self) -> None:
        """Let other processes take the file; the broker has what was not written."""
        with self._turn:
            self._wanted = False
            self._take()
            self._close_tables()
            self._lock.unlock()

    def read(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        """Return the ledger as last written; an empty one if it cannot be read."""
        with self._turn:
            try:
                seen = view(self.path, self._named, on_part)
            except ScheduleFileError as error:
                self._meet(str(error))
                seen = View()
        self._read = seen.marks
        self._troubles = {name for name in _TROUBLES if getattr(seen, name)}
        self._term = max(self._term, seen.term)
        self._uncertain = seen.uncertain
        self._over = None if seen.over is None else [*seen.over]
        return LedgerCopy(seen.marks, seen.era, seen.edition)

    def keep_as(self, lineage: str) -> None:
        """Keep the file under the name of a lineage, and begin a new one."""
        self._read = {}
        with self._turn:
            if not self._lock.held:
                return  # another process writes it
            self._close_tables()
            try:
                aside = set_aside(self.path, f"of-{lineage}")
            except OSError as error:
                self._meet(f"{self.path} cannot be renamed: {error}")
                return
        tell.warning(
            "file.other",
            "%s has the ledger of another broker: kept as %s, a new one is begun",
            self.path,
            aside.name,
        )

    def highest_term(self) -> int:
        """Return the largest term number, here or in the file if another writes it."""
        if not self._lock.held:
            # A standby asks four times a second: opening the file takes long.
            with suppress(ScheduleFileError, OSError):
                now = written(self.path)
                if now != self._looked_at:
                    self._term = max(self._term, view_of(self.path, "meta").term)
                    self._looked_at = now
        return self._term

    def rewrite(
        self,
        marks: Mapping[str, Mark],
        gone: Collection[str],
        era: int,
        term: int,
        edition: Edition = NO_EDITION,
        on_part: Callable[[], object] = idle,
    ) -> None:
        """Write what makes the file agree with this ledger and term, at once.

        `on_part` is called as by `read`; what it raises leaves the file as it was, and
        the next flush writes it.
        """
        with self._turn:
            # Under the lock, the rows are still as they were read, and most need no
            # change; but for those that an earlier flush was to change, and could not.
            same = self._read if self._tables else {}
            self._read = {}
            pending = self._changes.marks.keys() | self._changes.gone
            changed = {
                name: mark
                for name, mark in marks.items()
                if same.get(name) != mark or name in pending
            }
            self._term = max(self._term, term)
            meta = {
                "namespace": self._namespace,
                "timezone": self._timezone,
                "term": self._term,
                "era": era,
                **edition._asdict(),
            }
            with self._memory:
                self._changes.forget(gone)
                self._changes.record(changed)
                self._changes.meta |= meta
            for name in [*self._troubles]:
                self._note(name, {})
            self.flush(on_part)

    def record(
        self,
        marks: Mapping[str, Mark],
        dropped: Mapping[tuple[str, str], int],
        version: int | None = None,
    ) -> None:
        """Have the next flush write these rows, and add to the counts of drops.

        `version` is that of the ledger with these rows; None if that has not changed.
        """
        with self._memory:
            self._changes.record(marks)
            self._changes.count(dropped)
            if version is not None:
                self._changes.meta["version"] = version

    def note_uncertain(self, slots: Mapping[str, Sequence[Instant]]) -> None:
        """Have the next flush write slots of which it is not known whether they ran."""
        new = [(name, slot) for name, some in slots.items() for slot in some]
        self._uncertain = [*self._uncertain, *new][-_MOST_UNCERTAIN:]
        self._set("uncertain", self._uncertain)

    def note_config(self, digest: str) -> None:
        """Have the next flush write by which entries this process leads."""
        self._set("config", digest)

    def note_over(
        self, over: Collection[str], entries: Collection[str]
    ) -> Collection[str]:
        """Have the next flush write which of these entries are over by their bounds.

        Returns those that were not when that was written last; none if it never was, or
        if they are very many.
        """
        before = self._over
        now = sorted({*(before or ())}.difference(entries).union(over))
        self._over = now[:_MOST_OVER]
        if self._over != before:
            self._set("over", self._over)
        if before is None or len(now) > _MOST_OVER:
            return ()
        return set(over).difference(before)

    def note_refused(self, refused: Mapping[str, str]) -> None:
        """Have the next flush write which entries the broker refuses, and why."""
        self._note("refused", refused)

    def note_held(self, held: Mapping[str, str]) -> None:
        """Have the next flush write which entries wait for their runs for too long."""
        self._note("held", held)

    def flush(self, on_part: Callable[[], object] = idle) -> None:
        """Write what was recorded, in one transaction.

        `on_part` is called between its parts; what it raises undoes it.
        """
        with self._turn:
            if not (self._wanted and self._changes):
                return
            if self._tables and not self._tables.is_at(self.path):
                self._save_lost(self._tables)
            tables = self._open()
            if tables is None:
                return
            changes = self._take()
            try:
                tables.write(changes, on_part)
            except (OSError, sqlite3.Error) as error:
                self._put_back(changes)
                if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
                    # To be opened anew, which finds out whether the file is damaged.
                    self._close_tables()
                self._meet(f"{self.path} cannot be written: {error}")
            except BaseException:  # whatever it is, it goes on up
                self._put_back(changes)
                raise
            else:
                self._recover()

    def _take(self) -> Changes:
        """Return what was recorded; from now on, that is what comes after it."""
        with self._memory:
            changes, self._changes = self._changes, Changes()
        return changes

    def _put_back(self, changes: Changes) -> None:
        """Put what was taken before what was recorded since then."""
        with self._memory:
            changes.add(self._changes)
            self._changes = changes

    def _set(self, name: str, value: object) -> None:
        """Have the next flush write this row of `meta`."""
        with self._memory:
            self._changes.meta[name] = value

    def _note(self, name: str, entries: Mapping[str, str]) -> None:
        """Have the next flush write this row of `meta`."""
        self._troubles.add(name)
        if not entries:
            self._troubles.remove(name)
        self._set(name, dict(islice(entries.items(), _MOST_IN_TROUBLE)))

    def _check_namespace(self) -> None:
        try:
            theirs = view_of(self.path, "meta").namespace
        except ScheduleFileError:
            return  # locking it will find out what is wrong
        if theirs not in ("", self._namespace):
            problem = (
                f"belongs to the namespace {theirs!r},"
                f" and these settings say {self._namespace!r}"
            )
            raise unusable(self.path, problem)

    def _open(self) -> Tables | None:
        """Lock and open the file, if that is not done yet; None when it cannot be."""
        try:
            if not self._lock.holds():
                self._close_tables()  # open still, if the lock's file was removed
            if not self._lock.try_lock(self._holder):
                holder = self._lock.holder() or "which does not name itself"
                self._meet(f"{self.path} is in use by another beatd ({holder})")
                return None
            self._tables = self._tables or self._prepare()
        except (OSError, sqlite3.Error) as error:
            self._meet(f"{self.path} cannot be written: {error}")
        except ScheduleFileError as error:
            self._meet(str(error))
        return self._tables

    def _prepare(self) -> Tables:
        """Open the file; make one if there is none, set a damaged one aside first."""
        found = look_to_write(self.path, SCHEDULE_FILE)
        if found.state is FileState.REFUSED:
            raise unusable(self.path, found.problem)
        if found.state is FileState.OURS:
            problem = damage(self.path, TABLES)
        else:
            problem = found.problem
        if problem:
            self._set_aside(problem)
        if problem or found.state is FileState.ABSENT:
            make(self.path, SCHEDULE_FILE, [_MAKE.format(name) for name in TABLES])
        dropped = view_of(self.path, "dropped").dropped
        return Tables(self._open_dict, self.path, dropped)

    def _set_aside(self, problem: str) -> None:
        # What is recorded from now on is not the whole ledger, until it is rewritten.
        with self._memory:
            self._changes.meta.pop("lineage", None)
        stamp = f"{datetime_of(self._clock.now()):%Y%m%dT%H%M%S}"
        aside = set_aside(self.path, f"damaged-{stamp}")
        tell.warning(
            "file.damaged",
            "%s is damaged (%s): kept as %s, made anew from the broker's ledger",
            self.path,
            problem,
            aside.name,
        )

    def _save_lost(self, tables: Tables) -> None:
        """Take over the rows of a file that somebody removed while it was open here."""
        tell.warning(
            "file.lost",
            "%s was removed or replaced while in use: it is written anew",
            self.path,
        )
        with suppress(sqlite3.Error):
            old, _ = understand(tables.read())
            with self._memory:
                self._changes.put_under(old)
        self._close_tables()

    def _close_tables(self) -> None:
        tables, self._tables = self._tables, None
        if tables:
            tables.close()

    def _meet(self, problem: str) -> None:
        if problem != self.outage:
            tell.warning("file.outage", "%s", problem)
        self.outage = problem

    def _recover(self) -> None:
        if self.outage:
            tell.warning("file.back", "%s is written again", self.path)
        self.outage = ""


def _holder(clock: Clock) -> str:
    """Return the text by which the lock names this process to people."""
    started = datetime_of(clock.now())
    return f"pid {os.getpid()} on this host, started {started:%Y-%m-%d %H:%M:%S} UTC"
