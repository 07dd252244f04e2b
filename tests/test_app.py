"""What users hold: settings, tasks, calls, results."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import beatd
from beatd import Beatd
from beatd.app.publishing import pauses
from beatd.brokers.base import Broker
from beatd.brokers.memory import MemoryBroker
from beatd.errors import (
    BeatdError,
    BrokerUnavailable,
    ConfigError,
    Ignore,
    ItemRefused,
    MessageError,
    Reject,
)
from beatd.instant import DAY, HOUR, SECOND
from beatd.message import read_body, read_envelope
from beatd.results import encoding_of
from beatd.results.base import Meta, State
from beatd.tasks import AsyncResult, Task
from beatd.tasks.current import set_current
from tests.fakes import NOON, FakeClock
from tests.servers import PATIENCE
from tests.worker.bench import FakeResults


class Wired:
    """An application in front of a broker and results in memory."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.broker = MemoryBroker(self.clock)
        self.app = Beatd("proj", clock=self.clock, set_as_current=False, **settings)
        self.results = FakeResults(encoding_of(self.app.settings))
        self.app.use(self.app.settings, self.broker, self.results)
        self._requests = itertools.count(1)

    def sent(self, queue: str = "celery") -> Any:
        """Return the one message of the queue."""
        self.broker.join("reader", HOUR)
        request = next(self._requests)
        (delivery,) = self.broker.take("reader", [queue], 9, request)
        return read_envelope(delivery.message)


@pytest.fixture
def wired() -> Wired:
    return Wired()


def add(x: int, y: int) -> int:
    return x + y


# Settings


def test_defaults_by_code_count_where_nothing_is_set() -> None:
    app = Beatd(set_as_current=False)
    app.config_from_object({"timezone": "Asia/Tokyo"})
    app.add_defaults({"CELERY_TIMEZONE": "Europe/Berlin", "task_default_queue": "a"})
    app.add_defaults(lambda: {"task_default_queue": "b", "task_default_priority": 3})
    app.conf.task_default_priority = 5

    settings = app.settings
    assert settings.timezone == "Asia/Tokyo"
    assert settings.task_default_queue == "a"
    assert settings.task_default_priority == 5


def test_a_config_is_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "shop_config.py").write_text("timezone = 'Asia/Tokyo'")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SHOP_CONFIG", "shop_config")
    app = Beatd(set_as_current=False)

    assert app.config_from_envvar("SHOP_CONFIG")
    assert str(app.timezone) == "Asia/Tokyo"
    assert app.now().utcoffset() == timedelta(hours=9)
    assert not app.config_from_envvar("NO_CONFIG", silent=True)
    with pytest.raises(ConfigError, match="NO_CONFIG names no module"):
        app.config_from_envvar("NO_CONFIG")


def test_an_app_names_its_tasks() -> None:
    class Shop(Beatd):
        def gen_task_name(self, name: str, module: str) -> str:
            return f"shop.{name}"

    assert Shop(set_as_current=False).task(add).name == "shop.add"


def test_tasks_have_the_class_of_their_app_unless_they_have_one() -> None:
    class Mine(Task[..., Any]):
        pass

    class Own(Task[..., Any]):
        pass

    app = Beatd(set_as_current=False, task_cls=Mine)
    tasks = [app.task(add), app.task(name="b", priority=5)(add)]
    app.task(name="c", base=Own)(add)

    assert app.Task is Mine
    assert all(isinstance(app.tasks[task.name], Mine) for task in tasks)
    assert app.tasks["b"].priority == 5
    assert not isinstance(app.tasks["c"], Mine)


def test_nothing_is_read_before_it_is_needed() -> None:
    app = Beatd("proj", set_as_current=False)
    app.config_from_object("no.such.module")

    with pytest.raises(ConfigError, match="no module named"):
        _ = app.settings


@pytest.mark.parametrize(
    "config",
    [
        {"timezone": "Europe/Berlin"},
        {"CELERY_TIMEZONE": "Europe/Berlin"},
        SimpleNamespace(CELERY_TIMEZONE="Europe/Berlin", other=1),
        type("Config", (), {"timezone": "Europe/Berlin"}),
    ],
    ids=["dict", "old names", "object", "class"],
)
def test_settings_come_from_whatever_celery_takes(config: Any) -> None:
    app = Beatd(set_as_current=False)
    app.config_from_object(config)

    assert app.conf.timezone == "Europe/Berlin"


