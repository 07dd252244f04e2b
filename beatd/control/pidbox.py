"""Remote control: receives commands, has the worker execute them, and answers.

    channel -> Pidbox -> inbox -> Worker -> Pidbox -> the client's queue

Two threads: one receives, one answers. Neither touches the worker: a command is
executed in the worker's own thread, and returns its answer, or a function (`Later`)
that makes the answer in the answering thread because it takes time.
"""

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec

from beatd.background import (
    BatchWorker,
    Faults,
    Halves,
    OnCrash,
    Outage,
    Service,
    retried,
)
from beatd.brokers.base import Broadcast, Subscription
from beatd.brokers.items import Outgoing
from beatd.config.settings import Settings
from beatd.control.patterns import matches
from beatd.errors import BrokerUnavailable, ItemRefused, MessageError
from beatd.event_log import EventLog
from beatd.events.lamport import LamportClock
from beatd.instant import SECOND, Span
from beatd.message import Notice, read_notice, write_notice
from beatd.results.exceptions import repr_of
from beatd.routing import Queue, Route
from beatd.text import one_line, quoted

tell = EventLog(__name__)

LONGEST_WAIT: Span = 5 * SECOND
"""The receiving thread looks at least this often whether it is to stop."""

MINGLE: Span = SECOND
"""How long to wait for the revoked ids of other workers."""

Name: TypeAlias = Annotated[
    str, msgspec.Meta(max_length=255, pattern="^[^\ud800-\udfff]*$")
]
"""A name of a queue, an exchange or a key: no longer than AMQP allows, and without
halves of characters, which no broker can be sent."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a client has sent to the worker."""

    method: str
    arguments: dict[str, Any]
    answer: Callable[[object], object]
    """To be called once: with a value, an `error_of` or a `Later`."""


@dataclass(frozen=True, slots=True)
class Later:
    """A function that returns a command's value, slowly: called in another thread."""

    give: Callable[[], object]


def error_of(error: BaseException) -> dict[str, str]:
    """Return the answer for an error, in Celery's form."""
    return {"error": repr_of(error)}


