"""Which child gets which job, and what is told of it: without any process."""

import socket
from collections.abc import Iterator

import pytest

from beatd.instant import Span
from beatd.pools.base import (
    Finished,
    Job,
    Lost,
    PoolEvent,
    Returned,
    Started,
    TimedOut,
    each_of,
)
from beatd.pools.prefork.child_state import Change, ChildState
from beatd.pools.prefork.children import (
    CHUNK_TIME,
    FEW,
    QUICK,
    REST,
    Child,
    Children,
)
from beatd.pools.prefork.dispatch import Dispatcher
from beatd.pools.prefork.forkserver import ForkServer, forked
from beatd.pools.prefork.frames import BrokenFrame, Claims, JobEnded, claim
from tests.fakes import FakeClock


class Pool:
    """Children that a test plays, and what is told of their jobs."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: list[PoolEvent] = []
        self.children = Children(2)
        self.dispatcher = Dispatcher(
            self.children, self.told.append, self.clock.elapsed
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

    @property
    def events(self) -> list[PoolEvent]:
        """What is told by now, one event after the other."""
        self.dispatcher.tell()
        return [event for told in self.told for event in each_of(told)]

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


def test_what_happens_in_one_turn_istold_at_once(pool: Pool) -> None:
    child = pool.child(pace=8)
    pool.dispatcher.add(jobs(8))
    pool.hand_out()
    for number in range(7):
        end = JobEnded(Finished(f"{number}", b""), goes_on=True)
        pool.dispatcher.end(child, end)

    assert len(pool.events) == 1 + 7 * 2
    assert len(pool.told) == 1
    pool.dispatcher.tell()
    assert len(pool.told) == 1


def test_reports_amid_a_chunk_are_read_together(pool: Pool) -> None:
    child = pool.child(pace=100)
    pool.dispatcher.add(jobs(100))
    pool.hand_out()
    now = pool.clock.elapsed()
    assert child.look_at == now + REST

    for number in range(100):
        assert (child.look_at is None) == (len(child.jobs) < FEW)
        goes_on = number < 99
        pool.dispatcher.end(
            child, JobEnded(Finished(f"{number}", b""), goes_on=goes_on)
        )


def test_the_next_look_is_not_after_the_expected_end_of_the_chunk(pool: Pool) -> None:
    child = pool.child(pace=40)
    pool.dispatcher.add(jobs(40))
    pool.hand_out()
    pool.clock.go_to(pool.clock.now() + 30)
    child.read = pool.clock.elapsed()
    for number in range(30):
        pool.dispatcher.end(child, JobEnded(Finished(f"{number}", b""), goes_on=True))

    # A millisecond each, and ten are left.
    assert child.look_at == child.read + REST


@pytest.mark.parametrize(
    ("took", "pace"),
    [(0, 2 * 8), (CHUNK_TIME, 8), (3 * CHUNK_TIME, 8 // 2)],
    ids=["quick", "as wanted", "slow"],
)
def test_the_next_chunk_fits_how_long_the_last_one_took(
    pool: Pool, took: Span, pace: int
) -> None:
    child = pool.child(pace=8)
    pool.dispatcher.add(jobs(8))
    pool.hand_out()
    pool.clock.go_to(pool.clock.now() + took)
    for number in range(8):
        end = JobEnded(Finished(f"{number}", b""), goes_on=number < 7, took=took // 8)
        pool.dispatcher.end(child, end)

    assert child.pace == pace


def test_a_job_that_takes_long_by_the_childs_own_clock_makes_it_slow(
    pool: Pool,
) -> None:
    child = pool.child(pace=8)
    pool.dispatcher.add(jobs(1))
    pool.hand_out()
    pool.dispatcher.end(child, JobEnded(Finished("0", b""), took=QUICK))

    assert child.pace == 1
