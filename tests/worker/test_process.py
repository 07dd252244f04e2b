"""A real worker in a process of its own, over real brokers and pools."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from beatd.errors import TimeLimitExceeded, WorkerLost
from beatd.pools import NAMES
from tests.servers import PATIENCE, Server, eventually
from tests.worker.project import Project


@pytest.fixture(params=["redis", "sqlite"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    if request.param == "redis":
        server: Server = request.getfixturevalue("server")
        made = Project(tmp_path, server.url(0), server.url(1))
    else:
        made = Project(
            tmp_path, f"sqlite:///{tmp_path}/broker.db", f"sqlite:///{tmp_path}/res.db"
        )
    yield made
    made.app.close()


@pytest.mark.parametrize("pool", NAMES)
def test_tasks_run_and_their_results_are_read_from_elsewhere(
    project: Project, pool: str
) -> None:
    send = project.app.send_task
    with project.worker("-P", pool, "-c", "2"):
        sums = [send("proj.add", [number, 1]) for number in range(50)]
        later = send("proj.add_later", [2, 3])
        flaky = send("proj.flaky", [2])
        soon = send("proj.add", [1, 1], countdown=0.2)
        soft = [send("proj.patient"), send("proj.patient_later")]
        parent = send("proj.parent", [4])

        assert [one.get(timeout=PATIENCE) for one in sums] == list(range(1, 51))
        assert later.get(timeout=PATIENCE) == 5
        assert flaky.get(timeout=PATIENCE) == 2
        assert soon.get(timeout=PATIENCE) == 2
        assert [one.get(timeout=PATIENCE) for one in soft] == ["cleaned up"] * 2
        child = project.app.AsyncResult(parent.get(timeout=PATIENCE))
        assert child.get(timeout=PATIENCE) == 8


@pytest.mark.parametrize("pool", [name for name in NAMES if name != "solo"])
def test_a_coroutine_past_its_time_limit_gives_up_its_place(
    project: Project, pool: str
) -> None:
    with project.worker("-P", pool, "-c", "1"):
        late = project.app.send_task("proj.late")
        after = project.app.send_task("proj.add", [1, 1])

        with pytest.raises(TimeLimitExceeded):
            late.get(timeout=PATIENCE)
        assert after.get(timeout=PATIENCE) == 2


def test_a_child_that_has_grown_too_large_is_replaced(project: Project) -> None:
    with project.worker("-c", "1", "--max-memory-per-child", "1"):
        pids = [
            project.app.send_task("proj.where").get(timeout=PATIENCE)[0] for _ in "ab"
        ]

    assert pids[0] != pids[1]


def test_a_pool_grows_with_the_load_and_shrinks_when_it_is_gone(
    project: Project,
) -> None:
    options = ("--autoscale=3,1", "--autoscale-keepalive", "0.5", "-O", "fair")
    with project.worker(*options) as worker:
        names = ("m0", "m1", "m2")
        marks = [project.app.send_task("proj.mark", [one, 0, "go"]) for one in names]
        worker.await_line("runs 3 at a time")
        project.release("go")
        assert [one.get(timeout=PATIENCE) for one in marks] == ["m0", "m1", "m2"]
        worker.await_line("runs 1 at a time")

        assert project.app.send_task("proj.add", [1, 1]).get(timeout=PATIENCE) == 2


def test_a_pool_that_follows_the_load_replaces_its_children_all_the_same(
    project: Project,
) -> None:
    options = ("--autoscale=3,1", "--autoscale-keepalive", "0.5")
    with project.worker(*options, "--max-tasks-per-child", "2") as worker:
        for times in (1, 2):
            ran: Counter[int] = Counter()
            for table in range(4):  # one by one: nobody takes a place at the next one
                arguments = [f"table {times}.{table}", 3]
                meals = [project.app.send_task("proj.meet", arguments) for _ in "abc"]
                ran.update(meal.get(timeout=PATIENCE) for meal in meals)
            worker.await_line("runs 1 at a time", times)

            assert max(ran.values()) <= 2
    assert "runs 4 at a time" not in worker.log.read_text()


@pytest.mark.parametrize(
    ("pool", "how"), [("prefork", "fair"), ("prefork", "default"), ("threads", "fair")]
)
def test_a_long_task_never_holds_up_a_short_one(
    project: Project, pool: str, how: str
) -> None:
    send = project.app.send_task
    before = [send("proj.add", [number, 1]) for number in range(30)]
    long = send("proj.mark", ["long", 600])
    behind = [send("proj.add", [number, 2]) for number in range(30)]
    with project.worker("-P", pool, "-c", "2", "-O", how) as worker:
        assert [one.get(timeout=PATIENCE) for one in before] == list(range(1, 31))
        assert [one.get(timeout=PATIENCE) for one in behind] == list(range(2, 32))

        assert project.runs("long") == 1
        assert long.state == "PENDING"
        worker.signal(signal.SIGQUIT)
        worker.wait()


def test_a_purge_removes_what_waits_before_the_worker_takes_anything(
    project: Project,
) -> None:
    for name in ("one", "two"):
        project.app.send_task("proj.mark", [name])

    with project.worker("-c", "1", "--purge") as worker:
        assert project.app.send_task("proj.add", [1, 1]).get(timeout=PATIENCE) == 2
        worker.await_line("removed 2 messages")

    assert project.runs("one") + project.runs("two") == 0


def test_tasks_see_the_configured_zone_as_local_time(project: Project) -> None:
    with project.worker("-c", "1") as worker:
        pid, offset = project.app.send_task("proj.where").get(timeout=PATIENCE)

    assert offset == "+0545"
    assert pid != worker.pid


def test_a_child_that_dies_costs_only_a_second_run(project: Project) -> None:
    with project.worker("-c", "2"):
        died = project.app.send_task("proj.die_once", ["once"])
        beside = project.app.send_task("proj.add", [1, 1])

        assert died.get(timeout=PATIENCE) == "survived"
        assert beside.get(timeout=PATIENCE) == 2


def test_a_task_that_always_kills_its_process_ends_in_failure(
    project: Project,
) -> None:
    with project.worker("-c", "1"):
        died = project.app.send_task("proj.die")
        after = project.app.send_task("proj.add", [1, 1])

        with pytest.raises(WorkerLost):
            died.get(timeout=PATIENCE)
        assert after.get(timeout=PATIENCE) == 2


def test_a_task_that_killed_its_process_is_retried_when_it_asks_for_that(
    project: Project,
) -> None:
    with project.worker("-c", "1"):
        lives = project.app.send_task("proj.die_until", [2])
        dies = project.app.send_task("proj.die_until", [3])

        assert lives.get(timeout=PATIENCE) == 2
        with pytest.raises(WorkerLost, match="status 7"):
            dies.get(timeout=PATIENCE)


def test_a_warm_stop_lets_the_running_task_end(project: Project) -> None:
    with project.worker("-c", "1") as worker:
        running = project.app.send_task("proj.mark", ["running", 0, "go"])
        waiting = project.app.send_task("proj.mark", ["waiting"])
        eventually(lambda: project.runs("running"))
        worker.signal(signal.SIGTERM)
        worker.await_line("stopping, warm")
        project.release("go")

        assert worker.wait() == 0
    assert running.get(timeout=0) == "running"
    assert project.runs("waiting") == 0

    with project.worker("-c", "1"):
        assert waiting.get(timeout=PATIENCE) == "waiting"
    assert project.runs("running") == 1


def test_a_cold_stop_gives_the_running_task_to_the_next_worker(
    project: Project,
) -> None:
    with project.worker("-c", "1") as worker:
        running = project.app.send_task("proj.mark", ["running", 0, "go"])
        eventually(lambda: project.runs("running"))
        worker.signal(signal.SIGQUIT)
        worker.wait()

    project.release("go")
    with project.worker("-c", "1"):
        assert running.get(timeout=PATIENCE) == "running"
    assert project.runs("running") == 2


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_soft_stop_lets_short_tasks_end_and_gives_long_ones_to_the_next_worker(
    project: Project, pool: str
) -> None:
    project.configure(worker_soft_shutdown_timeout=5)
    with project.worker("-P", pool, "-c", "2") as worker:
        long = project.app.send_task("proj.mark", ["long", 600])
        short = project.app.send_task("proj.mark", ["short", 0.5])
        eventually(lambda: project.runs("long") and project.runs("short"))
        worker.signal(signal.SIGQUIT)
        worker.wait()

    assert short.get(timeout=0) == "short"
    assert long.state == "PENDING"
    with project.worker("-c", "1") as after:
        eventually(lambda: project.runs("long") == 2)
        after.signal(signal.SIGQUIT)
        after.await_line("stopping, soft")
        after.signal(signal.SIGQUIT)
        after.wait()
    assert project.runs("short") == 1


def test_a_soft_stop_ends_as_soon_as_nothing_runs(project: Project) -> None:
    project.configure(worker_soft_shutdown_timeout=600)
    with project.worker("-c", "1") as worker:
        running = project.app.send_task("proj.mark", ["running", 1])
        eventually(lambda: project.runs("running"))
        worker.signal(signal.SIGQUIT)

        assert worker.wait() == 0
    assert running.get(timeout=0) == "running"


def test_a_third_interrupt_waits_for_nothing(project: Project) -> None:
    project.configure(worker_soft_shutdown_timeout=600)
    with project.worker("-c", "1") as worker:
        project.app.send_task("proj.mark", ["running", 60])
        eventually(lambda: project.runs("running"))
        for how in ("warm", "soft", "cold"):
            worker.signal(signal.SIGINT)
            worker.await_line(f"stopping, {how}")

        assert worker.wait() == 0


def test_the_signal_for_a_warm_stop_can_be_made_one_for_a_cold_one(
    project: Project,
) -> None:
    with project.worker("-c", "1", REMAP_SIGTERM="SIGQUIT") as worker:
        project.app.send_task("proj.mark", ["running", 60])
        eventually(lambda: project.runs("running"))
        worker.signal(signal.SIGTERM)

        assert worker.wait() == 0


def test_tasks_of_a_worker_that_was_killed_are_run_by_another(
    project: Project,
) -> None:
    with project.worker("-c", "1") as first, project.worker("-c", "1"):
        names = [f"m{number}" for number in range(6)]
        marks = [project.app.send_task("proj.mark", [one, 0, "go"]) for one in names]
        # One for each of the two workers.
        eventually(lambda: sum(map(project.runs, names)) == 2, "two runs to begin")
        first.signal(signal.SIGKILL)
        project.release("go")

        assert [mark.get(timeout=PATIENCE) for mark in marks] == names
    assert sum(map(project.runs, names)) == 7
