"""Pages of the history: what one batch of emissions did, as records of slots.

A *page* tells what one batch of emissions is to do. The broker adds it, with a letter
for each emission, in the step that does them.
"""

import zlib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import msgspec

from beatd.instant import Instant, Span
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
