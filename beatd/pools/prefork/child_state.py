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

A change for which a state has no arrow leaves the state as it is: what a child says may
cross what is done to it. A child that has ended has no state: the pool reaps it.
"""

from enum import Enum, auto


class ChildState(Enum):
    """What the pool can expect of a child.

    Invariant: a child that is IDLE has no job, and one that is BUSY has one at least.
    """

    STARTING = auto()
    """It has not said yet that it is ready."""
    IDLE = auto()
    """It waits for jobs."""
    BUSY = auto()
    """It runs the first job of its chunk."""
    RETIRING = auto()
    """It gets no more jobs, and is asked to leave when it is ready and has none."""
    LEAVING = auto()
    """It ends by itself: it said so or was asked to; killed only if that takes long."""
    OVERDUE = auto()
    """It is being killed because of its deadline."""
    KILLED = auto()
    """It is being killed for another reason."""

    @property
    def stays(self) -> bool:
        """Whether the child counts as one of those that the pool has jobs for."""
        return self in _STAYING

    @property
    def dies(self) -> bool:
        """Whether the child was sent SIGKILL, with no leave to end by itself."""
        return self in _DYING


class Change(Enum):
    """What happens to a child."""

    READY = auto()
    """It said that it is ready."""
    JOBS = auto()
    """It was given jobs."""
    DONE = auto()
    """Its last job has ended."""
    RETIRE = auto()
    """It shall get no more jobs."""
    LEAVE = auto()
    """It said that it leaves, or was asked to."""
    EXPIRE = auto()
    """Its deadline has passed."""
    KILL = auto()
    """It is to end at once."""


_STAYING = frozenset({ChildState.STARTING, ChildState.IDLE, ChildState.BUSY})
_DYING = frozenset({ChildState.OVERDUE, ChildState.KILLED})


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
        # The end of a child that leaves is as it should be, even if it is hurried.
        case Change.EXPIRE if state is not ChildState.LEAVING:
            return ChildState.OVERDUE
        case Change.KILL if state.stays or state is ChildState.RETIRING:
            return ChildState.KILLED
        case _:
            return state
