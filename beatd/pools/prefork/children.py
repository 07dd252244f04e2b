"""The children of a prefork pool as the pool sees them: state, chunk and channel."""

import os
import signal
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import msgspec

from beatd.instant import Span
from beatd.pools.base import Job
from beatd.pools.prefork.child import CHUNK
from beatd.pools.prefork.child_state import Change, ChildState, after
from beatd.pools.prefork.forkserver import ForkServer
from beatd.pools.prefork.frames import (
    BrokenFrame,
    Claims,
    Frames,
    JobEnded,
    Ready,
    pack,
)

QUICK: Span = 5
"""A job waits no longer than this in a child behind another job."""

MOST_JOBS = 256
"""How many jobs go to a child in one chunk at most."""

CHUNK_TIME: Span = 10
"""How long a child runs one chunk, roughly, while its jobs are quick."""

REST: Span = 2
"""How long nobody reads the reports of a child amid its chunk: they come together."""

FEW = 8
"""With fewer jobs left in its chunk than these a child is listened to all the time."""

_words = msgspec.msgpack.Decoder(Ready | JobEnded)


class ChannelEnded(Exception):
    """A child sends nothing any more: it is dead, or closed its end of the channel."""


@dataclass(eq=False)
class Child:
    """What the pool knows of one child."""

    number: int
    place: int
    server: ForkServer
    channel: socket.socket
    claims: Claims
    state: ChildState = ChildState.STARTING
    pid: int = 0
    """0 until the child is ready."""
    jobs: deque[Job] = field(default_factory=deque)
    """The chunk of the child: the first job runs, the others may be taken back."""
    began: Span = 0
    """When the first job began, as far as known."""
    read: Span = 0
    """When the reports of the child were read last, or it was given a chunk."""
    pace: int = 1
    """How many jobs the child is given at once: more while its jobs are quick."""
    deadline: Span | None = None
    """When the child will be killed, as its start, job or leaving takes too long."""
    late: bool = False
    """Whether it was said that the child takes long to leave."""
    events: int = 0
    """What of its channel is waited for, by `selectors`."""
    is_over: bool = False
    """Whether its channel is not to be waited for any more."""
    fault: str = ""
    """Why the child had to be killed, if its wait status does not tell. Nothing more is
    read from a child with a fault."""
    _given: Span = 0
    """When it was given its chunk."""
    _ended: int = 0
    """How many jobs of its chunk have ended."""
    _frames: Frames = field(default_factory=Frames)
    _unsent: bytearray = field(default_factory=bytearray)

    def change(self, change: Change) -> None:
        """Go to the state that this change leads to."""
        self.state = after(self.state, change)

    @property
    def slow_from(self) -> Span | None:
        """When the first job will have run too long for others to wait behind it."""
        hopeful = bool(self.jobs) and (self.pace > 1 or len(self.jobs) > 1)
        hopeful = hopeful and not self.state.dies
        return self.began + QUICK if hopeful else None

    def become_ready(self, pid: int) -> None:
        """Take note that the child can run jobs."""
        self.pid = pid
        self.change(Change.READY)
        if self.state is not ChildState.LEAVING:
            self.deadline = None

    @property
    def look_at(self) -> Span | None:
        """When to read what it has reported; None: as soon as something comes.

        Amid a chunk a look now and then is enough, and its end is expected.
        """
        left = len(self.jobs)
        if left < FEW or self.state is not ChildState.BUSY:
            return None
        rest, so_far = REST, self.read - self._given
        if so_far and self._ended:
            rest = min(so_far * left // self._ended, REST)
        return self.read + rest if rest else None

    def give(self, jobs: Sequence[Job], now: Span) -> None:
        """Make these jobs the child's chunk; `send` writes it."""
        self._given = self.read = now
        self._ended = 0
        self.jobs.extend(jobs)
        self.change(Change.JOBS)
        self.claims.offer(len(self.jobs) - 1)
        self._unsent += pack(list(self.jobs))

    def take_back(self) -> list[Job]:
        """Return the jobs, in order, that the child has not begun, and now cannot."""
        number = self.claims.take_back()
        return [self.jobs.pop() for _ in range(number)][::-1]

    def end_job(self, report: JobEnded, now: Span) -> None:
        """Take note that the first job of its chunk has ended. Raises BrokenFrame."""
        if not self.jobs or self.jobs[0].token != report.finished.token:
            raise BrokenFrame("it reports a job that it does not run")
        if report.goes_on and len(self.jobs) < 2:
            raise BrokenFrame("it begins a job that it does not have")
        self.jobs.popleft()
        self.deadline = None
        self._ended += 1
        if report.took >= QUICK:
            self.pace = 1
        elif not self.jobs:
            self._adapt_pace(now - self._given)
        if not self.jobs:
            self.change(Change.DONE)

    def _adapt_pace(self, took: Span) -> None:
        """Fit the next chunk to how long this one took."""
        if took < CHUNK_TIME:
            self.pace = min(2 * self.pace, MOST_JOBS)
        elif took > 2 * CHUNK_TIME:
            self.pace = max(self.pace // 2, 1)

    @property
    def has_unsent(self) -> bool:
        """Whether something is left that the channel did not take."""
        return bool(self._unsent)

    def send(self) -> None:
        """Write what the channel takes now."""
        try:
            del self._unsent[: self.channel.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it is dead, as the fork server is about to report
            self._unsent.clear()

    def receive(self) -> Iterator[Ready | JobEnded]:
        """Yield the frames of the child, as many as one read brings.

        Raises BlockingIOError if nothing came, ChannelEnded if nothing will come any
        more, and BrokenFrame.
        """
        try:
            received = self.channel.recv(CHUNK)
        except ConnectionResetError:
            received = b""
        if not received:
            raise ChannelEnded
        for content in self._frames.feed(received):
            try:
                words = _words.decode(content)
            except (msgspec.DecodeError, RecursionError) as error:
                raise BrokenFrame(str(error)) from error
            yield words

    def close(self) -> None:
        """Close the channel and the claims."""
        self.channel.close()
        self.claims.close()


class Children:
    """The children of a pool, in the order of their starts."""

    def __init__(self, size: int) -> None:
        self.size = size
        """How many children there are to be. Other threads set it."""
        self._by_number: dict[int, Child] = {}
        # Made anew when children come and go, so that each look at all of them, from
        # whatever thread, goes through a value that stays as it is.
        self._all: tuple[Child, ...] = ()

    def __iter__(self) -> Iterator[Child]:
        return iter(self._all)

    def __reversed__(self) -> Iterator[Child]:
        return reversed(self._all)

    def __len__(self) -> int:
        return len(self._by_number)

    def __contains__(self, child: Child) -> bool:
        return child.number in self._by_number

    def add(self, child: Child) -> None:
        """Add a child that was just started."""
        self._by_number[child.number] = child
        self._all = (*self._by_number.values(),)

    def remove(self, number: int) -> Child:
        """Remove and return the child of this number."""
        child = self._by_number.pop(number)
        self._all = (*self._by_number.values(),)
        return child

    @property
    def staying(self) -> int:
        """How many children may get jobs."""
        return sum(child.state.stays for child in self._all)

    @property
    def idle(self) -> list[Child]:
        """The children that wait for jobs."""
        return [child for child in self._all if child.state is ChildState.IDLE]

    @property
    def demand(self) -> int:
        """How many jobs the children should be given together."""
        return max(self.size, sum(one.pace for one in self._all if one.state.stays))

    def free_place(self) -> int:
        """Return the lowest number of a place that has no child."""
        # The place of a child that leaves counts as free, though it may run a last job:
        # tasks that use one device for each place would rather share one for a moment
        # than meet a place for which there is no device.
        taken = {child.place for child in self if child.state.stays}
        return next(place for place in count(1) if place not in taken)


def words_of(status: int) -> str:
    """Return a text that says how a process ended, from its wait status."""
    if not os.WIFSIGNALED(status):
        return f"exit status {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return f"signal {number}"
