"""A worker as users run it, on Redis and prefork, before the worst there is."""

import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beatd.brokers.redis import RedisBroker
from tests.processes import environment
from tests.servers import PATIENCE, Server, eventually
from tests.worker.project import Project
from tests.worker.test_bad_input import BAD, SECRET, with_body

MIB = 1024 * 1024

EVIL = '''\
import ctypes
import os
import signal
import sys
import threading
import time

from proj import HERE, app


@app.task
def end(how):
    """Leave a line for each run, then end in a way that no task should."""
    with (HERE / how).open("a") as file:
        print(os.getpid(), file=file)
    return globals()[how]()


def leave():
    os._exit(3)


def segfault():
    ctypes.string_at(0)


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def close_files():
    os.closerange(3, 1000)


def abort():
    os.abort()


def out_of_memory():
    raise MemoryError


def exit_politely():
    sys.exit(3)


def interrupt():
    raise KeyboardInterrupt


def recurse():
    recurse()


def raise_the_unspeakable():
    class Unspeakable(Exception):
        def __str__(self):
            raise ValueError("no words")

        __repr__ = __reduce__ = __str__

    raise Unspeakable


def give_the_unspeakable():
    return threading.Lock()


def leave_threads():
    for _ in range(50):
        threading.Thread(target=time.sleep, args=[3600]).start()
    return "left"


def fork():
    os.fork()
    return "forked"


@app.task
def print_gigabytes(megabytes, way):
    """Print so much, by `print` as a line for each, or past it."""
    line = "x" * 999_999
    for _ in range(megabytes):
        if way == "print":
            print(line)
        else:
            os.write(1, line.encode() + b"\\n")
    return os.getpid()
'''

FATAL = ["leave", "segfault", "kill_self", "close_files", "abort"]
FAILING = {
    "out_of_memory": "MemoryError",
    "exit_politely": "SystemExit",
    "interrupt": "KeyboardInterrupt",
    "recurse": "RecursionError",
    "raise_the_unspeakable": "UnpickleableExceptionWrapper",
    "give_the_unspeakable": "EncodeError",
}
HARMLESS = {
    "leave_threads": "left",
    "fork": "forked",
}


@pytest.fixture
def project(server: Server, tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path, server.url(0), server.url(1))
    (tmp_path / "evil.py").write_text(EVIL)
    yield made
    made.app.close()


