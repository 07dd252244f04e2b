"""Decides which child runs which job: hands jobs out in chunks, takes them back."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from beatd.instant import Span, span_of
from beatd.pools.base import (
    Job,
    Lost,
    PoolEvent,
    Returned,
    Several,
    Started,
    TimedOut,
)
from beatd.pools.prefork.child_state import ChildState
from beatd.pools.prefork.children import MOST_JOBS, Child, Children
from beatd.pools.prefork.frames import JobEnded

MOST_BYTES = 1 << 18
"""Bytes in the largest chunk; a single job may be larger."""


@dataclass(slots=True)
class _Hand:
    """The jobs that are dealt to one child."""

    child: Child
    jobs: list[Job] = field(default_factory=list)
    size: int = 0
    """Bytes of the messages."""

    def has_room_for(self, job: Job) -> bool:
        """Return whether this job may be added; an empty hand takes any."""
        return not self.jobs or self.size + len(job.message) <= MOST_BYTES

    def take(self, job: Job) -> None:
        """Add this job."""
        self.jobs.append(job)
        self.size += len(job.message)


class Dispatcher:
    """Hands the jobs of a pool to its children, and reports what becomes of them.

    An idle child is given a job, or several at once if its last jobs were quick; jobs
    that would wait behind a slow one are taken back.

    Invariant: each job is in `_waiting` or among the jobs of one child, until its
    outcome or its return is reported.
    """

    def __init__(
        self,
        children: Children,
        on_event: Callable[[PoolEvent], object],
        now: Callable[[], Span],
    ) -> None:
        """`on_event` is called by `tell` alone."""
        self._children = children
        self._tell = on_event
        self._untold: list[PoolEvent] = []
        self._on_event = self._untold.append
        self._now = now
        self._waiting: deque[Job] = deque()
        self.returns = True
        """Whether jobs for which there is no child are returned. A pool that is stopped
        runs all jobs that it was given."""

    def tell(self) -> None:
        """Report all that has happened since the last call, at once."""
        if self._untold:
            events = self._untold.copy()
            self._untold.clear()
            self._tell(events[0] if len(events) == 1 else Several(events))

    def add(self, jobs: Sequence[Job]) -> None:
        """Add these jobs behind those that wait."""
        self._waiting.extend(jobs)

    @property
    def has_waiting(self) -> bool:
        """Whether a job waits for a child."""
        return bool(self._waiting)

    @property
    def has_work(self) -> bool:
        """Whether a job waits or runs."""
        return self.has_waiting or any(child.jobs for child in self._children)

    def hand_out(self) -> Iterator[Child]:
        """Give jobs to idle children; yield each child that has something to send."""
        if not self._waiting:
            return
        for hand in self._dealt(self._children.idle):
            hand.child.give(hand.jobs, self._now())
            self._begin(hand.child)
            yield hand.child

    def _dealt(self, idle: Sequence[Child]) -> list["_Hand"]:
        """Take jobs for these children, one each in turn, as cards are dealt.

        So the first jobs begin first, however many a child may be given at once; no
        child gets more than its share.
        """
        hands, waiting = [_Hand(child) for child in idle], self._waiting
        share = -(-len(waiting) // max(len(idle), 1))
        for turn in range(min(share, MOST_JOBS)):
            for hand in hands:
                if waiting and turn < hand.child.pace and hand.has_room_for(waiting[0]):
                    hand.take(waiting.popleft())
        return [hand for hand in hands if hand.jobs]

    def _begin(self, child: Child) -> None:
        """Report that the first job of the child's chunk runs now."""
        job = child.jobs[0]
        child.began = self._now()
        if job.time_limit:
            child.deadline = child.began + span_of(job.time_limit)
        self._on_event(Started(job.token, child.pid))

    def end(self, child: Child, report: JobEnded) -> None:
        """Report that a job has ended, and that the next one begins if it does."""
        child.end_job(report, self._now())
        self._on_event(report.finished)
        if report.goes_on:
            self._begin(child)

    def lose(self, child: Child, how: str) -> None:
        """Report the job that a child ran when it ended as lost; keep its others."""
        # A child reports each job before it begins it: no other job had begun.
        begun = child.jobs.popleft()
        self._waiting.extendleft(reversed(child.jobs))
        if child.state is ChildState.OVERDUE and begun.time_limit:
            self._on_event(TimedOut(begun.token, begun.time_limit))
        else:
            self._on_event(Lost(begun.token, child.fault or how))
        self.return_surplus()

    def drop(self, token: str) -> None:
        """Report this job as lost if it waits."""
        for job in self._waiting:
            if job.token == token:
                self._waiting.remove(job)
                self._on_event(Lost(token, "ended before it began"))
                return

    def lose_waiting(self, reason: str) -> None:
        """Report all jobs that wait as lost."""
        for job in self._waiting:
            self._on_event(Lost(job.token, reason))

    def reclaim(self, child: Child) -> None:
        """Put the jobs that the child has not begun back, before those that wait."""
        self._waiting.extendleft(reversed(child.take_back()))

    def relieve_the_slow(self) -> None:
        """Return the jobs that wait behind jobs that turn out to be slow."""
        now = self._now()
        slow = [
            child
            for child in reversed(self._children)  # so that the oldest job comes first
            if (since := child.slow_from) and since <= now
        ]
        for child in slow:
            child.pace = 1
            self.reclaim(child)
        if slow:
            self.return_surplus()

    def return_all(self) -> None:
        """Return all jobs that have not begun."""
        for child in self._children:
            self.reclaim(child)
        self._return_behind(0)

    def return_surplus(self) -> None:
        """Return the jobs for which there is no child, nor one about to be forked."""
        busy = sum(bool(one.jobs) and one.state.stays for one in self._children)
        self._return_behind(max(self._children.size - busy, 0))

    def _return_behind(self, number: int) -> None:
        if len(self._waiting) > number and self.returns:
            back = [self._waiting.pop() for _ in range(len(self._waiting) - number)]
            self._on_event(Returned([job.token for job in reversed(back)]))
