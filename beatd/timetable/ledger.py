"""The ledger: which slot of each entry was emitted last, and how copies of it agree."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from heapq import nlargest
from typing import NamedTuple, TypeGuard

from beatd.instant import EARLIEST, LATEST, Instant

AT_START = " at start"
"""The end of a fingerprint: the instant after the mark's slot is a slot, too."""

REMOVED = " removed"
"""The end of a fingerprint: there was no such entry when the row was written."""


class Mark(NamedTuple):
    """The ledger's row for one entry.

    Every slot up to and including `slot` was emitted, dropped with a reason, or lies
    before the entry was first seen.
    """

    slot: Instant
    fingerprint: str
    """Stands for the schedule: when that changes, the entry counts from then.

    It ends with AT_START while the entry's run at its first start is to come, and with
    REMOVED while there is no such entry.
    """
    runs: int = 0
    """How many slots of this schedule were emitted."""
    last: Instant | None = None
    """The last slot that was emitted; users see it as last_run_at."""
    high: Instant | None = None
    """How far the mark was before it was set back, as a clock was; None once `slot` is
    there again. A clock that jumps there finds these slots emitted, not overdue."""

    def moved(self, slot: Instant) -> "Mark":
        """Return the mark once all slots up to this one are decided."""
        return self._decided(slot, self.runs, self.last)

    def emitted(self, slot: Instant, runs: int) -> "Mark":
        """Return the mark after the emission of a slot, one of so many runs."""
        return self._decided(slot, runs, slot)

    def _decided(self, slot: Instant, runs: int, last: Instant | None) -> "Mark":
        high = self.high
        if high is not None and high <= slot:
            high = None
        # Not `_replace`: it takes several times as long, and each run comes here.
        return Mark(slot, self.fingerprint, runs, last, high)

    def set_back(self, now: Instant) -> "Mark":
        """Return the mark for a clock that was set back to `now`."""
        return self._replace(slot=now, high=max(self.reach, self.high or self.reach))

    def caught_up(self, now: Instant) -> "Mark":
        """Return the mark for a clock that has jumped to `now`, or did before a start.

        While `now` lies below the old mark, that says nothing: a clock may have shown
        the year 2098 for a moment.
        """
        if self.high is None or now < self.high:
            return self
        return self.moved(max(self.slot, self.high))

    def removed(self) -> "Mark":
        """Return the mark that is kept when its entry is removed."""
        schedule = self.schedule.removesuffix(REMOVED)
        return self._replace(fingerprint=schedule + REMOVED, runs=0)

    @property
    def reach(self) -> Instant:
        """The furthest slot that was decided since the mark was set back last.

        Slots of an earlier schedule may lie beyond the mark.
        """
        if self.high is not None or self.last is None:
            return self.slot
        return max(self.slot, self.last)

    @property
    def schedule(self) -> str:
        """The fingerprint of the schedule alone."""
        return self.fingerprint.removesuffix(AT_START)

    @property
    def is_removed(self) -> bool:
        """Whether there was no such entry when the row was written."""
        return self.fingerprint.endswith(REMOVED)

    @property
    def is_at_start(self) -> bool:
        """Whether the entry's run at its first start is to come."""
        return self.fingerprint.endswith(AT_START)


LARGEST = 2**48
"""No count, no clock era and no number of a term is as large as this."""


def mark_of(
    slot: object,
    fingerprint: object,
    runs: object,
    last: object,
    high: object = None,
) -> Mark:
    """Return the mark that a stored row means. Raises ValueError for what is none."""
    if (
        _is_instant(slot)
        and isinstance(fingerprint, str)
        and is_count(runs)
        and (last is None or _is_instant(last))
        and (high is None or _is_instant(high))
    ):
        return Mark(slot, fingerprint, runs, last, high)
    raise ValueError(
        f"no mark: {slot!r}, {fingerprint!r}, {runs!r}, {last!r}, {high!r}"
    )


def _is_instant(stored: object) -> TypeGuard[Instant]:
    return isinstance(stored, int) and EARLIEST <= stored <= LATEST


