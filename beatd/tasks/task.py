"""A task: a function that workers run by its name."""

import inspect
import random
import sys
from collections.abc import (
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from datetime import datetime
from functools import cached_property, update_wrapper
from operator import attrgetter
from typing import Any, Generic, NoReturn, ParamSpec, Self, TypeVar, cast

from beatd.bounds import LONGEST, seconds_of
from beatd.errors import Ignore, MaxRetriesExceeded, MessageError, Retry, Verdict
from beatd.message.options import check_options
from beatd.results.base import Meta
from beatd.tasks.arguments import of_next_try
from beatd.tasks.async_result import AsyncResult
from beatd.tasks.current import Application, Args, Kwargs, current_app
from beatd.tasks.listed import classes_in
from beatd.tasks.maps import chunks, xmap, xstarmap
from beatd.tasks.request import (
    Again,
    ExceptionInfo,
    Request,
    current_request,
    run_as,
    running,
)
from beatd.tasks.signature import Signature

P = ParamSpec("P")
R = TypeVar("R")

SENT_OPTIONS = (
    *("queue", "exchange", "routing_key", "priority", "expires", "serializer"),
    *("compression", "time_limit", "soft_time_limit", "delivery_mode", "ignore_result"),
)
"""Options that each call takes from its task, unless the call has its own."""

_sent_options_of = attrgetter(*SENT_OPTIONS)
_NOTHING_SENT = (None,) * len(SENT_OPTIONS)

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def _pause(name: str, value: object) -> float:
    try:
        return seconds_of(value, -LONGEST)
    except ValueError as error:
        raise MessageError(f"{name}: {error}") from None


class Task(Generic[P, R]):
    """A function that workers run by its name; calling it runs it here.

    Made by `@app.task` and `@shared_task`. Each attribute below may be given to these
    decorators as an option; the settings decide about an attribute that is None.
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
    """Seconds after the call, or an instant; after that a worker does not run it."""
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
    """None: no limit."""
    default_retry_delay: float = 3 * 60
    autoretry_for: Sequence[type[BaseException]] = ()
    dont_autoretry_for: Sequence[type[BaseException]] = ()
    retry_kwargs: Mapping[str, Any] = {}
    retry_backoff: bool | float = False
    """Seconds before the first retry, doubled for each; True is 1."""
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    """Draw the pause at random, between 0 and the pause of `retry_backoff`."""
    typing: bool = True
    """Check the arguments where the task is called."""
    throws: Sequence[type[BaseException]] = ()
    """Expected errors: logged without a traceback, as information."""
    has_own_class = True
    MaxRetriesExceededError = MaxRetriesExceeded

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        # Celery's tasks need not call `__init__` of their base.
        task = super().__new__(cls)
        task._app, task._function, task._bound = current_app, None, False
        task._options = {}
        return task

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
        self._options = options
        if options:
            self.amend(options)

    @property
    def is_shared(self) -> bool:
        """Whether it names no application: its calls go through the current one."""
        return self._app is current_app

    def belong_to(self, app: Application) -> None:
        """Have calls of this task go through `app`, unless it names an application."""
        if self.is_shared:
            self._app = lambda: app

    def join(self, kind: "type[Task[..., Any]]") -> None:
        """Make this a task of the class that its application has for its tasks.

        Unless it has a class of its own, by `base` or as an instance of one.
        """
        if not self.has_own_class:
            self.__class__ = cast(type[Self], kind)
            set_since = vars(self)
            given = self._options.items()
            self.amend({name: v for name, v in given if name not in set_since})

    def amend(self, attributes: Mapping[str, Any]) -> None:
        """Set these attributes as if the task's own class had them.

        Functions become methods. The value of an attribute `@name` is called with the
        function `name`, and returns the function that takes its place.
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
            # A subclass's own `__call__`, called by a worker, has called this one.
            under_way.on_its_way = False
            return self.run(*args, **kwargs)
        request = Request(self.name, args=args, kwargs=kwargs)
        with running(request):
            value = self.run(*args, **kwargs)
        if inspect.iscoroutine(value):
            # The task's code has not begun: it runs where the caller awaits it.
            return cast(R, run_as(request, value))
        return value

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Queue a call with these arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Args = None, kwargs: Kwargs = None, **options: Any
    ) -> AsyncResult[R]:
        """Queue a call with these arguments and options.

        Options are `countdown`, `eta`, `expires`, `queue`, `priority`, `task_id`,
        `headers`, `link` and Celery's others. Raises TypeError for arguments that the
        task does not take, MessageError for arguments that cannot be encoded.
        """
        self.check_arguments(args or (), kwargs or {})
        app = self.app  # asked first: it may change the task's options
        call = {**self.sent_options(), **options}
        result: AsyncResult[R] = app.call_task(self, args, kwargs, call)
        return result

    def send_many(
        self, calls: Iterable[Sequence[Any]], **options: Any
    ) -> list[AsyncResult[R]]:
        """Queue a call with each of these lists of arguments; return their results.

        `options` are those of `apply_async`, the same for all. They go in steps of a
        thousand calls, or of a megabyte: in a tenth of the time of as many `delay`.
        Raises CallsNotSent if some cannot be sent, after all others were.
        """
        app = self.app  # asked first: it may change the task's options
        results: list[AsyncResult[R]] = app.call_many(self, calls, options)
        return results

    def apply(
        self, args: Args = None, kwargs: Kwargs = None, **options: Any
    ) -> AsyncResult[R]:
        """Run a call in this thread as a worker would, with retries and links."""
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
    ) -> Signature:
        """Return a call of this task to make later, or to put together with others."""
        return Signature(self, args, kwargs, options, immutable=immutable)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """Return a call whose first argument is the result of the call before it."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """Return a call with these arguments and no other."""
        return self.signature(args, kwargs, immutable=True)

    def map(self, it: Iterable[Any]) -> xmap:
        """Return one call that runs this task's code with each of these arguments."""
        return xmap(self.s(), it)

    def starmap(self, it: Iterable[Sequence[Any]]) -> xstarmap:
        """Return one call that runs this task's code with each list of arguments."""
        return xstarmap(self.s(), it)

    def chunks(self, it: Iterable[Sequence[Any]], n: int) -> chunks:
        """Return a call for each `n` lists of arguments."""
        return chunks(self.s(), it, n)

    def replace(self, sig: Signature) -> NoReturn:
        """End this run and have the call of `sig` take its place.

        It has the id of this run, and all that was to follow from it. Always raises:
        Ignore, in a worker.
        """
        request = self.request
        if "chord" in sig.options:
            raise MessageError("what replaces a task cannot be part of a chord")
        if request.called_directly:
            raise MessageError("a task that was called directly cannot be replaced")
        if sig.subtask_type == "chain" and not [*sig._steps()]:
            raise MessageError("an empty chain cannot take the place of a task")
        self.on_replace(sig)

    def on_replace(self, sig: Signature) -> NoReturn:
        """Have `sig` take the place of this run; a subclass may change it before.

        Always raises, as `replace`.
        """
        self.request.replacement = sig
        raise Ignore("Replaced by new task")

    # Hooks for subclasses, called where the task runs. What a hook raises is logged;
    # only what `before_start` raises makes the run fail.

    def before_start(
        self, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """Called before the task's own code."""

    def on_success(
        self, retval: Any, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """Called when the run has succeeded."""

    def on_failure(
        self,
        exc: BaseException,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo,
    ) -> None:
        """Called when the run has failed."""

    def on_retry(
        self,
        exc: BaseException,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo,
    ) -> None:
        """Called when the task will be tried again."""

    def after_return(
        self,
        status: str,
        retval: Any,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo | None,
    ) -> None:
        """Called when the run has succeeded or failed."""

    def AsyncResult(self, task_id: str) -> AsyncResult[R]:
        """Return the run of this id."""
        return AsyncResult(task_id, app=self.app)

    @property
    def is_coroutine(self) -> bool:
        """Whether a call of the function only returns a coroutine, at once."""
        return inspect.iscoroutinefunction(self._function or self.run)

    @property
    def app(self) -> Application:
        """Return the application that the task belongs to, and is called through."""
        app = self._app()
        app.adopt(self)
        return app

    @property
    def request(self) -> Request:
        """Return the request of the present run; outside of a run, an empty one."""
        request = current_request()
        return request if request and request.task == self.name else Request(self.name)

    def retry(
        self,
        args: Args = None,
        kwargs: Kwargs = None,
        exc: BaseException | type[BaseException] | None = None,
        throw: bool = True,
        eta: datetime | str | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """End this run and have the task tried again, by raising Retry.

        When `max_retries` is used up, `exc` is raised, or MaxRetriesExceeded. With
        `throw=False` the Retry is returned, for the caller to raise or not. Raises
        MessageError for a `countdown` that is no number of seconds, or other options
        that no message can have: the run fails.
        """
        request = self.request
        exc = exc() if isinstance(exc, type) else exc
        if request.called_directly:
            raise exc or Retry("the task was called directly: nobody tries it again")
        limit = self.max_retries if max_retries is None else max_retries
        if limit is not None and request.retries >= limit:
            raise exc or MaxRetriesExceeded(
                f"Can't retry {self.name}[{request.id}] "
                f"args:{request.args} kwargs:{request.kwargs}",
                task_args=request.args,
                task_kwargs=request.kwargs,
            )
        check_options({**options, "eta": eta})
        when: datetime | float
        if eta:  # may be ISO text: messages have it so, and Celery takes it
            when = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
        elif countdown is not None:
            when = _pause("countdown", countdown)
        else:
            when = _pause("default_retry_delay", self.default_retry_delay or 0)
        if (args is None) != (kwargs is None):
            present = request.args, request.kwargs
            args, kwargs = of_next_try(self.parameters, present, args, kwargs)
        request.again = Again(args, kwargs, when, options)
        retry = Retry(exc=exc, when=when)
        if throw:
            raise retry
        return retry

    def retry_after(self, error: BaseException) -> None:
        """Raise Retry if the task's options ask for one after `error` in this run."""
        if isinstance(error, (Verdict, *classes_in(self.dont_autoretry_for))):
            return
        if isinstance(error, classes_in(self.autoretry_for)):
            countdown = self._backoff(self.request.retries)
            self.retry(
                exc=error, **{"countdown": countdown, **(self.retry_kwargs or {})}
            )

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None
    ) -> None:
        """Store how a run goes, for its AsyncResult: a state of any name, and data."""
        run = task_id or self.request.id
        if run and state:
            self.app.store_meta(Meta(run, state, meta))

    def sent_options(self) -> dict[str, Any]:
        """Return the options that each call takes from this task."""
        values = _sent_options_of(self)
        if values == _NOTHING_SENT:
            return {}
        options = zip(SENT_OPTIONS, values, strict=True)
        sent = {name: value for name, value in options if value is not None}
        if sent.get("ignore_result") in (0, 1):  # Celery takes these, messages do not
            sent["ignore_result"] = bool(sent["ignore_result"])
        return sent

    @property
    def is_bound(self) -> bool:
        """Whether the function gets the task as its first argument."""
        return self._bound

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError for arguments that the task does not take, with `typing`."""
        # Most calls have as many arguments as fit, and no names: that is seen at once.
        if self.typing and (kwargs or len(args) not in self._numbers_that_fit):
            self.parameters.bind(*args, **kwargs)

    @cached_property
    def _numbers_that_fit(self) -> range:
        """How many arguments a call without names may have."""
        every = self.parameters.parameters.values()
        needed = [one for one in every if one.default is inspect.Parameter.empty]
        if any(one.kind is inspect.Parameter.KEYWORD_ONLY for one in needed):
            return range(0)
        if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in every):
            most = sys.maxsize - 1
        else:
            most = sum(one.kind in _POSITIONAL for one in every)
        return range(sum(one.kind in _POSITIONAL for one in needed), most + 1)

    @cached_property
    def parameters(self) -> inspect.Signature:
        """Return the parameters that a call has to fill."""
        function = self._function or self.run
        signature = inspect.signature(function)
        if not self._bound:
            return signature
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def _backoff(self, retries: int) -> float | None:
        """Return the seconds before the next try; None: `default_retry_delay`."""
        if not self.retry_backoff:
            return None
        # 2**64 is beyond every maximum; more doublings only make huge numbers.
        doublings = min(retries, 64)
        pause = min(
            self.retry_backoff_max, max(1, int(self.retry_backoff)) * 2**doublings
        )
        return random.randint(0, int(pause)) if self.retry_jitter else pause

    def __repr__(self) -> str:
        return f"<task {self.name}>"
