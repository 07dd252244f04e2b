"""What a task is: its name, its calls, its request, its retries."""

import asyncio
import base64
import contextlib
import contextvars
import copy
import json
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from beatd import Beatd
from beatd.errors import ConfigError, MaxRetriesExceeded, NotRegistered, Retry
from beatd.instant import Span
from beatd.message import read_body, read_envelope
from beatd.results.base import Meta
from beatd.tasks import (
    Registry,
    Request,
    Task,
    current_request,
    import_modules,
    name_of,
    running,
    share,
)


class FakeApp(Beatd):
    """Notes what is called."""

    def __init__(self) -> None:
        super().__init__(set_as_current=False)
        self.calls: list[tuple[Any, Any, Any]] = []
        self.metas: list[Meta] = []

    def adopt(self, task: Any) -> None:
        pass

    def call_task(
        self,
        task: Any,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> Any:
        self.calls.append((args, kwargs, dict(options)))

    apply_task = call_task

    def meta_of(self, task_id: str) -> Meta:
        return Meta(task_id, "PENDING")

    def await_meta(self, task_id: str, timeout: Span | None) -> Meta | None:
        return None

    def store_meta(self, meta: Meta) -> None:
        self.metas.append(meta)

    def forget(self, task_id: str) -> None:
        pass

    def revoke(
        self,
        task_ids: str | Sequence[str],
        *,
        terminate: bool = False,
        signal: str | None = None,
    ) -> None:
        pass


@pytest.fixture
def app() -> FakeApp:
    return FakeApp()


def add(x: int, y: int) -> int:
    """Return the sum."""
    return x + y


def task_of(function: Any, app: FakeApp, **options: Any) -> Task[..., Any]:
    return Task(function, app=lambda: app, name="proj.it", **options)


def in_a_run(task: Task[..., Any], **fields: Any) -> Request:
    return Request(task.name, id="the-id", called_directly=False, **fields)


# Calling


def test_a_task_looks_like_its_function(app: FakeApp) -> None:
    task: Any = task_of(add, app)

    assert (task.__name__, task.__doc__) == ("add", "Return the sum.")
    assert task.__wrapped__ is add


def test_a_call_runs_the_function_here(app: FakeApp) -> None:
    assert task_of(add, app)(2, y=3) == 5


def test_delay_queues_the_arguments_as_they_are(app: FakeApp) -> None:
    task_of(add, app).delay(2, y=3)

    assert app.calls == [((2,), {"y": 3}, {})]


def test_the_tasks_own_options_go_with_a_call_unless_it_has_others(
    app: FakeApp,
) -> None:
    task = task_of(add, app, queue="slow", priority=0, max_retries=9)
    task.apply_async((1, 2), priority=5, countdown=3)

    ((_, _, options),) = app.calls
    assert options == {"queue": "slow", "priority": 5, "countdown": 3}


@pytest.mark.parametrize("arguments", [(), (1,), (1, 2, 3)])
def test_arguments_are_checked_where_the_task_is_called(
    app: FakeApp, arguments: tuple[int, ...]
) -> None:
    with pytest.raises(TypeError):
        task_of(add, app).delay(*arguments)

    assert app.calls == []


def test_the_check_of_arguments_can_be_left_out(app: FakeApp) -> None:
    task_of(add, app, typing=False).delay(1)

    assert len(app.calls) == 1


def test_a_bound_task_is_called_without_itself(app: FakeApp) -> None:
    def scale(self: Task[..., Any], x: int) -> tuple[str, int]:
        return self.name, x

    task = task_of(scale, app, bind=True)
    task.delay(1)

    assert task(4) == ("proj.it", 4)
    assert app.calls == [((1,), {}, {})]


def test_a_signature_is_what_celery_puts_into_messages(app: FakeApp) -> None:
    task = task_of(add, app)

    assert task.s(1) == {
        "task": "proj.it",
        "args": (1,),
        "kwargs": {},
        "options": {},
        "subtask_type": None,
        "immutable": False,
    }
    assert task.si(1)["immutable"] is True
    assert task.signature((1, 2), countdown=9)["options"] == {"countdown": 9}


def test_a_class_may_be_a_task(app: FakeApp) -> None:
    class Doubling(Task[[int], int]):
        name = "proj.doubling"
        max_retries = 7

        def run(self, x: int) -> int:
            return 2 * x

    task = Doubling(app=lambda: app)

    assert task(4) == 8
    assert task.max_retries == 7
    with pytest.raises(TypeError):
        task.delay()  # type: ignore[call-arg]  # the mistake under test


# The request


def test_a_run_sees_its_request_and_a_call_inside_it_an_own_one(app: FakeApp) -> None:
    def inner(self: Task[..., Any]) -> bool:
        return self.request.called_directly

    inside: Task[..., bool] = Task(inner, app=lambda: app, name="proj.inner", bind=True)

    def outer(self: Task[..., Any]) -> list[Any]:
        return [self.request.id, inside(), self.request.id]

    task = task_of(outer, app, bind=True)
    with running(in_a_run(task)):
        seen = task.run()

    assert seen == ["the-id", True, "the-id"]


def test_outside_of_a_run_the_request_says_so(app: FakeApp) -> None:
    request = task_of(add, app).request

    assert request.id is None
    assert request.called_directly


def test_threads_and_coroutines_each_see_their_own_request(app: FakeApp) -> None:
    task = task_of(add, app)
    seen: dict[str, Any] = {}

    def look(name: str) -> None:
        with running(Request(task.name, id=name)):
            barrier.wait()
            seen[name] = task.request.id

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=look, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def looking(name: str) -> str | None:
        with running(Request(task.name, id=name)):
            await asyncio.sleep(0)
            return task.request.id

    async def both() -> list[str | None]:
        return [*await asyncio.gather(looking("c"), looking("d"))]

    assert seen == {"a": "a", "b": "b"}
    assert asyncio.run(both()) == ["c", "d"]


def test_a_coroutine_that_is_called_has_its_request_when_it_runs(app: FakeApp) -> None:
    async def who(self: Task[..., Any], word: str) -> tuple[Any, bool]:
        await asyncio.sleep(0)
        return self.request.args, self.request.called_directly

    task = task_of(who, app, bind=True)

    assert asyncio.run(task("x")) == (("x",), True)
    assert current_request() is None


def test_custom_headers_are_attributes_of_the_request() -> None:
    request = Request(headers={"colour": "red", "id": "not this"}, id="the-id")

    assert request.colour == "red"
    assert request.id == "the-id"
    assert request.get("size", 4) == 4
    with pytest.raises(AttributeError, match="'size'"):
        _ = request.size


def test_headers_are_read_from_the_message_when_somebody_asks_for_them() -> None:
    message = {
        "body": base64.b64encode(b"[[], {}, {}]").decode(),
        "content-type": "application/json",
        "headers": {"task": "add", "id": "the-id", "retries": 0, "colour": "red"},
        "properties": {"correlation_id": "the-id", "body_encoding": "base64"},
    }
    call = read_body(read_envelope(json.dumps(message).encode()))
    request = Request.of(call, hostname="", ignore_result=True)
    with pytest.raises(AttributeError):
        object.__getattribute__(request, "headers")

    twin = copy.copy(request)
    assert request.colour == twin.colour == "red"
    assert request.headers == twin.headers == {"colour": "red"}
    assert request.properties["correlation_id"] == "the-id"


def test_the_state_of_a_run_is_told_to_the_application(app: FakeApp) -> None:
    task = task_of(add, app)
    with running(in_a_run(task)):
        task.update_state(state="HALF", meta={"percent": 50})

    assert app.metas == [Meta("the-id", "HALF", {"percent": 50})]


# Retries


def test_a_retry_waits_three_minutes_unless_told_otherwise(app: FakeApp) -> None:
    task = task_of(add, app)
    with running(in_a_run(task)) as _, pytest.raises(Retry) as raised:
        task.retry()

    assert raised.value.when == 180


def test_a_retry_that_does_not_throw_is_returned_and_noted(app: FakeApp) -> None:
    task = task_of(add, app)
    request = in_a_run(task)
    at = datetime(2027, 1, 1, tzinfo=UTC)
    with running(request):
        retry = task.retry(eta=at, throw=False, args=(1, 2), queue="slow")

    assert retry.when == at
    assert request.again is not None
    assert (request.again.args, request.again.options) == ((1, 2), {"queue": "slow"})


def test_a_retry_may_have_its_time_as_text(app: FakeApp) -> None:
    task = task_of(add, app)
    with running(in_a_run(task)), pytest.raises(Retry) as raised:
        task.retry(eta="2027-01-01T00:00:00+00:00")

    assert raised.value.when == datetime(2027, 1, 1, tzinfo=UTC)


def test_a_task_without_a_delay_is_tried_again_at_once(app: FakeApp) -> None:
    task = task_of(add, app, default_retry_delay=None)
    with running(in_a_run(task)), pytest.raises(Retry) as raised:
        task.retry()

    assert raised.value.when == 0


@pytest.mark.parametrize(
    ("retries", "own", "of_call", "may"),
    [
        (0, 0, None, False),
        (2, 3, None, True),
        (3, 3, None, False),
        (3, 3, 9, True),
        (1000, None, None, True),
    ],
)
def test_there_are_as_many_retries_as_allowed(
    app: FakeApp, retries: int, own: int | None, of_call: int | None, may: bool
) -> None:
    task = task_of(add, app, max_retries=own)
    expected: type[Exception] = Retry if may else MaxRetriesExceeded
    with running(in_a_run(task, retries=retries)), pytest.raises(expected):
        task.retry(max_retries=of_call)


@pytest.mark.parametrize(
    ("present", "args", "kwargs", "expected"),
    [
        (((), {"x": 1, "y": 2, "z": 3}), (5, 6), None, ((5, 6), {"z": 3})),
        (((1,), {"z": 3}), (5,), None, ((5,), {"z": 3})),
        (((1, 2), {}), None, {"y": 6}, ((1, 6), {})),
        (((1,), {"z": 3}), None, {"z": 4}, ((1,), {"z": 4})),
        (((1, 2), {"z": 3}), (5,), {"y": 6}, ((5,), {"y": 6})),
        (((1, 2), {"z": 3}), None, None, (None, None)),
        (((1, 2, 3, 4), {}), None, {"x": 5}, (None, {"x": 5})),
    ],
)
def test_a_retry_gives_a_parameter_once(
    app: FakeApp, present: Any, args: Any, kwargs: Any, expected: Any
) -> None:
    task = task_of(lambda x, y, z=0: x + y + z, app)
    request = in_a_run(task, args=present[0], kwargs=present[1])
    with running(request), pytest.raises(Retry):
        task.retry(args, kwargs)

    assert request.again is not None
    assert (request.again.args, request.again.kwargs) == expected


def test_a_retry_keeps_the_places_of_many_arguments(app: FakeApp) -> None:
    task = task_of(lambda x, y, *rest: (x, y, *rest), app)
    request = in_a_run(task, args=(1, 2, 3, 4))
    with running(request), pytest.raises(Retry):
        task.retry(kwargs={"y": 20})

    assert request.again is not None
    assert (request.again.args, request.again.kwargs) == ((1, 20, 3, 4), {})


def test_used_up_retries_say_of_which_call(app: FakeApp) -> None:
    task = task_of(add, app, max_retries=0)
    request = in_a_run(task, args=(1,), kwargs={"y": 2})
    with running(request), pytest.raises(MaxRetriesExceeded) as raised:
        task.retry()

    assert raised.value.task_args == (1,)
    assert raised.value.task_kwargs == {"y": 2}


def test_the_cause_of_a_retry_may_be_a_class(app: FakeApp) -> None:
    task = task_of(add, app)
    with running(in_a_run(task)), pytest.raises(Retry) as raised:
        task.retry(exc=OSError)

    assert isinstance(raised.value.exc, OSError)


def test_used_up_retries_raise_the_cause(app: FakeApp) -> None:
    task = task_of(add, app, max_retries=0)
    with running(in_a_run(task)), pytest.raises(OSError, match="cause"):
        task.retry(exc=OSError("cause"))


def test_a_direct_call_is_not_retried(app: FakeApp) -> None:
    def fails(self: Task[..., Any]) -> None:
        raise self.retry(exc=OSError("cause"))

    with pytest.raises(OSError, match="cause"):
        task_of(fails, app, bind=True)()


@pytest.mark.parametrize(
    ("error", "again"),
    [(OSError(), True), (FileNotFoundError(), False), (ValueError(), False)],
)
def test_only_the_named_errors_are_retried_by_themselves(
    app: FakeApp, error: Exception, again: bool
) -> None:
    task = task_of(
        add, app, autoretry_for=[OSError], dont_autoretry_for=[FileNotFoundError]
    )
    request = in_a_run(task)
    with running(request), contextlib.suppress(Retry):
        task.retry_after(error)

    assert (request.again is not None) is again


@pytest.mark.parametrize(
    ("retries", "backoff", "expected"),
    [(0, True, 1), (3, True, 8), (3, 5, 40), (20, True, 600), (10**6, 2, 600)],
)
def test_pauses_double_up_to_their_maximum(
    app: FakeApp, retries: int, backoff: float, expected: float
) -> None:
    task = task_of(
        add,
        app,
        autoretry_for=[OSError],
        retry_backoff=backoff,
        retry_jitter=False,
        max_retries=None,
    )
    with running(in_a_run(task, retries=retries)), pytest.raises(Retry) as raised:
        task.retry_after(OSError())

    assert raised.value.when == expected


def test_jitter_draws_from_nothing_up_to_the_pause(app: FakeApp) -> None:
    task = task_of(add, app, autoretry_for=[OSError], retry_backoff=4)
    drawn = set()
    for _ in range(200):
        with running(in_a_run(task)), pytest.raises(Retry) as raised:
            task.retry_after(OSError())
        drawn.add(raised.value.when)

    assert drawn == {0, 1, 2, 3, 4}


# Names and modules


def test_a_task_is_named_after_module_and_function() -> None:
    assert name_of(add.__name__, add.__module__, "main") == "tests.test_tasks.add"


def test_in_the_main_program_the_applications_name_stands_for_the_module() -> None:
    assert name_of("work", "__main__", "proj") == "proj.work"
    assert name_of("work", "__main__") == "__main__.work"


def test_an_unknown_task_is_named_in_the_error() -> None:
    with pytest.raises(NotRegistered, match=r"no task named 'proj\.nobody'"):
        Registry()["proj.nobody"]


def test_shared_tasks_belong_to_every_application_and_own_ones_win(
    app: FakeApp,
) -> None:
    shared: Task[..., int] = Task(add, app=lambda: app, name="shared.add")
    own: Task[..., int] = Task(add, app=lambda: app, name="shared.add")
    share(shared)
    registry = Registry()

    assert registry["shared.add"] is shared
    registry.register(own)
    assert registry["shared.add"] is own
    assert list(registry).count("shared.add") == 1


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder on the search path, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mod_raises", "mod_bad", "mod_needs", "mod_good"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_each_module_that_cannot_be_imported_is_named_with_the_reason(
    modules: Path,
) -> None:
    (modules / "mod_raises.py").write_text("x = 1\nprint(1 / 0)\n")
    (modules / "mod_bad.py").write_text("def (:\n")
    (modules / "mod_needs.py").write_text("import no_such_package\n")
    (modules / "mod_good.py").write_text("LOADED = True\n")

    with pytest.raises(ConfigError) as raised:
        import_modules(
            ["mod_nowhere", "mod_raises", "mod_bad", "mod_needs", "mod_good"]
        )

    nowhere, raises, bad, needs = raised.value.problems
    assert "no module named 'mod_nowhere'" in nowhere
    assert str(modules) in nowhere
    assert "ZeroDivisionError" in raises
    assert f"{modules}/mod_raises.py:2" in raises
    assert f"{modules}/mod_bad.py:1" in bad
    assert "no_such_package" in needs
    assert f"{modules}/mod_needs.py:1" in needs
    assert sys.modules["mod_good"].LOADED


def test_a_request_is_not_inherited_by_an_empty_context(app: FakeApp) -> None:
    with running(Request("proj.it", id="the-id")):
        assert contextvars.Context().run(current_request) is None
