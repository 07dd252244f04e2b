import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest

from beatd.errors import MessageError
from beatd.routing import (
    Binding,
    Queue,
    Route,
    Router,
    binding_of,
    bound_queues,
    fanout_channel,
    list_key,
    queue_of,
    step_of,
    topic_pattern,
)

TOPIC = Queue("reports", "media", "topic", "media.video.*")


def to(queue: str, priority: int = 0) -> Route:
    return Route(queue, "", queue, "direct", priority)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, to("celery")),
        ({"queue": "low"}, to("low")),
        ({"queue": "low", "priority": 7}, to("low", 7)),
        ({"queue": None, "priority": None}, to("celery")),
        ({"queue": Queue("low")}, to("low")),
        # Without a key the exchange of a direct queue is not needed.
        ({"exchange": "other"}, to("celery")),
        (
            {"exchange": "other", "routing_key": "a.b"},
            Route("", "other", "a.b", "direct"),
        ),
        ({"queue": "reports"}, Route("", "media", "media.video.*", "topic")),
        (
            {"queue": "reports", "routing_key": "media.video.x"},
            Route("", "media", "media.video.x", "topic"),
        ),
        # A declared exchange has a type, even without its queue.
        (
            {"exchange": "media", "routing_key": "k"},
            Route("", "media", "k", "topic"),
        ),
        (
            {"exchange": "other", "routing_key": "k", "exchange_type": "fanout"},
            Route("", "other", "k", "fanout"),
        ),
        ({"queue": "news"}, Route("", "news", "celery", "fanout")),
    ],
)
def test_options_say_where_a_message_goes(
    options: dict[str, Any], expected: Route
) -> None:
    router = Router([Queue("celery"), TOPIC, Queue("news", "news", "fanout")])

    assert router.route("any.task", options) == expected


def test_what_settings_leave_out_has_celery_s_defaults() -> None:
    assert Router().queue("celery") == Queue("celery", "celery", "direct", "celery")
    router = Router([Queue("low")], default_queue="main", default_exchange="x")

    assert router.queue("low") == Queue("low", "x", "direct", "main")
    assert router.queue("made.up") == Queue("made.up", "made.up", "direct", "made.up")


def test_the_default_exchange_type_is_that_of_the_default_queue() -> None:
    router = Router(default_exchange_type="topic", default_routing_key="task.default")

    assert router.route("t", {}) == Route("", "celery", "task.default", "topic")


def test_a_queue_that_is_missing_is_an_error_if_none_is_to_be_made() -> None:
    router = Router([Queue("low")], default_queue="low", create_missing=False)

    assert router.route("t", {"queue": "low"}) == to("low")
    with pytest.raises(MessageError, match="no queue 'lwo' in task_queues"):
        router.route("t", {"queue": "lwo"})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("topic", Route("", "made.up", "made.up", "topic")),
        ("fanout", Route("", "made.up", "made.up", "fanout")),
        ("direct", to("made.up")),
    ],
)
def test_a_queue_that_is_made_up_has_an_exchange_of_the_type_asked_for(
    kind: str, expected: Route
) -> None:
    router = Router([Queue("low")], missing_exchange_type=kind)

    assert router.queue("made.up") == Queue("made.up", "made.up", kind, "made.up")
    assert router.route("t", {"queue": "made.up"}) == expected
    assert router.route("t", {"queue": "low"}) == to("low")


def by_name(name: str, *_: Any, **__: Any) -> Any:
    return {"mail.send": "post", "mail.read": {"queue": "post"}}.get(name)


class Old:
    def route_for_task(self, name: str, args: Any, kwargs: Any) -> Any:
        return {"queue": kwargs["where"]} if kwargs else None


@pytest.mark.parametrize(
    ("routes", "task", "expected"),
    [
        ({"mail.send": "post"}, "mail.send", to("post")),
        ({"mail.send": {"queue": "post", "priority": 3}}, "mail.send", to("post", 3)),
        ({"mail.send": "post"}, "mail.sender", to("celery")),
        ({"mail.*": "post"}, "mail.send", to("post")),
        ({"mail.*": "post"}, "gmail.send", to("celery")),
        ({"mail.*": "post", "mail.send": "fast"}, "mail.send", to("fast")),
        ({re.compile(r"mail\.(send|read)"): "post"}, "mail.read", to("post")),
        ([[("mail.*", "post"), ("*", "rest")]], "other", to("rest")),
        ([{"a": "qa"}, {"*": "rest"}], "b", to("rest")),
        (by_name, "mail.send", to("post")),
        ([by_name, {"*": "rest"}], "other", to("rest")),
        # A rule may leave the queue as it is.
        ({"*": {"priority": 9}}, "t", to("celery", 9)),
        ({"mail.?": "post"}, "mail.x", to("celery")),
    ],
)
def test_task_routes_has_celery_s_forms(
    routes: Any, task: str, expected: Route
) -> None:
    assert Router(routes=routes).route(task, {}) == expected


def test_options_go_before_rules_and_rules_before_defaults() -> None:
    router = Router(routes={"*": {"queue": "rule", "priority": 3, "expires": 60}})

    assert router.route("t", {"queue": "own"}) == to("own", 3)
    assert router.options("t", {"queue": "own", "priority": None}) == {
        "queue": "own",
        "priority": 3,
        "expires": 60,
    }


def test_routers_of_celery_3_are_asked_too() -> None:
    router = Router(routes=[Old()])

    assert router.route("t", {}, (), {"where": "low"}) == to("low")
    assert router.route("t", {}) == to("celery")


def test_equal_routes_are_one_object() -> None:
    router = Router()

    assert router.route("a", {"queue": "low"}) is router.route("b", {"queue": "low"})