@pytest.mark.parametrize("named", ["app_conf", "app_conf:Conf", "module"])
def test_settings_come_from_a_module_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "app_conf", raising=False)
    text = "CELERY_TIMEZONE = 'Asia/Tokyo'\nclass Conf:\n    timezone = 'Asia/Tokyo'\n"
    (tmp_path / "app_conf.py").write_text(text)
    app = Beatd(set_as_current=False)
    app.config_from_object(__import__("app_conf") if named == "module" else named)

    assert app.conf["timezone"] == "Asia/Tokyo"


def test_a_name_space_keeps_other_peoples_names_out() -> None:
    config = {
        "CELERY_TASK_TIME_LIMIT": 5,
        "CELERY_BEAT_MAX_LOOP_INTERVAL": 2,
        "timezone": "Asia/Tokyo",
        "DEBUG": True,
    }
    app = Beatd(set_as_current=False)
    app.config_from_object(config, namespace="CELERY")

    assert app.conf.task_time_limit == 5
    assert app.conf.beat_max_loop_interval == 2
    assert app.conf.timezone is None


def test_a_name_space_may_have_any_name() -> None:
    app = Beatd(set_as_current=False)
    app.config_from_object({"SHOP_TIMEZONE": "Asia/Tokyo"}, namespace="SHOP")

    assert app.conf.timezone == "Asia/Tokyo"


def test_what_code_sets_goes_before_the_config() -> None:
    app = Beatd(set_as_current=False, task_default_queue="from-keyword")
    app.config_from_object({"task_default_queue": "config", "task_time_limit": 5})
    assert app.conf.task_default_queue == "from-keyword"

    app.conf.CELERY_DEFAULT_QUEUE = "changed"
    app.conf.update(task_time_limit=6)

    assert app.conf["task_default_queue"] == "changed"
    assert app.conf.task_time_limit == 6


def test_what_a_task_module_changes_leaves_the_other_settings_as_they_were(
    wired: Wired,
) -> None:
    wired.app.use(replace(wired.app.settings, task_time_limit=7), wired.broker)

    wired.app.conf.CELERY_DEFAULT_QUEUE = "changed"
    wired.app.send_task("a")

    assert wired.app.conf.task_time_limit == 7
    assert wired.sent("changed").task == "a"
    with pytest.raises(ConfigError, match="timezone"):
        wired.app.conf.timezone = "Nowhere"


def test_a_config_may_have_what_is_no_setting(wired: Wired) -> None:
    app = Beatd(set_as_current=False)
    app.config_from_object({"LEAVE_FOR_WORK": 7, "broker_url": "redis://a"})
    app.conf.update(CALL_ME_BACK=123)
    wired.app.conf.CALL_ME_BACK = 456

    assert (app.conf.LEAVE_FOR_WORK, app.conf["CALL_ME_BACK"]) == (7, 123)
    assert app.conf.get("never") is None
    assert wired.app.conf.CALL_ME_BACK == 456


def test_an_address_is_read_as_it_is_written() -> None:
    app = Beatd(set_as_current=False, broker="redis://a")
    assert app.conf.broker_url == "redis://a"

    app.conf.broker_url = ["redis://a", "redis://b"]
    assert app.conf.broker_url == "redis://a;redis://b"
    assert app.conf.broker_read_url is None


def test_a_wrong_setting_is_said_with_all_others_at_once() -> None:
    app = Beatd(set_as_current=False, timezone="Nowhere", task_time_limit=-1)

    with pytest.raises(ConfigError) as raised:
        _ = app.settings

    assert len(raised.value.problems) == 2


def test_an_unknown_setting_has_a_hint() -> None:
    with pytest.raises(AttributeError, match="did you mean 'timezone'"):
        _ = Beatd(set_as_current=False).conf.timezon


def test_periodic_tasks_of_code_join_the_schedule() -> None:
    app = Beatd("proj", set_as_current=False)
    app.config_from_object(
        {"CELERYBEAT_SCHEDULE": {"old": {"task": "a", "schedule": 1}}}
    )
    task = app.task(add)

    @app.on_after_configure.connect
    def add_tasks(sender: Beatd, **_: Any) -> None:
        sender.add_periodic_task(10.0, task.s(2, 3), name="new", queue="q")
        sender.add_periodic_task(20.0, task.s(4, 5))

    schedule = app.beatd_config().written["CELERYBEAT_SCHEDULE"]

    assert schedule == {
        "old": {"task": "a", "schedule": 1},
        "new": {
            "task": "tests.test_app.add",
            "schedule": 10.0,
            "args": [2, 3],
            "kwargs": {},
            "options": {"queue": "q"},
        },
        "tests.test_app.add(4, 5)": {
            "task": "tests.test_app.add",
            "schedule": 20.0,
            "args": [4, 5],
            "kwargs": {},
            "options": {},
        },
    }
    assert app.conf.beat_schedule.keys() == schedule.keys()


