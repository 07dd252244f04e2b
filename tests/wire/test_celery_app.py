"""A Celery app as it is: `beatd worker -A proj` runs the tasks of a Celery client."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import (
    ChordError,
    NotRegistered,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)

from tests.groups import grouped
from tests.processes import Running, beatd, ended
from tests.servers import PATIENCE, Server, eventually
from tests.wire.clients import celery_client

PROJECT = '''\
"""A project that knows nothing of beatd."""

import os
import time
from pathlib import Path

from celery import Celery, Task, current_app, shared_task, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.utils.log import get_task_logger


def on_failure(self, exc, task_id, *_):
    leave("failed", f"{{self.name}} {{task_id}}")


app = Celery("proj", broker={broker!r}, backend={backend!r})
app.conf.update(
    timezone="Asia/Kathmandu",
    task_annotations={{
        "proj.annotated": {{"soft_time_limit": 0.2}},
        "proj.once_by_config": {{"acks_late": False}},
        "proj.fail": {{"on_failure": on_failure}},
    }},
    worker_lease_timeout=3,
)
app.autodiscover_tasks(["found"])
HERE = Path(__file__).parent
logger = get_task_logger(__name__)
heard = []


def leave(name, text):
    with (HERE / name).open("a") as file:
        print(text, file=file)


@signals.worker_init.connect
def on_worker_init(sender, **_):
    leave("signals", f"worker_init {{sender.hostname.partition('@')[0]}}")


@signals.worker_ready.connect
def on_worker_ready(sender, **_):
    leave("signals", "worker_ready")


@signals.worker_shutdown.connect
def on_worker_shutdown(sender, **_):
    leave("signals", "worker_shutdown")


@signals.worker_shutting_down.connect
def on_shutting_down(sender, how, **_):
    leave("signals", f"worker_shutting_down {{sender.partition('@')[0]}} {{how}}")


@signals.worker_process_shutdown.connect
def on_process_shutdown(sender, pid, **_):
    leave("ended", f"{{sender.partition('@')[0]}} {{pid}}")


@signals.task_received.connect
def on_received(sender, request, **_):
    leave("received", f"{{sender.hostname.partition('@')[0]}} {{request.id}}")


@signals.task_unknown.connect
def on_unknown(name, id, **_):
    leave("unknown", f"{{name}} {{id}}")


@signals.task_failure.connect
def on_task_failure(sender, task_id, exception, einfo, **_):
    leave("failures", f"{{sender.name}} {{task_id}} {{type(exception).__name__}}")


@signals.task_revoked.connect
def on_revoked(sender, request, expired, **_):
    leave("revoked", f"{{sender.name}} {{request.id}} {{expired}}")


@signals.worker_process_init.connect
def on_process_init(**_):
    leave("signals", f"worker_process_init {{os.getpid()}}")


@signals.task_prerun.connect
def on_prerun(task_id, **_):
    heard.append(f"prerun {{task_id}}")


@signals.task_postrun.connect
def on_postrun(task_id, state, **_):
    leave("ends", f"{{task_id}} {{state}}")


class Counted(Task):
    """A base class with a `__call__` of its own."""

    def __call__(self, *args, **kwargs):
        return ["counted", super().__call__(*args, **kwargs)]

    def on_success(self, retval, task_id, args, kwargs):
        leave("succeeded", task_id)


@app.task
def add(x, y):
    return x + y


@shared_task
def total(numbers):
    return sum(numbers)


@app.task(base=Counted, bind=True)
def counted(self, x):
    return [x, self.request.called_directly, self.name]


@app.task(bind=True)
def echo(self, *args, **kwargs):
    request = self.request
    return {{
        "args": args,
        "kwargs": kwargs,
        "id": request.id,
        "root_id": request.root_id,
        "queue": request.delivery_info["routing_key"],
        "priority": request.delivery_info["priority"],
        "colour": request.headers["colour"],
        "app": current_app.main,
        "signals": f"prerun {{request.id}}" in heard,
        "pid": os.getpid(),
        "zone": time.strftime("%z"),
        "hostname": request.hostname.partition("@")[0],
    }}


@app.task(bind=True, max_retries=3)
def flaky(self, failures):
    if self.request.retries < failures:
        raise self.retry(countdown=0.05, exc=OSError("not yet"))
    return [self.request.retries, self.request.headers]


@app.task(
    bind=True,
    autoretry_for=(OSError,),
    retry_kwargs={{"max_retries": 2, "countdown": 0}},
)
def stubborn(self):
    raise OSError(f"try {{self.request.retries}}")


@app.task(ignore_result=True)
def silent(name):
    leave(name, "ran")
    return "nobody hears"


@app.task
def fail(text):
    raise ValueError(text)


@app.task
def ignored(name):
    leave(name, "ran")
    raise Ignore


@app.task
def refused():
    raise Reject("no thanks", requeue=False)


@app.task(bind=True)
def parent(self, x):
    return add.delay(x, x).id


@app.task(soft_time_limit=0.2, time_limit=30)
def patient():
    try:
        doze()
    except SoftTimeLimitExceeded:
        return "cleaned up"


@app.task
def annotated():
    doze()


@app.task(time_limit=0.3)
def late():
    doze()


@app.task
def mourn(request, error, traceback):
    leave("mourned", f"{{request.id}} {{type(error).__name__}}")


def doze():
    for _ in range(300):  # a thread is only interrupted between two sleeps
        time.sleep(0.1)


@app.task
def leave_by_exit():
    raise SystemExit(3)


@app.task(acks_late=False)
def once(name):
    """Run at most once, whatever it does."""
    leave(name, "ran")
    os._exit(7)


@app.task(bind=True, acks_late=False, default_retry_delay=0, max_retries=1)
def die_retried(self, tries):
    if self.request.retries < tries:
        os._exit(7)
    return self.request.retries


die_retried.retry_on_worker_lost = True  # an option that only the newest Celery has


@app.task
def once_by_config(name):
    """Run at most once, as `task_annotations` have it."""
    leave(name, "ran")
    os._exit(7)


@app.task
def die_once(name):
    first = not (HERE / name).exists()
    leave(name, "ran")
    if first:
        os._exit(7)
    return "survived"


@app.task
def greet():
    logger.warning("hello from a task")
'''

FOUND = """\
from celery import shared_task


