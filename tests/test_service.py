"""The scheduler as a service: signals, reload, exit status, what it says."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import pytest

from beatd.clock import SystemClock
from beatd.service.notify import Notify
from beatd.service.terminal import Banner
from beatd.service.worker import WorkerService
from tests.processes import beatd, ended
from tests.servers import Server, eventually

TICK = """
from beatd import every
beat_schedule = {"tick": {"task": "tasks.tick", "schedule": every(0.1)}}
"""


class Manager:
    """Hears what a service tells its manager: at all times, as systemd does."""

    def __init__(self, path: Path) -> None:
        self.heard: list[str] = []
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "200000"}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._hear)

    def __enter__(self) -> "Manager":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def until(self, words: str) -> None:
        """Wait until these words were said."""
        eventually(lambda: any(words in one for one in self.heard), repr(words))

    def _hear(self) -> None:
        while datagram := self._socket.recv(4096):
            self.heard.append(datagram.decode())


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with a config that emits ten times a second."""
    (tmp_path / "shop.py").write_text(TICK)
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(here: Path, number: signal.Signals) -> None:
    with beatd("--config", "shop", "-l", "INFO", cwd=here) as running:
        running.until("tick queued")

        assert running.stop(number) == 0
        assert "gave the lead back" in running.output
        assert "Traceback" not in running.output


def test_the_schedule_file_is_where_the_option_says(here: Path) -> None:
    (here / "log").mkdir()
    options = ("--config", "shop", "--schedule-filename", "log/celery.db")
    with beatd(*options, "-l", "INFO", cwd=here) as running:
        running.until("tick queued")
        running.stop()

    assert sorted(path.name for path in (here / "log").glob("*.db")) == [
        "broker.db",
        "celery.db",
    ]


def test_a_broker_that_may_throw_messages_away_is_warned_of(here: Path) -> None:
    settings = {"maxmemory-policy": "allkeys-lru"}
    with (
        Server(**settings) as server,
        beatd(
            "--config", "shop", "-b", server.url(), "-l", "INFO", cwd=here
        ) as running,
    ):
        running.until("tick queued", times=3)

    assert running.output.count("its maxmemory-policy is allkeys-lru") == 1


def test_a_reload_takes_new_entries(here: Path) -> None:
    with beatd("--config", "shop", "-l", "INFO", cwd=here) as running:
        running.until("tick queued")
        (here / "shop.py").write_text(TICK.replace('"tick"', '"tock"'))
        running.send(signal.SIGHUP)

        running.until("reloaded: 1 entry")
        running.until("tock queued")


GATE = """
open("gate").read()  # until somebody writes to it
"""
"""The end of a config that loads for as long as a test wants it to."""


def open_gate(here: Path) -> None:
    (here / "gate").write_text("on")


def test_a_config_that_loads_for_long_does_not_cost_the_lead(here: Path) -> None:
    os.mkfifo(here / "gate")
    settings = f"{TICK}\nbeat_lock_timeout = 1\n"
    (here / "shop.py").write_text(settings)
    with (
        Server() as server,
        beatd(
            "--config", "shop", "-b", server.url(), "-l", "INFO", cwd=here
        ) as running,
    ):
        running.until("tick queued")
        terms = running.output.count("leading, term")
        (here / "shop.py").write_text(settings.replace('"tick"', '"tock"') + GATE)
        running.send(signal.SIGHUP)
        before = running.output.count("tick queued")
        running.until("tick queued", times=before + 25)  # for 2.5 s
        assert "lost the lead" not in running.output
        open_gate(here)

        running.until("reloaded: 1 entry")
        running.until("tock queued")
    assert running.output.count("leading, term") == terms


def test_who_asks_for_a_reload_while_the_scheduler_starts_has_one_after_it(
    here: Path,
) -> None:
    os.mkfifo(here / "gate")
    (here / "shop.py").write_text(TICK + GATE)
    with beatd("--config", "shop", "-l", "INFO", cwd=here) as running:
        with (here / "gate").open("w"):  # once the config is being read
            (here / "shop.py").write_text(TICK.replace('"tick"', '"tock"'))
            running.send(signal.SIGHUP)
        running.until("reloaded: 1 entry")
        running.until("tock queued")
        assert running.stop() == 0