def is_count(stored: object) -> TypeGuard[int]:
    """Return whether a stored value is a number that may count something."""
    return isinstance(stored, int) and 0 <= stored < LARGEST


class Edition(NamedTuple):
    """Which ledger a copy is of, and which writes that ledger has seen.

    A ledger that has no lineage yet, or is of a build without them, is at NO_EDITION.
    """

    lineage: str
    """Random text, drawn by whoever makes a ledger and knows no earlier one."""
    version: int
    """Raised by every write; of two copies of one lineage the higher is the newer."""
    terms: str = ""
    """Who wrote the last versions: for each term, the latest last, its first version
    and its mark, as "17:c0ffee,23:beef". Empty: not known, as in earlier builds.

    Where data were set back and written again, two ledgers of one lineage have equal
    versions with other contents: of these, the terms differ."""

    @property
    def following(self) -> "Edition":
        """The edition that the next write makes."""
        return self._replace(version=self.version + 1)

    def begun(self, mark: str, version: int) -> "Edition":
        """Return the edition that a term makes which goes on from this one."""
        terms = _terms(self)
        if not terms or terms[-1][1] != mark:
            terms.append((self.version + 1, mark))
        kept = ",".join(f"{first}:{one}" for first, one in terms[-MOST_TERMS:])
        return self._replace(version=version, terms=kept)

    def shared(self, other: "Edition") -> int:
        """Return the last version up to which both have the same writes.

        As far as the terms tell: without them, the lower version is in both.
        """
        lower = min(self.version, other.version)
        ours, theirs = _terms(self), _terms(other)
        if not ours or not theirs:
            return lower
        common = [term for term in ours if term in theirs]
        if not common:
            # They part before the terms that both remember.
            return min(lower, max(ours[0][0], theirs[0][0]) - 1)
        ends = (_end(self, common[-1]), _end(other, common[-1]))
        return min(ends)

    def parts_from(self, other: "Edition") -> bool:
        """Return whether each of them has writes that the other has not."""
        if self.terms == other.terms or self.lineage != other.lineage:
            return False  # asked at each look of a standby, and nearly always so
        return self.shared(other) < min(self.version, other.version)


MOST_TERMS = 16
"""How many terms an edition remembers."""


def _terms(edition: Edition) -> list[tuple[int, str]]:
    parts = [one.split(":") for one in edition.terms.split(",") if one]
    return [(int(first), mark) for first, mark in parts]


def _end(edition: Edition, term: tuple[int, str]) -> int:
    """Return the last version that the term wrote."""
    terms = _terms(edition)
    later = terms[terms.index(term) + 1 :]
    return later[0][0] - 1 if later else edition.version


NO_EDITION = Edition("", 0)

LINEAGE = re.compile("[0-9A-Za-z]{0,64}")
"""What a lineage looks like: it becomes part of a file's name."""

_TERM = "[0-9]{1,15}:[0-9A-Za-z]{1,16}"

TERMS = re.compile(f"({_TERM}(,{_TERM}){{0,{MOST_TERMS - 1}}})?")


def edition_of(lineage: object, version: object, terms: object = "") -> Edition:
    """Return the edition that stored values mean. Raises ValueError if they do not."""
    if (
        isinstance(lineage, str)
        and LINEAGE.fullmatch(lineage)
        and is_count(version)
        and isinstance(terms, str)
        and TERMS.fullmatch(terms)
    ):
        return Edition(lineage, version, terms)
    raise ValueError(f"no edition: {lineage!r}, {version!r}, {terms!r}")


ERA_UNKNOWN = -1
"""Stands for a clock era that is stored, and cannot be understood."""


@dataclass(frozen=True, slots=True)
class LedgerCopy:
    """The whole ledger, as it was read."""

    marks: Mapping[str, Mark]
    era: int
    """The clock era, part of every computed task id: grows with each rewind.

    A rewind moves marks that lie in the future back to now: the clock was set back.
    """
    edition: Edition = NO_EDITION
    unreadable: tuple[str, ...] = ()
    """Names of rows that are there, and cannot be understood."""


