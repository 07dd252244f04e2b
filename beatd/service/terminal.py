"""The terminal from which a program is run: what it is told there, and that it ends."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TextIO


@dataclass
class Banner:
    """What is said on a terminal, to who has started the program there."""

    terminal: TextIO | None
    """None: nobody looks."""

    @classmethod
    def on_standard_error(cls) -> "Banner":
        """Return the one on standard error, if that is a terminal."""
        stream = sys.__stderr__  # and not what tasks print to
        return cls(stream if stream and stream.isatty() else None)

    def say(self, *lines: str) -> None:
        """Print lines; nothing where nobody looks, or where the terminal has gone."""
        if self.terminal:
            with suppress(OSError, ValueError):
                self.terminal.write("".join(f"{line}\n" for line in lines))
                self.terminal.flush()


@dataclass(frozen=True, slots=True)
class HangUp:
    """What SIGHUP means: reload, or that the terminal that controlled us has gone.

    The kernel takes a terminal that is closed from the processes that it controlled
    before it sends the signal. Who started with SIGHUP ignored (nohup) is to outlive
    its terminal.
    """

    had_terminal: bool = False

    @classmethod
    def of_process(cls) -> "HangUp":
        """Return what it means to this process; asked before it handles the signal."""
        is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        return cls(_has_terminal() and not is_ignored)

    def handler(
        self, stop: Callable[[], object], reload: Callable[[], object]
    ) -> Callable[[], None]:
        """Return what handles the signal, and calls one of these."""

        def handle() -> None:
            stop() if self.had_terminal and not _has_terminal() else reload()

        return handle


def _has_terminal() -> bool:
    """Return whether a terminal controls this process: it is its /dev/tty."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
