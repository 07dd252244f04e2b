"""A process that has imported some modules, and becomes others by forks of itself.

    python stem.py SOCKET MODULE...

It imports nothing else of the tests: what it becomes starts and ends as `python -m`
does, and only has the imports behind it. `tests/preloaded.py` asks.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

LENGTH = struct.Struct("!I")

INTERRUPTED = -signal.SIGINT
"""The status of a program that Ctrl-C has ended, and that did not expect it."""

STREAMS = 3
"""Descriptors 0, 1 and 2 come with each request; one more hears of the end."""


def main() -> None:
    """Import the modules, and fork for each request; go on in each fork."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    if request := _fork_for_each(control):
        _become(**request)


def _fork_for_each(control: socket.socket) -> dict[str, Any] | None:
    """Return, in each fork, what is asked of it; None: nobody is there to ask."""
    listeners: dict[int, int] = {}
    waker, wakes = socket.socketpair()
    for one in (waker, wakes):
        one.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(waker, selectors.EVENT_READ)
    while True:
        ready = [key.fileobj for key, _ in selector.select()]
        if waker in ready:
            waker.recv(4096)
            _tell_of_ends(listeners)
        if control not in ready:
            continue
        start, descriptors, *_ = socket.recv_fds(control, LENGTH.size, STREAMS + 1)
        if not start:
            return None
        (length,) = LENGTH.unpack(start)
        request: dict[str, Any] = json.loads(_exactly(control, length))
        *streams, listener = descriptors
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            selector.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            for one in (control, waker, wakes):
                one.close()
            for descriptor in (*descriptors, *listeners.values()):
                os.close(descriptor)
            return request
        listeners[child] = listener
        for stream in streams:
            os.close(stream)
        if request["leads_group"]:
            os.setpgid(child, child)
        control.sendall(LENGTH.pack(child))


def _exactly(control: socket.socket, length: int) -> bytes:
    found = b""
    while len(found) < length:
        found += control.recv(length - len(found))
    return found


def _tell_of_ends(listeners: dict[int, int]) -> None:
    while listeners:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        listener = listeners.pop(child)
        os.write(listener, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(listener)


def _become(
    module: str, words: list[str], cwd: str, env: dict[str, str], leads_group: bool
) -> NoReturn:
    if leads_group:
        os.setpgid(0, 0)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    own = sys.path[0]
    paths = [one for one in env.get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.path[:] = [cwd, *paths, *(one for one in sys.path if one not in (own, *paths))]
    sys.argv = [module, *words]
    sys.orig_argv[:] = [sys.executable, "-m", *sys.argv]
    importlib.invalidate_caches()
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = _status_of(end)
    except BaseException as error:
        traceback.print_exc()
        status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    # As an interpreter ends, which then takes each object apart: most of its time.
    threading._shutdown()  # type: ignore[attr-defined]  # nothing public
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        file.flush()
    if status == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status)


def _status_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    print(end.code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
