"""Tasks: functions that workers run by their names, and what a run knows of itself."""

import inspect
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, cast

from beatd.errors import (
    ConfigError,
    MaxRetriesExceeded,
    NotRegistered,
    Retry,
    Verdict,
)
from beatd.instant import datetime_of
from beatd.message import Call, Signature
from beatd.results.base import Meta
from beatd.source import Unreadable, import_module
from beatd.tasks.async_result import AsyncResult
from beatd.tasks.current import Application, current_app

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

SENT_OPTIONS = (
    *("queue", "exchange", "routing_key", "priority", "expires", "serializer"),
    *("compression", "time_limit", "soft_time_limit", "delivery_mode", "ignore_result"),
)
"""Options of a task that go with every call of it, unless the call has its own."""


@dataclass(frozen=True, slots=True)
class Again:
    """One more try, as the task asked for it; what is None stays as it was."""

    args: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None
    when: datetime | float
    """An instant, or seconds from the end of the run."""
    options: Mapping[str, Any]


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
    """Hard and soft."""
    hostname: str = ""
    delivery_info: dict[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    """The sender's own headers; each is an attribute of the request, too."""
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
    children: list[AsyncResult[Any]] = field(default_factory=list)
    """The runs that this one sent."""
    again: Again | None = None
    """Set by `Task.retry`."""
    on_its_way: bool = False
    """Set until a `__call__` of the task's own class has come to the task's code."""

    @classmethod
    def of(cls, call: Call, *, hostname: str, ignore_result: bool) -> "Request":
        """Give what the run of a call on a worker knows."""
        said = call.envelope
        return cls(
            task=said.task,
            id=said.id,
            args=call.args,
            kwargs=call.kwargs,
            retries=said.retries,
            eta=None if said.eta is None else datetime_of(said.eta).isoformat(),
            expires=said.expires_text,
            timelimit=(said.time_limit, said.soft_time_limit),
            hostname=hostname,
            delivery_info={
                "exchange": said.exchange,
                "routing_key": said.routing_key,
                "priority": said.priority,
                "redelivered": said.redelivered,
            },
            headers=said.custom_headers,
            root_id=said.root_id or said.id,
            parent_id=said.parent_id,
            group=said.group,
            group_index=said.group_index,
            correlation_id=said.correlation_id,
            reply_to=said.reply_to,
            origin=said.origin,
            shadow=said.shadow,
            ignore_result=ignore_result,
            called_directly=False,
            callbacks=call.callbacks,
            errbacks=call.errbacks,
            chain=call.chain,
            chord=call.chord,
        )

    def __getattr__(self, name: str) -> Any:
        # Only for names that are no field. `headers` is not there yet while a copy
        # of the request is being made.
        if name != "headers" and name in self.headers:
            return self.headers[name]
        raise AttributeError(f"the request has no {name!r}, nor a header of that name")

    def get(self, name: str, default: Any = None) -> Any:
        """Give an attribute, or `default`."""
        return getattr(self, name, default)


@dataclass(frozen=True, slots=True)
class ExceptionInfo:
    """What hooks and signals get to know of an exception; Celery's names."""

    exception: BaseException
    traceback: str
    """As text, the exception included."""

    @property
    def type(self) -> type[BaseException]:
        """Give the exception's class."""
        return type(self.exception)

    def __str__(self) -> str:
        return self.traceback


_request: ContextVar[Request | None] = ContextVar("beatd_request", default=None)


def current_request() -> Request | None:
    """Give the request of the task that runs in this thread or coroutine."""
    return _request.get()


@contextmanager
def running(request: Request) -> Iterator[None]:
    """Let the block be the run of `request`."""
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)


async def _run_as(request: Request, coroutine: Coroutine[Any, Any, T]) -> T:
    with running(request):
        return await coroutine


