"""Who is connected to a call's sending may change it, or only know."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from beatd import signals
from beatd.instant import HOUR
from beatd.tasks import Task
from tests.worker.bench import Bench

Receiver = Callable[..., None]


@pytest.fixture
def before() -> Iterator[Callable[[Receiver], None]]:
    """Connect receivers to `before_task_publish` for the test's time."""
    yield from _connecting(signals.before_task_publish)


@pytest.fixture
def after() -> Iterator[Callable[[Receiver], None]]:
    yield from _connecting(signals.after_task_publish)


def _connecting(signal: signals.Signal) -> Iterator[Callable[[Receiver], None]]:
    connected: list[Receiver] = []

    def connect(receiver: Receiver) -> None:
        connected.append(receiver)
        signal.connect(receiver)

    yield connect
    for receiver in connected:
        signal.disconnect(receiver)


def echo(self: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
    request = self.request
    return [args, kwargs, request.get("trace"), request.correlation_id]


def bench_with_echo(**settings: Any) -> Bench:
    bench = Bench(**settings)
    bench.app.task(name="proj.echo", bind=True)(echo)
    return bench


FORMS = [
    {},
    {"task_protocol": 1},
    {"task_compression": "gzip"},
    {"task_serializer": "msgpack", "accept_content": ["json", "msgpack"]},
    {"task_serializer": "pickle", "accept_content": ["json", "pickle"]},
    {"broker_transport_options": {"body_encoding": "utf-8"}},
]


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_what_a_receiver_changes_is_sent(
    before: Callable[[Receiver], None], settings: dict[str, Any]
) -> None:
    def change(body: Any, headers: Any, properties: Any, **_: Any) -> None:
        args = body["args"] if isinstance(body, dict) else body[0]
        args.append("one more")
        headers["trace"] = "abc"
        properties["correlation_id"] = "mine"

    before(change)
    bench = bench_with_echo(**settings)
    sent = bench.app.send_task("proj.echo", ["as it was"], {"key": "ü"})
    bench.run()

    assert sent.get(timeout=0) == [
        *(["as it was", "one more"], {"key": "ü"}, "abc", "mine"),
    ]


def test_a_receiver_gets_what_celery_gives_it(
    before: Callable[[Receiver], None], after: Callable[[Receiver], None]
) -> None:
    heard: list[dict[str, Any]] = []
    before(lambda **told: heard.append(told))
    after(lambda **told: heard.append(told))
    bench = bench_with_echo()
    policy = {"max_retries": 1}
    sent = bench.app.send_task("proj.echo", [1], queue="slow", retry_policy=policy)

    first, last = heard
    assert (first["sender"], last["sender"]) == ("proj.echo", "proj.echo")
    assert (first["exchange"], first["routing_key"]) == ("", "slow")
    assert [queue.name for queue in first["declare"]] == ["slow"]
    assert first["headers"]["id"] == last["headers"]["id"] == sent.id
    args, kwargs, embed = first["body"]
    assert (args, kwargs, embed["chain"]) == ([1], {}, None)
    assert first["properties"] == {"correlation_id": sent.id, "reply_to": ""}
    assert (first["retry_policy"]["max_retries"], first["retry_policy"]) == (
        *(1, {**bench.settings.task_publish_retry_policy, "max_retries": 1}),
    )
    assert last.keys() == {
        *("signal", "sender", "body", "headers", "exchange", "routing_key"),
    }


def test_what_a_run_sends_passes_receivers_too(
    before: Callable[[Receiver], None], after: Callable[[Receiver], None]
) -> None:
    def number(headers: Any, **_: Any) -> None:
        headers["trace"] = f"try {headers['retries']}"

    published: list[str] = []
    before(number)
    after(lambda sender, **_: published.append(sender))
    bench = Bench()

    @bench.app.task(name="proj.flaky", bind=True)
    def flaky(self: Any) -> Any:
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return self.request.trace

    sent = flaky.delay()
    bench.run()

    traced: Any = sent.get(timeout=0)
    assert traced == "try 1"
    assert published == ["proj.flaky"]  # only the client has published


def test_a_call_that_runs_here_is_not_sent(before: Callable[[Receiver], None]) -> None:
    heard: list[Any] = []
    before(lambda **told: heard.append(told))
    bench = Bench(task_always_eager=True)

    @bench.app.task(name="proj.flaky", bind=True)
    def flaky(self: Any) -> Any:
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return self.request.retries

    assert flaky.delay().get(timeout=0) == 1
    assert heard == []


@pytest.mark.parametrize("fault", ["raises", "breaks it", "takes its name away"])
def test_a_receiver_that_fails_is_logged_and_the_call_is_sent_as_it_was(
    before: Callable[[Receiver], None], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(headers: Any, **_: Any) -> None:
        if fault == "raises":
            raise ValueError("no")
        if fault == "breaks it":
            headers["trace"] = object()
        else:
            del headers["task"]

    before(fail)
    bench = bench_with_echo()
    with caplog.at_level(logging.ERROR):
        sent = bench.app.send_task("proj.echo", [1])
    bench.run()

    assert sent.get(timeout=0)[:3] == [[1], {}, None]
    (record,) = caplog.records
    assert record.__dict__["event"] == "signal.failed"


class Shut:
    """Can be pickled, and not be had back here."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _stay_shut, ()


def _stay_shut() -> None:
    raise KeyError("a module that only workers have")


def test_a_call_that_cannot_be_opened_for_receivers_is_sent_once_as_it_is(
    before: Callable[[Receiver], None],
    after: Callable[[Receiver], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[Any] = []
    before(lambda **told: heard.append(told))
    after(lambda **told: heard.append(told))
    bench = Bench(task_serializer="pickle", accept_content=["json", "pickle"])

    with caplog.at_level(logging.ERROR):
        bench.app.send_task("proj.echo", [Shut()])

    bench.broker.join("reader", HOUR)
    assert len(bench.broker.take("reader", ["celery"], 9, 1)) == 1
    assert heard == []
    assert [
        (record.__dict__["event"], record.__dict__["signal"])
        for record in caplog.records
    ] == [
        ("signal.failed", "before_task_publish"),
        ("signal.failed", "after_task_publish"),
    ]
