"""What a task's own methods and receivers of signals get to know of its runs."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from beatd import signals
from beatd.brokers.items import Outgoing
from beatd.errors import Ignore, NotRegistered, Reject, ResultUnavailable
from beatd.pools.base import Lost, PoolEvent, TimedOut
from beatd.routing import Route
from beatd.signals import Signal
from beatd.tasks import Task
from tests.worker.bench import Bench, with_held_pool

PER_RUN = (
    *(signals.task_prerun, signals.task_postrun, signals.task_success),
    *(signals.task_failure, signals.task_retry, signals.task_revoked),
)


class Diary:
    """What was told, in order; connected to the signals of one task."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.heard: dict[str, dict[str, Any]] = {}

    def __call__(self, signal: Signal, **heard: Any) -> None:
        self.entries.append(signal.name)
        self.heard[signal.name] = heard

    def note(self, name: str, *heard: Any) -> None:
        self.entries.append(name)
        self.heard[name] = {"args": heard}


class Chatty(Task[..., Any]):
    """Tells a diary of all that happens to it."""

    diary: Diary

    def before_start(self, *heard: Any) -> None:
        self.diary.note("before_start", *heard)

    def on_success(self, *heard: Any) -> None:
        self.diary.note("on_success", *heard)

    def on_failure(self, *heard: Any) -> None:
        self.diary.note("on_failure", *heard)

    def on_retry(self, *heard: Any) -> None:
        self.diary.note("on_retry", *heard)

    def after_return(self, *heard: Any) -> None:
        self.diary.note("after_return", *heard)


@pytest.fixture
def diary() -> Iterator[Diary]:
    diary = Diary()
    for signal in PER_RUN:
        signal.connect(diary, sender="proj.work")
    yield diary
    for signal in PER_RUN:
        signal.disconnect(diary, sender="proj.work")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def work(bench: Bench, diary: Diary, **options: Any) -> Task[..., Any]:
    """Make a task that does what its argument says, and tells the diary."""

    def body(self: Task[..., Any], what: str) -> Any:
        diary.entries.append("code")
        if what == "retry" and self.request.retries == 0:
            raise self.retry(countdown=0, exc=OSError("busy"))
        if what == "ignore":
            raise Ignore
        if what == "reject":
            raise Reject("no")
        if what == "fail":
            raise ValueError("no")
        return f"did {what}"

    made = {"name": "proj.work", "bind": True, "base": Chatty, **options}
    decorate: Any = bench.app.task(**made)
    task: Chatty = decorate(body)
    task.diary = diary
    return task


def test_a_success_is_told_in_order(bench: Bench, diary: Diary) -> None:
    task = work(bench, diary)
    sent = task.delay("it")

    bench.run()

    assert diary.entries == [
        *("task_prerun", "before_start", "code"),
        *("on_success", "task_success", "after_return", "task_postrun"),
    ]
    heard = diary.heard
    assert heard["task_prerun"] == {
        "sender": task,
        "task": task,
        "task_id": sent.id,
        "args": ["it"],
        "kwargs": {},
    }
    assert heard["before_start"] == {"args": (sent.id, ["it"], {})}
    assert heard["on_success"] == {"args": ("did it", sent.id, ["it"], {})}
    assert heard["task_success"]["result"] == "did it"
    assert heard["task_success"]["runtime"] >= 0
    assert heard["after_return"] == {
        "args": ("SUCCESS", "did it", sent.id, ["it"], {}, None)
    }
    assert (heard["task_postrun"]["state"], heard["task_postrun"]["retval"]) == (
        *("SUCCESS", "did it"),
    )


