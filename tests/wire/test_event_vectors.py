"""What Celery's worker says of tasks, said by ours: the same events, in that order.

`events.jsonl` copies from `shared/wire/vectors.jsonl` what the kinds ev.* say: the
call, and each event with the envelope and the channel that it came in.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from beatd import Ignore, Reject
from beatd.brokers.base import Broadcast, Subscription
from beatd.instant import SECOND
from beatd.message import read_notice
from beatd.routing import Queue
from beatd.tasks import Task
from beatd.worker.events import Load
from tests.worker.bench import Bench

RECORDED = Path(__file__).with_name("events.jsonl").read_text().splitlines()
VECTORS = [json.loads(line) for line in RECORDED]
TASKS = [vector for vector in VECTORS if "task" in vector["id"]]
WORKERS = [vector for vector in VECTORS if "task" not in vector["id"]]

NODE = "w1@host.example"

VOLATILE = ("pid", "clock", "timestamp", "loadavg", "sw_sys", "runtime", "traceback")

OURS = {"sw_ident": "beatd", "sw_ver": "0.1.0"}
"""Which software a worker is, it says for itself."""

EXCEPTIONS = {
    # Celery's own text for it shows an object of its tracer.
    "ExceptionWithTraceback()": "Reject('no thanks', False)",
    # There the exception is its own message.
    "Retry(Retry(...), KeyError('not yet'), 0)": "Retry(None, KeyError('not yet'), 0)",
}


class BatchWorker:
    """A worker whose events are heard."""

    def __init__(self) -> None:
        self.bench = Bench(name=NODE, is_monitored=True)
        assert self.bench.events
        self.events = self.bench.events
        self.events.enabled = True
        assert isinstance(self.bench.broker, Broadcast)
        self._hearing: Subscription = self.bench.broker.listen(
            Queue("celeryev.me", "celeryev", "fanout", "#")
        )
        self._hearing.wait(0)

    def heard(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return each event, with its envelope."""
        self.events.turn()
        found = []
        for raw in self._hearing.wait(0):
            envelope = json.loads(raw)
            body = read_notice(raw).body
            said = body if isinstance(body, list) else [body]
            found += [(event, envelope) for event in said]
        return found


@pytest.fixture
def stage() -> BatchWorker:
    return BatchWorker()


def make_tasks(stage: BatchWorker, module: str) -> None:
    """Give the worker the tasks that the recorded one had."""

    def made(name: str, **options: Any) -> Any:
        return stage.bench.app.task(name=f"{module}.{name}", **options)

    @made("add")  # type: ignore[untyped-decorator]  # made by a name
    def add(x: float, y: float) -> float:
        return x + y

    @made("echo")  # type: ignore[untyped-decorator]
    def echo(*args: Any, **kwargs: Any) -> Any:
        return {"args": args, "kwargs": kwargs}

    @made("fail")  # type: ignore[untyped-decorator]
    def fail(text: str) -> None:
        raise ValueError(text)

    @made(  # type: ignore[untyped-decorator]
        "auto", bind=True, autoretry_for=(KeyError,), default_retry_delay=0
    )
    def auto(self: Task[..., Any], ok_at: int) -> int:
        if self.request.retries < ok_at:
            raise KeyError("not yet")
        return self.request.retries

    # The recorded worker acknowledges early: it has no message left to reject.
    @made("reject", acks_late=False)  # type: ignore[untyped-decorator]
    def reject() -> None:
        raise Reject("no thanks", requeue=False)

    @made("ignore")  # type: ignore[untyped-decorator]
    def ignore() -> None:
        raise Ignore


def comparable(event: dict[str, Any]) -> dict[str, Any]:
    """Hide what depends on process and moment; the order of fields stays."""
    known = {name: None for name in VOLATILE if name in event}
    if event.get("eta"):
        known["eta"] = None
    return {**event, **known}


def in_our_words(event: dict[str, Any]) -> dict[str, Any]:
    words = {name: OURS[name] for name in OURS if name in event}
    if said := event.get("exception"):
        words["exception"] = EXCEPTIONS.get(said, said)
    return comparable({**event, **words})


def assert_same_envelope(ours: dict[str, Any], recorded: dict[str, Any]) -> None:
    for envelope in (ours, recorded):
        envelope["body"] = envelope["properties"]["delivery_tag"] = None
    assert json.dumps(ours) == json.dumps(recorded)


@pytest.mark.parametrize("vector", TASKS, ids=lambda vector: str(vector["id"]))
def test_a_task_has_the_events_that_it_has_in_celery(
    stage: BatchWorker, vector: dict[str, Any]
) -> None:
    call = vector["call"]
    make_tasks(stage, call["name"].rpartition(".")[0])
    stage.bench.app.send_task(
        call["name"], call["args"], call["kwargs"], **call["options"]
    )
    stage.bench.run()
    heard = stage.heard()
    stage.bench.clock.go_to(stage.bench.clock.now() + SECOND)
    stage.bench.run()
    heard += stage.heard()

    recorded = vector["events"]
    assert [json.dumps(comparable(event)) for event, _ in heard] == [
        json.dumps(in_our_words(one["event"])) for one in recorded
    ]
    assert_same_envelope(heard[0][1], recorded[0]["envelope"])


@pytest.mark.parametrize("vector", WORKERS, ids=lambda vector: str(vector["id"]))
def test_a_worker_says_that_it_lives_as_in_celery(
    stage: BatchWorker, vector: dict[str, Any]
) -> None:
    (recorded,) = vector["events"]
    kind = recorded["event"]["type"].removeprefix("worker-")

    def crashed(error: BaseException) -> None:
        raise AssertionError from error

    load = Load(recorded["event"]["active"], recorded["event"]["processed"])
    stage.events.start(lambda: load, crashed)
    if kind == "heartbeat":
        stage.events.heartbeat()
    stage.events.stop()

    heard = [pair for pair in stage.heard() if pair[0]["type"] == f"worker-{kind}"]
    ((event, envelope),) = heard
    assert json.dumps(comparable(event)) == json.dumps(in_our_words(recorded["event"]))
    assert_same_envelope(envelope, recorded["envelope"])


def test_a_message_that_is_rejected_and_not_acknowledged_yet_is_told_to_be(
    stage: BatchWorker,
) -> None:
    @stage.bench.app.task(acks_late=True)
    def refuse() -> None:
        raise Reject("no thanks", requeue=False)

    refuse.delay()
    stage.bench.run()

    events = [event for event, _ in stage.heard()]
    told = [event["type"] for event in events]
    assert told[-2:] == ["task-failed", "task-rejected"]
    assert events[-1]["requeue"] is False
