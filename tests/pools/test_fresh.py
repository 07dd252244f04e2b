"""A pool whose children come from a new interpreter, from the start or later on."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beatd.pools.base import Finished, Lost
from beatd.pools.options import PoolOptions
from beatd.pools.prefork.pool import Prefork
from tests.pools import desk
from tests.pools.desk import Desk, job
from tests.pools.fresh import BROKEN, BUSY, NEVER_READY, Code
from tests.pools.test_prefork import events_of, is_alive
from tests.processes import ROOT
from tests.servers import eventually

PATIENCE = 60.0
"""Seconds for a new interpreter, on a machine that has other things to do."""


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where a new interpreter finds these tests
    monkeypatch.delenv("CODE", raising=False)


@contextmanager
def at_work(code: Code, *, fork: bool, size: int = 1) -> Iterator[Desk]:
    options = PoolOptions(size=size, spawn=code.starter(), fork=fork)
    at = Desk(lambda *args: Prefork(*args, options=options))
    at.pool.start()
    try:
        yield at
    finally:
        at.pool.kill()


def code_of(pool: Desk) -> str:
    return pool.report(desk.environment, "CODE")


def until_it_is_there(pool: Desk) -> None:
    eventually(pool.pool.processes, "the first child", PATIENCE)


def until_it_runs(pool: Desk, text: str) -> None:
    until_it_is_there(pool)
    eventually(lambda: code_of(pool) == text, f"{text!r} to run", PATIENCE)


def until_said(caplog: pytest.LogCaptureFixture, event: str) -> None:
    eventually(lambda: event in events_of(caplog), event, PATIENCE)


def test_children_of_a_new_interpreter_have_nothing_of_the_pools_process() -> None:
    with at_work(Code("new"), fork=False, size=2) as pool:
        until_it_runs(pool, "new")

        parent = int(pool.report(desk.parent))
        assert pool.report(desk.parent_of, parent) == str(os.getpid())
        assert "tests.pools.fresh" in pool.report(desk.command_of, parent)


def test_files_that_the_pools_process_has_open_do_not_reach_its_children() -> None:
    here, there = os.pipe()
    os.set_inheritable(here, True)
    try:
        with at_work(Code("new"), fork=False) as pool:
            until_it_is_there(pool)
            assert pool.report(desk.is_same_file, here, os.fstat(here).st_ino) == "no"
    finally:
        os.close(here)
        os.close(there)


def test_a_pool_that_forks_runs_new_code_after_it_was_renewed_with_it() -> None:
    code = Code("new")
    with at_work(code, fork=True, size=2) as pool:
        assert code_of(pool) == "nothing"  # as it was at the start
        assert pool.process_pool.renew(fresh=True)
        until_it_runs(pool, "new")

        code.text = "newer"
        assert pool.process_pool.renew(fresh=False)
        assert code_of(pool) == "new"
        assert pool.process_pool.renew(fresh=True)
        until_it_runs(pool, "newer")


def test_what_runs_when_new_code_comes_goes_on_to_its_end(tmp_path: Path) -> None:
    with at_work(Code("new"), fork=True) as pool:
        old_server = int(pool.report(desk.parent))
        running = job(desk.wait_for, tmp_path / "go")
        pool.submit(running)
        pool.started(running)
        pool.process_pool.renew(fresh=True)
        until_it_runs(pool, "new")
        assert is_alive(old_server)

        (tmp_path / "go").touch()

        assert pool.outcomes([running]) == [Finished(running.token, b"seen")]
        eventually(lambda: not is_alive(old_server), "the old process to end")


def test_code_that_cannot_be_loaded_leaves_all_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    code = Code(BROKEN)
    with at_work(code, fork=True) as pool:
        child = pool.report(desk.pid)
        pool.process_pool.renew(fresh=True)
        until_said(caplog, "pool.kept")
        assert "went on with the old code: no such luck" in caplog.text
        assert pool.report(desk.pid) == child

        code.text = "mended"
        pool.process_pool.renew(fresh=True)
        until_it_runs(pool, "mended")


def test_the_last_code_counts_if_the_one_before_is_still_being_loaded() -> None:
    code = Code(NEVER_READY)
    with at_work(code, fork=True) as pool:
        pool.process_pool.renew(fresh=True)
        assert code_of(pool) == "nothing"

        code.text = "new"
        pool.process_pool.renew(fresh=True)
        until_it_runs(pool, "new")


@pytest.mark.parametrize("fork", [True, False])
def test_a_pool_stops_while_code_is_being_loaded(fork: bool) -> None:
    with at_work(Code(NEVER_READY), fork=fork) as pool:
        if fork:
            assert code_of(pool) == "nothing"
        pool.process_pool.renew(fresh=True)

        pool.pool.stop()


def test_an_interpreter_that_cannot_load_the_code_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    code = Code(BROKEN)
    with at_work(code, fork=False) as pool:
        waiting = job(desk.environment, "CODE")
        pool.submit(waiting)
        until_said(caplog, "pool.start_failed")
        assert "no process to fork children from: no such luck" in caplog.text
        code.text = "mended"
        until_it_is_there(pool)

        assert pool.outcomes([waiting]) == [Finished(waiting.token, b"mended")]


def test_a_new_interpreter_that_is_killed_is_replaced_by_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    code = Code("new")
    with at_work(code, fork=False) as pool:
        until_it_is_there(pool)
        code.text = "newer"  # for whoever starts from now on
        one = job(desk.kill_the_parent)
        assert pool.run(one) == [Lost(one.token, "signal 9 (SIGKILL)")]
        until_it_runs(pool, "newer")
    assert events_of(caplog) == ["pool.forkserver"]


def test_the_end_of_a_program_that_a_module_has_started_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with at_work(Code(BUSY), fork=False) as pool:
        until_it_is_there(pool)
        server = pool.report(desk.parent)
        one = job(desk.exit_at_once, 3)

        assert pool.run(one) == [Lost(one.token, "exit status 3")]
        assert pool.report(desk.parent) == server
    assert events_of(caplog) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_new_interpreter_outlives_a_signal_to_the_group(
    number: signal.Signals,
) -> None:
    with at_work(Code("new"), fork=False) as pool:
        until_it_is_there(pool)
        server = int(pool.report(desk.parent))
        os.kill(server, number)

        assert int(pool.report(desk.parent)) == server
        assert pool.report(desk.outlive, int(number)) == "still here"


def test_a_pool_without_a_way_to_a_new_interpreter_says_so() -> None:
    at = Desk(lambda *args: Prefork(*args, options=PoolOptions(size=1)))

    assert at.process_pool.renew(fresh=True) is False
