"""Chains, groups and chords of clients, run to their end by our worker.

Of a real Celery client, and of our own; and by a real Celery worker beside ours, which
runs a part of the same chord.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import celery
import pytest
import redis
from celery.exceptions import ChordError as TheirChordError

import beatd.tasks
from beatd import Beatd
from beatd.errors import ChordError
from tests.groups import grouped
from tests.processes import started
from tests.servers import PATIENCE, Server, eventually
from tests.wire.clients import celery_client
from tests.worker.project import WorkerProcess

THEIRS = "theirs"
"""A queue that only the Celery worker takes from."""

TASKS = """
import os
import time

import redis
from {package} import {application} as App

app = App("shop", broker={broker!r}, backend={backend!r})
notes = redis.Redis.from_url({backend!r}, decode_responses=True)


@app.task(name="add")
def add(x, y):
    return x + y


@app.task(name="total")
def total(numbers):
    return sum(numbers)


@app.task(name="echo")
def echo(value):
    return value


@app.task(name="fail")
def fail(text):
    raise ValueError(text)


@app.task(name="hang", time_limit=0.3)
def hang():
    time.sleep(30)


@app.task(name="who")
def who():
    time.sleep(0.01)
    return [os.getpid()]


@app.task(name="note_id")
def note_id(task_id):
    notes.sadd("notes", "id " + task_id)


@app.task(name="note_all")
def note_all(request, exc, traceback):
    notes.sadd("notes", f"{{request.task}} {{request.id}} {{exc}} {{bool(traceback)}}")