def test_a_failure_is_told_with_its_exception(bench: Bench, diary: Diary) -> None:
    sent = work(bench, diary).delay("fail")

    bench.run()

    assert diary.entries == [
        *("task_prerun", "before_start", "code"),
        *("on_failure", "task_failure", "after_return", "task_postrun"),
    ]
    error, task_id, args, kwargs, info = diary.heard["on_failure"]["args"]
    assert repr(error) == "ValueError('no')"
    assert (task_id, args, kwargs) == (sent.id, ["fail"], {})
    assert info.exception is error
    assert info.type is ValueError
    assert str(info).startswith("Traceback")
    assert str(info).endswith("ValueError: no\n")
    told = diary.heard["task_failure"]
    assert (told["exception"], told["einfo"]) == (error, info)
    assert told["traceback"] is error.__traceback__
    assert (told["task_id"], told["args"]) == (sent.id, ["fail"])
    assert diary.heard["after_return"]["args"][:2] == ("FAILURE", error)
    assert diary.heard["task_postrun"]["state"] == "FAILURE"


def test_a_retry_is_told_and_then_its_success(bench: Bench, diary: Diary) -> None:
    sent = work(bench, diary).delay("retry")

    bench.run()

    assert diary.entries == [
        *("task_prerun", "before_start", "code"),
        *("on_retry", "task_retry", "task_postrun"),
        *("task_prerun", "before_start", "code"),
        *("on_success", "task_success", "after_return", "task_postrun"),
    ]
    error, task_id, *_ = diary.heard["on_retry"]["args"]
    assert (repr(error), task_id) == ("OSError('busy')", sent.id)
    assert repr(diary.heard["task_retry"]["reason"].exc) == "OSError('busy')"
    assert diary.heard["task_retry"]["request"].id == sent.id


def test_a_run_that_decides_itself_is_only_over(bench: Bench, diary: Diary) -> None:
    work(bench, diary).delay("ignore")

    bench.run()

    assert diary.entries == ["task_prerun", "before_start", "code", "task_postrun"]
    assert diary.heard["task_postrun"]["state"] == "IGNORED"


def test_a_run_that_refuses_its_message_is_a_failure_to_receivers(
    bench: Bench, diary: Diary
) -> None:
    work(bench, diary).delay("reject")

    bench.run()

    assert diary.entries[3:] == ["task_failure", "task_postrun"]
    assert diary.heard["task_postrun"]["state"] == "REJECTED"
    assert isinstance(diary.heard["task_failure"]["exception"], Reject)


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        (lambda token: TimedOut(token, 5), "TimeLimitExceeded(5)"),
        (lambda token: Lost(token, "signal 9"), "WorkerLost("),
    ],
    ids=["time limit", "lost"],
)
def test_a_failure_that_its_process_cannot_tell_is_told_by_the_worker(
    bench: Bench, diary: Diary, end: Callable[[str], PoolEvent], shown: str
) -> None:
    pool = with_held_pool(bench)
    task = work(bench, diary, reject_on_worker_lost=False)
    sent = task.delay("it")
    bench.run()
    (job,) = pool.jobs

    bench.worker.handle(end(job.token))
    bench.run()

    assert diary.entries == ["on_failure", "task_failure", "after_return"]
    heard = diary.heard["task_failure"]
    assert (heard["sender"], heard["task_id"], heard["args"]) == (task, sent.id, ["it"])
    assert repr(heard["exception"]).startswith(shown)
    assert heard["einfo"].exception is heard["exception"]
    assert diary.heard["on_failure"]["args"][:2] == (heard["exception"], sent.id)


def test_a_failure_is_told_once_though_it_was_to_be_kept_again(
    bench: Bench, diary: Diary
) -> None:
    pool = with_held_pool(bench)
    work(bench, diary).delay("it")
    bench.run()
    bench.results.away = True
    bench.worker.handle(TimedOut(pool.jobs[0].token, 5))
    for _ in range(3):
        with pytest.raises(ResultUnavailable):
            bench.settle()
    assert diary.entries == []
    bench.results.away = False
    bench.run()

    assert diary.entries.count("task_failure") == 1


