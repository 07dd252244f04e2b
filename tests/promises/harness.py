"""Real schedulers as processes, and a reader of what they emitted.

The reader shares no code with the scheduler: it takes messages as any Celery worker
would find them, and looks at their headers.
"""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from tests.servers import PATIENCE, Server, eventually

CONFIG = """
from beatd.schedules import cron, every

beat_schedule = {{
    "each": {{
        "task": "tasks.each",
        "schedule": every({every}),
        "coalesce": False,
    }},
    "second": {{
        "task": "tasks.second",
        "schedule": cron("* * * * * *"),
        "coalesce": False,
    }},
}}
beat_lock_timeout = {lock_timeout}
"""


@dataclass
class Beatd:
    """One `beatd` process of ours; its log goes to a file beside its config."""

    arguments: list[str]
    directory: Path
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> "Beatd":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "beatd", "-l", "INFO", *self.arguments],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,
            )
        return self

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As `kill -9` does, and the process is gone when this returns."""
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(timeout=PATIENCE)

    def said(self, words: str) -> int:
        """Say how often the log has these words."""
        return self.log.read_text(errors="replace").count(words)

    def until(self, words: str, times: int = 1) -> None:
        """Wait until the log has these words so many times."""
        eventually(
            lambda: self.said(words) >= times, f"{words!r} in {self.log.read_text()}"
        )


class Queue(Protocol):
    """Where the messages lie that nobody takes."""

    def messages(self) -> list[bytes]: ...


@dataclass
class RedisQueue:
    """Celery's default queue on a server of ours."""

    server: Server

    def messages(self) -> list[bytes]:
        with self.server.client() as client:
            raw: list[bytes] = client.lrange("celery", 0, -1)
        return raw


@dataclass
class SQLiteQueue:
    """The queue in a broker's database."""

    path: Path

    def messages(self) -> list[bytes]:
        with contextlib.closing(sqlite3.connect(self.path)) as database:
            rows = database.execute("SELECT message FROM messages").fetchall()
        return [row[0] for row in rows]


@dataclass
class Scene:
    """A config, a queue, and as many schedulers before them as a test wants."""

    directory: Path
    queue: Queue
    broker: str | None
    every: float = 0.2
    lock_timeout: float = 2.0
    beatds: list[Beatd] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = CONFIG.format(every=self.every, lock_timeout=self.lock_timeout)
        (self.directory / "schedule_config.py").write_text(config)

    def beatd(
        self, name: str = "beatd", *, schedule_file: str = "schedule.db"
    ) -> Beatd:
        """Make one more scheduler; those with different files are different hosts."""
        arguments = ["--config", "schedule_config.py", "-s", schedule_file]
        if self.broker:
            arguments += ["-b", self.broker]
        beatd = Beatd(arguments, self.directory, self.directory / f"{name}.log")
        self.beatds.append(beatd)
        return beatd

    def slots(self, entry: str) -> list[datetime]:
        """Return the slots of the entry's messages, in order of time."""
        headers = [json.loads(raw)["headers"] for raw in self.queue.messages()]
        return sorted(
            datetime.fromisoformat(header["beatd_slot"])
            for header in headers
            if header["beatd_entry"] == entry
        )

    def until_slots(self, more: int, entry: str = "each") -> None:
        """Wait until so many more slots of the entry are on the queue."""
        wanted = len(self.slots(entry)) + more
        eventually(lambda: len(self.slots(entry)) >= wanted, f"{wanted} slots")

    def check(self) -> None:
        """Each slot from the first to the last is there once, of every entry."""
        check_slots("each", self.slots("each"), timedelta(seconds=self.every))
        check_slots("second", self.slots("second"), timedelta(seconds=1))

    def close(self) -> None:
        for beatd in self.beatds:
            if beatd.process is not None and beatd.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    beatd.send(signal.SIGCONT)
                beatd.kill()


def check_slots(entry: str, slots: list[datetime], step: timedelta) -> None:
    """Fail, and name them, for slots that are missing or doubled."""
    assert slots, f"{entry}: nothing was emitted"
    number = (slots[-1] - slots[0]) // step + 1
    wanted = [slots[0] + index * step for index in range(number)]
    missing = sorted(set(wanted) - set(slots))
    doubled = sorted({slot for slot in slots if slots.count(slot) > 1})
    strange = sorted(set(slots) - set(wanted))
    assert (missing, doubled, strange) == ([], [], []), (
        f"{entry}, {number} slots: missing {missing}, doubled {doubled}, not on the"
        f" grid {strange}"
    )


def moments(seed: int, number: int, shortest: float, longest: float) -> Iterator[None]:
    """Come back `number` times, after pauses drawn with `seed`.

    A fault at a random moment needs a moment that no event names: the only wait of the
    suite that waits for time to pass.
    """
    draw = random.Random(seed)
    pause = threading.Event()
    for _ in range(number):
        pause.wait(draw.uniform(shortest, longest))
        yield
