"""Messages that are made by a call for each slot: of code that is not Celery's own."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Task, signals
from click.testing import CliRunner

from beatd.cli import beatd
from beatd.config.loading import Config, Wanted, load
from beatd.errors import MessageError
from beatd.instant import MINUTE, Instant
from beatd.message import Made
from beatd.timetable.entry import Entry
from tests.fakes import NOON

# Celery's own, of what tasks have said for years.
pytestmark = pytest.mark.filterwarnings(r"ignore:\s+The .* task attribute:Warning")

PROJECTS = Path(__file__).parent / "projects"
SLOT = "2027-01-15T17:45:00+05:45"


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> Iterator[ModuleType]:
    """Return the module of the apps; nothing of it is connected afterwards."""
    shutil.copy(PROJECTS / "anew" / "anew.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    sys.path.insert(0, str(tmp_path))
    import anew  # type: ignore[import-not-found] # it is on that path

    yield anew
    for signal in (signals.before_task_publish, signals.after_task_publish):
        signal.receivers.clear()


def config_of(app: str = "app") -> Config:
    return load(Wanted(app=f"anew:{app}"))


def entry_of(name: str) -> Entry:
    return {entry.name: entry for entry in config_of().entries}[name]


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


def test_receivers_see_each_emission_and_change_it(project: ModuleType) -> None:
    entry = entry_of("plain")
    assert entry.message.made_anew == ""
    seen: list[tuple[str, dict[str, Any]]] = []

    def before(sender: str, headers: dict[str, Any], **_: Any) -> None:
        headers["trace"] = "1-2-3"
        seen.append(("before", dict(headers)))

    def after(sender: str, headers: dict[str, Any], **_: Any) -> None:
        seen.append(("after", dict(headers)))

    signals.before_task_publish.connect(before)  # later than the config was read
    signals.after_task_publish.connect(after)
    message = message_of(entry)

    assert "before is connected to before_task_publish" in entry.message.made_anew
    assert message["headers"]["trace"] == "1-2-3"
    assert message["headers"]["id"] == message["properties"]["correlation_id"]
    assert [name for name, _ in seen] == ["before", "after"]
    assert all(headers["id"] == "the-id" for _, headers in seen)
    assert all(headers["beatd_slot"] == SLOT for _, headers in seen)
    assert seen[0][1]["beatd_entry"] == "plain"


def test_what_is_put_around_apply_async_sees_each_emission(
    project: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of("plain")
    apply_async = Task.apply_async
    seen: list[str] = []

    def around(self: Any, *args: Any, **options: Any) -> Any:
        seen.append(options["task_id"])
        options["headers"]["trace"] = "1-2-3"
        return apply_async(self, *args, **options)

    monkeypatch.setattr(Task, "apply_async", around)  # later than the config was read
    message = message_of(entry, id="first")

    assert message["headers"]["trace"] == "1-2-3"
    assert seen == ["first"]
    assert entry.message.made_anew.endswith("around is around Task.apply_async")


def test_no_receiver_hears_of_messages_that_are_only_prepared(
    project: ModuleType,
) -> None:
    heard: list[str] = []
    hear: Callable[..., None] = lambda sender, **_: heard.append(sender)  # noqa: E731
    signals.before_task_publish.connect(hear, weak=False)

    config = config_of()

    assert heard == project.called == []
    assert all(entry.message.made_anew for entry in config.entries)


def test_a_message_is_the_same_with_and_without_receivers(project: ModuleType) -> None:
    entry = entry_of("plain")
    prepared = message_of(entry)
    signals.before_task_publish.connect(_listen)
    made = message_of(entry)

    assert made == prepared


def _listen(**_: Any) -> None: ...


def test_an_apply_async_of_the_task_is_called_with_the_id_and_the_slot(
    project: ModuleType,
) -> None:
    entry = entry_of("tenant")
    assert entry.message.made_anew == "anew.Tenant.apply_async is not Celery's own"
    message = message_of(entry, id="first")
    again = message_of(entry, id="second", slot=NOON + MINUTE)

    assert message["headers"]["tenant"] == f"first at {SLOT}"
    assert message["headers"]["id"] == message["headers"]["root_id"] == "first"
    assert again["headers"]["tenant"] == f"second at {SLOT.replace('45:00', '46:00')}"
    assert made_of(entry).route == entry.message.route
    assert project.called == ["first", "second", "the-id"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("raises", "calling anew.raises raised RuntimeError: no tenant"),
        ("exits", "calling anew.exits raised SystemExit: no tenant"),
        ("twice", "anew.twice: its code sends 2 messages by the producer"),
        ("lazy_raises", "calling anew.plain raised ZeroDivisionError: division by"),
    ],
)
def test_what_the_code_does_wrong_is_an_error_of_that_message(
    project: ModuleType, name: str, error: str
) -> None:
    with pytest.raises(MessageError, match=error):
        made_of(entry_of(name))


def test_what_a_receiver_adds_and_nothing_can_encode_is_an_error_of_that_message(
    project: ModuleType,
) -> None:
    entry = entry_of("plain")

    def add_object(headers: dict[str, Any], **_: Any) -> None:
        headers["tracer"] = project

    signals.before_task_publish.connect(add_object, weak=False)

    with pytest.raises(MessageError, match=r"anew\.plain.* not JSON serializable"):
        made_of(entry)


def test_a_receiver_may_take_all_properties_away(project: ModuleType) -> None:
    entry = entry_of("plain")

    def clear(properties: dict[str, Any], **_: Any) -> None:
        properties.clear()

    signals.before_task_publish.connect(clear, weak=False)

    assert made_of(entry).task_id == "the-id"


def test_a_task_that_sends_nothing_has_no_message(project: ModuleType) -> None:
    assert made_of(entry_of("nothing")) == Made(b"", None, "the-id")


def test_lazy_arguments_are_called_for_each_slot(project: ModuleType) -> None:
    entry = entry_of("lazy")
    assert entry.message.made_anew == "an argument is a BeatLazyFunc"

    assert message_of(entry)["headers"]["argsrepr"] == "[1]"
    assert message_of(entry)["headers"]["argsrepr"] == "[2]"


def test_an_argument_that_is_the_slot_is_made_anew(project: ModuleType) -> None:
    entry = entry_of("slot")
    assert entry.message.made_anew == "the argument 'at' is the slot"

    assert message_of(entry)["headers"]["kwargsrepr"] == f"{{'at': '{SLOT}'}}"


@pytest.mark.parametrize("name", ["plain", "tenant"])
def test_a_message_expires_at_the_next_slot_if_the_entry_says_so(
    project: ModuleType, name: str
) -> None:
    message = message_of(entry_of(name), expires=NOON + 5 * MINUTE)

    assert message["headers"]["expires"] == SLOT.replace("45:00", "50:00")


def test_no_result_is_waited_for_and_no_connection_is_made(
    project: ModuleType,
) -> None:
    config = config_of()
    for entry in config.entries:
        if entry.name in ("plain", "tenant", "lazy"):
            made_of(entry)

    assert project.app.backend.result_consumer._pubsub is None
    assert not project.app.pool._dirty


@pytest.mark.parametrize("app", ["by_router", "by_send_task", "by_protocol", "by_amqp"])
def test_code_of_the_app_makes_all_its_messages_anew(
    project: ModuleType, app: str
) -> None:
    (entry,) = config_of(app).entries

    assert project.WHY[app] in entry.message.made_anew


def test_a_connection_in_the_options_is_refused(project: ModuleType) -> None:
    (bad,) = config_of("by_connection").bad

    assert "options['connection']: the scheduler has a conn" in str(bad.problems[0])


def test_check_says_which_entries_are_made_anew_and_why(project: ModuleType) -> None:
    done = CliRunner().invoke(beatd, ["check", "-A", "anew:app"])

    assert done.exit_code == 0
    lines = done.output.splitlines()
    way = "the message is built anew for each run, since"
    end = "(nothing to mend)"
    lazy = "2 entries, 'lazy' and 'lazy_raises'"
    assert f"{lazy}: {way} an argument is a BeatLazyFunc {end}" in lines
    why = "anew.Tenant.apply_async is not Celery's own"
    tenant = f"entry 'tenant': {way} {why} {end}"
    assert tenant in lines

    done = CliRunner().invoke(beatd, ["check", "-A", "anew:app", "--json"])

    notes = json.loads(done.stdout)["notes"]
    assert len(notes) == 7
    assert tenant in notes