def test_messages_are_told_of_by_the_worker(bench: Bench) -> None:
    diary = Diary()
    told = (signals.task_received, signals.task_unknown, signals.task_rejected)
    for signal in told:
        signal.connect(diary)
    known = work(bench, diary).delay("it")
    unknown = bench.app.send_task("proj.nobody")
    bench.broker.send([Outgoing(Route("celery"), b"garbage")])
    bench.run()
    for signal in told:
        signal.disconnect(diary)

    received, nobody, garbage = (diary.heard[signal.name] for signal in told)
    assert {heard["sender"].hostname for heard in (received, nobody, garbage)} == {
        "celery@here"
    }
    assert (received["request"].id, received["request"].name) == (known.id, "proj.work")
    assert (nobody["name"], nobody["id"]) == ("proj.nobody", unknown.id)
    assert isinstance(nobody["exc"], NotRegistered)
    assert garbage["message"] == b"garbage"
    assert "not JSON" in str(garbage["exc"])


def test_what_before_start_raises_is_the_runs_failure(bench: Bench) -> None:
    class Locked(Task[..., Any]):
        def before_start(self, *_: Any) -> None:
            raise RuntimeError("locked")

    @bench.app.task(base=Locked)
    def work() -> None:
        raise AssertionError("it must not run")

    sent = work.delay()
    bench.run()

    assert repr(sent.result) == "RuntimeError('locked')"


@pytest.mark.parametrize("hook", ["on_success", "after_return"])
def test_a_hook_that_raises_is_logged_and_changes_nothing(
    bench: Bench, diary: Diary, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(*_: Any) -> None:
        raise SystemExit(3)

    sent = work(bench, diary, **{hook: bad}).delay("it")
    with caplog.at_level(logging.ERROR):
        bench.run()

    assert sent.get(timeout=0) == "did it"
    (record,) = caplog.records
    assert record.__dict__["event"] == "hook.failed"
    assert f"{hook} of task proj.work raised" in record.message
    assert diary.entries[-1] == "task_postrun"


@pytest.mark.parametrize("name", ["task_prerun", "task_failure", "task_postrun"])
def test_a_receiver_that_raises_changes_nothing(
    bench: Bench, diary: Diary, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(**_: Any) -> None:
        raise KeyError("mine")

    signal: Signal = getattr(signals, name)
    signal.connect(bad, sender="proj.work")
    try:
        sent = work(bench, diary).delay("fail")
        with caplog.at_level(logging.ERROR):
            bench.run()
    finally:
        signal.disconnect(bad, sender="proj.work")

    assert repr(sent.result) == "ValueError('no')"
    assert [one.__dict__["event"] for one in caplog.records] == [
        *(["signal.failed", "task.failed"]),
    ]
    assert diary.entries[-1] == "task_postrun"


def test_what_expires_is_told_by_the_worker(bench: Bench, diary: Diary) -> None:
    task = work(bench, diary)
    sent = task.apply_async(["it"], expires=-1)

    bench.run()

    assert diary.entries == ["task_revoked"]
    heard = diary.heard["task_revoked"]
    assert (heard["terminated"], heard["signum"], heard["expired"]) == (
        False,
        None,
        True,
    )
    assert heard["request"].id == sent.id
    assert heard["sender"] is task


def test_what_is_revoked_is_told_by_the_worker(bench: Bench, diary: Diary) -> None:
    with_held_pool(bench)
    sent = work(bench, diary).delay("it")
    bench.worker.revocations.revoke([sent.id], ())

    bench.run()

    assert diary.entries == ["task_revoked"]
    assert diary.heard["task_revoked"]["expired"] is False


def test_a_call_of_the_tasks_own_class_is_around_its_code(bench: Bench) -> None:
    inside: list[str] = []

    class InContext(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            inside.append("in")
            try:
                return super().__call__(*args, **kwargs)
            finally:
                inside.append("out")

    @bench.app.task(bind=True, base=InContext)
    def work(self: Any, x: int) -> tuple[str, int]:
        inside.append("code")
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return self.request.id, x

    sent = work.delay(1)
    bench.run()

    value: Any = sent.get(timeout=0)
    assert value == [sent.id, 1]
    assert inside == ["in", "code", "out"] * 2
