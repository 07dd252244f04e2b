"""Running as a program of the system: background, pid file, user, umask."""

import fcntl
import grp
import os
import pwd
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from beatd.errors import ConfigError


def detach(arguments: Sequence[str], executable: str | None) -> None:
    """Start the same command again in the background, and end this process.

    The new process leads a session of its own and has no terminal. It starts from
    scratch, as Celery's does: nothing that was loaded here is carried over.
    """
    python = executable or sys.executable
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.execv(python, [python, "-m", "beatd", *arguments])


@contextmanager
def pid_file(path: Path | None) -> Iterator[None]:
    """Hold `path` with our process id in it; a stale file never blocks a start.

    Held by a kernel lock, which ends with its process. Raises ConfigError while
    another process holds it, or when it cannot be written.
    """
    if path is None:
        yield
        return
    try:
        file = path.open("a+")
    except OSError as error:
        raise ConfigError(str(path), [f"--pidfile: {error.strerror}"]) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            pid = file.read(20).strip() or "unknown"
            problem = f"--pidfile: process {pid} runs and holds it"
            raise ConfigError(str(path), [problem]) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def umask_of(text: str) -> int:
    """Read a umask as Celery does: octal with a leading 0, else decimal."""
    return int(text, 8 if text.startswith("0") else 10)


def become(user: str | None, group: str | None) -> None:
    """Drop to this user and group, given by name or number.

    Raises ConfigError for one that does not exist, or when we may not.
    """
    try:
        gid = _gid(group) if group else None
        if user:
            entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
            gid = entry.pw_gid if gid is None else gid
        if gid is not None:
            os.setgroups([gid])
            os.setgid(gid)
        if user:
            os.setuid(entry.pw_uid)
    except KeyError as error:
        raise ConfigError("--uid, --gid", [f"no such user or group: {error}"]) from None
    except PermissionError as error:
        problem = "only root can change user or group; leave them out, or start as root"
        raise ConfigError("--uid, --gid", [problem]) from error


def _gid(group: str) -> int:
    return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
