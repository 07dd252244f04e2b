"""What a soak hurts: three schedulers, three workers, a Redis, and what lies between.

Each process reaches Redis through a proxy of its own, so that one of them alone can be
cut off.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.promises.harness import Beatd
from tests.promises.workers import descendants, kill_family
from tests.proxy import Proxy
from tests.servers import Server, eventually
from tests.soak.rows import Row, config_text

TASKS = """
import json
import os
import time
from datetime import datetime

from beatd import shared_task

JOURNAL = os.open("journal", os.O_WRONLY | os.O_APPEND)


def note(word, task):
    line = [word, task.request.beatd_entry, task.request.beatd_slot, task.request.id]
    line += [task.request.hostname.partition("@")[0], time.time()]
    line += [bool(task.request.delivery_info.get("redelivered"))]
    os.write(JOURNAL, (json.dumps(line) + "\\n").encode())
    os.fsync(JOURNAL)


@shared_task(bind=True, name="soak.work")
def work(self, lasts, due=None):
    note("begin", self)
    slot = datetime.fromisoformat(self.request.beatd_slot)
    assert due is None or datetime.fromisoformat(due) == slot, due
    time.sleep(lasts[int(slot.timestamp()) % len(lasts)])
    note("end", self)
"""

WORKERS = (("prefork", 4), ("prefork", 4), ("threads", 12))


@dataclass
class Host:
    """One scheduler or worker, and the proxy through which it reaches Redis."""

    name: str
    beatd: Beatd
    proxy: Proxy
    is_worker: bool
    is_busy: bool = False
    """Whether a fault has hold of it just now."""
    is_down: bool = False
    """Whether it was ended, and has not been started again yet."""

    def pause(self) -> None:
        """Stop it and its children, as the pause of a virtual machine does."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self, *, whole: bool) -> None:
        """Kill it, or it and its children."""
        if whole:
            kill_family(self.beatd)
        else:
            self.beatd.kill()

    def _signal(self, number: signal.Signals) -> None:
        for pid in (self.beatd.pid, *descendants(self.beatd.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@dataclass
class Hurt:
    """Something was wrong with a host, or with Redis, from then to then."""

    who: str
    begin: float
    end: float


@dataclass
class Deployed:
    """Another config was given out; at `end` every scheduler had it, or none."""

    begin: float
    end: float
    is_changed: bool


@dataclass
class Stage:
    """All processes of a soak, and a record of what was done to them."""

    folder: Path
    rows: Sequence[Row]
    server: Server
    hosts: list[Host]
    hurts: list[Hurt] = field(default_factory=list)
    deployed: list[Deployed] = field(default_factory=list)
    is_changed: bool = False

    @property
    def schedulers(self) -> list[Host]:
        return [host for host in self.hosts if not host.is_worker]

    def free(self, *, workers: bool | None = None) -> list[Host]:
        """Return the hosts of a kind, or all, that no fault has hold of."""
        return [
            host
            for host in self.hosts
            if not host.is_busy and workers in (None, host.is_worker)
        ]

    def hurt(self, who: str, seconds: float) -> Hurt:
        """Take note of a fault that begins now and lasts for so long."""
        now = time.time()
        self.hurts.append(Hurt(who, now, now + seconds))
        return self.hurts[-1]

    def write_config(self, *, is_changed: bool) -> None:
        """Put the config in its place in one step."""
        self.is_changed = is_changed
        text = config_text(self.rows, is_changed=is_changed)
        new = self.folder / "config.py.new"
        new.write_text(text)
        new.replace(self.folder / "config.py")

    def journal(self) -> list[list[Any]]:
        """Return the lines that tasks wrote: those that are whole."""
        lines = (self.folder / "journal").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def asked(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Return what a command of beatd's says, with the stage's config and broker."""
        command = [sys.executable, "-m", "beatd", *words]
        command += ["--config", "config.py", "-b", self.server.url()]
        command += ["--result-backend", self.server.url(1), "-s", "s0.db"]
        return subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the states of runs, as the results have them."""
        found: dict[str, str] = {}
        with self.server.client() as client:
            client.select(1)
            for first in range(0, len(ids), 500):
                part = ids[first : first + 500]
                raw = client.mget([f"celery-task-meta-{one}" for one in part])
                metas = zip(part, raw, strict=True)
                found |= {one: json.loads(raw)["status"] for one, raw in metas if raw}
        return found


def staged(folder: Path, rows: Sequence[Row], stack: ExitStack) -> Stage:
    """Start everything, and return it once a first slot has run."""
    (folder / "journal").touch()
    (folder / "soak_tasks.py").write_text(TASKS)
    (folder / "redis").mkdir()
    server = stack.enter_context(Server(dir=folder / "redis", appendonly="yes"))
    names = [*(f"s{n}" for n in range(3)), *(f"w{n}" for n in range(len(WORKERS)))]
    hosts = [_host(folder, name, server, stack) for name in names]
    stage = Stage(folder, rows, server, hosts)
    stack.callback(_end, stage)
    stage.write_config(is_changed=False)
    for host in reversed(hosts):
        host.beatd.start()
    eventually(stage.journal, "a first run")
    return stage


def _host(folder: Path, name: str, server: Server, stack: ExitStack) -> Host:
    proxy = stack.enter_context(Proxy(server.port))
    words = ["--config", "config.py", "-b", proxy.url()]
    words += ["--result-backend", proxy.url(1), "-s", f"{name}.db"]
    is_worker = name.startswith("w")
    if is_worker:
        pool, children = WORKERS[int(name[1:])]
        options = ["-n", f"{name}@%h", "-P", pool, "-c", str(children)]
        options += ["-Q", "celery,other", "-I", "soak_tasks"]
        words = ["worker", *words, *options]
    beatd = Beatd(words, folder, folder / f"{name}.log")
    return Host(name, beatd, proxy, is_worker)


def _end(stage: Stage) -> None:
    for host in stage.hosts:
        process = host.beatd.process
        if process is not None and process.poll() is None:
            host.go_on()
            host.kill(whole=True)
