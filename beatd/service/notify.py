"""What systemd is told of this process: sd_notify(3), one datagram a message.

All of it does nothing where `$NOTIFY_SOCKET` is not set.
"""

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from beatd.clock import SystemClock, monotonic_microseconds
from beatd.instant import SECOND, Span

STATUS_EVERY: Span = SECOND

PATIENCE: Span = SECOND
"""How long to wait for a manager that has too much unread already."""


@dataclass
class Notify:
    """The service manager's socket, and how often its watchdog expects a message."""

    address: str = ""
    watchdog: Span | None = None
    """Between two pings: half of what the manager waits. None: it does not watch."""
    elapsed: Callable[[], Span] = SystemClock().elapsed
    _pinged_at: Span | None = field(default=None, init=False)
    _status: str = field(default="", init=False)
    _status_at: Span | None = field(default=None, init=False)

    @classmethod
    def from_environment(cls) -> "Notify":
        """Take the manager's variables out of the environment: children have none."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        usec = os.environ.pop("WATCHDOG_USEC", "")
        pid = os.environ.pop("WATCHDOG_PID", "")
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            os.environ.pop(name, None)
        watched = usec.isdigit() and pid in ("", str(os.getpid()))
        return cls(address, int(usec) // 2000 if watched else None)

    def ready(self, status: str) -> None:
        """Say that the service is up, or that a reload is over."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that a reload begins; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_microseconds()}")

    def stopping(self, status: str = "stopping") -> None:
        """Say that the service is on its way out."""
        self._send("STOPPING=1", f"STATUS={status}")

    def extend(self, seconds: int) -> None:
        """Ask for that much more time, while something long goes on."""
        self._send(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000}")

    def alive(self, status: str) -> None:
        """Ping the watchdog when it is time, and tell a status that changed.

        Called by a service's loop and by nothing else: a dead loop must not look alive.
        """
        now = self.elapsed()
        if self.watchdog is not None and (
            self._pinged_at is None or now - self._pinged_at >= self.watchdog
        ):
            self._pinged_at = now
            self._send("WATCHDOG=1")
        if status != self._status and (
            self._status_at is None or now - self._status_at >= STATUS_EVERY
        ):
            self._status, self._status_at = status, now
            self._send(f"STATUS={status}")

    def _send(self, *lines: str) -> None:
        if not self.address:
            return
        # A leading @ stands for the NUL of the abstract name-space.
        address = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        # A manager that does not listen, or not now, is no reason to stop the service.
        with (
            contextlib.suppress(OSError),
            socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
            ) as to,
        ):
            to.settimeout(PATIENCE / SECOND)
            to.connect(address)
            to.send("\n".join(lines).encode())
