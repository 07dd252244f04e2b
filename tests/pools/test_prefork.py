"""What a child does to itself or has done to it, and what becomes of its job."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from beatd import signals
from beatd.clock import Clock
from beatd.instant import HOUR, SECOND, Span
from beatd.pools.base import Finished, Job, Lost, PoolEvent, Started, TimedOut
from beatd.pools.options import PoolOptions
from beatd.pools.prefork import places
from beatd.pools.prefork.child import resident
from beatd.pools.prefork.pool import Prefork
from beatd.pools.prefork.supervisor import GRACE, PAUSE
from tests.fakes import FakeClock
from tests.pools import desk
from tests.pools.desk import Desk, job
from tests.servers import PATIENCE, eventually


@contextmanager
def at_work(
    size: int = 1,
    initialise: Callable[[], object] | None = None,
    max_tasks_per_child: int | None = None,
    max_memory_per_child: int | None = None,
    alive_timeout: float | None = None,
    clock: Clock | None = None,
) -> Iterator[Desk]:
    at = Desk(
        lambda runner, on_event: Prefork(
            runner,
            on_event,
            options=PoolOptions(
                size=size,
                initialise=initialise,
                max_tasks_per_child=max_tasks_per_child,
                max_memory_per_child=max_memory_per_child,
                alive_timeout=alive_timeout,
            ),
            clock=clock,
        )
    )
    at.pool.start()
    try:
        yield at
    finally:
        at.pool.kill()


@pytest.fixture
def pool() -> Iterator[Desk]:
    with at_work() as at:
        yield at


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def events_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["event"] for record in caplog.records]


def assert_next_runs(pool: Desk) -> None:
    assert pool.report(desk.echo, "next") == "next"


def let_pass(length: Span, clock: FakeClock, pool: Desk) -> None:
    """Have so much time pass for the pool, and the pool look at its clock."""
    clock.passed += length
    pool.pool.resize(pool.pool.size)


def assert_turns(pool: Desk) -> None:
    """See the supervising thread take another turn."""
    long_gone = job(desk.echo, "never runs")
    pool.submit(long_gone)
    pool.process_pool.terminate(long_gone.token, signal.SIGKILL)
    assert pool.outcomes([long_gone]) == [
        Lost(long_gone.token, "ended before it began")
    ]


@pytest.mark.parametrize(
    ("task", "words", "reason"),
    [
        (desk.exit_at_once, [3], "exit status 3"),
        (desk.exit_at_once, [0], "exit status 0"),
        (desk.send_self, [signal.SIGKILL], "signal 9 (SIGKILL)"),
        (desk.send_self, [signal.SIGUSR1], "signal 10 (SIGUSR1)"),
        (desk.segfault, [], "signal 11 (SIGSEGV)"),
        (desk.break_the_runner, [], "exit status 70"),
    ],
)
def test_the_end_of_a_child_costs_its_own_job(
    pool: Desk, task: Callable[..., object], words: list[object], reason: str
) -> None:
    one = job(task, *words)

    assert pool.run(one) == [Lost(one.token, reason)]
    assert_next_runs(pool)


def test_a_job_past_its_time_limit_is_killed(pool: Desk) -> None:
    one = job(desk.sleep, desk.LONG, time_limit=0.1)

    assert pool.run(one) == [TimedOut(one.token, 0.1)]
    assert not is_alive(pool.started(one).pid)
    assert_next_runs(pool)


def test_a_time_limit_may_be_years_away(pool: Desk) -> None:
    patient = job(desk.echo, "patient", time_limit=1e9)

    assert isinstance(pool.run(patient)[0], Finished)
    assert_next_runs(pool)


def test_a_task_that_ignores_the_soft_limit_meets_the_hard_one(pool: Desk) -> None:
    one = job(desk.ignore_the_soft_limit, time_limit=0.2, soft_time_limit=0.05)

    assert pool.run(one) == [TimedOut(one.token, 0.2)]


def test_the_soft_limit_breaks_into_a_system_call(pool: Desk) -> None:
    one = job(desk.sleep, desk.LONG, soft_time_limit=0.05)

    assert pool.run(one) == [Finished(one.token, b"SoftTimeLimitExceeded()")]


def test_a_stopped_child_is_killed_at_the_time_limit(pool: Desk) -> None:
    one = job(desk.send_self, int(signal.SIGSTOP), time_limit=0.1)

    assert pool.run(one) == [TimedOut(one.token, 0.1)]
    assert_next_runs(pool)


def test_a_child_retires_after_its_number_of_tasks() -> None:
    with at_work(max_tasks_per_child=3) as pool:
        pids = [pool.report(desk.pid) for _ in range(9)]

    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]


def test_a_child_that_follows_another_has_its_place() -> None:
    with at_work(max_tasks_per_child=1) as pool:
        said = {pool.report(desk.place) for _ in range(4)}

    assert said == {"1 ForkPoolWorker-1"}


def test_every_child_has_a_place_of_its_own(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()

    def initialise() -> None:
        with taken.open("a") as file:
            file.write(f"{places.here()}\n")

    def places_are(*expected: str) -> bool:
        return sorted(taken.read_text().split()) == [*expected]

    with at_work(size=3, initialise=initialise) as pool:
        eventually(lambda: places_are("1", "2", "3"))
        pool.pool.resize(5)
        eventually(lambda: places_are("1", "2", "3", "4", "5"))


def test_retiring_loses_no_job_of_many() -> None:
    with at_work(size=2, max_tasks_per_child=1) as pool:
        jobs = [job(desk.echo, number) for number in range(60)]

        outcomes = pool.run(*jobs)

    assert all(isinstance(outcome, Finished) for outcome in outcomes)


def test_a_child_that_grew_too_large_retires_after_its_task() -> None:
    # A child begins as large as the process whose copy it is.
    most = resident() + 100 * 1024
    with at_work(max_memory_per_child=most) as pool:
        first = pool.report(desk.pid)
        assert pool.report(desk.hoard, 1) == "hoarded"
        still_first = pool.report(desk.pid)
        assert pool.report(desk.hoard, 250) == "hoarded"
        second = pool.report(desk.pid)

    assert first == still_first != second


def test_a_pool_that_shrinks_ends_idle_children_and_spares_the_one_at_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with at_work(size=3) as pool:
        waiting = [job(desk.wait_for, tmp_path / "all") for _ in range(3)]
        pool.submit(*waiting)
        pids = {pool.started(one).pid for one in waiting}
        (tmp_path / "all").touch()
        pool.outcomes(waiting)
        working = job(desk.wait_for, tmp_path / "go")
        pool.submit(working)
        at_it = pool.started(working).pid

        pool.pool.resize(1)
        eventually(lambda: [p for p in pids if is_alive(p)] == [at_it], "two to end")
        (tmp_path / "go").touch()

        assert pool.outcomes([working]) == [Finished(working.token, b"seen")]
        assert pool.report(desk.pid) == str(at_it)
    assert events_of(caplog) == []


def test_resizing_in_a_storm_of_dying_children_loses_no_job() -> None:
    with at_work(size=2) as pool:
        jobs = [
            job(desk.exit_at_once, 3) if number % 3 else job(desk.echo, number)
            for number in range(60)
        ]
        for number, one in enumerate(jobs):
            pool.submit(one)
            pool.pool.resize(1 + number % 4)
        outcomes = pool.outcomes(jobs)
        pool.pool.stop()

    kinds = [Lost if number % 3 else Finished for number in range(60)]
    assert [type(outcome) for outcome in outcomes] == kinds
    assert len(pool.all_events()) == 2 * len(jobs)


def test_a_task_that_forks_ends_once_and_its_copy_is_gone(pool: Desk) -> None:
    one = job(desk.fork_and_return_twice)

    assert pool.run(one) == [Finished(one.token, b"returned")]
    assert_next_runs(pool)
    pool.pool.stop()
    assert len(pool.all_events()) == 4


def test_the_end_of_a_child_shows_while_a_copy_of_it_lives(
    pool: Desk, tmp_path: Path
) -> None:
    one = job(desk.leave_a_process_behind_and_die, tmp_path / "pid")

    assert pool.run(one) == [Lost(one.token, "exit status 3")]
    assert_next_runs(pool)
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_thread_left_behind_holds_up_neither_jobs_nor_the_end(pool: Desk) -> None:
    assert pool.report(desk.leave_a_thread_behind) == "left"
    assert_next_runs(pool)

    pool.pool.stop()


def test_a_task_that_closes_all_files_costs_its_own_job(pool: Desk) -> None:
    (outcome,) = pool.run(job(desk.close_all_files))

    assert isinstance(outcome, Lost)
    assert_next_runs(pool)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"hello, world", id="text where a length should be"),
        pytest.param(b"\0\0\0\3abc", id="no msgpack"),
        pytest.param(b"\0\0\0\1\xc0", id="neither ready nor a report"),
        pytest.param(b"\0\0", id="the report after it has lost its place"),
    ],
)
def test_a_child_that_talks_nonsense_costs_its_own_job(pool: Desk, said: bytes) -> None:
    one = job(desk.say_to_the_pool, said.hex())

    (outcome,) = pool.run(one)

    assert isinstance(outcome, Lost)
    assert outcome.reason.startswith("it sent a broken frame")
    assert_next_runs(pool)


def test_words_that_go_too_deep_cost_their_own_job(pool: Desk) -> None:
    deep = b"\x93\xa5Ready\x01" + b"\x91" * 100_000 + b"\xc0"
    words = len(deep).to_bytes(4, "big") + deep
    one = job(desk.say_to_the_pool, words.hex())

    (outcome,) = pool.run(one)

    assert isinstance(outcome, Lost)
    assert outcome.reason.startswith("it sent a broken frame")
    assert_next_runs(pool)


def test_a_report_for_a_job_of_another_is_not_believed(pool: Desk) -> None:
    one = job(desk.report_for_another, "job-of-another")

    (outcome,) = pool.run(one)

    assert isinstance(outcome, Lost)
    assert "a job that it does not run" in outcome.reason
    assert_next_runs(pool)


def test_large_messages_and_reports_pass(pool: Desk) -> None:
    size = 10 << 20

    assert pool.report(desk.count_bytes, "y" * size) == str(size)
    assert len(pool.report(desk.make_bytes, size)) == size


def test_a_task_that_kills_its_parent_costs_what_ran(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with at_work(size=2) as pool:
        one, other = job(desk.kill_the_parent), job(desk.sleep, desk.LONG)
        pool.submit(other)
        pool.started(other)

        outcomes = pool.run(one, other)

        assert outcomes == [
            Lost(one.token, "signal 9 (SIGKILL)"),
            Lost(other.token, "signal 9 (SIGKILL)"),
        ]
        assert_next_runs(pool)
    assert events_of(caplog) == ["pool.forkserver"]


def test_an_idle_child_that_dies_is_replaced(
    pool: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    pid = int(pool.report(desk.pid))

    os.kill(pid, signal.SIGKILL)
    eventually(lambda: "pool.idle_end" in events_of(caplog), "its end to be noticed")

    assert int(pool.report(desk.pid)) != pid


def test_a_child_that_cannot_start_is_tried_again_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tries = tmp_path / "tries"
    tries.touch()

    def initialise() -> None:
        with tries.open("a") as file:
            file.write("x")
        if len(tries.read_text()) < 3:
            os._exit(4)

    with at_work(initialise=initialise) as pool:
        one = job(desk.echo, "at last")

        assert pool.run(one) == [Finished(one.token, b"at last")]
    assert tries.read_text() == "xxx"
    assert events_of(caplog) == ["pool.start_failed"]


def test_a_child_that_takes_too_long_to_start_is_killed_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pids = tmp_path / "pids"
    pids.touch()

    def initialise() -> None:
        with pids.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len(pids.read_text().split()) == 1:
            signal.pause()

    clock = FakeClock()
    with at_work(initialise=initialise, alive_timeout=4, clock=clock) as pool:
        slow = int(eventually(pids.read_text, "a child to begin"))
        let_pass(4 * SECOND, clock, pool)
        eventually(lambda: "pool.start_failed" in events_of(caplog), "it to be said")
        assert not is_alive(slow)

        let_pass(PAUSE, clock, pool)
        assert pool.report(desk.pid) == pids.read_text().split()[1]
    assert events_of(caplog) == ["pool.start_failed"]
    assert "before it was ready: it took too long;" in caplog.text


def test_a_child_that_was_ready_in_time_may_work_for_longer(tmp_path: Path) -> None:
    clock = FakeClock()
    with at_work(alive_timeout=4, clock=clock) as pool:
        long = job(desk.wait_for, tmp_path / "go")
        pool.submit(long)
        pool.started(long)

        let_pass(5 * SECOND, clock, pool)
        assert_turns(pool)
        (tmp_path / "go").touch()

        assert pool.outcomes([long]) == [Finished(long.token, b"seen")]


def test_a_pool_that_runs_out_of_files_goes_on_when_there_are_more(
    pool: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    assert_next_runs(pool)
    one = job(desk.exit_at_once, 3)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard[1]))
    try:
        outcomes = pool.run(one)
        eventually(lambda: "pool.start_failed" in events_of(caplog), "it to be said")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, hard)

    assert outcomes == [Lost(one.token, "exit status 3")]
    assert_next_runs(pool)


def test_stop_ends_when_no_child_can_start() -> None:
    with at_work(initialise=lambda: os._exit(4)) as pool:
        one = job(desk.echo, "never")
        pool.submit(one)

        pool.pool.stop()

        assert pool.outcomes([one]) == [
            Lost(one.token, "the pool was stopped before it began")
        ]


def test_kill_ends_although_the_process_that_forks_does_not_obey() -> None:
    clock = FakeClock()
    with at_work(clock=clock) as pool:
        server = int(pool.report(desk.parent))
        one = job(desk.sleep, desk.LONG)
        pool.submit(one)
        pid = pool.started(one).pid
        os.kill(server, signal.SIGSTOP)
        killing = threading.Thread(target=pool.pool.kill)
        killing.start()

        def has_ended() -> bool:
            let_pass(GRACE, clock, pool)
            return not killing.is_alive()

        eventually(has_ended, "the pool to end")
        assert pool.outcomes([one]) == [Lost(one.token, "signal 9 (SIGKILL)")]
        eventually(lambda: not is_alive(pid), "the child to die")


def test_an_end_of_the_supervision_that_nobody_foresaw_is_told() -> None:
    crashes: SimpleQueue[BaseException] = SimpleQueue()

    def on_event(event: PoolEvent) -> None:
        raise MemoryError

    options = PoolOptions(size=1, on_crash=crashes.put)
    pool = Prefork(desk.runner, on_event, options=options)
    pool.start()
    pool.submit([job(desk.echo, "hello")])

    assert isinstance(crashes.get(timeout=PATIENCE), MemoryError)
    pool.kill()
    assert pool.processes() == []


def test_a_child_is_shielded_from_what_is_meant_for_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC"):
        monkeypatch.setenv(name, "1")
    with at_work() as pool:
        assert pool.report(desk.environment, "NOTIFY_SOCKET") == "nothing"
        assert pool.report(desk.environment, "LISTEN_FDS") == "nothing"
        assert pool.report(desk.environment, "WATCHDOG_USEC") == "nothing"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_group_ends_no_job(
    pool: Desk, number: signal.Signals
) -> None:
    assert pool.report(desk.outlive, int(number)) == "still here"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("task", [desk.end_a_program, desk.end_a_fork])
def test_processes_that_a_task_starts_end_by_the_signals_that_it_outlives(
    pool: Desk, task: Callable[..., object], number: signal.Signals
) -> None:
    assert pool.report(task, int(number)) == str(-number)


def test_the_process_that_forks_outlives_a_signal_to_the_group(pool: Desk) -> None:
    server = int(pool.report(desk.parent))

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(server, number)

    one = job(desk.exit_at_once, 3)
    assert pool.run(one) == [Lost(one.token, "exit status 3")]
    assert int(pool.report(desk.parent)) == server


def test_after_the_end_no_process_is_left(pool: Desk) -> None:
    pids = [int(pool.report(desk.pid)), int(pool.report(desk.parent))]

    pool.pool.stop()

    assert [pid for pid in pids if is_alive(pid)] == []


_MAIN = """
import sys
from beatd.pools.options import PoolOptions
from beatd.pools.prefork.pool import Prefork
from tests.pools import desk
pool = desk.Desk(lambda *args: Prefork(*args, options=PoolOptions(size=1)))
pool.pool.start()
print(repr(pool.report(desk.read_stdin)), pool.report(desk.parent))
one = desk.job(desk.sleep, desk.LONG)
pool.submit(one)
print(pool.started(one).pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def main() -> Iterator["subprocess.Popen[str]"]:
    """A process of its own with a pool in it, and an open standard input."""
    with subprocess.Popen(
        [sys.executable, "-c", _MAIN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as main:
        yield main
        main.kill()


def test_children_die_in_mid_task_when_the_main_process_is_killed(
    main: "subprocess.Popen[str]",
) -> None:
    assert main.stdout
    _, server = main.stdout.readline().split()
    pids = [int(server), int(main.stdout.readline())]
    assert all(map(is_alive, pids))

    main.kill()

    eventually(lambda: not any(map(is_alive, pids)), "the children to die")


def test_a_task_does_not_read_what_is_typed_for_the_worker(
    main: "subprocess.Popen[str]",
) -> None:
    assert main.stdout

    read, _ = main.stdout.readline().split()

    assert read == "''"


@pytest.mark.parametrize("seed", range(3))
def test_in_a_storm_each_job_still_ends_exactly_once(seed: int) -> None:
    chance = random.Random(seed)
    jobs = [chance.choice(STORM)() for _ in range(200)]
    with at_work(size=3, max_tasks_per_child=5) as pool:
        server = int(pool.report(desk.parent))
        pool.submit(*jobs)
        for one in jobs:
            pid = pool.started(one).pid
            if chance.random() < 0.1:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if one is jobs[100]:
                os.kill(server, signal.SIGKILL)

        pool.outcomes(jobs)
        pool.pool.stop()

    ended = Counter(
        event.token for event in pool.all_events() if not isinstance(event, Started)
    )
    assert set(ended.values()) == {1}
    assert len(ended) == len(jobs) + 1


STORM: list[Callable[[], Job]] = [
    lambda: job(desk.echo, "calm"),
    lambda: job(desk.busy, "0.002"),
    lambda: job(desk.busy, "0.01", time_limit=0.01, soft_time_limit=0.01),
    lambda: job(desk.sleep, desk.LONG, time_limit=0.005),
    lambda: job(desk.exit_at_once, 1),
    lambda: job(desk.send_self, int(signal.SIGKILL)),
    lambda: job(desk.fork_and_return_twice),
    lambda: job(desk.break_the_runner),
]


def lasting_end(done: Path) -> Callable[..., None]:
    """Return a handler that ends a process only when the test says so."""

    def last(**_: object) -> None:
        eventually((done.parent / "go").exists)
        done.touch()

    return last


def test_a_warm_stop_waits_for_what_its_processes_do_at_their_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    last = lasting_end(tmp_path / "done")
    signals.worker_process_shutdown.connect(last)
    try:
        with at_work(clock=clock) as pool:
            pool.report(desk.pid)
            stopping = threading.Thread(target=pool.pool.stop)
            stopping.start()

            def said() -> bool:
                let_pass(GRACE, clock, pool)
                return "pool.leaving" in events_of(caplog)

            eventually(said, "it to be said")
            let_pass(HOUR, clock, pool)
            (tmp_path / "go").touch()
            stopping.join(PATIENCE)
    finally:
        signals.worker_process_shutdown.disconnect(last)

    assert (tmp_path / "done").exists()
    assert events_of(caplog).count("pool.leaving") == 1


def test_a_process_that_never_ends_is_killed_after_a_minute_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    last = lasting_end(tmp_path / "done")
    signals.worker_process_shutdown.connect(last)
    try:
        with at_work(max_tasks_per_child=1, clock=clock) as pool:
            first = int(pool.report(desk.pid))

            def is_over() -> bool:
                let_pass(GRACE, clock, pool)
                return not is_alive(first)

            eventually(is_over, "the process to be killed")
            second = int(pool.report(desk.pid))
    finally:
        signals.worker_process_shutdown.disconnect(last)

    assert second != first
    assert not (tmp_path / "done").exists()
    assert {"pool.leaving", "pool.left"} <= set(events_of(caplog))
