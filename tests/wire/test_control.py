"""A real Celery client sees and steers beatd's worker, over Redis."""

import contextlib
import signal
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from beatd import Beatd
from beatd.errors import BeatdError, ConfigError
from tests.groups import grouped
from tests.processes import ran
from tests.servers import PATIENCE, Server, eventually
from tests.wire.clients import celery_client
from tests.wire.listener import Listener
from tests.worker.project import Project, WorkerProcess

HOST = socket.gethostname()


class Fleet:
    """A project with one worker of beatd's, and Celery's client beside it."""

    def __init__(self, project: Project, client: Celery, worker: WorkerProcess) -> None:
        self.project = project
        self.client = client
        self.worker = worker
        self.node = f"w0@{HOST}"

    def inspect(self, method: str, *arguments: object, **more: object) -> Any:
        """Ask as `celery inspect` does; give this worker's answer."""
        look = self.client.control.inspect(destination=[self.node], timeout=PATIENCE)
        return getattr(look, method)(*arguments, **more)[self.node]

    def control(self, method: str, *arguments: object, **more: object) -> Any:
        """Steer as `celery control` does; give this worker's answer."""
        command = getattr(self.client.control, method)
        to = {"destination": [self.node], "reply": True, "timeout": PATIENCE}
        (answer,) = command(*arguments, **more, **to)
        return answer[self.node]


@pytest.fixture(scope="module")
def urls(_server: Server) -> tuple[str, str]:
    with _server.client() as raw:
        raw.flushall()
    return _server.url(0), _server.url(1)


@pytest.fixture(scope="module")
def apart() -> Iterator[tuple[str, str]]:
    """Yield the addresses of a server whose channels no worker of the fleet hears."""
    with Server() as server:
        yield server.url(0), server.url(1)


@contextlib.contextmanager
def working(folder: Path, urls: tuple[str, str], *options: str) -> Iterator[Fleet]:
    project = Project(folder, *urls)
    with celery_client(*urls) as client, project.worker(*options) as worker:
        yield Fleet(project, client, worker)
    project.app.close()


