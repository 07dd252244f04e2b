"""Where a message goes: queues, exchanges, priorities, and Celery's routing rules."""

import fnmatch
import importlib
import re
from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, TypeAlias

from beatd.errors import ConfigError, MessageError
from beatd.text import is_encodable, quoted

SEPARATOR = "\x06\x16"
"""What kombu puts between the parts of a list's key and of a binding's member."""

PRIORITY_STEPS = (0, 3, 6, 9)


class Exchange(str):
    """The name of an exchange, with its type: direct, topic or fanout."""

    type: str

    def __new__(cls, name: str = "", type: str = "direct") -> "Exchange":
        exchange = super().__new__(cls, name)
        exchange.type = type
        return exchange


@dataclass(frozen=True, slots=True)
class Queue:
    """A declared queue and the binding by which its exchange reaches it.

    The exchange is an Exchange; or its name, and `exchange_type` says whether it is
    direct, topic or fanout. An empty exchange or routing key stands for the default
    one, as in Celery's `task_queues`; `Router.queue` fills it in.
    """

    name: str
    exchange: str = ""
    exchange_type: str = "direct"
    routing_key: str = ""
    expires: float | None = None
    """Seconds without use after which the broker may delete it (`x-expires`)."""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What else RabbitMQ is told of the queue (`x-queue-type`, say)."""
    durable: bool = True
    auto_delete: bool = False
    exchange_durable: bool = True
    """These three are for RabbitMQ, too: whether it keeps them when it is restarted, or
    the queue when nobody takes from it any more."""
    more: tuple["Queue", ...] = ()
    """Further bindings of it: queues of its name, each with another binding."""

    @property
    def ways(self) -> tuple["Queue", ...]:
        """Return this queue once for each of its bindings."""
        return (self, *self.more)

    def __post_init__(self) -> None:
        if isinstance(self.exchange, Exchange):
            object.__setattr__(self, "exchange_type", self.exchange.type)


def worker_direct(node: str) -> Queue:
    """Return the queue of one worker alone: it takes from it under `worker_direct`."""
    return Queue(f"{node}.dq2", "C.dq2", "direct", node)


def queue_of(declared: Any) -> Queue | None:
    """Return a queue, declared as beatd's or kombu's; None if it is neither."""
    if isinstance(declared, Queue):
        return declared
    if type(declared).__module__.partition(".")[0] != "kombu":
        return None
    # With bindings, kombu has no exchange: none but theirs reach the queue.
    bound = declared.bindings and sorted(declared.bindings, key=_place_of)
    first, *more = (
        Queue(
            declared.name,
            one.exchange.name if one.exchange else "",
            one.exchange.type if one.exchange else "direct",
            one.routing_key or "",
            declared.expires,
            _arguments_of(declared),
            bool(declared.durable),
            bool(declared.auto_delete),
            bool(one.exchange.durable) if one.exchange else True,
        )
        for one in bound or [declared]
    )
    return replace(first, more=tuple(more))


def _arguments_of(declared: Any) -> dict[str, Any]:
    """Return what kombu tells RabbitMQ of a queue, beside `expires`."""
    arguments = dict(declared.queue_arguments or {})
    for name, value in (
        ("x-message-ttl", declared.message_ttl and int(declared.message_ttl * 1000)),
        ("x-max-length", declared.max_length),
        ("x-max-length-bytes", declared.max_length_bytes),
        ("x-max-priority", declared.max_priority),
    ):
        if value is not None:
            arguments[name] = int(value)
    return arguments


def _place_of(binding: Any) -> tuple[str, str]:
    # Kombu has them in a set.
    exchange = binding.exchange.name if binding.exchange else ""
    return exchange, binding.routing_key or ""


@dataclass(frozen=True, slots=True)
class Route:
    """Where one message goes.

    With a `queue`, to that queue. Without one, to every queue that is bound to
    `exchange` under `routing_key`. `exchange` and `routing_key` are also what the
    message's delivery_info says.
    """

    queue: str
    exchange: str = ""
    routing_key: str = ""
    exchange_type: str = "direct"
    priority: int = 0


class Binding(NamedTuple):
    """One way from an exchange to a queue, as the set `_kombu.binding.<exchange>` has.

    `pattern` is the regular expression that kombu makes of a topic key.
    """

    key: str
    pattern: str
    queue: str

    def member(self, separator: str = SEPARATOR) -> str:
        """Return the binding as a member of that set."""
        return separator.join(self)

    def matches(self, exchange_type: str, routing_key: str) -> bool:
        """Return whether a message under `routing_key` reaches the queue."""
        if exchange_type == "topic":
            # The stored pattern is foreign text: the key says the same.
            return _topic_regex(self.key).match(routing_key) is not None
        return exchange_type == "fanout" or self.key == routing_key


def binding_of(queue: Queue) -> Binding:
    """Return the binding of a queue that `Router.queue` has returned."""
    pattern = topic_pattern(queue.routing_key) if queue.exchange_type == "topic" else ""
    return Binding(queue.routing_key, pattern, queue.name)


def bound_queues(
    members: Iterable[str],
    exchange_type: str,
    routing_key: str,
    separator: str = SEPARATOR,
) -> list[str]:
    """Return the queues that a message reaches through an exchange with these bindings.

    Members that are no bindings are passed over; a queue is named once.
    """
    queues = []
    for member in sorted(members):
        parts = member.split(separator)
        if len(parts) == 3 and Binding(*parts).matches(exchange_type, routing_key):
            queues.append(parts[2])
    return list(dict.fromkeys(queues))


def topic_pattern(key: str) -> str:
    """Return the regular expression of a topic key: `*` one word, `#` any number."""
    words = (_WILDCARDS.get(word) or _escaped(word) for word in key.split("."))
    return "^" + r"\.".join(words) + "$"


_WILDCARDS = {"*": r"[^\.]+", "#": r".*?"}


def _escaped(word: str) -> str:
    # Wildcards that are only part of a word stay as they are: kombu's members do so.
    return "".join(c if c.isalnum() or c in "*#" else "\\" + c for c in word)


@lru_cache(maxsize=1024)
def _topic_regex(key: str) -> re.Pattern[str]:
    words = (_WILDCARDS.get(word) or re.escape(word) for word in key.split("."))
    return re.compile(r"\.".join(words) + r"\Z")


def steps_of(options: Mapping[str, Any]) -> tuple[int, ...]:
    """Read `priority_steps` of `broker_transport_options`. Raises ConfigError."""
    given = options.get("priority_steps") or PRIORITY_STEPS
    if not isinstance(given, list | tuple | set | range) or not all(
        isinstance(step, int) for step in given
    ):
        problem = f"priority_steps: expected a list of numbers, got {quoted(given)}"
        raise ConfigError("broker_transport_options", [problem])
    return tuple(sorted(given))


def step_of(priority: int, steps: Sequence[int] = PRIORITY_STEPS) -> int:
    """Return the step of the list for messages of this priority; 0 is taken first."""
    return steps[bisect(steps, min(max(priority, 0), 9)) - 1]


def list_key(queue: str, step: int, separator: str = SEPARATOR) -> str:
    """Return the key of a queue's list for one priority step."""
    return f"{queue}{separator}{step}" if step else queue


