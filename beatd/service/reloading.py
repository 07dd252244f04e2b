"""Configs are loaded again beside the scheduler's loop, which goes on meanwhile."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

from beatd.background import OnCrash, Service
from beatd.config.faults import raised
from beatd.errors import ConfigError
from beatd.instant import Span
from beatd.service.rereading import Taken


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config that was loaded again, or why it cannot be used."""

    config: Taken | None
    waits: Sequence[str] = ()
    """Settings that differ, and wait for a restart."""
    problem: str = ""


class ConfigLoader:
    """Loads the config again when asked, in a thread of its own.

    That may take longer than a lead lives: the user's modules are run by it. What is
    asked while a config loads is done after it, once.
    """

    def __init__(
        self,
        load: Callable[[], Taken],
        needs_restart: Callable[[Taken], Sequence[str]],
        on_begin: Callable[[], object],
        on_loaded: Callable[[], object],
    ) -> None:
        """`on_begin` and `on_loaded` are called in the thread; `take` comes next.

        Until `done` no other loading begins.
        """
        self._load = load
        self._needs_restart = needs_restart
        self._on_begin = on_begin
        self._on_loaded = on_loaded
        self._asked: SimpleQueue[bool] = SimpleQueue()
        """True for each question, False at the end."""
        self._loaded: SimpleQueue[Loaded] = SimpleQueue()
        self._done: SimpleQueue[bool] = SimpleQueue()
        self._service = Service(self._step, partial(self._asked.put, False))

    def start(self, on_crash: OnCrash) -> None:
        """Begin to load what is asked for, or was already."""
        self._service.start("beatd-config", on_crash)

    def ask(self) -> None:
        """Have the config loaded; a signal handler may call this."""
        self._asked.put(True)

    def take(self) -> Loaded:
        """Return what was loaded; called once after each `on_loaded`."""
        return self._loaded.get_nowait()

    def done(self) -> None:
        """Say that what was taken is in use, and that this reload has ended."""
        self._done.put(True)

    def leave(self) -> None:
        """Load no more; nobody waits for a config that loads now."""
        self._service.leave()

    def _step(self) -> Span | None:
        if not self._asked.get():
            return None
        with suppress(Empty):
            while self._asked.get_nowait():
                pass
        self._on_begin()
        self._loaded.put(self._load_now())
        self._on_loaded()
        # One reload ends before the next one is said to begin.
        self._done.get()
        return 0

    def _load_now(self) -> Loaded:
        try:
            config = self._load()
            return Loaded(config, self._needs_restart(config))
        except ConfigError as error:
            return Loaded(None, problem=str(error))
        except BaseException as error:
            # Foreign code, which may raise anything; Ctrl-C comes as a signal's Wake.
            return Loaded(None, problem=str(raised(error, "")))
