"""Whether the run before has ended, for entries with an overlap rule."""

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from typing import NamedTuple

from beatd.brokers.base import Emitter
from beatd.clock import Clock
from beatd.event_log import EventLog
from beatd.ids import instant_of_id
from beatd.instant import SECOND, Instant, Span
from beatd.timetable.entry import Due, Overlap

tell = EventLog(__name__)

HELD_LOOK: Span = 5 * SECOND
"""How often to ask whether a worker still holds a run that may be lost."""


class Busy(NamedTuple):
    """Entries whose current run has not ended."""

    runs: Mapping[str, str]
    """By entry, the task id of that run."""
    unsure: Collection[str]
    """Those of these entries whose run may have ended: the answer is on its way."""


IDLE = Busy({}, ())


class RunEnds:
    """Finds out which runs have not ended: the broker is told, and results tell.

    Nobody may be left to tell: a purge by Celery, a worker of Celery's that died. So a
    run that no worker of ours holds counts as ended once its message or its result is
    over, and any run after its entry's `overlap_timeout`.
    """

    def __init__(self, broker: Emitter, clock: Clock, result_ttl: Span | None) -> None:
        self._broker = broker
        self._clock = clock
        self._result_ttl = result_ttl
        self._sent: dict[str, tuple[str, Instant]] = {}
        """By entry, a run that was sent from here, and when: it may have been late."""
        self._held: dict[str, Span] = {}
        """By run that a worker held when it was asked, until when that is believed."""

    def sent(self, entry: str, run: str, now: Instant) -> None:
        """Take note that a run is sent now."""
        self._sent[entry] = run, now

    def keep(self, entries: Container[str]) -> None:
        """Forget all but these entries."""
        self._sent = {name: one for name, one in self._sent.items() if name in entries}
        self._held.clear()

    def busy(
        self,
        batch: Sequence[Due],
        now: Instant,
        ended: Callable[[Collection[str]], Collection[str]],
        unanswered: Callable[[Collection[str]], Collection[str]],
    ) -> Busy:
        """Return the entries with an overlap rule whose last run has not ended.

        `ended` and `unanswered` are those of the scheduler.
        """
        asking = {
            entry.name: due.of(entry)
            for due in batch
            if due.entry.policy.overlap is not Overlap.ALLOW
            for entry in due.entries
        }
        runs = self._broker.running(asking) if asking else {}
        if not runs:
            return IDLE
        known = set(ended(runs.values()))
        over = {name: run for name, run in runs.items() if run in known}
        left = {name: run for name, run in runs.items() if name not in over}
        over |= self._outlived(asking, left, now)
        if over:
            self._broker.end_runs(over)
            left = {name: run for name, run in left.items() if name not in over}
        open_ = set(unanswered(left.values())) if left else ()
        return Busy(left, [name for name, run in left.items() if run in open_])

    def _outlived(
        self, asking: Mapping[str, Due], runs: Mapping[str, str], now: Instant
    ) -> dict[str, str]:
        """Return the runs that count as ended by their age, and say so."""
        over: dict[str, str] = {}
        doubtful: dict[str, str] = {}
        for name, run in runs.items():
            due = asking[name]
            sent = self._sent_at(due, run, now)
            timeout = due.entry.policy.overlap_timeout
            if timeout is not None and now - sent >= timeout:
                over[name] = run
                tell.warning(
                    "run.timeout",
                    "%s: its run %s is older than its overlap_timeout of %g s, and"
                    " counts as ended",
                    name,
                    run,
                    timeout / SECOND,
                    entry=name,
                    run=run,
                )
            elif self._may_be_lost(due, sent, now):
                doubtful[name] = run
        held = self._held_among(doubtful.values())
        for name, run in doubtful.items():
            if run not in held:
                over[name] = run
                tell.info(
                    "run.lost",
                    "%s: nobody has told how its run %s ended, and no worker of beatd"
                    " holds it: it has expired, or its result has, and counts as ended",
                    name,
                    run,
                    entry=name,
                    run=run,
                )
        return over

    def _sent_at(self, due: Due, run: str, now: Instant) -> Instant:
        """Return when a run was sent; another process may have done that late."""
        known, sent = self._sent.get(due.entry.name, ("", now))
        if known == run:
            return sent
        slot = instant_of_id(run) or due.mark.last
        return now if slot is None else slot + due.entry.offset

    def _may_be_lost(self, due: Due, sent: Instant, now: Instant) -> bool:
        """Return whether a run's message has expired by now, or its result has."""
        if self._result_ttl is not None and now - sent >= self._result_ttl:
            return True
        if due.entry.expires_next:
            return True  # the next slot has come
        expires = due.entry.message.expires_of(sent)
        return expires is not None and expires <= now

    def _held_among(self, runs: Collection[str]) -> Collection[str]:
        """Return those of these runs that a worker holds, or has held a moment ago."""
        if not runs:
            return ()
        elapsed = self._clock.elapsed()
        self._held = {
            run: until for run, until in self._held.items() if until > elapsed
        }
        asked = [run for run in runs if run not in self._held]
        if asked:
            held = self._broker.held_runs(asked)
            self._held |= dict.fromkeys(held, elapsed + HELD_LOOK)
        return self._held