MOST_REMOVED = 10_000
"""How many removed entries a ledger remembers, whatever their age: a clock may be wrong
just then."""


def remembered(marks: Mapping[str, Mark], most: int = MOST_REMOVED) -> dict[str, Mark]:
    """Return the rows to keep of entries that are removed: of those that ran last.

    They may come back before slots that a clock that was ahead has named.
    """
    ran = [(mark.last, name) for name, mark in marks.items() if mark.last is not None]
    return {name: marks[name].removed() for _, name in nlargest(most, ran)}


def without_run(mark: Mark, before: Mark | None) -> Mark:
    """Return the row after `before` when the slot of `mark` is dropped, not emitted."""
    runs, last = (before.runs, before.last) if before else (0, None)
    return mark._replace(runs=runs, last=last)


def with_later(ledger: LedgerCopy, marks: Mapping[str, Mark]) -> LedgerCopy:
    """Return the ledger with those of these marks that are further than its own.

    They are of another scheduler, which ran the entries before or meanwhile.
    """
    later = {
        name: mark
        for name, mark in marks.items()
        if (known := ledger.marks.get(name)) is None or known.slot < mark.slot
    }
    return replace(ledger, marks={**ledger.marks, **later}) if later else ledger


class Finding(Enum):
    """What the broker's ledger is, by all that is known of it otherwise."""

    RIGHT = "right"  # ours, and not older than any copy: it alone is right
    SET_BACK = "set back"  # ours, without the last writes
    MISSING = "missing"  # emptied, or new
    OTHER = "another"  # of another lineage than every copy


def finding(found: LedgerCopy, ours: LedgerCopy, told: Edition) -> Finding:
    """Return what a broker's ledger is beside our newest copy, and what we were told.

    A ledger, or a copy, without a lineage counts as version 0 of whatever is there.
    """
    known = latest(ours.edition, told)
    if not found.edition.lineage and not found.marks:
        return Finding.MISSING
    if found.edition.lineage and known.lineage not in ("", found.edition.lineage):
        return Finding.OTHER
    behind = found.edition.version < known.version
    return Finding.SET_BACK if behind else Finding.RIGHT


def latest(first: Edition, *others: Edition) -> Edition:
    """Return the highest edition of the first lineage that any of these has."""
    editions = (first, *others)
    lineage = next((one.lineage for one in editions if one.lineage), "")
    return max(
        (one for one in editions if one.lineage == lineage),
        key=lambda one: one.version,
    )


def newest(memory: LedgerCopy, file: LedgerCopy) -> LedgerCopy:
    """Return the newer of two copies of ours.

    A file of another lineage than the copy in memory is older, whatever its version.
    """
    if latest(memory.edition, file.edition) != memory.edition:
        return file
    return memory if memory.marks or memory.edition.lineage else file


def settled(found: LedgerCopy, ours: LedgerCopy, what: Finding) -> LedgerCopy:
    """Return the ledger to go on from; its edition is that of the newer one.

    `what` is the finding about the broker's ledger beside our copy. Rows that cannot be
    read there are taken from the copy.
    """
    match what:
        case Finding.MISSING:
            return ours
        case Finding.OTHER:
            return found
    if what is Finding.RIGHT or ours.edition.version <= found.edition.version:
        unread = set(found.unreadable) & ours.marks.keys()
        marks = found.marks
        if unread:
            marks = {**marks, **{name: ours.marks[name] for name in unread}}
        era = max(ours.era, 0) if found.era == ERA_UNKNOWN else found.era
        return LedgerCopy(marks, era, found.edition)
    # Ours is newer, but for parts of it that somebody has written forward already.
    marks = dict(ours.marks)
    if found.era in (ours.era, ERA_UNKNOWN):
        for name, mark in found.marks.items():
            if name not in marks:
                if not found.edition.lineage:
                    marks[name] = mark
            elif mark.slot > marks[name].slot:
                marks[name] = mark
    return LedgerCopy(marks, ours.era, ours.edition)
