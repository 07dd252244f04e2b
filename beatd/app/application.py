"""What users hold: an application that sends tasks and reads their results."""

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from beatd.app import django
from beatd.app.annotations import Annotations
from beatd.app.announcement import Announcement
from beatd.app.calls import Calls
from beatd.app.celery_names import CeleryNames
from beatd.app.conf import Conf, GivenConfig, read_object, settings_of, with_changes
from beatd.app.connections import Connections
from beatd.app.discovery import Discovery, Packages
from beatd.app.entry_calls import EntryCalls
from beatd.app.recorder import CallRecorder
from beatd.app.remote_control import Control
from beatd.brokers.base import Broker
from beatd.brokers.items import Outgoing
from beatd.clock import Clock, SystemClock
from beatd.config.settings import Settings
from beatd.config.source import Source
from beatd.errors import MessageError
from beatd.ids import instant_of_id
from beatd.instant import Instant, Span
from beatd.message import MessageFormat, Sending
from beatd.results.base import Meta, ResultBackend, State
from beatd.routing import Router
from beatd.tasks import (
    Registry,
    Signature,
    Task,
    import_modules,
    name_of,
    signature,
    task_of,
)
from beatd.tasks.async_result import AsyncResult
from beatd.tasks.current import Args, Kwargs, set_current
from beatd.tasks.group_result import result_from_tuple

P = ParamSpec("P")
R = TypeVar("R")