def test_a_periodic_task_is_one_call() -> None:
    app = Beatd(set_as_current=False)
    task = app.task(name="add")(add)

    assert app.add_periodic_task(10, task, (1,), {"y": 2}) == "add(1, y=2)"
    assert app.add_periodic_task(10, task.s(2), (1,)) == "add(1, 2)"
    with pytest.raises(MessageError, match="sends one call, and this is a chain"):
        app.add_periodic_task(10, task.s(1, 2) | task.s(3))
    assert app.settings.beat_schedule["add(1, 2)"]["args"] == [1, 2]


# Tasks


def test_a_task_is_named_by_itself_or_by_its_option(wired: Wired) -> None:
    assert wired.app.task(add).name == "tests.test_app.add"
    assert wired.app.task(name="mine")(add).name == "mine"
    assert set(wired.app.tasks) >= {"tests.test_app.add", "mine"}


def test_a_task_may_have_a_base_class_of_its_own(wired: Wired) -> None:
    class Careful(Task[..., Any]):
        max_retries = 9

    task = wired.app.task(base=Careful)(add)

    assert isinstance(task, Careful)
    assert task.max_retries == 9


def test_a_task_object_can_be_registered(wired: Wired) -> None:
    class Doubling(Task[[int], int]):
        def run(self, x: int) -> int:
            return 2 * x

    task = wired.app.register_task(Doubling(app=lambda: wired.app))

    assert wired.app.tasks["tests.test_app.Doubling"] is task


def test_a_task_object_may_have_begun_without_its_base(wired: Wired) -> None:
    class Greeting(Task[[], str]):
        def __init__(self) -> None:
            self.word = "hello"

        def run(self) -> str:
            return self.word

    task = wired.app.register_task(Greeting())
    task.delay()

    assert task.apply().get() == "hello"
    assert wired.sent().task == "tests.test_app.Greeting"


def test_what_is_set_on_a_task_before_its_first_call_stays(wired: Wired) -> None:
    task = wired.app.task(max_retries=3, queue="slow")(add)
    task.max_retries = 2
    task.delay(1, 2)

    assert task.max_retries == 2
    assert wired.sent("slow").task == "tests.test_app.add"


def test_a_class_of_a_task_can_be_registered(wired: Wired) -> None:
    class Halving(Task[[int], float]):
        def run(self, x: int) -> float:
            return x / 2

    wired.app.register_task(Halving)
    task = wired.app.tasks["tests.test_app.Halving"]
    task.delay(1)

    assert isinstance(task, Halving)
    assert wired.sent().task == "tests.test_app.Halving"


def test_a_task_is_shared_once(wired: Wired) -> None:
    task = beatd.shared_task(name="shared once")(add)

    with pytest.raises(TypeError, match=r"^shared once: it is a shared task already"):
        beatd.shared_task(task)
    both = beatd.shared_task(name="both")(wired.app.task(name="own")(add))
    assert both(1, 2) == 3


def test_a_shared_task_is_sent_through_the_current_application(wired: Wired) -> None:
    task = beatd.shared_task(name="shared.add")(add)
    set_current(wired.app)

    task.delay(1, 2)

    assert wired.sent().task == "shared.add"
    assert wired.app.tasks["shared.add"] is task


def test_modules_of_tasks_are_imported_and_discovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for package, module in (("storefront", "tasks"), ("weblog", "views")):
        monkeypatch.delitem(sys.modules, package, raising=False)
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / f"{module}.py").write_text(
            "from beatd import shared_task\n@shared_task\ndef hello(): ...\n"
        )
    app = Beatd(set_as_current=False, include=["weblog.views"])
    app.autodiscover_tasks(["storefront", "weblog"])
    app.import_tasks()

    assert {"storefront.tasks.hello", "weblog.views.hello"} <= set(app.tasks)


def test_tasks_are_discovered_in_other_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("kiosk", "counter"):
        (tmp_path / f"{name}.py").write_text(
            "from beatd import shared_task\n@shared_task\ndef hello(): ...\n"
        )
    app = Beatd(set_as_current=False)
    app.autodiscover_tasks(lambda: ["kiosk"], related_name=None)
    assert "kiosk.hello" not in app.tasks
    app.autodiscover_tasks(["counter"], related_name=None, force=True)

    assert {"kiosk.hello", "counter.hello"} <= set(app.tasks)


