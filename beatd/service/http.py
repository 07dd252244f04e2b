"""A small HTTP server for questions: one thread, and nobody can keep it waiting."""

import selectors
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

from beatd.background import Faults, OnCrash, Service
from beatd.clock import Clock
from beatd.errors import ConfigError
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span
from beatd.service.sockets import Listener
from beatd.text import counted

tell = EventLog(__name__)

MOST_AT_ONCE = 64
"""Connections; whoever comes beside these takes the place of the oldest."""

LONGEST_REQUEST = 8 * 1024

PATIENCE: Span = 5 * SECOND
"""How long a client may take, from the connection to the end of its answer."""

_LOOK: Span = 5 * SECOND
"""How often sockets are looked after that could not be had, or were taken away."""

_NAP: Span = SECOND // 50
"""How often to ask again for an answer that is in the making."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is answered."""

    status: str
    """Number and words: `200 OK`."""
    body: bytes
    kind: str = "application/json"


Respond: TypeAlias = Callable[[str, Span], Answer | None]
"""Returns the answer for a path, to a client that has waited for so long.

None: it is in the making, ask again. Never waits, never raises.
"""

WELL, ILL = "200 OK", "503 Service Unavailable"

WITHOUT_EXTRA = Answer(
    "501 Not Implemented",
    b"metrics need the package prometheus-client: pip install 'beatd[metrics]'\n",
    "text/plain",
)
BAD = Answer("400 Bad Request", b"this is no request of HTTP\n", "text/plain")
TOO_LARGE = Answer(
    "431 Request Header Fields Too Large", b"the request is too large\n", "text/plain"
)
NO_METHOD = Answer(
    "405 Method Not Allowed", b"only GET and HEAD are answered\n", "text/plain"
)


@dataclass(slots=True)
class _Client:
    """One connection: a request comes in, an answer goes out, and that is all."""

    socket: socket.socket
    since: Span
    request: bytearray = field(default_factory=bytearray)
    path: str | None = None
    """What is asked for, once that is known."""
    is_head: bool = False
    answer: memoryview | None = None
    """What is still to be sent."""