def test_who_asks_for_a_reload_while_one_goes_on_has_another_after_it(
    here: Path,
) -> None:
    os.mkfifo(here / "gate")
    with (
        Manager(here / "notify") as manager,
        beatd("--config", "shop", "-l", "INFO", cwd=here, **manager.env) as running,
    ):
        running.until("tick queued")
        (here / "shop.py").write_text(TICK.replace('"tick"', '"tock"') + GATE)
        running.send(signal.SIGHUP)
        manager.until("RELOADING=1")
        running.until("tick queued", times=running.output.count("tick queued") + 3)
        running.send(signal.SIGHUP)
        open_gate(here)
        running.until("reloaded: 1 entry")
        open_gate(here)
        running.until("reloaded: 1 entry", times=2)
        running.stop()
        manager.until("STOPPING=1")

    said = [one.split("\n")[0] for one in manager.heard]
    said = [one for one in said if one in ("READY=1", "RELOADING=1")]
    assert said == ["READY=1", *2 * ["RELOADING=1", "READY=1"]]


def test_who_is_told_to_stop_while_a_config_loads_does_so(here: Path) -> None:
    os.mkfifo(here / "gate")
    with (
        Manager(here / "notify") as manager,
        beatd("--config", "shop", "-l", "INFO", cwd=here, **manager.env) as running,
    ):
        running.until("tick queued")
        (here / "shop.py").write_text(TICK + GATE)
        running.send(signal.SIGHUP)
        manager.until("RELOADING=1")

        assert running.stop() == 0
        assert "Traceback" not in running.output


def test_a_reload_says_which_settings_need_a_restart(here: Path) -> None:
    with beatd("--config", "shop", "-l", "INFO", cwd=here) as running:
        running.until("tick queued")
        (here / "shop.py").write_text(f"{TICK}\nbeat_lock_timeout = 9")
        running.send(signal.SIGHUP)

        running.until("in effect from the next start on only: beat_lock_timeout")
        running.until("reloaded: 1 entry")
        for times, added in enumerate(("", "\nevent_exchange = 'seen'"), 2):
            (here / "shop.py").write_text(f"{TICK}\nbeat_lock_timeout = 9{added}")
            running.send(signal.SIGHUP)
            # What was taken when the process began is compared, not the last reload.
            running.until("the next start on only: beat_lock_timeout", times=times)
        running.until("beat_lock_timeout, event_exchange")
        (here / "shop.py").write_text(TICK)
        running.send(signal.SIGHUP)
        running.until("reloaded: 1 entry", times=4)

    assert running.output.count("from the next start on only") == 3


def test_a_reload_of_a_broken_config_keeps_the_old_one(here: Path) -> None:
    with beatd("--config", "shop", "-l", "INFO", cwd=here) as running:
        running.until("tick queued")
        (here / "shop.py").write_text("timezone = 'Europe/Pariss'")
        running.send(signal.SIGHUP)

        running.until("kept the old config")
        before = running.output.count("tick queued")
        running.until("tick queued", times=before + 3)
        assert "did you mean 'Europe/Paris'?" in running.output


BAD_SETTINGS = """
timezone = "Europe/Pariss"
beat_shedule = {}
task_time_limit = "soon"
"""


def test_bad_settings_refuse_with_all_problems_in_one_message(here: Path) -> None:
    (here / "shop.py").write_text(BAD_SETTINGS)

    result = ended("--config", "shop", cwd=here)

    assert result.returncode == 78
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for words in ("shop.py:2", "Europe/Paris'?", "'beat_schedule'?", "task_time_limit"):
        assert words in result.stderr


def test_a_bad_entry_is_named_and_the_rest_runs(here: Path) -> None:
    bad = TICK + 'beat_schedule["bad"] = {"task": "t", "schedule": "61 * * * *"}\n'
    (here / "shop.py").write_text(bad)

    with beatd("--config", "shop", "-l", "INFO", cwd=here) as running:
        running.until("tick queued")
        assert "entry 'bad' is left out" in running.output
    result = ended("--config", "shop", "--strict", cwd=here)
    assert result.returncode == 78
    assert "minute" in result.stderr


def test_a_missing_config_is_said_without_a_traceback(tmp_path: Path) -> None:
    result = ended("--config", "nowhere", cwd=tmp_path)

    assert result.returncode == 78
    assert "nowhere" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_foreign_schedule_file_refuses_the_start(here: Path) -> None:
    (here / "notes.txt").write_text("not yours")

    result = ended("--config", "shop", "-s", "notes.txt", cwd=here)

    assert result.returncode == 78
    assert (here / "notes.txt").read_text() == "not yours"
    assert "notes.txt" in result.stderr