def test_an_application_may_be_open_for_a_block() -> None:
    with Beatd("proj", broker="memory://", set_as_current=False) as app:
        app.send_task("a")
        before = app.connections

    assert app.connections is not before
    app.close()


# Calls


def test_a_call_is_celerys_message(wired: Wired) -> None:
    result = wired.app.task(add).delay(2, 3)

    envelope = wired.sent()
    call = read_body(envelope)
    assert (call.args, call.kwargs) == ([2, 3], {})
    assert envelope.id == result.id
    assert envelope.root_id == result.id
    assert envelope.ignore_result is False
    assert envelope.argsrepr == "(2, 3)"


def test_an_id_of_a_call_tells_when_it_was_made(wired: Wired) -> None:
    from beatd.ids import instant_of_id

    assert instant_of_id(wired.app.task(add).delay(2, 3).id) == NOON


def test_a_call_may_have_an_id_of_its_own(wired: Wired) -> None:
    result = wired.app.send_task("a", task_id="mine")

    assert result.id == "mine"
    assert wired.sent().id == "mine"


def test_options_reach_the_message(wired: Wired) -> None:
    wired.app.send_task(
        "a",
        countdown=60,
        expires=120,
        queue="slow",
        priority=3,
        headers={"colour": "red"},
        time_limit=9,
        soft_time_limit=8,
        shadow="other",
        ignore_result=True,
    )

    envelope = wired.sent("slow")
    assert envelope.eta == NOON + 60 * SECOND
    assert envelope.expires == NOON + 120 * SECOND
    assert envelope.priority == 3
    assert envelope.custom_headers == {"colour": "red"}
    assert (envelope.time_limit, envelope.soft_time_limit) == (9, 8)
    assert (envelope.shadow, envelope.ignore_result) == ("other", True)


def test_routes_of_the_settings_apply() -> None:
    wired = Wired(task_routes={"proj.*": {"queue": "own", "priority": 6}})
    wired.app.send_task("proj.a")

    assert wired.sent("own").priority == 6


def test_the_default_priority_is_for_tasks_that_are_known() -> None:
    wired = Wired(task_default_priority=6)
    wired.app.send_task("unknown")
    assert wired.sent().priority == 0

    wired.app.task(add).delay(1, 2)
    assert wired.sent().priority == 6


@pytest.mark.parametrize(
    ("args", "options", "blamed"),
    [
        ([{1}], {}, r"args\[0\]"),
        ([], {"countdown": "soon"}, "countdown"),
        ([], {"task_id": 7}, "task_id"),
        ([], {"serializer": "xml"}, "xml"),
    ],
)
def test_a_call_that_cannot_be_sent_names_the_culprit(
    wired: Wired, args: list[Any], options: dict[str, Any], blamed: str
) -> None:
    with pytest.raises(MessageError, match=blamed):
        wired.app.send_task("a", args, **options)


