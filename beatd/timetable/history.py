"""The history: what became of each slot, kept by entry.

Pages (pages.py) are written with the emissions. Later they are *folded*: what they tell
goes to the rows of the entries, which are bounded.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from beatd.instant import EARLIEST, LATEST, Instant
from beatd.timetable.pages import EVERYWHERE, Page, Record, Told, What

_encode = msgspec.msgpack.Encoder().encode
_records = msgspec.msgpack.Decoder(tuple[Instant, list[Record]]).decode


OnPage: TypeAlias = Callable[[int, Instant, Sequence[Told]], object]


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


class HistoryLimits(NamedTuple):
    """How much history is kept, where it is written; 0 bounds nothing where it is read.

    A scheduler whose `per_entry` is 0 keeps no history.
    """

    per_entry: int
    """Records of one entry."""
    size: int
    """Bytes of all rows together; 0: no bound."""


DEFAULT_LIMITS = HistoryLimits(per_entry=100, size=2_000_000)
UNLIMITED = HistoryLimits(0, 0)


class History:
    """The records of all entries, each entry's in one row, and what is new among them.

    `rows` are as the broker keeps them. Where there are more than the limits allow, the
    oldest records go: those of the longest rows first, so that an entry which seldom
    runs keeps its last runs.
    """

    def __init__(
        self, rows: Mapping[str, bytes], limits: HistoryLimits = UNLIMITED
    ) -> None:
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
    def folded(self) -> int:
        """The number of the last page that is in the rows."""
        return self._head.folded if self._head else 0

    @property
    def folded_at(self) -> Instant:
        """When that page was written."""
        return self._head.at if self._head else EARLIEST

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

    def fold(
        self,
        pages: Iterable[Page],
        most: int | None = None,
        on_page: OnPage | None = None,
    ) -> int:
        """Take over what pages tell; return how many were read before `most` records.

        A page that cannot be read counts as lost, and one that was folded is passed
        over. `on_page` is called with the number of each other one, when it was
        written, and what it tells.
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
            if on_page:
                on_page(page.number, at, told)
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
