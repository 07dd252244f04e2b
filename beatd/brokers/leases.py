"""Which workers' leases have run out, if the data may be set back meanwhile."""

import threading
from collections.abc import Collection
from dataclasses import dataclass

from beatd.instant import Instant, Span


@dataclass(frozen=True, slots=True)
class WorkerLease:
    """A worker's lease, as it lies in the broker."""

    worker: str
    ends: Instant
    """By the broker's clock; another one after each heartbeat."""
    length: Span


class LeaseWatch:
    """Tells which leases have run out, by looking at them again and again.

    A lease is a length. Its end is an instant of the broker's clock, and that is to be
    believed only if there was no doubt about it for the whole length. A lease that was
    not there at the last look, and ended before all that went on then, is an old one:
    the data were set back, and the others may be as old. In doubt, a lease has run out
    when we have seen it for its whole length without a heartbeat.

    What a watch knows is its process's own: it is not set back with the data.
    """

    def __init__(self) -> None:
        self._believed_since: Span = 0
        """By our monotonic clock, which begins at 0."""
        self._next_end: Instant | None = None
        """When the first lease was to end that went on at the last look."""
        self._over: dict[WorkerLease, Span] = {}
        """By lease that was over at the last look, or ended too late, since when."""
        self._one_at_a_time = threading.Lock()

    def doubt(self, until: Span) -> None:
        """Believe no end of a lease that went on before this time of our clock."""
        self._believed_since = until

    def run_out(
        self,
        leases: Collection[WorkerLease],
        now: Instant,
        asked: Span,
        answered: Span,
        *,
        off: Span = 0,
        are_all: bool = True,
    ) -> list[WorkerLease]:
        """Return those of the leases that have run out.

        The broker's clock showed `now` when it looked, our monotonic one `asked` before
        and `answered` after that. The leases are those that are over, those that end
        later than they can by more than `off`, and the next one to end at least; if
        they are not all of these, a set-back is not seen at the next look.
        """
        over = [
            one
            for one in leases
            if one.ends <= now or one.ends - now > one.length + off
        ]
        goes_on = [
            one.ends for one in leases if now < one.ends <= now + one.length + off
        ]
        with self._one_at_a_time:
            next_end, before = self._next_end, self._over
            if next_end is not None and any(
                one.ends < next_end and one not in before for one in over
            ):
                self.doubt(until=answered)
            self._next_end = min(goes_on, default=now) if are_all else None
            self._over = {one: before.get(one, answered) for one in over}
            believed = asked - self._believed_since
            return [
                one
                for one in over
                if (one.ends <= now and believed >= one.length)
                or asked - self._over[one] >= one.length
            ]
