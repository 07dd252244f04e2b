"""A job is run the same way in a thread and on an event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, TypeVar

import pytest

from beatd.app import Beatd
from beatd.errors import SoftTimeLimitExceeded
from beatd.pools.base import Job
from beatd.results import encoding_of
from beatd.results.base import State
from beatd.runs.execute import Executor, executor_for
from beatd.runs.report import Report, limits_of, read_report
from beatd.tasks import Task
from tests.worker.bench import Bench

T = TypeVar("T")


async def in_thread(function: Callable[[], T]) -> T:
    return await asyncio.to_thread(function)


def here(execute: Executor, job: Job) -> bytes:
    return execute(job)


def on_loop(execute: Executor, job: Job) -> bytes:
    return asyncio.run(execute.run(job, in_thread))


class Desk:
    """Runs calls of an application's tasks in one of the two ways."""

    def __init__(self, way: Callable[[Executor, Job], bytes]) -> None:
        self._bench = Bench()
        self._way = way
        self.app: Beatd = self._bench.app
        self._requests = count(1)

    def run(self, task: Task[..., Any], *args: Any, soft: float | None = None) -> Any:
        """Return the report of one call, and what was stored as its result."""
        task.apply_async(args)
        broker, settings = self._bench.broker, self._bench.settings
        broker.join("desk", 1000)
        (delivery,) = broker.take("desk", ["celery"], 1, next(self._requests))
        execute = executor_for(
            self.app, "celery@here", limits_of(settings), self._bench.clock
        )
        job = Job("token", delivery.message, 1, None, soft)
        report: Report = read_report(self._way(execute, job))
        assert report.stored
        stored = report.stored
        return report, encoding_of(settings).decode(stored.task_id, stored.data).result


@pytest.fixture(params=[here, on_loop])
def desk(request: pytest.FixtureRequest) -> Desk:
    return Desk(request.param)


def both_kinds(app: Beatd, body: Callable[..., Any]) -> list[Task[..., Any]]:
    """Make a function and a coroutine of one body; it gets the task first."""

    def plain(self: Any, *args: Any) -> Any:
        return body(self, *args)

    async def coroutine(self: Any, *args: Any) -> Any:
        await asyncio.sleep(0)
        return body(self, *args)

    return [app.task(bind=True)(plain), app.task(bind=True)(coroutine)]


def test_the_value_is_kept(desk: Desk) -> None:
    for task in both_kinds(desk.app, lambda task, x, y: x + y):
        report, value = desk.run(task, 2, 3)

        assert (report.state, value) == (State.SUCCESS, 5)


def test_the_run_knows_itself(desk: Desk) -> None:
    for task in both_kinds(desk.app, lambda task: [task.request.id, task.name]):
        report, value = desk.run(task)

        assert value == [report.stored.task_id, task.name]


@pytest.mark.parametrize("error", [KeyError, SystemExit, KeyboardInterrupt])
def test_what_is_raised_is_its_end(desk: Desk, error: type[BaseException]) -> None:
    def fail(task: object) -> None:
        raise error("the reason")

    for task in both_kinds(desk.app, fail):
        report, _ = desk.run(task)

        assert report.state == State.FAILURE
        assert report.reason == repr(error("the reason"))
        assert report.traceback.count("in fail") == 1
        assert "execute.py" not in report.traceback


def test_a_function_may_raise_what_ends_iterations(desk: Desk) -> None:
    @desk.app.task
    def stop() -> None:
        raise StopIteration("the reason")

    report, _ = desk.run(stop)

    assert report.reason == "StopIteration('the reason')"


def test_a_retry_sends_the_next_try(desk: Desk) -> None:
    def again(task: Any) -> None:
        raise task.retry(countdown=1, exc=OSError("not yet"))

    for task in both_kinds(desk.app, again):
        report, _ = desk.run(task)

        assert report.state == State.RETRY
        assert len(report.sends) == 1


def test_a_function_that_gives_a_coroutine_has_it_awaited(desk: Desk) -> None:
    async def value() -> str:
        await asyncio.sleep(0)
        return "awaited"

    @desk.app.task
    def give() -> Awaitable[str]:
        return value()

    assert desk.run(give)[1] == "awaited"


def test_the_soft_limit_is_raised_inside(desk: Desk) -> None:
    @desk.app.task
    def patient() -> str:
        try:
            while True:
                pass
        except SoftTimeLimitExceeded:
            return "cleaned up"

    @desk.app.task
    async def patient_later() -> str:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            return "cleaned up"
        return "never told"

    assert desk.run(patient, soft=0.05)[1] == "cleaned up"
    assert desk.run(patient_later, soft=0.05)[1] == "cleaned up"


def test_a_run_whose_thread_is_given_up_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()

    @bench.app.task
    def wait() -> None: ...

    wait.delay()
    bench.broker.join("desk", 1000)
    (delivery,) = bench.broker.take("desk", ["celery"], 1, 1)
    execute = executor_for(bench.app, "celery@here", limits_of(bench.settings))
    job = Job("token", delivery.message, 1, None, None)

    async def cancelled() -> None:
        async def never(function: object) -> Any:
            await asyncio.Event().wait()

        run = asyncio.create_task(execute.run(job, never))
        await asyncio.sleep(0)
        run.cancel()
        await run

    asyncio.run(cancelled())

    assert caplog.records == []


def test_a_message_that_cannot_be_read_is_to_be_set_aside() -> None:
    bench = Bench()
    execute = executor_for(bench.app, "celery@here", limits_of(bench.settings))
    job = Job("token", b"{", 1, None, None)

    assert read_report(here(execute, job)) == read_report(on_loop(execute, job))
    assert read_report(here(execute, job)).fate == "set_aside"