class Pidbox:
    """Receives the commands for one worker, and sends its answers."""

    def __init__(
        self,
        broker: Broadcast,
        node: str,
        settings: Settings,
        lamport: LamportClock,
        deliver: Callable[[Command], object],
        away: Outage | None = None,
    ) -> None:
        self._broker = broker
        self._node = node
        self._lamport = lamport
        self._deliver = deliver
        self._exchange = f"{settings.control_exchange}.pidbox"
        self._expires = settings.control_queue_expires
        self._subscription: Subscription = broker.listen(
            Queue(
                f"{node}.{self._exchange}", self._exchange, "fanout", "", self._expires
            )
        )
        away = Outage("remote control is cut off", "control", part_of=away)
        self._refused = Faults()
        self._post = Halves(broker.send, self._drop)
        self.answering = BatchWorker(self._answer, BrokerUnavailable, away)
        self._tried = threading.Event()
        self._service = Service(
            retried(self._step, BrokerUnavailable, away), self._subscription.interrupt
        )

    def start(self, on_crash: OnCrash) -> None:
        """Begin to receive and to answer, in two threads.

        Returns when it is subscribed, or the broker turned out to be away. A worker
        must not say before that it is ready: commands sent until then are lost.
        """
        self.answering.start("beatd-answers", on_crash)
        self._service.start("beatd-control", on_crash)
        self._tried.wait()

    def stop(self) -> None:
        """Stop receiving; send the answers that are left, if it can be done at once."""
        self._service.stop()
        self._subscription.close()
        self.answering.stop(SECOND)

    def turn(self, timeout: Span) -> None:
        """Receive once, and deliver the commands that are for this worker."""
        for raw in self._subscription.wait(timeout):
            self._receive(raw)

    def ask_for_revoked(self, known: Sequence[str]) -> list[str]:
        """Ask all workers which ids they know as revoked, and tell them ours."""
        oid = str(uuid.uuid4())
        reply = f"reply.{self._exchange}"
        body = {
            "method": "hello",
            "arguments": {"from_node": self._node, "revoked": list(known)},
            "destination": None,
            "pattern": None,
            "matcher": None,
            "ticket": str(uuid.uuid4()),
            "reply_to": {"exchange": reply, "routing_key": oid},
        }
        route = Route("", self._exchange, "", "fanout")
        notice = Notice({"clock": self._lamport.forward(), "expires": 0}, body)
        message = write_notice(notice, route, tag=str(uuid.uuid4()), delivery_mode=2)
        answers = Queue(f"{oid}.{reply}", reply, "direct", oid, self._expires)
        came = self._broker.ask(Outgoing(route, message), answers, MINGLE)
        return [task_id for raw in came for task_id in self._revoked_in(raw)]

    def _step(self) -> Span:
        try:
            # The first turn only subscribes.
            self.turn(LONGEST_WAIT if self._tried.is_set() else 0)
        finally:
            self._tried.set()
        return 0

    # What is received

    def _receive(self, raw: bytes) -> None:
        try:
            notice = read_notice(raw)
            request = msgspec.convert(notice.body, _Request)
        except (MessageError, msgspec.ValidationError, RecursionError) as error:
            tell.warning(
                "control.garbage",
                "passed over a command that cannot be read: %s",
                one_line(str(error)),
            )
            return
        self._lamport.receive(notice.headers.get("clock"))
        try:
            is_ours = request.is_for(self._node)
        except ValueError as error:
            tell.warning(
                "control.pattern",
                "passed over %s: its pattern %s is refused: %s",
                quoted(request.method),
                quoted(request.pattern),
                error,
            )
            return
        if is_ours:
            answer = partial(self._take_answer, request)
            self._deliver(Command(request.method, request.arguments, answer))

    def _revoked_in(self, raw: bytes) -> list[str]:
        try:
            notice = read_notice(raw)
        except MessageError:
            return []
        self._lamport.receive(notice.headers.get("clock"))
        answers = notice.body.values() if isinstance(notice.body, dict) else []
        known = [one.get("revoked") for one in answers if isinstance(one, dict)]
        lists = [ids for ids in known if isinstance(ids, list)]
        return [one for ids in lists for one in ids if isinstance(one, str)]

    # What is answered

    def _take_answer(self, request: "_Request", value: object) -> None:
        self.answering.put(_Answer(request, value))

    def _answer(self, batch: Sequence["_Answer"]) -> None:
        # The same batch comes again while the broker is away.
        self._post.do(
            lambda: [answer for one in batch if (answer := self._message_of(one))]
        )

    def _drop(self, answer: Outgoing, refusal: ItemRefused) -> None:
        """Give up an answer: the queue is the client's, and so is the harm."""
        if number := self._refused.meet():
            tell.warning(
                "control.refused",
                "answers to commands are dropped (%d), the last one to %s: %s",
                number,
                quoted(f"{answer.route.exchange}/{answer.route.routing_key}"),
                refusal,
            )

    def _message_of(self, answer: "_Answer") -> Outgoing | None:
        value = answer.value
        if isinstance(value, Later):
            try:
                value = value.give()
            except Exception as error:  # of a backend or a file: the client gets it
                tell.warning(
                    "control.failed",
                    "cannot do all of %s: %s",
                    quoted(answer.request.method),
                    error,
                )
                value = error_of(error)
        to = answer.request.reply_to
        if to is None:
            return None
        route = Route("", to.exchange, to.routing_key)
        headers = {"ticket": answer.request.ticket, "clock": self._lamport.forward()}
        try:
            message = self._written(headers, value, route)
        except MessageError as error:
            message = self._written(headers, error_of(error), route)
        return Outgoing(route, message)

    def _written(self, headers: dict[str, Any], value: object, route: Route) -> bytes:
        notice = Notice(headers, {self._node: value})
        return write_notice(notice, route, tag=str(uuid.uuid4()))


class _ReplyTo(msgspec.Struct):
    exchange: Name
    routing_key: Name


class _Request(msgspec.Struct):
    method: str
    arguments: dict[str, Any] = {}
    destination: list[str] | str | None = None
    pattern: str | None = None
    matcher: str | None = None
    ticket: str | None = None
    reply_to: _ReplyTo | None = None

    def is_for(self, node: str) -> bool:
        """Return whether the command is for a node of this name.

        Raises ValueError for a pattern that is refused, in words for people.
        """
        if self.destination:
            return node in self.destination
        if not self.pattern or not self.matcher:
            return True
        return matches(node, self.pattern, self.matcher)


class _Answer(NamedTuple):
    request: _Request
    value: object
