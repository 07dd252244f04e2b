"""What a scheduler has done, in numbers: written by its loop, read by other threads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from beatd.brokers.items import Emission, Emitted, Outcome
from beatd.instant import MINUTE, Instant, Span
from beatd.timetable.policy import Reason

_FINE = 4
"""Buckets between a length and its double."""

_LONGEST: Span = (1 << 32) - 1

_ROWS = 60
"""Minutes of which lags are kept."""

_SAMPLES = 8
"""Emissions of one batch whose lags are looked at; each stands for its share."""

MOST_NAMED = 10
"""Entries whose drops are counted by name; those of others are counted together."""

OTHERS = ""
"""Stands for all entries that are not named."""


def bucket_of(lag: Span) -> int:
    """Return the bucket of a lag: each is wider than the one before by a quarter."""
    lag = min(max(lag, 0), _LONGEST)
    shift = max(lag.bit_length() - 3, -1)
    return lag if shift < 0 else _FINE * shift + (lag >> shift)


def longest_in(bucket: int) -> Span:
    """Return the longest lag in a bucket."""
    shift = max(bucket // _FINE - 1, 0)
    return ((bucket - _FINE * shift + 1) << shift) - 1


_BUCKETS = bucket_of(_LONGEST) + 1


class Lags:
    """How late emissions were: since the start, and in each of the last 60 minutes."""

    def __init__(self) -> None:
        self.total = [0] * _BUCKETS
        self.sum: Span = 0
        self._rows = [[0] * _BUCKETS for _ in range(_ROWS)]
        self._minutes = [-_ROWS] * _ROWS
        """Of each row, the minute that it counts, by the monotonic clock."""

    def add(self, lag: Span, number: int, elapsed: Span) -> None:
        """Count so many emissions that were so late; `elapsed` is the time now."""
        minute, bucket = elapsed // MINUTE, bucket_of(lag)
        row = minute % _ROWS
        if self._minutes[row] != minute:
            self._rows[row] = [0] * _BUCKETS
            self._minutes[row] = minute
        self._rows[row][bucket] += number
        self.total[bucket] += number
        self.sum += max(lag, 0) * number

    def of_hour(self, elapsed: Span) -> list[int]:
        """Return the counts of the last hour, by bucket."""
        first = elapsed // MINUTE - _ROWS
        rows = [
            row
            for row, minute in zip(self._rows, self._minutes, strict=True)
            if minute > first
        ]
        return [sum(counts) for counts in zip(*rows, strict=True)] or [0] * _BUCKETS


def quantile(counts: Sequence[int], part: float) -> Span | None:
    """Return the lag that this part of all emissions did not exceed; None of none."""
    wanted = sum(counts) * part
    so_far = 0
    for bucket, number in enumerate(counts):
        so_far += number
        if number and so_far >= wanted:
            return longest_in(bucket)
    return None


@dataclass
class Pulse:
    """What was emitted, dropped and refused since this process began.

    Each batch costs the same, however many emissions it has.
    """

    lags: Lags = field(default_factory=Lags)
    emitted: int = 0
    known: int = 0
    """Sendings whose slots the broker's ledger had already."""
    refused: int = 0
    """Times that the broker, or a task's own code, refused an entry's emission."""
    terms: int = 0
    """Terms that began here."""
    dropped: dict[tuple[str, str], int] = field(default_factory=dict)
    """By entry and reason; those of entries that are not named, under OTHERS."""
    alerts: dict[str, int] = field(default_factory=dict)
    """What was told of entries, by kind."""
    alerts_waiting: int = 0
    """Of these, those that somebody is still to be told of."""
    alerts_dropped: int = 0
    """Those that nobody was told of, as too many waited."""
    alerts_failed: int = 0
    """Those that nobody could be told of."""
    _named: set[str] = field(default_factory=set)

    def note_answers(
        self,
        batch: Sequence[Emission],
        outcomes: Sequence[Emitted],
        now: Instant,
        elapsed: Span,
        offset: Callable[[str], Span],
    ) -> None:
        """Count a batch that the broker has answered `now`.

        `offset` returns how long after its slots an entry is due.
        """
        number = outcomes.count(Outcome.QUEUED)
        self.known += outcomes.count(Outcome.KNOWN)
        self.emitted += number
        step = max(len(batch) // _SAMPLES, 1)
        pairs = zip(batch[::step], outcomes[::step], strict=True)
        looked_at = [one for one, outcome in pairs if outcome is Outcome.QUEUED]
        for left, emission in zip(range(len(looked_at), 0, -1), looked_at, strict=True):
            share = number // left
            number -= share
            due = emission.mark.slot + offset(emission.entry)
            self.lags.add(now - due, share, elapsed)

    def note_drops(self, dropped: Mapping[tuple[str, str], int]) -> None:
        """Count slots that were dropped, by entry and reason.

        What somebody has paused is in no trouble, and is not named.
        """
        for (entry, reason), number in dropped.items():
            if reason == Reason.PAUSED:
                entry = OTHERS
            elif entry not in self._named:
                if len(self._named) >= MOST_NAMED:
                    entry = OTHERS
                self._named.add(entry)
            key = entry, str(reason)
            self.dropped[key] = self.dropped.get(key, 0) + number
