"""What users hold: an application that sends tasks and reads their results."""

import os
import secrets
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from beatd import settings as reading
from beatd import source
from beatd.app.annotations import Annotations
from beatd.app.conf import Conf, changed, is_schedule, read_object
from beatd.app.connections import Connections
from beatd.app.publishing import after_publish, before_publish, pauses
from beatd.brokers.base import Broadcast, Broker, Outgoing
from beatd.clock import Clock, SystemClock
from beatd.errors import BrokerUnavailable, ConfigError
from beatd.ids import call_id, instant_of_id
from beatd.instant import Instant, Span
from beatd.message import Notice, Sending, template, write_notice
from beatd.results.base import Meta, ResultBackend, State
from beatd.routing import Route
from beatd.settings import Settings
from beatd.source import Source, Unreadable
from beatd.tasks import (
    Registry,
    Request,
    Task,
    current_request,
    import_modules,
    name_of,
    share,
)
from beatd.tasks.async_result import AsyncResult
from beatd.tasks.current import current_app, set_current, set_default
from beatd.worker.sent import sent_with_events

P = ParamSpec("P")
R = TypeVar("R")

Hook = Callable[..., Any]


class Announcement:
    """Something that functions wait for; Celery calls it a signal."""

    def __init__(self) -> None:
        self._hooks: list[Hook] = []

    def connect(self, hook: Hook) -> Hook:
        """Call `hook(sender=app)` when it happens; usable as a decorator."""
        self._hooks.append(hook)
        return hook

    def announce(self, app: "Beatd") -> None:
        """Call the hooks, each once for ever."""
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook(sender=app)


