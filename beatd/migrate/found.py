"""What another scheduler keeps: its entries, and when it ran each of them last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from beatd.instant import Instant


@dataclass(frozen=True, slots=True)
class LastRun:
    """How far another scheduler came with an entry."""

    at: Instant
    """What was due by then has run, or was not asked for."""
    runs: int = 0
    """How many runs it counted; 0: `at` is only when the entry was added."""


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """An entry of another scheduler."""

    name: str
    last: LastRun | None = None
    """None: it is not known that it ever ran."""
    written: Mapping[str, object] | None = None
    """What stands in `beat_schedule` for it; None if that is not to be had."""
    notes: Sequence[str] = ()
    """What of it cannot be said in a config, for people."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of another scheduler."""

    source: str
    """For people: a file, a server, a database."""
    entries: Sequence[FoundEntry]
    problems: Sequence[str] = ()
    """What was there and cannot be read, for people."""
    in_use: str = ""
    """Why the other scheduler seems to run still; empty if nothing says so."""
