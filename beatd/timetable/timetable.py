"""All entries ordered by their next slot: what is due now, and when to look again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
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

        Of those that are due already, the one that has waited longest. Paused entries
        have slots, and no runs.
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
        upcoming: dict[tuple[str, Instant], Instant | None] = {}
        shared: dict[Mark, Mark] = {}
        for entry in entries:
            known = marks.get(entry.name)
            mark = entry.mark_from(known, now)
            if mark is not known:
                mark = changed[entry.name] = shared.setdefault(mark, mark)
            row = self._rows.get(entry.name)
            if row is not None and _stays(row, entry, mark, now):
                row.entry = entry
                continue
            self.remove(entry.name)
            row = self._rows[entry.name] = _Row(entry, mark)
            key = (mark.fingerprint, entry.since(mark))
            if key not in upcoming:
                upcoming[key] = entry.slot_after(mark)
            self._join(row, upcoming[key])
        return changed

    def remove(self, name: str) -> None:
        """Remove an entry; do nothing if there is none of this name."""
        row = self._rows.pop(name, None)
        if row is not None:
            self._over.discard(name)
            self._leave(row)

    def due(self, now: Instant, limit: int) -> list[Due]:
        """Return at most `limit` entries with slots that have come by `now`.

        They stay due until `apply`, `advance`, `hold`, `finish` or `remove` is called.
        Entries with one such slot come before those with several.
        """
        self._collect(now)
        batch: list[Due] = []
        for groups in (self._ready, self._late):
            for group in groups.values():
                if len(batch) == limit:
                    return batch
                batch += _due_of(group, now, limit - len(batch))
        return batch

    def apply(self, due: Due, decision: Decision, look_again: Instant) -> None:
        """Do as was decided: finish the entry, advance it, or hold it for a while."""
        if decision.over:
            self.finish(due)
        elif decision.until is None:
            self.hold(due, look_again)
        else:
            self.advance(due, decision.mark_after(due.mark))

    def advance(self, due: Due, mark: Mark) -> None:
        """Set the entry's mark, and let it wait for the first slot after the mark."""
        row = self._rows[due.entry.name]
        row.mark = mark
        if mark.slot == due.latest:
            self._move(row, due.following)
        else:
            self._move(row, row.entry.schedule.next_after(mark.slot))

    def hold(self, due: Due, until: Instant) -> None:
        """Leave what is left of the entry's slots, and look at it again at `until`."""
        row = self._rows[due.entry.name]
        slot = self.slot(due.entry.name)
        self._leave(row)
        self._join(row, slot, when=until)

    def end_hold(self, name: str, now: Instant) -> None:
        """Let an entry that is held be due now; do nothing if it is not held."""
        row = self._rows.get(name)
        if row is None or row.group is None:
            return
        slot = row.group.slot
        if slot + row.entry.offset <= now < row.group.when:
            self._leave(row)
            self._join(row, slot, when=now)

    def finish(self, due: Due) -> None:
        """Let the entry have no more slots."""
        self._leave(self._rows[due.entry.name])
        self._over.add(due.entry.name)

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

    def _move(self, row: _Row, slot: Instant | None) -> None:
        self._leave(row)
        self._join(row, slot)

    def _join(
        self, row: _Row, slot: Instant | None, *, when: Instant | None = None
    ) -> None:
        if slot is None or row.entry.policy.is_over(slot, row.mark.runs):
            self._over.add(row.entry.name)
            return
        offset = row.entry.offset
        if when is None:
            when = slot + offset
        key = (row.mark.fingerprint, offset, slot, when)
        group = self._groups.get(key)
        if group is None:
            group = _Group(key, row.entry.schedule, slot, when)
            self._groups[key] = group
            heappush(self._heap, (when, next(self._tie), group))
        group.rows[row.entry.name] = row
        row.group = group

    def _leave(self, row: _Row) -> None:
        group = row.group
        if group is None:
            return
        row.group = None
        del group.rows[row.entry.name]
        if group.rows:
            return
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
    seen = now - group.key[1]
    latest, following = group.slot, group.following
    if following is not None and following <= seen:
        latest = group.schedule.last_until(seen, group.slot) or latest
        following = group.schedule.next_after(latest)
    rows = islice(group.rows.values(), limit)
    if group.key[0].endswith(AT_START):
        # The mark after this slot is one like all others.
        return [
            Due(
                row.entry,
                row.mark._replace(fingerprint=row.mark.schedule),
                *(group.slot, latest, following),
            )
            for row in rows
        ]
    return [Due(row.entry, row.mark, group.slot, latest, following) for row in rows]


def _may_go_back(row: _Row, now: Instant) -> bool:
    """Return whether the entry can go back to `now` without repeating a fixed time."""
    last = row.mark.last
    if row.entry.schedule.wildcard or last is None or last <= now:
        return True
    return row.mark.reach > now + LONGEST_STEP
