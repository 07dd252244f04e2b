"""Messages of Beatd apps that are made by a call for each slot."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from beatd import signals
from beatd.cli import beatd
from beatd.config.loading import Config, Wanted, load
from beatd.errors import MessageError
from beatd.instant import HOUR, MINUTE, Instant
from beatd.message import Made
from beatd.message.options import moment_of
from beatd.timetable.entry import Entry
from tests.fakes import NOON
from tests.switch.files import write

SLOT = "2027-01-15T17:45:00+05:45"

FILES = {
    "shop/__init__.py": "",
    "shop/app.py": """
        from beatd import Beatd, crontab

        app = Beatd(
            "shop", include=["shop.tasks"], broker="redis://127.0.0.1:1/0",
            timezone="Asia/Kathmandu", task_send_sent_event=True,
            task_default_priority=5,
        )
        app.conf.beat_schedule = {
            name: {"schedule": crontab(minute="*/5"), "task": f"shop.{name}", **entry}
            for name, entry in {
                "plain": {"args": [1], "options": {"headers": {"x": "1"}}},
                "unknown": {"args": [{"a": None}], "options": {"priority": 4}},
                "slot": {"slot_argument": "at"},
                "until": {},
                "tenant": {},
                "raises": {},
                "exits": {},
                "twice": {},
                "nothing": {},
                "other": {},
                "connection": {"task": "shop.plain", "options": {"producer": object()}},
            }.items()
        }
    """,
    "shop/routed.py": """
        from beatd import Beatd, crontab

        asked = []

        class Old:
            def route_for_task(self, task, args=None, kwargs=None):
                return route(task)

        def route(name, *args, **more):
            asked.append(name)
            return {"queue": f"{name}-{len(asked)}"}

        rules = {"shop.a": "by-rule"}
        routers = {
            "function": route, "text": "shop.routed:route", "old": [rules, Old()],
            "rules": [rules, "shop.routed:rules"], "missing": "shop.routed:none",
        }
        for name, router in routers.items():
            app = globals()[f"{name}_app"] = Beatd(name, task_routes=router)
            entry = {"schedule": crontab(), "task": f"shop.{name}"}
            app.conf.beat_schedule = {"routed": entry}
    """,
    "shop/tasks.py": """
        from datetime import datetime

        from beatd import Task
        from shop.app import app

        called = []

        class Tenant(Task):
            def apply_async(self, args=None, kwargs=None, task_id=None, **options):
                called.append(task_id)
                at = options["headers"]["beatd_slot"]
                options["headers"]["tenant"] = f"{task_id} at {at}"
                args = [*args, "tenant"]
                return super().apply_async(args, kwargs, task_id=task_id, **options)

        class Raises(Task):
            def apply_async(self, *args, **options):
                raise RuntimeError("no tenant")

        class Exits(Task):
            def apply_async(self, *args, **options):
                raise SystemExit("no tenant")

        class Twice(Task):
            def apply_async(self, *args, **options):
                super().apply_async(*args, **options)
                return super().apply_async(*args, **options)

        class Nothing(Task):
            def apply_async(self, *args, **options):
                return None

        class Other(Task):
            def apply_async(self, args, kwargs, **options):
                options["task_id"] = "its-own"
                return app.send_task("shop.another", queue="others", **options)

        @app.task(name="shop.plain", queue="plain", priority=3)
        def plain(number=0): ...

        @app.task(name="shop.slot")
        def slot(at): ...

        @app.task(name="shop.until", expires=datetime(2027, 1, 15, 18))
        def until(): ...

        @app.task(name="shop.tenant", base=Tenant, queue="tenants")
        def tenant(name): ...

        @app.task(name="shop.raises", base=Raises)
        def raises(): ...

        @app.task(name="shop.exits", base=Exits)
        def exits(): ...

        @app.task(name="shop.twice", base=Twice)
        def twice(): ...

        @app.task(name="shop.nothing", base=Nothing)
        def nothing(): ...

        @app.task(name="shop.other", base=Other)
        def other(): ...
    """,
}


@pytest.fixture
def config(tmp_path: Path, afresh: None) -> Config:
    """Return the config of an app; its broker is not there, and nobody asks for it."""
    write(tmp_path, FILES)
    return load(Wanted(app="shop.app"))


@pytest.fixture
def entries(config: Config) -> dict[str, Entry]:
    return {entry.name: entry for entry in config.entries}


@pytest.fixture
def tasks(config: Config) -> ModuleType:
    return sys.modules["shop.tasks"]


Connect = Callable[[signals.Signal, Callable[..., Any]], None]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return what connects receivers for the time of a test."""
    connected: list[tuple[signals.Signal, Callable[..., Any]]] = []

    def connect(signal: signals.Signal, receiver: Callable[..., Any]) -> None:
        signal.connect(receiver)
        connected.append((signal, receiver))

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


