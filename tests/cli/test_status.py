"""`beatd status`: what it prints and how it exits, with a scheduler and without one."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from click import unstyle

from beatd import brokers
from beatd.cli import main
from beatd.cli.output import Screen
from beatd.cli.status import lines_of
from beatd.clock import SystemClock
from beatd.config.loading import Wanted, load
from beatd.instant import SECOND
from beatd.service.http import Answer, Server
from beatd.service.site import document_of
from beatd.service.sockets import UnixListener
from beatd.service.status import (
    BrokerStatus,
    ConfigStatus,
    Entries,
    HealthProblem,
    Lag,
    Leader,
    Loop,
    Moment,
    Named,
    QueueStatus,
    Status,
    WorkerStatus,
)
from beatd.storage.file_lock import FileLock
from tests.cli.conftest import NOW, Run, unsaid
from tests.processes import beatd, module
from tests.servers import eventually

WELL = Status(
    generated_ts=NOW / SECOND,
    source="scheduler",
    version="0.1.0",
    role="leader",
    host="host-a",
    pid=812,
    leader=Leader(name="host-a pid 812", term=17, since_ts=NOW / SECOND - 352_800),
    loop=Loop(age=0.3, started_ts=NOW / SECOND - 352_800),
    lag=Lag(emitted=1800, p50=0.004, p99=0.031),
    next=Moment(entry="tick", at_ts=NOW / SECOND + 1),
    entries=Entries(total=6, paused=1),
    config=ConfigStatus(
        name="config.py",
        state_file="/var/lib/beatd/schedule.db",
        namespace="default",
        zone="Europe/Berlin",
        digest="9f3c77",
        loaded_ts=NOW / SECOND - 18_308,
    ),
    broker=BrokerStatus(
        url="redis://127.0.0.1:6379/0",
        answers=True,
        server="redis 7.0.15",
        round_trip=0.0003,
    ),
    queues=[
        QueueStatus(name="default", length=3, oldest=1.2, workers=["w1@a", "w2@a"]),
        QueueStatus(name="reports", length=0, workers=["w1@a"]),
    ],
    workers=[
        WorkerStatus(name="w1@a", queues=["default", "reports"], holds=2),
        WorkerStatus(name="w2@a", queues=["default"], holds=0),
    ],
)

ILL = msgspec.structs.replace(
    WELL,
    role="standby",
    next=None,
    overdue=Moment(entry="tick", at_ts=NOW / SECOND - 72),
    entries=Entries(total=6, bad=[Named(entry="x", reason="no schedule")], over=2),
    uncertain=3,
    broker=BrokerStatus(
        url="redis://127.0.0.1:6379/0",
        answers=False,
        away_since_ts=NOW / SECOND - 72,
        reason="connection refused",
    ),
    problems=[
        HealthProblem(
            kind="overdue",
            text="tick is due for 72 s, and not emitted",
            command="beatd list",
            unhealthy=True,
        ),
        HealthProblem(
            kind="bad", text="x is left out: no schedule", command="beatd check"
        ),
    ],
)

WELL_SHOWN = """\
healthy                                                                  up 4d 2h   version 0.1.0
  leader     host-a pid 812, term 17, since Thu 12:05:12                 loop turned 300 ms ago
  schedule   6 entries, revision 9f3c, loaded 09:00:04                   1 paused
  lag        p50 4 ms, p99 31 ms over the last hour                      next: tick in 1 s
  broker     redis 7.0.15, redis://127.0.0.1:6379/0, 0.3 ms
  queues     default 3 (oldest 1 s), reports 0                           workers: 2 on default, 1 on reports
  workers    w1@a holds 2, w2@a holds 0
  source:    scheduler pid 812 on host-a, state file /var/lib/beatd/schedule.db
