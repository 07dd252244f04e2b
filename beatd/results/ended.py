"""Finds out which runs have ended, by their results."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from beatd.background import Outage
from beatd.errors import ConfigError, ResultUnavailable
from beatd.results.base import READY_STATES, Keeper, Meta
from beatd.results.readable import load_readable


@dataclass
class EndedRuns:
    """Asks the result backend which runs have ended; never raises.

    A run counts as going on while its result cannot be read.
    """

    connect: Callable[[], Keeper]
    """Called by the first question, and again until it succeeds."""
    _backend: Keeper | None = field(default=None, init=False)
    _away: Outage = field(
        default_factory=lambda: Outage("cannot ask whether runs have ended", "results")
    )
    _unreadable: Outage = field(
        default_factory=lambda: Outage(
            "a result cannot be read, its run counts as going on", "results.unreadable"
        )
    )

    def among(self, task_ids: Collection[str]) -> Collection[str]:
        """Return the ids among these of runs that have ended."""
        try:
            backend = self._backend = self._backend or self.connect()
            found = self._load(backend, list(task_ids))
        except (ResultUnavailable, ConfigError) as error:
            # ConfigError: a backend that only Celery has. That must not end beatd.
            self._away.meet(error)
            return ()
        self._away.end()
        return [key for key, meta in found.items() if meta.status in READY_STATES]

    def _load(self, backend: Keeper, task_ids: Sequence[str]) -> dict[str, Meta]:
        found, unreadable = load_readable(backend, task_ids)
        if unreadable:
            self._unreadable.meet(next(iter(unreadable.values())))
        else:
            self._unreadable.end()
        return found
