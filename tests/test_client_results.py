"""What a client sees of runs: how long it asks, what it remembers, what it shows."""

import traceback
from typing import Any

import pytest

from beatd import AsyncResult, Beatd
from beatd.app.client_results import ClientResults
from beatd.config.settings import Settings
from beatd.errors import ResultRefused, ResultUnavailable
from beatd.instant import SECOND, Span
from beatd.results import encoding_of
from beatd.results.base import Meta, State
from tests.fakes import NOON, FakeClock
from tests.worker.bench import Bench, FakeResults

DONE = Meta("done", State.SUCCESS, 5)


class AwayFor(FakeResults):
    """Results that answer after so many requests, and count them."""

    def __init__(self, number: float = 0) -> None:
        super().__init__(encoding_of(Settings()))
        self.left = number
        self.asked = 0

    def forget(self, task_id: str) -> None:
        self._answer()
        super().forget(task_id)

    def _answer(self) -> None:
        self.asked += 1
        self.left -= 1
        if self.left >= 0:
            raise ResultUnavailable("nobody answers")


class Desk:
    """A client's runs before such results; its rests take no time, and are noted."""

    def __init__(self, away: float = 0, **settings: Any) -> None:
        self.results = AwayFor()
        self.results.store([DONE, Meta("also", State.SUCCESS, 6)])
        self.results.left, self.results.asked = away, 0
        self.clock = FakeClock()
        self.rests: list[float] = []
        chosen = Settings(result_backend="redis://nowhere", **settings)
        self.client = ClientResults(
            chosen, lambda: self.results, self.clock, self._rest
        )

    def _rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.clock.go_to(self.clock.now() + round(seconds * SECOND))


# Trying again


def test_what_is_refused_is_not_stored_again() -> None:
    desk = Desk(result_backend_always_retry=True)
    desk.results.refuse("theirs")

    with pytest.raises(ResultRefused, match="another program"):
        desk.client.store(Meta("theirs", "HALFWAY"))

    assert desk.rests == []


def test_a_client_hears_at_once_that_nobody_answers() -> None:
    desk = Desk(away=1)

    with pytest.raises(ResultUnavailable):
        desk.client.load("done")
    assert desk.rests == []


@pytest.mark.parametrize("method", ["load", "wait", "store", "forget"])
def test_a_client_asks_again_if_it_is_told_to(method: str) -> None:
    desk = Desk(away=3, result_backend_always_retry=True)
    arguments: dict[str, tuple[Any, ...]] = {"wait": ("done", None), "store": (DONE,)}

    getattr(desk.client, method)(*arguments.get(method, ("done",)))

    assert len(desk.rests) == 3


def test_it_asks_no_more_often_than_it_is_told_to() -> None:
    desk = Desk(99, result_backend_always_retry=True, result_backend_max_retries=4)

    with pytest.raises(ResultUnavailable):
        desk.client.load("done")
    assert desk.results.asked == 5


def test_its_rests_grow_up_to_a_bound() -> None:
    desk = Desk(
        away=200,
        result_backend_always_retry=True,
        result_backend_base_sleep_between_retries_ms=100,
        result_backend_max_sleep_between_retries_ms=800,
    )
    desk.client.load("done")

    for rest, longest in zip(desk.rests, [0.2, 0.4, *[0.8] * 198], strict=True):
        assert 0 <= rest <= longest
    assert max(desk.rests) > 0.4


def test_it_waits_no_longer_than_its_caller_wants() -> None:
    desk = Desk(away=float("inf"), result_backend_always_retry=True)

    with pytest.raises(ResultUnavailable):
        desk.client.wait("done", 5 * SECOND)
    assert desk.clock.now() - NOON == 5 * SECOND


def test_without_results_there_is_nothing_to_try_again() -> None:
    app = Beatd(
        broker="redis://nowhere", result_backend_always_retry=True, set_as_current=False
    )

    with pytest.raises(ResultUnavailable, match="no results are kept"):
        _ = app.AsyncResult("done").state


