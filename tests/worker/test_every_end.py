"""Each end of a run stores a state, and tells those who wait for what was to follow."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from beatd.brokers.items import Outgoing
from beatd.errors import Ignore, Reject
from beatd.instant import SECOND
from beatd.message import Chord
from beatd.pools.base import Lost, TimedOut
from beatd.results.base import State, Stored
from beatd.routing import Route
from beatd.worker.inbox import KnownAsRevoked
from tests.worker.bench import Bench, HeldPool, with_held_pool

CELERY = Route("celery", routing_key="celery")


class Waiting:
    """Clients that wait for a run, the next step of its chain and its chord's body."""

    def __init__(self) -> None:
        self.bench = Bench(task_max_deliveries=2)
        self.told: list[str] = []
        task = self.bench.app.task

        @task(name="told")
        def told(task_id: str) -> None:
            self.told.append(task_id)

        @task(name="next")
        def step(*_: Any) -> None: ...

    def declare(self, code: Callable[..., Any], **options: Any) -> None:
        self.bench.app.task(name="proj.run", bind=True, **options)(code)

    def send(self, name: str = "proj.run", **options: Any) -> None:
        chain = [
            {"task": "next", "args": [], "kwargs": {}, "options": {"task_id": "step"}}
        ]
        body = {
            "task": "next",
            "args": [],
            "kwargs": {},
            "options": {"task_id": "body"},
        }
        link = {"task": "told", "args": [], "kwargs": {}, "options": {}}
        self.bench.results.begin_chords([Chord("g", 1)])
        chord: dict[str, Any] = {"group_id": "g", "group_index": 0, "chord": body}
        options = {"task_id": "run", "chain": chain, "link_error": [link], **options}
        self.bench.app.send_task(name, **chord, **options)

    def states(self) -> dict[str, str]:
        metas = self.bench.results.metas
        names = ("run", "step", "body")
        return {name: metas[name].status for name in names if name in metas}

    def take_message(self) -> bytes:
        self.bench.broker.join("thief", 1000)
        (delivery,) = self.bench.broker.take("thief", ["celery"], 1, 1)
        return delivery.message

    def change_message(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Put a changed message in place of the one that lies there."""
        self.send()
        message = json.loads(self.take_message())
        change(message)
        self.bench.broker.send([Outgoing(CELERY, json.dumps(message).encode())])

    def hold(self) -> HeldPool:
        self.declare(lambda self: None)
        solo, pool = self.bench.pool.pool, with_held_pool(self.bench)
        self.send()
        self.bench.run()
        self.bench.pool.pool = solo  # for what follows
        return pool


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def retry(**how: Any) -> Callable[[Any], None]:
    def code(self: Any) -> None:
        raise self.retry(**how)

    return code


def fail(self: Any) -> None:
    raise ValueError("no")


def reject(self: Any) -> None:
    raise Reject("not now", requeue=False)


def requeue(self: Any) -> None:
    raise Reject("not now", requeue=True)


@pytest.mark.parametrize(
    ("code", "options"),
    [
        (fail, {}),
        (fail, {"throws": (5,)}),
        (fail, {"throws": "ValueError"}),
        (fail, {"throws": 5}),
        (fail, {"acks_on_failure_or_timeout": False}),
        (fail, {"autoretry_for": (5,)}),
        (fail, {"autoretry_for": (ValueError,), "retry_backoff": "x"}),
        (fail, {"autoretry_for": (ValueError,), "retry_kwargs": {"countdown": "x"}}),
        (fail, {"autoretry_for": (ValueError,), "retry_kwargs": 5}),
        (fail, {"autoretry_for": (ValueError,), "max_retries": "x"}),
        (retry(countdown=1e308), {}),
        (retry(countdown=1e12), {}),
        (retry(countdown=float("inf")), {}),
        (retry(countdown=float("nan")), {}),
        (retry(countdown="x"), {}),
        (retry(countdown=-1e308), {}),
        (retry(eta="x"), {}),
        (retry(eta="9999-12-31T23:59:59.999999-12:00"), {}),
        (retry(expires="x"), {}),
        (retry(args=5), {}),
        (retry(queue=5), {}),
        (retry(queue="\ud800"), {}),
        (retry(max_retries="x"), {}),
        (retry(max_retries=0), {}),
        (retry(), {"default_retry_delay": "5"}),
        (retry(), {"default_retry_delay": 1e308}),
        (reject, {}),
        (lambda self: object(), {}),
        (lambda self: "\ud800", {}),
        (requeue, {}),
    ],
)
def test_a_run_that_fails_tells_all_who_wait(
    waiting: Waiting, code: Callable[[Any], Any], options: dict[str, Any]
) -> None:
    waiting.declare(code, **options)
    waiting.send()

    waiting.bench.run()

    assert waiting.states() == dict.fromkeys(("run", "step", "body"), State.FAILURE)
    assert "run" in waiting.told
    assert waiting.bench.left() == 0


@pytest.mark.parametrize(
    "error",
    [
        ValueError("\ud800"),
        ExceptionGroup("two", [ValueError("\ud800"), ValueError("no")]),
    ],
    ids=["alone", "in a group"],
)
def test_half_a_character_hides_no_error(waiting: Waiting, error: Exception) -> None:
    def fail(self: Any) -> None:
        raise error

    waiting.declare(fail)
    waiting.send()
    waiting.bench.run()

    meta = waiting.bench.results.metas["run"]
    assert type(meta.result).__name__ == type(error).__name__
    assert r"ValueError: \ud800" in str(meta.traceback)


def lost(waiting: Waiting) -> None:
    pool = waiting.hold()
    waiting.bench.app.tasks["proj.run"].amend({"reject_on_worker_lost": False})
    waiting.bench.inbox.put(Lost(pool.jobs[0].token, "signal 9"))


def timed_out(waiting: Waiting) -> None:
    pool = waiting.hold()
    waiting.bench.inbox.put(TimedOut(pool.jobs[0].token, 1))


def killed_its_process(waiting: Waiting) -> None:
    pool, solo = waiting.hold(), waiting.bench.pool.pool
    waiting.bench.pool.pool = pool
    for _ in range(2):
        waiting.bench.inbox.put(Lost(pool.jobs[-1].token, "signal 9"))
        waiting.bench.handle()
    waiting.bench.pool.pool = solo


def killed_the_worker(waiting: Waiting, times: int = 2) -> None:
    waiting.declare(fail)
    waiting.send()
    for number in range(times):
        waiting.bench.broker.join(f"dies{number}", 1)
        assert waiting.bench.broker.take(f"dies{number}", ["celery"], 1, 1)
        waiting.bench.clock.go_to(waiting.bench.clock.now() + SECOND)
        waiting.bench.broker.recover()


def unknown(waiting: Waiting) -> None:
    waiting.send("proj.unknown")


@pytest.mark.parametrize(
    "end", [lost, timed_out, killed_its_process, killed_the_worker, unknown]
)
def test_an_end_that_the_worker_makes_tells_all_who_wait(
    waiting: Waiting, end: Callable[[Waiting], None]
) -> None:
    end(waiting)

    waiting.bench.run()

    assert waiting.states() == dict.fromkeys(("run", "step", "body"), State.FAILURE)
    assert "run" in waiting.told
    assert waiting.bench.left() == 0


def revoked(waiting: Waiting) -> None:
    waiting.declare(fail)
    waiting.bench.inbox.put(KnownAsRevoked(["run"]))
    waiting.bench.handle()
    waiting.send()


def expired(waiting: Waiting) -> None:
    waiting.declare(fail)
    waiting.send(expires=-1)


@pytest.mark.parametrize("end", [revoked, expired])
def test_a_run_that_is_revoked_revokes_what_was_to_follow(
    waiting: Waiting, end: Callable[[Waiting], None]
) -> None:
    end(waiting)

    waiting.bench.run()

    revoked = dict.fromkeys(("run", "step"), State.REVOKED)
    assert waiting.states() == {**revoked, "body": State.FAILURE}


@pytest.mark.parametrize(
    "change",
    [
        lambda message: message["headers"].update(eta="soon"),
        lambda message: message["headers"].update(retries="many"),
        lambda message: message["headers"].update(timelimit=[1e308, None]),
        lambda message: message["headers"].update(group=5),
        lambda message: message["headers"].update(task=None),
        lambda message: message.update(body=base64.b64encode(b"{").decode()),
        lambda message: message.update({"content-type": "application/x-yaml"}),
        lambda message: message["headers"].update(compression="gzip"),
    ],
)
def test_a_message_that_cannot_be_read_fails_the_run_that_it_names(
    waiting: Waiting, change: Callable[[dict[str, Any]], object]
) -> None:
    waiting.declare(fail)
    waiting.change_message(change)

    waiting.bench.run()

    assert waiting.states()["run"] == State.FAILURE
    [letter] = waiting.bench.broker.dead_letters()
    assert letter.task_id == "run"


def test_a_message_that_even_kills_who_sets_it_aside_fails_its_run(
    waiting: Waiting,
) -> None:
    killed_the_worker(waiting, times=3)

    waiting.bench.run()

    assert waiting.states() == {"run": State.FAILURE}
    [letter] = waiting.bench.broker.dead_letters()
    assert (letter.task, letter.task_id) == ("proj.run", "run")


@pytest.mark.parametrize("name", ["Ignore", "Reject", "Retry"])
def test_a_run_fails_by_a_result_that_pretends_to_be_its_own_verdict(
    waiting: Waiting, name: str
) -> None:
    form = {"exc_type": name, "exc_message": [], "exc_module": "celery.exceptions"}
    forged = json.dumps({"status": "FAILURE", "result": form}).encode()
    waiting.bench.results.store([Stored("forged", State.FAILURE, forged)])
    waiting.declare(lambda self: self.AsyncResult("forged").get(timeout=0))
    waiting.send()

    waiting.bench.run()

    assert waiting.states() == dict.fromkeys(("run", "step", "body"), State.FAILURE)
    assert waiting.bench.broker.dead_letters() == []


def test_what_is_ignored_stays_as_it_is(waiting: Waiting) -> None:
    def ignore(self: Any) -> None:
        raise Ignore

    waiting.declare(ignore)
    waiting.send()

    waiting.bench.run()

    assert waiting.states() == {}
    assert waiting.bench.left() == 0
