"""What a task, a client and a receiver see of a run: as with Celery's own worker."""

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chord
from celery.exceptions import Reject

from tests.processes import module
from tests.servers import PATIENCE, Server, eventually
from tests.switch.files import write
from tests.wire.clients import celery_client

PROJECT = """
    import json
    import os
    import time
    from pathlib import Path

    from billiard import current_process
    from celery import Celery, Task, signals
    from celery.exceptions import Reject
    from celery.worker.request import Request

    app = Celery("proj", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
    app.conf.result_extended = True
    app.conf.task_acks_late = True
    app.conf.task_default_queue = "celery"  # as without it
    app.conf.enable_utc = True
    HERE = Path(os.environ["NOTES"])


    def note(name, value):
        with (HERE / name).open("a") as file:
            print(json.dumps(value, default=str), file=file)


    @signals.task_failure.connect
    def on_failure(sender, task_id, exception, **_):
        note(f"failure-{task_id}", [sender.name, type(exception).__name__])


    FIELDS = (
        "id", "root_id", "parent_id", "delivery_info", "stamps", "stamped_headers",
        "correlation_id", "reply_to", "group", "argsrepr", "kwargsrepr", "args",
        "kwargs", "expires", "eta",
    )


    @signals.task_received.connect
    def on_received(sender, request, **_):
        told = {field: getattr(request, field) for field in FIELDS}
        more = [request.name, request.type, request.task_id, request.task.name]
        note(f"received-{request.id}", [told, more])


    @signals.task_revoked.connect
    def on_revoked(sender, request, terminated, signum, expired, **_):
        told = {field: getattr(request, field) for field in FIELDS}
        told["expires"] = bool(told["expires"])  # the revoked run's, it is an instant
        more = [sender.name, request.task, terminated, expired]
        note(f"revoked-{request.id}", [told, more])


    @app.task
    def refused():
        raise Reject("no thanks", requeue=False)


    @app.task
    def total(numbers):
        return sum(numbers)


    @app.task
    def add(x, y):
        return x + y


    @app.task
    def heard(task_id):
        note(f"heard-{task_id}", "an errback")


    @app.task
    def fail(text):
        raise ValueError(text)


    @app.task(bind=True)
    def asked(self, *args, **kwargs):
        request = self.request
        return {
            "callbacks": request.callbacks,
            "errbacks": request.errbacks,
            "chain": request.chain,
            "compression": getattr(request, "compression", "missing"),
            "properties": sorted(request.properties),
            "redelivered": request.delivery_info["redelivered"],
            "process": current_process().name.partition("-")[0],
        }


    @app.task(bind=True)
    def once_more(self, name):
        redelivered = self.request.delivery_info["redelivered"]
        note(f"{name}-{self.request.id}", redelivered)
        if not redelivered:
            raise Reject("again", requeue=True)
        return redelivered


    class Counting(Request):
        def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
            super().on_failure(exc_info, send_failed_event, return_ok)
            told = [type(exc_info.exception).__name__, self.task.name, self.args]
            note(f"ended-{self.id}", told)

        def on_timeout(self, soft, timeout):
            super().on_timeout(soft, timeout)
            note(f"timeout-{self.id}", [soft, timeout])


    class Counted(Task):
        Request = Counting


    @app.task(base=Counted, time_limit=0.5)
    def counted(how):
        if how == "badly":
            raise ValueError(how)
        if how == "late":
            time.sleep(30)
        return how


    @app.task(time_limit=0.5)
    def slow(*args, **kwargs):
        time.sleep(30)


    @app.task
    def dozing(*args, **kwargs):
        note("dozing", os.getpid())
        time.sleep(30)
    """


class Shop:
    """The project on a worker, and a client."""

    def __init__(self, client: Celery, server: Server, folder: Path, pool: str) -> None:
        self.client = client
        self.server = server
        self.folder = folder
        self.notes = folder / "notes"
        self.pool = pool

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        return self.client.send_task(f"proj.{name}", args, **options)

    def signature(self, name: str, *args: Any) -> Any:
        return self.client.signature(f"proj.{name}", args)

    def noted(self, name: str) -> list[str]:
        path = self.notes / name
        eventually(lambda: path.exists() and path.read_text().endswith("\n"), name)
        return path.read_text().splitlines()

    def dead_letters(self) -> list[int]:
        with self.server.client() as raw:
            return [raw.hlen(key) for key in raw.keys("*:dead")]

    def meta(self, task_id: str) -> dict[str, Any]:
        found = self.client.backend.get_task_meta(task_id)
        assert isinstance(found, dict)
        return found


WORKERS = ("celery", "prefork", "threads")


