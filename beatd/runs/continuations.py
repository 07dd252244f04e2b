"""What follows from the end of a run, besides the run's own result.

After a success the run's callbacks are sent, and the next step of its chain. After a
failure its errbacks are called, and the later steps of its chain fail as well. The end
of a run in the header of a chord counts for the chord in both cases; with the last end
the body is sent, or fails if any run of the header has failed.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from beatd.bounds import LARGEST
from beatd.brokers.items import Outgoing
from beatd.clock import Clock
from beatd.errors import ChordError, MessageError
from beatd.event_log import EventLog
from beatd.ids import call_id
from beatd.instant import datetime_of
from beatd.message import (
    Call,
    Canvas,
    Envelope,
    Sending,
    Signature,
    awaited,
    doomed,
    gathered,
    linked_to,
)
from beatd.message.envelope import is_name
from beatd.message.options import is_signature
from beatd.results.base import PROPAGATE_STATES, Meta, State
from beatd.results.chords import Joined, Part, values_of
from beatd.results.encoding import Encoding
from beatd.results.exceptions import repr_of
from beatd.runs.errbacks import call_errback, errbacks_of, wants_exception
from beatd.runs.host import Host
from beatd.runs.report import Bookkeeping, ignores_result
from beatd.tasks import Request
from beatd.text import one_line, quoted

tell = EventLog(__name__)


class FollowUp(msgspec.Struct, frozen=True):
    """All that follows from the end of a run."""

    sends: list[Outgoing] = msgspec.field(default_factory=list)
    bookkeeping: Bookkeeping = msgspec.field(default_factory=Bookkeeping)
    children: list[Any] = msgspec.field(default_factory=list)
    """The runs of what is sent, in the form that results have."""

    def add(self, canvas: Canvas, sends: Iterable[Outgoing]) -> None:
        """Add the calls of a canvas, encoded in `sends`, with its chords and runs."""
        self.sends.extend(sends)
        self.bookkeeping.begun.extend(canvas.chords)
        self.children.extend(canvas.results)


class Continuations(msgspec.Struct, frozen=True):
    """Finds out what follows from the ends of runs."""

    host: Host
    encoding: Encoding | None
    """None: no results are kept, and there are no chords."""
    hostname: str
    clock: Clock
    apart: Callable[[Callable[[], None]], object] = lambda code: code()
    """Calls code of the user, where it may take long."""
    say: Callable[[Callable[[], object]], object] = lambda line: line()
    """Logs a line about what follows: at once, or when all of it is stored."""

    def of_success(self, call: Call, value: Any) -> FollowUp:
        """Return what follows when a call has returned this value.

        Raises MessageError if a call that is to get the value cannot be encoded.
        """
        if not (call.callbacks or call.chain or call.chord):
            return FollowUp()
        canvas = self._canvas(call.envelope)
        for callback in call.callbacks or ():
            canvas.add(callback, (value,))
        if call.chain:
            *rest, step = call.chain
            canvas.add(step, (value,), chain=rest)
        follow_up = self._follow_up(canvas)
        follow_up.bookkeeping.parts.extend(self._own_part(call, State.SUCCESS, value))
        return follow_up

    def of_failure(
        self,
        call: Call,
        state: State,
        error: BaseException,
        traceback: str | None = None,
        *,
        keep: bool = True,
    ) -> FollowUp:
        """Return what follows when a call has failed, or will not run.

        With `keep`, a failure is stored for each step of its chain that will not run.
        """
        follow_up = FollowUp()
        if state == State.FAILURE:
            request = self.request_of(call)
            self._call_errbacks(
                follow_up, call.errbacks or (), request, error, traceback
            )
        follow_up.bookkeeping.parts.extend(self._own_part(call, state, error))
        self._fail(follow_up, call.chain or (), state, error, traceback, keep=keep)
        return follow_up

    def of_replacement(self, call: Call, replacement: Signature) -> FollowUp:
        """Return what follows when a signature takes the place of this call.

        All that was to follow from the call follows from it. A group's values are
        gathered by a call that has the id, as in Celery.
        """
        envelope = call.envelope
        canvas = Canvas(
            self._new_id, root_id=envelope.root_id or envelope.id, parent_id=envelope.id
        )
        canvas.add(
            linked_to(gathered(replacement), call.callbacks, call.errbacks),
            task_id=envelope.id,
            group_id=envelope.group,
            group_index=envelope.group_index,
            chord=call.chord,
            chain=call.chain,
            replaced_task_nesting=(envelope.replaced_task_nesting or 0) + 1,
        )
        return self._follow_up(canvas)

    def of_header(self, joined: Joined, body: Signature, last: Envelope) -> FollowUp:
        """Return what follows when a chord's header has ended: its body, or a failure.

        `last` is the call that ended last, and so the body's parent.
        """
        canvas = self._canvas(last)
        try:
            canvas.add(body, (self._values(joined),))
            return self._follow_up(canvas)
        except ChordError as error:
            return self.without_body(joined.part.group, body, error)
        except Exception as error:  # foreign values, from the backend or a message
            problem = ChordError(f"Join error: {repr_of(error)}")
            return self.without_body(joined.part.group, body, problem)

    def without_body(self, group: str, body: Signature, error: ChordError) -> FollowUp:
        """Return what follows when the body of a chord cannot run."""
        words = "the body of the chord of group %s is not run: %s"
        told = one_line(group), one_line(str(error))
        self.say(partial(tell.error, "chord.failed", words, *told, group=group))
        shown: BaseException = error
        if body.get("subtask_type") == "group" and error.__cause__:
            shown = error.__cause__  # the members of a group get the cause itself
        follow_up = FollowUp()
        common = errbacks_of(body)
        for unsent in awaited(body):
            own = errbacks_of(unsent)
            errbacks = [*own, *(one for one in common if one not in own)]
            # A chord around this one fails with it, and calls its own.
            later = _errbacks_around(unsent)
            errbacks = [one for one in errbacks if one not in later]
            request = self._request_of_unsent(unsent, errbacks)
            self._call_errbacks(follow_up, errbacks, request, shown, None)
        self._fail(follow_up, [body], State.FAILURE, shown, None)
        return follow_up

    def body_failed(self, body: Signature, error: ChordError) -> FollowUp:
        """Return what is to be stored of a body that cannot run, as others have told.

        It is the same as with `without_body`, and is safe to store again.
        """
        follow_up = FollowUp()
        self._fail(follow_up, [body], State.FAILURE, error, None)
        return follow_up

    def request_of(self, call: Call) -> Request:
        """Return the request of a call's run on this worker."""
        envelope, task = call.envelope, self.host.tasks.get(call.envelope.task)
        ignored = ignores_result(envelope, task, self.host.settings)
        return Request.of(call, hostname=self.hostname, ignore_result=ignored)

    def _messages(self, sendings: Iterable[Sending]) -> list[Outgoing]:
        now = self.clock.now()
        made = [self.host.outgoing(self._as_known(one), now) for one in sendings]
        for one in made:
            route = one.route
            if not all(
                map(_is_encodable, (route.queue, route.exchange, route.routing_key))
            ):
                raise MessageError(f"no broker has {quoted(route.queue)} as a queue")
        return made

    def _values(self, joined: Joined) -> list[Any]:
        assert self.encoding  # or there are no chords
        header = [self.encoding.read_part(data) for data in joined.header]
        for ended in header:
            if ended.state in PROPAGATE_STATES:
                shown = repr_of(ended.value)
                error = ChordError(f"Dependency {ended.task_id} raised {shown}")
                raise error from _exception(ended.value)
        shape = None
        if joined.shape is not None:
            shape = self.encoding.unpack(joined.shape)["result"]
        return values_of(header, shape)

    def _own_part(self, call: Call, state: State, value: object) -> list[Part]:
        envelope = call.envelope
        if call.chord is None or self.encoding is None or envelope.group is None:
            return []
        data = self.encoding.part(envelope.id, state, value)
        return [Part(envelope.group, envelope.id, envelope.group_index, data)]

    def _fail(
        self,
        follow_up: FollowUp,
        signatures: Iterable[Signature],
        state: State,
        error: BaseException,
        traceback: str | None,
        *,
        keep: bool = True,
    ) -> None:
        """Store failures of calls that will not be sent: others may wait for them."""
        if self.encoding is None:
            return
        done = datetime_of(self.clock.now(), self.host.settings.zone)
        for signature in doomed(signatures):
            options = signature.get("options") or {}
            task_id, group, parent = (
                _id(options.get(name)) for name in ("task_id", "group_id", "parent_id")
            )
            if task_id and keep:
                meta = Meta(task_id, state, error, traceback, [], done, group, parent)
                follow_up.bookkeeping.stored.append(self.encoding.store(meta))
            if task_id and group and is_signature(options.get("chord")):
                index = options.get("group_index")
                place = index if type(index) is int and 0 <= index <= LARGEST else None
                data = self.encoding.part(task_id, state, error)
                follow_up.bookkeeping.parts.append(Part(group, task_id, place, data))

    def _call_errbacks(
        self,
        follow_up: FollowUp,
        errbacks: Sequence[Signature],
        request: Request,
        error: BaseException,
        traceback: str | None,
    ) -> None:
        """Call errbacks in this process, or add messages that call them."""
        for errback in errbacks:
            task = self.host.tasks.get(errback["task"])
            if task is not None and wants_exception(task, errback):
                values = (request, error, traceback)
                self.apart(partial(call_errback, task, errback, values))
                continue
            root = request.root_id or request.id
            canvas = Canvas(self._new_id, root_id=root, parent_id=request.id)
            try:
                canvas.add(errback, (request.id,))
                follow_up.add(canvas, self._messages(canvas.sends))
            # Foreign: the errback is from a message, routes are the user's.
            except Exception as problem:
                words, name = "cannot send errback %s", one_line(errback["task"])
                line = partial(tell.error, "errback.unsent", words, name)
                self.say(partial(line, exc_info=problem))

    def _canvas(self, parent: Envelope) -> Canvas:
        options: dict[str, Any] = {
            "root_id": parent.root_id or parent.id,
            "parent_id": parent.id,
        }
        if self.host.settings.task_inherit_parent_priority:
            options["priority"] = parent.priority
        return Canvas(self._new_id, **options)

    def _follow_up(self, canvas: Canvas) -> FollowUp:
        follow_up = FollowUp()
        follow_up.add(canvas, self._messages(canvas.sends))
        return follow_up

    def _as_known(self, sending: Sending) -> Sending:
        """Return the call with its task's own options added."""
        task = self.host.tasks.get(sending.task)
        if task is None:
            return sending
        return sending._replace(options={**task.sent_options(), **sending.options})

    def _request_of_unsent(
        self, signature: Signature, errbacks: list[Signature]
    ) -> Request:
        options: Mapping[str, Any] = signature.get("options") or {}
        return Request(
            task=signature["task"],
            id=options.get("task_id"),
            args=signature.get("args") or (),
            kwargs=signature.get("kwargs") or {},
            hostname=self.hostname,
            root_id=options.get("root_id"),
            parent_id=options.get("parent_id"),
            called_directly=False,
            errbacks=errbacks,
        )

    def _new_id(self) -> str:
        return call_id(self.clock.now(), secrets.token_bytes(10))


def bodies_of(call: Call) -> dict[str, Signature]:
    """Return the bodies of the chords for which a call and its chain's steps count.

    Each is under the id of the call or step.
    """
    own = {call.envelope.id: call.chord} if call.chord else {}
    return own | bodies_in(call.chain or ())


def bodies_in(signatures: Iterable[Signature]) -> dict[str, Signature]:
    """Return the bodies of the chords for which these calls count, by call id."""
    found: dict[str, Signature] = {}
    for signature in doomed(signatures):
        options = signature.get("options") or {}
        if is_signature(options.get("chord")):
            found[str(options.get("task_id"))] = options["chord"]
    return found


def _errbacks_around(signature: Signature) -> list[Signature]:
    """Return the errbacks of the chord for which a signature's call counts."""
    body: Any = (signature.get("options") or {}).get("chord")
    return errbacks_of(body) if is_signature(body) else []


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character
        return False
    return True


def _id(value: Any) -> str | None:
    return value if is_name(value) else None


def _exception(value: Any) -> BaseException | None:
    return value if isinstance(value, BaseException) else None
