"""Results of runs for clients: asked for again, cached, with their tracebacks."""

import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from beatd.clock import Clock, SystemClock
from beatd.config.settings import Settings
from beatd.errors import ResultRefused, ResultUnavailable
from beatd.instant import SECOND, Span
from beatd.results.base import Meta, ResultBackend, State
from beatd.results.exceptions import with_traceback

T = TypeVar("T")

DOUBLINGS = 32
"""Doublings far beyond any longest pause; more would only make huge numbers."""


class ClientResults:
    """The result backend, as the settings have clients use it; for all threads.

    `backend` returns it, connected. `rest` waits for a number of seconds.
    """

    def __init__(
        self,
        settings: Settings,
        backend: Callable[[], ResultBackend],
        clock: Clock | None = None,
        rest: Callable[[float], object] = lambda pause: threading.Event().wait(pause),
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._clock = clock or SystemClock()
        self._rest = rest
        self._known = _Known(settings.result_cache_max)

    def load(self, task_id: str) -> Meta | None:
        """Return what is known of a run, if anything is."""
        known = self._known.get(task_id)
        if known is not None:
            return known
        found = self._ask(lambda backend: backend.load([task_id]))
        return self._seen(found.get(task_id))

    def wait(self, task_id: str, timeout: Span | None) -> Meta | None:
        """Return what is known of a run once it has ended; None after `timeout`."""
        known = self._known.get(task_id)
        if known is not None:
            return known
        end = None if timeout is None else self._clock.elapsed() + timeout

        def wait(backend: ResultBackend) -> Meta | None:
            left = None if end is None else max(end - self._clock.elapsed(), 0)
            return backend.wait(task_id, left)

        return self._seen(self._ask(wait, end))

    def store(self, meta: Meta) -> None:
        """Store this of a run. Raises ResultUnavailable, or ResultRefused at once."""
        self._ask(lambda backend: backend.store([meta]))

    def forget(self, task_id: str) -> None:
        """Remove what is stored of a run."""
        self._known.forget(task_id)
        self._ask(lambda backend: backend.forget(task_id))

    def save_group(self, group_id: str, members: Any) -> None:
        """Store the ids of a group's runs."""
        self._ask(lambda backend: backend.save_group(group_id, members))

    def load_group(self, group_id: str) -> Any:
        """Return the ids of a group's runs, or None."""
        return self._ask(lambda backend: backend.load_group(group_id))

    def forget_group(self, group_id: str) -> None:
        """Remove the ids of a group's runs."""
        self._ask(lambda backend: backend.forget_group(group_id))

    def explained(self, meta: Meta) -> Meta:
        """Attach the traceback to the run's exception, if the settings ask for that."""
        if self._settings.task_remote_tracebacks:
            with_traceback(meta.result, meta.traceback)
        return meta

    def _seen(self, meta: Meta | None) -> Meta | None:
        if meta is None:
            return None
        if meta.status == State.SUCCESS:  # the one state that is final
            self._known.add(meta)
        return self.explained(meta)

    def _ask(self, request: Callable[[ResultBackend], T], end: Span | None = None) -> T:
        """Ask the backend, and again as the settings say, until `end`."""
        pauses = self._pauses()
        while True:
            try:
                return request(self._backend())
            except ResultRefused:
                raise  # it would be refused again
            except ResultUnavailable:
                pause = next(pauses, None)
                left = None if end is None else end - self._clock.elapsed()
                if pause is None or (left is not None and left <= 0):
                    raise
                self._rest(pause if left is None else min(pause, left / SECOND))

    def _pauses(self) -> Iterator[float]:
        """Yield the seconds before each further try, drawn as Celery draws them."""
        settings = self._settings
        if not settings.result_backend_always_retry or settings.result_url is None:
            return
        tries = 0
        while tries < settings.result_backend_max_retries:
            tries += 1
            longest = min(
                settings.result_backend_max_sleep_between_retries_ms,
                settings.result_backend_base_sleep_between_retries_ms
                * 2 ** min(tries, DOUBLINGS),
            )
            yield random.randint(0, longest) / 1000


class _Known:
    """The metas that were seen last, at most `limit` of them (0: all, -1: none)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._metas: OrderedDict[str, Meta] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, task_id: str) -> Meta | None:
        with self._lock:
            if task_id in self._metas:
                self._metas.move_to_end(task_id)
            return self._metas.get(task_id)

    def add(self, meta: Meta) -> None:
        if self._limit < 0:
            return
        with self._lock:
            self._metas[meta.task_id] = meta
            if 0 < self._limit < len(self._metas):
                self._metas.popitem(last=False)

    def forget(self, task_id: str) -> None:
        with self._lock:
            self._metas.pop(task_id, None)