"""


@dataclass
class Shop:
    """A project that both kinds of workers run, and a client of it."""

    folder: Path
    server: Server
    client: Any
    canvas: ModuleType
    """Where the client has `chain`, `group` and the others."""
    pool: str

    def __call__(self, name: str, *args: Any, **options: Any) -> Any:
        return self.client.signature(name, args, app=self.client, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.canvas, name)

    def notes(self) -> set[str]:
        with self.results() as store:
            return set(map(str, store.smembers("notes")))

    @contextmanager
    def results(self) -> Iterator["redis.Redis"]:
        port = self.server.port
        with redis.Redis(port=port, db=1, decode_responses=True) as store:
            yield store

    @contextmanager
    def celery_worker(self) -> Iterator[None]:
        log = self.folder / "celery.log"
        with log.open("wb") as output:
            process = started(
                *("celery", "-A", "shop_celery", "worker"),
                *("-P", "solo", "-Q", THEIRS, "-l", "info", "--without-mingle"),
                cwd=self.folder,
                output=output,
                env={},
            )
        try:
            eventually(lambda: b"ready." in log.read_bytes(), "the Celery worker")
            yield
        finally:
            process.kill()
            process.wait()


@contextmanager
def beatd_client(broker: str, backend: str) -> Iterator[Beatd]:
    client = Beatd("client", broker=broker, backend=backend)
    try:
        yield client
    finally:
        client.close()


CLIENTS = {"celery": (celery_client, celery), "beatd": (beatd_client, beatd.tasks)}

POOLS = [("celery", pool) for pool in ("prefork", "threads", "solo", "asyncio")]

WAYS = grouped("canvas", [*POOLS, ("beatd", "prefork")])


@pytest.fixture(scope="module", params=WAYS, ids="-".join)
def _shop(
    request: pytest.FixtureRequest,
    _server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    with _server.client() as raw:
        raw.flushall()
    folder = tmp_path_factory.mktemp("shop")
    broker, backend = _server.url(0), _server.url(1)
    for module, package, application in (
        ("proj", "beatd", "Beatd"),
        ("shop_celery", "celery", "Celery"),
    ):
        text = TASKS.format(
            package=package, application=application, broker=broker, backend=backend
        )
        (folder / f"{module}.py").write_text(text)
    kind, pool = request.param
    make_client, canvas = CLIENTS[kind]
    with (
        make_client(broker, backend) as client,
        WorkerProcess(folder, ("-P", pool, "-c", "3")),
    ):
        yield Shop(folder, _server, client, canvas, pool)


@pytest.fixture
def shop(_shop: Shop) -> Shop:
    with _shop.results() as store:
        store.flushdb()
    return _shop


Canvas = Callable[[Shop], Any]


# Values


def header(shop: Shop) -> list[Any]:
    return [shop("add", 1, 1), shop("add", 2, 2)]


CANVASES: dict[str, tuple[Canvas, Any]] = {
    "chain": (lambda s: s.chain(s("add", 1, 2), s("add", 3), s("add", 4)), 10),
    "group": (lambda s: s.group(header(s)), [2, 4]),
    "chord": (lambda s: s.chord(header(s), s("total")), 6),
    "chord of many": (
        lambda s: s.chord([s("add", n, n) for n in range(40)], s("total")),
        1560,
    ),
    "chord in order": (
        lambda s: s.chord([s("echo", n) for n in range(9)], s("echo")),
        [*range(9)],
    ),
    "chord without a header": (lambda s: s.chord([], s("total")), 0),
    "chain with a group inside": (
        lambda s: s.chain(
            s("add", 1, 1), s.group(s("add", 1), s("add", 2)), s("total"), s("add", 100)
        ),
        107,
    ),
    "chain with a group last": (
        lambda s: s.chain(s("add", 1, 1), s.group(s("add", 1), s("add", 2))),
        [3, 4],
    ),
    "chain of groups": (
        lambda s: s.chain(
            s.group(header(s)), s.group(s("echo"), s("total")), s("echo")
        ),
        [[2, 4], 6],
    ),
    "chord of chains": (
        lambda s: s.chord(
            [s.chain(s("add", 1, 1), s("add", 1)), *header(s)], s("total")
        ),
        9,
    ),
    "chord of chords": (
        lambda s: s.chord([s.chord(header(s), s("total")), *header(s)], s("total")),
        12,
    ),
    "chord of groups": (
        lambda s: s.chord([s.group(header(s)), s.group(header(s))], s("total")),
        12,
    ),
    "chord with groups in places": (
        lambda s: s.chord(
            [
                s.chain(s("add", 1, 1), s.group(s("add", 1), s("add", 2))),
                s("add", 5, 5),
            ],
            s("echo"),
        ),
        [[3, 4], 10],
    ),
    "chain into such a chord": (
        lambda s: s.chain(
            s("add", 0, 1),
            s.chord(
                [s.chain(s("add", 1), s.group(s("add", 1), s("add", 2))), s("add", 5)],
                s("echo"),
            ),
        ),
        [[3, 4], 6],
    ),
    "body that is a chain": (
        lambda s: s.chord(header(s), s.chain(s("total"), s("add", 10), s("add", 100))),
        116,
    ),
    "body that is a group": (
        lambda s: s.chord(header(s), s.group(s("total"), s("echo"))),
        [6, [2, 4]],
    ),
    "body that is a chord": (
        lambda s: s.chord(header(s), s.chord([s("total"), s("total")], s("echo"))),
        [6, 6],
    ),
    "group of everything": (
        lambda s: s.group(
            s.chain(s("add", 1, 1), s("add", 1)),
            s.chord(header(s), s("total")),
            s("echo", "z"),
        ),
        [3, 6, "z"],
    ),
    "immutable steps": (
        lambda s: s.chain(s("add", 1, 1), s("add", 5, 5, immutable=True)),
        10,
    ),
    "map": (lambda s: s.xmap(s("echo"), [1, 2, 3], app=s.client), [1, 2, 3]),
    "starmap": (lambda s: s.xstarmap(s("add"), [(1, 1), (2, 2)], app=s.client), [2, 4]),
    "chunks": (
        lambda s: s.chunks(
            s("add"), [(n, n) for n in range(4)], 2, app=s.client
        ).group(),
        [[0, 2], [4, 6]],
    ),
}


@pytest.mark.parametrize("name", CANVASES)
def test_a_canvas_has_its_value(shop: Shop, name: str) -> None:
    canvas, value = CANVASES[name]

    assert canvas(shop).apply_async().get(timeout=PATIENCE) == value


LINKS: dict[str, tuple[Canvas, Any]] = {
    "task": (lambda s: s("add", 10), 12),
    "chain": (lambda s: s.chain(s("add", 10), s("add", 100)), 112),
    "chord": (lambda s: s.chord([s("add", 1), s("add", 2)], s("total")), 7),
    "chain with a group": (
        lambda s: s.chain(s("add", 0), s.group(s("add", 1), s("add", 2)), s("total")),
        7,
    ),
}


@pytest.mark.parametrize("name", LINKS)
def test_a_link_of_any_shape_follows_a_call(shop: Shop, name: str) -> None:
    make, value = LINKS[name]
    linked = make(shop)
    last = linked.freeze()

    # Alone, and among others.
    shop.client.send_task("add", [1, 1], link=linked)
    assert shop.client.AsyncResult(last.id).get(timeout=PATIENCE) == value
    with shop.results() as store:
        store.flushdb()
    shop.client.send_task("add", [1, 1], link=[shop("echo"), linked])
    assert shop.client.AsyncResult(last.id).get(timeout=PATIENCE) == value


def test_the_children_of_a_run_are_known(shop: Shop) -> None:
    sent = shop.client.send_task("add", [1, 1], link=shop("echo"))
    sent.get(timeout=PATIENCE)

    (child,) = sent.children
    assert child.get(timeout=PATIENCE) == 2


def test_nothing_is_left_of_a_chord_but_the_mark_that_it_is_done(shop: Shop) -> None:
    sent = shop.chord(header(shop), shop("total")).apply_async()
    assert sent.get(timeout=PATIENCE) == 6

    key = f"celery-taskset-meta-{sent.parent.id}"
    with shop.results() as store:
        eventually(lambda: store.get(key + ".c") == "done", "the chord to be forgotten")
        assert list(store.scan_iter(key + "*")) == [key + ".c"]


# Failures


def failed(shop: Shop, result: Any) -> str:
    """Return what whoever waits for it is told."""
    alone = shop.client.AsyncResult(result.id)  # not what its parents raised
    with pytest.raises((ChordError, TheirChordError)) as error:
        alone.get(timeout=PATIENCE)
    return str(error.value)


def test_a_body_fails_when_one_of_the_header_does(shop: Shop) -> None:
    first = shop("fail", "no money").set(task_id="the-culprit")
    sent = shop.chord([*header(shop), first], shop("total")).apply_async()

    assert failed(shop, sent) == "Dependency the-culprit raised ValueError('no money')"


def test_the_rest_of_a_chain_fails_with_the_step_that_failed(shop: Shop) -> None:
    sent = shop.chain(shop("add", 1, 1), shop("fail"), shop("echo"), shop("echo"))()

    for one in (sent, sent.parent, sent.parent.parent):
        with pytest.raises(ValueError, match="2"):
            one.get(timeout=PATIENCE)
    assert sent.parent.parent.parent.get(timeout=PATIENCE) == 2


FAILING: dict[str, Canvas] = {
    "chain in the header": lambda s: s.chord(
        [s("add", 1, 1), s.chain(s("fail", "x"), s("echo"), s("echo"))], s("total")
    ),
    "chord in the header": lambda s: s.chord(
        [s("add", 1, 1), s.chord([s("fail", "x"), s("add", 1, 1)], s("total"))],
        s("total"),
    ),
    "chain after the chord": lambda s: s.chain(
        s.group(s("add", 1, 1), s("fail", "x")), s("total"), s("echo"), s("echo")
    ),
    "chord after the chord": lambda s: s.chord(
        [s("add", 1, 1), s("fail", "x")], s.chord([s("total"), s("total")], s("echo"))
    ),
    "a call that expired": lambda s: s.chord(
        [s("add", 1, 1), s("add", 1, 1).set(expires=-60)], s("total")
    ),
    "a task that nobody has": lambda s: s.chord(
        [s("add", 1, 1), s("nobody")], s("total")
    ),
    "a body that cannot be sent": lambda s: s.chord(
        header(s), s("total").set(priority="high")
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_whoever_waits_for_a_chord_is_told_that_it_failed(
    shop: Shop, name: str
) -> None:
    assert failed(shop, FAILING[name](shop).apply_async())


def test_all_of_a_body_that_is_a_group_fails(shop: Shop) -> None:
    body = shop.group(shop("total"), shop("echo"))
    sent = shop.chord([shop("add", 1, 1), shop("fail", "x")], body).apply_async()

    assert type(sent).__name__ == "GroupResult"
    for one in sent.results:
        with pytest.raises(ValueError, match="x"):
            one.get(timeout=PATIENCE)


def test_a_run_that_is_ended_by_force_fails_its_chord(shop: Shop) -> None:
    if shop.pool in ("threads", "solo"):
        pytest.skip("neither a thread nor the worker itself can be ended")

    sent = shop.chord([shop("add", 1, 1), shop("hang")], shop("total")).apply_async()

    assert "TimeLimitExceeded(0.3)" in failed(shop, sent)


# Errbacks


def test_errbacks_get_the_id_or_all_there_is_to_know(shop: Shop) -> None:
    sent = shop.client.send_task(
        "fail", ["no money"], link_error=[shop("note_id"), shop("note_all")]
    )

    eventually(lambda: len(shop.notes()) == 2, "both errbacks")
    assert shop.notes() == {f"id {sent.id}", f"fail {sent.id} no money True"}


def test_errbacks_of_a_body_are_called_when_the_header_fails(shop: Shop) -> None:
    body = shop("total").on_error(shop("note_id")).on_error(shop("note_all"))
    sent = shop.chord([shop("add", 1, 1), shop("fail", "x")], body).apply_async()

    eventually(lambda: len(shop.notes()) == 2, "both errbacks")
    told = failed(shop, sent)
    assert shop.notes() == {f"id {sent.id}", f"total {sent.id} {told} False"}


# Beside a Celery worker


def test_a_chord_is_shared_with_a_celery_worker(shop: Shop) -> None:
    if shop.pool != "prefork":
        pytest.skip("what is shared is in Redis: one pool will do")

    def mixed(number: int, **body: Any) -> Any:
        queues = ["celery", THEIRS] * (number // 2)
        return shop.chord(
            [shop("who").set(queue=queue) for queue in queues],
            shop("echo").set(**body),
        ).apply_async()

    with shop.celery_worker():
        sent = [mixed(20), mixed(20, queue=THEIRS), *(mixed(2) for _ in range(20))]
        values = [one.get(timeout=PATIENCE) for one in sent]
        unlike = shop.chord(
            [shop("fail", "x").set(queue=THEIRS), shop("add", 1, 1)], shop("total")
        )
        assert failed(shop, unlike.apply_async())
        nested = shop.chord(
            [
                shop.chord(header(shop), shop("total").set(queue=THEIRS)),
                shop.chain(shop("add", 1, 1).set(queue=THEIRS), shop("add", 1)),
                shop.chain(shop("add", 1, 1), shop("add", 1).set(queue=THEIRS)),
            ],
            shop("total"),
        )
        assert nested.apply_async().get(timeout=PATIENCE) == 12

    assert [len(value) for value in values] == [20, 20, *[2] * 20]
    for value in values:
        theirs = {pid for (pid,) in value[1::2]}
        assert len(theirs) == 1, "one process of Celery's"
        assert theirs.isdisjoint(pid for (pid,) in value[::2])


BODIES: dict[str, Callable[[Any, Any], Any]] = {
    "chord": lambda s, task: s.chord([task("total"), task("total")], task("total")),
    "chord within chords": lambda s, task: s.chord(
        [task("total")], s.chord([task("echo")], s.chord([task("echo")], task("echo")))
    ),
    "chain": lambda s, task: s.chain(task("total"), task("echo"), task("echo")),
    "group that a chord follows": lambda s, task: s.chain(
        s.group(task("total"), task("total")), s.chord([task("echo")], task("total"))
    ),
}


def test_a_celery_worker_fails_the_call_that_others_wait_for(shop: Shop) -> None:
    if not isinstance(shop.client, Beatd):
        pytest.skip("Celery's client raises what the header's results do instead")

    def task(name: str, *args: Any) -> Any:
        return shop(name, *args).set(queue=THEIRS)

    header = [task("add", 1, 1), task("fail", "x")]
    sent = {name: shop.chord(header, body(shop, task)) for name, body in BODIES.items()}
    noted = shop.chord(header, BODIES["chord"](shop, task))
    good = shop.chord([task("add", 1, 1)], BODIES["chord"](shop, task))
    with shop.celery_worker():
        results = [one.apply_async() for one in sent.values()]
        results.append(noted.apply_async(link_error=task("note_id")))

        assert good.apply_async().get(timeout=PATIENCE) == 4
        for name, result in zip([*sent, "noted"], results, strict=True):
            assert "raised ValueError" in failed(shop, result), name
        eventually(lambda: len(shop.notes()) == 1, "the errback")
