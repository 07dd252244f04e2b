"""The process from which all children of a pool are forked.

Forking a process that has threads copies locks that nobody will ever release. So one
process is forked early, before there are threads and connections, with all task modules
imported. It does nothing but fork children when it is asked to, end them, and tell how
they ended. A stream socket joins it to the pool; what goes over it are fixed records:

    to the nursery    b"f" number 0         fork child `number`; carries its channel
                                            and the reading end of its claims
                      b"k" number signal    send it this signal
    from the nursery  b"g" number status    it is gone, with this wait status

When the socket ends, the pool's process is dead: the nursery kills its children and
ends. When the nursery dies, the kernel kills them (on Linux; elsewhere they end when
they next have something to say).
"""

import ctypes
import gc
import logging
import os
import select
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NoReturn, TypeAlias

logger = logging.getLogger(__name__)

Life: TypeAlias = Callable[[socket.socket, int], object]
"""All that a child does; it is given its end of the channel, and of its claims."""

_RECORD = struct.Struct("!cIi")
_FORK, _KILL, _GONE = b"f", b"k", b"g"

_GROUP_SIGNALS = (
    signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM,
    signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
"""What people, terminals and service managers send, often to all processes at once."""

_TO_GROUPS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
"""What terminals, `timeout` and service managers send to a whole group: it is meant for
the worker's main process, which lets its children finish. So a child that is to end by
one of them alone is killed."""

_OF_THE_SERVICE = (
    "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
    "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
)  # fmt: skip
"""What systemd says to the main process, and to no other."""

_PR_SET_PDEATHSIG = 1


class NurseryDied(Exception):
    """The nursery is gone, and its children with it."""


class Nursery:
    """The pool's end: ask for children, hear of their ends."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self.alive = False

    def open(self) -> None:
        """Fork the nursery, for the first time or after it died."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what is left in the buffer would be printed twice
        self._control, theirs = socket.socketpair()
        with theirs, warnings.catch_warnings():
            # A process with threads forks only when a nursery was killed and has to be
            # replaced, or when whoever started the pool had no choice.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
            if self._pid == 0:
                self._control.close()
                _live_and_end(lambda: _Tending(theirs, self._life).run())
        self._heard = bytearray()
        self.alive = True

    def fileno(self) -> int:
        """Is readable when `gone` has something to give."""
        return self._control.fileno()

    def fork(self, number: int, claims: int) -> socket.socket:
        """Have a child forked; give our end of its channel."""
        ours, theirs = socket.socketpair()
        with theirs, suppress(OSError):  # a dead nursery is found by `gone`
            record = _RECORD.pack(_FORK, number, 0)
            socket.send_fds(self._control, [record], [theirs.fileno(), claims])
        return ours

    def kill(self, number: int, signum: int = signal.SIGKILL) -> None:
        """Kill this child, or send it another signal, unless it is gone already."""
        with suppress(OSError):
            self._control.sendall(_RECORD.pack(_KILL, number, signum))

    def gone(self) -> Iterator[tuple[int, int]]:
        """Give number and wait status of children that ended; does not wait for any.

        Raises NurseryDied.
        """
        try:
            received = self._control.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self.close()
            raise NurseryDied
        self._heard += received
        while len(self._heard) >= _RECORD.size:
            _, number, status = _RECORD.unpack(self._heard[: _RECORD.size])
            del self._heard[: _RECORD.size]
            yield number, status

    def close(self) -> None:
        """End the nursery, and children if there are any."""
        self.alive = False
        self._control.close()
        with suppress(ChildProcessError):  # somebody waited for any process
            os.waitpid(self._pid, 0)


def _live_and_end(life: Callable[[], object]) -> NoReturn:
    """Do `life` and end the process, whatever happens: the stack above is a copy."""
    status = os.EX_SOFTWARE
    try:
        life()
        status = os.EX_OK
    except (BrokenPipeError, ConnectionResetError):
        pass  # the pool's process is dead: nobody is there to care
    except BaseException:
        words = "a process of the pool failed"
        logger.critical(words, exc_info=True, extra={"event": "pool.failed"})
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


class _Tending:
    """The nursery's end: forks children, buries them, until the pool's process ends."""

    def __init__(self, control: socket.socket, life: Life) -> None:
        self._control = control
        self._life = life
        self._numbers: dict[int, int] = {}  # by process id
        self._bell, self._clapper = socket.socketpair()
        self._bell.setblocking(False)
        self._clapper.setblocking(False)

    def run(self) -> None:
        for name in _OF_THE_SERVICE:
            os.environ.pop(name, None)
        self._attend_to_signals()
        # What exists now is shared with all children: a collection that touches it
        # would copy its pages.
        gc.collect()
        gc.freeze()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if self._bell.fileno() in ready:
                    self._bury()
                if self._control.fileno() in ready and not self._obey():
                    return
        finally:
            for pid in self._numbers:
                os.kill(pid, signal.SIGKILL)

    def _attend_to_signals(self) -> None:
        """Outlive what is sent to a whole group; hear the bell when a child ends."""
        for number in _GROUP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._clapper.fileno())

    def _bury(self) -> None:
        self._bell.recv(4096)
        with suppress(ChildProcessError):  # none is left
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                self._tell_gone(self._numbers.pop(pid), status)

    def _obey(self) -> bool:
        """Do one thing that is asked for; False when nobody is left to ask."""
        record, fds, _, _ = socket.recv_fds(
            self._control, _RECORD.size, 2, socket.MSG_WAITALL
        )
        if not record:
            return False
        verb, number, signum = _RECORD.unpack(record)
        if verb == _FORK:
            channel, claims = fds
            with socket.socket(fileno=channel) as theirs:
                self._fork(number, theirs, claims)
            os.close(claims)
        else:
            how = signal.SIGKILL if signum in _TO_GROUPS else signum
            for pid in [pid for pid, n in self._numbers.items() if n == number]:
                os.kill(pid, how)
        return True

    def _fork(self, number: int, channel: socket.socket, claims: int) -> None:
        nursery = os.getpid()
        try:
            pid = os.fork()
        except OSError:  # no memory, too many processes: the pool will ask again
            self._tell_gone(number, os.EX_OSERR << 8)
            return
        if pid == 0:
            _live_and_end(lambda: self._be_a_child(nursery, channel, claims))
        self._numbers[pid] = number

    def _be_a_child(self, nursery: int, channel: socket.socket, claims: int) -> None:
        _reset_signals()
        _die_with(nursery)
        for inherited in (self._control, self._bell, self._clapper):
            inherited.close()
        # A task that reads must not take what is typed for the worker.
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        channel.set_inheritable(False)
        os.set_inheritable(claims, False)
        self._life(channel, claims)

    def _tell_gone(self, number: int, status: int) -> None:
        self._control.sendall(_RECORD.pack(_GONE, number, status))


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (*_GROUP_SIGNALS, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    child = os.getpid()

    def outlive(number: int, frame: object) -> None:
        if os.getpid() != child:  # the process of a task's own, which forked
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    # Not SIG_IGN, which programs that a task starts would inherit.
    for number in _TO_GROUPS:
        signal.signal(number, outlive)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies, in whatever it is doing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel knew
            os._exit(os.EX_UNAVAILABLE)