class Beatd:
    """An application: settings, tasks, and the way to the broker and to results.

    `main` stands for `__main__` in the names of tasks. `broker`, `backend`, `include`
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
        named = {"broker_url": broker, "result_backend": backend, "include": include}
        given = {name: value for name, value in named.items() if value is not None}
        self._changes: dict[str, Any] = given | changes
        self._periodic: dict[str, dict[str, Any]] = {}
        self._discovered: list[tuple[Sequence[str] | None, str]] = []
        self._config: Callable[[], Source] = lambda: Source(self._label, {})
        self._settings: Settings | None = None
        self._used = False
        """Whether they came by `use`, and not from what was given here."""
        self._connections: Connections | None = None
        if config_source is not None:
            self.config_from_object(config_source, namespace=namespace)
        if set_as_current:
            set_current(self)

    # Settings

    def config_from_object(
        self, obj: Any, *, namespace: str | None = None, **_unused: Any
    ) -> None:
        """Take settings from a module, by name or as it is, an object, or a dict.

        With a `namespace`, only names that begin with it and an underscore count. What
        is wrong with them is said when they are first needed.
        """
        self._config = lambda: read_object(obj, namespace)
        self._forget_settings()

    def beatd_config(self) -> Source:
        """Give all that the settings are made of, read afresh."""
        found = self._read_config()
        self.on_after_configure.announce(self)
        self.on_after_finalize.announce(self)
        written = changed(found.written, self._changes)
        if self._periodic:
            spelled = next(filter(is_schedule, written), "beat_schedule")
            written[spelled] = {**self._periodic, **dict(written.get(spelled, {}))}
        return Source(found.name, written, found.file, found.text)

    @property
    def settings(self) -> Settings:
        """Give the settings, read once; ConfigError says all that is wrong."""
        if self._settings is None:
            found = self.beatd_config()
            read = reading.read(found.written, environ=os.environ, locate=found.locate)
            errors = [str(one) for one in read.problems if not one.warning]
            if errors:
                raise ConfigError(found.name, errors)
            self._settings = read.settings
        return self._settings

    def use(
        self,
        settings: Settings,
        broker: Broker | None = None,
        backend: ResultBackend | None = None,
    ) -> None:
        """Go by these settings from now on, and in this process by these connections.

        For whoever has read the settings already, from the command line too.
        """
        self._settings = settings
        self._used = True
        self._connections = Connections(settings, broker, backend)

    def change(self, settings: Mapping[str, Any]) -> None:
        """Set some settings, in any spelling."""
        self._changes = changed(self._changes, settings)
        if self._used:
            self._settings = _with(self.settings, settings)
            self._connections = self.connections.by(self._settings)
        else:
            self._forget_settings()

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Mapping[str, Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> str:
        """Add an entry that sends `sig`, a task's signature; give the entry's name."""
        key = name or f"{sig['task']}({', '.join(map(repr, sig.get('args') or ()))})"
        self._periodic[key] = {
            "task": sig["task"],
            "schedule": schedule,
            "args": [*(sig.get("args") or ()), *args],
            "kwargs": {**(sig.get("kwargs") or {}), **(kwargs or {})},
            "options": {**(sig.get("options") or {}), **options},
        }
        if not self._used:
            self._settings = None
        return key

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

        `bind=True` hands the task to its function as the first argument; `name` is made
        from module and function otherwise; `base` is a subclass of Task. The other
        options are the attributes of Task.
        """

        def make(function: Callable[..., Any]) -> Task[..., Any]:
            task = _task_of(function, lambda: self, self.main, options)
            self.tasks.register(task)
            return task

        return make(function) if function else make

    def register_task(self, task: Task[..., Any]) -> Task[..., Any]:
        """Add a task that is an instance of a class of its own."""
        task.name = task.name or name_of(type(task), self.main)
        self.tasks.register(task)
        return task

    def adopt(self, task: Task[..., Any]) -> None:
        """Make a task what `task_annotations` wants it to be, the first time.

        Raises ConfigError for annotations that cannot be used.
        """
        if task in self._adopted:
            return
        annotations = Annotations(self.settings.task_annotations)
        with self._adopting:
            if task not in self._adopted:
                for attributes in annotations.of(task):
                    task.amend(attributes)
                self._adopted.add(task)

    # Calls

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Queue a call of the task of this name, which need not be known here."""
        return self._call(name, args, kwargs, options, registered=False)

    def call_task(
        self,
        task: Task[..., Any],
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> AsyncResult[Any]:
        """Queue a call of a task of ours."""
        settings = self.settings
        if settings.task_always_eager:
            return self.apply_task(task, args, kwargs, options)
        known = {"ignore_result": settings.task_ignore_result, **options}
        if settings.task_default_priority is not None:
            known.setdefault("priority", settings.task_default_priority)
        return self._call(task.name, args, kwargs, known, registered=True)

    def apply_task(
        self,
        task: Task[..., Any],
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> AsyncResult[Any]:
        """Run a call here and now, as a worker would, and what follows from it."""
        from beatd.runs.eager import run_eagerly

        sending = Sending(task.name, args or (), kwargs or {}, options)
        meta = self.connections.runs.explained(run_eagerly(self, sending))
        return AsyncResult.of(meta, app=self)

    def outgoing(
        self, sending: Sending, now: Instant, due: Instant | None = None
    ) -> Outgoing:
        """Give the message of a call that follows from another one."""
        task_id = sending.options.get("task_id") or self._new_id(now)
        known = sending.task in self.tasks
        return self._outgoing(sending, task_id, now, due, registered=known)

    def made_ready(
        self, sends: Sequence[Outgoing], policy: dict[str, Any] | None = None
    ) -> list[Outgoing]:
        """Give these messages as they are to be sent, with what is to go with them.

        Receivers of `before_task_publish` have their say, and monitors get events.
        """
        if policy is None:
            policy = dict(self.settings.task_publish_retry_policy)
        connections = self.connections
        ready = [before_publish(one, connections.router, policy) for one in sends]
        voice = connections.voice if ready else None
        return sent_with_events(voice, ready) if voice else ready

    def _call(
        self,
        name: str,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        *,
        registered: bool,
    ) -> AsyncResult[Any]:
        now = self._clock.now()
        call = dict(options)
        # A drawn id is no option: calls with the same options share what is encoded.
        task_id: str = call.get("task_id") or self._new_id(now)
        parent = current_request()
        if parent is not None and not parent.called_directly:
            self._inherit(parent, call)
        sending = Sending(name, args or (), kwargs or {}, call)
        message = self._outgoing(sending, task_id, now, None, registered=registered)
        self.connections.declare(call)
        settings = self.settings
        policy = {
            **settings.task_publish_retry_policy,
            **(call.get("retry_policy") or {}),
        }
        again = call.get("retry", settings.task_publish_retry)
        ready = self.made_ready([message], policy)
        self._publish(ready, pauses(policy) if again else ())
        after_publish(ready[0])
        result = self.AsyncResult(task_id)
        if parent is not None:
            parent.children.append(result)
        return result

    def _inherit(self, parent: Request, call: dict[str, Any]) -> None:
        """Let a call that a task makes know whose child it is."""
        call.setdefault("root_id", parent.root_id)
        call.setdefault("parent_id", parent.id)
        if self.settings.task_inherit_parent_priority:
            call.setdefault("priority", parent.delivery_info.get("priority"))

    def _outgoing(
        self,
        sending: Sending,
        task_id: str,
        now: Instant,
        due: Instant | None,
        *,
        registered: bool,
    ) -> Outgoing:
        name, args, kwargs, options = sending
        router = self.connections.router
        options = router.options(name, options, args, kwargs)
        route = router.route(name, options, args, kwargs)
        made = template(
            self.connections.format,
            route,
            name,
            args,
            kwargs,
            options,
            registered=registered,
        )
        message = made.complete(id=task_id, tag=str(uuid.uuid4()), now=now)
        return Outgoing(route, message, due)

    def _publish(self, sends: Sequence[Outgoing], pauses: Iterable[float]) -> None:
        """Send, and try again after each of these pauses."""
        for pause in pauses:
            try:
                self.connections.broker.send(sends)
            except BrokerUnavailable:
                threading.Event().wait(pause)
            else:
                return
        self.connections.broker.send(sends)

    def _new_id(self, now: Instant) -> str:
        return call_id(now, secrets.token_bytes(10))

    # Results

    def meta_of(self, task_id: str) -> Meta:
        """Give what is known of a run; PENDING or EXPIRED when nothing is."""
        found = self.connections.runs.load(task_id)
        if found is not None:
            return found
        ttl, sent = self.settings.result_ttl, instant_of_id(task_id)
        if ttl is not None and sent is not None and self._clock.now() - sent > ttl:
            return Meta(task_id, State.EXPIRED)
        return Meta(task_id, State.PENDING)

    def await_meta(self, task_id: str, timeout: Span | None) -> Meta | None:
        """Give the meta once the run has ended; None after `timeout`."""
        return self.connections.runs.wait(task_id, timeout)

    def store_meta(self, meta: Meta) -> None:
        """Keep this of a run that goes on."""
        self.connections.runs.store(meta)

    def forget(self, task_id: str) -> None:
        """Remove what is known of a run."""
        self.connections.runs.forget(task_id)

    # Remote control

    def revoke(
        self,
        task_ids: str | Sequence[str],
        *,
        terminate: bool = False,
        signal: str | None = None,
    ) -> None:
        """Tell all workers, Celery's too, not to begin these runs any more.

        With `terminate`, the processes in which they run are sent `signal` (SIGTERM):
        where each run has a process. Raises ConfigError on a broker that carries no
        remote control.
        """
        arguments = {"task_id": task_ids, "terminate": terminate, "signal": signal}
        self._command("revoke", arguments)

    def _command(self, method: str, arguments: Mapping[str, Any]) -> None:
        broker = self.connections.broker
        if not isinstance(broker, Broadcast):
            problem = "remote control goes over Redis, and this broker is another one"
            raise ConfigError("broker_url", [problem])
        route = Route("", f"{self.settings.control_exchange}.pidbox", "", "fanout")
        command = {
            "method": method,
            "arguments": arguments,
            "destination": None,
            "pattern": None,
            "matcher": None,
        }
        notice = Notice({"clock": 0, "expires": 0}, command)
        tag = str(uuid.uuid4())
        message = write_notice(notice, route, tag=tag, delivery_mode=2)
        broker.send([Outgoing(route, message)])

    # What it stands on

    @property
    def connections(self) -> Connections:
        """Give this process's connections."""
        held = self._connections
        if held is None or held.pid != os.getpid():
            held = self._connections = Connections(self.settings)
        return held

    def AsyncResult(self, task_id: str) -> AsyncResult[Any]:
        """Give the run of this id."""
        return AsyncResult(task_id, app=self)

    def autodiscover_tasks(
        self, packages: Sequence[str] | None = None, related_name: str = "tasks"
    ) -> None:
        """Have `import_tasks` import this module of each package that has one.

        Without `packages`: of Django's installed apps.
        """
        self._discovered.append((packages, related_name))

    def import_tasks(self, more: Sequence[str] = ()) -> None:
        """Import the modules that the settings name, those discovered, and `more`.

        Raises ConfigError that says which fail, and why, and for annotations of tasks
        that cannot be used.
        """
        named = [*self.settings.modules, *more]
        import_modules(dict.fromkeys([*named, *self._modules_found()]))
        list(self.tasks.values())  # adopts them: what is wrong is said now

    def close(self) -> None:
        """Let go of what was connected."""
        if self._connections is not None and self._connections.pid == os.getpid():
            self._connections.close()
        self._connections = None

    def __repr__(self) -> str:
        return f"<Beatd {self._label}>"

    @property
    def _label(self) -> str:
        return self.main or "the app"

    def _read_config(self) -> Source:
        try:
            return self._config()
        except Unreadable as error:
            raise ConfigError(error.source, [str(error.problem)]) from error

    def _forget_settings(self) -> None:
        self._settings = None
        self._used = False
        self.close()

    def _modules_found(self) -> Iterator[str]:
        for packages, related in self._discovered:
            for package in packages if packages is not None else _django_apps():
                if find_spec(package) and find_spec(f"{package}.{related}"):
                    yield f"{package}.{related}"


