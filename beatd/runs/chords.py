"""What else is kept when runs end: chords are counted, and have their bodies sent."""

import logging
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from beatd.brokers.base import Outgoing
from beatd.errors import ChordError, MessageError
from beatd.message import Call, Limits, Signature, read_body, read_envelope
from beatd.results.base import Keeper, State
from beatd.results.chords import Chords, Joined, Part
from beatd.runs.continuations import Sequel, Successors, bodies_in, bodies_of
from beatd.runs.hooks import Hooks
from beatd.runs.report import Aftermath

logger = logging.getLogger(__name__)

LARGEST = 4 * 1024 * 1024
"""Bytes of a body that is decoded here after its run has failed elsewhere.

A larger one may be what the process died of that had it last.
"""


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that failed outside of itself, or never began."""

    state: State
    error: BaseException
    keep: bool
    """Whether its failure is to be kept."""


@dataclass(frozen=True, slots=True)
class Conducted:
    """What follows from what was kept."""

    sends: list[Outgoing]
    joined: list[Joined]
    """Chords to forget once that is sent."""


@dataclass(frozen=True, slots=True)
class Conductor:
    """Keeps the aftermath of runs; called again with the same, it does no more."""

    results: Keeper | None
    successors: Successors
    limits: Limits

    def conduct(self, message: bytes, end: Aftermath | Failed) -> Conducted:
        """Keep what follows from the end of this message's run.

        Raises ResultUnavailable.
        """
        done = Conducted([], [])
        failed = None
        if isinstance(end, Failed):
            failed = call_of(message, self.limits), end
            sequel = self._after_failure(*failed)
            done.sends.extend(sequel.sends)
            end = sequel.aftermath
        self._keep(end)
        # Most parts are not a header's last: nobody needs to know what was to follow.
        call = cache(partial(self._read, message))
        bodies: dict[str, Signature] = {}
        while end.parts:
            end = self._join(end.parts, call, bodies, done)
            self._keep(end)
        if failed:  # after all that may have to be done once more
            self._tell(*failed)
        return Conducted(self.successors.host.made_ready(done.sends), done.joined)

    def forget(self, joined: Sequence[Joined]) -> None:
        """Forget chords whose bodies are sent. Raises ResultUnavailable."""
        if isinstance(self.results, Chords):
            self.results.end_chords(joined)

    def _after_failure(self, call: Call | None, end: Failed) -> Sequel:
        if call is None:
            return Sequel()
        return self.successors.of_failure(call, end.state, end.error, keep=end.keep)

    def _tell(self, call: Call | None, end: Failed) -> None:
        """Have the task's own methods, and who is connected, know of a failure."""
        task = self.successors.host.tasks.get(call.envelope.task) if call else None
        if call and task and end.state == State.FAILURE:
            hooks = Hooks(task, self.successors.request_of(call))
            text = "".join(traceback.format_exception_only(end.error))
            self.successors.apart(partial(hooks.failed, end.error, text))

    def _keep(self, end: Aftermath) -> None:
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
        done: Conducted,
    ) -> Aftermath:
        """Count these, and give what is to be kept because of that."""
        if not isinstance(self.results, Chords):
            return self._refuse(parts, bodies_of(call()), done)
        ends = Aftermath()
        for joined in self.results.join_chords(parts):
            bodies.update(bodies or bodies_of(call()))
            body = bodies[joined.part.task_id]
            # A body that fails may itself be part of a chord.
            bodies.update(bodies_in([body]))
            sequel = self.successors.of_header(joined, body, call().envelope)
            done.sends.extend(sequel.sends)
            done.joined.append(joined)
            ends = _both(ends, sequel.aftermath)
        return ends

    def _refuse(
        self, parts: Sequence[Part], bodies: dict[str, Signature], done: Conducted
    ) -> Aftermath:
        """Fail the bodies of chords that nobody counts."""
        error = ChordError("chords need result_backend at redis://..., or rediss://...")
        stored = []
        for part in parts:
            body = bodies[part.task_id]
            sequel = self.successors.without_body(part.group, body, error)
            done.sends.extend(sequel.sends)
            stored += sequel.aftermath.stored
        return Aftermath(stored)


def call_of(message: bytes, limits: Limits) -> Call | None:
    """Decode a message whose run failed elsewhere; None, and a warning, if not."""
    limits = limits._replace(size=LARGEST)
    try:
        if len(message) > 2 * LARGEST:
            raise MessageError("too large to be looked into")
        return read_body(read_envelope(message, limits), limits)
    except MessageError as error:
        words = "nobody knows what was to follow from a message: %s"
        logger.warning(words, error, extra={"event": "task.unfollowed"})
        return None


def in_a_thread(code: Callable[[], None]) -> None:
    """Have the user's code called where it holds up nobody."""
    threading.Thread(target=code, name="beatd-errback", daemon=True).start()


def _both(one: Aftermath, other: Aftermath) -> Aftermath:
    return Aftermath(
        one.stored + other.stored, one.begun + other.begun, one.parts + other.parts
    )
