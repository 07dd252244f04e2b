"""What Celery's worker answers to remote control, answered by ours.

`control.jsonl` copies from `shared/wire/vectors.jsonl` what the kinds ctl.* say: the
call, the request as it was published, and what was answered to which list.

The requests of one profile were made one after the other, of a worker that runs two
tasks, holds one, and waits with another for its time; here it is the same.
"""

import ast
import json
from collections.abc import Callable
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from beatd.brokers.base import Broadcast
from beatd.brokers.items import Outgoing
from beatd.control.pidbox import Pidbox
from beatd.message import read_notice
from beatd.pools.base import Lost, Started
from beatd.routing import Queue, Route
from beatd.worker.inbox import Stop
from tests.worker.bench import Bench, HeldPool, with_held_pool

RECORDED = Path(__file__).with_name("control.jsonl").read_text().splitlines()
VECTORS = [json.loads(line) for line in RECORDED]
PROFILES = {
    profile: [one for one in VECTORS if f"/{profile}" in one["id"]] for profile in "ab"
}

NODE = "w1@host.example"

SHRUNK = {NODE: {"ok": "pool will shrink"}}
"""Celery's pool cannot shrink while all run; in ours, one that runs leaves later."""


class BatchWorker:
    """A worker with a pidbox, in the situation of a profile."""

    def __init__(self, profile: str) -> None:
        self._requests = count(1)
        self.bench = Bench(
            name=NODE,
            is_monitored=True,
            broker_url="redis://:secret@nowhere:1/0",
            task_acks_late=False,  # Celery's default
            worker_pool_restarts=True,
            worker_remote_shutdown=True,
            worker_send_task_events=False,
        )
        broker = self.bench.broker
        self.pool: HeldPool = with_held_pool(self.bench)
        assert isinstance(broker, Broadcast)
        settings, inbox = self.bench.settings, self.bench.inbox
        self.pidbox = Pidbox(broker, NODE, settings, self.bench.lamport, inbox.put)
        self.pidbox.turn(0)
        self._fill({one["id"]: one for one in PROFILES[profile]}, profile)

    def _fill(self, vectors: dict[str, Any], profile: str) -> None:
        def answer(method: str) -> Any:
            vector = vectors[f"ctl.inspect.{method}/{profile}"]
            return vector["replies"][0]["body"][NODE]

        for name in answer("registered"):
            most = {"auto": 2, "retry_zero": 0}.get(name.rpartition(".")[2], 3)
            self.bench.app.task(name=name, max_retries=most)(lambda *args: None)
        for info in answer("active"):
            self._send(info)
        self.bench.run()
        for job, info in zip(self.pool.jobs, answer("active"), strict=True):
            self.bench.inbox.put(Started(job.token, info["worker_pid"]))
        for late in answer("scheduled"):
            eta = datetime.fromisoformat(late["eta"])
            self.bench.clock.time = round(eta.timestamp() * 1000) - 900_000
            self._send(late["request"], eta=eta)
        for info in answer("reserved"):
            self._send(info)
        self.bench.run()

    def _send(self, info: dict[str, Any], **options: Any) -> None:
        self.bench.app.send_task(
            info["type"], info["args"], info["kwargs"], task_id=info["id"], **options
        )

    def ask(self, vector: dict[str, Any]) -> list[bytes]:
        """Publish a request as it was; give what is answered to the asker's list."""
        replies = vector["replies"]
        queues = [reply["list"] for reply in replies]
        for name in queues:
            oid = name.partition(".")[0]
            self.bench.broker.declare(
                [Queue(name, "reply.celery.pidbox", "direct", oid)]
            )
        route = Route("", "celery.pidbox", "", "fanout")
        self.bench.broker.send([Outgoing(route, vector["request"].encode())])
        self.pidbox.turn(0)
        self.bench.run()
        self.pidbox.answering.turn()
        self._end_what_was_terminated()
        if not queues:
            return []
        self.bench.broker.join("asker", 1000)
        taken = self.bench.broker.take("asker", queues, 9, next(self._requests))
        return [one.message for one in taken]

    def _end_what_was_terminated(self) -> None:
        while self.pool.signals:
            token, number = self.pool.signals.pop()
            self.bench.inbox.put(Lost(token, f"signal {number}"))
        self.bench.run()


def without_moments(value: Any) -> Any:
    """Hide what depends on process and moment, and put in order what has none."""
    if isinstance(value, list):
        return sorted(map(without_moments, value), key=json.dumps)
    if isinstance(value, str) and value.startswith("tasks {"):
        ids = ast.literal_eval(
            value.split(" ", 1)[1].removesuffix(" flagged as revoked")
        )
        return ["flagged as revoked", *sorted(ids)]
    if not isinstance(value, dict):
        return value
    hidden = {name: "<>" for name in ("time_start", "clock") if value.get(name)}
    return {name: without_moments(part) for name, part in {**value, **hidden}.items()}


def form_of(value: Any) -> Any:
    """Return the names and the types of a value."""
    if isinstance(value, dict):
        return {name: form_of(part) for name, part in value.items()}
    return type(value).__name__ if not isinstance(value, int | float) else "number"


def of_the_project(body: Any) -> Any:
    """Leave out tasks that other tests of this process share with all applications."""
    return [name for name in body[NODE] if name.startswith(("proj.", "billing."))]


COMPARED: dict[str, Callable[[Any], Any]] = {
    "ctl.inspect.registered": of_the_project,
    "ctl.inspect.stats": lambda body: {
        name: sorted(part) if name in ("pool", "broker", "rusage") else form_of(part)
        for name, part in body[NODE].items()
    },
    "ctl.inspect.conf": lambda body: (
        sorted({"broker_url", "result_backend"} & {*body[NODE]})
    ),
    "ctl.inspect.report": lambda body: (
        sorted(word for word in ("software ->", "platform ->", "settings ->")
               if word in body[NODE]["ok"])
    ),
}  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES)
def test_a_worker_answers_as_celerys_does(profile: str) -> None:
    stage = BatchWorker(profile)
    for vector in PROFILES[profile]:
        answers = stage.ask(vector)

        assert len(answers) == len(vector["replies"]), vector["id"]
        for answer, reply in zip(answers, vector["replies"], strict=True):
            kind = vector["id"].partition("/")[0]
            compare = COMPARED.get(kind, without_moments)
            expected = SHRUNK if kind == "ctl.pool_shrink" else reply["body"]
            assert compare(read_notice(answer).body) == compare(expected), vector["id"]
            assert envelope(json.loads(answer)) == envelope(reply["envelope"])
    assert stage.bench.worker.is_stopping
    assert stage.bench.worker.stopping.how is Stop.WARM


def envelope(message: dict[str, Any]) -> str:
    message["body"] = message["properties"]["delivery_tag"] = message["headers"][
        "clock"
    ] = None
    return json.dumps(message)
