"""Stores what follows from the ends of runs besides their results: counts chords."""

import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from beatd.brokers.base import Outgoing
from beatd.errors import ChordError, MessageError
from beatd.event_log import EventLog
from beatd.message import Call, Limits, Signature, read_body, read_envelope
from beatd.results.base import Keeper, State
from beatd.results.chords import Chords, Joined, Part
from beatd.runs.continuations import Continuations, FollowUp, bodies_in, bodies_of
from beatd.runs.hooks import Hooks
from beatd.runs.report import Bookkeeping

tell = EventLog(__name__)

LARGEST = 4 * 1024 * 1024
"""Bytes of the largest body that is decoded here after the run has failed.

A larger body may be the reason why the process of the run ended.
"""


@dataclass(frozen=True, slots=True)
class Failed:
    """The end of a run that never began, or that its process could not report."""

    state: State
    error: BaseException
    keep: bool
    """Whether the failure is to be stored."""
    is_counted: bool = False
    """Whether the chord of which the run is a part has counted its end already."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """Chords whose headers have ended, and whose bodies the broker refuses."""

    joined: Sequence[Joined]
    error: Exception


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is to be done after the storing."""

    sends: list[Outgoing]
    joined: list[Joined]
    """Chords to forget once their bodies are sent."""


@dataclass(frozen=True, slots=True)
class ChordKeeper:
    """Stores what follows from the ends of runs; the same end may come again."""

    results: Keeper | None
    continuations: Continuations
    limits: Limits

    def record_end(
        self, message: bytes, end: Bookkeeping | Failed | Unsent
    ) -> Recorded:
        """Store what follows from the end of this message's run; return what to send.

        Raises ResultUnavailable.
        """
        done = Recorded([], [])
        failed = None
        if isinstance(end, Failed):
            failed = call_of(message, self.limits), end
            follow_up = self._after_failure(*failed)
            done.sends.extend(follow_up.sends)
            end = follow_up.bookkeeping
        # Read only when needed: most parts are not the last of their header.
        call = cache(partial(self._read, message))
        bodies: dict[str, Signature] = {}
        if isinstance(end, Unsent):
            end = self._without_bodies(end, call, bodies, done)
        self._keep(end)
        while end.parts:
            end = self._join(end.parts, call, bodies, done)
            self._keep(end)
        if failed:  # last, as all before may raise, and is then done once more
            self._tell(*failed)
        return Recorded(self.continuations.host.made_ready(done.sends), done.joined)

    def forget(self, joined: Sequence[Joined]) -> None:
        """Forget chords whose bodies are sent. Raises ResultUnavailable."""
        if isinstance(self.results, Chords):
            self.results.end_chords(joined)

    def _after_failure(self, call: Call | None, end: Failed) -> FollowUp:
        if call is None:
            return FollowUp()
        follow_up = self.continuations.of_failure(
            call, end.state, end.error, keep=end.keep
        )
        if end.is_counted:
            parts = follow_up.bookkeeping.parts
            parts[:] = [one for one in parts if one.task_id != call.envelope.id]
        return follow_up

    def _without_bodies(
        self,
        end: Unsent,
        call: Callable[[], Call],
        bodies: dict[str, Signature],
        done: Recorded,
    ) -> Bookkeeping:
        """Return what is to be stored where the bodies of chords are refused."""
        bodies.update(bodies_of(call()))
        ends = Bookkeeping()
        for joined in end.joined:
            body = bodies.get(joined.part.task_id)
            if body is None:
                continue
            bodies.update(bodies_in([body]))
            error = ChordError(str(end.error))
            follow_up = self.continuations.without_body(joined.part.group, body, error)
            done.sends.extend(follow_up.sends)
            done.joined.append(joined)
            ends = _both(ends, follow_up.bookkeeping)
        return ends

    def _tell(self, call: Call | None, end: Failed) -> None:
        """Call the task's hooks, and receivers of signals, after a failure."""
        task = self.continuations.host.tasks.get(call.envelope.task) if call else None
        if call and task and end.state == State.FAILURE:
            hooks = Hooks(task, self.continuations.request_of(call))
            text = "".join(traceback.format_exception_only(end.error))
            self.continuations.apart(partial(hooks.failed, end.error, text))

    def _keep(self, end: Bookkeeping) -> None:
        if self.results and end.stored:
            self.results.store(end.stored)
        if isinstance(self.results, Chords) and end.begun:
            self.results.begin_chords(end.begun)

    def _read(self, message: bytes) -> Call:
        return read_body(read_envelope(message, self.limits), self.limits)

    def _join(
        self,
        parts: Sequence[Part],
        call: Callable[[], Call],
        bodies: dict[str, Signature],
        done: Recorded,
    ) -> Bookkeeping:
        """Count these ends, and return what is to be stored because of that."""
        if not isinstance(self.results, Chords):
            return self._refuse(parts, bodies_of(call()), done)
        ends = Bookkeeping()
        for joined in self.results.join_chords(parts):
            bodies.update(bodies or bodies_of(call()))
            body = bodies[joined.part.task_id]
            # A body that fails may itself be part of a chord.
            bodies.update(bodies_in([body]))
            follow_up = self.continuations.of_header(joined, body, call().envelope)
            done.sends.extend(follow_up.sends)
            done.joined.append(joined)
            ends = _both(ends, follow_up.bookkeeping)
        return ends

    def _refuse(
        self, parts: Sequence[Part], bodies: dict[str, Signature], done: Recorded
    ) -> Bookkeeping:
        """Return the failures of chords' bodies, where no backend counts chords."""
        error = ChordError("chords need result_backend at redis://..., or rediss://...")
        stored = []
        for part in parts:
            body = bodies[part.task_id]
            follow_up = self.continuations.without_body(part.group, body, error)
            done.sends.extend(follow_up.sends)
            stored += follow_up.bookkeeping.stored
        return Bookkeeping(stored)


def call_of(message: bytes, limits: Limits) -> Call | None:
    """Return the call in the message of a run that failed; not in its process.

    Return None, and log a warning, if it cannot be decoded.
    """
    limits = limits._replace(size=LARGEST)
    try:
        if len(message) > 2 * LARGEST:
            raise MessageError("too large to be looked into")
        return read_body(read_envelope(message, limits), limits)
    except MessageError as error:
        words = "nobody knows what was to follow from a message: %s"
        tell.warning("task.unfollowed", words, error)
        return None


def in_a_thread(code: Callable[[], None]) -> None:
    """Call the user's code in a thread of its own, where nothing waits for it."""
    threading.Thread(target=code, name="beatd-errback", daemon=True).start()


def _both(one: Bookkeeping, other: Bookkeeping) -> Bookkeeping:
    return Bookkeeping(
        one.stored + other.stored, one.begun + other.begun, one.parts + other.parts
    )
