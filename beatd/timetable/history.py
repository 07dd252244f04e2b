"""The history: what became of each slot, told in pages and kept by entry.

A *page* tells what one batch of emissions is to do. The broker adds it, with a letter
for each emission, in the step that does them. Later the pages are *folded*: what they
tell goes to the rows of the entries, which are bounded.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import msgspec

from beatd.instant import EARLIEST, LATEST, Instant, Span
from beatd.timetable.policy import Drop, Reason


class What(StrEnum):
    """What became of a slot, or what happened to its entry."""

    SENT = "sent"  # its message was queued
    DROPPED = "dropped"  # it was dropped on purpose, for the reason that `why` names
    UNCERTAIN = "uncertain"  # it was sent, and the broker lost that: run or not
    HELD = "held"  # it waited for the run before it, until `at`
    REFUSED = "refused"  # the broker refused it, until `at`
    BEGAN = "began"  # the entry is new or changed: its slots are those after this one
    LOST = "lost"  # what the history had of these slots is lost, of all entries


class Record(msgspec.Struct, array_like=True, frozen=True):
    """What became of one slot, or of several that follow one another."""

    slot: Instant
    late: Span
    """How long after the slot that was decided; a `jitter` is part of it."""
    what: What = What.SENT
    era: int = 0
    """The clock era, part of the run's id."""
    last: Instant | None = None
    """The last slot; None if there is one only."""
    number: int = 1
    """How many slots there are from the first to the last."""
    why: str = ""

    @property
    def at(self) -> Instant:
        """When it was decided."""
        return self.slot + self.late

    @property
    def reach(self) -> Instant:
        """The last of the slots."""
        return self.slot if self.last is None else self.last


_PLAIN = Record(0, 0)

NOTHING_SENT = "nothing"
"""Why there is no message: the task's own code sends none."""

EVERYWHERE = ""
"""Stands for all entries, in the place of an entry's name."""

Told: TypeAlias = tuple[str, Record]
"""A record, and the entry whose it is."""

DroppedSlots: TypeAlias = tuple[str, Instant, Instant, int]
"""The reason, the first and the last slot, and how many there are."""


class _Page(msgspec.Struct, array_like=True):
    """What one batch is to do, by the places of its emissions."""

    at: Instant
    era: int
    entries: Sequence[str] = ()
    slots: Sequence[Instant] = ()
    drops: dict[int, list[DroppedSlots]] = {}
    """What is dropped before the slot, or with it."""
    moved: list[int] = []
    """Where there is no slot to send: all that happens is dropping."""
    silent: list[int] = []
    """Where there is a slot, and no message for it."""
    told: Sequence[Told] = ()
    """What else there is to tell."""


_encode = msgspec.msgpack.Encoder().encode
_page = msgspec.msgpack.Decoder(_Page).decode
_records = msgspec.msgpack.Decoder(tuple[Instant, list[Record]]).decode

_FASTEST = 1


def batch_page(
    at: Instant,
    era: int,
    entries: Sequence[str],
    slots: Sequence[Instant],
    drops: dict[int, list[DroppedSlots]],
    moved: list[int],
    silent: list[int],
) -> bytes:
    """Return the page for a batch: entry and slot of each emission, and what is beside.

    `drops`, `moved` and `silent` name emissions by their places in the batch.
    """
    page = _Page(at, era, entries, slots, drops, moved, silent)
    return zlib.compress(_encode(page), _FASTEST)


def told_page(at: Instant, era: int, told: Sequence[Told]) -> bytes:
    """Return a page that is of no batch."""
    return zlib.compress(_encode(_Page(at, era, told=told)), _FASTEST)


class Page(NamedTuple):
    """A page as the broker gives it back: numbered, and with its letters.

    It is "<letters> <page>": for each emission "q" (queued), "d" (dropped), "k" (known)
    or "r" (refused).
    """

    number: int
    stored: bytes

    def read(self) -> tuple[Instant, list[Told]]:
        """Return when it was written, and what it tells, in the order of the slots.

        Raises ValueError for what is no page.
        """
        letters, _, packed = self.stored.partition(b" ")
        try:
            page = _page(zlib.decompress(packed))
        except (zlib.error, msgspec.MsgspecError) as error:
            raise ValueError(f"no page of a history: {self.stored[:80]!r}") from error
        return page.at, [*_told_in(page, letters.decode("latin-1")), *page.told]


