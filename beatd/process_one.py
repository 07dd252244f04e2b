"""Process 1 of a container: waits for every process that nobody else waits for.

Whose parent has ended becomes a child of process 1, as what a task leaves running does.
A program that waits for its own children only would keep each of them as a zombie until
no process can be started any more. So process 1 does nothing else, and the program is
its child.
"""

import os
import signal
from contextlib import suppress

_PASSED_ON = {
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP),
    *(signal.SIGUSR1, signal.SIGUSR2),
}

_OF_A_TERMINAL = 0x80
"""`si_code` of a signal that the kernel sends: to the program as well, by itself."""


def stay_behind() -> None:
    """Return in a child, which is to be the program; end with its status.

    Signals are passed on to it. To be called before there are threads.
    """
    awaited = {*_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    program = os.fork()
    if not program:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _take_over()
        return
    while True:
        came = signal.sigwaitinfo(awaited)
        if came.si_signo == signal.SIGCHLD:
            status = _reaped(program)
            if status is not None:
                os._exit(status)
        elif came.si_code != _OF_A_TERMINAL:
            with suppress(ProcessLookupError):
                os.kill(program, came.si_signo)


def _take_over() -> None:
    """Let what a service manager says to process 1 be said to this one."""
    for name in ("LISTEN_PID", "WATCHDOG_PID"):
        if os.environ.get(name) == str(os.getppid()):
            os.environ[name] = str(os.getpid())


def _reaped(program: int) -> int | None:
    """Wait for all that have ended; return the program's exit status if it is one."""
    found = None
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid == program:
                code = os.waitstatus_to_exitcode(status)
                found = code if code >= 0 else 128 - code
    return found