class Server:
    """Answers questions at all listeners, in a thread of its own.

    No client is waited for: each has its own state, and is cut off after a time.
    """

    def __init__(
        self, listeners: Sequence[Listener], respond: Respond, clock: Clock
    ) -> None:
        self._listeners = listeners
        self._respond = respond
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._accepting: dict[int, socket.socket] = {}
        self._clients: dict[int, _Client] = {}
        self._look_at: Span | None = None
        self._faults = Faults(clock)
        self._waker, self._wakened = socket.socketpair()
        self._wakened.setblocking(False)
        self._selector.register(self._wakened, selectors.EVENT_READ)
        self._service = Service(self._step, self._wake)

    def start(self, on_crash: OnCrash) -> None:
        """Begin to listen and to answer."""
        self._service.start("beatd-http", on_crash)

    def stop(self, patience: Span = SECOND) -> None:
        """Answer no more, and leave the places at which this listened."""
        self._service.leave()
        self._service.join(patience)
        for listener in self._listeners:
            listener.close()
        for client in [*self._clients.values()]:
            self._end(client)
        self._selector.close()
        self._waker.close()
        self._wakened.close()

    def _wake(self) -> None:
        with suppress(OSError):
            self._waker.send(b"x")

    def _step(self) -> Span:
        self._look_after_sockets()
        is_asking = any(
            one.path is not None and one.answer is None
            for one in self._clients.values()
        )
        longest = _NAP if is_asking else SECOND if self._clients else _LOOK
        for key, _ in self._selector.select(longest / SECOND):
            number = key.fd
            if number in self._accepting:
                self._accept(self._accepting[number])
            elif client := self._clients.get(number):
                self._serve(client)
            else:
                with suppress(OSError):
                    self._wakened.recv(64)
        self._go_on()
        return 0

    def _look_after_sockets(self) -> None:
        now = self._clock.elapsed()
        if self._look_at is not None and now < self._look_at:
            return
        self._look_at = now + _LOOK
        wanted = {
            one.fileno(): one
            for listener in self._listeners
            for one in listener.sockets()
        }
        for number, one in [*self._accepting.items()]:
            if wanted.get(number) is not one:  # another one may have its number by now
                del self._accepting[number]
                with suppress(KeyError, ValueError, OSError):
                    self._selector.unregister(one)
        for number in wanted.keys() - self._accepting.keys():
            self._selector.register(wanted[number], selectors.EVENT_READ)
            self._accepting[number] = wanted[number]

    def _accept(self, listening: socket.socket) -> None:
        if len(self._clients) >= MOST_AT_ONCE:
            self._end(min(self._clients.values(), key=lambda one: one.since))
        with suppress(OSError):  # it has hung up, or no descriptor is left
            connected, _ = listening.accept()
            connected.setblocking(False)
            client = _Client(connected, self._clock.elapsed())
            self._clients[connected.fileno()] = client
            self._selector.register(connected, selectors.EVENT_READ)

    def _serve(self, client: _Client) -> None:
        try:
            if client.answer is not None:
                self._send(client)
            elif not self._receive(client):
                self._end(client)
        except BlockingIOError:
            pass
        except OSError:
            self._end(client)

    def _receive(self, client: _Client) -> bool:
        """Take what has come; return False when the client has hung up."""
        came = client.socket.recv(LONGEST_REQUEST + 1)
        if not came:
            return False
        if client.path is not None:
            return True  # what follows a request is passed over
        client.request += came
        head, end, _ = bytes(client.request).partition(b"\r\n\r\n")
        if not end and len(client.request) <= LONGEST_REQUEST:
            return True
        if len(head) > LONGEST_REQUEST:
            self._answer(client, TOO_LARGE)
            return True
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        target, _, version = rest.rpartition(b" ")
        try:
            path = urlsplit(target.decode("ascii")).path
        except ValueError:
            path = ""
        if not path.startswith("/") or not version.startswith(b"HTTP/1."):
            self._answer(client, BAD)
        elif method not in (b"GET", b"HEAD"):
            self._answer(client, NO_METHOD)
        else:
            client.path, client.is_head = path, method == b"HEAD"
        return True

    def _go_on(self) -> None:
        """Ask for answers, and cut off who takes too long."""
        now = self._clock.elapsed()
        for client in [*self._clients.values()]:
            waited = now - client.since
            if client.path is not None and client.answer is None:
                found = self._found(client.path, waited)
                if found is not None:
                    self._answer(client, found)
            if waited >= PATIENCE:
                self._end(client)

    def _found(self, path: str, waited: Span) -> Answer | None:
        try:
            return self._respond(path, waited)
        except Exception as error:
            # A question about the scheduler must not end it; it may come each second.
            if number := self._faults.meet():
                words = "%s cannot be answered (%s): %r"
                tell.exception(
                    "http.failed", words, path, counted(number, "time"), error
                )
            return Answer("500 Internal Server Error", b"see the log\n", "text/plain")

    def _answer(self, client: _Client, answer: Answer) -> None:
        head = (
            f"HTTP/1.1 {answer.status}\r\nContent-Type: {answer.kind}\r\n"
            f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n"
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n"
        )
        body = b"" if client.is_head else answer.body
        client.answer = memoryview(head.encode() + body)
        client.path = client.path or "/"
        self._selector.modify(client.socket, selectors.EVENT_WRITE)

    def _send(self, client: _Client) -> None:
        assert client.answer is not None
        sent = client.socket.send(client.answer)
        client.answer = client.answer[sent:]
        if not client.answer:
            self._end(client)

    def _end(self, client: _Client) -> None:
        number = client.socket.fileno()
        if self._clients.pop(number, None):
            with suppress(KeyError, ValueError, OSError):
                self._selector.unregister(client.socket)
            with suppress(OSError):
                client.socket.shutdown(socket.SHUT_WR)
            client.socket.close()


def say_ended(error: BaseException) -> None:
    """Say that the thread which answers questions has ended."""
    if isinstance(error, ConfigError):
        return  # the loop ends by the same error, which says all
    words = "questions about this process are not answered any more: %r"
    tell.error("http.ended", words, error, exc_info=error)