class Task(Generic[P, R]):
    """A function that workers run by its name; calling it runs it here.

    Made by `@app.task` and `@shared_task`. Each attribute below may be given to these
    as an option; what is None is decided by the settings.
    """

    name: str = ""
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    serializer: str | None = None
    compression: str | None = None
    delivery_mode: int | str | None = None
    expires: datetime | float | None = None
    """Seconds after the call, or an instant: later the task is not run any more."""
    time_limit: float | None = None
    soft_time_limit: float | None = None
    rate_limit: str | float | None = None
    ignore_result: bool | None = None
    store_errors_even_if_ignored: bool | None = None
    track_started: bool | None = None
    acks_late: bool | None = None
    acks_on_failure_or_timeout: bool | None = None
    reject_on_worker_lost: bool | None = None
    retry_on_worker_lost: bool | None = None
    max_retries: int | None = 3
    """None: without end."""
    default_retry_delay: float = 3 * 60
    autoretry_for: Sequence[type[BaseException]] = ()
    dont_autoretry_for: Sequence[type[BaseException]] = ()
    retry_kwargs: Mapping[str, Any] = {}
    retry_backoff: bool | float = False
    """Seconds before the first retry, doubled for each; True is 1."""
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    """Draw the pause between 0 and what `retry_backoff` says."""
    typing: bool = True
    """Check the arguments where the task is called."""
    throws: Sequence[type[BaseException]] = ()
    """Expected errors: logged without a traceback, as information."""

    def __init__(
        self,
        function: Callable[..., R] | None = None,
        *,
        app: Callable[[], Application] = current_app,
        name: str = "",
        bind: bool = False,
        **options: Any,
    ) -> None:
        self._app = app
        self._function = function
        self._bound = bind
        if function is not None:
            update_wrapper(self, function)
        self.name = name or self.name
        if options:
            self.amend(options)

    def amend(self, attributes: Mapping[str, Any]) -> None:
        """Have these attributes as if the task's own class had them.

        Functions become methods. What stands under `@name` is called with the function
        of that name, and gives what takes its place.
        """
        kind = type(self)
        own: dict[str, Any] = {}
        for name, value in attributes.items():
            plain = name.removeprefix("@")
            own[plain] = value if plain == name else value(getattr(kind, plain))
            vars(self).pop(plain, None)
        self.__class__ = type(kind.__name__, (kind,), own)

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the task's code; a subclass without a function has its own."""
        if self._function is None:
            raise NotImplementedError(f"task {self.name} needs a run method")
        if self._bound:
            return self._function(self, *args, **kwargs)
        return self._function(*args, **kwargs)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        under_way = current_request()
        if under_way and under_way.on_its_way and under_way.task == self.name:
            under_way.on_its_way = False
            return self.run(*args, **kwargs)
        request = Request(self.name, args=args, kwargs=kwargs)
        with running(request):
            value = self.run(*args, **kwargs)
        if inspect.iscoroutine(value):
            # Its code has not begun yet: it runs where the caller awaits it.
            return cast(R, _run_as(request, value))
        return value

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Queue a call with these arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Queue a call with these arguments and options.

        Options are `countdown`, `eta`, `expires`, `queue`, `priority`, `task_id`,
        `headers`, `link` and Celery's others. Raises TypeError for arguments that the
        task does not take, MessageError for ones that cannot be encoded.
        """
        if self.typing:
            self.parameters.bind(*(args or ()), **(kwargs or {}))
        app = self.app  # which may have its say about the options
        call = {**self.sent_options(), **options}
        result: AsyncResult[R] = app.call_task(self, args, kwargs, call)
        return result

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Run a call here and now as a worker would, with retries and links."""
        app = self.app
        call = {**self.sent_options(), **options}
        result: AsyncResult[R] = app.apply_task(self, args, kwargs, call)
        return result

    def signature(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Give a call of this task to put into another one, as its `link`."""
        return {
            "task": self.name,
            "args": list(args),
            "kwargs": dict(kwargs or {}),
            "options": options,
            "subtask_type": None,
            "immutable": immutable,
        }

    def s(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Give a call that gets the result of what it is linked to in front."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Give a call with these arguments and no other."""
        return self.signature(args, kwargs, immutable=True)

    # Called where the task runs, for subclasses to say what is to happen then. What
    # they raise is logged; only what `before_start` raises makes the run fail.

    def before_start(
        self, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """Do this before the task's own code."""

    def on_success(
        self,
        retval: Any,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Do this when the run has succeeded."""

    def on_failure(
        self,
        exc: BaseException,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo,
    ) -> None:
        """Do this when the run has failed."""

    def on_retry(
        self,
        exc: BaseException,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo,
    ) -> None:
        """Do this when the task is to be tried again."""

    def after_return(
        self,
        status: str,
        retval: Any,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo | None,
    ) -> None:
        """Do this when the run has succeeded or failed."""

    def AsyncResult(self, task_id: str) -> AsyncResult[R]:
        """Give the run of this id."""
        return AsyncResult(task_id, app=self.app)

    @property
    def is_coroutine(self) -> bool:
        """Say whether calling it only makes a coroutine, and takes no time."""
        return inspect.iscoroutinefunction(self._function or self.run)

    @property
    def app(self) -> Application:
        """Give the application that the task is called through, and belongs to now."""
        app = self._app()
        app.adopt(self)
        return app

    @property
    def request(self) -> Request:
        """Give what the present run knows of itself; an empty one outside of a run."""
        request = current_request()
        return request if request and request.task == self.name else Request(self.name)

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """End this run and have the task tried again, by raising Retry.

        When `max_retries` is used up, `exc` is raised, or MaxRetriesExceeded. With
        `throw=False` the Retry is returned, for the caller to raise or not.
        """
        request = self.request
        if request.called_directly:
            raise exc or Retry("the task was called directly: nobody tries it again")
        limit = self.max_retries if max_retries is None else max_retries
        if limit is not None and request.retries >= limit:
            raise exc or MaxRetriesExceeded(
                f"Can't retry {self.name}[{request.id}] "
                f"args:{request.args} kwargs:{request.kwargs}"
            )
        if eta is not None:
            when: datetime | float = eta
        else:
            when = self.default_retry_delay if countdown is None else countdown
        request.again = Again(args, kwargs, when, options)
        retry = Retry(exc=exc, when=when)
        if throw:
            raise retry
        return retry

    def retry_after(self, error: BaseException) -> None:
        """Raise Retry if `error`, raised in this run, is to be retried by itself."""
        if isinstance(error, (Verdict, *self.dont_autoretry_for)):
            return
        if isinstance(error, (*self.autoretry_for,)):
            countdown = self._backoff(self.request.retries)
            self.retry(exc=error, **{"countdown": countdown, **self.retry_kwargs})

    def update_state(
        self,
        task_id: str | None = None,
        state: str | None = None,
        meta: Any = None,
    ) -> None:
        """Tell those who look at the run how it goes: a state of your own, and data."""
        of = task_id or self.request.id
        if of and state:
            self.app.store_meta(Meta(of, state, meta))

    def sent_options(self) -> dict[str, Any]:
        """Give the options of its own that go with every call."""
        options = ((name, getattr(self, name)) for name in SENT_OPTIONS)
        return {name: value for name, value in options if value is not None}

    @property
    def is_bound(self) -> bool:
        """Say whether its function gets the task as the first argument."""
        return self._bound

    @cached_property
    def parameters(self) -> inspect.Signature:
        """Give what a call has to say."""
        function = self._function or self.run
        signature = inspect.signature(function)
        if not self._bound:
            return signature
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def _backoff(self, retries: int) -> float | None:
        """Give the pause before the next try; None is `default_retry_delay`."""
        if not self.retry_backoff:
            return None
        # Far beyond every maximum; more would only make huge numbers.
        doublings = min(retries, 64)
        pause = min(
            self.retry_backoff_max, max(1, int(self.retry_backoff)) * 2**doublings
        )
        return random.randint(0, int(pause)) if self.retry_jitter else pause

    def __repr__(self) -> str:
        return f"<task {self.name}>"


_shared: dict[str, Task[..., Any]] = {}
"""Tasks of no application in particular: each has them."""


def share(task: Task[..., Any]) -> None:
    """Let every application have this task."""
    _shared[task.name] = task


class Registry(Mapping[str, Task[..., Any]]):
    """The tasks of one application, by name, and those that are shared by all.

    `prepare` is called with each task that is given away, each time.
    """

    def __init__(
        self, prepare: Callable[[Task[..., Any]], object] = lambda task: None
    ) -> None:
        self._own: dict[str, Task[..., Any]] = {}
        self._prepare = prepare

    def register(self, task: Task[..., Any]) -> None:
        """Add a task; a later one takes the place of one with the same name."""
        self._own[task.name] = task

    def __getitem__(self, name: str) -> Task[..., Any]:
        task = self._own.get(name) or _shared.get(name)
        if task is None:
            raise NotRegistered(name)
        self._prepare(task)
        return task

    def __iter__(self) -> Iterator[str]:
        return iter(_shared | self._own)

    def __len__(self) -> int:
        return len(_shared | self._own)


def name_of(function: Any, main: str) -> str:
    """Give the name that a task gets by itself: its module's and its function's.

    In a program that was started by its file the module is called `__main__`, and by
    its name where others import it: `main` stands for it.
    """
    module = function.__module__
    if module == "__main__":
        module = main or module
    return f"{module}.{function.__name__}"


def import_modules(names: Iterable[str]) -> None:
    """Import the modules that hold tasks; ConfigError names each that fails and why."""
    problems: list[str] = []
    for name in names:
        try:
            import_module(name)
        except Unreadable as error:
            problems.append(f"{name}: {error.problem}")
    if problems:
        raise ConfigError("imports", problems)
