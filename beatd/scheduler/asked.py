"""Questions about results, asked beside the scheduler's loop."""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

from beatd.background import Service
from beatd.clock import Clock
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span

tell = EventLog(__name__)

ASK_AGAIN: Span = SECOND // 2
"""How often to ask about a run that goes on, while somebody wants to know."""

FORGET: Span = 10 * SECOND
"""For how long somebody wants to know who does not ask again."""

PATIENCE: Span = SECOND
"""How long a first answer may take before the run counts as going on."""

SHORTEST_REST: Span = 10
"""Between two questions: what is wanted meanwhile goes into one."""


@dataclass(slots=True)
class _Question:
    """What is wanted of one run, and what is known of it."""

    since: Span
    wanted: Span
    """When somebody asked last."""
    answered: bool = False
    ended: bool = False


class AskedAside:
    """Asks in a thread of its own which runs have ended.

    It answers at once with what it heard last: a result backend that hangs makes nobody
    wait.
    """

    def __init__(
        self,
        ask: Callable[[Collection[str]], Collection[str]],
        wake: Callable[[], object],
        clock: Clock,
    ) -> None:
        """`ask` returns the runs that have ended; `wake` is called after news."""
        self._ask = ask
        self._wake = wake
        self._clock = clock
        self._lock = threading.Lock()
        self._questions: dict[str, _Question] = {}
        self._bell = threading.Event()
        self._closed = False
        """Whether nothing is asked any more."""
        self._service: Service | None = None

    def ended(self, runs: Collection[str]) -> Collection[str]:
        """Return those of these runs that are known to have ended."""
        now = self._clock.elapsed()
        with self._lock:
            questions = {
                run: self._questions.setdefault(run, _Question(now, now))
                for run in runs
            }
            for question in questions.values():
                question.wanted = now
                if not question.answered:
                    self._bell.set()
        if runs and self._service is None and not self._closed:
            self._start()
        # Not looked up again: after a pause of the process, the thread may have
        # forgotten them by now.
        return [run for run, question in questions.items() if question.ended]

    def unanswered(self, runs: Collection[str]) -> Collection[str]:
        """Return those of these runs of which nothing was heard yet, for a moment."""
        if self._closed:
            return ()
        latest = self._clock.elapsed() - PATIENCE
        found = ((run, self._questions.get(run)) for run in runs)
        return [
            run
            for run, question in found
            if question and not question.answered and question.since > latest
        ]

    def turn(self) -> bool:
        """Ask about all that is wanted; return whether that was anything."""
        now = self._clock.elapsed()
        with self._lock:
            self._questions = {
                run: question
                for run, question in self._questions.items()
                if now - question.wanted < FORGET
            }
            asked = [run for run, one in self._questions.items() if not one.ended]
        if not asked:
            return False
        ended = set(self._ask(asked))
        news = False
        with self._lock:
            for run in asked:
                question = self._questions[run]
                news |= not question.answered or run in ended
                question.answered, question.ended = True, run in ended
        if news:
            self._wake()
        return True

    def close(self) -> None:
        """Ask no more; wait a moment for an answer that is on its way."""
        self._closed = True
        self._bell.set()
        if self._service:
            self._service.join(PATIENCE)

    def _start(self) -> None:
        # Not earlier: a worker's pool may still fork in this process.
        self._service = Service(self._step)
        try:
            self._service.start("beatd-ended", self._crashed)
        except RuntimeError as error:  # no thread is to be had
            self._crashed(error)

    def _step(self) -> Span | None:
        """Wait for a question, or until it is time to ask again; then ask."""
        self._bell.wait(ASK_AGAIN / SECOND if self._questions else None)
        self._bell.clear()
        if self._closed:
            return None
        began = self._clock.elapsed()
        self.turn()
        return max(SHORTEST_REST, self._clock.elapsed() - began)

    def _crashed(self, error: BaseException) -> None:
        self._closed = True
        tell.error(
            "results.unasked",
            "results are asked no more whether runs have ended: overlap rules count on"
            " the broker and on overlap_timeout until beatd is started again",
            exc_info=error,
        )
