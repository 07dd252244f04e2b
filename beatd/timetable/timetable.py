"""All entries ordered by their next slot: what is due now, and when to look again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, islice
from typing import TypeAlias

from beatd.instant import HOUR, SECOND, Instant, Span
from beatd.parts import calling, in_parts
from beatd.schedules.base import Schedule
from beatd.timetable.entry import Due, Entry
from beatd.timetable.ledger import AT_START, Mark
from beatd.timetable.policy import Decision

CLOCK_TOLERANCE: Span = 3 * SECOND
"""Clocks that differ by no more than this count as equal: nothing is rewound."""

LONGEST_STEP: Span = 3 * HOUR
"""A fixed time that was emitted further ahead than this was emitted by a wrong clock;
nearer ones may be a local hour that comes twice, and are not emitted again."""

_PART = 10_000
"""Entries that are set back or on before others get their turn."""

_Key: TypeAlias = tuple[str, Span, Instant, Instant]


@dataclass(slots=True)
class _Row:
    """An entry, its mark, and the group in which it waits (None: no more slots)."""

    entry: Entry
    mark: Mark
    group: "_Group | None" = None


@dataclass(slots=True)
class _Group:
    """Entries that share a schedule, an offset and the next slot: one in the heap."""

    key: _Key
    schedule: Schedule
    slot: Instant
    when: Instant
    """When the group is due: at its slot plus the entries' offset."""
    rows: dict[str, _Row] = field(default_factory=dict)
    following: Instant | None = None
    """The slot after this one; known once the group is due."""


