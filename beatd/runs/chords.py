"""Stores what follows from the ends of runs besides their results: counts chords."""

import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import msgspec

from beatd.brokers.items import Outgoing
from beatd.errors import ChordError, MessageError, ResultRefused
from beatd.event_log import EventLog
from beatd.message import Call, Chord, Limits, Signature, read_body, read_envelope
from beatd.results.base import Keeper, Meta, State, Stored
from beatd.results.chords import NO_CHORDS, Chords, Joined, Part
from beatd.results.refusals import store_in_short, store_what_is_taken
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

        Raises ResultUnavailable; and ResultRefused, having counted nothing, if a chord
        that the run begins is refused. Only after that the user's code is called, and
        what is odd is logged.
        """
        calls: list[Callable[[], None]] = []
        lines: list[Callable[[], object]] = []
        later = msgspec.structs.replace(
            self.continuations, apart=calls.append, say=lines.append
        )
        recorded = replace(self, continuations=later)._record(message, end)
        for line in lines:
            line()
        for code in calls:
            self.continuations.apart(code)
        return recorded

    def _record(self, message: bytes, end: Bookkeeping | Failed | Unsent) -> Recorded:
        done = Recorded([], [])
        if isinstance(end, Failed):
            failed = call_of(message, self.limits, self.continuations.say)
            follow_up = self._after_failure(failed, end)
            done.sends.extend(follow_up.sends)
            self._begin_or_say(follow_up.bookkeeping.begun)
            self._tell(failed, end)
            end = msgspec.structs.replace(follow_up.bookkeeping, begun=[])
        # Read only when needed: most parts are not the last of their header.
        call = cache(partial(self._read, message))
        bodies: dict[str, Signature] = {}
        if isinstance(end, Unsent):
            parts = [joined.part for joined in end.joined]
            done.joined.extend(end.joined)
            error = ChordError(str(end.error))
            end = self._without_bodies(parts, error, call, bodies, done)
        self._store(end.stored)
        self._begin(end.begun)
        while end.parts:
            end = self._join(end.parts, call, bodies, done)
            self._store(end.stored)
        return Recorded(self.continuations.host.made_ready(done.sends), done.joined)

    def forget(self, joined: Sequence[Joined]) -> None:
        """Forget chords whose bodies are sent. Raises ResultUnavailable."""
        if not isinstance(self.results, Chords):
            return
        try:
            self.results.end_chords(joined)
        except ResultRefused as refusal:
            words = "chords that have ended stay in the back end until they expire: %s"
            tell.warning("chord.left", words, refusal)

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

    def _tell(self, call: Call | None, end: Failed) -> None:
        """Call the task's hooks, and receivers of signals, after a failure."""
        task = self.continuations.host.tasks.get(call.envelope.task) if call else None
        if call and task and end.state == State.FAILURE:
            hooks = Hooks(task, self.continuations.request_of(call))
            text = "".join(traceback.format_exception_only(end.error))
            self.continuations.apart(partial(hooks.failed, end.error, text))

    def _store(self, stored: Sequence[Stored]) -> None:
        if self.results and stored:
            refused = store_what_is_taken(self.results.store, stored)
            for place, reason in refused.items():
                store_in_short(self.results.store, stored[place], reason)

    def _begin(self, chords: Sequence[Chord]) -> None:
        """Begin chords. Raises ResultRefused, a ResultUnavailable."""
        if isinstance(self.results, Chords) and chords:
            self.results.begin_chords(chords)

    def _begin_or_say(self, chords: Sequence[Chord]) -> None:
        """Begin chords whose calls are sent in any case: nothing is left to fail."""
        try:
            self._begin(chords)
        except ResultRefused as refusal:
            words = "chords of errbacks cannot begin, and their bodies do not run: %s"
            self.continuations.say(partial(tell.error, "chord.refused", words, refusal))

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
            return self._without_bodies(
                parts, ChordError(NO_CHORDS), call, bodies, done
            )
        ends = Bookkeeping()
        for part in parts:
            try:
                found = self.results.join_chords([part])
            except ResultRefused as refusal:
                error = ChordError(f"its header cannot be counted: {refusal}")
                more = self._without_bodies([part], error, call, bodies, done)
                ends = _both(ends, more)
                continue
            for joined in found:
                done.joined.append(joined)
                ends = _both(ends, self._after_header(joined, call, bodies, done))
        return ends

    def _after_header(
        self,
        joined: Joined,
        call: Callable[[], Call],
        bodies: dict[str, Signature],
        done: Recorded,
    ) -> Bookkeeping:
        """Add the body of a chord whose header has ended; it may begin other chords."""
        bodies.update(bodies or bodies_of(call()))
        body = bodies[joined.part.task_id]
        # A body that fails may itself be part of a chord.
        bodies.update(bodies_in([body]))
        follow_up = self.continuations.of_header(joined, body, call().envelope)
        ends = follow_up.bookkeeping
        try:
            self._begin(ends.begun)
        except ResultRefused as refusal:
            error = ChordError(f"the chord that it begins is refused: {refusal}")
            return self._without_bodies([joined.part], error, call, bodies, done)
        done.sends.extend(follow_up.sends)
        return Bookkeeping(ends.stored, [], ends.parts)

    def _without_bodies(
        self,
        parts: Sequence[Part],
        error: ChordError,
        call: Callable[[], Call],
        bodies: dict[str, Signature],
        done: Recorded,
    ) -> Bookkeeping:
        """Return what is to be stored where bodies cannot run; `parts` names them."""
        bodies.update(bodies or bodies_of(call()))
        ends = Bookkeeping()
        for part in parts:
            body = bodies.get(part.task_id)
            if body is None:
                continue
            bodies.update(bodies_in([body]))
            if not self._tells(part.group, call().envelope.id):
                follow_up = self.continuations.body_failed(body, error)
                ends = _both(ends, follow_up.bookkeeping)
                continue
            follow_up = self.continuations.without_body(part.group, body, error)
            done.sends.extend(follow_up.sends)
            self._begin_or_say(follow_up.bookkeeping.begun)
            ends = _both(ends, follow_up.bookkeeping)
        return Bookkeeping(ends.stored, [], ends.parts)

    def _tells(self, group: str, run: str) -> bool:
        """Return whether this run's end is to tell that a chord has no body.

        Each end in its header may find that out. The first one tells, also when it
        comes again: a success is final, whoever stores another one.
        """
        if self.results is None:
            return True
        claim = f"{group}.failed"
        claimed = Meta(claim, State.SUCCESS, run)
        store_what_is_taken(self.results.store, [claimed])
        try:
            kept = self.results.load([claim]).get(claim, claimed)
        except MessageError:  # another program's
            return True
        return bool(kept.result == run)


def call_of(
    message: bytes,
    limits: Limits,
    say: Callable[[Callable[[], object]], object] = lambda line: line(),
) -> Call | None:
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
        say(partial(tell.warning, "task.unfollowed", words, error))
        return None


def in_a_thread(code: Callable[[], None]) -> None:
    """Call the user's code in a thread of its own, where nothing waits for it."""
    try:
        threading.Thread(target=code, name="beatd-errback", daemon=True).start()
    except RuntimeError as error:  # no thread is to be had
        words = "an errback, or a hook after a failure, is not called: %s"
        tell.error("errback.uncalled", words, error)


def _both(one: Bookkeeping, other: Bookkeeping) -> Bookkeeping:
    return Bookkeeping(
        one.stored + other.stored, one.begun + other.begun, one.parts + other.parts
    )