def _told_in(page: _Page, letters: str) -> Iterator[Told]:
    at, era = page.at, page.era
    moved, silent = set(page.moved), set(page.silent)
    done = zip(page.entries, page.slots, letters, strict=False)
    for number, (entry, slot, letter) in enumerate(done):
        if letter not in "qd":
            continue
        for reason, first, last, count in page.drops.get(number, ()):
            yield entry, _dropped(reason, first, last, count, at, era)
        if letter == "q":
            yield entry, Record(slot, at - slot, What.SENT, era)
        elif number not in moved:
            why = NOTHING_SENT if number in silent else str(Reason.UNROUTABLE)
            yield entry, _dropped(why, slot, slot, 1, at, era)


def _dropped(
    why: str, first: Instant, last: Instant, count: int, at: Instant, era: int
) -> Record:
    until = None if first == last else last
    return Record(first, at - first, What.DROPPED, era, until, count, why)


def dropped_slots(drop: Drop, number: int) -> DroppedSlots:
    """Return what a page says of slots that are dropped."""
    return str(drop.reason), drop.first, drop.last, number


class Past(NamedTuple):
    """What is known of one entry."""

    since: Instant
    """Each later slot that was decided is among the records; of others that are not,
    nothing is known."""
    records: Sequence[Record]
    """In the order in which they were decided."""


UNREADABLE = Past(LATEST, [])
"""What is known of an entry whose row cannot be read: nothing, of any slot."""


class _Head(msgspec.Struct, array_like=True):
    """What is known of the history itself."""

    since: Instant
    """The same as of an entry, for those that have no row."""
    folded: int = 0
    """The number of the last page that was folded."""
    at: Instant = EARLIEST
    """When that page was written."""
    lost: list[tuple[Instant, Instant]] = []
    """From which slot to which the history has lost records, of whatever entry."""


_head = msgspec.msgpack.Decoder(_Head).decode

MOST_LOST = 20
"""The most losses that are told apart."""

_SHARE = 0.9
"""What is left of the bytes when they are too many: not each record makes it so."""


class Limits(NamedTuple):
    """How much history is kept, where it is written; 0 bounds nothing where it is read.

    A scheduler whose `per_entry` is 0 keeps no history.
    """

    per_entry: int
    """Records of one entry."""
    size: int
    """Bytes of all rows together; 0: no bound."""


DEFAULT_LIMITS = Limits(per_entry=100, size=2_000_000)
UNLIMITED = Limits(0, 0)


