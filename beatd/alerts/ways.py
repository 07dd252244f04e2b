"""The ways to tell somebody of an event: each is tried once, for a limited time."""

import http.client
import os
import signal
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import IO, Any, NoReturn

import msgspec

from beatd.background import start_thread
from beatd.clock import SystemClock
from beatd.config.settings import mask, shown_address
from beatd.errors import NoThread
from beatd.instant import SECOND, Span
from beatd.text import one_line
from beatd.version import __version__

MOST_ABANDONED = 8
"""Calls that hang, at most: beyond them none is begun until one of them ends."""

_SHOWN = 300
"""Letters of what a command has printed that are shown, at most."""

_MOST_PRINTED = 1_000_000
"""Bytes of what a command has printed that lie on the disk when that is looked at."""

_LOOK: Span = SECOND // 20
"""How often to look how much a command has printed."""

_OF_THIS_PROCESS = ("NOTIFY_", "WATCHDOG_", "LISTEN_")
"""How variables begin that systemd has for this process alone."""


class NotTold(Exception):
    """Why one try to tell somebody of an event has failed; no secret is in it."""


class Limited:
    """Makes calls in threads of their own; one that hangs is abandoned."""

    def __init__(self) -> None:
        self._abandoned: list[threading.Thread] = []

    def call(self, act: Callable[[], object], timeout: Span) -> None:
        """Do it. Raises NotTold after `timeout`, and for all that `act` raises."""
        self._abandoned = [one for one in self._abandoned if one.is_alive()]
        if len(self._abandoned) >= MOST_ABANDONED:
            raise NotTold(f"{MOST_ABANDONED} earlier calls hang, and none has ended")
        done: SimpleQueue[NotTold | None] = SimpleQueue()

        def run() -> None:
            try:
                act()
            except NotTold as error:
                done.put(error)
            except BaseException as error:  # foreign code, which may raise anything
                done.put(NotTold(f"it raised {_words(error)}"))
            else:
                done.put(None)

        thread = threading.Thread(target=run, name="beatd-alert", daemon=True)
        try:
            start_thread(thread)
            error = done.get(timeout=timeout / SECOND)
        except NoThread as missing:
            raise NotTold(str(missing)) from missing
        except Empty:
            self._abandoned.append(thread)
            words = f"no end within {timeout / SECOND:g} s: it is abandoned"
            raise NotTold(words) from None
        if error is not None:
            raise error


def call_address(url: str, body: str, timeout: Span) -> None:
    """Send a text to an address by POST. Raises NotTold."""
    headers = {
        "User-Agent": f"beatd/{__version__}",
        "Content-Type": "text/plain; charset=utf-8",
    }
    request = urllib.request.Request(url, body.encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout / SECOND) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        error.close()
        _failed(url, f"status {error.code}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        _failed(url, one_line(str(reason)) or type(error).__name__)


def _failed(url: str, why: str) -> NoReturn:
    # Whatever an error says, no part of the address is in it.
    shown = mask(why.replace(url, shown_address(url)))
    raise NotTold(f"{shown_address(url)}: {shown}") from None


def run_command(
    command: tuple[str, ...], told: bytes, variables: Mapping[str, str], timeout: Span
) -> None:
    """Run a command with this on its input. Raises NotTold.

    It has a session of its own: what hangs is killed with all that it has started.
    """
    environment = {
        key: text
        for key, text in os.environ.items()
        if not key.startswith(_OF_THIS_PROCESS)
    }
    try:
        # A file, and no pipe: what the command leaves running may keep it open.
        with tempfile.TemporaryFile() as output:
            _run(command, told, {**environment, **variables}, timeout, output)
    except OSError as error:  # no room for a file, say
        reason = error.strerror or str(error)
        raise NotTold(
            f"{command[0]}: what it prints cannot be kept: {reason}"
        ) from None


def _run(
    command: tuple[str, ...],
    told: bytes,
    environment: Mapping[str, str],
    timeout: Span,
    output: IO[bytes],
) -> None:
    name = command[0]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotTold(f"{name}: it cannot be started: {reason}") from None
    try:
        _wait(process, told, timeout, output)
    except subprocess.TimeoutExpired:
        words = f"{name}: no end within {timeout / SECOND:g} s: it was killed"
        raise NotTold(words) from None
    finally:
        with suppress(ProcessLookupError, PermissionError):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        output.seek(max(output.seek(0, os.SEEK_END) - _SHOWN, 0))
        printed = output.read(_SHOWN).decode(errors="replace").strip()
        more = f": {mask(one_line(printed))}" if printed else ""
        raise NotTold(f"{name}: it ended with {_status(process.returncode)}{more}")


def _wait(
    process: "subprocess.Popen[bytes]", told: bytes, timeout: Span, output: IO[bytes]
) -> None:
    """Wait until a command has ended. Raises TimeoutExpired.

    Of what it prints the file never has much: what was printed before is let go.
    """
    clock, rest = SystemClock(), told
    end = clock.elapsed() + timeout
    while (left := end - clock.elapsed()) > _LOOK:
        try:
            process.communicate(rest, _LOOK / SECOND)
        except subprocess.TimeoutExpired:
            rest = b""  # the first call has it
            if os.fstat(output.fileno()).st_blocks * 512 > _MOST_PRINTED:
                output.truncate(0)  # and where the command goes on stays as it is
        else:
            return
    process.communicate(rest, max(left, 0) / SECOND)


def _status(number: int) -> str:
    return f"status {number}" if number > 0 else f"signal {-number}"


def function_named(name: str) -> Callable[[dict[str, Any]], object]:
    """Import a function by its dotted name. Raises NotTold."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except BaseException as error:  # foreign code, which may raise anything
        raise NotTold(f"{name}: it cannot be imported: {_words(error)}") from None
    if not callable(found):
        raise NotTold(f"{name}: it is no function, but a {type(found).__name__}")
    function: Callable[[dict[str, Any]], object] = found
    return function


def call_function(name: str, told: bytes) -> None:
    """Call a function with an event as a dict. Raises NotTold."""
    function = function_named(name)
    try:
        function(msgspec.json.decode(told))
    except BaseException as error:  # foreign code, which may raise anything
        raise NotTold(f"{name}: it raised {_words(error)}") from None


def _words(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # foreign code again
        text = "no reason given"
    return f"{type(error).__name__}: {mask(one_line(text))}"
