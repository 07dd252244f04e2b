"""Calls of tasks' own code that make the scheduler's loop wait, said while they do."""

from collections.abc import Callable
from typing import TypeAlias

from beatd.clock import Clock
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span

tell = EventLog(__name__)

LOOK: Span = SECOND
"""How often to look what the loop is at."""

FIRST: Span = 5 * SECOND
"""How long a call runs before it is said first; each time that is doubled."""


Making: TypeAlias = tuple[str, Span]
"""The entry whose message the loop makes, perhaps by a call of its task's own code, and
since when, by the monotonic clock. No class: one is made for each emission."""


class CallsWatch:
    """Says which entry's call has run for how long, again and again until it returns.

    The loop cannot: it waits for that call. It is not made in a thread of its own, and
    cannot be ended: Celery's code counts on one thread, and slots keep their order.
    """

    def __init__(self, making: Callable[[], Making | None], clock: Clock) -> None:
        self._making = making
        self._clock = clock
        self._seen: Making | None = None
        self._say_after: Span = FIRST

    def look(self) -> Span:
        """Look once; return how long to rest before the next look."""
        making = self._making()
        if making is not self._seen:
            self._seen, self._say_after = making, FIRST
        if making is None:
            return LOOK
        entry, since = making
        if (ran := self._clock.elapsed() - since) >= self._say_after:
            self._say_after = 2 * ran
            tell.warning(
                "emit.stuck",
                "%s: the call of its task's code that is to make a message has run for"
                " %d s by now: until it returns, nothing is emitted, of any entry, and"
                " this scheduler neither reloads nor stops; slots that are due"
                " meanwhile are late, not lost. Mend what it waits for, give it a time"
                " limit in the task's code, or kill beatd and start it again",
                entry,
                ran // SECOND,
                entry=entry,
                ran=ran,
            )
        return LOOK
