"""Running as a program of the system: background, pid file, user, umask."""

import grp
import os
import posix
import pwd
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from beatd.errors import ConfigError

if TYPE_CHECKING:
    from beatd.storage.file_lock import FileLock

_PID = re.compile(r"\d{1,20}\s*", re.ASCII)
"""What is in a pid file."""

_PATIENCE = 20, 0.05
"""How often, and with how many seconds between, to look who holds a left-over pid file:
who has just locked it writes its own number a moment later."""

_TELLER = "BEATD_DETACHED"
"""What a process in the background finds in its environment: a descriptor by which it
tells that it has begun."""


@dataclass(slots=True)
class _Start:
    """How this process came to be."""

    folder: Path
    """Where the command was given."""
    environment: Mapping[str, str]
    teller: int | None = None

    @classmethod
    def from_environment(cls) -> "_Start":
        descriptor = os.environ.pop(
            _TELLER, None
        )  # for us, and not for what tasks start
        if descriptor is not None:
            os.set_inheritable(int(descriptor), False)
        teller = None if descriptor is None else int(descriptor)
        return cls(Path.cwd(), dict(os.environ), teller)


_start = _Start(Path(), dict(os.environ))


def remember_start() -> None:
    """Take note of where and how the command was given, before anything changes it."""
    global _start
    _start = _Start.from_environment()


def first_environment() -> Mapping[str, str]:
    """Return the environment before any module of the user's has changed it."""
    return _start.environment


def wants_detaching(detach: bool | None) -> bool:
    """Return whether this process is in the foreground, and is not to stay there."""
    return bool(detach) and _start.teller is None


def detach(executable: str | None) -> NoReturn:
    """Start the same command again in the background, and end this process.

    The new process has no terminal and leads no session. It starts from scratch, as
    Celery's does: nothing that was loaded here is carried over. This process ends when
    the new one has begun (`begun`), or with its status if it ends before that; until
    then both write to the same place.
    """
    # Not by the functions of `os`, in place of which gevent may have put its own.
    pid = posix.fork()
    if pid:
        _, status = posix.waitpid(pid, 0)
        os._exit(_status_of(status))
    os.setsid()
    listener, teller = os.pipe()
    pid = posix.fork()
    if pid == 0:
        _start_again(executable or sys.executable, teller)
    os.close(teller)
    if os.read(listener, 1):
        os._exit(os.EX_OK)
    _, status = posix.waitpid(pid, 0)
    os._exit(_status_of(status))


