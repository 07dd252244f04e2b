"""How a worker ends: when its tasks have ended, after a while, or at once."""

from dataclasses import dataclass, field

from beatd.instant import Span
from beatd.worker.inbox import Stop

SHUTDOWNS = {
    Stop.WARM: ("SIGTERM", "Warm"),
    Stop.SOFT: ("SIGQUIT", "Cold"),
    Stop.COLD: ("SIGQUIT", "Cold"),
}
"""The words of Celery's signal `worker_shutting_down`."""


@dataclass
class Stopping:
    """How a worker that was told to stop ends; it never goes back to a milder way.

    All times here are of a clock that only goes forward.
    """

    grace: Span
    """How long running tasks go on before a cold stop; 0: no time at all."""
    how: Stop | None = field(default=None, init=False)
    """None: nobody has told the worker to stop."""
    cold_at: Span = field(default=0, init=False)
    """When a soft stop is over."""

    def told(self, stop: Stop, now: Span, *, is_busy: bool) -> Stop | None:
        """Return the next way to stop, if `stop` asks for more than is done already.

        A cold stop of a busy worker is a soft one first, where there is a grace time; a
        second request for a cold stop ends that.
        """
        if stop is Stop.COLD and self.grace and is_busy and self.how is not Stop.SOFT:
            self.cold_at = now + self.grace
            stop = Stop.SOFT
        if self.how is Stop.COLD or (self.how and stop is Stop.WARM):
            return None
        return stop

    def has_run_out(self, now: Span) -> bool:
        """Return whether a soft stop has lasted long enough."""
        return self.how is Stop.SOFT and now >= self.cold_at

    def left(self, now: Span, longest: Span) -> Span:
        """Return how long a soft stop still lasts, `longest` at most."""
        return max(min(self.cold_at - now, longest), 0)