class Timetable:
    """Entries in the order of their next slots.

    Invariant: every slot of an entry up to `mark.slot` was emitted or dropped, and the
    slot of the entry's group is the first one after `mark.slot`. Each group of
    `_groups` is either in `_heap` or, once it is due, in `_ready` or `_late`. A group
    in the heap may be empty: it is passed over when its turn comes.

    Entries with equal schedules and offsets come to share one group, so that the work
    of a slot is done once for all of them, and adding, moving or removing an entry
    costs O(log n) at most.
    """

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._groups: dict[_Key, _Group] = {}
        self._heap: list[tuple[Instant, int, _Group]] = []
        self._tie = count()
        # Groups that are due. A late one has more than one slot that has come, and
        # waits for the ready ones: catching up must not delay what is in time.
        self._ready: dict[_Key, _Group] = {}
        self._late: dict[_Key, _Group] = {}
        self._over: set[str] = set()
        self._collected_at: Instant = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Entry]:
        return (row.entry for row in self._rows.values())

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    @property
    def names(self) -> Set[str]:
        """The names of all entries."""
        return self._rows.keys()

    def marks(self) -> dict[str, Mark]:
        """Return every entry's mark, by name."""
        return {name: row.mark for name, row in self._rows.items()}

    def entry(self, name: str) -> Entry:
        """Return the entry of this name."""
        return self._rows[name].entry

    def mark(self, name: str) -> Mark:
        """Return one entry's mark."""
        return self._rows[name].mark

    def slot(self, name: str) -> Instant | None:
        """Return the entry's first slot that is not decided; None without any."""
        group = self._rows[name].group
        return None if group is None else group.slot

    def offset(self, name: str) -> Span:
        """Return how long after its slots an entry is emitted; 0 if there is none."""
        row = self._rows.get(name)
        return 0 if row is None else row.entry.offset

    @property
    def over(self) -> Set[str]:
        """The entries that have no slot to come."""
        return self._over

    def first(self) -> tuple[Entry, Instant] | None:
        """Return the entry that is to run first, and when; None if none is.

        Of those that are due already, one whose turn it is. Paused entries have slots,
        and no runs.
        """
        groups = [
            *islice(filter(_running, self._ready.values()), 1),
            *islice(filter(_running, self._late.values()), 1),
        ]
        if not groups:
            groups = [*islice(filter(_running, self._coming()), 1)]
        if not groups:
            return None
        group = min(groups, key=lambda one: one.when)
        entry = _running(group)
        assert entry is not None
        return entry, group.when

    def _coming(self) -> Iterator[_Group]:
        """Yield the groups of the heap in their order, at the cost of those taken."""
        places = [(self._heap[0][:2], 0)] if self._heap else []
        while places:
            _, place = heappop(places)
            yield self._heap[place][2]
            for child in (2 * place + 1, 2 * place + 2):
                if child < len(self._heap):
                    heappush(places, (self._heap[child][:2], child))

    def is_over(self, name: str) -> bool:
        """Return whether no slot of the entry is to come, or there is no such entry."""
        row = self._rows.get(name)
        return row is None or row.group is None

    def place(
        self, entries: Iterable[Entry], marks: Mapping[str, Mark], now: Instant
    ) -> dict[str, Mark]:
        """Add or replace entries, each after its mark; return the marks that changed.

        An entry counts from `now` when it has no mark, or one of another schedule.
        """
        changed: dict[str, Mark] = {}
        shared: dict[Mark, Mark] = {}
        rows = self._rows
        alike: dict[tuple[int, int, Span, int], list[_Row]] = {}
        for entry in entries:
            name = entry.name
            known = marks.get(name)
            mark = entry.mark_from(known, now)
            if mark is not known:
                mark = changed[name] = shared.setdefault(mark, mark)
            if (row := rows.get(name)) is not None:
                if _stays(row, entry, mark, now):
                    row.entry = entry
                    continue
                self.remove(name)
            row = rows[name] = _Row(entry, mark)
            key = (id(entry.schedule), id(entry.policy), entry.offset, id(mark))
            alike.setdefault(key, []).append(row)
        upcoming: dict[tuple[str, Instant], Instant | None] = {}
        for some in alike.values():
            entry, mark = some[0].entry, some[0].mark
            after = (mark.fingerprint, entry.since(mark))
            if after not in upcoming:
                upcoming[after] = entry.slot_after(mark)
            self._move(some, upcoming[after])
        return changed

    def remove(self, name: str) -> None:
        """Remove an entry; do nothing if there is none of this name."""
        row = self._rows.pop(name, None)
        if row is not None:
            self._over.discard(name)
            self._leave([row])

    def due(self, now: Instant, limit: int) -> list[Due]:
        """Return at most `limit` entries with slots that have come by `now`, by groups.

        They stay due until `apply`, `advance`, `hold`, `finish` or `remove` is called.
        Entries with one such slot come before those with several; if they are too many,
        those that wait for different slots take turns.
        """
        self._collect(now)
        batch: list[Due] = []
        for groups in (self._ready, self._late):
            for group in [*islice(groups.values(), max(limit, 0))]:
                batch += _due_of(group, now, limit)
                limit -= len(group.rows)
                if limit < 0:
                    # The rest waits for its next turn behind the other groups: a large
                    # one must not delay what comes due meanwhile.
                    groups[group.key] = groups.pop(group.key)
                if limit <= 0:
                    return batch
        return batch

    def apply(self, due: Due, decision: Decision, look_again: Instant) -> None:
        """Do as was decided: finish the entries, advance them, or hold them a while."""
        if decision.over:
            self.finish(due)
        elif decision.until is None:
            self.hold(due, look_again)
        else:
            self.advance(due, decision.mark_after(due.mark))

    def advance(self, due: Due, mark: Mark) -> None:
        """Set the mark of entries, and let them wait for the first slot after it."""
        slot = due.following
        if mark.slot != due.latest:
            slot = due.entry.schedule.next_after(mark.slot)
        rows = self._rows_of(due)
        for row in rows:
            row.mark = mark
        self._move(rows, slot)

    def hold(self, due: Due, until: Instant) -> None:
        """Leave what is left of slots of entries, and look at them again at `until`."""
        self._move(self._rows_of(due), self.slot(due.entry.name), when=until)

    def end_hold(self, name: str, now: Instant) -> None:
        """Let an entry that is held be due now; do nothing if it is not held."""
        row = self._rows.get(name)
        if row is None or row.group is None:
            return
        slot = row.group.slot
        if slot + row.entry.offset <= now < row.group.when:
            self._move([row], slot, when=now)

    def finish(self, due: Due) -> None:
        """Let the entries have no more slots."""
        self._move(self._rows_of(due), None)

    def rewind(
        self,
        now: Instant,
        tolerance: Span,
        on_part: Callable[[], object] = lambda: None,
    ) -> dict[str, Mark]:
        """Set back entries with slots decided beyond `now`; return their new marks.

        Fixed-time entries stay where they are if their slot was emitted no more than
        three hours beyond `now`. One whose next slot is the last that was emitted goes
        back to that, if at all. `on_part` is called as by `catch_up`.
        """
        upcoming: dict[tuple[str, Instant], Instant | None] = {}
        ahead = {}
        latest = now + tolerance
        for name, row in calling(on_part, self._rows.items(), _PART):
            entry, mark = row.entry, row.mark
            if mark.slot <= latest and (mark.last is None or mark.last <= latest):
                continue  # nearly all, and that is told sooner than how far they reach
            if mark.reach <= latest or not _may_go_back(row, now):
                continue
            back = mark.set_back(now)
            key = (back.fingerprint, entry.since(back))
            if key not in upcoming:
                upcoming[key] = entry.slot_after(back)
            following = upcoming[key]
            if following is not None and following == mark.last:
                back = mark.set_back(following)
            if following != mark.slot:
                ahead[name] = back
        self._place_again(ahead, now, on_part)
        return ahead

    def catch_up(
        self, now: Instant, on_part: Callable[[], object] = lambda: None
    ) -> None:
        """Pass over slots that were emitted before a clock was set back.

        For a clock that has jumped forward to `now`, over slots that it named before.
        `on_part` is called again and again, where this may take as long as a lead
        lives; what it raises leaves some entries as they were.
        """
        passed = {
            name: row.mark
            for name, row in calling(on_part, self._rows.items(), _PART)
            if row.mark.high is not None and row.mark.high <= now
        }
        self._place_again(passed, now, on_part)

    def _place_again(
        self, marks: Mapping[str, Mark], now: Instant, on_part: Callable[[], object]
    ) -> None:
        for part in in_parts(marks, _PART):
            on_part()
            self.place([self._rows[name].entry for name in part], marks, now)

    def next_at(self) -> Instant | None:
        """Return when the next slot is due; None when no entry has one to come."""
        for group in (
            *islice(self._ready.values(), 1),
            *islice(self._late.values(), 1),
        ):
            return group.when
        while self._heap and not self._heap[0][2].rows:
            self._drop(heappop(self._heap)[2])
        return self._heap[0][0] if self._heap else None

    def _collect(self, now: Instant) -> None:
        """Move groups that have come due from the heap to `_ready` and `_late`."""
        if now < self._collected_at:
            self._put_back(now)
        self._collected_at = now
        while self._heap and self._heap[0][0] <= now:
            group = heappop(self._heap)[2]
            if not group.rows:
                self._drop(group)
                continue
            group.following = group.schedule.next_after(group.slot)
            offset = group.key[1]
            behind = group.following is not None and group.following + offset <= now
            (self._late if behind else self._ready)[group.key] = group

    def _put_back(self, now: Instant) -> None:
        """Move back to the heap all groups that a clock set back has made not due."""
        for groups in (self._ready, self._late):
            for group in [group for group in groups.values() if group.when > now]:
                del groups[group.key]
                heappush(self._heap, (group.when, next(self._tie), group))

    def _rows_of(self, due: Due) -> list[_Row]:
        return [self._rows[entry.name] for entry in due.entries]

    def _move(
        self, rows: Sequence[_Row], slot: Instant | None, when: Instant | None = None
    ) -> None:
        """Let rows wait for this slot, until `when`; they are alike, as those of a Due.

        Without a slot that their bounds admit, they are over.
        """
        self._leave(rows)
        entry, mark = rows[0].entry, rows[0].mark
        if slot is None or entry.policy.is_over(slot, mark.runs):
            self._over.update(row.entry.name for row in rows)
            return
        group = self._group(entry, mark.fingerprint, slot, when)
        for row in rows:
            row.group = group
            group.rows[row.entry.name] = row

    def _group(
        self, entry: Entry, fingerprint: str, slot: Instant, when: Instant | None
    ) -> _Group:
        """Return the group of entries like this one that wait for a slot."""
        if when is None:
            when = slot + entry.offset
        key = (fingerprint, entry.offset, slot, when)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key, entry.schedule, slot, when)
            heappush(self._heap, (when, next(self._tie), group))
        return group

    def _leave(self, rows: Iterable[_Row]) -> None:
        """Let rows wait in no group; a group that is due is over with its last row."""
        for row in rows:
            group, row.group = row.group, None
            if group is None:
                continue
            del group.rows[row.entry.name]
            if group.rows:
                continue
            for groups in (self._ready, self._late):
                if groups.pop(group.key, None) is not None:
                    self._drop(group)

    def _drop(self, group: _Group) -> None:
        del self._groups[group.key]


