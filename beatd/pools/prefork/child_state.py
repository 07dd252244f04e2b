"""The states of a child of the prefork pool, and what leads from one to another.

                ready           jobs
    STARTING ----------> IDLE ----------> BUSY
        |                 |  <----------    |
        |                 |     done        |
        +-----------------+-----------------+
                          |  retire
                          v
                      RETIRING

    any state           -- leave --->  LEAVING
    any but LEAVING     -- kill ---->  KILLED
    any but LEAVING     -- expire -->  OVERDUE, which stays that when it is killed, too

A change without an arrow leaves the state as it is: a message of the child may come
while the pool kills it. A child that has ended has no state: the pool reaps it.
"""

from enum import Enum, auto


class ChildState(Enum):
    """What the pool can expect of a child.

    Invariant: an IDLE child has no job, a BUSY child has at least one.
    """

    STARTING = auto()
    """The child has not reported that it is ready."""
    IDLE = auto()
    """The child waits for jobs."""
    BUSY = auto()
    """The child runs the first job of its chunk."""
    RETIRING = auto()
    """The child gets no more jobs. When it has none, it is asked to leave."""
    LEAVING = auto()
    """The child ends by itself, as it reported or was asked to; killed if too slow."""
    OVERDUE = auto()
    """The child is being killed because of its deadline."""
    KILLED = auto()
    """The child is being killed for another reason."""

    @property
    def stays(self) -> bool:
        """Whether the child may get jobs."""
        return self in _STAYING

    @property
    def dies(self) -> bool:
        """Whether the child is being killed without having been about to leave."""
        return self in _DYING


class Change(Enum):
    """What happens to a child."""

    READY = auto()
    """The child reported that it is ready."""
    JOBS = auto()
    """The child was given jobs."""
    DONE = auto()
    """The last job of its chunk has ended."""
    RETIRE = auto()
    """The child is to get no more jobs."""
    LEAVE = auto()
    """The child reported that it leaves, or was asked to leave."""
    EXPIRE = auto()
    """The deadline of the child has passed."""
    KILL = auto()
    """The child is to end at once."""


_STAYING = ChildState.STARTING, ChildState.IDLE, ChildState.BUSY
_DYING = ChildState.OVERDUE, ChildState.KILLED


def after(state: ChildState, change: Change) -> ChildState:
    """Return the state of a child in this state after this change."""
    match change:
        case Change.READY if state is ChildState.STARTING:
            return ChildState.IDLE
        case Change.JOBS if state is ChildState.IDLE:
            return ChildState.BUSY
        case Change.DONE if state is ChildState.BUSY:
            return ChildState.IDLE
        case Change.RETIRE if state.stays:
            return ChildState.RETIRING
        case Change.LEAVE:
            return ChildState.LEAVING
        # A child that leaves ends as it should, even if it has to be killed for that.
        case Change.EXPIRE if state is not ChildState.LEAVING:
            return ChildState.OVERDUE
        case Change.KILL if state.stays or state is ChildState.RETIRING:
            return ChildState.KILLED
        case _:
            return state
