"""A pool with an inbox for its events, and the tasks that the tests have it run."""

import asyncio
import ctypes
import faulthandler
import inspect
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

from beatd.errors import SoftTimeLimitExceeded
from beatd.pools.base import (
    Finished,
    InThread,
    Job,
    Lost,
    Pool,
    PoolEvent,
    ProcessPool,
    Returned,
    Several,
    Started,
    TimedOut,
    Turn,
)
from beatd.pools.limits import soft_limit, soft_limited
from beatd.pools.prefork import places
from beatd.pools.prefork.child import ChildMain
from beatd.pools.prefork.frames import JobEnded, pack
from tests.servers import PATIENCE, eventually

Outcome = Finished | TimedOut | Lost
Told = Started | Outcome

Listener = Callable[[PoolEvent], object]

LONG = 10 * PATIENCE
"""Seconds that no test waits for."""

_tokens = count(1)


def job(
    task: Callable[..., object],
    *words: object,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
) -> Job:
    """Have `task`, a function of this module, called with these words as text."""
    message = "\0".join([task.__name__, *map(str, words)]).encode()
    return Job(f"job-{next(_tokens)}", message, 1, time_limit, soft_time_limit)


class DeskRunner:
    """Does as the worker's runner does: whatever a task raises is its report."""

    def __call__(self, job: Job) -> bytes:
        task, words = _read(job)
        try:
            with soft_limit(job.soft_time_limit):
                return str(task(*words)).encode()
        except BaseException as error:
            return _report_of(error, task)

    async def run(self, job: Job, in_thread: InThread) -> bytes:
        task, words = _read(job)
        if not inspect.iscoroutinefunction(task):
            return await in_thread(partial(self, job))
        try:
            value = await soft_limited(task(*words), job.soft_time_limit)
        except BaseException as error:
            return _report_of(error, task)
        return str(value).encode()


def _read(job: Job) -> tuple[Callable[..., Any], list[str]]:
    name, *words = job.message.decode().split("\0")
    return globals()[name], words


def _report_of(error: BaseException, task: Callable[..., Any]) -> bytes:
    if task is break_the_runner:
        raise error
    return repr(error).encode()


runner = DeskRunner()


class Desk:
    """Hands jobs to a pool, again if it gives them back; waits for what they become."""

    def __init__(self, make: Callable[[DeskRunner, Listener], Pool]) -> None:
        self._inbox: SimpleQueue[PoolEvent] = SimpleQueue()
        self._jobs: dict[str, Job] = {}
        self.events: list[Told] = []
        self.returned: list[str] = []
        self.pool = make(runner, self._inbox.put)

    @property
    def process_pool(self) -> ProcessPool:
        assert isinstance(self.pool, ProcessPool)
        return self.pool

    def submit(self, *jobs: Job) -> None:
        self._jobs.update({job.token: job for job in jobs})
        self.pool.submit(jobs)

    def run(self, *jobs: Job) -> list[Outcome]:
        """Have these jobs run; return their outcomes in the jobs' order."""
        self.submit(*jobs)
        return self.outcomes(jobs)

    def report(self, task: Callable[..., object], *words: object) -> str:
        (outcome,) = self.run(job(task, *words))
        assert isinstance(outcome, Finished), outcome
        return outcome.report.decode()

    def outcomes(self, jobs: Iterable[Job]) -> list[Outcome]:
        """Wait for the outcomes of these jobs."""
        tokens = [job.token for job in jobs]
        self.all_events()
        while set(tokens) - self._ended().keys():
            self._take(self._inbox.get(timeout=PATIENCE))
            self.all_events()
        ended = self._ended()
        return [ended[token] for token in tokens]

    def started(self, job: Job) -> Started:
        """Wait until the job has begun."""
        return eventually(lambda: self._started(job), "the job to begin")

    def events_of(self, job: Job) -> list[Told]:
        return [event for event in self.all_events() if event.token == job.token]

    def all_events(self) -> list[Told]:
        """Return everything that was told so far."""
        while not self._inbox.empty():
            self._take(self._inbox.get())
        return self.events

    def _take(self, event: PoolEvent) -> None:
        if isinstance(event, Returned):
            self.returned += event.tokens
            self.pool.submit([self._jobs[token] for token in event.tokens])
        elif isinstance(event, Turn):
            event.take()
        elif isinstance(event, Several):
            for one in event.events:
                self._take(one)
        else:
            self.events.append(event)

    def _started(self, job: Job) -> Started | None:
        for event in self.all_events():
            if isinstance(event, Started) and event.token == job.token:
                return event
        return None

    def _ended(self) -> dict[str, Outcome]:
        return {
            event.token: event
            for event in self.events
            if not isinstance(event, Started)
        }


# Tasks.


def echo(text: str) -> str:
    return text


def pid() -> int:
    return os.getpid()


def place() -> str:
    """Return the place of this process in its pool, and what its log calls it."""
    return f"{places.here()} {multiprocessing.current_process().name}"


def thread() -> int:
    return threading.get_ident()


def raise_named(name: str) -> None:
    raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[name]


def break_the_runner() -> None:
    raise RuntimeError("the runner itself")


def sleep(seconds: str) -> str:
    """Sleep in one go, in C code."""
    time.sleep(float(seconds))
    return "slept"


def busy(seconds: str) -> str:
    """Take that long in Python code."""
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        pass
    return "was busy"


def clean_up_at_the_soft_limit(work: str) -> str:
    try:
        globals()[work](str(LONG))
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "never told"


