"""What the run of a task knows of itself, and of its exception."""

from collections.abc import Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from beatd.instant import datetime_of
from beatd.message import Call, Envelope, Signature
from beatd.tasks.async_result import AsyncResult
from beatd.tasks.group_result import GroupResult

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Again:
    """One more try, as the task asked for it; None: the same as in this try."""

    args: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None
    when: datetime | float
    """An instant, or seconds from the end of the run."""
    options: Mapping[str, Any]


_READ_LATE = "headers", "properties"
"""Fields of a request that are read from the message when somebody asks for them."""


@dataclass(slots=True)
class Request:
    """What a run knows of itself; Celery's names."""

    task: str = ""
    id: str | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 0
    eta: str | None = None
    expires: str | None = None
    timelimit: tuple[float | None, float | None] = (None, None)
    """The hard limit and the soft limit, in seconds."""
    hostname: str = ""
    delivery_info: dict[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    """The sender's own headers; each is an attribute of the request, too."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """The properties of the message, as kombu writes them."""
    compression: str | None = None
    """The content type of the body's compression."""
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    origin: str | None = None
    shadow: str | None = None
    ignore_result: bool = False
    called_directly: bool = True
    is_eager: bool = False
    callbacks: list[Signature] | None = None
    errbacks: list[Signature] | None = None
    chain: list[Signature] | None = None
    chord: Signature | None = None
    children: list[AsyncResult[Any] | GroupResult[Any]] = field(default_factory=list)
    """The runs that this run sent."""
    again: Again | None = None
    """Set by `Task.retry`."""
    replacement: Signature | None = None
    """Set by `Task.replace`."""
    on_its_way: bool = False
    """Set until a `__call__` of the task's own class has reached the task's code."""
    _envelope: Envelope | None = field(default=None, repr=False, compare=False)
    """Where `headers` and `properties` are read from when somebody asks for them."""

    @classmethod
    def of(cls, call: Call, *, hostname: str, ignore_result: bool) -> "Request":
        """Return the request of a call's run on the worker of this name."""
        envelope = call.envelope
        request = cls(
            task=envelope.task,
            id=envelope.id,
            args=call.args,
            kwargs=call.kwargs,
            retries=envelope.retries,
            eta=None if envelope.eta is None else datetime_of(envelope.eta).isoformat(),
            expires=envelope.expires_text,
            timelimit=(envelope.time_limit, envelope.soft_time_limit),
            hostname=hostname,
            delivery_info={
                "exchange": envelope.exchange,
                "routing_key": envelope.routing_key,
                "priority": envelope.priority,
                "redelivered": envelope.redelivered,
            },
            compression=envelope.compression,
            root_id=envelope.root_id or envelope.id,
            parent_id=envelope.parent_id,
            group=envelope.group,
            group_index=envelope.group_index,
            correlation_id=envelope.correlation_id,
            reply_to=envelope.reply_to,
            origin=envelope.origin,
            shadow=envelope.shadow,
            ignore_result=ignore_result,
            called_directly=False,
            callbacks=call.callbacks,
            errbacks=call.errbacks,
            chain=call.chain,
            chord=call.chord,
            _envelope=envelope,
        )
        for name in _READ_LATE:  # most tasks ask for neither
            delattr(request, name)
        return request

    def __getattr__(self, name: str) -> Any:
        # Called only for names that are not fields, and for fields that have no value.
        # A copy of the request that is being made has none yet, not even `_envelope`.
        if name in _READ_LATE:
            if envelope := self._envelope:
                found = envelope.custom_headers_and_properties
                self.headers, self.properties = found
                return getattr(self, name)
        elif name != "_envelope" and name in self.headers:
            return self.headers[name]
        raise AttributeError(f"the request has no {name!r}, nor a header of that name")

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or `default`."""
        return getattr(self, name, default)


@dataclass(frozen=True, slots=True)
class ExceptionInfo:
    """An exception, as hooks and receivers of signals get it; Celery's names."""

    exception: BaseException
    traceback: str
    """As text, the exception included."""

    @property
    def type(self) -> type[BaseException]:
        """Return the exception's class."""
        return type(self.exception)

    def __str__(self) -> str:
        return self.traceback


_request: ContextVar[Request | None] = ContextVar("beatd_request", default=None)


def current_request() -> Request | None:
    """Return the request of the task that runs in this thread or coroutine."""
    return _request.get()


def sending_request() -> Request | None:
    """Return the request of the run whose worker gets the calls that are made now.

    None outside of a run, and in a task that is called like any function.
    """
    request = _request.get()
    return None if request is None or request.called_directly else request


class running:
    """Let the block be the run of `request`."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def __enter__(self) -> None:
        self._token = _request.set(self._request)

    def __exit__(self, *error: object) -> None:
        _request.reset(self._token)


async def run_as(request: Request, coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what the coroutine returns; it is the run of `request`."""
    with running(request):
        return await coroutine
