"""The fork servers of a pool: one after the other, each with newer code."""

import selectors
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from beatd.event_log import EventLog
from beatd.pools.prefork.forkserver import ForkServer, ForkServerDied, Starter

tell = EventLog(__name__)


class Listener(Protocol):
    """Is told what becomes of fork servers and of their children."""

    def child_ended(self, number: int, status: int) -> None:
        """Act on the end of a child, with this wait status."""
        ...

    def server_died(self, server: ForkServer, *, was_ready: bool) -> None:
        """Act on the end of a fork server, and with it of all of its children."""
        ...

    def server_replaced(self) -> None:
        """Act on a new fork server, with newer code, from which children come now."""
        ...


class ForkServers:
    """The fork server that new children come from, the next one, and former ones.

    The next fork server loads the code as it is now, and takes the place of the current
    one when it is ready; if it cannot load the code all stays as it is. A former fork
    server stays until its last child has ended.
    """

    def __init__(
        self,
        first: Starter,
        fresh: Starter | None,
        on_renewed: Callable[[bytes], object],
    ) -> None:
        """`fresh` starts the fork servers that load the code anew."""
        self._current = ForkServer(first)
        self._next: ForkServer | None = None
        self._former: list[ForkServer] = []
        self._fresh = fresh
        self._on_renewed = on_renewed

    def open(self) -> None:
        """Start the first fork server."""
        self._current.open()

    def attach(self, selector: selectors.BaseSelector, listener: Listener) -> None:
        """Have the selector watch all fork servers, and tell this listener."""
        self._selector = selector
        self._listener = listener
        self._watch(self._current)

    def ready(self) -> ForkServer | None:
        """Return the fork server that new children come from, if it is ready.

        A fork server that died is started again. Raises OSError if that fails.
        """
        if not self._current.alive:
            self._current.open()
            self._watch(self._current)
        return self._current if self._current.ready else None

    def load_afresh(self) -> None:
        """Have a new interpreter load the code as it is now; meanwhile all goes on."""
        if self._next:
            self._close(self._next)  # the code may have changed since
        assert self._fresh
        self._next = ForkServer(self._fresh)
        try:
            self._next.open()
        except OSError as error:
            self._next = None
            self._keep_current(str(error))
        else:
            self._watch(self._next)

    def close_former(self, needed: Callable[[ForkServer], bool]) -> None:
        """End the former fork servers that are no longer needed."""
        for server in self._former:
            if server.alive and not needed(server):
                self._close(server)
        self._former = [server for server in self._former if server.alive]

    def kill_all(self) -> None:
        """Kill all fork servers, and by that their children."""
        for server in self._alive():
            server.kill_all()

    def close(self) -> None:
        """End all fork servers."""
        for server in self._alive():
            server.close()

    def _alive(self) -> Iterator[ForkServer]:
        known = [*self._former, self._current, self._next]
        return (server for server in known if server and server.alive)

    def _watch(self, server: ForkServer) -> None:
        receive = partial(self._receive, server)
        self._selector.register(server, selectors.EVENT_READ, receive)

    def _close(self, server: ForkServer) -> None:
        self._selector.unregister(server)
        server.close()

    def _receive(self, server: ForkServer, events: int) -> None:
        if not server.alive:
            return  # closed a moment ago
        was_ready = server.ready
        try:
            for number, status in server.gone():
                self._listener.child_ended(number, status)
        except ForkServerDied:
            self._selector.unregister(server)
            self._lose(server, was_ready)
        else:
            if server.ready and not was_ready:
                self._welcome(server)

    def _lose(self, server: ForkServer, was_ready: bool) -> None:
        if server is self._next:  # it has no children yet
            self._next = None
            self._keep_current(server.fault)
        else:
            self._listener.server_died(server, was_ready=was_ready)

    def _welcome(self, server: ForkServer) -> None:
        if server is self._next:
            self._move_to(server)
        if server.about:
            self._on_renewed(server.about)

    def _move_to(self, server: ForkServer) -> None:
        """Have this fork server's children run all jobs that have not begun."""
        self._former.append(self._current)
        self._current, self._next = server, None
        self._listener.server_replaced()
        words = "new processes run what follows, with the code as it is now"
        tell.info("pool.renewed", words)

    def _keep_current(self, why: str) -> None:
        words = "went on with the old code: %s"
        tell.error("pool.kept", words, why)
