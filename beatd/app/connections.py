"""Connections of one process: to the broker, and to the result backend."""

import threading
from collections.abc import Sequence
from functools import cached_property

from beatd import brokers, results
from beatd.app.client_results import ClientResults
from beatd.app.shapes import CallShapes
from beatd.background import Faults
from beatd.brokers.base import Broadcast, SendingBroker
from beatd.config import loading as config
from beatd.config.settings import Settings
from beatd.errors import ChordError
from beatd.events.event import EventFactory
from beatd.message import Chord
from beatd.results.base import ResultBackend
from beatd.results.chords import NO_CHORDS, Chords
from beatd.routing import Queue


class Connections:
    """The broker and the result backend; a forked process opens its own."""

    def __init__(
        self,
        settings: Settings,
        broker: SendingBroker | None = None,
        backend: ResultBackend | None = None,
    ) -> None:
        self.settings = settings
        self.format = config.message_format(settings)
        self.router = config.router(settings)
        self.shapes = CallShapes(self.format, self.router)
        self._broker = broker
        self._backend = backend
        self.refused_events = Faults()
        self._declared: set[str] = set()
        self._lock = threading.Lock()

    def by(self, settings: Settings) -> "Connections":
        """Return the same connections, with other settings."""
        return Connections(settings, self._broker, self._backend)

    @property
    def broker(self) -> SendingBroker:
        """Return the broker to publish to, connected when it is first asked for."""
        with self._lock:
            if self._broker is None:
                settings = self.settings
                limits = {
                    "max_connections": settings.broker_pool_limit,
                    "timeout": settings.broker_pool_acquire_timeout,
                }
                urls = settings.write_urls
                self._broker = brokers.of_settings(settings, urls, limits)
            return self._broker

    @cached_property
    def event_factory(self) -> EventFactory | None:
        """Return the factory of events for monitors; None if the settings want none."""
        wanted = self.settings.task_send_sent_event
        if not (wanted and isinstance(self.broker, Broadcast)):
            return None
        return EventFactory(self.format.origin, self.settings)

    @property
    def backend(self) -> ResultBackend:
        """Return the result backend, connected when it is first asked for."""
        with self._lock:
            if self._backend is None:
                self._backend = results.connect(self.settings)
            return self._backend

    @cached_property
    def results(self) -> ClientResults:
        """Return the results of runs."""
        return ClientResults(self.settings, lambda: self.backend)

    def begin_chords(self, chords: Sequence[Chord]) -> None:
        """Expect the ends of these headers, whose calls are about to be sent.

        Raises ChordError if the result back end counts no chords, ResultUnavailable.
        """
        if not isinstance(self.backend, Chords):
            raise ChordError(NO_CHORDS)
        self.backend.begin_chords(chords)

    def declare(self, queue: Queue) -> None:
        """Declare a queue, the first time."""
        if queue.name not in self._declared:
            self.broker.declare([queue])
            self._declared.add(queue.name)

    def close(self) -> None:
        """Close the connections that were made here."""
        if self._broker is not None:
            self._broker.close()
        if self._backend is not None:
            self._backend.close()