def _start_again(python: str, teller: int) -> NoReturn:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.set_inheritable(teller, True)
    environ = {**os.environ, _TELLER: str(teller)}
    try:
        os.chdir(_start.folder)  # --workdir counts from there
        os.execvpe(python, [python, *sys.orig_argv[1:]], environ)
    except OSError as error:
        sys.stderr.write(f"error: cannot start {python}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(os.EX_CONFIG)


def _status_of(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def begun() -> None:
    """Let go of whoever waits for this process to be in the background.

    What it prints from now on goes nowhere. Nothing to a process that is not.
    """
    teller, _start.teller = _start.teller, None
    if teller is None:
        return
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream:
            stream.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    with suppress(OSError):  # it did not wait
        os.write(teller, b"\n")
    os.close(teller)


@contextmanager
def pid_file(path: Path | None) -> Iterator[None]:
    """Hold `path` with our process id in it; a stale file never blocks a start.

    Held by a kernel lock, which ends with its process. Raises ConfigError while
    another process holds it, when it cannot be written, and for what is not a pid
    file, which is left as it is.
    """
    if path is None:
        yield
        return
    lock = _taken(path)
    try:
        yield
    finally:
        lock.remove()


def _taken(path: Path) -> "FileLock":
    """Return the lock of a pid file that is ours now. Raises ConfigError."""
    # `beatd --help` has no use for these.
    from beatd.event_log import EventLog
    from beatd.storage.file_lock import FileLock
    from beatd.storage.folders import why_not

    lock = FileLock(path, mode=0o644, before="", ours=_PID)
    words = f"{os.getpid()}\n"
    try:
        if lock.try_lock(words):
            return lock
        # Whoever may read a file may lock it: only who is named in it is in the way.
        if not _may_live(lock.holder()):
            guard = FileLock(path.with_name(f".{path.name}.start"))
            if _made_anew(lock, guard, words):
                EventLog(__name__).warning(
                    "pidfile.left",
                    "%s was left over, and locked by a process that did not write it:"
                    " it was made anew",
                    path,
                )
                return lock
    except OSError as error:
        raise ConfigError(str(path), [f"--pidfile: {why_not(path, error)}"]) from error
    problem = f"--pidfile: process {lock.holder() or 'unknown'} runs and holds it"
    raise ConfigError(str(path), [problem])


def _made_anew(lock: "FileLock", guard: "FileLock", words: str) -> bool:
    """Take a left-over pid file that somebody else locks; False if another start did.

    Raises OSError.
    """
    from threading import Event  # `beatd --help` has no use for it

    if not guard.try_lock(words):
        return False
    looks, pause = _PATIENCE
    try:
        # Asked again, under the guard: another start may have been quicker.
        for _ in range(looks):
            if lock.try_lock(words):
                return True
            if _may_live(lock.holder()):
                return False
            Event().wait(pause)
        if not _is_locked_by_one_we_see(lock.path):
            return False
        lock.path.unlink()
        return lock.try_lock(words)
    finally:
        guard.remove()


def _is_locked_by_one_we_see(path: Path) -> bool:
    """Return whether Linux shows us a process that locks the file.

    A process of another container or host is not shown, and its number says nothing
    here: it may be the one that is named in the file. Raises OSError.
    """
    # Not by the device as well: Btrfs has another number there than stat().
    inode = f":{path.stat().st_ino} "
    try:
        return inode in Path("/proc/locks").read_text(encoding="ascii")
    except FileNotFoundError:
        return False


def _may_live(pid: str) -> bool:
    """Return whether the process with this number may run; True for what is none."""
    if not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def umask_of(text: str) -> int:
    """Read a umask as Celery does: octal with a leading 0, else decimal.

    Raises ConfigError for what is none.
    """
    try:
        mask = int(text, 8 if text.startswith("0") else 10)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777:
        expected = "expected octal with a leading 0, as 022, or decimal, as 18"
        raise ConfigError("--umask", [f"{expected}; got {text!r}"])
    return mask


def become(user: str | None, group: str | None) -> None:
    """Drop to this user and group, given by name or number.

    A user comes with the groups that it is a member of. Raises ConfigError for one that
    does not exist, and when we may not.
    """
    uid, gid, name = _identity(user, group)
    if gid is None or (uid in (None, os.geteuid()) and gid == os.getegid()):
        return
    try:
        os.setgid(gid)
        os.initgroups(name, gid) if name else os.setgroups([gid])
        if uid is not None:
            os.setuid(uid)
    except PermissionError as error:
        problem = "only root can change user or group; leave them out, or start as root"
        raise ConfigError("--uid, --gid", [problem]) from error


_LARGEST = 2**32 - 2
"""The largest number of a user or a group: the next one stands for none (chown(2))."""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_too_large(text: str) -> bool:
    # Not to be read at all: Python makes no numbers of thousands of digits.
    digits = text.lstrip("0")
    is_long = len(digits) > len(str(_LARGEST))
    return _is_number(text) and (is_long or int(digits or "0") > _LARGEST)


def _identity(
    user: str | None, group: str | None
) -> tuple[int | None, int | None, str | None]:
    """Return user, group and the user's name; a user never comes without a group."""
    named = " and ".join(ascii(one) for one in (user, group) if one is not None)
    if "" in (user, group):
        # Not as good as none: who asks for a user must not go on as root.
        problem = "expected a name or a number, got an empty text"
        raise ConfigError("--uid, --gid", [problem])
    if any(one and _is_too_large(one) for one in (user, group)):
        problem = f"expected numbers up to {_LARGEST}, got {named}"
        raise ConfigError("--uid, --gid", [problem])
    try:
        gid = None
        if group:
            gid = int(group) if _is_number(group) else grp.getgrnam(group).gr_gid
        if not user:
            return None, gid, None
        entry = pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(user)
    except (KeyError, ValueError):  # ValueError: what no name can be
        if user and _is_number(user) and gid is not None:
            return int(user), gid, None  # as in a container that knows no names
        problem = f"no such user or group: {named}"
        raise ConfigError("--uid, --gid", [problem]) from None
    return entry.pw_uid, entry.pw_gid if gid is None else gid, entry.pw_name