# Remembering


@pytest.mark.parametrize(("limit", "asked"), [(-1, 6), (0, 2), (1, 6), (2, 2)], ids=str)
def test_so_many_values_are_remembered(limit: int, asked: int) -> None:
    desk = Desk(result_cache_max=limit)

    for _ in range(3):
        for task_id, value in (("done", 5), ("also", 6)):
            found = desk.client.load(task_id)
            assert found is not None
            assert found.result == value

    assert desk.results.asked == asked


def test_what_was_asked_for_last_is_remembered_longest() -> None:
    desk = Desk(result_cache_max=2)
    desk.results.store([Meta("third", State.SUCCESS)])
    for task_id in ("done", "also", "done", "third"):
        desk.client.load(task_id)
    desk.results.asked = 0

    desk.client.load("done")
    assert desk.results.asked == 0
    desk.client.load("also")
    assert desk.results.asked == 1


def test_only_what_is_final_is_remembered() -> None:
    desk = Desk(result_cache_max=0)
    desk.results.store([Meta("run", State.FAILURE, ValueError("no"))])
    desk.client.wait("run", None)
    desk.results.store([Meta("run", State.SUCCESS, 7)])

    assert desk.client.wait("run", None) == Meta("run", State.SUCCESS, 7)


def test_what_is_forgotten_is_not_remembered_either() -> None:
    desk = Desk(result_cache_max=0)
    desk.client.wait("done", None)

    desk.client.forget("done")

    assert desk.client.load("done") is None


# Tracebacks


def raised_by(result: AsyncResult[Any]) -> str:
    """Return what a program shows that ends of the exception."""
    try:
        result.get(timeout=0)
    except ValueError as error:
        return "".join(traceback.format_exception(error))
    raise AssertionError("it did not fail")


def failed(**settings: Any) -> AsyncResult[Any]:
    bench = Bench(**settings)

    @bench.app.task(name="proj.fail")
    def fail() -> None:
        raise ValueError("no such thing")  # in the worker

    sent = fail.delay()
    bench.run()
    return sent


def test_an_exception_shows_where_the_run_failed_if_it_is_asked_to() -> None:
    shown = raised_by(failed(task_remote_tracebacks=True))

    assert 'raise ValueError("no such thing")  # in the worker' in shown
    assert "direct cause of the following exception" in shown
    assert shown.endswith("ValueError: no such thing\n")


def test_it_shows_the_callers_side_alone_if_not() -> None:
    assert "# in the worker" not in raised_by(failed())


@pytest.mark.parametrize(
    "settings",
    [
        {"result_serializer": "pickle", "accept_content": ["json", "pickle"]},
        {"task_always_eager": True},
    ],
    ids=["pickle", "eager"],
)
def test_however_the_exception_came(settings: dict[str, Any]) -> None:
    sent = failed(task_remote_tracebacks=True, **settings)

    assert "# in the worker" in raised_by(sent)
    assert "# in the worker" in str(sent.result.__cause__)


# How much is shown of arguments


@pytest.mark.parametrize(
    ("levels", "expected"),
    [(1, "[[...]]"), (3, "[[[[...]]]]"), (0, "[[[[[[1]]]]]]")],
)
def test_so_many_levels_of_arguments_are_shown(levels: int, expected: str) -> None:
    bench = Bench(task_repr_maxlevels=levels)
    bench.app.send_task("proj.add", [[[[[[1]]]]]])

    bench.broker.join("reader", SECOND)
    (delivery,) = bench.broker.take("reader", ["celery"], 1, 1)
    assert f'"argsrepr": "{expected}"'.encode() in delivery.message


def test_a_wait_needs_no_answer_in_time() -> None:
    desk = Desk()
    nothing: Span = 0

    assert desk.client.wait("nobody", nothing) is None