def doze(seconds: str) -> str:
    """Take that long, in many short sleeps."""
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        time.sleep(0.001)
    return "dozed"


def ignore_the_soft_limit() -> None:
    try:
        busy(str(LONG))
    except SoftTimeLimitExceeded:
        time.sleep(LONG)


def meet(mine: str, theirs: str) -> str:
    """End only if the other task runs at the same time."""
    Path(mine).touch()
    eventually(Path(theirs).exists, "the other task")
    return "met"


def wait_for(path: str) -> str:
    eventually(Path(path).exists, f"{path} to be made")
    return "seen"


def note_the_end(path: str) -> None:
    try:
        time.sleep(LONG)
    finally:
        Path(path).touch()


def count_bytes(data: str) -> str:
    return str(len(data))


def make_bytes(number: str) -> str:
    return "x" * int(number)


def exit_at_once(status: str) -> None:
    os._exit(int(status))


def send_self(number: str) -> None:
    os.kill(os.getpid(), int(number))
    time.sleep(LONG)


def segfault() -> None:
    faulthandler.disable()  # pytest's, which would print the stack
    ctypes.string_at(0)


def fork_and_return_twice() -> str:
    os.fork()
    return "returned"


def leave_a_process_behind_and_die(pid_file: str) -> None:
    """Die while a copy lives on that has everything open."""
    if os.fork() == 0:
        Path(pid_file).write_text(str(os.getpid()))
        time.sleep(LONG)
    os._exit(3)


def leave_a_thread_behind() -> str:
    threading.Thread(target=time.sleep, args=[LONG]).start()
    return "left"


def close_all_files() -> None:
    os.closerange(3, 1000)
    time.sleep(LONG)


def _channel() -> int:
    """Find the child's end of its channel, which it has in hand while this runs.

    The child may have other sockets like it: those that its parent had open.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is ChildMain.run.__code__:
            channel: socket.socket = frame.f_locals["channel"]
            return channel.fileno()
        frame = frame.f_back
    raise LookupError("no channel")


def say_to_the_pool(hexadecimal: str) -> str:
    os.write(_channel(), bytes.fromhex(hexadecimal))
    return "said"


def report_for_another(token: str) -> str:
    os.write(_channel(), pack(JobEnded(Finished(token, b"forged"))))
    return "forged"


def kill_the_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(LONG)


def parent() -> int:
    return os.getppid()


def parent_of(number: str) -> str:
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1]


def command_of(number: str) -> str:
    return Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ")


def is_same_file(fd: str, inode: str) -> str:
    try:
        return "yes" if os.fstat(int(fd)).st_ino == int(inode) else "no"
    except OSError:
        return "no"


def environment(name: str) -> str:
    return os.environ.get(name, "nothing")


def read_stdin() -> str:
    return sys.stdin.read()


def outlive(number: str) -> str:
    os.kill(os.getpid(), int(number))
    return "still here"


def end_a_program(number: str) -> str:
    """Start a program that sleeps, send it a signal, and say how it ended."""
    with subprocess.Popen(["sleep", str(LONG)]) as program:
        program.send_signal(int(number))
        return str(program.wait())


def end_a_fork(number: str) -> str:
    """The same with a copy of this process."""
    here, there = socket.socketpair()
    with here, there:
        pid = os.fork()
        if not pid:
            there.send(b"!")  # not before: Python forgets signals while it forks
            time.sleep(LONG)
            os._exit(0)
        here.recv(1)
    os.kill(pid, int(number))
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


_hoard: list[bytearray] = []


def hoard(mebibytes: str) -> str:
    _hoard.append(bytearray(b"x") * (int(mebibytes) << 20))
    return "hoarded"


_initialised: list[tuple[int, int]] = []


def initialise() -> None:
    _initialised.append((os.getpid(), len(_initialised)))


def is_initialised() -> str:
    return str(bool(_initialised) and _initialised[-1][0] == os.getpid())


# Tasks that are coroutines.


async def loop_thread() -> int:
    await asyncio.sleep(0)
    return threading.get_ident()


async def wait_on_the_loop_for(path: str) -> str:
    while not Path(path).exists():
        await asyncio.sleep(0.002)
    return "seen"


async def clean_up_on_the_loop() -> str:
    try:
        await asyncio.sleep(LONG)
    except SoftTimeLimitExceeded:
        return f"cleaned up, {asyncio.current_task().cancelling()} to cancel"  # type: ignore[union-attr] # a task runs this
    return "never told"


async def refuse_to_be_cancelled(path: str) -> str:
    while not Path(path).exists():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.002)
    return "seen"


async def wait_for_one_who_is_not_cancelled() -> str:
    """Meet the soft limit in spite of somebody who swallows the cancellation."""

    async def swallow() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(LONG)
        return "swallowed"

    try:
        return await asyncio.create_task(swallow())
    except SoftTimeLimitExceeded:
        return "cleaned up"


async def note_the_cancellation(path: str) -> None:
    try:
        await asyncio.sleep(LONG)
    except asyncio.CancelledError:
        Path(path).touch()
        raise


async def raise_on_the_loop(name: str) -> None:
    raise_named(name)


async def leave_behind_what_raises(name: str) -> str:
    loop = asyncio.get_running_loop()
    loop.call_later(0.01, raise_named, name)
    return "left"


_background: list[asyncio.Task[None]] = []


async def leave_a_coroutine_behind(path: str) -> str:
    _background.append(asyncio.create_task(note_the_cancellation(path)))
    return "left"


async def hold_the_loop(path: str) -> str:
    return wait_for(path)
