"""What beatd says of each thing that goes wrong, where, and after how many seconds.

`python -m pytest -s -m promise tests/promises/test_complaints.py` prints the table of
docs/what-it-says.md. Nobody may have to wait for longer than `LIMIT`.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.processes import ended
from tests.promises.harness import Beatd
from tests.promises.workers import kill_family
from tests.servers import Server, emptied, eventually, number_of, reserved_port

pytestmark = pytest.mark.promise

LIMIT = 22.0
"""Seconds in which each is said: those of a late tick, and some for a busy machine."""

_ONE_BY_ONE = threading.Lock()
"""Held while a command runs: all are forks of one process."""

CONFIG = """
from beatd.schedules import every

{more}
broker_connection_timeout = 3
beat_schedule = {{
    "each": {{"task": "tasks.work", "schedule": every(1)}},
}}
"""

APP = """
import time
from pathlib import Path

from celery import Celery, Task


class Hanging(Task):
    def apply_async(self, *args, **kwargs):
        while Path("hang").exists():
            time.sleep(0.1)
        return super().apply_async(*args, **kwargs)


app = Celery("app", task_cls=Hanging)


@app.task(name="tasks.work")
def work():
    pass


app.conf.beat_schedule = {"each": {"task": "tasks.work", "schedule": 1.0}}
"""

TASKS = """
import time
from pathlib import Path

from beatd import shared_task


@shared_task(name="tasks.work")
def work():
    Path("begun").touch()
    while not Path("end").exists():
        time.sleep(0.1)
"""

CLOCK = """
import time
from pathlib import Path

