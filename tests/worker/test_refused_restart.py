"""What the server refuses is still there after a restart: all others run once."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beatd.brokers.items import Outgoing
from beatd.brokers.redis import RedisBroker
from beatd.config.settings import read
from beatd.message import Notice, write_notice
from beatd.results import connect
from beatd.results.base import Meta, State
from beatd.routing import Queue, Route
from tests.servers import PATIENCE, Server, eventually
from tests.worker.bench import Bench
from tests.worker.project import Project, WorkerProcess

TAKEN = "_kombu.binding.celery"
PIDBOX = Route("", "celery.pidbox", "", "fanout")

OTHERS = 20


@pytest.fixture
def project(server: Server, tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path, server.url(0), server.url(1))
    yield made
    made.app.close()


def call(task: str, **options: Any) -> dict[str, Any]:
    return {"task": task, "args": [1], "kwargs": {}, "options": options}


def send_what_is_refused(project: Project, broker: RedisBroker, server: Server) -> None:
    """Send one message of each kind from which follows what is refused."""
    with server.client() as client:
        client.select(1)
        client.sadd("celery-task-meta-kept", "a")
        client.sadd("celery-taskset-meta-g.j", "a")
    send = project.app.send_task
    link = call("proj.add", queue=TAKEN)
    send("proj.mark", ["linked"], task_id="linked", link=[link])
    send("proj.add", [1, 1], task_id="kept")
    body = call("proj.add", task_id="body")
    chord: dict[str, Any] = {"group_id": "g", "group_index": 0, "chord": body}
    send("proj.add", [2, 2], task_id="part", **chord)
    reply = {"exchange": "theirs", "routing_key": TAKEN}
    ping = Notice({}, {"method": "ping", "reply_to": reply})
    broker.send([Outgoing(PIDBOX, write_notice(ping, PIDBOX, tag="t"))])


def await_refusals(worker: WorkerProcess) -> None:
    worker.await_line("what was to follow cannot be sent")
    worker.await_line("the state FAILURE of task kept cannot be stored")
    worker.await_line("the body of the chord of group g is not run")
    worker.await_line("answers to commands are dropped")


def test_what_is_refused_before_and_after_a_crash_holds_up_no_other_task(
    project: Project, server: Server
) -> None:
    broker = RedisBroker(server.url(), namespace="default")
    broker.declare([Queue("celery"), Queue(TAKEN, "theirs", "direct", TAKEN)])
    send = project.app.send_task
    with project.worker("-c", "2") as worker:
        send_what_is_refused(project, broker, server)
        await_refusals(worker)
        # It is said first, and settled then: killed in between it runs again.
        eventually(lambda: len(broker.dead_letters()) == 2, "two dead letters")
        worker.signal(signal.SIGKILL)
        worker.wait()

    others = [send("proj.mark", [f"other-{n}"]) for n in range(OTHERS)]
    with project.worker("-c", "2") as worker:
        send_what_is_refused(project, broker, server)
        for one in others:
            one.get(timeout=PATIENCE)
        await_refusals(worker)
        eventually(lambda: len(broker.dead_letters()) == 4)

    assert [project.runs(f"other-{n}") for n in range(OTHERS)] == [1] * OTHERS
    assert project.runs("linked") == 2, "once for each message"
    reasons = {letter.task_id for letter in broker.dead_letters()}
    assert reasons == {"linked", "kept"}
    assert project.app.AsyncResult("body").state == State.FAILURE
    broker.close()


@pytest.fixture
def user(server: Server) -> Iterator[str]:
    """A user who may use some keys only."""
    keys = [
        "~celery",
        "~celery[^-]*",
        "~_kombu*",
        "~{beatd:test}:*",
        "~celery-task-meta-good*",
    ]
    with server.client() as client:
        rules = ["on", ">s3cret", "resetkeys", *keys, "&*", "+@all"]
        client.execute_command("ACL", "SETUSER", "few", *rules)
        yield "few:s3cret"
        client.execute_command("ACL", "DELUSER", "few")


def test_what_the_acl_forbids_fails_one_run_and_no_other(
    server: Server, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url(user=user)
    results = connect(read({"result_backend": url}).settings)
    broker = RedisBroker(url, namespace="test")
    bench = Bench(broker=broker, results=results)
    ran: list[int] = []

    @bench.app.task(name="proj.note")
    def note(number: int) -> int:
        ran.append(number)
        return number

    note.apply_async(
        (100,), task_id="good-link", link=call("proj.note", queue="theirs")
    )
    note.apply_async((101,), task_id="bad")
    for n in range(OTHERS):
        note.apply_async((n,), task_id=f"good-{n}")

    bench.run()

    assert sorted(ran) == [*range(OTHERS), 100, 101]
    found = results.load([f"good-{n}" for n in range(OTHERS)])
    assert [meta.status for meta in found.values()] == [State.SUCCESS] * OTHERS
    failed = results.load(["good-link"])["good-link"]
    assert "its ACL forbids us this" in str(failed.result)
    assert {one.task_id for one in broker.dead_letters()} == {"good-link", "bad"}
    assert "task bad cannot be stored" in caplog.text
    assert "s3cret" not in caplog.text
    assert bench.left() == 0
    results.close()
    broker.close()


def test_a_result_is_kept_where_the_acl_forbids_to_wake_who_waits(
    server: Server, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "few", "resetchannels", "~*")
    results = connect(read({"result_backend": server.url(user=user)}).settings)

    for name in ("a", "b"):
        results.store([Meta(name, State.STARTED), Meta(name, State.SUCCESS, 5)])

    found = results.load(["a", "b"])
    assert [meta.status for meta in found.values()] == [State.SUCCESS] * 2
    [said] = [r for r in caplog.records if r.__dict__["event"] == "results.unheard"]
    assert "its ACL forbids us this" in said.getMessage()
    results.close()