def raising(*_: Any, **__: Any) -> Any:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Router().route("t", {"queue": 3}), "options['queue']: expected a na"),
        (lambda: Router().route("t", {"priority": "high"}), "expected an integer, got"),
        (lambda: Router().route("t", {"priority": True}), "expected an integer, got T"),
        (lambda: Router().route("t", {"exchange": 1}), "options['exchange']: expected"),
        (lambda: Router(routes=5), "task_routes: expected a dict, a list of pairs or"),
        (lambda: Router(routes=[("a.*", {"queue": "x"})]), "expected a pair of name"),
        (lambda: Router(routes={"t": 5}).route("t", {}), "task_routes['t']: expected"),
        (lambda: Router(routes=raising).route("t", {}), "raised KeyError('x')"),
    ],
)
def test_what_cannot_be_routed_is_an_error(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(MessageError, match=re.escape(said)):
        make()


@pytest.mark.parametrize(
    ("priority", "step"),
    [(-3, 0), (0, 0), (2, 0), (3, 3), (5, 3), (6, 6), (9, 9), (12, 9), (255, 9)],
)
def test_a_priority_has_the_step_below_it(priority: int, step: int) -> None:
    assert step_of(priority) == step


def test_step_zero_has_the_queue_s_own_list() -> None:
    assert list_key("low", 0) == "low"
    assert list_key("low", 3) == "low\x06\x163"
    assert list_key("low", 3, ":") == "low:3"


@pytest.mark.parametrize(
    ("key", "pattern"),
    [
        ("media.video.*", r"^media\.video\.[^\.]+$"),
        ("ledger.#", r"^ledger\..*?$"),
        ("a-b.c_d", r"^a\-b\.c\_d$"),
        ("", "^$"),
    ],
)
def test_a_topic_key_becomes_kombu_s_expression(key: str, pattern: str) -> None:
    assert topic_pattern(key) == pattern
    assert binding_of(Queue("q", "x", "topic", key)) == Binding(key, pattern, "q")


@pytest.mark.parametrize(
    ("key", "routing_key", "reached"),
    [
        ("media.video.*", "media.video.encode", True),
        ("media.video.*", "media.video.encode.fast", False),
        ("media.video.*", "media.video.", False),
        ("ledger.#", "ledger.eu.post", True),
        ("ledger.#", "ledger", False),
        ("#", "", True),
        ("a+b", "a+b", True),
        ("a+b", "aab", False),
        ("a", "a\n", False),
    ],
)
def test_a_topic_reaches_the_keys_that_fit(
    key: str, routing_key: str, reached: bool
) -> None:
    members = [f"{key}\x06\x16^unused$\x06\x16reports"]

    found = bound_queues(members, "topic", routing_key)

    assert found == (["reports"] if reached else [])


def test_every_bound_queue_is_reached_once() -> None:
    members = {
        "k\x06\x16\x06\x16low",
        "k\x06\x16\x06\x16high",
        "j\x06\x16\x06\x16other",
        "k\x06\x16x\x06\x16low",
        "no binding",
    }

    assert bound_queues(members, "direct", "k") == ["high", "low"]
    assert bound_queues(members, "fanout", "k") == ["other", "high", "low"]


@pytest.mark.parametrize(
    ("settings", "channel"),
    [
        ({}, "/0.news/celery"),
        ({"db": 3}, "/3.news/celery"),
        ({"prefix": False}, "news/celery"),
        ({"prefix": "/{db}-wire."}, "/0-wire.news/celery"),
        ({"patterns": False}, "/0.news"),
        ({"routing_key": ""}, "/0.news"),
    ],
)
def test_a_fan_out_exchange_has_a_channel(
    settings: dict[str, Any], channel: str
) -> None:
    said = {"exchange": "news", "routing_key": "celery", "db": 0, **settings}

    assert fanout_channel(**said) == channel


class OldRouter:
    """A router of the form that Celery had before 4.0."""

    def route_for_task(self, task: str, *_: Any) -> dict[str, Any] | None:
        return {"queue": "old"} if task == "old" else None


def by_function(name: str, *_: Any, **__: Any) -> str | None:
    return "function" if name == "new" else None


@pytest.mark.parametrize("form", [list, tuple])
def test_a_router_may_be_named(form: Callable[[list[str]], Any]) -> None:
    names = [f"{__name__}.OldRouter", f"{__name__}:by_function"]
    router = Router(routes=form(names))

    assert router.route("old", {}) == to("old")
    assert router.route("new", {}) == to("function")
    assert router.route("other", {}) == to("celery")


@pytest.mark.parametrize("name", ["no_such_module.route", "os:no_such", "alone"])
def test_a_router_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(MessageError, match=f"task_routes: '{name}' raised "):
        Router(routes=name).route("t", {})


def test_a_queue_of_kombu_has_all_its_bindings_and_no_other() -> None:
    kombu: Any = import_module("kombu")  # it is untyped
    topic = kombu.Exchange("sports", type="topic")
    bindings = [
        kombu.binding(topic, routing_key="ball.*"),
        kombu.binding(kombu.Exchange("alarms"), routing_key="fire"),
    ]
    declared = queue_of(kombu.Queue("news", bindings, expires=60))
    assert declared is not None

    queue = Router([Queue("celery"), declared]).queue("news")

    assert queue.ways == (
        replace(Queue("news", "alarms", "direct", "fire", 60), more=queue.more),
        Queue("news", "sports", "topic", "ball.*", 60),
    )


def test_each_exchange_that_is_bound_to_a_queue_has_its_type() -> None:
    further = Queue("news", "sports", "topic", "ball.*")
    router = Router([Queue("news", "alarms", routing_key="fire", more=(further,))])

    route = router.route("t", {"exchange": "sports", "routing_key": "ball.x"})

    assert route.exchange_type == "topic"
