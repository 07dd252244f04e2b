"""A worker that is steered: what is revoked, limited, taken from other queues."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from beatd.brokers.items import Outgoing
from beatd.control.pidbox import Command, Later
from beatd.errors import BrokerUnavailable
from beatd.instant import MINUTE, SECOND
from beatd.pools.base import Finished, Lost, Started
from beatd.results.base import Meta
from beatd.routing import Route
from beatd.runs.report import Fate, Report, pack_report
from beatd.tasks import Task
from beatd.worker.autoscale import Autoscale
from beatd.worker.commands import COMMANDS
from beatd.worker.inbox import KnownAsRevoked, Stop, TimePassed
from beatd.worker.renewal import About, Renewed
from beatd.worker.revoked import StateFile, mingle
from tests.fakes import NOON
from tests.worker.bench import Bench, HeldPool, SharingPool, with_held_pool


@pytest.fixture
def bench() -> Bench:
    return Bench()


def command(bench: Bench, method: str, **arguments: Any) -> Any:
    """Have the worker execute a command; return its answer."""
    answers: list[object] = []
    bench.inbox.put(Command(method, arguments, answers.append))
    bench.run()
    (answer,) = answers
    return answer.give() if isinstance(answer, Later) else answer


def add_to(bench: Bench, **options: Any) -> Task[[int, int], int]:
    @bench.app.task(name="proj.add", **options)
    def add(x: int, y: int) -> int:
        return x + y

    task: Task[[int, int], int] = add
    return task


def started(bench: Bench, pool: SharingPool) -> None:
    for job in pool.jobs:
        bench.inbox.put(Started(job.token, 77))
    bench.run()


def finish(bench: Bench, pool: HeldPool) -> None:
    """Let all that the pool has end well."""
    jobs, pool.jobs = pool.jobs, []
    for job in jobs:
        bench.inbox.put(Started(job.token, 77))
        bench.inbox.put(Finished(job.token, pack_report(Report(state="SUCCESS"))))
    bench.run()


def pass_time(bench: Bench, length: int) -> None:
    """Let the loop see that nothing came for so long."""
    bench.clock.go_to(bench.clock.now() + length)
    bench.inbox.put(TimePassed())
    bench.run()


@pytest.mark.parametrize("method", ["conf", "stats", "report"])
def test_no_secret_is_told_to_who_asks_for_the_settings(method: str) -> None:
    bench = Bench(
        broker_url="redis://:hush-1@nowhere/0",
        result_backend="redis://:hush-2@nowhere/0",
        broker_transport_options={
            "password": "hush-3",
            "sentinel_kwargs": {"password": "hush-4", "socket_timeout": 1.5},
        },
        redis_backend_use_ssl={"ssl_keyfile": "/key.pem"},
        broker_password="hush-5",
        redis_password="hush-6",
        security_key_password="hush-7",
        broker_read_url="redis://:hush 8@nowhere/0?pwd=hush-9",
        result_backend_transport_options={"credentials": {"name": "hush-10"}},
    )

    told = str(command(bench, method))

    assert "hush" not in told
    assert method == "report" or "1.5" in told


def test_what_is_on_its_way_to_wait_for_its_time_is_shown(bench: Bench) -> None:
    later = add_to(bench).apply_async((1, 2), countdown=60)
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    answers: list[Any] = []
    bench.inbox.put(Command("scheduled", {}, answers.append))
    bench.inbox.put(Command("query_task", {"ids": [later.id]}, answers.append))
    bench.handle()  # and the broker has not been told yet

    scheduled, asked = (answer.give() for answer in answers)
    assert [one["request"]["id"] for one in scheduled] == [later.id]
    assert asked[later.id][0] == "scheduled"

    bench.settle()

    assert [one["request"]["id"] for one in command(bench, "scheduled")] == [later.id]
    command(bench, "revoke", task_id=later.id)
    bench.clock.go_to(bench.clock.now() + MINUTE)
    bench.run()
    assert command(bench, "scheduled") == []


@pytest.mark.parametrize(
    ("options", "accept"),
    [
        ({"serializer": "yaml"}, ["json"]),
        ({"serializer": "yaml"}, ["json", "yaml"]),  # its aliases could be a bomb
        ({"serializer": "pickle"}, ["json", "pickle"]),
        ({"serializer": "msgpack"}, ["json"]),
    ],
)
def test_only_what_the_worker_accepts_is_decoded_to_be_shown(
    options: dict[str, Any], accept: list[str]
) -> None:
    bench = Bench(accept_content=accept)
    pool = with_held_pool(bench, size=1)
    bench.app.task(name="proj.add")(lambda *_: None)
    for _ in range(3):
        bench.app.send_task("proj.add", [1, {"a": 2}], **options)
    bench.app.send_task("proj.add", [1, {"a": 2}], countdown=60, **options)
    bench.run()
    started(bench, pool)
    shown = [
        *command(bench, "active"),
        *command(bench, "reserved"),
        *(one["request"] for one in command(bench, "scheduled")),
    ]

    assert [one["args"] for one in shown] == ["[1, {'a': 2}]"] * 4


def test_what_grows_when_it_is_unpacked_is_not_shown_decoded(bench: Bench) -> None:
    with_held_pool(bench)
    add_to(bench).apply_async((["x"] * 2_000_000, 1), compression="zlib")
    bench.run()
    (run,) = command(bench, "reserved")

    assert isinstance(run["args"], str)
    assert len(run["args"]) < 10_001


def test_one_answer_decodes_only_so_much() -> None:
    bench = Bench(worker_prefetch_multiplier=100)
    with_held_pool(bench, size=1)
    add = add_to(bench)
    for _ in range(20):
        add.delay("x" * 60_000, 1)  # type: ignore[arg-type] # never run
    bench.run()
    shown = command(bench, "reserved")
    kinds = [type(one["args"]) for one in shown]

    assert len(kinds) == 20
    assert kinds.count(list) == 12  # of 80,000 bytes each, in base64
    assert kinds.count(str) == 8


# Revoked


def test_a_revoked_call_is_not_run_and_its_waiters_know_at_once(bench: Bench) -> None:
    result = add_to(bench).apply_async((1, 1), countdown=60)
    bench.run()
    answer = command(bench, "revoke", task_id=result.id)
    assert answer == {"ok": f"tasks { {result.id} } flagged as revoked"}
    assert result.state == "REVOKED"
    assert repr(result.result) == "Revoked('revoked')"

    bench.clock.go_to(NOON + MINUTE)
    bench.run()
    assert result.state == "REVOKED"
    assert bench.left() == 0


def test_a_call_that_waits_here_is_revoked_before_it_begins(bench: Bench) -> None:
    pool = with_held_pool(bench, size=1)
    add = add_to(bench)
    add.delay(1, 1)
    waiting = add.delay(2, 2)
    bench.run()
    command(bench, "revoke", task_id=[waiting.id])
    finish(bench, pool)

    assert pool.jobs == []
    assert waiting.state == "REVOKED"


def test_a_call_that_is_about_to_begin_is_revoked() -> None:
    bench = Bench(task_acks_late=False)
    pool, free = with_held_pool(bench), bench.worker.window.free()
    result = add_to(bench).delay(1, 1)
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()
    bench.handle()
    command(bench, "revoke", task_id=result.id)

    assert pool.jobs == []
    assert result.state == "REVOKED"
    assert bench.worker.window.free() == free


def test_what_has_ended_stays_as_it_ended(bench: Bench) -> None:
    result = add_to(bench).delay(1, 1)
    bench.run()
    command(bench, "revoke", task_id=result.id)

    assert result.get(timeout=0) == 2


def test_a_run_that_is_revoked_goes_on(bench: Bench) -> None:
    pool = with_held_pool(bench)
    result = add_to(bench).delay(1, 1)
    bench.run()
    started(bench, pool)
    command(bench, "revoke", task_id=result.id)

    assert pool.signals == []
    assert result.state == "PENDING"


def test_a_run_that_is_terminated_is_revoked_and_not_run_again(bench: Bench) -> None:
    pool = with_held_pool(bench)
    result = add_to(bench).delay(1, 1)
    bench.run()
    (job,) = pool.jobs
    started(bench, pool)
    answer = command(
        bench, "revoke", task_id=result.id, terminate=True, signal="SIGKILL"
    )
    assert answer == {"ok": f"terminate: {result.id}"}
    assert pool.signals == [(job.token, 9)]

    bench.inbox.put(Lost(job.token, "signal 9 (SIGKILL)"))
    bench.run()
    assert repr(result.result) == "Revoked('terminated')"
    assert len(pool.jobs) == 1
    assert bench.left() == 0


def test_where_no_run_can_be_ended_the_asker_is_told() -> None:
    pool = SharingPool()
    bench = Bench(pool=pool)
    result = add_to(bench).delay(1, 1)
    bench.run()
    started(bench, pool)

    answer = command(bench, "terminate", signal="KILL", task_id=result.id)
    assert answer == {
        "error": "NotImplementedError('this pool cannot end a run that has begun')"
    }


def test_an_unknown_signal_is_refused_and_nothing_revoked(bench: Bench) -> None:
    answer = command(bench, "revoke", task_id="a", terminate=True, signal="SIGNOTHING")

    assert "no signal is called 'SIGNOTHING'" in answer["error"]
    assert command(bench, "revoked") == []


def test_calls_with_a_revoked_stamp_are_not_run(bench: Bench) -> None:
    add = add_to(bench)
    command(bench, "revoke_by_stamped_headers", headers={"tenant": ["t1", "t2"]})
    revoked = add.apply_async((1, 1), stamped_headers=["tenant"], tenant="t2")
    other = add.apply_async((1, 1), stamped_headers=["tenant"], tenant="t3")
    bench.run()

    assert revoked.state == "REVOKED"
    assert other.get(timeout=0) == 2


def test_a_stamp_may_be_a_number_which_is_not_its_text(bench: Bench) -> None:
    add = add_to(bench)
    headers = {"tenant": [1234], "batch": "7"}
    told = command(bench, "revoke_by_stamped_headers", headers=headers)
    revoked = add.apply_async((1, 1), stamped_headers=["tenant"], tenant=1234)
    other = add.apply_async((1, 1), stamped_headers=["batch"], batch=7)
    bench.run()

    assert "flagged as revoked" in told["ok"]
    assert revoked.state == "REVOKED"
    assert other.get(timeout=0) == 2


def test_ids_that_other_workers_know_are_not_run(bench: Bench) -> None:
    bench.inbox.put(KnownAsRevoked(["known"]))
    result = add_to(bench).apply_async((1, 1), task_id="known")
    bench.run()

    assert result.state == "REVOKED"
    answer = command(bench, "hello", from_node="w2@there", revoked=["theirs"])
    assert answer["revoked"] == ["known", "theirs"]


@pytest.mark.parametrize("theirs", [{}, {"theirs": [1700000000.5, "theirs"]}])
def test_a_table_of_ids_as_workers_of_celery_5_4_send_it_is_understood(
    bench: Bench, theirs: dict[str, object]
) -> None:
    answer = command(bench, "hello", from_node="w2@there", revoked=theirs)

    assert answer["revoked"] == list(theirs)
    assert "clock" in answer


def test_an_id_that_is_none_keeps_no_other_from_being_revoked(bench: Bench) -> None:
    command(bench, "revoke", task_id=[None, "a", 7])

    assert command(bench, "revoked") == ["a"]


def test_a_state_file_that_fails_keeps_no_client_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.db"
    bench = Bench(state_file=StateFile(path))
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE revoked")

    command(bench, "revoke", task_id="a")

    assert "control.unkept" in [getattr(one, "event", "") for one in caplog.records]
    assert bench.results.metas["a"].status == "REVOKED"


def test_a_result_backend_that_is_away_does_not_keep_from_revoking(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.results.away = True
    answer = command(bench, "revoke", task_id="a")

    assert answer == {"ok": "tasks {'a'} flagged as revoked"}
    assert "control.unkept" in [getattr(one, "event", "") for one in caplog.records]
    assert command(bench, "revoked") == ["a"]


def test_a_result_that_cannot_be_read_keeps_no_other_run_from_being_revoked(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.results.unreadable = {"odd"}
    command(bench, "revoke", task_id=["a", "odd", "b"])

    assert {key: one.status for key, one in bench.results.metas.items()} == {
        "a": "REVOKED",
        "b": "REVOKED",
    }, "what cannot be read stays as it is"
    [said] = [one for one in caplog.records if vars(one)["event"] == "control.unkept"]
    assert "the result of odd cannot be read" in said.getMessage()


@pytest.mark.parametrize(
    ("exception", "state"), [("Reject('no')", "MINE"), ("", "FAILURE")]
)
def test_what_a_rejected_task_has_stored_stays(
    bench: Bench, exception: str, state: str
) -> None:
    pool = with_held_pool(bench)
    result = add_to(bench).apply_async((1, 1))
    bench.run()
    bench.app.store_meta(Meta(result.id, "MINE", None))
    (job,) = pool.jobs
    pool.jobs = []
    report = Report(fate=Fate.SET_ASIDE, reason="why", exception=exception)
    bench.inbox.put(Started(job.token, 77))
    bench.inbox.put(Finished(job.token, pack_report(report)))
    bench.run()

    assert result.state == state
    assert len(bench.broker.dead_letters()) == 1


def test_a_state_file_knows_what_was_revoked_before_a_restart(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "worker.db")
    first = Bench(state_file=file)
    command(first, "revoke", task_id=["a", "b"])

    assert sorted(command(Bench(state_file=file), "revoked")) == ["a", "b"]


# Rate limits


def test_a_limited_task_runs_at_its_rate(bench: Bench) -> None:
    pool = with_held_pool(bench, size=4)
    add = add_to(bench, rate_limit="60/m")
    for number in range(3):
        add.delay(number, 0)
    bench.run()
    ran = [len(pool.jobs)]
    for _ in range(3):
        pass_time(bench, SECOND)
        ran.append(len(pool.jobs))

    assert ran == [1, 2, 3, 3]


def test_a_limited_task_holds_up_no_other() -> None:
    bench = Bench()
    pool = with_held_pool(bench)
    add = add_to(bench, rate_limit="1/h")
    for number in range(20):
        add.delay(number, 0)
    bench.app.task(name="proj.free")(lambda: None).delay()
    bench.run()

    assert [b"proj.free" in job.message for job in pool.jobs] == [False, True]


def test_the_settings_limit_tasks_that_say_nothing() -> None:
    bench = Bench(task_default_rate_limit="1/h")
    pool = with_held_pool(bench)
    add = add_to(bench)
    free = bench.app.task(name="proj.free", rate_limit=0)(lambda: None)
    for _ in range(2):
        add.delay(1, 1)
        free.delay()
        bench.run()
        finish(bench, pool)

    assert command(bench, "stats")["total"] == {"proj.add": 1, "proj.free": 2}


def test_rate_limits_can_be_off() -> None:
    bench = Bench(worker_disable_rate_limits=True)
    pool = with_held_pool(bench)
    add = add_to(bench, rate_limit="1/h")
    add.delay(1, 1)
    add.delay(1, 1)
    bench.run()

    assert len(pool.jobs) == 2


def test_a_limit_that_cannot_be_read_is_said_and_limits_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    result = add_to(bench, rate_limit="often").delay(1, 1)
    bench.run()

    assert result.state == "SUCCESS"
    assert "could not convert string to float: 'often'" in caplog.text


def test_what_was_asked_for_while_its_queue_was_cancelled_goes_back(
    bench: Bench,
) -> None:
    result = add_to(bench).delay(1, 1)
    bench.worker.intake.lease.turn()
    bench.worker.intake.fetcher.turn()

    bench.worker.intake.cease("celery")  # what was asked for is on its way
    bench.run()

    assert result.state == "PENDING"
    assert bench.left() == 1


def test_a_limit_can_be_set_and_taken_away_at_any_time(bench: Bench) -> None:
    pool = with_held_pool(bench, size=4)
    add = add_to(bench)
    answer = command(bench, "rate_limit", task_name="proj.add", rate_limit="1/h")
    for number in range(3):
        add.delay(number, 0)
    bench.run()
    assert (answer, len(pool.jobs)) == ({"ok": "new rate limit set successfully"}, 1)

    answer = command(bench, "rate_limit", task_name="proj.add", rate_limit=0)
    assert answer == {"ok": "rate limit disabled successfully"}
    assert len(pool.jobs) == 3


def test_a_stop_gives_back_what_waits_for_its_turn(bench: Bench) -> None:
    pool, free = with_held_pool(bench), bench.worker.window.free()
    add = add_to(bench, rate_limit="1/h")
    for number in range(5):
        add.delay(number, 0)
    bench.run()
    bench.inbox.put(Stop.WARM)
    while bench.handle() | bench.settle():
        pass

    assert len(pool.jobs) == 1
    assert bench.left() == 5  # with the one that the pool has
    assert bench.worker.window.free() == free - 1


def test_what_is_revoked_while_it_waits_for_its_turn_uses_up_no_turn(
    bench: Bench,
) -> None:
    pool = with_held_pool(bench)
    add = add_to(bench, rate_limit="1/m")
    add.delay(0, 0)
    revoked, waiting = add.delay(1, 1), add.delay(2, 2)
    bench.run()
    command(bench, "revoke", task_id=revoked.id)
    pass_time(bench, MINUTE)

    assert waiting.id.encode() in pool.jobs[1].message
    assert revoked.state == "REVOKED"


# Queues, limits, the pool


def test_a_queue_can_be_added_and_left(bench: Bench) -> None:
    add = add_to(bench)
    there = add.apply_async((1, 1), queue="there")
    bench.run()
    assert there.state == "PENDING"

    assert command(bench, "add_consumer", queue="there") == {"ok": "add consumer there"}
    assert there.get(timeout=0) == 2
    assert [one["name"] for one in command(bench, "active_queues")] == [
        *("celery", "there"),
    ]

    command(bench, "cancel_consumer", queue="celery")
    here = add.delay(1, 1)
    bench.run()
    assert here.state == "PENDING"


def test_an_added_queue_is_bound_to_its_exchange(bench: Bench) -> None:
    add_to(bench)
    command(
        bench,
        "add_consumer",
        queue="eu",
        exchange="orders",
        exchange_type="topic",
        routing_key="orders.eu.#",
    )
    result = bench.app.send_task(
        "proj.add", [1, 1], exchange="orders", exchange_type="topic",
        routing_key="orders.eu.paris",
    )  # fmt: skip
    bench.run()

    assert result.get(timeout=0) == 2


def test_time_limits_can_be_changed(bench: Bench) -> None:
    pool = with_held_pool(bench)
    add = add_to(bench)
    command(bench, "time_limit", task_name="proj.add", hard=30, soft=20)
    add.delay(1, 1)
    bench.run()

    (job,) = pool.jobs
    assert (job.time_limit, job.soft_time_limit) == (30, 20)


def test_the_pool_grows_and_shrinks_and_the_worker_holds_accordingly_many(
    bench: Bench,
) -> None:
    pool = with_held_pool(bench)
    bench.worker.sizing.resize(pool.size)  # a window for this pool
    held = bench.worker.window.free()
    command(bench, "pool_grow", n=2)
    assert pool.size == 4
    assert bench.worker.window.free() == held + 2 * 4

    command(bench, "pool_shrink", n=3)
    assert pool.size == 1
    assert "1 to 100 at a time, not 0" in command(bench, "pool_shrink", n=1)["error"]


def test_a_pool_that_cannot_change_says_so(bench: Bench) -> None:
    answer = command(bench, "pool_grow")

    assert "cannot change its size" in answer["error"]


def test_the_bounds_of_autoscale_can_be_changed(bench: Bench) -> None:
    pool = with_held_pool(bench, size=2)
    bench.worker.sizing.autoscale = Autoscale(4, 2)
    assert "Adjust autoscale range" in command(bench, "pool_grow")["error"]

    answer = command(bench, "autoscale", max=6, min=3)
    assert answer == {"ok": "autoscale now max=6 min=3"}
    assert pool.size == 3
    assert "1 <= min <= max" in command(bench, "autoscale", max=1, min=3)["error"]


def test_a_shutdown_is_refused_unless_the_settings_allow_it(bench: Bench) -> None:
    answer = command(bench, "shutdown")
    assert "worker_remote_shutdown is off" in answer["error"]
    assert not bench.worker.is_stopping

    allowing = Bench(worker_remote_shutdown=True)
    assert command(allowing, "shutdown") is None
    allowing.run()
    assert allowing.worker.is_stopping


# Whatever is asked


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("time_limit", {"task_name": "proj.add", "hard": 1e308}, "hard: Expected"),
        ("time_limit", {"task_name": "proj.add", "soft": -1}, "soft: Expected"),
        ("time_limit", {"task_name": "proj.add", "hard": True}, "hard: Expected"),
        ("pool_grow", {"n": 0.5}, "n: Expected `int`, got `float`; got 0.5"),
        ("pool_grow", {"n": 9_999}, "1 to 100 at a time, not 10001"),
        ("pool_shrink", {"n": -1}, "n: Expected `int` >= 0"),
        ("autoscale", {"max": 9_999, "min": 1}, "min <= max <= 100"),
        ("add_consumer", {"queue": "q\ud800"}, "queue"),
        ("add_consumer", {"queue": "q", "exchange": "\udc00"}, "exchange"),
        ("add_consumer", {"queue": ""}, "queue: expected a name"),
        ("add_consumer", {"queue": "q" * 256}, "queue: Expected `str` of length <="),
        ("add_consumer", {"queue": "q", "exchange_type": "x"}, "exchange_type"),
        ("cancel_consumer", {"queue": "\ud800"}, "queue"),
        ("revoke", {"task_id": ["a", "\ud800"]}, "half a character"),
        ("revoke", {"task_id": "a", "terminate": "perhaps"}, "terminate: Expected"),
        ("revoke", {"task_id": "a", "signal": [9]}, "signal: Expected"),
        ("revoke_by_stamped_headers", {"headers": {"a": {}}}, "headers: Expected"),
        ("hello", {"from_node": "w2@here", "revoked": 1}, "revoked: Expected"),
        ("query_task", {"ids": 7}, "ids: Expected"),
        ("registered", {"taskinfoitems": [7]}, "taskinfoitems: Expected"),
        ("conf", {"with_defaults": []}, "with_defaults: Expected"),
    ],
)
def test_a_command_reaches_the_worker_only_as_it_is_declared(
    bench: Bench, method: str, arguments: Mapping[str, Any], words: str
) -> None:
    pool = with_held_pool(bench, size=2)
    bench.worker.sizing.autoscale = Autoscale(4, 2) if method == "autoscale" else None
    add = add_to(bench)
    queues = list(bench.worker.intake.queues)
    error = command(bench, method, **arguments)["error"]

    assert words in error
    assert error.startswith("ValueError(")
    assert (add.time_limit, add.soft_time_limit, pool.size) == (None, None, 2)
    assert bench.worker.intake.queues == queues
    assert command(bench, "revoked") == []


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("memsample", "memsample is not answered: the memory of a worker"),
        ("memdump", "memdump is not answered: the memory of a worker"),
        ("objgraph", "objgraph is not answered: objects of a worker are not drawn"),
        ("election", "election is not answered: workers of beatd elect nobody"),
    ],
)
def test_a_command_that_only_celery_has_is_answered_with_a_sentence(
    bench: Bench, method: str, words: str
) -> None:
    assert words in command(bench, method)["error"]


def test_numbers_may_be_sent_as_text(bench: Bench) -> None:
    pool = with_held_pool(bench)
    add = add_to(bench)
    command(bench, "pool_grow", n="2")
    command(bench, "time_limit", task_name="proj.add", hard="30", soft=None)

    assert pool.size == 4
    assert (add.time_limit, add.soft_time_limit) == (30, None)


def test_a_pool_that_began_large_can_become_so_again() -> None:
    bench = Bench(pool=SharingPool(size=150))
    sizing = bench.worker.sizing

    assert sizing.ceiling == 150


@pytest.mark.parametrize("method", sorted(COMMANDS))
def test_each_command_declares_all_that_it_takes(method: str) -> None:
    hints = get_type_hints(COMMANDS[method])
    assert object not in [
        kind for name, kind in hints.items() if name not in ("return", "_")
    ]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("revoke", {}),
        ("revoke", {"task_id": {"no": "list"}}),
        ("revoke", {"task_id": [1, None, ["x"]]}),
        ("revoke_by_stamped_headers", {"headers": ["no pair"]}),
        ("revoke_by_stamped_headers", {"headers": 7}),
        ("rate_limit", {"task_name": ["proj.add"], "rate_limit": "1/s"}),
        ("rate_limit", {"task_name": "proj.add", "rate_limit": [1]}),
        ("time_limit", {"task_name": "proj.add", "hard": "long"}),
        ("time_limit", {"task_name": "proj.add", "soft": float("nan")}),
        ("add_consumer", {"queue": 7}),
        ("add_consumer", {"queue": "q", "exchange": ["x"]}),
        ("cancel_consumer", {"queue": ["q"]}),
        ("pool_grow", {"n": "many"}),
        ("pool_shrink", {"n": 10**9}),
        ("pool_grow", {"n": 10**9}),
        ("autoscale", {"max": "x"}),
        ("registered", {"taskinfoitems": [7, "_app", "run"]}),
        ("query_task", {"ids": 7}),
        ("hello", {"from_node": None, "revoked": {"a": 1}}),
        ("ping", {"worker": 1, "self": 2}),
        ("__init__", {}),
        ("\0", {}),
    ],
)
def test_whatever_a_command_says_the_worker_goes_on(
    bench: Bench, method: str, arguments: Mapping[str, Any]
) -> None:
    add = add_to(bench)
    answers: list[object] = []
    bench.inbox.put(Command(method, dict(arguments), answers.append))
    bench.run()
    for answer in answers:
        if isinstance(answer, Later):
            answer.give()
    bench.broker.send([Outgoing(Route("celery"), b"garbage")])

    assert len(answers) == 1
    result = add.delay(2, 3)
    bench.run()
    assert result.get(timeout=0) == 5


def test_the_broker_being_away_keeps_nobody_from_starting(bench: Bench) -> None:
    def ask(known: object) -> list[str]:
        raise BrokerUnavailable("no permission")

    mingle(ask, [], bench.worker.revocations.learn)


# New code


def renewed(bench: Bench, **tasks: dict[str, Any]) -> None:
    """Let the pool's new processes say that they have these tasks."""
    about = About({f"proj.{name}": own for name, own in tasks.items()}, ["more"])
    bench.inbox.put(Renewed(msgspec.msgpack.encode(about)))
    bench.run()