@pytest.fixture(scope="module", params=WORKERS)
def shop(
    request: pytest.FixtureRequest,
    _server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    with _server.client() as raw:
        raw.flushall()
    folder = tmp_path_factory.mktemp("proj")
    write(folder, {"proj.py": PROJECT})
    urls = {"BROKER": _server.url(0), "BACKEND": _server.url(1)}
    (folder / "notes").mkdir()
    kind = request.param
    program = "celery" if kind == "celery" else "beatd"
    pool = "prefork" if kind == "celery" else kind
    with ExitStack() as stack:
        client = stack.enter_context(celery_client(urls["BROKER"], urls["BACKEND"]))
        client.conf.result_extended = True
        arguments = (
            "-A",
            "proj",
            "worker",
            "-P",
            pool,
            "-c",
            "2",
            "-l",
            "info",
            "-n",
            "s@h",
        )
        more = {"NOTES": str(folder / "notes"), **urls}
        run = stack.enter_context(module(program, *arguments, cwd=folder, **more))
        run.until(" ready")
        yield Shop(client, _server, folder, pool)


def test_a_message_that_is_rejected_for_good_is_a_failure(shop: Shop) -> None:
    errback = shop.signature("heard")
    sent = shop.call("refused", link_error=errback)

    with pytest.raises(Reject):
        sent.get(timeout=PATIENCE)
    assert sent.state == "FAILURE"
    assert shop.noted(f"heard-{sent.id}") == ['"an errback"']
    assert shop.noted(f"failure-{sent.id}") == ['["proj.refused", "Reject"]']


def test_the_body_of_a_chord_hears_of_it(shop: Shop) -> None:
    header = [shop.signature("add", 1, 1), shop.signature("refused")]
    sent = chord(header)(shop.signature("total"))

    eventually(sent.ready, "the end of the chord")
    assert sent.state == "FAILURE"


def test_a_request_has_what_it_has_in_celery(shop: Shop) -> None:
    plain = shop.call("asked", 1).get(timeout=PATIENCE)
    zipped = shop.call("asked", 1, compression="zlib", headers={"colour": "red"})

    assert plain == {
        "callbacks": None,
        "errbacks": None,
        "chain": None,
        "compression": "missing",
        "properties": [
            *("body_encoding", "correlation_id", "delivery_info", "delivery_mode"),
            *("delivery_tag", "priority", "reply_to"),
        ],
        "redelivered": False,
        "process": "MainProcess" if shop.pool == "threads" else "ForkPoolWorker",
    }
    told = zipped.get(timeout=PATIENCE)
    assert told["compression"] == "application/x-gzip"


def test_a_stored_traceback_has_frames_of_celery_and_of_the_task_only(
    shop: Shop,
) -> None:
    sent = shop.call("fail", "no such thing")

    eventually(sent.ready, "the end of the run")
    frames = re.findall(r'File ".*/(\w+/\w+\.py)", line \d+, in (\w+)', sent.traceback)
    assert frames == [
        ("app/trace.py", "trace_task"),
        ("app/trace.py", "__protected_call__"),
        (f"{shop.folder.name}/proj.py", "fail"),
    ]


def test_a_text_that_is_not_unicode_is_one_like_others(shop: Shop) -> None:
    name = "caf\udce9.txt"  # as `os.listdir` has what is not UTF-8
    before = shop.dead_letters()
    joined, failed = shop.call("add", name, "!"), shop.call("fail", name)

    assert joined.get(timeout=PATIENCE) == f"{name}!"
    eventually(failed.ready, "the end of the run")
    assert str(failed.result) == name
    assert shop.noted(f"failure-{failed.id}") == ['["proj.fail", "ValueError"]']
    assert shop.call("add", 1, 1).get(timeout=PATIENCE) == 2
    assert shop.dead_letters() == before


def test_a_message_that_came_back_is_marked_as_redelivered(shop: Shop) -> None:
    sent = shop.call("once_more", "again")

    assert sent.get(timeout=PATIENCE) is True
    assert shop.noted(f"again-{sent.id}") == ["false", "true"]


EXTENDED = ("name", "args", "kwargs", "worker", "queue", "retries")


def extended(shop: Shop, sent: Any) -> list[Any]:
    eventually(sent.ready, "the end of the run")
    return [shop.meta(sent.id).get(name) for name in EXTENDED]


def test_the_extended_result_of_a_run_that_has_expired(shop: Shop) -> None:
    sent = shop.call("add", 1, 2, kwargs={}, expires=-5)

    assert extended(shop, sent) == ["proj.add", [1, 2], {}, "s@h", "celery", 0]
    assert sent.state == "REVOKED"
    (told,) = map(json.loads, shop.noted(f"revoked-{sent.id}"))
    assert told[1] == ["proj.add", "proj.add", False, True]


def test_the_extended_result_of_a_run_that_was_revoked(shop: Shop) -> None:
    sent_id = str(uuid.uuid4())
    shop.client.control.revoke(sent_id, reply=True, timeout=5)
    sent = shop.call("add", 1, 2, task_id=sent_id)

    eventually(lambda: shop.meta(sent_id).get("name"), "the end of the run")
    assert extended(shop, sent) == ["proj.add", [1, 2], {}, "s@h", "celery", 0]
    assert sent.state == "REVOKED"


def test_the_extended_result_of_a_run_past_its_time_limit(shop: Shop) -> None:
    if shop.pool == "threads":
        pytest.skip("a thread cannot be ended: it goes on after the time limit")
    sent = shop.call("slow", 1, kwargs={"two": 2})

    eventually(lambda: shop.noted(f"failure-{sent.id}"), "the signal")
    assert extended(shop, sent) == ["proj.slow", [1], {"two": 2}, "s@h", "celery", 0]
    # Celery's own worker sends it twice.
    assert set(shop.noted(f"failure-{sent.id}")) == {
        '["proj.slow", "TimeLimitExceeded"]'
    }


def test_the_extended_result_of_a_run_that_was_terminated(shop: Shop) -> None:
    if shop.pool == "threads":
        pytest.skip("a thread cannot be ended")
    sent = shop.call("dozing", 1, kwargs={"two": 2})
    shop.noted("dozing")
    shop.client.control.revoke(sent.id, terminate=True, signal="SIGKILL")

    told = ["proj.dozing", [1], {"two": 2}, "s@h", "celery", 0]
    assert extended(shop, sent) == told
    assert sent.state == "REVOKED"


def test_receivers_get_a_request_with_what_celerys_have(shop: Shop) -> None:
    headers = {"tenant": 1234, "stamped_headers": ["tenant"]}
    sent = shop.call("add", 1, 2, **headers, reply_to="me", expires=600)
    gone = shop.call("add", 1, 2, **headers, reply_to="me", expires=-5)

    (got, names) = json.loads(shop.noted(f"received-{sent.id}")[0])
    (lost, _) = json.loads(shop.noted(f"revoked-{gone.id}")[0])
    assert names == ["proj.add", "proj.add", sent.id, "proj.add"]
    for one, of in ((got, sent), (lost, gone)):
        assert one.pop("expires")
        assert one == {
            "id": of.id,
            "root_id": of.id,
            "parent_id": None,
            "delivery_info": {
                "exchange": "",
                "routing_key": "celery",
                "priority": 0,
                "redelivered": False,
            },
            "stamps": {"tenant": 1234},
            "stamped_headers": ["tenant"],
            "correlation_id": of.id,
            "reply_to": "me",
            "group": None,
            "argsrepr": "(1, 2)",
            "kwargsrepr": "{}",
            "args": [1, 2],
            "kwargs": {},
            "eta": None,
        }


def test_receivers_get_a_request_of_a_message_of_protocol_1(shop: Shop) -> None:
    conf = shop.client.conf
    with celery_client(conf.broker_url, conf.result_backend) as old:
        old.conf.task_protocol = 1
        more = {"group_id": "a group", "expires": 600, "countdown": 0.01}
        sent = old.send_task("proj.add", (1,), {"y": 2}, **more)

    (got, names) = json.loads(shop.noted(f"received-{sent.id}")[0])
    assert names == ["proj.add", "proj.add", sent.id, "proj.add"]
    known = ("args", "kwargs", "group", "root_id", "parent_id", "argsrepr")
    assert [got[name] for name in known] == [[1], {"y": 2}, "a group", None, None, None]
    assert got["expires"]
    assert got["eta"]


def test_stamps_that_are_no_text_are_revoked(shop: Shop) -> None:
    stamped = {"number": 1234, "stamped_headers": ["number"]}
    shop.client.control.revoke_by_stamped_headers(
        {"number": [1234]}, reply=True, timeout=5
    )
    sent = shop.call("add", 1, 2, **stamped)
    other = shop.call("add", 1, 2, number=1235, stamped_headers=["number"])

    assert other.get(timeout=PATIENCE) == 3
    eventually(sent.ready, "the end of the run")
    assert sent.state == "REVOKED"


def test_the_settings_that_were_set_are_told_though_they_are_the_defaults(
    shop: Shop,
) -> None:
    (told,) = shop.client.control.inspect(timeout=5).conf().values()

    assert told.items() >= {
        ("enable_utc", True),
        ("result_extended", True),
        ("task_acks_late", True),
        ("task_default_queue", "celery"),
    }
    assert "task_time_limit" not in told


def test_a_request_class_of_the_task_is_told_how_its_runs_end(shop: Shop) -> None:
    well, badly = shop.call("counted", "well"), shop.call("counted", "badly")

    assert well.get(timeout=PATIENCE) == "well"
    told = ["ValueError", "proj.counted", ["badly"]]
    assert json.loads(shop.noted(f"ended-{badly.id}")[0]) == told
    assert badly.state == "FAILURE"
    if shop.pool == "prefork":
        late = shop.call("counted", "late")
        assert shop.noted(f"timeout-{late.id}") == ["[false, 0.5]"]
        eventually(late.ready, "the end of the run")