def made_of(
    entry: Entry,
    id: str = "the-id",
    slot: Instant = NOON,
    expires: Instant | None = None,
) -> Made:
    return entry.message.made(id=id, now=NOON, slot=slot, expires=expires)


def message_of(entry: Entry, **named: Any) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(made_of(entry, **named).message)
    return message


@pytest.mark.parametrize("name", ["plain", "unknown"])
def test_receivers_see_each_emission_and_change_it(
    entries: dict[str, Entry], connect: Connect, name: str
) -> None:
    entry = entries[name]
    assert entry.message.made_anew == ""
    seen: list[tuple[str, dict[str, Any]]] = []

    def before(sender: str, headers: dict[str, Any], **_: Any) -> None:
        headers["trace"] = sender
        seen.append(("before", dict(headers)))

    def after(sender: str, headers: dict[str, Any], **_: Any) -> None:
        seen.append(("after", dict(headers)))

    connect(signals.before_task_publish, before)  # later than the config was read
    connect(signals.after_task_publish, after)
    message = message_of(entry)

    assert "before is connected to before_task_publish" in entry.message.made_anew
    assert message["headers"]["trace"] == f"shop.{name}"
    assert message["headers"]["id"] == message["properties"]["correlation_id"]
    assert [when for when, _ in seen] == ["before", "after"]
    assert all(headers["id"] == "the-id" for _, headers in seen)
    assert all(headers["beatd_slot"] == SLOT for _, headers in seen)
    assert seen[0][1]["beatd_entry"] == name
    assert seen[1][1]["trace"] == f"shop.{name}"


@pytest.mark.parametrize("name", ["plain", "unknown", "slot"])
def test_a_message_is_the_same_with_and_without_receivers(
    entries: dict[str, Entry], connect: Connect, name: str
) -> None:
    prepared = made_of(entries[name])
    connect(signals.after_task_publish, lambda **_: None)
    made = made_of(entries[name])

    assert made.message == prepared.message
    assert made == prepared


def test_no_receiver_hears_of_messages_that_are_only_prepared(
    tmp_path: Path, afresh: None, connect: Connect
) -> None:
    heard: list[str] = []
    connect(signals.before_task_publish, lambda sender, **_: heard.append(sender))
    write(tmp_path, FILES)

    config = load(Wanted(app="shop.app"))

    assert heard == sys.modules["shop.tasks"].called == []
    assert all(entry.message.made_anew for entry in config.entries)


def test_an_apply_async_of_the_task_is_called_with_the_id_and_the_slot(
    entries: dict[str, Entry], tasks: ModuleType
) -> None:
    entry = entries["tenant"]
    why = "shop.tasks.Tenant.apply_async is not beatd's own"
    assert entry.message.made_anew == why
    message = message_of(entry, id="first")
    again = message_of(entry, id="second", slot=NOON + MINUTE)

    assert message["headers"]["tenant"] == f"first at {SLOT}"
    assert message["headers"]["argsrepr"] == "['tenant']"
    assert message["headers"]["id"] == message["headers"]["root_id"] == "first"
    assert again["headers"]["tenant"] == f"second at {SLOT.replace('45:00', '46:00')}"
    assert made_of(entry).route == entry.message.route
    assert entry.message.route.queue == "tenants"
    assert tasks.called == ["first", "second", "the-id"]