@pytest.fixture(scope="module")
def fleet(
    urls: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("proj")
    with working(folder, urls, "-c", "2", "-E", "--heartbeat-interval", "0.5") as fleet:
        yield fleet


@pytest.fixture
def running(fleet: Fleet) -> Iterator[AsyncResult]:
    """A run that goes on until the test's end."""
    name = uuid.uuid4().hex
    sent = fleet.client.send_task("proj.mark", [name, 60])
    eventually(lambda: fleet.project.runs(name))
    yield sent
    fleet.control("revoke", sent.id, terminate=True, signal="SIGKILL")
    eventually(lambda: not fleet.inspect("active"), "its end")


# celery inspect


def test_ping_and_clock(fleet: Fleet) -> None:
    assert fleet.inspect("ping") == {"ok": "pong"}
    assert fleet.inspect("clock")["clock"] < fleet.inspect("clock")["clock"]


def test_all_workers_are_found_without_a_name(fleet: Fleet) -> None:
    first = {"timeout": PATIENCE, "limit": 1}
    answers = fleet.client.control.ping(**first)
    look = fleet.client.control.inspect(pattern="w*", matcher="glob", **first)

    assert answers == [{fleet.node: {"ok": "pong"}}]
    assert look.ping() == {fleet.node: {"ok": "pong"}}


def test_what_runs_waits_and_comes_later_is_listed(
    fleet: Fleet, running: AsyncResult
) -> None:
    later = fleet.client.send_task("proj.add", [1, 2], countdown=600)
    scheduled = eventually(lambda: fleet.inspect("scheduled"))
    (active,) = fleet.inspect("active")

    assert active["id"] == running.id
    assert active["args"][1] == 60
    assert active["worker_pid"] in fleet.inspect("stats")["pool"]["processes"]
    assert [one["request"]["id"] for one in scheduled] == [later.id]
    assert fleet.inspect("reserved") == []
    found = fleet.inspect("query_task", running.id, later.id, "nobody's")
    assert {key: state for key, (state, _) in found.items()} == {
        running.id: "active",
        later.id: "scheduled",
    }
    fleet.control("revoke", later.id)


def test_tasks_queues_settings_and_statistics_are_shown(fleet: Fleet) -> None:
    assert fleet.client.send_task("proj.add", [1, 2]).get(timeout=PATIENCE) == 3
    assert "proj.add" in fleet.inspect("registered")
    assert "proj.flaky [max_retries=3]" in fleet.inspect("registered", "max_retries")
    assert [one["name"] for one in fleet.inspect("active_queues")] == ["celery"]
    stats = fleet.inspect("stats")
    assert stats["total"]["proj.add"] >= 1
    assert (stats["pid"], stats["pool"]["max-concurrency"]) == (fleet.worker.pid, 2)
    assert fleet.inspect("conf")["timezone"] == "Asia/Kathmandu"
    report = fleet.inspect("report")["ok"]
    assert ("beatd:" in report, "celery:" in report) == (True, False)


# celery control


def test_a_call_for_later_is_revoked(fleet: Fleet) -> None:
    later = fleet.client.send_task("proj.add", [1, 2], countdown=600)
    answer = fleet.control("revoke", later.id)

    assert answer == {"ok": f"tasks { {later.id} } flagged as revoked"}
    assert later.state == "REVOKED"
    assert later.id in fleet.inspect("revoked")


def test_a_run_is_terminated(fleet: Fleet, running: AsyncResult) -> None:
    answer = fleet.control("terminate", running.id, signal="SIGTERM")

    assert answer == {"ok": f"terminate: {running.id}"}
    with pytest.raises(TaskRevokedError, match="terminated"):
        running.get(timeout=PATIENCE)
    assert fleet.client.send_task("proj.add", [1, 1]).get(timeout=PATIENCE) == 2


def test_rates_and_time_limits_are_set(fleet: Fleet) -> None:
    assert fleet.control("rate_limit", "proj.where", "100/s") == {
        "ok": "new rate limit set successfully"
    }
    assert fleet.inspect("registered", "rate_limit").count(
        "proj.where [rate_limit=100/s]"
    )
    assert fleet.control("time_limit", "proj.mark", hard=1, soft=None) == {
        "ok": "time limits set successfully"
    }
    sent = fleet.client.send_task("proj.mark", [uuid.uuid4().hex, 60])
    eventually(sent.ready)
    assert type(sent.result).__name__ == "TimeLimitExceeded"
    fleet.control("time_limit", "proj.mark", hard=None, soft=None)


def test_a_queue_is_added_and_left_at_run_time(fleet: Fleet) -> None:
    sent = fleet.client.send_task("proj.add", [1, 2], queue="elsewhere")
    assert fleet.control("add_consumer", "elsewhere") == {
        "ok": "add consumer elsewhere"
    }
    assert sent.get(timeout=PATIENCE) == 3

    assert fleet.control("cancel_consumer", "elsewhere") == {
        "ok": "no longer consuming from elsewhere"
    }
    assert [one["name"] for one in fleet.inspect("active_queues")] == ["celery"]


def test_the_pool_grows_and_shrinks(fleet: Fleet) -> None:
    assert fleet.control("pool_grow", 1) == {"ok": "pool will grow"}
    eventually(lambda: len(fleet.inspect("stats")["pool"]["processes"]) == 3)
    assert fleet.control("pool_shrink", 1) == {"ok": "pool will shrink"}
    eventually(lambda: len(fleet.inspect("stats")["pool"]["processes"]) == 2)


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("autoscale", (4, 2), "ValueError('Autoscale not enabled')"),
        ("pool_restart", (), "ValueError('Pool restarts not enabled')"),
    ],
)
def test_what_is_off_is_refused(
    fleet: Fleet, method: str, arguments: tuple[object, ...], error: str
) -> None:
    assert fleet.control(method, *arguments) == {"error": error}


