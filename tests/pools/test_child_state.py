"""What leads a child of the prefork pool from one state to another."""

from itertools import product

import pytest

from beatd.pools.prefork.child_state import Change, ChildState, after

STARTING, IDLE, BUSY = ChildState.STARTING, ChildState.IDLE, ChildState.BUSY
RETIRING, LEAVING = ChildState.RETIRING, ChildState.LEAVING
OVERDUE, KILLED = ChildState.OVERDUE, ChildState.KILLED

ARROWS = {
    # A day of work.
    (STARTING, Change.READY): IDLE,
    (IDLE, Change.JOBS): BUSY,
    (BUSY, Change.DONE): IDLE,
    # It shall get no more jobs, whatever it does now.
    (STARTING, Change.RETIRE): RETIRING,
    (IDLE, Change.RETIRE): RETIRING,
    (BUSY, Change.RETIRE): RETIRING,
    # Asked to leave, or by itself: also with what it said before a blow met it.
    (STARTING, Change.LEAVE): LEAVING,
    (IDLE, Change.LEAVE): LEAVING,
    (BUSY, Change.LEAVE): LEAVING,
    (RETIRING, Change.LEAVE): LEAVING,
    (OVERDUE, Change.LEAVE): LEAVING,
    (KILLED, Change.LEAVE): LEAVING,
    # Its start takes too long, or its job.
    (STARTING, Change.EXPIRE): OVERDUE,
    (IDLE, Change.EXPIRE): OVERDUE,
    (BUSY, Change.EXPIRE): OVERDUE,
    (RETIRING, Change.EXPIRE): OVERDUE,
    (KILLED, Change.EXPIRE): OVERDUE,  # nobody passed the blow on in time
    # The pool ends at once, or the child talks nonsense.
    (STARTING, Change.KILL): KILLED,
    (IDLE, Change.KILL): KILLED,
    (BUSY, Change.KILL): KILLED,
    (RETIRING, Change.KILL): KILLED,
}


@pytest.mark.parametrize(
    ("state", "change"),
    list(product(ChildState, Change)),
    ids=lambda value: value.name.lower(),
)
def test_a_change_leads_where_an_arrow_points_and_else_nowhere(
    state: ChildState, change: Change
) -> None:
    assert after(state, change) is ARROWS.get((state, change), state)


def test_jobs_are_for_children_that_stay() -> None:
    assert [state for state in ChildState if state.stays] == [STARTING, IDLE, BUSY]


def test_a_child_that_leaves_does_not_count_as_killed() -> None:
    assert [state for state in ChildState if state.dies] == [OVERDUE, KILLED]
