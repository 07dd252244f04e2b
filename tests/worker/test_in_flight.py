"""The states of what is in flight in a worker."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.brokers.items import Delivery
from beatd.instant import Instant
from beatd.message import read_envelope
from beatd.tasks import Task
from beatd.worker.in_flight import InFlight, InFlightState
from tests.worker.bench import Bench

WAITING, ASIDE, ACKNOWLEDGING = (
    InFlightState.WAITING,
    InFlightState.ASIDE,
    InFlightState.ACKNOWLEDGING,
)
GIVEN, RETURNED, RUNNING = (
    InFlightState.GIVEN,
    InFlightState.RETURNED,
    InFlightState.RUNNING,
)

STEPS = {
    (WAITING, ASIDE): "its rate limit has it wait",
    (ASIDE, WAITING): "its turn has come",
    (WAITING, ACKNOWLEDGING): "it is to run at most once",
    (ACKNOWLEDGING, GIVEN): "nobody else has it",
    (WAITING, GIVEN): "the pool has room",
    (GIVEN, RUNNING): "its run has begun",
    (GIVEN, RETURNED): "the pool did not get to it",
    (RETURNED, GIVEN): "the pool has room again",
    (GIVEN, WAITING): "its process died",
    (RUNNING, WAITING): "its process died",
}

WAYS = {
    WAITING: [],
    ASIDE: [ASIDE],
    ACKNOWLEDGING: [ACKNOWLEDGING],
    GIVEN: [GIVEN],
    RETURNED: [GIVEN, RETURNED],
    RUNNING: [GIVEN, RUNNING],
}
"""How each state is reached."""


def delivery() -> Delivery:
    bench = Bench()
    bench.app.send_task("proj.task", task_id="one")
    bench.broker.join("w", 1000)
    (taken,) = bench.broker.take("w", ["celery"], 1, 1)
    return taken


ONE = delivery()


def in_flight(*, early: bool) -> InFlight:
    task: Task[..., object] = Task(name="proj.task")
    return InFlight(ONE, read_envelope(ONE.message), task, early)


def reached(state: InFlightState, *, early: bool = False) -> InFlight:
    run = in_flight(early=early)
    for step in WAYS[state]:
        take(run, step)
    return run


def take(run: InFlight, state: InFlightState, now: Instant = 5) -> None:
    if state is RUNNING:
        run.begin(now, 77)
    else:
        run.become(state)


@pytest.mark.parametrize(
    ("state", "after"), list(product(InFlightState, InFlightState))
)
def test_only_steps_that_are_drawn_are_taken(
    state: InFlightState, after: InFlightState
) -> None:
    run = reached(state)
    if (state, after) in STEPS:
        take(run, after)
        assert run.state is after
    else:
        with pytest.raises(AssertionError):
            take(run, after)
        assert run.state is state


@pytest.mark.parametrize("state", InFlightState)
def test_what_is_acknowledged_early_is_so_once_the_pool_was_given_it(
    state: InFlightState,
) -> None:
    past = {GIVEN, RETURNED, RUNNING}

    assert reached(state, early=True).acknowledged is (state in past)
    assert not reached(state).acknowledged


@given(st.lists(st.sampled_from(InFlightState)))
def test_a_process_is_known_while_it_runs_and_at_no_other_time(
    steps: list[InFlightState],
) -> None:
    run = in_flight(early=False)
    for now, state in enumerate(steps):
        if (run.state, state) in STEPS:
            take(run, state, now)
        running = run.state is RUNNING

        assert run.has_begun is running
        assert (run.began is not None) is running
        assert (run.pid is not None) is running
