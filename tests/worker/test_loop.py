"""The worker's loop, in one thread."""

import json
import logging
import math
import os
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from beatd.app import Beatd
from beatd.brokers.items import Act, Answer, Begin, Effect, Outgoing
from beatd.brokers.memory import MemoryBroker
from beatd.errors import Reject, ResultUnavailable, WorkerLost
from beatd.instant import HOUR, MINUTE, SECOND, datetime_of
from beatd.message import read_body, read_envelope
from beatd.pools.base import Finished, Lost, Started, TimedOut
from beatd.routing import Route
from beatd.runs.tracebacks import LONGEST_TRACEBACK
from beatd.tasks import AsyncResult, Task
from beatd.worker.inbox import Stop, TimePassed
from tests.fakes import NOON
from tests.worker.bench import Bench, HeldPool, with_held_pool
from tests.worker.test_steering import command


@pytest.fixture
def bench() -> Bench:
    return Bench()


def add_to(app: Beatd) -> Task[[int, int], int]:
    @app.task(name="proj.add")
    def add(x: int, y: int) -> int:
        return x + y

    return add


def put(bench: Bench, message: bytes) -> None:
    bench.broker.send([Outgoing(Route("celery"), message)])


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(record, "event", "") for record in caplog.records]


# The ordinary way


def test_a_task_runs_and_its_value_can_be_read(bench: Bench) -> None:
    result = add_to(bench.app).delay(2, 3)
    bench.run()

    assert result.get(timeout=0) == 5
    assert bench.left() == 0


def test_each_task_runs_once_in_the_order_of_calls(bench: Bench) -> None:
    seen: list[int] = []

    @bench.app.task
    def note(number: int) -> None:
        seen.append(number)

    for number in range(20):
        note.delay(number)
    bench.run()

    assert seen == list(range(20))


def test_a_worker_holds_no_more_than_its_prefetch_allows() -> None:
    bench = Bench(worker_prefetch_multiplier=3)
    add = add_to(bench.app)
    for number in range(10):
        add.delay(number, 0)
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()

    assert bench.worker.intake.fetcher.turn() is False
    assert bench.worker.window.free() == 0


def test_an_ignored_result_is_not_kept(bench: Bench) -> None:
    @bench.app.task(ignore_result=True)
    def quiet() -> int:
        return 1

    quiet.delay()
    bench.run()

    assert bench.results.states == []
    assert bench.left() == 0


def test_a_call_that_wants_its_result_has_it_whatever_the_task_says(
    bench: Bench,
) -> None:
    @bench.app.task(ignore_result=True)
    def quiet() -> int:
        return 1

    result = quiet.apply_async(ignore_result=False)
    bench.run()

    assert result.get(timeout=0) == 1


def test_a_failure_is_kept_of_an_ignored_run_when_the_settings_ask() -> None:
    bench = Bench(task_ignore_result=True, task_store_errors_even_if_ignored=True)

    @bench.app.task
    def fails() -> None:
        raise ValueError("no")

    fails.delay()
    bench.run()

    assert bench.results.states == ["FAILURE"]


def test_started_is_kept_when_it_is_tracked() -> None:
    bench = Bench(task_track_started=True)
    add_to(bench.app).delay(1, 1)
    bench.run()

    assert bench.results.states == ["STARTED", "SUCCESS"]


def test_extended_results_say_what_ran_and_where() -> None:
    bench = Bench(result_extended=True)
    result = add_to(bench.app).delay(1, 1)
    bench.run()

    assert bench.results.metas[result.id].extended == {
        "name": "proj.add",
        "args": [1, 1],
        "kwargs": {},
        "worker": "celery@here",
        "retries": 0,
        "queue": "celery",
    }


@pytest.mark.parametrize("end", [None, ValueError(), Reject("no")])
def test_a_result_says_how_long_the_code_ran(end: Exception | None) -> None:
    bench = Bench()

    @bench.app.task
    def nap() -> None:
        bench.clock.go_to(bench.clock.now() + 40)
        if end:
            raise end

    result = nap.delay()
    bench.run()

    assert bench.results.metas[result.id].runtime == pytest.approx(0.04)
    assert "runtime" not in bench.results.metas[result.id].extended


# Times


def test_a_countdown_waits_in_the_broker(bench: Bench) -> None:
    result = add_to(bench.app).apply_async((2, 3), countdown=60)
    bench.run()
    assert result.state == "PENDING"
    assert bench.worker.window.free() == bench.worker.sizing.capacity

    bench.clock.go_to(NOON + MINUTE)
    bench.run()

    assert result.state == "SUCCESS"


def test_an_eta_in_the_past_runs_at_once(bench: Bench) -> None:
    result = add_to(bench.app).apply_async((2, 3), eta=datetime_of(NOON - HOUR))
    bench.run()

    assert result.state == "SUCCESS"


def test_what_has_expired_is_revoked_and_not_run(bench: Bench) -> None:
    result = add_to(bench.app).apply_async((2, 3), expires=10)
    bench.clock.go_to(NOON + 10 * SECOND)
    bench.run()

    assert result.state == "REVOKED"
    assert repr(result.result) == "Revoked('expired')"
    assert bench.left() == 0


