"""What follows from the end of a run, besides a result of its own.

After a success its callbacks are sent, and the next step of its chain. After a failure
its errbacks are called, and what was to come after it in its chain fails as well. If it
is in the header of a chord, its end counts there in both cases; with the last one the
body is sent, or fails if any of the header has failed.
"""

import asyncio
import inspect
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from beatd.brokers.base import Outgoing
from beatd.clock import Clock
from beatd.errors import ChordError, MessageError
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
)
from beatd.message.envelope import MAX_COUNT, is_name
from beatd.message.options import is_signature, listed
from beatd.results.base import PROPAGATE_STATES, Meta, State
from beatd.results.chords import Joined, Part, values_of
from beatd.results.encoding import Encoding
from beatd.results.exceptions import repr_of
from beatd.runs.coroutines import run_coroutine
from beatd.runs.host import Host
from beatd.runs.report import Aftermath, ignores_result, one_line
from beatd.tasks import Request, Task
from beatd.text import shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sequel:
    """All that follows from the end of a run."""

    sends: list[Outgoing] = field(default_factory=list)
    aftermath: Aftermath = field(default_factory=Aftermath)
    children: list[Any] = field(default_factory=list)
    """Where the values of what is sent will be, as results have it."""

    def add(self, canvas: Canvas, sends: Iterable[Outgoing]) -> None:
        """Add what a canvas holds, made ready to be sent."""
        self.sends.extend(sends)
        self.aftermath.begun.extend(canvas.chords)
        self.children.extend(canvas.results)


@dataclass(frozen=True, slots=True)
class Successors:
    """Finds out what follows from ends of runs."""

    host: Host
    encoding: Encoding | None
    """None: no results are kept, and there are no chords."""
    hostname: str
    clock: Clock
    apart: Callable[[Callable[[], None]], object] = lambda code: code()
    """Has the user's code called, where that may take its time."""

    def of_success(self, call: Call, value: Any) -> Sequel:
        """Say what follows when a call gave this value.

        Raises MessageError if it cannot be encoded for those who are to get it.
        """
        canvas = self._canvas(call.envelope)
        for callback in call.callbacks:
            canvas.add(callback, (value,))
        if call.chain:
            *rest, step = call.chain
            canvas.add(step, (value,), chain=rest)
        sequel = self._sequel(canvas)
        sequel.aftermath.parts.extend(self._own_part(call, State.SUCCESS, value))
        return sequel

    def of_failure(
        self,
        call: Call,
        state: State,
        error: BaseException,
        traceback: str | None = None,
        *,
        keep: bool = True,
    ) -> Sequel:
        """Say what follows when a call has failed, or will not run.

        With `keep`, those of its chain that will not run have their failure stored.
        """
        sequel = Sequel()
        if state == State.FAILURE:
            request = self.request_of(call)
            self._call_errbacks(sequel, call.errbacks, request, error, traceback)
        sequel.aftermath.parts.extend(self._own_part(call, state, error))
        self._fail(sequel, call.chain or (), state, error, traceback, keep=keep)
        return sequel

    def of_header(self, joined: Joined, body: Signature, last: Envelope) -> Sequel:
        """Say what follows when a chord's header has ended: its body, or why not.

        `last` is the call that ended last, and so the body's parent.
        """
        canvas = self._canvas(last)
        try:
            canvas.add(body, (self._values(joined),))
            return self._sequel(canvas)
        except ChordError as error:
            return self.without_body(joined.part.group, body, error)
        except Exception as error:  # whatever others put into the backend, or sent
            problem = ChordError(f"Join error: {repr_of(error)}")
            return self.without_body(joined.part.group, body, problem)

    def without_body(self, group: str, body: Signature, error: ChordError) -> Sequel:
        """Say what follows when the body of a chord cannot run."""
        logger.error(
            "the chord of group %s has no body: %s",
            one_line(group),
            one_line(str(error)),
            extra={"event": "chord.failed", "group": group},
        )
        shown: BaseException = error
        if body.get("subtask_type") == "group" and error.__cause__:
            shown = error.__cause__  # the members of a group get to see it itself
        sequel = Sequel()
        common = _errbacks_of(body)
        for unsent in awaited(body):
            own = _errbacks_of(unsent)
            errbacks = [*own, *(one for one in common if one not in own)]
            request = self._request_of_unsent(unsent, errbacks)
            self._call_errbacks(sequel, errbacks, request, shown, None)
        self._fail(sequel, [body], State.FAILURE, shown, None)
        return sequel

    def request_of(self, call: Call) -> Request:
        """Give what the run of a call on this worker knows."""
        said, tasks = call.envelope, self.host.tasks
        ignored = ignores_result(said, tasks.get(said.task), self.host.settings)
        return Request.of(call, hostname=self.hostname, ignore_result=ignored)

    def _messages(self, sendings: Iterable[Sending]) -> list[Outgoing]:
        now = self.clock.now()
        made = [self.host.outgoing(self._as_known(one), now) for one in sendings]
        for one in made:
            route = one.route
            if not all(
                map(_is_sayable, (route.queue, route.exchange, route.routing_key))
            ):
                raise MessageError(f"no broker has {shown(route.queue)} as a queue")
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
        said = call.envelope
        if call.chord is None or self.encoding is None or said.group is None:
            return []
        data = self.encoding.part(said.id, state, value)
        return [Part(said.group, said.id, said.group_index, data)]

    def _fail(
        self,
        sequel: Sequel,
        signatures: Iterable[Signature],
        state: State,
        error: BaseException,
        traceback: str | None,
        *,
        keep: bool = True,
    ) -> None:
        """Have calls fail that will not be sent, for those who wait for them."""
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
                sequel.aftermath.stored.append(self.encoding.store(meta))
            if task_id and group and is_signature(options.get("chord")):
                index = options.get("group_index")
                place = index if type(index) is int and 0 <= index < MAX_COUNT else None
                data = self.encoding.part(task_id, state, error)
                sequel.aftermath.parts.append(Part(group, task_id, place, data))

    def _call_errbacks(
        self,
        sequel: Sequel,
        errbacks: Sequence[Signature],
        request: Request,
        error: BaseException,
        traceback: str | None,
    ) -> None:
        """Have them called: here and now, or by a message."""
        for errback in errbacks:
            task = self.host.tasks.get(errback["task"])
            if task is not None and _wants_more_than_an_id(task, errback):
                values = (request, error, traceback)
                self.apart(partial(_call_back, task, errback, values))
                continue
            root = request.root_id or request.id
            canvas = Canvas(self._new_id, root_id=root, parent_id=request.id)
            try:
                canvas.add(errback, (request.id,))
                sequel.add(canvas, self._messages(canvas.sends))
            except Exception:  # what its sender wrote, and the user's routes
                words = "cannot send errback %s"
                event = {"event": "errback.unsent"}
                logger.exception(words, one_line(errback["task"]), extra=event)

    def _canvas(self, parent: Envelope) -> Canvas:
        options: dict[str, Any] = {
            "root_id": parent.root_id or parent.id,
            "parent_id": parent.id,
        }
        if self.host.settings.task_inherit_parent_priority:
            options["priority"] = parent.priority
        return Canvas(self._new_id, **options)

    def _sequel(self, canvas: Canvas) -> Sequel:
        sequel = Sequel()
        sequel.add(canvas, self._messages(canvas.sends))
        return sequel

    def _as_known(self, sending: Sending) -> Sending:
        """Give the call with the options that its task has for every call."""
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
    """Give the bodies of the chords for which ends count that follow from a call's.

    By the ids of those calls.
    """
    own = {call.envelope.id: call.chord} if call.chord else {}
    return own | bodies_in(call.chain or ())


