"""The code of a fork server, the process from which a pool's children are forked.

It forks children on request, sends them signals, and reports how they ended; nothing
else happens in it. Records of fixed length go over the socket between it and the pool:

    from the server  b"r" length 0         it is ready to fork children; so many bytes
                                           follow, with what it tells of its code
                     b"x" length 0         it cannot load the code; so many bytes
                                           follow, with the reason
    to the server    b"f" number place     fork child `number`; its channel and the
                                           reading end of its claims come along
                     b"k" number signal    send child `number` this signal
    from the server  b"g" number status    child `number` ended, with this wait status

When the socket ends, the pool's process is dead: the fork server kills its children and
ends. When the fork server dies, the kernel kills them (on Linux; on other systems they
end when they next send something).
"""

import ctypes
import gc
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn, TypeAlias

from beatd.event_log import EventLog
from beatd.pools.prefork import places

tell = EventLog(__name__)

RunChild: TypeAlias = Callable[[socket.socket, int], object]
"""Runs a child, given its end of the channel and the reading end of its claims."""

RECORD = struct.Struct("!cIi")
READY, UNFIT, FORK, KILL, GONE = b"r", b"x", b"f", b"k", b"g"

GROUP_SIGNALS = (
    signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM,
    signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
"""Signals of people, terminals and service managers, often sent to many processes."""

_TO_GROUPS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
"""Signals that terminals, `timeout` and service managers send to a whole group. They
are meant for the worker's main process, which lets its children finish, so children
outlive them. A child that is to end by one of them is sent SIGKILL instead."""

OF_THE_SERVICE = (
    "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
    "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
)  # fmt: skip
"""The variables by which systemd speaks to the main process, and to no other."""

_PR_SET_PDEATHSIG = 1


def serve(control: socket.socket, run_child: RunChild, about: bytes = b"") -> NoReturn:
    """Run the fork server at this end of the socket, then end this process.

    `about` is what to tell the pool of the code that children run.
    """
    _run_and_end(lambda: Server(control, run_child, about).run())


def refuse(control: socket.socket, why: str, status: int) -> NoReturn:
    """Tell the pool why there can be no fork server, and end this process.

    It ends at once, even if the modules that it imported have started threads.
    """

    def say() -> None:
        words = why.encode(errors="replace")
        control.sendall(RECORD.pack(UNFIT, len(words), 0) + words)

    _run_and_end(say, status)


def outlive_group_signals() -> None:
    """Ignore the signals that are often sent to a whole group."""
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _run_and_end(work: Callable[[], object], ending: int = os.EX_OK) -> NoReturn:
    """Do `work` and end the process, whatever happens: never return to the caller."""
    status = os.EX_SOFTWARE
    try:
        work()
        status = ending
    except (BrokenPipeError, ConnectionResetError):
        pass  # the pool's process is dead
    except BaseException:  # with the log, and not with a traceback
        words = "a process of the pool failed"
        tell.critical("pool.failed", words, exc_info=True)
    finally:
        with suppress(Exception):  # a task may have put anything there
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


class Server:
    """Forks children and reaps them until the pool's process ends."""

    def __init__(
        self, control: socket.socket, run_child: RunChild, about: bytes
    ) -> None:
        self._control = control
        self._run = run_child
        self._about = about
        self._numbers: dict[int, int] = {}  # by process id
        self._poll = select.poll()
        self._unsent = bytearray()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def run(self) -> None:
        for name in OF_THE_SERVICE:
            os.environ.pop(name, None)
        self._attend_to_signals()
        # What exists now is shared with all children: a collection that touches it
        # would copy its pages.
        gc.collect()
        gc.freeze()
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)
        self._say(RECORD.pack(READY, len(self._about), 0) + self._about)
        try:
            while True:
                ready = dict(self._poll.poll())
                if self._woken.fileno() in ready:
                    self._reap()
                events = ready.get(self._control.fileno(), 0)
                if events & select.POLLOUT:
                    self._send()
                if events & ~select.POLLOUT and not self._execute():
                    return
        finally:
            # The signals of their ends may come after the socket for them is closed.
            signal.set_wakeup_fd(-1)
            for pid in self._numbers:
                os.kill(pid, signal.SIGKILL)

    def _attend_to_signals(self) -> None:
        """Ignore signals to the whole group; wake up when a child ends."""
        outlive_group_signals()
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def _reap(self) -> None:
        self._woken.recv(4096)
        with suppress(ChildProcessError):  # none is left
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                # Not found: a program that a module has started, no child of the pool.
                number = self._numbers.pop(pid, None)
                if number is not None:
                    self._tell_gone(number, status)

    def _execute(self) -> bool:
        """Execute one request of the pool; return False when the pool is gone."""
        record, fds, _, _ = socket.recv_fds(
            self._control, RECORD.size, 2, socket.MSG_WAITALL
        )
        if not record:
            return False
        verb, number, argument = RECORD.unpack(record)
        if verb == FORK:
            self._fork(number, argument, fds)
            for fd in fds:
                os.close(fd)
        else:
            how = signal.SIGKILL if argument in _TO_GROUPS else argument
            for pid in [pid for pid, n in self._numbers.items() if n == number]:
                os.kill(pid, how)
        return True

    def _fork(self, number: int, place: int, fds: Sequence[int]) -> None:
        server = os.getpid()
        try:
            channel, claims = fds  # ValueError: there was no room for them
            pid = os.fork()
        except (ValueError, OSError):  # files, memory, processes: the pool asks again
            self._tell_gone(number, os.EX_OSERR << 8)
            return
        if pid == 0:
            places.take(place)
            _run_and_end(lambda: self._become_child(server, channel, claims))
        self._numbers[pid] = number

    def _become_child(self, server: int, channel: int, claims: int) -> None:
        _reset_signals()
        _die_with(server)
        for inherited in (self._control, self._woken, self._waker):
            inherited.close()
        # A task that reads must not take what is typed for the worker.
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        for fd in (channel, claims):
            os.set_inheritable(fd, False)
        self._run(socket.socket(fileno=channel), claims)

    def _tell_gone(self, number: int, status: int) -> None:
        self._say(RECORD.pack(GONE, number, status))

    def _say(self, words: bytes) -> None:
        self._unsent += words
        self._send()

    def _send(self) -> None:
        """Write what the socket takes now, and the rest when it takes more.

        The pool does not read while it sends a request: if this process waited to send,
        both could wait for ever.
        """
        with suppress(BlockingIOError):
            while self._unsent:
                sent = self._control.send(self._unsent, socket.MSG_DONTWAIT)
                del self._unsent[:sent]
        more = select.POLLOUT if self._unsent else 0
        self._poll.modify(self._control, select.POLLIN | more)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (*GROUP_SIGNALS, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    child = os.getpid()

    def outlive(number: int, frame: object) -> None:
        if os.getpid() != child:  # a process that a task has forked
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    # Not SIG_IGN, which programs that a task starts would inherit.
    for number in _TO_GROUPS:
        signal.signal(number, outlive)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel knew
            os._exit(os.EX_UNAVAILABLE)