def test_what_expires_while_it_waits_for_the_pool_is_not_run(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)
    add = add_to(bench.app)
    add.delay(1, 1)
    late = add.apply_async((2, 2), expires=10)
    bench.run()
    bench.clock.go_to(NOON + MINUTE)
    bench.inbox.put(TimedOut(pool.jobs[0].token, 1))
    bench.run()

    assert len(pool.jobs) == 1
    assert late.state == "REVOKED"


# What a task may say


def test_a_retry_comes_later_with_the_same_id(bench: Bench) -> None:
    tries: list[int] = []

    @bench.app.task(bind=True)
    def flaky(self: Task[..., Any]) -> str:
        tries.append(self.request.retries)
        if self.request.retries < 2:
            raise self.retry(countdown=30, exc=OSError("not yet"))
        return "done"

    result = flaky.delay()
    bench.run()
    assert result.state == "RETRY"
    assert isinstance(result.result, OSError)

    bench.clock.go_to(NOON + 30 * SECOND)
    bench.run()
    bench.clock.go_to(NOON + 60 * SECOND)
    bench.run()

    assert tries == [0, 1, 2]
    assert result.get(timeout=0) == "done"


def test_retries_end_with_the_exception_of_the_last_try(bench: Bench) -> None:
    @bench.app.task(
        autoretry_for=(ValueError,), retry_kwargs={"max_retries": 1, "countdown": 0}
    )
    def never() -> None:
        raise ValueError("no")

    result = never.delay()
    bench.run()

    assert bench.results.states == ["RETRY", "FAILURE"]
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=0)


def test_a_retry_keeps_what_the_call_said(bench: Bench) -> None:
    seen: list[dict[str, Any]] = []

    @bench.app.task(bind=True)
    def twice(self: Task[..., Any], word: str) -> None:
        request = self.request
        seen.append(
            {
                "id": request.id,
                "kwargs": dict(request.kwargs),
                "colour": request.colour,
                "root": request.root_id,
                "limit": request.timelimit,
                "priority": request.delivery_info["priority"],
            }
        )
        if not request.retries:
            self.retry(countdown=0)

    twice.apply_async(
        kwargs={"word": "a"}, headers={"colour": "red"}, time_limit=9, priority=3
    )
    bench.run()

    first, second = seen
    assert second == first
    assert first["limit"] == (9, None)


def test_a_retry_may_change_its_arguments(bench: Bench) -> None:
    @bench.app.task(bind=True)
    def grow(self: Task[..., Any], number: int) -> int:
        if number < 3:
            self.retry(args=(number + 1,), countdown=0)
        return number

    result = grow.delay(1)
    bench.run()

    assert result.get(timeout=0) == 3


@pytest.mark.parametrize(
    "asked",
    [
        *({"countdown": value} for value in (1e308, 1e12, "x", math.nan, [1], True)),
        {"eta": "soon"},
        {"eta": datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))},
        {"args": (object(),)},
        {"queue": "\ud800"},
        {"queue": 5},
        {"priority": 10**400},
        {"time_limit": "5"},
        {"headers": {"a": object()}},
    ],
    ids=lambda asked: re.sub(r" at 0x\w+", "", ascii(asked))[:60],
)
def test_a_retry_that_cannot_be_sent_fails_the_run(
    bench: Bench, asked: dict[str, Any]
) -> None:
    heard: list[Any] = []

    @bench.app.task(bind=True)
    def flaky(self: Task[..., Any]) -> None:
        raise self.retry(**asked)

    @bench.app.task
    def errback(task_id: str) -> None:
        heard.append(task_id)

    result = flaky.apply_async(link_error=errback.s())
    bench.run()

    assert result.state == "FAILURE"
    assert heard == [result.id]
    assert bench.left() == 0
    assert bench.broker.dead_letters() == []


@pytest.mark.parametrize(
    "options",
    [
        {"default_retry_delay": "5"},
        {"throws": (5,)},
        {"throws": 5},
        {"autoretry_for": 5, "dont_autoretry_for": (5,)},
        {"autoretry_for": (OSError,), "retry_backoff": math.inf},
        {"autoretry_for": (OSError,), "retry_backoff_max": "x", "retry_backoff": 1},
        {"autoretry_for": (OSError,), "retry_kwargs": {"countdown": 1e308}},
        {"autoretry_for": (OSError,), "retry_kwargs": 5},
    ],
    ids=repr,
)
def test_an_option_of_a_wrong_value_fails_the_run_that_needs_it(
    bench: Bench, options: dict[str, Any]
) -> None:
    heard: list[Any] = []

    @bench.app.task(bind=True, **options)
    def flaky(self: Task[..., Any]) -> None:
        if "default_retry_delay" in options:
            raise self.retry()
        raise OSError("not yet")

    @bench.app.task
    def errback(task_id: str) -> None:
        heard.append(task_id)

    result = flaky.apply_async(link_error=errback.s())
    bench.run()

    assert result.state == "FAILURE"
    assert heard == [result.id]