class Faltering(MemoryBroker):
    """A broker that does not answer the first few times."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def send(self, batch: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailable("nobody answers")
        super().send(batch)


AT_ONCE = {"max_retries": 3, "interval_start": 0, "interval_step": 0, "interval_max": 0}


@pytest.mark.parametrize(
    ("failures", "options", "arrives"),
    [
        (0, {}, True),
        (3, {}, True),
        (4, {}, False),
        (1, {"retry": False}, False),
        (4, {"retry_policy": {"max_retries": 4}}, True),
        (1, {"retry_policy": {"max_retries": 0}}, False),
        (9, {"retry_policy": {"max_retries": None}}, True),
    ],
)
def test_a_broker_that_is_away_is_asked_again_a_few_times(
    failures: int, options: dict[str, Any], arrives: bool
) -> None:
    app = Beatd(set_as_current=False, task_publish_retry_policy=AT_ONCE)
    broker = Faltering(failures)
    app.use(app.settings, broker)
    if not arrives:
        with pytest.raises(BrokerUnavailable):
            app.send_task("a", **options)
        return
    app.send_task("a", **options)
    broker.join("reader", HOUR)

    assert len(broker.take("reader", ["celery"], 9, 1)) == 1


def test_a_call_that_the_broker_refuses_is_not_tried_again() -> None:
    app = Beatd(set_as_current=False)
    broker = Refusing()
    app.use(app.settings, broker)

    with pytest.raises(ItemRefused):
        app.send_task("a", retry_policy=AT_ONCE)

    assert broker.asked == 1


class Refusing(MemoryBroker):
    """Refuses all calls, and counts them."""

    asked = 0

    def send(self, batch: Any) -> None:
        self.asked += 1
        raise ItemRefused("the queue is no list")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, [0, 0.2, 0.4]),
        ({"max_retries": 2}, [0, 0.2]),
        ({"interval_start": 0.5, "interval_max": 0.6}, [0.5, 0.6, 0.6]),
        ({"interval_start": 3, "max_retries": 1}, [1]),
        ({"max_retries": 0}, []),
    ],
)
def test_a_retry_policy_says_what_differs_from_the_usual_one(
    policy: dict[str, Any], expected: list[float]
) -> None:
    assert list(islice(pauses(policy), 9)) == pytest.approx(expected)


def test_tries_without_a_bound_never_end() -> None:
    assert list(islice(pauses({"max_retries": None}), 99))[-1] == 1


# Results


def test_nothing_known_is_pending_until_it_must_have_expired(wired: Wired) -> None:
    fresh = wired.app.task(add).delay(1, 2)
    foreign = wired.app.AsyncResult("6e82ded0-e3a6-4fa0-a88b-8e7fb50acd0f")
    assert fresh.state == "PENDING"

    wired.clock.go_to(NOON + DAY)
    assert fresh.state == "PENDING"
    wired.clock.go_to(NOON + DAY + 1)

    assert fresh.state == State.EXPIRED == "EXPIRED"
    assert foreign.state == "PENDING"


def test_results_that_are_kept_for_ever_never_expire() -> None:
    wired = Wired(result_expires=None)
    result = wired.app.task(add).delay(1, 2)
    wired.clock.go_to(NOON + 1000 * DAY)

    assert result.state == "PENDING"


def test_a_result_tells_all_that_is_kept(wired: Wired) -> None:
    done = "2027-01-15T12:00:01+00:00"
    wired.results.store(
        [Meta("one", "SUCCESS", 5, None, [[["child", None], None]], done)]
    )
    result = wired.app.AsyncResult("one")

    assert (result.state, result.status, result.get(timeout=0)) == (
        "SUCCESS",
        "SUCCESS",
        5,
    )
    assert (result.result, result.info, result.traceback) == (5, 5, None)
    assert result.ready()
    assert result.successful()
    assert not result.failed()
    assert [child.id for child in result.children] == ["child"]
    assert result.date_done is not None
    assert result.date_done.isoformat() == done
    assert (str(result), result.task_id) == ("one", "one")


def test_a_failure_is_raised_unless_it_is_not_to_be(wired: Wired) -> None:
    wired.results.store([Meta("one", "FAILURE", ValueError("no"), "Traceback")])
    result = wired.app.AsyncResult("one")

    assert result.failed()
    assert isinstance(result.get(propagate=False), ValueError)
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=0)


def test_a_failure_that_came_without_an_exception_is_raised_all_the_same(
    wired: Wired,
) -> None:
    wired.results.store([Meta("one", "FAILURE", "just words")])

    with pytest.raises(BeatdError, match="just words"):
        wired.app.AsyncResult("one").get(timeout=0)


def test_waiting_ends_with_a_time_out(wired: Wired) -> None:
    with pytest.raises(TimeoutError, match="has not ended after 0 seconds"):
        wired.app.AsyncResult("one").get(timeout=0)


def test_what_is_forgotten_is_pending(wired: Wired) -> None:
    wired.results.store([Meta("one", "SUCCESS", 5)])
    result = wired.app.AsyncResult("one")
    assert result.ready()

    result.forget()

    assert result.state == "PENDING"


def test_results_of_one_run_are_equal() -> None:
    from beatd import AsyncResult

    assert AsyncResult("a") == AsyncResult("a") != AsyncResult("b")
    assert len({AsyncResult("a"), AsyncResult("a")}) == 1


# Eagerly


def test_eager_calls_run_where_they_are_made() -> None:
    app = Beatd("proj", set_as_current=False, task_always_eager=True)
    result = app.task(add).delay(2, 3)

    assert result.get() == 5
    assert result.state == "SUCCESS"


def test_eager_calls_are_retried_at_once() -> None:
    app = Beatd("proj", set_as_current=False, task_always_eager=True)

    @app.task(bind=True)
    def stubborn(self: Any) -> int:
        if self.request.retries < 3:
            raise self.retry(countdown=1000)
        return int(self.request.retries)

    assert stubborn.delay().get() == 3


def test_eager_calls_let_errors_through_when_asked() -> None:
    app = Beatd(
        "proj",
        set_as_current=False,
        task_always_eager=True,
        task_eager_propagates=True,
    )

    @app.task
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails.delay()


def test_a_call_run_here_raises_what_its_task_raised_when_asked(wired: Wired) -> None:
    @wired.app.task
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails.apply(throw=True)


def test_a_call_run_here_knows_itself_and_the_run_that_made_it(wired: Wired) -> None:
    @wired.app.task(bind=True, name="inner")
    def inner(self: Any) -> list[Any]:
        return [self.request.root_id, self.request.parent_id, self.request.id]

    @wired.app.task(bind=True, name="outer")
    def outer(self: Any) -> list[Any]:
        return [self.request.id, *inner.apply((), task_id="in").get()]

    result = outer.apply(task_id="out")

    assert result.get() == ["out", "out", "out", "in"]
    assert (result.name, list(result.args), result.kwargs) == ("outer", [], {})


def test_a_call_run_here_has_its_value_also_if_no_result_is_kept() -> None:
    app = Beatd("proj", set_as_current=False, task_store_eager_result=True)
    app.use(app.settings, None, FakeResults(encoding_of(app.settings)))
    task = app.task(name="add", ignore_result=True)(add)

    result = task.apply((2, 3))

    assert (result.state, result.get()) == ("SUCCESS", 5)
    assert app.AsyncResult(result.id).state == "PENDING"


@pytest.mark.parametrize(
    ("verdict", "state"),
    [(Ignore(), "IGNORED"), (Reject(), "REJECTED"), (Reject("x", True), "REJECTED")],
)
def test_a_chain_run_here_stops_at_what_has_no_value(
    wired: Wired, verdict: Exception, state: str
) -> None:
    seen: list[Any] = []

    @wired.app.task
    def ends() -> None:
        raise verdict

    @wired.app.task
    def follows(value: Any) -> None:
        seen.append(value)

    result = (ends.s() | follows.s()).apply()

    assert (result.state, result.get(), seen) == (state, None, [])


def test_a_result_that_a_task_returns_is_written_as_celery_does(wired: Wired) -> None:
    @wired.app.task
    def sends() -> Any:
        return AsyncResult("other", app=wired.app)

    assert sends.apply().get() == [["other", None], None]


def test_apply_runs_what_is_linked_too(wired: Wired) -> None:
    seen: list[int] = []

    @wired.app.task
    def note(value: int) -> None:
        seen.append(value)

    result = wired.app.task(add).apply((2, 3), link=note.s())

    assert (result.get(), seen) == (5, [5])


# Processes


def test_a_call_that_cannot_be_run_here_has_failed() -> None:
    strange = Beatd("other").task(add)
    result = Beatd("proj").apply_task(strange, (2, 3), None, {})

    assert result.state == "FAILURE"
    assert "NotRegistered" in str(result.result)


def test_a_forked_process_opens_its_own_connections(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/broker.db"
    app = Beatd("proj", broker=url, set_as_current=False)
    app.send_task("parent")
    before = app.connections
    read, write = os.pipe()
    child = os.fork()
    if not child:
        app.send_task("child")
        os.write(write, b"own" if app.connections is not before else b"shared")
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(read, 9) == b"own"
    os.close(read)
    os.close(write)
    broker = app.connections.broker
    assert isinstance(broker, Broker)
    broker.join("reader", HOUR)
    messages = broker.take("reader", ["celery"], 9, 1)
    assert len(messages) == 2
    app.close()


def test_without_an_application_the_config_makes_one(tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text(
        f"BROKER_URL = 'sqlite:///{tmp_path}/broker.db'\n"
        "CELERY_DEFAULT_QUEUE = 'of-the-config'\n"
    )
    (tmp_path / "jobs.py").write_text(
        "from beatd import shared_task, current_app\n"
        "@shared_task\ndef job(): ...\n"
        "job.delay()\n"
        "print(current_app().conf.task_default_queue)\n"
    )
    done = subprocess.run(
        [sys.executable, "jobs.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )

    assert done.stdout == "of-the-config\n"


def test_importing_beatd_imports_little() -> None:
    probe = (
        "import sys, beatd, json;"
        "print(json.dumps([m for m in sys.modules if m.startswith('beatd.')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout) == ["beatd.version"]


@pytest.mark.parametrize("name", beatd.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(beatd, name) is not None


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Celery'"):
        _ = beatd.Celery