def test_a_shutdown_is_refused(fleet: Fleet) -> None:
    (answer,) = fleet.client.control.broadcast(
        "shutdown", destination=[fleet.node], reply=True, timeout=PATIENCE
    )

    assert "worker_remote_shutdown is off" in answer[fleet.node]["error"]
    assert fleet.inspect("ping") == {"ok": "pong"}


@pytest.mark.parametrize("words", ["inspect ping", "inspect stats", "status"])
def test_celerys_own_command_line_finds_the_worker(
    fleet: Fleet, urls: tuple[str, str], words: str, tmp_path: Path
) -> None:
    to_one = ["-d", fleet.node, "-t", str(PATIENCE)]
    done = ran("celery", "-b", urls[0], *words.split(), *to_one, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert fleet.node in done.stdout


# celery events


def test_the_stream_of_events_tells_what_becomes_of_tasks(fleet: Fleet) -> None:
    with Listener(fleet.client) as listener:
        send = fleet.client.send_task
        good, bad = send("proj.add", [1, 2]), send("proj.fail", ["no such thing"])
        flaky, unknown = send("proj.flaky", [1]), send("proj.nobody")
        soon, expired = send("proj.add", [1, 2], countdown=0.3), send(
            "proj.add", [1, 2], expires=-1
        )  # fmt: skip
        name = uuid.uuid4().hex
        long = send("proj.mark", [name, 60])
        eventually(lambda: fleet.project.runs(name))
        fleet.control("revoke", long.id, terminate=True, signal="SIGKILL")
        for sent in (good, bad, flaky, unknown, soon, expired, long):
            eventually(lambda: listener.has_ended(sent.id), "its end")  # noqa: B023 - used at once

    received = ["task-received", "task-started"]
    assert listener.of(good.id) == [*received, "task-succeeded"]
    assert listener.of(bad.id) == [*received, "task-failed"]
    assert listener.of(flaky.id) == [
        *(*received, "task-retried", "task-received", "task-started", "task-succeeded")
    ]
    assert listener.of(unknown.id) == ["task-failed"]
    assert listener.of(soon.id) == [*received, "task-succeeded"]
    assert listener.of(expired.id) == ["task-revoked"]
    assert listener.of(long.id) == [*received, "task-revoked"]
    state = listener.state
    assert state.tasks[good.id].result == "3"
    assert state.tasks[bad.id].exception == "ValueError('no such thing')"
    assert state.tasks[long.id].signum == signal.SIGKILL


def test_a_monitor_takes_the_worker_for_alive(fleet: Fleet) -> None:
    with Listener(fleet.client) as listener:
        worker = listener.state.workers[fleet.node]

        assert worker.alive
        assert (worker.sw_ident, worker.pid) == ("beatd", fleet.worker.pid)


def test_events_of_tasks_are_switched_off_and_on(fleet: Fleet) -> None:
    assert fleet.control("disable_events") == {"ok": "task events disabled"}
    with Listener(fleet.client) as listener:
        silent = fleet.client.send_task("proj.add", [1, 2])
        silent.get(timeout=PATIENCE)
        assert fleet.control("enable_events") == {"ok": "task events enabled"}
        heard = fleet.client.send_task("proj.add", [1, 2])
        eventually(lambda: "task-succeeded" in listener.of(heard.id))

    assert listener.of(silent.id) == []
    assert fleet.control("enable_events") == {"ok": "task events already enabled"}


def test_a_heartbeat_comes_when_it_is_asked_for(fleet: Fleet) -> None:
    assert fleet.control("heartbeat") is None


# More than one worker


def test_a_new_worker_knows_what_was_revoked_before(
    fleet: Fleet, tmp_path: Path, urls: tuple[str, str]
) -> None:
    fleet.control("revoke", "revoked-before")

    def is_known_to_a_new_one() -> bool:
        with working(tmp_path, urls, "-n", "new@%h", "-c", "1", "-Q", "apart") as other:
            other.node = f"new@{HOST}"
            send = fleet.client.send_task
            send("proj.add", [1, 2], queue="apart").get(timeout=PATIENCE)
            return "revoked-before" in other.inspect("revoked")

    # It gives the others a second to answer, which may be too short here, now and then.
    eventually(is_known_to_a_new_one)


def test_a_worker_that_does_not_mingle_knows_only_its_own(
    fleet: Fleet, tmp_path: Path, urls: tuple[str, str]
) -> None:
    fleet.control("revoke", "revoked-elsewhere")
    options = ("-n", "lone@%h", "-c", "1", "-Q", "apart", "--without-mingle")
    quiet = ("--without-gossip", "--without-heartbeat")
    with working(tmp_path, urls, *options, *quiet) as other:
        other.node = f"lone@{HOST}"
        fleet.client.send_task("proj.add", [1, 2], queue="apart").get(timeout=PATIENCE)

        assert other.inspect("revoked") == []


def test_revoked_ids_outlive_a_restart(tmp_path: Path, apart: tuple[str, str]) -> None:
    options = ("-c", "1", "-S", str(tmp_path / "%n.db"), "-n", "kept@%h")
    for expected in ([], ["a"]):
        with working(tmp_path, apart, *options) as fleet:
            fleet.node = f"kept@{HOST}"
            assert fleet.inspect("revoked") == expected
            fleet.control("revoke", "a")
    assert (tmp_path / "kept.db").exists()


# Other pools


THREADS, SOLO, ASYNCIO = grouped("control", ["threads", "solo", "asyncio"])


@pytest.fixture(scope="module", params=[THREADS, SOLO, ASYNCIO])
def other(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """Yield a worker of this pool, on a server of its own."""
    folder = tmp_path_factory.mktemp("other")
    options = ("-P", request.param, "-c", "2", "-E")
    with Server() as server:
        urls = server.url(0), server.url(1)
        with working(folder, urls, *options) as fleet:
            yield fleet


def ids_of(told: list[dict[str, Any]]) -> list[str]:
    return [one.get("request", one)["id"] for one in told]


def test_workers_of_all_pools_are_seen(other: Fleet) -> None:
    with Listener(other.client) as listener:
        sent = other.client.send_task("proj.add", [1, 2])
        eventually(lambda: "task-succeeded" in listener.of(sent.id))

    assert other.inspect("ping") == {"ok": "pong"}
    assert other.inspect("stats")["pool"]["processes"] == [other.worker.pid]
    assert other.inspect("conf")["timezone"] == "Asia/Kathmandu"
    assert "proj.add" in other.inspect("registered")
    assert "proj.flaky [max_retries=3]" in other.inspect("registered", "max_retries")


@pytest.mark.parametrize("other", [THREADS, ASYNCIO], indirect=True)
def test_what_runs_is_seen_where_runs_share_a_process(other: Fleet) -> None:
    running = other.client.send_task("proj.mark", ["runs", 0, "asked"])
    eventually(lambda: other.project.runs("runs"))

    (active,) = other.inspect("active")
    assert (active["id"], active["args"]) == (running.id, ["runs", 0, "asked"])
    assert active["worker_pid"] == other.worker.pid

    other.project.release("asked")
    assert running.get(timeout=PATIENCE) == "runs"
    eventually(lambda: other.inspect("active") == [], "its end")


@pytest.mark.parametrize("other", [SOLO], indirect=True)
def test_a_solo_worker_answers_between_two_runs(other: Fleet) -> None:
    running = other.client.send_task("proj.mark", ["runs", 0, "asked"])
    eventually(lambda: other.project.runs("runs"))

    with ThreadPoolExecutor(1) as asking:
        answer = asking.submit(other.inspect, "ping")
        other.project.release("asked")

        assert answer.result(PATIENCE) == {"ok": "pong"}
    assert running.get(timeout=PATIENCE) == "runs"
    eventually(lambda: other.inspect("active") == [], "its end")


def test_on_all_pools_what_comes_later_is_seen_and_revoked(other: Fleet) -> None:
    later = other.client.send_task("proj.add", [1, 2], countdown=600)
    eventually(lambda: ids_of(other.inspect("scheduled")) == [later.id])

    other.control("revoke", later.id)
    assert later.state == "REVOKED"
    assert later.id in other.inspect("revoked")


def test_on_all_pools_a_rate_holds_back_what_is_reserved(other: Fleet) -> None:
    set_ = {"ok": "new rate limit set successfully"}
    assert other.control("rate_limit", "proj.where", "1/h") == set_
    assert "proj.where [rate_limit=1/h]" in other.inspect("registered")
    first, second = (other.client.send_task("proj.where") for _ in range(2))
    pid, _ = first.get(timeout=PATIENCE)

    assert pid == other.worker.pid
    eventually(lambda: ids_of(other.inspect("reserved")) == [second.id])
    off = {"ok": "rate limit disabled successfully"}
    assert other.control("rate_limit", "proj.where", "") == off
    assert second.get(timeout=PATIENCE)[0] == pid
    assert other.inspect("reserved") == []


def test_on_all_pools_time_limits_are_set(other: Fleet) -> None:
    assert other.control("time_limit", "proj.mark", hard=90, soft=0.2) == {
        "ok": "time limits set successfully"
    }
    limited = "proj.mark [soft_time_limit=0.2 time_limit=90.0]"
    assert limited in other.inspect("registered", "soft_time_limit", "time_limit")
    sent = other.client.send_task("proj.mark", ["limited", 0, "nobody touches this"])

    eventually(sent.ready)
    assert type(sent.result).__name__ == "SoftTimeLimitExceeded"
    other.control("time_limit", "proj.mark", hard=None, soft=None)


def test_on_all_pools_a_queue_is_added_and_left(other: Fleet) -> None:
    sent = other.client.send_task("proj.add", [1, 2], queue="elsewhere")

    added = {"ok": "add consumer elsewhere"}
    assert other.control("add_consumer", "elsewhere") == added
    assert sent.get(timeout=PATIENCE) == 3
    left = {"ok": "no longer consuming from elsewhere"}
    assert other.control("cancel_consumer", "elsewhere") == left
    assert [one["name"] for one in other.inspect("active_queues")] == ["celery"]


@pytest.mark.parametrize("other", [THREADS, ASYNCIO], indirect=True)
def test_pools_without_processes_grow_and_shrink(other: Fleet) -> None:
    def size() -> int:
        return int(other.inspect("stats")["pool"]["max-concurrency"])

    assert other.control("pool_grow", 2) == {"ok": "pool will grow"}
    assert size() == 4
    met = [other.client.send_task("proj.meet", ["four", 4]) for _ in range(4)]
    assert [sent.get(timeout=PATIENCE) for sent in met] == [other.worker.pid] * 4
    assert other.control("pool_shrink", 2) == {"ok": "pool will shrink"}
    assert size() == 2


@pytest.mark.parametrize("other", [SOLO], indirect=True)
def test_a_solo_pool_neither_grows_nor_shrinks(other: Fleet) -> None:
    grow, shrink = other.control("pool_grow", 1), other.control("pool_shrink", 1)

    assert "cannot change its size" in grow["error"]
    assert "not 0" in shrink["error"]
    assert other.inspect("stats")["pool"]["max-concurrency"] == 1


def test_where_runs_share_a_process_none_can_be_terminated(
    tmp_path: Path, apart: tuple[str, str]
) -> None:
    with working(tmp_path, apart, "-P", "threads", "-c", "2") as fleet:
        sent = fleet.client.send_task("proj.mark", ["shared", 0, "asked"])
        eventually(lambda: fleet.project.runs("shared"))
        answer = fleet.control("revoke", sent.id, terminate=True)
        fleet.project.release("asked")

        assert "cannot end a run" in answer["error"]
        assert sent.get(timeout=PATIENCE) == "shared"


# beatd's own client


def test_a_result_of_ours_revokes_its_run(fleet: Fleet) -> None:
    name = uuid.uuid4().hex
    sent = fleet.project.app.send_task("proj.mark", [name, 60])
    eventually(lambda: fleet.project.runs(name))
    sent.revoke(terminate=True, signal="KILL")

    with pytest.raises(BeatdError, match="terminated"):
        sent.get(timeout=PATIENCE)


STEADY = ["ping", "registered", "active_queues", "revoked", "conf", "scheduled"]
"""What two clients are told alike, one after the other."""


@pytest.mark.parametrize("method", STEADY)
def test_our_client_is_told_what_celery_s_is(fleet: Fleet, method: str) -> None:
    ours = fleet.project.app.control.inspect([fleet.node], timeout=PATIENCE)
    theirs = fleet.client.control.inspect([fleet.node], timeout=PATIENCE)

    assert getattr(ours, method)() == getattr(theirs, method)()


def test_our_client_steers_workers(fleet: Fleet) -> None:
    control = fleet.project.app.control
    wait: dict[str, Any] = {"reply": True, "timeout": PATIENCE}
    to = [fleet.node]

    assert control.ping(to, timeout=PATIENCE) == [{fleet.node: {"ok": "pong"}}]
    for answers in (
        control.rate_limit("proj.add", "100/s", to, **wait),
        control.time_limit("proj.add", 5, 9, to, **wait),
        control.add_consumer("more", destination=to, **wait),
        control.cancel_consumer("more", to, **wait),
        control.pool_grow(1, to, **wait),
        control.pool_shrink(1, to, **wait),
        control.enable_events(to, **wait),
        control.revoke("nobody's", to, **wait),
    ):
        ((answer,),) = [list(one.values()) for one in answers or ()]
        assert "ok" in answer
    assert "nobody's" in control.inspect(fleet.node, timeout=PATIENCE).revoked()
    assert control.inspect(["nobody"], timeout=0.1).ping() is None


def test_our_client_empties_queues(fleet: Fleet) -> None:
    app = Beatd(
        set_as_current=False, broker=fleet.project.app.settings.broker_urls[0],
        task_default_queue="nobody-takes",
    )  # fmt: skip
    app.send_task("any")

    assert app.control.purge() == 1
    assert app.control.purge() == 0
    app.close()


def test_a_broker_without_remote_control_says_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/broker.db"
    project = Project(tmp_path, url, f"sqlite:///{tmp_path}/results.db")
    sent = project.app.send_task("proj.add", [1, 2])

    with pytest.raises(ConfigError, match="remote control goes over Redis"):
        sent.revoke()
    with project.worker("-c", "1", "-E") as worker:
        worker.await_line("this broker carries no events")
    project.app.close()


# Faults


def test_remote_control_comes_back_with_its_server(tmp_path: Path) -> None:
    with Server() as server:
        urls = server.url(0), server.url(1)
        with working(tmp_path, urls, "-c", "1") as fleet:
            assert fleet.inspect("ping") == {"ok": "pong"}
            server.kill()
            fleet.worker.await_line("the broker is away")
            server.start()
            look = fleet.client.control.inspect(timeout=0.5)

            def ping() -> Any:
                with contextlib.suppress(OSError, redis.ConnectionError):
                    return look.ping()
                return None

            assert eventually(ping) == {fleet.node: {"ok": "pong"}}


def test_garbage_on_the_channel_harms_nobody(
    fleet: Fleet, urls: tuple[str, str]
) -> None:
    with redis.Redis.from_url(urls[0]) as raw:
        for garbage in (b"", b"\xff", b"{}", b"[" * 100_000, b'{"body": 1}'):
            raw.publish("/0.celery.pidbox", garbage)

    assert fleet.inspect("ping") == {"ok": "pong"}
    fleet.worker.await_line("passed over a command that cannot be read")