def test_throws_may_be_a_single_class_as_in_celery(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    @bench.app.task(throws=OSError)
    def flaky() -> None:
        raise OSError("as announced")

    flaky.delay()
    bench.run()

    assert "Traceback" not in caplog.text


def test_reject_sets_the_message_aside(bench: Bench) -> None:
    from beatd import Reject

    @bench.app.task
    def refuse() -> None:
        raise Reject("not mine")

    result = refuse.delay()
    bench.run()

    [dead] = bench.broker.dead_letters()
    assert (dead.reason, dead.task_id) == ("rejected: not mine", result.id)
    assert result.state == "FAILURE"
    assert bench.left() == 0


def test_reject_with_requeue_goes_to_the_end_of_the_queue(bench: Bench) -> None:
    from beatd import Reject

    seen: list[str] = []

    @bench.app.task
    def picky(name: str) -> None:
        seen.append(name)
        if seen == ["a"]:
            raise Reject("later", requeue=True)

    picky.delay("a")
    picky.delay("b")
    bench.run()

    assert seen == ["a", "b", "a"]


def test_reject_with_requeue_counts_as_a_delivery_and_is_marked(bench: Bench) -> None:
    seen: list[bool] = []

    @bench.app.task(bind=True)
    def picky(self: Task[..., Any]) -> None:
        seen.append(self.request.delivery_info["redelivered"])
        raise Reject("not yet", requeue=True)

    result = picky.delay()
    bench.run()

    assert bench.settings.task_max_deliveries == 3
    assert seen == [False, True, True]
    [dead] = bench.broker.dead_letters()
    assert dead.reason == "requeued after each of 3 deliveries: not yet"
    assert dead.deliveries == 3
    assert dead.task_id == result.id
    assert result.state == "FAILURE"
    message = json.loads(bench.broker.dead_message(dead.id) or b"")
    assert message["headers"]["redelivered"] is True  # as kombu marks it
    assert message["properties"]["delivery_info"]["redelivered"] is True
    assert bench.left() == 0


def test_reject_with_requeue_and_deaths_are_counted_together(bench: Bench) -> None:
    @bench.app.task
    def picky() -> None:
        raise Reject("not yet", requeue=True)

    picky.delay()
    for name in ("dead-1", "dead-2"):
        bench.broker.join(name, 1)
        bench.broker.take(name, ["celery"], 1, 1)
        bench.clock.go_to(bench.clock.now() + SECOND)
        bench.broker.recover()
    bench.run()

    [dead] = bench.broker.dead_letters()
    assert dead.reason == "requeued after each of 3 deliveries: not yet"


def test_what_was_requeued_is_not_set_aside_with_what_kills_its_worker(
    bench: Bench,
) -> None:
    runs: list[str] = []

    @bench.app.task
    def picky() -> None:
        runs.append("run")
        if len(runs) < 3:
            raise Reject("not yet", requeue=True)

    result = picky.delay()
    bench.broker.join("dies", 1)
    for _ in range(2):
        bench.worker.intake.lease.turn()
        bench.worker.intake.fetcher.turn()
        bench.handle()
        bench.worker.settler.settling.turn()
    bench.broker.take("dies", ["celery"], 1, 1)
    bench.clock.go_to(bench.clock.now() + SECOND)
    bench.broker.recover()
    bench.run()

    assert result.state == "SUCCESS"
    assert bench.broker.dead_letters() == []


def test_a_retry_of_what_was_requeued_is_a_new_message(bench: Bench) -> None:
    seen: list[tuple[int, int]] = []

    @bench.app.task(bind=True, max_retries=1)
    def picky(self: Task[..., Any]) -> None:
        seen.append((self.request.retries, len(seen)))
        if len(seen) == 3:
            raise self.retry(countdown=0)
        raise Reject("not yet", requeue=True)

    picky.delay()
    bench.run()

    assert [retries for retries, _ in seen] == [0, 0, 0, 1, 1, 1]


def test_ignore_keeps_nothing(bench: Bench) -> None:
    from beatd import Ignore

    @bench.app.task
    def quit_quietly() -> None:
        raise Ignore

    result = quit_quietly.delay()
    bench.run()

    assert result.state == "PENDING"
    assert bench.left() == 0


def test_a_task_may_tell_how_it_goes(bench: Bench) -> None:
    @bench.app.task(bind=True)
    def long(self: Task[..., Any]) -> str:
        self.update_state(state="PROGRESS", meta={"percent": 50})
        return "done"

    long.delay()
    bench.run()

    assert bench.results.states == ["PROGRESS", "SUCCESS"]


def test_what_is_linked_runs_with_the_value_in_front(bench: Bench) -> None:
    add = add_to(bench.app)
    seen: list[int] = []

    @bench.app.task
    def note(value: int) -> None:
        seen.append(value)

    add.apply_async((2, 3), link=[add.s(10), note.s(), note.si(99)])
    bench.run()

    assert seen == [5, 99]


def test_a_chain_runs_to_its_end(bench: Bench) -> None:
    add = add_to(bench.app)
    last = add.signature((100,), task_id="the-last")
    bench.app.send_task("proj.add", [1, 1], chain=[last, add.s(10)])
    bench.run()

    assert bench.results.metas["the-last"].result == 112


def test_an_error_link_gets_the_id_of_what_failed(bench: Bench) -> None:
    seen: list[str] = []

    @bench.app.task
    def fails() -> None:
        raise ValueError

    @bench.app.task
    def alarm(task_id: str) -> None:
        seen.append(task_id)

    result = fails.apply_async(link_error=alarm.s())
    bench.run()

    assert seen == [result.id]


def test_calls_made_by_a_task_are_its_children(bench: Bench) -> None:
    add = add_to(bench.app)

    @bench.app.task
    def parent() -> str:
        return add.delay(1, 2).id

    result = parent.delay()
    bench.run()

    (child,) = result.children
    assert child.id == result.result
    assert bench.app.AsyncResult(child.id).get(timeout=0) == 3


# Foreign code


class OddError(BaseException):
    def __repr__(self) -> str:
        raise SystemExit("even this")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("plain"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        MemoryError(),
        OddError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_task_raises_is_a_failure_and_the_worker_goes_on(
    bench: Bench, error: BaseException
) -> None:
    @bench.app.task
    def raises() -> None:
        raise error

    failed = raises.delay()
    after = add_to(bench.app).delay(1, 1)
    bench.run()

    assert failed.state == "FAILURE"
    assert after.state == "SUCCESS"


def test_endless_recursion_is_a_failure(bench: Bench) -> None:
    @bench.app.task
    def deeper() -> int:
        return deeper() + 1

    result = deeper.delay()
    bench.run()

    with pytest.raises(RecursionError):
        result.get(timeout=0)


def test_a_value_that_cannot_be_encoded_is_a_failure(bench: Bench) -> None:
    @bench.app.task
    def odd() -> object:
        return object()

    result = odd.delay()
    bench.run()

    assert result.state == "FAILURE"
    assert "object" in str(result.result)


def test_wrong_arguments_are_a_failure(bench: Bench) -> None:
    add_to(bench.app)
    result = bench.app.send_task("proj.add", [1])
    bench.run()

    with pytest.raises(TypeError, match="missing 1 required"):
        result.get(timeout=0)


def test_a_traceback_begins_in_the_task(bench: Bench) -> None:
    @bench.app.task
    def fails() -> None:
        raise ValueError("here")

    result = fails.delay()
    bench.run()

    traceback = result.traceback
    assert traceback is not None
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert os.path.join("beatd", "worker") not in traceback  # noqa: PTH118 (a piece)
    assert 'raise ValueError("here")' in traceback


def test_a_coroutine_is_run_to_its_end(bench: Bench) -> None:
    @bench.app.task(bind=True)
    async def later(self: Task[..., Any], value: int) -> list[Any]:
        import asyncio

        await asyncio.sleep(0)
        return [value, self.request.id]

    result: Any = later.delay(7)
    bench.run()

    assert result.get(timeout=0) == [7, result.id]


# Messages that are none


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\xff\x00garbage", "not UTF-8"),
        (b"{", "not JSON"),
        (b"[]", "expected"),
        (b'{"body": "", "properties": {}, "headers": {}}', "no serializer"),
    ],
)
def test_garbage_is_set_aside_and_the_queue_behind_it_moves(
    bench: Bench, message: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(bench, message)
    result = add_to(bench.app).delay(1, 1)
    bench.run()

    (dead,) = bench.broker.dead_letters()
    assert reason in dead.reason
    assert bench.broker.dead_message(dead.id) == message
    assert result.state == "SUCCESS"
    assert events(caplog) == ["task.set_aside"]


def message_for(bench: Bench, **changes: Any) -> bytes:
    """Return a message for proj.add with other envelope fields."""
    bench.app.send_task("proj.add", [1, 2], task_id="the-id")
    bench.broker.join("thief", HOUR)
    (taken,) = bench.broker.take("thief", ["celery"], 1, 1)
    return json.dumps({**json.loads(taken.message), **changes}).encode()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"body": "!"}, "not JSON"),
        ({"body": "W10="}, "expected [args, kwargs, embed]"),
        ({"content-type": "application/x-python-serialize"}, "pickle is refused"),
        ({"content-type": "text/plain"}, "text/plain"),
    ],
)
def test_a_body_that_cannot_be_read_is_set_aside_and_its_failure_kept(
    bench: Bench, changes: dict[str, Any], reason: str
) -> None:
    add_to(bench.app)
    put(bench, message_for(bench, **changes))
    bench.run()

    assert [dead.queue for dead in bench.broker.dead_letters()] == ["celery"]
    assert reason in bench.broker.dead_letters()[0].reason
    assert bench.results.states == ["FAILURE"]