def bodies_in(signatures: Iterable[Signature]) -> dict[str, Signature]:
    """Give the bodies of the chords for which the ends of these count, by ids."""
    found: dict[str, Signature] = {}
    for signature in doomed(signatures):
        options = signature.get("options") or {}
        if is_signature(options.get("chord")):
            found[str(options.get("task_id"))] = options["chord"]
    return found


def _errbacks_of(signature: Signature) -> list[Signature]:
    found = listed((signature.get("options") or {}).get("link_error"))
    return list(filter(is_signature, found or ()))


def _is_sayable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character
        return False
    return True


def _id(value: Any) -> str | None:
    return value if is_name(value) else None


def _exception(value: Any) -> BaseException | None:
    return value if isinstance(value, BaseException) else None


def _wants_more_than_an_id(task: Task[..., Any], errback: Signature) -> bool:
    """Say whether an errback is to get request, exception and traceback.

    As in Celery: its function has room for more than one argument besides those that
    the errback brings, and does not get the task itself.
    """
    if task.is_bound:
        return False
    own, named = errback.get("args") or (), errback.get("kwargs") or {}
    if errback.get("immutable"):
        own, named = (), {}
    parameters = task.parameters.parameters.values()
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return True
    by_place = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    room = [one for one in parameters if one.kind in by_place and one.name not in named]
    return len(room) - len(own) > 1


_under_way: set[asyncio.Task[None]] = set()
"""Errbacks that are coroutines, for nobody else holds them."""


def _call_back(task: Task[..., Any], errback: Signature, values: Sequence[Any]) -> None:
    args: Sequence[Any] = errback.get("args") or ()
    if not errback.get("immutable"):
        args = (*values, *args)
    try:
        value = task(*args, **(errback.get("kwargs") or {}))
        if inspect.iscoroutine(value):
            _run(task, value)
    except Exception:  # the user's code
        _say_raised(task)


def _run(task: Task[..., Any], coroutine: Any) -> None:
    """Have a coroutine run: on the event loop, where this is called on one."""

    async def run() -> None:
        try:
            await coroutine
        except Exception:  # the user's code
            _say_raised(task)

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        run_coroutine(run(), None)
    else:
        under_way = loop.create_task(run())
        _under_way.add(under_way)
        under_way.add_done_callback(_under_way.discard)


def _say_raised(task: Task[..., Any]) -> None:
    logger.exception("errback %s raised", task.name, extra={"event": "errback.failed"})