class History:
    """The records of all entries, each entry's in one row, and what is new among them.

    `rows` are as the broker keeps them. Where there are more than the limits allow, the
    oldest records go: those of the longest rows first, so that an entry which seldom
    runs keeps its last runs.
    """

    def __init__(self, rows: Mapping[str, bytes], limits: Limits = UNLIMITED) -> None:
        """Raises ValueError if the rows are none of a history."""
        self._rows = dict(rows)
        head = self._rows.pop(EVERYWHERE, None)
        try:
            self._head = None if head is None else _head(head)
        except msgspec.MsgspecError as error:
            raise ValueError(f"no head of a history: {head!r}") from error
        self._per_entry, self._limit = limits
        self._size = sum(len(name) + len(row) for name, row in self._rows.items())
        self._changed: set[str] = set()
        self._odd: set[str] = set()
        """Entries whose rows cannot be read, which is said once."""
        self.unreadable: list[str] = []
        """What was met that cannot be read: pages, which are lost, and rows, which stay
        as they are."""

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    @property
    def since(self) -> Instant | None:
        """When the history begins; None if there is none yet."""
        return self._head.since if self._head else None

    @property
    def lost(self) -> Sequence[tuple[Instant, Instant]]:
        """From which slot to which records are lost."""
        return self._head.lost if self._head else ()

    def of(self, entry: str) -> Past:
        """Return what is known of one entry."""
        row = self._rows.get(entry)
        if row is None:
            return Past(self._head.since if self._head else EARLIEST, [])
        try:
            return Past(*_records(row))
        except msgspec.MsgspecError:
            return UNREADABLE

    def fold(self, pages: Iterable[Page], most: int | None = None) -> int:
        """Take over what pages tell; return how many were read before `most` records.

        A page that cannot be read counts as lost, and one that was folded is passed
        over.
        """
        count = records = 0
        news: dict[str, list[Record]] = {}
        for page in pages:
            if most is not None and records >= most:
                break
            count += 1
            if self._head and page.number <= self._head.folded:
                continue
            try:
                at, told = page.read()
            except ValueError as error:
                self.unreadable.append(str(error))
                continue  # its number is missing: a loss
            head = self._head = self._head or _Head(at, page.number - 1, at)
            if page.number > head.folded + 1:
                self._lose(head.at, at)
            head.folded, head.at = page.number, at
            for entry, record in told:
                news.setdefault(entry, []).append(record)
            records += len(told) + 1
        for record in news.pop(EVERYWHERE, ()):
            self._lose(record.slot, record.reach)
        for entry, some in news.items():
            self._add(entry, some)
        self._make_room()
        return count

    def add(self, at: Instant, told: Iterable[Told]) -> None:
        """Take over what no page tells, but for what is there already."""
        self._head = self._head or _Head(at, 0, at)
        news: dict[str, list[Record]] = {}
        for entry, record in told:
            news.setdefault(entry, []).append(record)
        for entry, some in news.items():
            known = {*self.of(entry).records}
            if new := [record for record in some if record not in known]:
                self._add(entry, new)

    def changes(self) -> tuple[dict[str, bytes], list[str]]:
        """Return the rows that changed since the last call, and those that are gone."""
        changed, self._changed = self._changed, set()
        rows = {name: self._rows[name] for name in changed if name in self._rows}
        if self._head:
            rows[EVERYWHERE] = _encode(self._head)
        return rows, [name for name in changed if name not in rows]

    def _add(self, entry: str, records: Sequence[Record]) -> None:
        past = self.of(entry)
        if past is not UNREADABLE:
            self._put(entry, past.since, [*past.records, *records])
        elif entry not in self._odd:
            self._odd.add(entry)
            self.unreadable.append(f"the row of {entry!r}")

    def _put(self, entry: str, since: Instant, records: list[Record]) -> None:
        if self._per_entry and len(records) > self._per_entry:
            since = _since(since, records, len(records) - self._per_entry)
            del records[: -self._per_entry]
        row = _encode((since, [*map(_short, records)]))
        # At the end of the rows: those that have not changed for long go first.
        self._size += len(row) - self._forget(entry) + len(entry)
        self._rows[entry] = row

    def _forget(self, entry: str) -> int:
        """Remove a row; return how many bytes it had, with its name."""
        self._changed.add(entry)
        row = self._rows.pop(entry, None)
        return 0 if row is None else len(entry) + len(row)

    def _lose(self, first: Instant, last: Instant) -> None:
        assert self._head
        lost = sorted([*self._head.lost, (first, last)])
        if len(lost) > MOST_LOST:
            lost[:2] = [(lost[0][0], max(lost[0][1], lost[1][1]))]
        self._head.lost = lost

    # Room

    def _make_room(self) -> None:
        if not self._limit or self._size <= self._limit:
            return
        wanted = int(self._limit * _SHARE)
        longest = _longest([*map(len, self._rows.values())], wanted)
        for entry in [name for name, row in self._rows.items() if len(row) > longest]:
            self._shorten(entry, longest)
        for entry in [*self._rows]:
            if self._size <= wanted:
                return
            past = self.of(entry)
            assert self._head
            if past.records:
                reach = max(record.reach for record in past.records)
                self._head.since = max(self._head.since, past.since, reach)
            self._size -= self._forget(entry)

    def _shorten(self, entry: str, longest: int) -> None:
        """Take an entry's oldest records until its row is as short as it is to be.

        One record stays: that it ran at all is worth most.
        """
        since, some = self.of(entry)
        records = [*some]
        length = len(self._rows[entry])
        gone = 0
        while gone < len(records) - 1 and length > longest:
            length -= len(_encode(_short(records[gone])))
            gone += 1
        if gone:
            since = _since(since, records, gone)
            self._put(entry, since, records[gone:])


def _short(record: Record) -> object:
    """Return a record with as few parts as it needs: most are of slots in time."""
    if record.what is What.SENT:
        return record if record.era else (record.slot, record.late)
    return record


def _since(since: Instant, records: Sequence[Record], gone: int) -> Instant:
    """Return after which slot an entry's records are whole without the first ones.

    A clock that was wrong may have named slots beyond those that follow.
    """
    reach = max(record.reach for record in records[:gone])
    return max(since, min(reach, records[gone].slot - 1))


def _longest(lengths: list[int], wanted: int) -> int:
    """Return how long rows may be so that all of them have `wanted` bytes at most."""
    lengths.sort()
    left = wanted
    for number, length in enumerate(lengths):
        share = left // (len(lengths) - number)
        if length > share:
            return share
        left -= length
    return lengths[-1] if lengths else 0