"""  # noqa: E501

ILL_SHOWN = """\
unhealthy                                               up 4d 2h   version 0.1.0
  leader     host-a pid 812, term 17, since Thu 12:05:12
             standby: host-a pid 812, loop turned 300 ms ago
  schedule   6 entries, revision 9f3c, loaded 09:00:04
             1 bad, 2 over, 3 slots uncertain
  lag        p50 4 ms, p99 31 ms over the last hour
             due: tick for 1m 12s
  broker     redis://127.0.0.1:6379/0, away for 1m 12s
  queues     default 3 (oldest 1 s), reports 0
             workers: 2 on default, 1 on reports
  workers    w1@a holds 2, w2@a holds 0
  problems   tick is due for 72 s, and not emitted (see: beatd list)
             x is left out: no schedule (see: beatd check)
  source:    scheduler pid 812 on host-a, state file /var/lib/beatd/schedule.db
"""


@pytest.mark.parametrize(
    ("status", "width", "shown"),
    [(WELL, None, WELL_SHOWN), (ILL, 80, ILL_SHOWN)],
)
def test_it_looks_like_this(status: Status, width: int | None, shown: str) -> None:
    lines = [unstyle(x).rstrip() for x in lines_of(status, Screen(width=width))]

    assert "\n".join(lines) + "\n" == shown


class Scheduler:
    """Answers as a scheduler does, from a snapshot."""

    def __init__(self, folder: Path) -> None:
        self.status = WELL
        self.body: bytes | None = None
        self._server = Server(
            [UnixListener(folder / "celerybeat-schedule.sock")],
            self._respond,
            SystemClock(),
        )

    def __enter__(self) -> "Scheduler":
        self._server.start(lambda error: None)
        eventually(Path("celerybeat-schedule.sock").is_socket, "the socket")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def _respond(self, path: str, waited: int) -> Answer:
        if path == "/livez":
            about = {"pid": 812, "host": "host-a", "role": "leader", "loop_age": 0.1}
            return Answer("200 OK", msgspec.json.encode(about))
        return Answer("200 OK", self.body or document_of(self.status))


@pytest.fixture
def scheduler(shop: Path) -> Iterator[Scheduler]:
    with Scheduler(shop.parent) as scheduler:
        yield scheduler


@pytest.mark.usefixtures("scheduler")
def test_a_scheduler_that_runs_is_asked(run: Run) -> None:
    assert run("status").stdout == WELL_SHOWN
    assert run("status", "--exit-code").stdout == WELL_SHOWN
    assert run("status", "--quiet").output == ""
    assert run("status", "--wait", "60").stdout == WELL_SHOWN


def test_that_no_worker_of_beatd_is_there_says_nothing_of_celerys(
    run: Run, scheduler: Scheduler
) -> None:
    queues = [msgspec.structs.replace(one, workers=[]) for one in WELL.queues]
    scheduler.status = msgspec.structs.replace(WELL, queues=queues, workers=[])

    words = "no workers of beatd; Celery's are asked where messages lie\n"
    assert words in run("status").stdout


def test_the_exit_status_says_whether_it_is_well(
    run: Run, scheduler: Scheduler
) -> None:
    scheduler.status = ILL

    assert run("status").stdout.startswith("unhealthy")
    assert run("status", "--exit-code", status=1).stdout.startswith("unhealthy")
    assert run("status", "--quiet", status=1).output == ""
    assert run("status", "--json", "--exit-code", status=1).stdout.startswith("{")


BROKEN = {
    "syntax": ("beat_schedule = {", "celeryconfig.py:1: "),
    "setting": ("timezone = 'Nowhere/Else'", "Nowhere/Else"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_scheduler_that_runs_is_asked_though_its_config_is_broken_now(
    run: Run, shop: Path, scheduler: Scheduler, fault: str
) -> None:
    """It goes on with the config that it has, and that it is well is to be seen."""
    written, said = BROKEN[fault]
    shop.write_text(written)

    asked = run("status", "--exit-code")
    assert asked.stdout == WELL_SHOWN
    assert asked.stderr.startswith("warning: cannot use ")
    assert said in asked.stderr
    assert "the scheduler says that runs with celerybeat-schedule" in asked.stderr
    assert json.loads(run("status", "--json").stdout)["healthy"] is True
    assert run("status", "--quiet").output == ""

    scheduler.status = ILL
    assert run("status", "--wait", "0", status=1).stdout.startswith("unhealthy")


@pytest.mark.usefixtures("scheduler")
def test_the_scheduler_is_asked_whose_file_is_named_though_the_config_is_broken(
    capsys: pytest.CaptureFixture[str], run: Run, shop: Path
) -> None:
    shop.write_text("beat_schedule = {")
    named = shop.parent / "celerybeat-schedule"

    assert run("status", "--schedule-filename", str(named)).stdout == WELL_SHOWN

    assert main(["status", "--schedule-filename", "another"]) == 78
    assert "celeryconfig.py:1: " in capsys.readouterr().err


def test_with_a_broken_config_and_no_scheduler_the_error_is_that_of_the_config(
    capsys: pytest.CaptureFixture[str], shop: Path
) -> None:
    shop.write_text("beat_schedule = {")

    assert main(["status"]) == 78

    said = capsys.readouterr().err
    assert said.startswith("error: cannot use ")
    assert "celeryconfig.py:1: " in said


def test_its_document_is_the_schedulers_own(run: Run, scheduler: Scheduler) -> None:
    scheduler.status = ILL

    document = json.loads(run("status", "--json").stdout)

    assert document["schema"] == "beatd.status/1"
    assert document["healthy"] is False
    assert document["overdue"]["at"] == "2026-11-23T14:04:00+01:00"
    assert unsaid(document) == set()


@pytest.mark.usefixtures("shop")
def test_without_a_scheduler_the_broker_and_the_file_are_asked(run: Run) -> None:
    shown = run("status", "--exit-code", status=1).stdout

    assert shown.startswith("unhealthy")
    assert "no scheduler runs: nothing is emitted (see: beatd)" in shown
    assert "broker and state file celerybeat-schedule; no scheduler runs" in shown
    assert not Path("broker.db").exists()  # who looks makes no files


@pytest.mark.usefixtures("scheduler")
def test_other_commands_say_who_runs(run: Run) -> None:
    says = "scheduler pid 812 on host-a (leader)"

    assert run("list").stdout.count(f"yet; {says}\n") == 1
    assert run("next").stderr.endswith(f"yet; {says}\n")
    assert json.loads(run("list", "--json").stdout)["source"]["scheduler"] == says


@pytest.mark.usefixtures("running_shop")
def test_other_commands_say_that_nobody_runs(run: Run) -> None:
    says = "source: state file celerybeat-schedule; no scheduler runs with it\n"

    assert says in run("list").stdout
    assert run("next").stderr == says
    assert json.loads(run("list", "--json").stdout)["source"]["scheduler"] is None


@pytest.mark.usefixtures("running_shop")
@pytest.mark.parametrize("name", ["s.db", f"{'x' * 120}.db"], ids=["file", "too long"])
def test_a_scheduler_that_has_no_socket_is_said(run: Run, name: str) -> None:
    Path(f"{name}.sock").touch()  # or a path that no socket can have
    lock = FileLock(Path(f"{name}.lock"))
    assert lock.try_lock(HERE)
    try:
        asked = run("status", "-s", name)

        says = f"scheduler {HERE} runs with {name}, and has no socket"
        assert says in " ".join(asked.stdout.split())
        assert "no scheduler runs" not in asked.stdout
        assert "the scheduler that runs with it does not answer" in asked.stdout
    finally:
        lock.unlock()


HERE = f"{socket.gethostname()} pid {os.getpid()}"


@pytest.mark.parametrize("holder", ["host-b pid 812", HERE], ids=["away", "here"])
def test_a_scheduler_that_leads_with_another_file_is_said(
    run: Run, shop: Path, holder: str
) -> None:
    shop.write_text(f"{shop.read_text()}broker_url = 'sqlite:///broker.db'\n")
    settings = load(Wanted()).settings
    with closing(brokers.of_settings(settings, settings.write_urls)) as broker:
        broker.acquire(holder, 60 * SECOND, 0)
        warning = f"a scheduler leads ({holder}) with another schedule file than"

        assert warning in run("list").stderr
        assert warning in run("next").stderr
        assert "the one that leads has another" in run("status").stdout


def test_a_lead_of_a_process_that_is_gone_is_not_with_another_file(
    run: Run, shop: Path
) -> None:
    shop.write_text(f"{shop.read_text()}broker_url = 'sqlite:///broker.db'\n")
    settings = load(Wanted()).settings
    with closing(brokers.of_settings(settings, settings.write_urls)) as broker:
        broker.acquire(f"{socket.gethostname()} pid 99999999", 60 * SECOND, 0)

        assert "with another schedule file" not in run("list").stderr


def test_who_has_the_file_without_a_socket_is_named(run: Run, shop: Path) -> None:
    lock = FileLock(shop.parent / "celerybeat-schedule.lock")
    assert lock.try_lock("host-a pid 812")

    assert "yet; scheduler host-a pid 812\n" in run("list").stdout
    lock.unlock()


def test_a_scheduler_of_another_version_is_said_to_be_one(
    run: Run, scheduler: Scheduler
) -> None:
    scheduler.body = b'{"schema": "beatd.status/9"}'

    shown = run("status", "--exit-code", status=1).stdout

    assert "it is of another version of beatd: restart it" in shown
    assert "no scheduler runs: nothing is emitted" not in shown


@pytest.mark.usefixtures("shop")
def test_a_socket_that_another_program_has_is_said_to_be_silent(
    run: Run, folder: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("celerybeat-schedule.sock")
        other.listen()
        other.settimeout(0)

        shown = run("status").stdout

    assert "is silent: it has not answered for 3 s" in shown


TICK = """
from beatd import every
beat_schedule = {"tick": {"task": "tasks.tick", "schedule": every(0.5)}}
"""


def test_a_scheduler_that_is_stopped_is_silent_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(TICK)
    words = ("--config", "shop")
    with beatd(*words, "-l", "INFO", cwd=tmp_path) as running:
        running.until("tick queued")
        with beatd("status", *words, cwd=tmp_path) as asking:
            asking.until(f"source:    scheduler pid {running.process.pid}")
        running.send(signal.SIGSTOP)
        with beatd("status", "--exit-code", *words, cwd=tmp_path) as asking:
            assert asking.process.wait(timeout=60) == 1
            assert "is silent: it has not answered for 3 s" in asking.output
        running.send(signal.SIGCONT)
        running.stop()
    assert not (tmp_path / "celerybeat-schedule.sock").exists()


PASS = """\
import os, socket, sys
made = socket.socket(socket.AF_UNIX)
made.bind("passed.sock")
made.listen()
os.dup2(made.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="x")
os.execv(sys.executable, [sys.executable, "-m", "beatd", *sys.argv[1:]])
"""


def test_a_socket_that_systemd_passes_is_answered_at(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(TICK + "import os\nprint(dict(os.environ))\n")
    (tmp_path / "manager.py").write_text(PASS)

    words = ("--config", "shop")
    with module("manager", *words, "-l", "INFO", cwd=tmp_path) as running:
        running.until("tick queued")
        with beatd("status", *words, cwd=tmp_path) as asking:
            asking.until(f"source:    scheduler pid {running.process.pid}")
        assert (tmp_path / "celerybeat-schedule.sock").readlink() == (
            tmp_path / "passed.sock"
        )
        assert "LISTEN_" not in running.output
        running.stop()
    assert (tmp_path / "passed.sock").exists()  # it is the manager's
    assert not os.path.lexists(tmp_path / "celerybeat-schedule.sock")
