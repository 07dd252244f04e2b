"""The process between a worker and a command: it ends the command with the worker.

A worker runs this file, for each command, in a new interpreter with nothing but its
standard library, as `python -I -S command_guard.py FD PROGRAM ARGUMENT...`. FD is a
socket, whose other end the worker's process has:

    to the worker    b"started 123"   the command runs, in a process group of this id
                     b"error 2"       it cannot be started, by this number of an error
                     b"status 256"    it has ended, with this wait status
    from the worker  its end          end the command; also when the worker is killed

What the command has started in its own group ends with it. Asked to end it, the guard
sends the group SIGTERM, and SIGKILL when something of it is left after GRACE seconds.
"""

import os
import select
import signal
import sys
from contextlib import suppress

GRACE = 5.0
"""Shorter than the lease of a worker that was killed: a command does not run twice at
the same time."""

LOOK = 0.1
"""Seconds between two looks at a group that was told to end: nothing announces when
those are gone that are not children of this process."""

_DEFAULT = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE,
    signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXFSZ,
)  # fmt: skip
"""Signals that the command does not find ignored, whatever its worker does."""


def main(control: int, command: list[str]) -> None:
    """Start the command, and say how it ended."""
    os.set_inheritable(control, False)
    woken, waker = os.pipe()
    for end in (woken, waker):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        group = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            setpgroup=0,
            setsigdef=_DEFAULT,
            setsigmask=(),
        )
    except OSError as error:
        _say(control, f"error {error.errno}")
        return
    # Only the command has these, so that the worker sees when it closes them.
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    _say(control, f"started {group}")
    ends_by_itself = _await(group, control, woken)
    status = _killed(group) if ends_by_itself else _ended(group)
    if status is not None:
        _say(control, f"status {status}")


def _await(group: int, control: int, woken: int) -> bool:
    """Return whether the command has ended by itself, and is still to be reaped."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(woken, select.POLLIN)
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while os.waitid(os.P_PID, group, how) is None:
        ready = dict(poll.poll())
        if control in ready:
            return False
        with suppress(BlockingIOError):
            os.read(woken, 512)
    return True


def _killed(group: int) -> int | None:
    """Kill what is left of a group whose command has ended; return its status.

    As long as the command is not reaped no other process can have its id.
    """
    _send(group, signal.SIGKILL)
    return _reaped(group)


def _ended(group: int) -> int | None:
    """End a group, by force if it must be; return the status of its command."""
    _send(group, signal.SIGTERM)
    status = _gone(group, None)
    if _is_alive(group):
        _send(group, signal.SIGKILL)
        status = _gone(group, status)
    return status


def _gone(group: int, status: int | None) -> int | None:
    """Wait until nothing of the group is left, or GRACE is over."""
    poll = select.poll()
    for _ in range(round(GRACE / LOOK)):
        status = _reaped(group) if status is None else status
        if not _is_alive(group):
            break
        poll.poll(LOOK * 1000)
    return status


def _reaped(group: int) -> int | None:
    with suppress(ChildProcessError):
        pid, status = os.waitpid(group, os.WNOHANG)
        if pid:
            return status
    return None


def _is_alive(group: int) -> bool:
    return _send(group, 0)


def _send(group: int, number: int) -> bool:
    """Send a signal to the group; return whether there is one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs as another user: `sudo`
        return True
    return True


def _say(control: int, words: str) -> None:
    with suppress(OSError):  # the worker is dead
        os.write(control, f"{words}\n".encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