def test_a_password_is_in_no_output(here: Path) -> None:
    url = "redis://user:s3cr3t@127.0.0.1:1/0"
    with beatd("--config", "shop", "-b", url, "-l", "DEBUG", cwd=here) as running:
        running.until("stopped emitting")
        assert running.stop() == 0

    assert "s3cr3t" not in running.output


def test_without_its_broker_it_waits_and_stops_at_once(here: Path) -> None:
    url = "redis://127.0.0.1:1/0"
    with beatd("--config", "shop", "-b", url, "-l", "INFO", cwd=here) as running:
        running.until("stopped emitting")

        assert running.stop() == 0
    assert running.output.count("stopped emitting") == 1
    assert "; trying again about once a second; what is due mean" in running.output


def test_an_option_that_cannot_be_used_is_called_so(here: Path) -> None:
    result = ended("--config", "shop", "--uid", "nobody-of-that-name", cwd=here)

    assert result.returncode == 78
    assert result.stderr.startswith("error: cannot use --uid")


def test_a_pid_file_is_held_by_one_process(here: Path) -> None:
    options = ("--config", "shop", "--pidfile", "beat.pid", "-l", "INFO")
    (here / "beat.pid").write_text("1\n")  # stale: nobody holds it
    with beatd(*options, cwd=here) as running:
        running.until("tick queued")
        second = ended(*options, cwd=here)
        running.stop()

    assert second.returncode == 78
    assert f"process {running.process.pid}" in second.stderr
    assert not (here / "beat.pid").exists()


def test_systemd_hears_how_it_is(here: Path) -> None:
    with (
        Manager(here / "notify") as manager,
        beatd("--config", "shop", cwd=here, **manager.env) as running,
    ):
        for words in ("READY=1", "WATCHDOG=1", "STATUS=leader; 1 entry"):
            manager.until(words)
        running.send(signal.SIGHUP)
        manager.until("RELOADING=1")
        running.stop()
        manager.until("STOPPING=1")

    assert "READY=1" in manager.heard[0]


def test_a_credential_gives_the_brokers_url(here: Path) -> None:
    (here / "broker_url").write_text("redis://127.0.0.1:1/0\n")
    env = {"CREDENTIALS_DIRECTORY": str(here)}

    with beatd("--config", "shop", "-l", "INFO", cwd=here, **env) as running:
        running.until("stopped emitting")

    (here / "broker_url").write_text("default")
    with beatd("--config", "shop", "-l", "INFO", cwd=here, **env) as running:
        running.until("tick queued")


def test_detached_it_goes_on_in_the_background(here: Path) -> None:
    options = ("--config", "shop", "--pidfile", "beat.pid", "-f", "beat.log")

    result = ended(*options, "-l", "INFO", "--detach", cwd=here)

    assert result.returncode == 0
    pid_file, log = here / "beat.pid", here / "beat.log"
    eventually(lambda: pid_file.exists() and pid_file.read_text())
    pid = int(pid_file.read_text())
    try:
        eventually(lambda: log.exists() and "tick queued" in log.read_text())
    finally:
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: "stopped" in log.read_text())


class FailingBeat:
    """A scheduler with a fault that nobody thought of."""

    scheduler = None

    def __init__(self) -> None:
        self.answering = SimpleNamespace(site=SimpleNamespace())

    def run(self) -> None:
        raise ZeroDivisionError("a fault of ours")

    def stop(self) -> None:
        pass


class IdleWorker:
    """A worker without work, until told to stop."""

    name, queues, held, is_stopping = "idle", ("celery",), 0, False

    def __init__(self, inbox: "SimpleQueue[Any]") -> None:
        self.inbox = inbox
        self.clock = SystemClock()
        self.on_ready: Callable[[], None] = lambda: None

    def run(self) -> None:
        self.on_ready()
        assert self.inbox.get(timeout=30).name == "WARM"


def test_a_worker_does_not_go_on_without_the_scheduler_in_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inbox: SimpleQueue[Any] = SimpleQueue()
    worker, beat = cast(Any, IdleWorker(inbox)), cast(Any, FailingBeat())
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        with pytest.raises(ZeroDivisionError, match="a fault of ours"):
            WorkerService(worker, beat, inbox, Notify()).run(lambda: Banner(None))
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    assert "the scheduler failed, the worker stops" in caplog.text