def memory_of(pid: int, kind: str) -> int:
    """Return what /proc/PID/status says, in bytes: VmRSS now, VmHWM at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [found] = [line.split()[1] for line in lines if line.startswith(f"{kind}:")]
    return int(found) * 1024


def meta_of(server: Server, task_id: str, patience: float = PATIENCE) -> dict[str, Any]:
    """Read a result as it lies in Redis, once the run has ended."""

    def ended() -> Any:
        with server.client() as client:
            client.select(1)
            meta = json.loads(client.get(f"celery-task-meta-{task_id}") or b"{}")
        return meta if meta.get("status") in ("SUCCESS", "FAILURE") else None

    return dict(eventually(ended, f"{task_id} to end", patience))


def test_whatever_a_task_does_the_worker_lives(
    project: Project, server: Server
) -> None:
    names = [*FATAL, *FAILING, *HARMLESS]
    send = project.app.send_task
    with project.worker("-c", "2", "-I", "evil") as worker:
        for name in names:
            send("evil.end", [name], task_id=name)
        metas = {name: meta_of(server, name) for name in names}
        after = send("proj.add", [1, 1])
        assert after.get(timeout=PATIENCE) == 2
        assert memory_of(worker.pid, "VmHWM") < 150 * MIB
        histories = all_reasons(server, len(FATAL))

    assert len(histories) == len(FATAL)
    assert all("delivered 3 times, each time fatal; " in one for one in histories)
    failed = {name: metas[name]["result"]["exc_type"] for name in [*FATAL, *FAILING]}
    assert failed == dict.fromkeys(FATAL, "WorkerLostError") | FAILING
    assert {name: metas[name]["result"] for name in HARMLESS} == HARMLESS
    runs = {name: project.runs(name) for name in names}
    assert runs == {name: 3 if name in FATAL else 1 for name in names}


class ReadAway:
    """A worker whose output is read and thrown away, and counted."""

    def __init__(self, project: Project) -> None:
        self.bytes = 0
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "beatd", "worker", "-A", "proj", "-I", "evil"),
                *("-c", "1", "-l", "info"),
            ],
            cwd=project.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reading = threading.Thread(target=self._read)

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> "ReadAway":
        self._reading.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=PATIENCE)
        finally:
            self._process.kill()
            self._reading.join()

    def _read(self) -> None:
        assert self._process.stdout
        with self._process.stdout as output:
            while some := os.read(output.fileno(), MIB):
                self.bytes += len(some)


@pytest.mark.parametrize(("way", "megabytes"), [("print", 500), ("os.write", 2000)])
def test_gigabytes_of_output_pass_through_and_fill_no_memory(
    project: Project, server: Server, way: str, megabytes: int
) -> None:
    """By `print` they become records of the log, many for each line of a megabyte.

    By `os.write` they go past the log, to where the worker's own output goes.
    """
    with ReadAway(project) as worker:
        child, _ = project.app.send_task("proj.where").get(timeout=PATIENCE)
        before = {pid: memory_of(pid, "VmHWM") for pid in (child, worker.pid)}
        arguments = [megabytes, way]
        sent = project.app.send_task("evil.print_gigabytes", arguments, task_id="p")
        meta = meta_of(server, sent.id, 4 * PATIENCE)  # so much takes time
        assert meta["result"] == child
        grown = {pid: memory_of(pid, "VmHWM") - before[pid] for pid in before}
        assert max(grown.values()) < megabytes * MIB // 20
        assert project.app.send_task("proj.add", [1, 1]).get(timeout=PATIENCE) == 2

    assert worker.bytes >= megabytes * 1_000_000


def bomb(size: int) -> bytes:
    """Compress so many zero bytes."""
    packer = zlib.compressobj(1)
    zeros = bytes(MIB)
    pieces = [packer.compress(zeros) for _ in range(size // MIB)]
    return b"".join([*pieces, packer.flush()])


def test_whatever_a_message_holds_the_worker_lives_and_stays_small(
    project: Project, server: Server
) -> None:
    bombs = bomb(300 * MIB)
    large = b'{"body": "' + b"x" * 100 * MIB + b'", "properties": {}}'
    messages = {
        "a body of 100 MB": (large, f"{len(large)} bytes: larger than"),
        "a bomb of 300 MB": (
            with_body(bombs, compression="gzip"),
            "grows beyond 67108864 bytes when decompressed",
        ),
        "another large body": (large, "larger than"),
        "the same for the main process": (
            with_body(bombs, compression="gzip", task=None),
            "grows beyond",
        ),
        **BAD,
    }
    with project.worker("-c", "2") as worker:
        before = memory_of(worker.pid, "VmRSS")
        with server.client() as client:
            for raw, _ in messages.values():
                client.lpush("celery", raw.replace(b"proj.echo", b"proj.add"))
        behind = project.app.send_task("proj.add", [1, 1])
        assert behind.get(timeout=PATIENCE) == 2
        reasons = all_reasons(server, len(messages))
        assert memory_of(worker.pid, "VmRSS") < before + 200 * MIB
        assert memory_of(worker.pid, "VmHWM") < 600 * MIB
        # It is logged once the broker has answered, so a moment later.
        eventually(
            lambda: worker.log.read_text().count("set aside") >= len(messages),
            "all of them to be said",
        )
        log = worker.log.read_text()

    # The longest words first: the fewest reasons have them, in whatever order they are.
    wanted = sorted(messages.items(), key=lambda item: -len(item[1][1]))
    for name, (_, expected) in wanted:
        found = [reason for reason in reasons if expected in reason]
        assert found, f"{name}: nothing was set aside because of {expected!r}"
        reasons.remove(found[0])
    assert log.count("set aside") == len(messages)
    assert SECRET not in log
    assert "Traceback" not in log


def all_reasons(server: Server, number: int) -> list[str]:
    """Wait until so many messages were set aside; say why they were."""
    broker = RedisBroker(server.url(), namespace="default")

    def found() -> list[str]:
        reasons = [letter.reason for letter in broker.dead_letters()]
        return reasons if len(reasons) >= number else []

    try:
        return eventually(found, f"{number} dead letters", PATIENCE)
    finally:
        broker.close()