@shared_task
def twice(x):
    return 2 * x
"""

POOLS = ("prefork", "threads", "solo")


class Fleet:
    """A Celery project on disk, a worker of ours on it, a client of Celery's."""

    def __init__(self, folder: Path, client: Celery, pool: str) -> None:
        self.folder = folder
        self.client = client
        self.pool = pool

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        return self.client.send_task(name, args, **options)

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


def begun(fleet: Fleet) -> set[str]:
    """Return the ids of the processes that have told of their beginning."""
    lines = [line.split() for line in fleet.lines("signals")]
    return {line[1] for line in lines if line[0] == "worker_process_init"}


def lay_out(folder: Path, broker: str, backend: str | None) -> None:
    (folder / "proj.py").write_text(PROJECT.format(broker=broker, backend=backend))
    (folder / "found").mkdir()
    (folder / "found" / "__init__.py").touch()
    (folder / "found" / "tasks.py").write_text(FOUND)


@pytest.fixture(scope="module", params=grouped("app", POOLS))
def running(
    request: pytest.FixtureRequest,
    _server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Fleet, Running]]:
    with _server.client() as raw:
        raw.flushall()
    folder, urls = tmp_path_factory.mktemp("proj"), (_server.url(0), _server.url(1))
    lay_out(folder, *urls)
    options = ("-P", request.param, "-c", "2", "-Q", "celery,slow", "-n", "ours@%h")
    with (
        celery_client(*urls) as client,
        beatd("worker", "-A", "proj", "-l", "info", *options, cwd=folder) as worker,
    ):
        fleet = Fleet(folder, client, request.param)
        worker.until("is ready")
        yield fleet, worker
        assert worker.stop() == 0, worker.output
        assert fleet.lines("signals")[-2:] == [
            *("worker_shutting_down ours Warm", "worker_shutdown"),
        ]
        if request.param == "prefork":
            ended = {line.split()[1] for line in fleet.lines("ended")}
            assert len(ended & begun(fleet)) >= 2


@pytest.fixture
def fleet(running: tuple[Fleet, Running]) -> Fleet:
    return running[0]


@pytest.fixture
def worker(running: tuple[Fleet, Running]) -> Running:
    return running[1]


def signature(fleet: Fleet, name: str, *args: Any, **options: Any) -> Any:
    return fleet.client.signature(name, args, **options)


def test_the_app_s_own_shared_and_discovered_tasks_run(fleet: Fleet) -> None:
    assert fleet.call("proj.add", 2, 3).get(timeout=PATIENCE) == 5
    assert fleet.call("proj.total", [1, 2, 3]).get(timeout=PATIENCE) == 6
    assert fleet.call("found.tasks.twice", 21).get(timeout=PATIENCE) == 42


def test_a_bound_task_knows_its_request(fleet: Fleet) -> None:
    sent = fleet.call(
        "proj.echo",
        1,
        "zwei",
        kwargs={"key": [True]},
        queue="slow",
        priority=6,
        headers={"colour": "red"},
    )

    echoed = sent.get(timeout=PATIENCE)
    assert (echoed["args"], echoed["kwargs"]) == ([1, "zwei"], {"key": [True]})
    assert echoed["id"] == echoed["root_id"] == sent.id
    assert (echoed["queue"], echoed["priority"]) == ("slow", 6)
    assert (echoed["colour"], echoed["hostname"]) == ("red", "ours")
    assert (echoed["app"], echoed["zone"]) == ("proj", "+0545")