def _django_apps() -> list[str]:
    apps = source.import_module("django.apps").apps
    return [one.name for one in apps.get_app_configs()]


def _task_of(
    function: Callable[..., Any],
    app: Callable[[], Any],
    main: str,
    options: Mapping[str, Any],
) -> Task[..., Any]:
    given = dict(options)
    kind: type[Task[..., Any]] = given.pop("base", None) or Task
    name = given.pop("name", None) or name_of(function, main)
    return kind(function, app=app, name=name, **given)


@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def shared_task(
    *, bind: Literal[True], **options: Any
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...


@overload
def shared_task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def shared_task(function: Any = None, /, **options: Any) -> Any:
    """Make a task that belongs to no application in particular: each has it.

    It is called through the application that was made last, or else through one that
    the config makes.
    """

    def make(function: Callable[..., Any]) -> Task[..., Any]:
        task = _task_of(function, current_app, "", options)
        share(task)
        return task

    return make(function) if function else make


def _default_app() -> Beatd:
    """Make an application of the config that `beatd` itself would find."""
    app = Beatd(set_as_current=False)
    app._config = lambda: source.of_config(None, os.environ, Path.cwd())
    return app


set_default(_default_app)


def _with(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Give the settings with some of them changed; ConfigError if they cannot be."""
    read = reading.read(changes)
    if read.problems:
        raise ConfigError("the app", list(map(str, read.problems)))
    names = {reading.spellings()[word] for word in changes}
    return replace(settings, **{name: getattr(read.settings, name) for name in names})
