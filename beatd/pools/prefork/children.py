"""The children of a prefork pool as the pool sees them: state, chunk and channel."""

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
"""No job waits in a child for longer than this behind another."""

MOST_JOBS = 32
"""How many jobs go to a child in one chunk at most."""

_words = msgspec.msgpack.Decoder(Ready | JobEnded)


class ChannelEnded(Exception):
    """A child says nothing any more: it is dead, or closed its end of the channel."""


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
    """0 until the child says that it is ready."""
    jobs: deque[Job] = field(default_factory=deque)
    """The chunk of the child: the first job runs, the others may be taken back."""
    began: Span = 0
    """When the first job began."""
    pace: int = 1
    """How many jobs the child is given at a time: more while they are quick."""
    deadline: Span | None = None
    """When the child will be killed: its start, job or leaving takes too long then."""
    fault: str = ""
    """Why the child had to be killed, when that says more than its wait status. A child
    with a fault is not listened to."""
    _frames: Frames = field(default_factory=Frames)
    _unsent: bytearray = field(default_factory=bytearray)

    def change(self, change: Change) -> None:
        """Go to the state that this change leads to."""
        self.state = after(self.state, change)

    @property
    def slow_from(self) -> Span | None:
        """When the first job will have run for too long to have others wait for it."""
        hopeful = bool(self.jobs) and (self.pace > 1 or len(self.jobs) > 1)
        hopeful = hopeful and not self.state.dies
        return self.began + QUICK if hopeful else None

    def become_ready(self, pid: int) -> None:
        """Take note that the child can run jobs."""
        self.pid = pid
        self.change(Change.READY)
        if self.state is not ChildState.LEAVING:
            self.deadline = None

    def give(self, jobs: Sequence[Job]) -> None:
        """Make these jobs the child's chunk; `send` writes it."""
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
        was_quick = now - self.began < QUICK
        self.pace = min(2 * self.pace, MOST_JOBS) if was_quick else 1
        if not self.jobs:
            self.change(Change.DONE)

    def send(self) -> bool:
        """Write what the channel takes now; return whether something is left."""
        try:
            del self._unsent[: self.channel.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it is dead, and its end about to be told
            self._unsent.clear()
        return bool(self._unsent)

    def receive(self) -> Iterator[Ready | JobEnded]:
        """Yield what the child has said, as much as one read brings.

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
        """Let go of the channel and the claims."""
        self.channel.close()
        self.claims.close()


class Children:
    """The children of a pool, in the order of their starts."""

    def __init__(self, size: int) -> None:
        self.size = size
        """How many children there shall be. Other threads set it."""
        self._by_number: dict[int, Child] = {}

    def __iter__(self) -> Iterator[Child]:
        # Over a copy: other threads ask for the demand while children come and go.
        return iter([*self._by_number.values()])

    def __len__(self) -> int:
        return len(self._by_number)

    def __contains__(self, child: Child) -> bool:
        return child.number in self._by_number

    def add(self, child: Child) -> None:
        """Add a child that was just started."""
        self._by_number[child.number] = child

    def remove(self, number: int) -> Child:
        """Take out the child of this number, and return it."""
        return self._by_number.pop(number)

    @property
    def staying(self) -> int:
        """How many children there are that may get jobs."""
        return sum(child.state.stays for child in self)

    @property
    def idle(self) -> list[Child]:
        """The children that wait for jobs."""
        return [child for child in self if child.state is ChildState.IDLE]

    @property
    def demand(self) -> int:
        """How many jobs the children are best given at a time."""
        return max(self.size, sum(one.pace for one in self if one.state.stays))

    def free_place(self) -> int:
        """Return the first place of the pool at which there is no child."""
        # One that leaves has no job any more, or a last one: whoever counts on places
        # (one device for each) would rather share one than see a number beyond them.
        taken = {child.place for child in self if child.state.stays}
        return next(place for place in count(1) if place not in taken)
