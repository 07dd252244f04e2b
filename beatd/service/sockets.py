"""Where a program listens for questions: sockets of its own, or from systemd."""

import os
import socket
import stat
from collections.abc import Callable, Collection, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from beatd.errors import ConfigError
from beatd.event_log import EventLog
from beatd.text import quoted

tell = EventLog(__name__)

LONGEST_PATH = 107
"""Bytes that the path of a Unix socket may have."""

MODE = 0o660

_BACKLOG = 128

_TAKEN = "another process listens at"

_UNASKED = "`beatd status` cannot ask this scheduler: %s"

_OTHER_ASKED = (
    "`beatd status` asks the other scheduler with this schedule file, at %s: give this"
    " one a file of its own (--schedule-filename) to ask it, too"
)

_FIRST_PASSED = 3
"""The descriptor of the first socket that systemd passes."""

LOOPBACK = "127.0.0.1"


class Listener(Protocol):
    """A place at which to listen."""

    def sockets(self) -> Sequence[socket.socket]:
        """Return what to accept connections from just now.

        Called again and again: what could not be had is tried anew. Never raises.
        """
        ...

    def close(self) -> None:
        """Listen no more, and leave nothing behind."""
        ...


def passed_by(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the sockets that the service manager has passed to this very process.

    The variables that say so are taken out of the environment: children have none.
    """
    pid, number = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not number.isdecimal():
        return []
    found = []
    for descriptor in range(_FIRST_PASSED, _FIRST_PASSED + int(number)):
        try:
            os.set_inheritable(descriptor, False)
            one = socket.socket(fileno=descriptor)
            if one.type != socket.SOCK_STREAM:
                raise OSError("it is no stream socket")
        except OSError as error:
            words = "socket %d of those that were passed cannot be used: %s"
            tell.error("socket.passed", words, descriptor, error)
            continue
        one.setblocking(False)
        found.append(one)
    return found


class Passed:
    """Sockets that the service manager has made, and keeps."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = sockets

    def sockets(self) -> Sequence[socket.socket]:
        return self._sockets

    def close(self) -> None:
        for one in self._sockets:
            one.close()


@dataclass
class TCPListener:
    """A TCP socket at one address."""

    host: str
    port: int
    _socket: socket.socket | None = field(default=None, init=False)
    _said: str = field(default="", init=False)

    @classmethod
    def of(cls, address: str) -> "TCPListener":
        """Return the one at `host:port`; a port alone is that of the loopback.

        Raises ConfigError.
        """
        host, _, port = address.rpartition(":")
        is_bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if is_bracketed else host
        is_port = port.isdecimal() and len(port) <= 5 and int(port) < 2**16
        if not is_port or (":" in host) != is_bracketed or not host.isascii():
            text = "expected an address as 127.0.0.1:9540, [::1]:9540 or 9540"
            raise ConfigError("--http", [f"{text}, got {quoted(address)}"])
        return cls(host or LOOPBACK, int(port))

    def sockets(self) -> Sequence[socket.socket]:
        if self._socket is None:
            try:
                self._socket = self._listen()
            except (OSError, UnicodeError) as error:  # the latter: no name of a host
                self._say(str(getattr(error, "strerror", None) or error))
            else:
                self._say("")
                at = self._socket.getsockname()
                words = "HTTP at %s port %d: /livez, /readyz, /metrics"
                tell.info("http.listen", words, at[0], at[1], host=at[0], port=at[1])
        return [self._socket] if self._socket else []

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    def _listen(self) -> socket.socket:
        kind = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        made = socket.create_server(
            (self.host, self.port), family=kind, backlog=_BACKLOG
        )
        made.setblocking(False)
        return made

    def _say(self, problem: str) -> None:
        if problem and problem != self._said:
            tell.error(
                "http.unbound",
                "cannot listen at %s port %d: %s; it is tried again",
                self.host,
                self.port,
                problem,
            )
        self._said = problem


@dataclass
class UnixListener:
    """A Unix socket at a path, which whoever has the place by right may take.

    What is left there by a process that has ended is replaced, in one step; where
    another one listens, the place is its own until it goes.
    """

    path: Path
    _socket: socket.socket | None = field(default=None, init=False)
    _identity: tuple[int, int] | None = field(default=None, init=False)
    _said: str = field(default="", init=False)

    def sockets(self) -> Sequence[socket.socket]:
        if self._socket is not None and not self._is_ours():
            self._socket.close()
            self._socket = None
        if self._socket is None:
            problem = self._try_to_listen()
            if problem != self._said:
                self._said = problem
                if problem.startswith(_TAKEN):
                    # Another scheduler of the same file is what it should be.
                    tell.info("socket.unbound", _OTHER_ASKED, self.path)
                elif problem:
                    tell.warning("socket.unbound", _UNASKED, problem)
        return [self._socket] if self._socket else []

    def close(self) -> None:
        if self._socket is None:
            return
        with suppress(OSError):
            if self._is_ours():
                self.path.unlink()
        self._socket.close()
        self._socket = None

    def _try_to_listen(self) -> str:
        """Take the place, if it is free; return why not."""
        if len(os.fsencode(self.path)) > LONGEST_PATH:
            return (
                f"the path {self.path} has more than {LONGEST_PATH} bytes, which no"
                " socket's may have; --schedule-filename names a shorter one"
            )
        try:
            if problem := self._taken():
                return problem
            self._socket = self._listen()
        except OSError as error:
            return f"{self.path}: {error.strerror or error}"
        return ""

    def _taken(self) -> str:
        """Return why the place is not to be taken; empty if it is free."""
        if problem := _not_ours(self.path):
            return problem
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(1)
            try:
                asking.connect(str(self.path))
            except (ConnectionRefusedError, FileNotFoundError):
                return ""  # whoever listened there has ended
        return f"{_TAKEN} {self.path}"

    def _listen(self) -> socket.socket:
        own = self.path.with_name(f".{os.getpid()}.sock")
        made = socket.socket(socket.AF_UNIX)
        try:
            _remove_if(stat.S_ISSOCK, own)
            made.bind(str(own))
            own.chmod(MODE)  # before anybody can connect
            made.listen(_BACKLOG)
            made.setblocking(False)
            own.replace(self.path)
        except BaseException:  # whatever it is, it goes on up
            made.close()
            with suppress(OSError):
                _remove_if(stat.S_ISSOCK, own)
            raise
        self._identity = _identity_of(self.path)
        return made

    def _is_ours(self) -> bool:
        return _identity_of(self.path) == self._identity


class Link:
    """A name that leads to a socket which lies elsewhere."""

    def __init__(self, path: Path, to: Path) -> None:
        self._path = path
        self._to = to.absolute()
        self._said = ""

    def sockets(self) -> Sequence[socket.socket]:
        try:
            problem = "" if self._is_there() else self._make()
        except OSError as error:
            problem = f"{self._path}: {error.strerror or error}"
        if problem and problem != self._said:
            tell.warning("socket.unbound", _UNASKED, problem)
        self._said = problem
        return ()

    def close(self) -> None:
        with suppress(OSError):
            if self._is_there():
                self._path.unlink()

    def _is_there(self) -> bool:
        return self._path.is_symlink() and self._path.readlink() == self._to

    def _make(self) -> str:
        """Make the link, if its place is free; return why not."""
        if problem := _not_ours(self._path):
            return problem
        own = self._path.with_name(f".{os.getpid()}.link")
        _remove_if(stat.S_ISLNK, own)
        own.symlink_to(self._to)
        own.replace(self._path)
        return ""


def _not_ours(path: Path) -> str:
    """Return why a place is left as it is: no scheduler's socket or link is there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return ""
    is_ours = stat.S_ISSOCK(mode) or stat.S_ISLNK(mode)
    return "" if is_ours else f"{path} is no socket, and left as it is"


def _remove_if(is_kind: Callable[[int], bool], path: Path) -> None:
    """Remove what an earlier process of our number left there; leave all else."""
    with suppress(FileNotFoundError):
        if is_kind(path.lstat().st_mode):
            path.unlink()


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def beside(schedule_file: Path) -> Path:
    """Return where people look for the socket of the scheduler of a schedule file."""
    return schedule_file.with_name(f"{schedule_file.name}.sock")


def listeners_of(
    schedule_file: Path,
    http: Collection[str],
    passed: Sequence[socket.socket],
    runtime_directory: str | None,
) -> list[Listener]:
    """Return where a scheduler listens; `http` are addresses.

    Raises ConfigError for an odd one.
    """
    found: list[Listener] = [Passed(passed)] if passed else []
    place = beside(schedule_file)
    if named := [one for one in passed if one.family == socket.AF_UNIX]:
        found.append(Link(place, Path(str(named[0].getsockname()))))
    elif runtime_directory:
        # systemd may name several, with colons between them.
        path = Path(runtime_directory.partition(":")[0], "beatd.sock")
        found += [UnixListener(path), Link(place, path)]
    else:
        found.append(UnixListener(place))
    return [*found, *map(TCPListener.of, http)]