def _stays(row: _Row, entry: Entry, mark: Mark, now: Instant) -> bool:
    """Return whether the entry waits with this mark where the row waits already.

    Where a row is due, or held, that begins anew.
    """
    group, before = row.group, row.entry
    return (
        group is not None
        and now < group.when == group.slot + entry.offset
        and row.mark == mark
        and before.offset == entry.offset
        and before.policy == entry.policy
    )


def _running(group: _Group) -> Entry | None:
    """Return the first entry of a group that is not paused."""
    entries = (row.entry for row in group.rows.values())
    return next((entry for entry in entries if entry.policy.enabled), None)


def _due_of(group: _Group, now: Instant, limit: int) -> list[Due]:
    """Return what is due of the first rows of a group, with those that are alike."""
    seen = now - group.key[1]
    latest, following = group.slot, group.following
    if following is not None and following <= seen:
        latest = group.schedule.last_until(seen, group.slot) or latest
        following = group.schedule.next_after(latest)
    # Entries with equal policies share one; hashing its values would take long.
    alike: dict[tuple[int, Mark], list[Entry]] = {}
    for row in islice(group.rows.values(), limit):
        alike.setdefault((id(row.entry.policy), row.mark), []).append(row.entry)
    # The mark after an entry's run at its first start is one like all others.
    starts = group.key[0].endswith(AT_START)
    return [
        Due(
            entries,
            mark._replace(fingerprint=mark.schedule) if starts else mark,
            *(group.slot, latest, following),
        )
        for (_, mark), entries in alike.items()
    ]


def _may_go_back(row: _Row, now: Instant) -> bool:
    """Return whether the entry can go back to `now` without repeating a fixed time."""
    last = row.mark.last
    if row.entry.schedule.wildcard or last is None or last <= now:
        return True
    return row.mark.reach > now + LONGEST_STEP
