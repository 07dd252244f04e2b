"""Which child gets which job, and what is told of it: without any process."""

import socket
from collections.abc import Iterator

import pytest

from beatd.pools.base import (
    Finished,
    Job,
    Lost,
    PoolEvent,
    Returned,
    Started,
    TimedOut,
)
from beatd.pools.prefork.child_state import Change, ChildState
from beatd.pools.prefork.children import Child, Children
from beatd.pools.prefork.dispatch import Dispatcher
from beatd.pools.prefork.forkserver import ForkServer, forked
from beatd.pools.prefork.frames import BrokenFrame, Claims, JobEnded, claim
from tests.fakes import FakeClock


class Pool:
    """Children that a test plays, and what is told of their jobs."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events: list[PoolEvent] = []
        self.children = Children(2)
        self.dispatcher = Dispatcher(
            self.children, self.events.append, self.clock.elapsed
        )
        self._ends: list[socket.socket] = []

    def child(self, pace: int = 1) -> Child:
        """Return a new child that is ready, as if it had been quick."""
        number = len(self._ends) + 1
        ours, theirs = socket.socketpair()
        self._ends.append(theirs)
        server = ForkServer(forked(print))  # never started
        place = self.children.free_place()
        child = Child(number, place, server, ours, Claims(), pace=pace)
        child.become_ready(1000 + number)
        self.children.add(child)
        return child

    def hand_out(self) -> None:
        for _ in self.dispatcher.hand_out():
            pass

    def close(self) -> None:
        for child in self.children:
            child.close()
        for end in self._ends:
            end.close()


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()


def jobs(number: int, time_limit: float | None = None) -> list[Job]:
    return [Job(f"{n}", b"", 1, time_limit, None) for n in range(number)]


def tokens(child: Child) -> list[str]:
    return [job.token for job in child.jobs]


def test_idle_children_share_what_waits_as_far_as_they_are_quick(pool: Pool) -> None:
    quick, slow = pool.child(pace=8), pool.child()
    pool.dispatcher.add(jobs(6))

    pool.hand_out()

    assert (tokens(quick), tokens(slow)) == (["0", "2", "3"], ["1"])
    assert quick.state is slow.state is ChildState.BUSY
    assert pool.events == [Started("0", quick.pid), Started("1", slow.pid)]


def test_a_child_that_retires_gets_nothing(pool: Pool) -> None:
    child = pool.child()
    child.change(Change.RETIRE)
    pool.dispatcher.add(jobs(1))

    pool.hand_out()

    assert tokens(child) == []
    assert pool.dispatcher.has_waiting


def test_what_a_child_has_claimed_is_not_taken_back(pool: Pool) -> None:
    child = pool.child(pace=8)
    pool.dispatcher.add(jobs(4))
    pool.hand_out()
    assert claim(child.claims.reader)

    pool.dispatcher.return_all()

    assert tokens(child) == ["0", "1"]
    assert pool.events[1:] == [Returned(["2", "3"])]


def test_after_stop_nothing_is_returned(pool: Pool) -> None:
    pool.dispatcher.returns = False
    pool.dispatcher.add(jobs(5))

    pool.dispatcher.return_all()

    assert pool.events == []


@pytest.mark.parametrize(
    ("change", "time_limit", "expected"),
    [
        (Change.EXPIRE, 7.0, TimedOut("0", 7.0)),
        (Change.KILL, 7.0, Lost("0", "signal 9")),
        (Change.EXPIRE, None, Lost("0", "signal 9")),  # to leave took it too long
    ],
)
def test_the_state_of_a_child_says_what_became_of_its_job(
    pool: Pool, change: Change, time_limit: float | None, expected: PoolEvent
) -> None:
    child = pool.child(pace=8)
    pool.dispatcher.add(jobs(2, time_limit))
    pool.hand_out()
    child.change(change)

    pool.children.remove(child.number)
    pool.dispatcher.lose(child, "signal 9")
    child.close()

    assert pool.events[1:] == [expected]
    assert pool.dispatcher.has_waiting  # the other job had not begun


def test_the_end_of_the_last_job_makes_a_child_idle(pool: Pool) -> None:
    child = pool.child(pace=2)
    pool.dispatcher.add(jobs(2))
    pool.hand_out()

    pool.dispatcher.end(child, JobEnded(Finished("0", b""), goes_on=True))
    assert tokens(child) == ["1"]
    pool.dispatcher.end(child, JobEnded(Finished("1", b"")))

    assert child.state is ChildState.IDLE
    assert pool.events == [
        Started("0", child.pid),
        Finished("0", b""),
        Started("1", child.pid),
        Finished("1", b""),
    ]


def test_a_report_of_a_job_that_a_child_does_not_run_is_refused(pool: Pool) -> None:
    child = pool.child()
    pool.dispatcher.add(jobs(1))
    pool.hand_out()

    with pytest.raises(BrokenFrame, match="does not run"):
        pool.dispatcher.end(child, JobEnded(Finished("another", b"")))


def test_the_place_of_a_child_that_leaves_is_free(pool: Pool) -> None:
    first, second = pool.child(), pool.child()
    assert (first.place, second.place) == (1, 2)
    assert pool.children.free_place() == 3

    first.change(Change.LEAVE)

    assert pool.children.free_place() == 1


def test_quick_children_that_stay_make_the_demand(pool: Pool) -> None:
    assert pool.children.demand == 2  # places that are still empty

    pool.child(pace=8)
    pool.child(pace=4)
    assert pool.children.demand == 12

    for child in pool.children:
        child.change(Change.KILL)
    assert pool.children.demand == 2