true = time.time_ns
time.time_ns = lambda: true() + (OFF if Path("is_off").exists() else 0) * 10**9
OFF = {off}
"""
"""A clock that is off, as the clock of a host may be: the config sets it."""


ALERTS = 'beat_alerts = {"*": {"max_wait": 5, "max_late": 2}}'


@dataclass
class Host:
    """A scheduler that answers over HTTP, with a schedule file of its own."""

    folder: Path
    name: str
    words: list[str]
    beatd: Beatd = field(init=False)
    port: int = field(init=False)

    def __post_init__(self) -> None:
        with closing(reserved_port()) as reserved:
            self.port = number_of(reserved)
        words = [*self.words, "-s", f"{self.name}.db"]
        log = self.folder / f"{self.name}.log"
        self.beatd = Beatd([*words, "--http", str(self.port)], self.folder, log)

    def start(self) -> "Host":
        self.beatd.start()
        self.beatd.until("leading, term")
        eventually(lambda: self.get("/livez") is not None, "an answer")
        return self

    def until_well(self) -> None:
        eventually(lambda: (self.get("/readyz") or [0])[0] == 200, "a healthy host")

    def get(self, path: str) -> tuple[int, str] | None:
        """Return status and body; None without an answer within two seconds."""
        link = HTTPConnection("127.0.0.1", self.port, timeout=2)
        with closing(link):
            try:
                link.request("GET", path)
                answer = link.getresponse()
                return answer.status, answer.read().decode()
            except OSError:
                return None

    def readyz(self, words: str) -> str:
        """Return what /readyz says, once it has these words; empty before."""
        answer = self.get("/readyz")
        if answer is None:
            return "no answer" if words == "no answer" else ""
        return (
            f"{answer[0]}: {_problem(answer[1], words)}" if words in answer[1] else ""
        )

    def metric(self, line: str) -> str:
        """Return the line of /metrics that begins so; empty if there is none."""
        answer = self.get("/metrics")
        lines = answer[1].splitlines() if answer else []
        return next((one for one in lines if one.startswith(line)), "")

    def status(self, words: str) -> str:
        """Return what `beatd status` says, and its exit status, once it has these."""
        command = ["status", "--exit-code", "--json"]
        with _ONE_BY_ONE:
            file = f"{self.name}.db"
            done = ended(*command, *self.words, "-s", file, cwd=self.folder)
        if words not in done.stdout:
            return ""
        return f"exit {done.returncode}: {_problem(done.stdout, words)}"

    def says(self, words: str) -> str:
        """Return the line of the log with these words; empty before."""
        lines = self.beatd.log.read_text(errors="replace").splitlines()
        return next((one[26:] for one in lines if words in one), "")


def _problem(document: str, words: str) -> str:
    """Return the problem of a status that has these words, or the words."""
    try:
        problems = json.loads(document).get("problems", ())
    except ValueError:
        return next(line for line in document.splitlines() if words in line)
    return next((one["text"] for one in problems if words in one["text"]), words)


@dataclass
class Stand:
    """A folder with its config, and the hosts in it."""

    folder: Path
    server: Server
    hosts: list[Host] = field(default_factory=list)
    workers: list[Beatd] = field(default_factory=list)

    def host(self, name: str, *words: str, more: str = "") -> Host:
        """Make one more host; what `more` says stands in its config."""
        config = f"{name}_config.py"
        (self.folder / config).write_text(CONFIG.format(more=more))
        words = words or ("--config", config)
        self.hosts.append(Host(self.folder, name, [*words, "-b", self.server.url()]))
        return self.hosts[-1]

    def close(self) -> None:
        (self.folder / "hang").unlink(missing_ok=True)
        for beatd in [*(host.beatd for host in self.hosts), *self.workers]:
            if beatd.process is not None and beatd.process.poll() is None:
                beatd.send(signal.SIGCONT)
                beatd.kill()

    def attended(self) -> "Stand":
        """Have a worker that runs what is sent."""
        (self.folder / "end").touch()
        self.worker("attending")
        return self

    def worker(self, name: str) -> Beatd:
        (self.folder / "tasks.py").write_text(TASKS)
        (self.folder / "worker_config.py").write_text("")
        words = ["worker", "--config", "worker_config.py", "-I", "tasks", "-c", "1"]
        words += ["-b", self.server.url(), "-n", f"{name}@%h"]
        worker = Beatd(words, self.folder, self.folder / f"{name}.log").start()
        self.workers.append(worker)
        worker.until("is ready")
        return worker


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    with (
        Server() as server,
        emptied(server),
        closing(Stand(tmp_path, server)) as stand,
    ):
        yield stand


def watch(
    complaint: str, since: float, looks: Mapping[str, Callable[[], str]]
) -> dict[str, str]:
    """Wait until each of these says something; print what, and after how long."""

    def wait(name: str, look: Callable[[], str]) -> tuple[float, str]:
        said = eventually(look, f"{complaint}: {name}", patience=2 * LIMIT)
        return time.monotonic() - since, said

    with ThreadPoolExecutor() as pool:
        waiting = {name: pool.submit(wait, name, look) for name, look in looks.items()}
        found = {name: one.result() for name, one in waiting.items()}
    for name, (after, said) in found.items():
        print(f"| {complaint} | {name} | {after:.1f} s | {said} |")
    late = {name: after for name, (after, _) in found.items() if after > LIMIT}
    assert late == {}
    return {name: said for name, (_, said) in found.items()}


def test_a_call_that_makes_a_message_and_hangs(stand: Stand) -> None:
    (stand.folder / "app.py").write_text(APP)
    host = stand.attended().host("host", "-A", "app").start()
    host.until_well()
    since = time.monotonic()
    (stand.folder / "hang").touch()

    said = watch(
        "the loop hangs in a task's own code",
        since,
        {
            "log": lambda: host.says("has run for"),
            "beatd status": lambda: host.status("is due for"),
            "/livez": lambda: _not_200(host.get("/livez")),
            "/readyz": lambda: host.readyz("is due for"),
            "/metrics": lambda: host.metric("beatd_healthy 0"),
        },
    )
    assert said["beatd status"].startswith("exit 1")


def test_a_leader_that_stands_still_alone(stand: Stand) -> None:
    host = stand.attended().host("host").start()
    host.until_well()
    since = time.monotonic()
    host.beatd.send(signal.SIGSTOP)

    said = watch(
        "the only scheduler stands still (SIGSTOP)",
        since,
        {
            "beatd status": lambda: host.status("is silent"),
            "beatd status, later": lambda: host.status("is due for"),
            "/readyz": lambda: host.readyz("no answer"),
        },
    )
    assert said["beatd status"].startswith("exit 1")


def test_a_leader_that_stands_still_beside_a_standby(stand: Stand) -> None:
    leader = stand.attended().host("leader", more=ALERTS).start()
    standby = stand.host("standby", more=ALERTS)
    standby.beatd.start().until("standing by")
    since = time.monotonic()
    leader.beatd.send(signal.SIGSTOP)

    said = watch(
        "the leader stands still, a standby is there",
        since,
        {
            "log of the standby": lambda: standby.says("leading, term"),
            "beatd status there": lambda: standby.status('"role": "leader"'),
            "/metrics there": lambda: standby.metric('beatd_role{role="leader"} 1'),
            "alert": lambda: standby.says("alert: each"),
        },
    )
    assert said["beatd status there"].startswith("exit 0")
    since = time.monotonic()
    leader.beatd.send(signal.SIGCONT)
    watch(
        "it goes on",
        since,
        {"log": lambda: leader.says("lost the lead")},
    )


def test_a_broker_that_is_away(stand: Stand) -> None:
    host = stand.attended().host("host", more=ALERTS).start()
    host.until_well()
    since = time.monotonic()
    stand.server.kill()
    try:
        said = watch(
            "Redis is away",
            since,
            {
                "log": lambda: host.says("stopped emitting"),
                "beatd status": lambda: host.status("does not answer"),
                "beatd status, unhealthy": lambda: host.status("is due for"),
                "/readyz": lambda: host.readyz("is due for"),
                "/metrics": lambda: host.metric("beatd_broker_up 0"),
            },
        )
    finally:
        since = time.monotonic()
        stand.server.start()
    assert said["beatd status, unhealthy"].startswith("exit 1")
    watch(
        "Redis is back",
        since,
        {
            "log": lambda: host.says("over after"),
            "alert": lambda: host.says("alert: each"),
        },
    )


def test_a_queue_from_which_nobody_takes(stand: Stand) -> None:
    since = time.monotonic()
    host = stand.host("host", more=ALERTS).start()

    said = watch(
        "nobody takes from a queue",
        since,
        {
            "beatd status": lambda: host.status("nobody takes from it"),
            "/readyz": lambda: host.readyz("nobody takes from it"),
            "/metrics": lambda: host.metric('beatd_queue_workers{queue="celery"} 0'),
            "alert": lambda: host.says("nobody has taken the message"),
        },
    )
    assert said["beatd status"].startswith("exit 1")


def test_a_worker_that_dies(stand: Stand) -> None:
    worker = stand.worker("w0")
    host = stand.host("host", more=ALERTS).start()
    eventually((stand.folder / "begun").exists, "a run")
    host.until_well()
    since = time.monotonic()
    kill_family(worker)

    said = watch(
        "the only worker dies",
        since,
        {
            "beatd status": lambda: host.status("nobody takes from it"),
            "/readyz": lambda: host.readyz("nobody takes from it"),
            "/metrics": lambda: host.metric("beatd_workers 0"),
            "alert": lambda: host.says("nobody has taken the message"),
        },
    )
    assert said["beatd status"].startswith("exit 1")
    (stand.folder / "end").touch()
    since = time.monotonic()
    second = stand.worker("w1")
    log = {"its log": lambda: "succeeded" * bool(second.said("succeeded"))}
    watch("another worker starts: its run begins again", since, log)


@pytest.mark.parametrize("off", [3600, -3600], ids=["ahead", "behind"])
def test_a_clock_that_is_off(stand: Stand, off: int) -> None:
    (stand.folder / "is_off").touch()
    stand.attended()
    since = time.monotonic()
    host = stand.host("host", more=CLOCK.format(off=off)).start()
    words = "this host's clock is"

    watch(
        f"the clock is an hour {'ahead' if off > 0 else 'behind'}",
        since,
        {
            "log": lambda: host.says(words),
            "beatd status": lambda: host.status(words),
            "/readyz": lambda: host.readyz(words),
            "/metrics": lambda: host.metric("beatd_clock_offset_seconds"),
        },
    )
    if off > 0:
        since = time.monotonic()
        (stand.folder / "is_off").unlink()
        log = {"log": lambda: host.says("clock era")}
        watch("and is set right", since, log)


def test_two_configs_that_differ(stand: Stand) -> None:
    leader = stand.attended().host("leader").start()
    leader.until_well()
    standby = stand.host("standby")
    path = stand.folder / "standby_config.py"
    path.write_text(path.read_text().replace('"each"', '"other"'))
    since = time.monotonic()
    standby.beatd.start()

    said = watch(
        "two configs differ",
        since,
        {
            "log of the standby": lambda: standby.says("goes by other entries"),
            "beatd status there": lambda: standby.status("goes by other entries"),
            "/metrics of the leader": lambda: leader.metric(
                "beatd_standbys_differing 1"
            ),
        },
    )
    assert said["beatd status there"].startswith("exit 0")


def _not_200(answer: tuple[int, str] | None) -> str:
    return "" if answer is None or answer[0] == 200 else f"{answer[0]}: {answer[1]}"