def test_an_unknown_task_is_set_aside_and_its_failure_kept(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    result = bench.app.send_task("proj.nobody")
    bench.run()

    assert result.state == "FAILURE"
    [dead] = bench.broker.dead_letters()
    assert "proj.nobody" in dead.reason
    assert (dead.task, dead.task_id) == ("proj.nobody", result.id)
    assert events(caplog) == ["task.set_aside"]


def test_a_log_line_stays_one_line_whatever_a_message_holds(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    add_to(bench.app).apply_async((1, 2), shadow="evil\nERROR all is lost \x1b[2J")
    bench.run()

    assert caplog.records
    for record in caplog.records:
        assert "\n" not in record.getMessage()
        assert "\x1b" not in record.getMessage()


def test_arguments_are_not_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    add_to(bench.app).delay(12345, 1)
    bench.run()

    assert "12345" not in caplog.text


def test_a_failure_that_its_task_announces_is_no_error(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    @bench.app.task(throws=(KeyError,))
    def fails() -> None:
        raise KeyError("as announced")

    result = fails.delay()
    bench.run()

    assert result.state == "FAILURE"
    failed = [one for one in caplog.records if "task.failed" in vars(one).values()]
    assert [record.levelname for record in failed] == ["INFO"]
    assert "Traceback" not in caplog.text


def test_a_run_that_asks_for_another_one_and_goes_on_has_both(bench: Bench) -> None:
    runs: list[int] = []

    @bench.app.task(bind=True)
    def work(self: Task[..., Any]) -> str:
        assert self.request.eta is None, "at once is not at a time"
        runs.append(self.request.retries)
        if not self.request.retries:
            self.retry(countdown=0, throw=False)
        return "went on"

    work.delay()
    bench.run()

    assert runs == [0, 1]
    assert bench.results.states == ["SUCCESS", "SUCCESS"]


def test_what_beatd_itself_cannot_run_is_set_aside_and_not_tried_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    add_to(bench.app).delay(1, 1)
    pool = with_held_pool(bench)
    bench.run()
    (job,) = pool.jobs

    without_the_task = Bench().execute
    bench.inbox.put(Finished(job.token, without_the_task(job)))
    bench.run()

    assert "task.broken" in events(caplog)
    (dead,) = bench.broker.dead_letters()
    assert dead.reason.startswith("beatd could not run it")
    assert bench.results.states == ["FAILURE"]


# Death and delay


def test_a_run_whose_process_died_runs_again(bench: Bench) -> None:
    pool = with_held_pool(bench)
    add_to(bench.app).delay(1, 1)
    bench.run()
    bench.inbox.put(Lost(pool.jobs[0].token, "signal 9 (SIGKILL)"))
    bench.run()

    assert [job.deliveries for job in pool.jobs] == [1, 2]
    assert bench.left() == 1


def test_a_message_that_kills_its_process_each_time_is_set_aside_with_its_history() -> (
    None
):
    bench = Bench(task_max_deliveries=3)
    pool = with_held_pool(bench)
    result = add_to(bench.app).delay(1, 1)
    bench.run()
    for death in ("exit 1", "exit 2", "exit 3"):
        bench.inbox.put(Lost(pool.jobs[-1].token, death))
        bench.run()

    assert len(pool.jobs) == 3
    (dead,) = bench.broker.dead_letters()
    assert dead.reason.endswith("exit 1; exit 2; exit 3")
    assert dead.deliveries == 3
    assert isinstance(result.result, WorkerLost)


def test_a_task_whose_first_worker_died_knows_that_it_is_redelivered(
    bench: Bench,
) -> None:
    @bench.app.task(bind=True)
    def asked(self: Task[..., Any]) -> list[Any]:
        request = self.request
        return [
            *(request.delivery_info["redelivered"], request.callbacks),
            *(request.properties["body_encoding"], request.compression),
        ]

    first = asked.apply_async(compression="zlib")
    bench.broker.join("dead", 1)
    bench.broker.take("dead", ["celery"], 1, 1)
    bench.clock.go_to(bench.clock.now() + SECOND)
    bench.broker.recover()
    second = asked.delay()
    bench.run()

    assert first.result == [True, None, "base64", "application/x-gzip"]
    assert second.result == [False, None, "base64", None]


def test_a_message_that_outlived_too_many_workers_is_not_tried_again() -> None:
    bench = Bench(task_max_deliveries=2)
    result = add_to(bench.app).delay(1, 1)
    for name in ("dead-1", "dead-2"):
        bench.broker.join(name, 1)
        bench.broker.take(name, ["celery"], 1, 1)
        bench.clock.go_to(bench.clock.now() + SECOND)
        bench.broker.recover()
    bench.run()

    assert len(bench.broker.dead_letters()) == 1
    assert isinstance(result.result, WorkerLost)


def test_a_message_that_ends_whoever_reads_it_is_set_aside_unread() -> None:
    bench = Bench(task_max_deliveries=1)
    put(bench, b"poison")
    for name in ("dead-1", "dead-2"):
        bench.broker.join(name, 1)
        bench.broker.take(name, ["celery"], 1, 1)
        bench.clock.go_to(bench.clock.now() + SECOND)
        bench.broker.recover()
    bench.run()

    [dead] = bench.broker.dead_letters()
    assert dead.reason == "delivered 3 times"


def test_a_lost_run_fails_at_once_when_the_task_is_not_to_be_given_back(
    bench: Bench,
) -> None:
    @bench.app.task(reject_on_worker_lost=False)
    def fragile() -> None:
        pass

    pool = with_held_pool(bench)
    result = fragile.delay()
    bench.run()
    bench.inbox.put(Lost(pool.jobs[0].token, "signal 11 (SIGSEGV)"))
    bench.run()

    assert result.state == "FAILURE"
    assert len(pool.jobs) == 1
    assert bench.left() == 0


def lose(bench: Bench, pool: HeldPool) -> None:
    """Let the process die that runs what the pool was given last."""
    bench.inbox.put(Lost(pool.jobs[-1].token, "exit 1"))
    bench.run()


@pytest.mark.parametrize("early", [False, True])
def test_a_lost_run_is_retried_with_its_task_s_pause_when_it_asks_for_that(
    early: bool,
) -> None:
    bench = Bench(task_retry_on_worker_lost=True, task_max_deliveries=1)

    @bench.app.task(default_retry_delay=30, max_retries=2, acks_late=not early)
    def fragile(number: int) -> None:
        pass

    pool = with_held_pool(bench)
    result = fragile.apply_async([7], priority=3)
    bench.run()
    for _ in range(2):
        lose(bench, pool)
        assert result.state == "RETRY"
        assert isinstance(result.result, WorkerLost)
        tried = len(pool.jobs)
        bench.clock.go_to(bench.clock.now() + 29 * SECOND)
        bench.run()
        assert len(pool.jobs) == tried
        bench.clock.go_to(bench.clock.now() + SECOND)
        bench.run()

    envelope = read_envelope(pool.jobs[-1].message)
    assert (envelope.id, envelope.retries, envelope.priority) == (result.id, 2, 3)
    assert read_body(envelope).args == [7]
    assert pool.jobs[-1].deliveries == 1

    lose(bench, pool)
    assert len(pool.jobs) == 3
    assert bench.results.states == ["RETRY", "RETRY", "FAILURE"]
    assert bench.broker.dead_letters() == []
    assert bench.left() == 0


def test_a_task_may_have_its_lost_runs_retried_without_end_and_at_once(
    bench: Bench,
) -> None:
    @bench.app.task(
        retry_on_worker_lost=True,
        reject_on_worker_lost=True,
        default_retry_delay=0,
        max_retries=None,
    )
    def stubborn() -> None:
        pass

    pool = with_held_pool(bench)
    stubborn.delay()
    bench.run()
    for _ in range(9):
        lose(bench, pool)

    assert read_envelope(pool.jobs[-1].message).retries == 9
    assert bench.broker.dead_letters() == []


def test_a_run_that_was_ended_by_force_has_failed(bench: Bench) -> None:
    pool = with_held_pool(bench)
    result = add_to(bench.app).apply_async((1, 1), time_limit=0.5)
    bench.run()
    assert pool.jobs[0].time_limit == 0.5
    bench.inbox.put(TimedOut(pool.jobs[0].token, 0.5))
    bench.run()

    assert repr(result.result) == "TimeLimitExceeded(0.5)"
    assert bench.left() == 0


@pytest.mark.parametrize(
    ("call", "task", "settings", "expected"),
    [
        ({}, {}, {}, (None, None)),
        ({}, {}, {"task_time_limit": 9, "task_soft_time_limit": 8}, (9, 8)),
        ({}, {"time_limit": 7}, {"task_time_limit": 9}, (7, None)),
        ({"soft_time_limit": 5}, {"soft_time_limit": 6}, {}, (None, 5)),
    ],
)
def test_limits_come_from_the_call_the_task_or_the_settings(
    call: dict[str, Any],
    task: dict[str, Any],
    settings: dict[str, Any],
    expected: tuple[float | None, float | None],
) -> None:
    bench = Bench(**settings)

    @bench.app.task(**task)
    def limited() -> None:
        pass

    pool = with_held_pool(bench)
    limited.apply_async(**call)
    bench.run()

    (job,) = pool.jobs
    assert (job.time_limit, job.soft_time_limit) == expected


def test_at_most_once_is_acknowledged_before_it_runs(bench: Bench) -> None:
    in_flight_at_run: list[int] = []

    @bench.app.task(acks_late=False)
    def once() -> None:
        in_flight_at_run.append(bench.left())

    result = once.delay()
    bench.run()

    assert in_flight_at_run == [0]
    assert result.state == "SUCCESS"


class NeverBegins(MemoryBroker):
    """Refuses to acknowledge what is about to begin."""

    def settle(
        self,
        worker: str,
        acts: Sequence[Act],
        sends: Sequence[Outgoing],
        request: int,
    ) -> list[Answer]:
        if not any(isinstance(act, Begin) for act in acts):
            return super().settle(worker, acts, sends, request)
        return [Answer(Effect.REFUSED, "not this one")] * len(acts)


def test_at_most_once_does_not_run_what_cannot_be_acknowledged() -> None:
    bench = Bench(broker=NeverBegins())
    ran: list[int] = []

    @bench.app.task(acks_late=False)
    def once() -> None:
        ran.append(1)

    full = bench.worker.window.free()
    once.delay()
    bench.run()

    assert ran == []
    assert bench.worker.held == 0
    assert bench.worker.window.free() == full
    assert bench.left() == 1, "another worker may run it"


def test_at_most_once_is_not_run_again_when_its_process_dies(bench: Bench) -> None:
    @bench.app.task(acks_late=False)
    def once() -> None:
        pass

    full = bench.worker.window.free()
    pool = with_held_pool(bench)
    result = once.delay()
    bench.run()
    bench.inbox.put(Lost(pool.jobs[0].token, "signal 9 (SIGKILL)"))
    bench.run()

    assert len(pool.jobs) == 1
    assert isinstance(result.result, WorkerLost)
    assert bench.worker.window.free() == full


def test_a_failure_is_set_aside_when_failures_are_not_acknowledged() -> None:
    bench = Bench(task_acks_on_failure=False)

    @bench.app.task
    def fails() -> None:
        raise ValueError("no")

    fails.delay()
    bench.run()

    assert len(bench.broker.dead_letters()) == 1


def test_a_failure_is_not_set_aside_when_its_message_was_acknowledged_early() -> None:
    bench = Bench(task_acks_on_failure=False, task_acks_late=False)

    @bench.app.task
    def fails() -> None:
        raise ValueError("no")

    result = fails.delay()
    bench.run()

    assert bench.broker.dead_letters() == []
    assert isinstance(result.result, ValueError)


def test_who_waits_for_a_failure_hears_of_it_though_its_message_is_set_aside() -> None:
    bench = Bench(task_acks_on_failure=False)
    told: list[str] = []

    @bench.app.task
    def fails() -> None:
        raise ValueError("no")

    @bench.app.task
    def note(task_id: str) -> None:
        told.append(task_id)

    result = fails.apply_async(link_error=note.s())
    bench.run()

    assert told == [result.id]
    assert len(bench.broker.dead_letters()) == 1


def test_of_a_traceback_without_end_the_last_part_is_kept(bench: Bench) -> None:
    @bench.app.task
    def fails() -> None:
        raise ValueError("x" * 10 * LONGEST_TRACEBACK + " the end")

    result = fails.delay()
    bench.run()

    text = bench.results.metas[result.id].traceback
    assert text is not None
    assert len(text) <= LONGEST_TRACEBACK
    assert text.endswith(" the end\n")


def test_what_is_ignored_is_ignored_when_it_is_tried_again(bench: Bench) -> None:
    @bench.app.task(bind=True)
    def work(self: Task[..., Any]) -> None:
        if not self.request.retries:
            raise self.retry(countdown=0)

    work.apply_async(ignore_result=True)
    bench.run()

    assert bench.worker.workload.total[work.name] == 2
    assert bench.results.states == []


def test_an_extended_result_has_the_arguments_of_a_run_that_never_began() -> None:
    bench = Bench(result_extended=True)
    sent = add_to(bench.app).apply_async((1, 2), expires=-1)
    bench.run()

    kept = bench.app.meta_of(sent.id)
    assert kept.status == "REVOKED"
    assert kept.extended["args"] == [1, 2]
    assert kept.extended["worker"] == bench.worker.name


def test_what_succeeded_is_not_run_twice_when_the_settings_ask() -> None:
    bench = Bench(worker_deduplicate_successful_tasks=True, task_max_deliveries=9)
    runs: list[int] = []

    @bench.app.task
    def count() -> None:
        runs.append(1)

    count.delay()
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()
    # The result is kept, and the worker dies before the delivery is settled.
    bench.worker.settler.keeping.turn()
    bench.clock.go_to(NOON + HOUR)
    bench.broker.recover()
    bench.run()

    assert runs == [1]
    assert bench.left() == 0


# Results that cannot be kept


def test_a_delivery_stays_in_flight_until_its_result_is_kept(bench: Bench) -> None:
    result = add_to(bench.app).delay(2, 3)
    bench.results.away = True
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()
    with pytest.raises(ResultUnavailable):
        bench.worker.settler.keeping.turn()

    assert bench.left() == 1
    bench.results.away = False
    bench.run()
    assert result.get(timeout=0) == 5


# The end of an entry's run


def sent_by_an_entry(bench: Bench, name: str, **options: Any) -> AsyncResult[Any]:
    """Send a call as the current run of the entry `nightly`."""
    headers = {"beatd_entry": "nightly", "beatd_slot": "2027-01-15T12:00:00+00:00"}
    sent = bench.app.send_task(name, headers=headers, **options)
    bench.remember_run("nightly", sent.id)
    return sent


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    "ending", ["well", "badly", "unknown", "lost", "rejected", "expired", "revoked"]
)
def test_the_end_of_a_run_is_told_to_the_scheduler(
    bench: Bench, ending: str, early: bool
) -> None:
    @bench.app.task(name="proj.ends", acks_late=not early, reject_on_worker_lost=False)
    def ends() -> None:
        if ending == "badly":
            raise ValueError
        if ending == "rejected":
            raise Reject("not now", requeue=False)

    name = "proj.x" if ending == "unknown" else "proj.ends"
    expires = -1 if ending == "expired" else None
    sent = sent_by_an_entry(bench, name, expires=expires)
    if ending == "revoked":
        command(bench, "revoke", task_id=sent.id)
    if ending == "lost":
        pool = with_held_pool(bench)
        bench.run()
        assert bench.broker.running(["nightly"]) == {"nightly": sent.id}
        bench.inbox.put(Lost(pool.jobs[0].token, "exit 1"))
    bench.run()

    assert bench.broker.running(["nightly"]) == {}


def test_a_run_that_nobody_can_read_has_ended(bench: Bench) -> None:
    sent = bench.app.send_task(
        "proj.x", headers={"beatd_entry": "nightly"}, serializer="yaml"
    )
    bench.remember_run("nightly", sent.id)

    bench.run()

    assert len(bench.broker.dead_letters()) == 1
    assert bench.broker.running(["nightly"]) == {}


def test_a_run_whose_workers_all_die_has_ended_when_it_is_set_aside(
    bench: Bench,
) -> None:
    sent = sent_by_an_entry(bench, "proj.x")
    for number in range(bench.settings.task_max_deliveries + 1):
        bench.broker.join(f"dies{number}", 1)
        assert bench.broker.take(f"dies{number}", ["celery"], 1, 1)
        bench.clock.go_to(bench.clock.now() + SECOND)
        bench.broker.recover()
    assert bench.broker.running(["nightly"]) == {"nightly": sent.id}

    bench.run()

    assert len(bench.broker.dead_letters()) == 1
    assert bench.broker.running(["nightly"]) == {}


@pytest.mark.parametrize("early", [False, True])
def test_a_retry_is_not_the_end_of_a_run(bench: Bench, early: bool) -> None:
    @bench.app.task(name="proj.again", bind=True, acks_late=not early)
    def again(self: Task[..., Any]) -> None:
        if not self.request.retries:
            self.retry(countdown=60)

    sent = sent_by_an_entry(bench, "proj.again")
    bench.run()
    assert bench.broker.running(["nightly"]) == {"nightly": sent.id}
    assert bench.broker.held_runs([sent.id]) == set()

    bench.clock.go_to(NOON + MINUTE)
    bench.run()

    assert bench.broker.running(["nightly"]) == {}


# Stopping


def test_a_warm_stop_lets_runs_end_and_gives_the_rest_back(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)
    add = add_to(bench.app)
    first, second = add.delay(1, 1), add.delay(2, 2)
    bench.run()
    bench.inbox.put(Stop.WARM)
    bench.handle()
    bench.settle()

    assert not pool.killed
    bench.broker.join("other", HOUR)
    (delivery,) = bench.broker.take("other", ["celery"], 9, 1)
    assert second.id.encode() in delivery.message
    assert delivery.deliveries == 1

    bench.inbox.put(TimedOut(pool.jobs[0].token, 1))
    bench.handle()
    bench.settle()
    assert first.state == "FAILURE"


def test_a_run_whose_process_dies_while_the_worker_stops_is_another_workers(
    bench: Bench,
) -> None:
    pool = with_held_pool(bench, size=1)
    add_to(bench.app).delay(1, 1)
    bench.run()
    bench.inbox.put(Stop.WARM)
    bench.handle()

    bench.inbox.put(Lost(pool.jobs[0].token, "signal 9"))
    bench.handle()
    bench.settle()

    assert len(pool.jobs) == 1
    bench.broker.join("other", HOUR)
    assert len(bench.broker.take("other", ["celery"], 9, 1)) == 1


def test_a_cold_stop_kills_the_pool_and_gives_everything_back(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)
    add = add_to(bench.app)
    add.delay(1, 1)
    add.delay(2, 2)
    bench.run()
    bench.inbox.put(Stop.COLD)
    bench.handle()
    bench.inbox.put(Lost(pool.jobs[0].token, "killed"))
    bench.handle()
    bench.settle()

    assert pool.killed
    assert bench.left() == 2
    assert bench.results.states == []


def stopping_softly() -> tuple[Bench, HeldPool]:
    """Return a worker of which one run is left ten seconds, and its pool."""
    bench = Bench(worker_soft_shutdown_timeout=10)
    pool = with_held_pool(bench, size=1)
    add = add_to(bench.app)
    add.delay(1, 1)
    add.delay(2, 2)
    bench.run()
    bench.inbox.put(Stop.COLD)
    bench.handle()
    bench.settle()
    return bench, pool


def test_a_soft_stop_gives_back_what_has_not_begun_and_waits_for_the_rest() -> None:
    bench, pool = stopping_softly()
    bench.clock.go_to(NOON + 9 * SECOND)
    bench.inbox.put(TimePassed())
    bench.handle()

    assert not pool.killed
    bench.broker.join("other", HOUR)
    assert len(bench.broker.take("other", ["celery"], 9, 1)) == 1


def test_a_soft_stop_is_cold_when_its_time_is_over() -> None:
    bench, pool = stopping_softly()
    bench.clock.go_to(NOON + 10 * SECOND)
    bench.inbox.put(TimePassed())
    bench.handle()

    assert pool.killed


def test_a_soft_stop_is_cold_at_once_when_it_is_asked_for_again() -> None:
    bench, pool = stopping_softly()
    bench.inbox.put(Stop.WARM)
    bench.handle()
    assert not pool.killed
    bench.inbox.put(Stop.COLD)
    bench.handle()

    assert pool.killed


def test_a_warm_stop_that_lasts_too_long_becomes_a_soft_one() -> None:
    bench = Bench(worker_soft_shutdown_timeout=10)
    pool = with_held_pool(bench, size=1)
    add_to(bench.app).delay(1, 1)
    bench.run()
    for stop in (Stop.WARM, Stop.COLD):
        bench.inbox.put(stop)
        bench.handle()
    assert not pool.killed

    bench.clock.go_to(NOON + 10 * SECOND)
    bench.inbox.put(TimePassed())
    bench.handle()

    assert pool.killed


def test_a_worker_with_nothing_to_do_needs_no_soft_stop() -> None:
    bench = Bench(worker_soft_shutdown_timeout=10)
    pool = with_held_pool(bench)
    bench.inbox.put(Stop.COLD)
    bench.handle()

    assert pool.killed


def test_started_comes_before_the_outcome() -> None:
    bench = Bench(task_track_started=True)
    pool = with_held_pool(bench)
    free = bench.worker.window.free()
    result = add_to(bench.app).delay(1, 1)
    bench.run()
    bench.inbox.put(Started(pool.jobs[0].token, 4711))
    bench.run()

    assert bench.worker.window.free() == free - 1
    assert result.state == "STARTED"
    assert result.result == {"pid": 4711, "hostname": "celery@here"}