def fanout_channel(
    exchange: str,
    routing_key: str,
    db: int,
    prefix: bool | str = True,
    patterns: bool = True,
) -> str:
    """Return the channel on which a fan-out exchange publishes.

    `prefix` and `patterns` are the transport options `fanout_prefix` and
    `fanout_patterns`.
    """
    if prefix is True:
        prefix = "/{db}."
    head = prefix.replace("{db}", str(db)) if prefix else ""
    tail = f"/{routing_key}" if routing_key and patterns else ""
    return f"{head}{exchange}{tail}"


Rule: TypeAlias = Mapping[str, Any]
"""The options in a routing rule, such as queue and priority."""

Lookup: TypeAlias = Callable[..., Any]
"""A router function: (name, args, kwargs, options, task=None) -> rule, queue or None"""


class Router:
    """Finds the way of a task's messages by options, `task_routes` and defaults.

    `routes` has Celery's forms: a mapping or a sequence of pairs, from name, glob with
    `*` or compiled regular expression to a rule or a queue's name; a function; or a
    list of those, of which the first that has an answer decides.
    """

    def __init__(
        self,
        queues: Iterable[Queue] = (),
        default_queue: str = "celery",
        default_exchange: str = "",
        default_exchange_type: str = "direct",
        default_routing_key: str = "",
        routes: Any = None,
        create_missing: bool = True,
        missing_exchange_type: str = "direct",
        default_queue_type: str = "classic",
        missing_queue_type: str = "classic",
        max_priority: int | None = None,
    ) -> None:
        """The last three are for RabbitMQ: what it is told of queues."""
        self.default_queue = default_queue
        self._create_missing = create_missing
        self._missing_type = missing_exchange_type
        self._missing_arguments = _typed(missing_queue_type)
        self._max_priority = max_priority
        self._exchange = default_exchange or default_queue
        self._routing_key = default_routing_key or default_queue
        declared = list(queues) or [
            Queue(
                default_queue,
                exchange_type=default_exchange_type,
                arguments=_typed(default_queue_type),
            )
        ]
        self.queues = {queue.name: self._filled(queue) for queue in declared}
        """The declared queues, by name."""
        self._types = {
            way.exchange: way.exchange_type
            for queue in self.queues.values()
            for way in queue.ways
        }
        self._lookups = _lookups(routes)
        self.is_fixed = all(isinstance(lookup, _Table) for lookup in self._lookups)
        """Whether nothing counts for a route but the task's name and the options."""
        self._routes: dict[Route, Route] = {}

    def queue(self, name: str) -> Queue:
        """Return the queue of that name; one that is missing is made as Celery does."""
        if name in self.queues:
            return self.queues[name]
        if not self._create_missing:
            raise MessageError(
                f"no queue {name!r} in task_queues, and task_create_missing_queues "
                "is off"
            )
        return self._filled(
            Queue(
                name, name, self._missing_type, name, arguments=self._missing_arguments
            )
        )

    def including(self, queue: Queue) -> "Router":
        """Return a router that knows this queue, too."""
        router = copy(self)
        router.queues = {**self.queues, queue.name: self._filled(queue)}
        return router

    def options(
        self,
        task: str,
        options: Mapping[str, Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """Return `options` with what `task_routes` adds to them for this task."""
        for lookup in self._lookups:
            rule = _rule(lookup, task, args, kwargs or {}, options)
            if rule is not None:
                given = {k: v for k, v in options.items() if v is not None}
                return {**rule, **given}
        return options

    def asked(self) -> Any:
        """Return the first router that is code of the user's; None without any."""
        for lookup in self._lookups:
            found = lookup.found if isinstance(lookup, _Named) else lookup
            if not isinstance(found, _Table):
                return found.router if isinstance(found, _OldRouter) else found
        return None

    def route(
        self,
        task: str,
        options: Mapping[str, Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Route:
        """Return the route of one message. Equal routes are one object."""
        return self.routed(task, options, args, kwargs)[1]

    def routed(
        self,
        task: str,
        options: Mapping[str, Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> tuple[Mapping[str, Any], Route]:
        """Return the options of one message as `options` does, and its route.

        Each router is asked once.
        """
        options = self.options(task, options, args, kwargs)
        queue = self.declares(options)
        priority = _option(options, "priority", int, "an integer") or 0
        exchange = _option(options, "exchange", str, "an exchange's name")
        key = _option(options, "routing_key", str, "text")
        kind = _option(options, "exchange_type", str, "direct, topic or fanout")
        if kind is None and exchange in (None, "", queue.exchange):
            kind = queue.exchange_type
        elif kind is None:
            kind = self._types.get(exchange, "direct")
        if kind == "direct" and not (exchange and key):
            route = Route(queue.name, "", queue.name, kind, priority)
        else:
            exchange = exchange or queue.exchange
            route = Route("", exchange, key or queue.routing_key, kind, priority)
        return options, self._routes.setdefault(route, route)

    def declares(self, options: Mapping[str, Any]) -> Queue:
        """Return the queue that Celery's producers declare: named, or the default."""
        name = options.get("queue")
        if queue := queue_of(name):
            return self._filled(queue)
        if name is not None and not (isinstance(name, str) and is_encodable(name)):
            raise MessageError(f"options['queue']: expected a name, got {quoted(name)}")
        return self.queue(name or self.default_queue)

    def _filled(self, queue: Queue) -> Queue:
        arguments = queue.arguments
        if self._max_priority is not None:
            arguments = {"x-max-priority": self._max_priority, **arguments}
        return replace(
            queue,
            arguments=arguments,
            exchange=queue.exchange or self._exchange,
            routing_key=queue.routing_key or self._routing_key,
            more=tuple(map(self._filled, queue.more)),
        )


def _typed(queue_type: str) -> dict[str, Any]:
    return {} if queue_type == "classic" else {"x-queue-type": queue_type}


def _option(options: Mapping[str, Any], name: str, kind: type, expected: str) -> Any:
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, str) and not is_encodable(value):
        expected = f"{expected} in Unicode, without lone surrogates"
    elif isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise MessageError(f"options[{name!r}]: expected {expected}, got {quoted(value)}")


def _lookups(routes: Any) -> list[Lookup]:
    if routes is None:
        return []
    listed = routes if isinstance(routes, list | tuple) else [routes]
    return [_lookup(route) for route in listed]


def _lookup(route: Any) -> Lookup:
    if isinstance(route, Mapping):
        return _Table(route.items())
    if isinstance(route, list | tuple):
        return _Table(route)
    if isinstance(route, str):
        return _Named(route)
    if hasattr(route, "route_for_task"):  # the form of Celery before 4.0
        return _OldRouter(route)
    if callable(route):
        function: Lookup = route
        return function
    expected = "expected a dict, a list of pairs or a function, or its name"
    raise MessageError(f"task_routes: {expected}, got {quoted(route)}")


class _OldRouter:
    """A router of the form of Celery before 4.0."""

    def __init__(self, router: Any) -> None:
        self.router = router

    def __call__(
        self, name: str, args: Any, kwargs: Any, options: Any, **_: Any
    ) -> Any:
        return self.router.route_for_task(name, args, kwargs)


class _Named:
    """A router that is named: `pkg.mod.Router` or `pkg.mod:route`.

    It is imported for the first call: its module may need what is being read.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.found(*args, **named)

    @cached_property
    def found(self) -> Lookup:
        module, colon, path = self._name.partition(":")
        if not colon:
            module, _, path = self._name.rpartition(".")
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        if isinstance(found, type) and hasattr(found, "route_for_task"):
            found = found()
        return _lookup(found)

    def __repr__(self) -> str:
        return repr(self._name)


class _Table:
    """Rules by name, by glob and by regular expression; exact names come first."""

    def __init__(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        self._names: dict[str, Any] = {}
        self._patterns: list[tuple[re.Pattern[str], Any]] = []
        for pair in pairs:
            try:
                key, rule = pair
            except (TypeError, ValueError):
                problem = f"expected a pair of name and rule, got {quoted(pair)}"
                raise MessageError(f"task_routes: {problem}") from None
            if isinstance(key, re.Pattern):
                self._patterns.append((key, rule))
            elif not isinstance(key, str):
                expected = "expected names, globs or compiled patterns as keys"
                raise MessageError(f"task_routes: {expected}, got {quoted(key)}")
            elif "*" in key:
                self._patterns.append((re.compile(fnmatch.translate(key)), rule))
            else:
                self._names[key] = rule
        # Names come from messages, too: the number of remembered ones has a bound.
        self._find = lru_cache(maxsize=4096)(self._first)

    def __call__(self, name: str, *_: Any, **__: Any) -> Any:
        return self._find(name)

    def _first(self, task: str) -> Any:
        if task in self._names:
            return self._names[task]
        for pattern, rule in self._patterns:
            if pattern.match(task):
                return rule
        return None


def _rule(
    lookup: Lookup,
    task: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Rule | None:
    try:
        answer = lookup(task, args, kwargs, options, task=None)
    except Exception as error:  # the user's code
        raise MessageError(f"task_routes: {lookup!r} raised {error!r}") from error
    if answer is None or isinstance(answer, Mapping):
        return answer or None
    if isinstance(answer, str):
        return {"queue": answer}
    raise MessageError(
        f"task_routes[{task!r}]: expected a dict or a queue's name, got {answer!r}"
    )
