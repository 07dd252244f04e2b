"""Which workers' leases have run out, whatever the server's clock does meanwhile."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from beatd.instant import SECOND, Instant, Span

STEP: Span = SECOND
"""By more than this a clock that goes on is never off, between two looks at it."""


@dataclass(frozen=True, slots=True)
class WorkerLease:
    """A worker's lease, as it lies in Redis."""

    worker: str
    ends: Instant
    """By the server's clock; another one after each heartbeat."""
    length: Span


class LeaseWatch:
    """Tells which leases have run out, by looking at them again and again.

    A lease is a length. Its end is an instant of the server's clock, and that is to be
    believed only if the server answered all the time, and its clock went like our
    monotonic one, for the whole length. If not, the clock was set meanwhile, nobody
    could renew a lease, or we do not know: then the lease has run out when we have seen
    it for its whole length without a heartbeat.
    """

    def __init__(self) -> None:
        self._faults = 0
        self._ahead: Span | None = None
        self._steady_since: Span = 0
        self._seen: dict[WorkerLease, Span] = {}
        """By lease that was in doubt at the last look, since when it has been so."""
        self._one_at_a_time = threading.Lock()

    def run_out(
        self,
        leases: Iterable[WorkerLease],
        server: Instant,
        asked: Span,
        answered: Span,
        faults: int,
    ) -> list[WorkerLease]:
        """Return those of the leases that have run out.

        The server's clock showed `server` when it looked, our monotonic one `asked`
        before and `answered` after that; so far it had failed `faults` times to answer.
        """
        with self._one_at_a_time:
            if faults != self._faults:
                self._faults, self._ahead = faults, None
            self._compare(server, asked, answered)
            doubtful = [
                one
                for one in leases
                if one.ends <= server or one.ends - server > one.length + STEP
            ]
            self._seen = {one: self._seen.get(one, answered) for one in doubtful}
            steady = asked - self._steady_since
            return [
                one
                for one in doubtful
                if (one.ends <= server and steady >= one.length)
                or asked - self._seen[one] >= one.length
            ]

    def _compare(self, server: Instant, asked: Span, answered: Span) -> None:
        """Take note of how long the server's clock has gone as ours has."""
        ahead = server - (asked + answered) // 2
        if self._ahead is None or abs(ahead - self._ahead) > STEP:
            self._steady_since = answered
        self._ahead = ahead
