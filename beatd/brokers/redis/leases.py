"""Which workers' leases have run out, whatever the server's clock does meanwhile."""

import threading
from collections.abc import Collection

from beatd.brokers.leases import LeaseWatch, WorkerLease
from beatd.instant import SECOND, Instant, Span

STEP: Span = SECOND
"""By more than this a clock that goes on is never off, between two looks at it."""

AT_ONCE = 100
"""If there are more leases to look at, so many are shown at once, at least."""


class ServerLeases:
    """Tells which leases have run out, by the clock of a server.

    The end of a lease is to be believed only if the server answered all the time, and
    its clock went like our monotonic one, for the whole length. If not, the clock was
    set meanwhile, nobody could renew a lease, or we do not know.
    """

    def __init__(self) -> None:
        self._watch = LeaseWatch()
        self._faults = 0
        self._ahead: Span | None = None
        self._one_at_a_time = threading.Lock()

    def run_out(
        self,
        leases: Collection[WorkerLease],
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
            are_all = len(leases) < AT_ONCE
            return self._watch.run_out(
                leases, server, asked, answered, off=STEP, are_all=are_all
            )

    def _compare(self, server: Instant, asked: Span, answered: Span) -> None:
        """Take note of how long the server's clock has gone as ours has."""
        ahead = server - (asked + answered) // 2
        if self._ahead is None or abs(ahead - self._ahead) > STEP:
            self._watch.doubt(until=answered)
        self._ahead = ahead
