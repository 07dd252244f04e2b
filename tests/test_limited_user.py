"""A user of Redis with few rights: those that the docs list are enough, and needed."""

import re
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from beatd.brokers.base import Guarded
from beatd.brokers.redis import RedisBroker, needs
from beatd.config.settings import read
from beatd.errors import BrokerRefused
from beatd.results import connect
from beatd.routing import Queue
from beatd.tasks import chord
from tests.servers import PATIENCE, Server, eventually
from tests.worker.bench import Bench
from tests.worker.project import Project

DOCS = Path(__file__).parent.parent / "docs" / "redis.md"


def documented() -> list[str]:
    """Return the words of the rules that the docs list."""
    found = re.search(r"```\nACL SETUSER beatd (.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    return found[1].split()


@pytest.fixture
def limited(server: Server) -> Iterator[Callable[..., str]]:
    """Return a function that makes the documented user, changed by more rules."""
    with server.client() as client:
        client.flushall()
        client.execute_command("ACL", "LOG", "RESET")

        def make(*more: str) -> str:
            words = [">s3cret" if one == ">SECRET" else one for one in documented()]
            client.execute_command("ACL", "SETUSER", "few", "reset", *words, *more)
            return server.url(user="few:s3cret")

        yield make
        client.execute_command("ACL", "DELUSER", "few")


def denied(server: Server) -> set[str]:
    """Return what the server has denied to our user since the test began."""
    with server.client() as client:
        log: list[Any] = client.execute_command("ACL", "LOG", "100")
    return {f"{_text(one, 'reason')} {_text(one, 'object')}" for one in log}


def _text(row: dict[Any, Any], name: str) -> str:
    value = row.get(name, row.get(name.encode(), ""))
    return value.decode() if isinstance(value, bytes) else str(value)


def forbidden(guarded: Any, *queues: Queue) -> dict[str, set[str]]:
    """Return the missing rules by the part that needs them."""
    assert isinstance(guarded, Guarded)
    found: dict[str, set[str]] = {}
    for one in guarded.forbidden(queues):
        found.setdefault(one.part, set()).add(one.rule)
    return found


def test_with_the_rights_that_are_documented_all_of_beatd_runs(
    tmp_path: Path, server: Server, limited: Callable[..., str]
) -> None:
    url = limited()
    project = Project(tmp_path, url, url)
    project.configure(
        beat_schedule={
            "tick": {"task": "proj.add", "schedule": 0.2, "args": (1, 1)},
            "alone": {
                "task": "proj.mark",
                "schedule": 0.3,
                "args": ("alone",),
                "overlap": "skip",
            },
        },
        beat_schedule_filename=str(tmp_path / "beat.db"),
    )
    app, broker = project.app, RedisBroker(url, namespace="default")
    with project.worker("-B", "-E", "-c", "2") as worker:
        worker.await_line("leading, term 2")
        assert app.send_task("proj.add", (1, 2)).get(timeout=PATIENCE) == 3
        assert app.send_task("proj.flaky", (1,)).get(timeout=PATIENCE) == 1
        app.send_task("proj.add", (1, 2), countdown=0.1).get(timeout=PATIENCE)
        assert app.control.ping(timeout=2), "its answer"
        assert app.control.inspect(timeout=2).active() is not None
        eventually(lambda: project.runs("alone") > 1)
        app.send_task("proj.no_such_task")
        both = [app.signature("proj.add", (n, n)) for n in (1, 2)]
        assert chord(both)(app.signature("proj.echo")).get(timeout=PATIENCE)
        eventually(broker.dead_letters)
        assert broker.overview(["celery"]).workers
    broker.close()

    # The client of Redis tells its name, where it may.
    assert denied(server) <= {"command client|setinfo"}


def test_with_the_rights_that_are_documented_nothing_is_missing(
    server: Server, limited: Callable[..., str]
) -> None:
    url = limited()
    broker = RedisBroker(url, namespace="default")
    results = connect(read({"result_backend": url}).settings)
    control = Queue("celery.pidbox", "celery.pidbox", "fanout")
    events = Queue("celeryev", "celeryev", "fanout", "#")

    assert forbidden(broker, Queue("celery"), events, control) == {}
    assert forbidden(results) == {}

    assert broker.risks() == []
    with server.client() as client:
        assert client.keys() == [], "nothing is left behind"
    broker.close()
    results.close()


def test_what_is_forbidden_is_named_with_the_rule_that_permits_it(
    limited: Callable[..., str],
) -> None:
    url = limited("-hget", "-rpop", "-publish", "resetkeys", "~{beatd:default}:*")
    broker = RedisBroker(url, namespace="default")

    found = forbidden(broker, Queue("reports"))

    assert found["a scheduler"] == {"+hget", "+publish", "~_kombu*", "~reports*"}
    assert found["a worker"] >= {"+hget", "+rpop", "~reports*", "~unacked*"}
    assert broker.user == "few"
    broker.close()


@pytest.mark.parametrize(
    "rules", [["-setex"], ["-evalsha", "-eval"], ["-script|load"], ["-publish"]]
)
def test_a_result_that_is_forbidden_fails_its_run_which_is_not_run_again(
    server: Server,
    limited: Callable[..., str],
    rules: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    results = connect(read({"result_backend": limited(*rules)}).settings)
    broker = RedisBroker(server.url(), namespace="default")
    bench = Bench(broker=broker, results=results)
    ran: list[int] = []

    @bench.app.task
    def note() -> None:
        ran.append(1)

    note.delay()
    bench.run()

    events = [vars(one).get("event") for one in caplog.records]
    if rules == ["-publish"]:
        assert "results.unheard" in events, "it is stored, and nobody is woken"
    else:
        assert "result.refused" in events
        [letter] = broker.dead_letters()
        assert "its result cannot be stored" in letter.reason
        assert "its ACL forbids us this" in letter.reason
    assert ran == [1]
    assert bench.left() == 0
    broker.close()
    results.close()


def test_without_transactions_that_is_what_is_said(limited: Callable[..., str]) -> None:
    broker = RedisBroker(limited("-multi"), namespace="default")

    [found] = broker.forbidden([])

    assert (found.what, found.rule) == ("MULTI", "+multi +exec +discard")
    broker.close()


def test_what_is_tried_is_not_done(server: Server, limited: Callable[..., str]) -> None:
    broker = RedisBroker(limited(), namespace="default")
    with server.client() as client:
        client.lpush("celery", "1")
        client.sadd("_kombu.binding.check", "1")
        client.hset("unacked", "1", "1")

        broker.forbidden([Queue("celery")])

        assert client.lrange("celery", 0, -1) == [b"1"]
        assert client.dbsize() == 3
    broker.close()


def test_a_server_without_transactions_is_asked_nothing_more() -> None:
    class Connection:
        def __init__(self) -> None:
            self.sent: list[Any] = []

        def send_command(self, *command: Any) -> None:
            self.sent.append(command)

        def read_response(self) -> bytes:
            return b"no such thing"

    connection = Connection()

    with pytest.raises(BrokerRefused, match="no transactions"):
        needs._is_forbidden(connection, ["MULTI"], b"OK")

    assert connection.sent == [("MULTI",)]


def test_the_commands_that_are_tried_are_those_of_the_scripts_and_the_docs() -> None:
    tables = (
        needs.SCHEDULER,
        needs.WORKER,
        needs.STATUS,
        needs.EVENTS_AND_CONTROL,
        needs.RESULTS,
    )
    tried = {name for table in tables for name in table}
    named = {word[1:].upper() for word in documented() if word.startswith("+")}
    for package in ("beatd.brokers.redis", "beatd.results"):
        for file in resources.files(package).iterdir():
            if file.name.endswith(".lua"):
                code = re.sub(r"--.*", "", file.read_text())
                asked = {*re.findall(r"'([A-Z]{3,})'", code)}
                words = {"LIMIT", "WITHSCORES", "DELAY"}
                assert asked - words <= tried, file.name

    assert named == tried | {*needs.TRANSACTIONS, *needs.BETTER}