@pytest.mark.parametrize(
    ("arguments", "fresh"),
    [
        ({}, False),
        ({"modules": None, "reload": False, "reloader": None}, False),
        ({"modules": []}, False),
        ({"modules": ["more"]}, True),
        ({"reload": True}, True),
    ],
)
def test_a_restart_takes_new_code_if_that_is_asked_for(
    arguments: dict[str, Any], fresh: bool
) -> None:
    bench = Bench(worker_pool_restarts=True)
    pool = with_held_pool(bench)

    assert command(bench, "pool_restart", **arguments) == {"ok": "reload started"}
    assert pool.renewed == [fresh]


def test_a_restart_takes_new_code_where_processes_begin_from_nothing() -> None:
    bench = Bench(worker_pool_restarts=True, worker_pool_start_method="spawn")
    pool = with_held_pool(bench)
    command(bench, "pool_restart")

    assert pool.renewed == [True]


def test_modules_are_asked_for_once_and_kept_when_they_were_loaded() -> None:
    bench = Bench(worker_pool_restarts=True)
    with_held_pool(bench)
    command(bench, "pool_restart", modules=["wrong"])
    assert bench.modules.to_load() == ["wrong"]
    assert bench.modules.to_load() == []

    command(bench, "pool_restart", modules=["more"])
    bench.modules.to_load()
    renewed(bench)

    assert bench.modules.to_load() == ["more"]


def test_a_pool_without_processes_of_its_own_is_not_restarted() -> None:
    bench = Bench(pool=SharingPool(), worker_pool_restarts=True)

    answer = command(bench, "pool_restart", modules=["more"])

    assert "no processes that could be replaced" in answer["error"]


def test_the_worker_goes_by_the_options_of_the_new_code(bench: Bench) -> None:
    pool = with_held_pool(bench)
    add = add_to(bench)
    renewed(bench, add={"time_limit": 7.5}, new={"rate_limit": "1/m"})
    add.delay(1, 1)
    for _ in range(2):
        bench.app.send_task("proj.new")
    bench.run()

    limits = [job.time_limit for job in pool.jobs]
    assert limits == [7.5, None]  # and the third waits for its turn
    assert bench.app.tasks["proj.add"] is add


def test_a_rate_limit_that_new_code_takes_away_no_longer_holds(bench: Bench) -> None:
    pool = with_held_pool(bench, size=4)
    add = add_to(bench, rate_limit="1/m")
    for _ in range(3):
        add.delay(1, 1)
    bench.run()
    assert len(pool.jobs) == 1

    renewed(bench, add={"rate_limit": None})

    assert len(pool.jobs) == 3
