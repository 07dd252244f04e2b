"""Whether a scheduler runs with a schedule file, and what it answers."""

import getpass
import grp
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from beatd.cli.output import Failure
from beatd.cli.usage import UNAVAILABLE
from beatd.instant import SECOND, Span
from beatd.service.sockets import LONGEST_PATH, beside
from beatd.storage.file_lock import FileLock
from beatd.text import escaped

PATIENCE: Span = 3 * SECOND
"""How long to wait for an answer; the scheduler has one at hand within a second."""

_LARGEST = 16 * 1024 * 1024


class NoAnswer(Exception):
    """Somebody has the socket and does not answer, or answers what is no HTTP."""


class _Unasked(Failure):
    """A scheduler runs, and this user may not ask it."""

    exit_code = UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Answered:
    """What a scheduler has answered."""

    well: bool
    body: bytes


class _Life(msgspec.Struct):
    """What `/livez` says."""

    pid: int
    host: str
    role: str
    loop_age: float


def ask(schedule_file: Path, path: str, patience: Span = PATIENCE) -> Answered | None:
    """Ask the scheduler of a schedule file; None: nobody listens.

    Raises NoAnswer, and Failure for a socket that is not for this user.
    """
    place = _place_of(schedule_file)
    if len(str(place).encode(errors="surrogateescape")) > LONGEST_PATH:
        return None
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(patience / SECOND)
            asking.connect(str(place))
            asking.sendall(f"GET {path} HTTP/1.1\r\nHost: beatd\r\n\r\n".encode())
            came = bytearray()
            while part := asking.recv(64 * 1024):
                came += part
                if len(came) > _LARGEST:
                    raise NoAnswer("the answer has no end")
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise _Unasked(_forbidden(place)) from error
    except TimeoutError as error:
        seconds = patience / SECOND
        raise NoAnswer(f"it has not answered for {seconds:.0f} s") from error
    except BlockingIOError as error:
        raise NoAnswer("very many others wait for its answer") from error
    except OSError as error:
        raise NoAnswer(error.strerror or str(error)) from error
    head, end, body = bytes(came).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not end or len(words) < 3 or not words[0].startswith(b"HTTP/"):
        raise NoAnswer("what it answers is no HTTP")
    return Answered(words[1] == b"200", body)


def who_runs(schedule_file: Path) -> str:
    """Return in words which scheduler runs with a schedule file; empty if none does."""
    try:
        answer = ask(schedule_file, "/livez", SECOND)
    except NoAnswer as error:
        return f"a scheduler has its socket: {error}"
    except Failure:
        return "a scheduler runs; its socket is not for this user"
    if answer is not None:
        with suppress(ValueError):
            life = msgspec.json.decode(answer.body, type=_Life)
            lasts = "" if answer.well else f", its loop hangs for {life.loop_age:.0f} s"
            who = f"pid {life.pid} on {escaped(life.host)}"
            return f"scheduler {who} ({escaped(life.role)}{lasts})"
    return who_leads_with(schedule_file)


def who_leads_with(schedule_file: Path) -> str:
    """Return in words which scheduler has the lock of a schedule file; empty if none.

    Its process holds that lock, whether or not it can be asked.
    """
    lock = FileLock(schedule_file.with_name(f"{schedule_file.name}.lock"))
    with suppress(OSError):  # it is not for this user: nothing can be told
        if not lock.is_free():
            return f"scheduler {escaped(lock.holder()) or 'of another process'}"
    return ""


def _place_of(schedule_file: Path) -> Path:
    """Return where the scheduler listens: a path of few bytes, if there is one."""
    place = beside(schedule_file)
    with suppress(OSError):
        return place.readlink()
    return place


def _forbidden(place: Path) -> str:
    lines = [f"cannot ask the scheduler ({place}: permission denied)"]
    try:
        group = grp.getgrgid(place.stat().st_gid).gr_name
        user = getpass.getuser()
    except (OSError, KeyError):  # not even its folder is for this user
        lines.append("try: sudo beatd status")
    else:
        lines.append(f"you are {user!r}; the socket belongs to group {group!r}")
        lines.append(f"try: sudo beatd status   or: sudo usermod -aG {group} {user}")
    return "\n  ".join(lines)