def test_what_the_code_of_the_task_sends_instead_is_sent(
    entries: dict[str, Entry],
) -> None:
    made = made_of(entries["other"])

    assert made.task_id == "its-own"
    assert made.route is not None
    assert made.route.queue == "others"
    assert json.loads(made.message)["headers"]["task"] == "shop.another"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("raises", "calling shop.raises raised RuntimeError: no tenant"),
        ("exits", "calling shop.exits raised SystemExit: no tenant"),
        ("twice", "shop.twice: its code sends 2 messages by the producer"),
    ],
)
def test_what_the_code_does_wrong_is_an_error_of_that_message(
    entries: dict[str, Entry], name: str, error: str
) -> None:
    with pytest.raises(MessageError, match=error):
        made_of(entries[name])


@pytest.mark.parametrize(
    ("app", "router"), [("function", "route"), ("text", "route"), ("old", "Old")]
)
def test_a_router_that_is_code_is_asked_for_each_slot(
    tmp_path: Path, afresh: None, app: str, router: str
) -> None:
    write(tmp_path, FILES)
    (entry,) = load(Wanted(app=f"shop.routed:{app}_app")).entries

    why = f"task_routes has shop.routed.{router}, which answers each call"
    assert entry.message.made_anew == why
    queues = [made.route and made.route.queue for made in map(made_of, [entry] * 2)]
    asked = len(sys.modules["shop.routed"].asked)
    assert queues == [f"shop.{app}-{number}" for number in (asked - 1, asked)]


def test_rules_are_asked_once(tmp_path: Path, afresh: None) -> None:
    write(tmp_path, FILES)

    (entry,) = load(Wanted(app="shop.routed:rules_app")).entries
    (bad,) = load(Wanted(app="shop.routed:missing_app")).bad

    assert entry.message.made_anew == ""
    assert "calling shop.missing raised AttributeError" in str(bad.problems[0])


def test_a_task_that_sends_nothing_has_no_message(entries: dict[str, Entry]) -> None:
    assert made_of(entries["nothing"]) == Made(b"", None, "the-id")


@pytest.mark.parametrize("name", ["plain", "tenant"])
def test_a_message_expires_at_the_next_slot_if_the_entry_says_so(
    entries: dict[str, Entry], name: str
) -> None:
    message = message_of(entries[name], expires=NOON + 5 * MINUTE)

    assert message["headers"]["expires"] == SLOT.replace("45:00", "50:00")


def test_a_task_expires_when_it_would_by_any_call_of_it(
    entries: dict[str, Entry], connect: Connect
) -> None:
    entry = entries["until"]
    expires = entry.message.expires_of(NOON)

    at_once = message_of(entry, expires=expires)["headers"]["expires"]
    connect(signals.before_task_publish, lambda **named: None)
    anew = message_of(entry, expires=expires)["headers"]["expires"]

    # Calls of Celery's and beatd's clients have moments without a zone in UTC.
    moments = {moment_of(text) for text in (at_once, anew)}
    assert moments | {expires} == {NOON + 6 * HOUR}


def test_calls_that_are_to_be_run_where_they_are_made_are_queued(
    entries: dict[str, Entry], tasks: ModuleType
) -> None:
    tasks.app.conf.task_always_eager = True

    assert message_of(entries["tenant"])["headers"]["task"] == "shop.tenant"


def test_a_connection_in_the_options_is_refused(config: Config) -> None:
    (bad,) = config.bad

    assert "options['producer']: the scheduler has a conn" in str(bad.problems[0])


def test_check_says_which_entries_are_made_anew_and_why(config: Config) -> None:
    done = CliRunner().invoke(beatd, ["check", "-A", "shop.app", "--json"])

    notes = json.loads(done.stdout)["notes"]
    way = "the message is built anew for each run, since"
    why = "shop.tasks.Tenant.apply_async is not beatd's own"
    assert f"entry 'tenant': {way} {why} (nothing to mend)" in notes
    assert not any("plain" in note for note in notes)