class Beatd(CeleryNames):
    """An application: settings, tasks, and the way to the broker and to results.

    `main` stands for `__main__` in the names of tasks; `task_cls` is the class of all
    tasks that have none of their own, or `module:Class`. `broker`, `backend`, `include`
    and further keywords are settings; what they say goes before the config. Nothing is
    read and nothing is connected before it is needed.
    """

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
        include: Sequence[str] | None = None,
        config_source: Any = None,
        namespace: str | None = None,
        task_cls: type[Task[..., Any]] | str | None = None,
        set_as_current: bool = True,
        clock: Clock | None = None,
        **changes: Any,
    ) -> None:
        self.main = main or ""
        self.tasks = Registry(self.adopt)
        self.conf = Conf(self)
        self.on_after_configure = Announcement()
        self.on_after_finalize = Announcement()
        self._adopted: set[Task[..., Any]] = set()
        self._adopting = threading.Lock()
        self._clock = clock or SystemClock()
        self._calls = Calls(self, self._clock)
        named = {"broker_url": broker, "result_backend": backend, "include": include}
        given = {name: value for name, value in named.items() if value is not None}
        self._given = GivenConfig(lambda: Source(self._label, {}), given | changes)
        self._task_cls = task_cls
        self._discovery = Discovery()
        self._settings: Settings | None = None
        self._used = False
        """Whether the settings came by `use`, and not from the given config."""
        self._connections: dict[int, Connections] = {}
        """The connections of this process, by its id: a forked process has others."""
        if config_source is not None:
            self.config_from_object(config_source, namespace=namespace)
        if set_as_current:
            set_current(self)

    # Settings

    def config_from_object(
        self, obj: Any, *, namespace: str | None = None, **_unused: Any
    ) -> None:
        """Take settings from a module, by name or as it is, an object, or a dict.

        With a `namespace`, only names that begin with it and an underscore count.
        Problems of the settings are raised when the settings are first needed.
        """
        self._given.take(lambda: read_object(obj, namespace))
        self._forget_settings()

    def beatd_config(self) -> Source:
        """Return all that the settings are made of, read afresh. Raises ConfigError."""
        return self._given.read(self._announce)

    @property
    def settings(self) -> Settings:
        """Return the settings, read once; ConfigError says all that is wrong."""
        if self._settings is None:
            self._settings = settings_of(self.beatd_config())
        return self._settings

    def use(
        self,
        settings: Settings,
        broker: Broker | None = None,
        backend: ResultBackend | None = None,
    ) -> None:
        """Use these settings from now on, and these connections in this process.

        For a caller that has read the settings already, with the command line.
        """
        self._settings = settings
        self._used = True
        self._connections = {os.getpid(): Connections(settings, broker, backend)}

    def own_setting(self, name: str) -> Any:
        """Return what the config has under a name that is no setting, or KeyError."""
        _ = self.settings  # reads the config
        return self._given.written(name)

    def change(self, settings: Mapping[str, Any]) -> None:
        """Set some settings, in any spelling."""
        self._given.change(settings)
        if self._used:
            self._settings = with_changes(self.settings, settings)
            self._connections = {os.getpid(): self.connections.by(self._settings)}
        else:
            self._forget_settings()

    def gen_task_name(self, name: str, module: str) -> str:
        """Return the name that a function of this name and module has as a task."""
        return name_of(name, module, self.main)

    def add_defaults(self, settings: Any) -> None:
        """Take these settings, or what this function returns, where none are set."""
        self._given.add_defaults(settings)
        self._forget_settings()

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Mapping[str, Any] | Task[..., Any],
        args: Args = None,
        kwargs: Kwargs = None,
        name: str | None = None,
        **options: Any,
    ) -> str:
        """Add an entry that sends `sig`, a task or its signature; return its name.

        `args` go before its own. Raises MessageError for a chain, a group or a chord.
        """
        call = signature(sig).clone(args, kwargs, **options)
        if call.subtask_type:
            problem = f"an entry sends one call, and this is a {call.subtask_type}"
            raise MessageError(f"{problem}: write a task that sends it")
        parts = {"task": call.task, "args": [*call.args], "kwargs": call.kwargs}
        entry = {"schedule": schedule, "options": call.options, **parts}
        self._given.add_entry(name or repr(call), entry)
        if not self._used:
            self._settings = None
        return name or repr(call)

    # Tasks

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self, /, *, bind: Literal[True], **options: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...

    @overload
    def task(self, /, **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, function: Any = None, /, **options: Any) -> Any:
        """Make a task of the function below it: `@app.task` or `@app.task(...)`.

        With `bind=True` the function gets the task as its first argument. `name` is
        by default made of the names of module and function; `base` is a subclass of
        Task. The other options are the attributes of Task.
        """

        def make(function: Callable[..., Any]) -> Task[..., Any]:
            name = self.gen_task_name(function.__name__, function.__module__)
            task = task_of(function, lambda: self, {"name": name, **options})
            self.tasks.register(task)
            return task

        return make(function) if function else make

    def register_task(
        self, task: Task[..., Any] | type[Task[..., Any]]
    ) -> Task[..., Any]:
        """Add a task that has a class of its own, or the one task of this class."""
        task = task() if isinstance(task, type) else task
        task.belong_to(self)
        kind = type(task)
        task.name = task.name or self.gen_task_name(kind.__name__, kind.__module__)
        self.tasks.register(task)
        return task

    def adopt(self, task: Task[..., Any]) -> None:
        """Change a task as `task_annotations` says, once.

        Raises ConfigError for annotations that cannot be used.
        """
        if task in self._adopted:
            return
        annotations = Annotations(self.settings.task_annotations)
        with self._adopting:
            if task not in self._adopted:
                task.join(self.Task)
                for attributes in annotations.of(task):
                    task.amend(attributes)
                self._adopted.add(task)

    # Calls

    def send_task(
        self, name: str, args: Args = None, kwargs: Kwargs = None, **options: Any
    ) -> AsyncResult[Any]:
        """Queue a call of the task of this name, even if no such task is known here."""
        sending = Sending(name, args or (), kwargs or {}, options)
        return self._calls.send(sending, registered=False)

    def call_task(
        self,
        task: Task[..., Any],
        args: Args,
        kwargs: Kwargs,
        options: Mapping[str, Any],
    ) -> AsyncResult[Any]:
        """Queue a call of a task of this application."""
        kept = isinstance(options.get("producer"), CallRecorder)
        if self.settings.task_always_eager and not kept:
            return self.apply_task(task, args, kwargs, options)
        sending = Sending(task.name, args or (), kwargs or {}, options)
        return self._calls.send(sending, registered=True)

    def send_many(self, signatures: Iterable[Mapping[str, Any]]) -> list[Any]:
        """Queue the calls of these signatures; return their results, in order.

        They go in steps of a thousand calls, or of a megabyte. Raises CallsNotSent if
        some cannot be sent, after all others were. What is put together of several
        calls, and a call of a task that has an `apply_async` of its own, is sent by its
        `apply_async`.
        """
        made = (
            one if isinstance(one, Signature) else signature(one, app=self)
            for one in signatures
        )
        return self._calls.send_many([*made])

    def call_many(
        self,
        task: Task[..., Any],
        calls: Iterable[Sequence[Any]],
        options: Mapping[str, Any],
    ) -> list[Any]:
        """Queue a call of a task of this application with each of these arguments.

        Returns their results, in order. Raises CallsNotSent as `send_many` does.
        """
        return self._calls.send_many_of(task, [*calls], options)

    def entry_calls(self, format: MessageFormat, router: Router) -> EntryCalls:
        """Return what makes the calls of entries, whose messages are kept."""
        return EntryCalls(self, self._calls, format, router)

    def call_composed(self, signature: Mapping[str, Any]) -> None:
        """Queue the calls that a signature with ids stands for: all, or none.

        Raises ChordError if the result back end counts no chords.
        """
        self._calls.send_composed(signature)

    def apply_task(
        self,
        task: Task[..., Any] | Signature,
        args: Args,
        kwargs: Kwargs,
        options: Mapping[str, Any],
    ) -> AsyncResult[Any]:
        """Run a call here and now, as a worker would, and all that follows from it.

        With the option `throw`, raises what the task raised.
        """
        from beatd.runs.eager import run_eagerly

        options = {**self._calls.inherited(options), **options}
        throw = options.pop("throw", None)
        sending = Sending(task.name, args or (), kwargs or {}, options)
        meta = run_eagerly(self, sending, throw)
        return AsyncResult.of(self.connections.results.explained(meta), app=self)

    def outgoing(
        self, sending: Sending, now: Instant, due: Instant | None = None
    ) -> Outgoing:
        """Return the message of a call that follows from another call."""
        return self._calls.message(sending, now, due)

    def made_ready(self, sends: Sequence[Outgoing]) -> list[Outgoing]:
        """Return these messages as they are sent, and events of them for monitors."""
        return self._calls.sender.made_ready(sends)

    # Results

    def meta_of(self, task_id: str) -> Meta:
        """Return what is known of a run; PENDING or EXPIRED when nothing is."""
        found = self.connections.results.load(task_id)
        if found is not None:
            return found
        ttl, sent = self.settings.result_ttl, instant_of_id(task_id)
        if ttl is not None and sent is not None and self._clock.now() - sent > ttl:
            return Meta(task_id, State.EXPIRED)
        return Meta(task_id, State.PENDING)

    def await_meta(self, task_id: str, timeout: Span | None) -> Meta | None:
        """Return the meta once the run has ended; None after `timeout`."""
        return self.connections.results.wait(task_id, timeout)

    def results_of(self, written: Sequence[Any]) -> list[Any]:
        """Return the results of the runs and groups that a meta has as its children."""
        return [result_from_tuple(one, self) for one in written]

    def store_meta(self, meta: Meta) -> None:
        """Store this of a run that goes on."""
        self.connections.results.store(meta)

    def forget(self, task_id: str) -> None:
        """Remove what is stored of a run."""
        self.connections.results.forget(task_id)

    # Remote control

    def revoke(
        self,
        task_ids: str | Sequence[str],
        *,
        terminate: bool = False,
        signal: str | None = None,
    ) -> None:
        """Tell all workers, Celery's too, not to begin these runs any more.

        With `terminate`, the processes of runs that have begun are sent `signal`
        (SIGTERM), where each run has a process of its own. Raises ConfigError on a
        broker that carries no remote control.
        """
        self.control.revoke(task_ids, terminate=terminate, signal=signal)

    @property
    def control(self) -> Control:
        """Return what sends commands to workers, and asks them."""
        return Control(lambda: self.connections)

    # Connections, modules

    @property
    def connections(self) -> Connections:
        """Return the connections of this process."""
        pid = os.getpid()
        # In one step: threads that ask at the same time get the same ones.
        return self._connections.get(pid) or self._connections.setdefault(
            pid, Connections(self.settings)
        )

    def new_id(self) -> str:
        """Return an id for a call that is made now."""
        return self._calls.new_id()

    def AsyncResult(self, task_id: str) -> AsyncResult[Any]:
        """Return the run of this id."""
        return AsyncResult(task_id, app=self)

    def autodiscover_tasks(
        self,
        packages: Packages = None,
        related_name: str | None = "tasks",
        force: bool = False,
    ) -> None:
        """Have `import_tasks` import the module of this name in each package.

        Without `packages`, in Django's installed apps. A package may have none.
        With `force`, they are imported now.
        """
        self._discovery.add(packages, related_name)
        if force:
            import_modules(self._discovery.modules())

    def import_tasks(self, more: Sequence[str] = ()) -> None:
        """Import the modules that the settings name, those discovered, and `more`.

        Raises ConfigError, which says which cannot be imported and why, and for
        annotations of tasks that cannot be used.
        """
        if django.is_named():
            django.set_up()
        named = [*self.settings.modules, *more]
        import_modules(dict.fromkeys([*named, *self._discovery.modules()]))
        list(self.tasks.values())  # adopts them all: problems are raised now

    def close(self) -> None:
        """Close the connections of this process."""
        if opened := self._connections.get(os.getpid()):
            opened.close()
        self._connections = {}

    def __repr__(self) -> str:
        return f"<Beatd {self._label}>"

    @property
    def _label(self) -> str:
        return self.main or "the app"

    def _announce(self) -> None:
        self.on_after_configure.announce(self)
        self.on_after_finalize.announce(self)

    def _forget_settings(self) -> None:
        self._settings = None
        self._used = False
        self.close()