def test_signals_are_sent_as_celery_s_worker_sends_them(
    fleet: Fleet, worker: Running
) -> None:
    sent = fleet.call("proj.echo", headers={"colour": "red"})
    echoed = sent.get(timeout=PATIENCE)

    assert echoed["signals"]
    assert f"ours {sent.id}" in fleet.lines("received")
    eventually(lambda: f"{sent.id} SUCCESS" in fleet.lines("ends"), "task_postrun")
    assert fleet.lines("signals")[0] == "worker_init ours"
    assert "worker_ready" in fleet.lines("signals")
    assert f"worker_process_init {echoed['pid']}" in fleet.lines("signals")
    assert (echoed["pid"] == worker.process.pid) == (fleet.pool != "prefork")


def test_a_base_class_of_the_user_s_is_called(fleet: Fleet) -> None:
    sent = fleet.call("proj.counted", 1)

    assert sent.get(timeout=PATIENCE) == ["counted", [1, False, "proj.counted"]]
    eventually(lambda: sent.id in fleet.lines("succeeded"), "on_success")


def test_a_failure_is_raised_by_the_client_and_named_in_the_log_once(
    fleet: Fleet, worker: Running
) -> None:
    sent = fleet.call("proj.fail", "no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        sent.get(timeout=PATIENCE)
    assert sent.state == "FAILURE"
    assert "raise ValueError(text)" in sent.traceback
    worker.until(f"proj.fail[{sent.id}] failed")
    assert f"Task proj.fail[{sent.id}]" not in worker.output


def test_retries_keep_the_call_s_headers_and_end_well(fleet: Fleet) -> None:
    sent = fleet.call("proj.flaky", 2, headers={"colour": "red"})

    retries, headers = sent.get(timeout=PATIENCE)
    assert retries == 2
    assert headers["colour"] == "red"


def test_automatic_retries_end_with_the_task_s_exception(fleet: Fleet) -> None:
    with pytest.raises(OSError, match="try 2"):
        fleet.call("proj.stubborn").get(timeout=PATIENCE)


def test_an_ignored_result_is_not_kept(fleet: Fleet) -> None:
    for name in ("proj.silent", "proj.ignored"):
        sent = fleet.call(name, name)
        eventually(lambda name=name: fleet.lines(name), name)  # type: ignore[misc] # it is used at once
        fleet.call("proj.add", 1, 1).get(timeout=PATIENCE)
        assert sent.state == "PENDING"


def test_a_rejected_message_is_set_aside(fleet: Fleet, worker: Running) -> None:
    sent = fleet.call("proj.refused")

    worker.until(f"proj.refused[{sent.id}] set aside: rejected: no thanks")


def test_links_chains_groups_and_chords_run_to_their_end(fleet: Fleet) -> None:
    def add(*args: int) -> Any:
        return signature(fleet, "proj.add", *args)

    total = signature(fleet, "proj.total")
    numbers = group(add(n, n) for n in range(5))

    assert (
        chain(add(1, 2), add(10), add(100)).apply_async().get(timeout=PATIENCE) == 113
    )
    assert numbers.apply_async().get(timeout=PATIENCE) == [0, 2, 4, 6, 8]
    assert chord(numbers, total).apply_async().get(timeout=PATIENCE) == 20
    inner = chain(add(1, 1), chord(group(add(1), add(2)), total), add(100))
    assert inner.apply_async().get(timeout=PATIENCE) == 107


def test_an_error_in_a_chord_reaches_its_body(fleet: Fleet) -> None:
    broken = signature(fleet, "proj.fail", "one of us")
    sent = chord([signature(fleet, "proj.add", 1, 1), broken])(
        signature(fleet, "proj.total")
    )

    eventually(sent.ready, "the chord's end")
    assert isinstance(sent.result, ChordError)
    assert "one of us" in str(sent.result)


def test_a_task_calls_another_one(fleet: Fleet) -> None:
    sent = fleet.call("proj.parent", 4)

    child = fleet.client.AsyncResult(sent.get(timeout=PATIENCE))
    assert child.get(timeout=PATIENCE) == 8
    assert [one.id for one in sent.children] == [child.id]


def test_the_soft_time_limit_raises_celery_s_exception_in_the_task(
    fleet: Fleet,
) -> None:
    assert fleet.call("proj.patient").get(timeout=PATIENCE) == "cleaned up"
    with pytest.raises(SoftTimeLimitExceeded):
        fleet.call("proj.annotated").get(timeout=PATIENCE)


def test_the_time_limit_ends_the_run(fleet: Fleet) -> None:
    if fleet.pool == "solo":
        pytest.skip("nothing is left to end it by force")
    sent = fleet.call("proj.late")
    with pytest.raises(TimeLimitExceeded):
        sent.get(timeout=PATIENCE)
    told = f"proj.late {sent.id} TimeLimitExceeded"
    eventually(lambda: told in fleet.lines("failures"), "task_failure")


def test_those_who_wait_for_a_run_that_was_ended_hear_of_it(fleet: Fleet) -> None:
    if fleet.pool == "solo":
        pytest.skip("nothing is left to end it by force")
    late, add = signature(fleet, "proj.late"), signature(fleet, "proj.add", 1, 1)
    total, mourn = signature(fleet, "proj.total"), signature(fleet, "proj.mourn")

    body = chord([add, late])(total)
    eventually(body.ready, "the chord's end")
    assert isinstance(body.result, ChordError)
    assert "TimeLimitExceeded" in str(body.result)
    sent = fleet.call("proj.late", link_error=mourn)
    eventually(
        lambda: f"{sent.id} TimeLimitExceeded" in fleet.lines("mourned"), "the errback"
    )


def test_what_has_expired_is_revoked(fleet: Fleet) -> None:
    past = datetime.now(UTC) - timedelta(minutes=1)
    sent = fleet.call("proj.add", 1, 1, expires=past)

    with pytest.raises(TaskRevokedError, match="expired"):
        sent.get(timeout=PATIENCE)
    assert fleet.lines("revoked") == [f"proj.add {sent.id} True"]


def test_an_unknown_task_fails_as_celery_says_it(fleet: Fleet) -> None:
    sent = fleet.call("proj.nobody")

    with pytest.raises(NotRegistered):
        sent.get(timeout=PATIENCE)
    assert f"proj.nobody {sent.id}" in fleet.lines("unknown")


def test_a_task_that_raises_systemexit_fails_and_the_worker_goes_on(
    fleet: Fleet,
) -> None:
    with pytest.raises(WorkerLostError, match=r"SystemExit\(3\)"):
        fleet.call("proj.leave_by_exit").get(timeout=PATIENCE)
    assert fleet.call("proj.add", 1, 1).get(timeout=PATIENCE) == 2


def test_a_task_that_kills_its_process_runs_again_unless_it_must_not(
    fleet: Fleet,
) -> None:
    if fleet.pool != "prefork":
        pytest.skip("it would end the worker")

    assert fleet.call("proj.die_once", "died").get(timeout=PATIENCE) == "survived"
    assert len(fleet.lines("died")) == 2
    for name in ("once", "once_by_config"):
        with pytest.raises(WorkerLostError):
            fleet.call(f"proj.{name}", name).get(timeout=PATIENCE)
        assert len(fleet.lines(name)) == 1
    assert fleet.call("proj.die_retried", 1).get(timeout=PATIENCE) == 1
    with pytest.raises(WorkerLostError):
        fleet.call("proj.die_retried", 2).get(timeout=PATIENCE)


def test_a_method_of_an_annotation_is_called(fleet: Fleet) -> None:
    sent = fleet.call("proj.fail", "no such thing")

    eventually(lambda: f"proj.fail {sent.id}" in fleet.lines("failed"), "on_failure")


def test_what_a_task_logs_is_in_the_worker_s_log(fleet: Fleet, worker: Running) -> None:
    fleet.call("proj.greet")

    worker.until("hello from a task")


def test_the_broker_that_the_command_line_names_is_the_tasks_too(
    tmp_path: Path,
) -> None:
    lay_out(tmp_path, "redis://127.0.0.1:1/0", None)
    with ExitStack() as stack:
        server = stack.enter_context(Server())  # the fleet is at work on the other
        urls = server.url(2), server.url(3)
        client = stack.enter_context(celery_client(*urls))
        named = ("-b", urls[0], "--result-backend", urls[1], "-P", "solo", "-l", "info")
        worker = stack.enter_context(
            beatd("worker", "-A", "proj", *named, cwd=tmp_path)
        )
        worker.until("is ready")
        sent = client.send_task("proj.flaky", [1])

        assert sent.get(timeout=PATIENCE)[0] == 1
        assert worker.stop() == 0


def test_an_app_without_redis_is_refused_in_words(tmp_path: Path) -> None:
    lay_out(tmp_path, "sqlite:///broker.db", None)

    refused = ended("worker", "-A", "proj", cwd=tmp_path)

    assert refused.returncode == os.EX_CONFIG
    assert "Redis is the broker that it shares with beatd" in refused.stderr
    assert "Traceback" not in refused.stderr