def test_systemd_hears_how_a_worker_is(here: Path) -> None:
    command = ("worker", "--config", "shop", "-c", "1")
    with (
        Manager(here / "notify") as manager,
        beatd(*command, cwd=here, **manager.env) as running,
    ):
        manager.until("WATCHDOG=1")
        assert running.stop() == 0
        manager.until("STOPPING=1")

    assert "READY=1" in manager.heard[0]


BAD_ENTRIES = """
beat_schedule["huge"] = {"task": "t", "schedule": 1e308}
beat_schedule["digits"] = {"task": "t", "schedule": 10**400}
beat_schedule["jitter"] = {"task": "t", "schedule": 5, "jitter": 1e308}
beat_schedule["limit"] = {
    "task": "t", "schedule": 5, "options": {"time_limit": 10**400}
}
beat_schedule["name" + chr(0xD800)] = {"task": "t", "schedule": 5}
beat_schedule["task"] = {"task": chr(0xD800), "schedule": 5}
beat_schedule["queue"] = {
    "task": "t", "schedule": 5, "options": {"queue": chr(0xD800)}
}
"""
"""Entries that ended the scheduler, each by another sum or another encoding."""


def test_bad_entries_are_named_at_start_and_others_run(here: Path) -> None:
    (here / "shop.py").write_text(TICK + BAD_ENTRIES)
    with beatd("--config", "shop", "-l", "INFO", cwd=here) as running:
        running.until("tick queued", times=2)

        assert running.output.count("is left out") == 7
        assert "Traceback" not in running.output


def test_a_reload_of_bad_entries_goes_on_with_the_others(here: Path) -> None:
    with beatd("--config", "shop", "-l", "INFO", cwd=here) as running:
        running.until("tick queued")
        (here / "shop.py").write_text(TICK.replace('"tick"', '"tock"') + BAD_ENTRIES)
        running.send(signal.SIGHUP)
        running.until("reloaded: 1 entry")
        running.until("tock queued", times=2)

        assert running.output.count("is left out") == 7


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("task_time_limit = 10**400", "task_time_limit: expected at most"),
        ("task_routes = {1: 'q'}", "task_routes: expected names, globs or"),
        ("task_default_queue = chr(0xD800)", "task_default_queue: expected Unicode"),
        ("raise SystemExit(0)", "raised SystemExit"),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt"),
        ("class Mine(BaseException): pass\nraise Mine('own')", "raised Mine: own"),
        ("import sys; sys.exit('no license')", "no license"),
    ],
)
def test_a_reload_keeps_the_old_config_whatever_the_new_one_raises(
    here: Path, line: str, said: str
) -> None:
    with beatd("--config", "shop", "-l", "INFO", cwd=here) as running:
        running.until("tick queued")
        (here / "shop.py").write_text(f"{TICK}\n{line}\n")
        running.send(signal.SIGHUP)
        running.until("kept the old config")
        running.until(said)
        running.until("tick queued", times=running.output.count("tick queued") + 2)

        assert running.stop() == 0
        assert "Traceback" not in running.output


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("task_time_limit = 10**400", "task_time_limit: expected at most"),
        ("task_routes = {1: 'q'}", "task_routes: expected names, globs or"),
        ("raise SystemExit(0)", "raised SystemExit"),
    ],
)
def test_a_setting_that_cannot_be_used_refuses_the_start_in_one_message(
    here: Path, line: str, said: str
) -> None:
    (here / "shop.py").write_text(f"{TICK}\n{line}\n")
    run = ended("--config", "shop", cwd=here)

    assert run.returncode == 78
    assert said in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("words", [(), ("worker", "-B", "-c", "2")])
def test_nothing_lies_beside_the_sqlite_files_after_a_clean_stop(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "proj.py").write_text(
        """
from beatd import Beatd, every

app = Beatd("proj")
app.conf.beat_schedule = {
    "tick": {"task": "proj.tick", "schedule": every(3600), "run_on_start": True},
}

@app.task(name="proj.tick")
def tick():
    return 1
"""
    )
    with beatd(*words, "-A", "proj", "-l", "INFO", cwd=tmp_path) as running:
        running.until("succeeded" if words else "tick queued")
        beside = [path.name for path in tmp_path.glob("*-wal")]
        assert running.stop() == 0

    assert "broker.db-wal" in beside
    assert [*tmp_path.glob("*-wal"), *tmp_path.glob("*-shm")] == []
