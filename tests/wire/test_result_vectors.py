"""What Celery's worker keeps of a run that was ended or is ignored, kept by ours.

`results.jsonl` copies from `shared/wire/vectors.jsonl` what results were; the form of
each is held in tests/results/test_vectors.py, and here what ours comes to by itself.
"""

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beatd import Ignore, SoftTimeLimitExceeded
from beatd.control.pidbox import Command, Later
from beatd.pools.base import Job, Lost, Started, TimedOut
from tests.servers import PATIENCE
from tests.worker.bench import Bench, HeldPool, with_held_pool

RECORDED = Path(__file__).with_name("results.jsonl").read_text().splitlines()
VECTORS = {vector["id"]: vector for vector in map(json.loads, RECORDED)}


def of(*kinds: str) -> pytest.MarkDecorator:
    """Have a test hold for these kinds, in both profiles."""
    ids = [f"{kind}/{profile}" for kind in kinds for profile in "ab"]
    return pytest.mark.parametrize("vector", [VECTORS[one] for one in ids], ids=ids)


def bench_for(vector: dict[str, Any]) -> Bench:
    """Return a worker that has the tasks of the recorded one."""
    bench = Bench(task_acks_late=False, **vector["conf"])  # Celery's default
    module = vector["call"]["name"].rpartition(".")[0]

    def add(x: float, y: float) -> float:
        return x + y

    def soft(seconds: float) -> str:
        try:
            threading.Event().wait(PATIENCE)
        except SoftTimeLimitExceeded:
            return "soft"
        return "slept"

    def slow(seconds: float) -> str:
        threading.Event().wait(PATIENCE)
        return "slept"

    def ignore() -> None:
        raise Ignore

    def ignored() -> str:
        return "ignored"

    def ignored_fail() -> None:
        raise ValueError("ignored")

    quiet: list[Callable[..., Any]] = [ignored, ignored_fail]
    loud: list[Callable[..., Any]] = [add, soft, slow, ignore]
    for function in loud + quiet:
        options = {"ignore_result": True} if function in quiet else {}
        bench.app.task(name=f"{module}.{function.__name__}", **options)(function)
    return bench


def send(bench: Bench, vector: dict[str, Any], **more: Any) -> str:
    """Make the recorded call; give its id."""
    call = vector["call"]
    options = call["options"] | more
    bench.app.send_task(call["name"], call["args"], call["kwargs"], **options)
    return str(options["task_id"])


def begun(bench: Bench, pool: HeldPool) -> Job:
    """Let the run begin that the pool has."""
    bench.run()
    (job,) = pool.jobs
    bench.inbox.put(Started(job.token, 77))
    bench.run()
    return job


def revoke(bench: Bench, task_id: str, **how: Any) -> None:
    answers: list[object] = []
    bench.inbox.put(Command("revoke", {"task_id": task_id, **how}, answers.append))
    bench.run()
    (answer,) = answers
    if isinstance(answer, Later):
        answer.give()


def masked(raw: str | bytes) -> str:
    """Hide what the vectors call volatile: the moment, and the lines of a traceback.

    And leave out what beatd stores besides.
    """
    meta = json.loads(raw)
    meta.pop("runtime", None)
    meta["date_done"] = "<>"
    meta["traceback"] = meta["traceback"] and "<>"
    return json.dumps(meta)


@of("pre.res.soft_limit", "pre.res.soft_limit.uncaught")
def test_a_soft_time_limit_is_kept_as_celery_keeps_it(vector: dict[str, Any]) -> None:
    bench = bench_for(vector)

    task_id = send(bench, vector, soft_time_limit=0.05)
    bench.run()

    assert masked(bench.results.kept[task_id]) == masked(vector["raw"])


@of("pre.res.hard_limit")
def test_a_time_limit_is_kept_as_celery_keeps_it(vector: dict[str, Any]) -> None:
    bench = bench_for(vector)
    pool = with_held_pool(bench)

    task_id = send(bench, vector)
    job = begun(bench, pool)
    assert job.time_limit
    bench.inbox.put(TimedOut(job.token, job.time_limit))
    bench.run()

    assert masked(bench.results.kept[task_id]) == masked(vector["raw"])


@of("pre.res.terminate")
def test_a_terminated_run_is_kept_as_celery_keeps_it(vector: dict[str, Any]) -> None:
    bench = bench_for(vector)
    pool = with_held_pool(bench)

    task_id = send(bench, vector)
    job = begun(bench, pool)
    revoke(bench, task_id, terminate=True)
    assert pool.signals == [(job.token, signal.SIGTERM)]
    bench.inbox.put(Lost(job.token, "signal 15 (SIGTERM)"))
    bench.run()

    assert masked(bench.results.kept[task_id]) == masked(vector["raw"])


@of("pre.res.worker_lost")
def test_a_lost_process_is_kept_as_celery_keeps_it(vector: dict[str, Any]) -> None:
    bench = bench_for(vector)
    pool = with_held_pool(bench)

    task_id = send(bench, vector)
    job = begun(bench, pool)
    bench.inbox.put(Lost(job.token, "signal 9 (SIGKILL)"))
    bench.run()

    # The number is one that Celery's pool gave the job: it means nothing elsewhere.
    expected = vector["raw"].replace(" Job: 4.", "")
    assert masked(bench.results.kept[task_id]) == masked(expected)


@of("res.revoked.before")
def test_what_is_revoked_is_kept_at_once_and_when_it_comes(
    vector: dict[str, Any],
) -> None:
    bench = bench_for(vector)
    task_id = vector["call"]["options"]["task_id"]

    revoke(bench, task_id)
    at_once = bench.results.kept.pop(task_id)
    send(bench, vector)
    bench.run()

    # Celery's readers take no children for null.
    expected = vector["raw_after_revoke"].replace('"children": null', '"children": []')
    assert masked(at_once) == masked(expected)
    assert masked(bench.results.kept[task_id]) == masked(vector["raw"])


@of("res.ignored", "res.ignored.header", "res.ignored.failure", "res.ignore")
def test_what_is_ignored_is_not_kept(vector: dict[str, Any]) -> None:
    bench = bench_for(vector)

    send(bench, vector)
    bench.run()

    assert (vector["raw"], vector["ttl_s"]) == (None, -2)
    assert bench.results.states == []
    assert bench.left() == 0
