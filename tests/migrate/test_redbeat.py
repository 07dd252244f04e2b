"""RedBeat's keys, written by RedBeat itself."""

import json
import runpy
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.schedules import crontab, schedule
from dateutil.rrule import DAILY, MO, WEEKLY
from redbeat import RedBeatSchedulerEntry
from redbeat.schedulers import get_redis
from redbeat.schedules import rrule

from beatd import schedules
from beatd.config.loading import examine_source
from beatd.config.source import Source
from beatd.errors import BrokerUnavailable, ConfigError
from beatd.instant import Instant, instant_of
from beatd.migrate.config_text import module_text
from beatd.migrate.found import Found, LastRun
from beatd.migrate.redbeat import RedBeat
from tests.processes import ended
from tests.sentinels import NAME, Sentinel
from tests.servers import Server
from tests.switch.files import write

MOMENT = datetime(2026, 11, 30, 12, 0, 1, tzinfo=UTC)
AT: Instant = instant_of(MOMENT)


@pytest.fixture
def app(server: Server) -> Iterator[Any]:
    app = Celery("proj", broker=server.url(), set_as_current=False)
    app.conf.redbeat_redis_url = server.url()
    yield app
    get_redis(app).close()


def save(app: Any, name: str, schedule: Any, last: Any = None, **more: Any) -> None:
    entry = RedBeatSchedulerEntry(name, "t", schedule, app=app, **more)
    entry.last_run_at = last
    entry.save()


def found_by(**written: object) -> Found:
    config = examine_source(Source("conf", written)).config
    assert config is not None
    return RedBeat(config).read()


def found_at(server: Server) -> Found:
    return found_by(redbeat_redis_url=server.url())


def test_entries_behind_sentinels_are_read(server: Server) -> None:
    with Sentinel(server.port) as sentinel:
        app = Celery("proj", set_as_current=False)
        app.conf.redbeat_redis_url = "redis-sentinel"
        app.conf.redbeat_redis_options = {
            "sentinels": [("127.0.0.1", sentinel.port)],
            "service_name": NAME,
        }
        save(app, "ran", schedule(timedelta(minutes=5)), MOMENT)
        get_redis(app).close()

        theirs = found_by(
            redbeat_redis_url=app.conf.redbeat_redis_url,
            redbeat_redis_options=app.conf.redbeat_redis_options,
        )
        ours = found_by(
            broker_url=f"sentinel://127.0.0.1:{sentinel.port}",
            broker_transport_options={"master_name": NAME},
        )

    assert [one.name for one in theirs.entries] == ["ran"]
    assert theirs.entries == ours.entries


def test_options_for_sentinels_that_name_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="pairs of host and port"):
        found_by(redbeat_redis_url="redis-sentinel")


def test_entries_and_last_runs_are_read(app: Any, server: Server) -> None:
    save(app, "ran", schedule(timedelta(minutes=5)), MOMENT, args=[1], kwargs={"a": 2})
    save(app, "new", crontab(minute="*/5", day_of_week="mon"), options={"queue": "q"})
    save(app, "off", schedule(60, relative=True), enabled=False)

    found = {one.name: one for one in found_at(server).entries}

    assert found["ran"].last == LastRun(AT, 0)
    assert found["ran"].written == {
        "task": "t",
        "schedule": schedules.every(300, align=False),
        "args": [1],
        "kwargs": {"a": 2},
    }
    assert found["new"].last is None
    assert found["new"].written == {
        "task": "t",
        "schedule": schedules.crontab(minute="*/5", day_of_week="mon"),
        "options": {"queue": "q"},
    }
    assert found["off"].written == {
        "task": "t",
        "schedule": schedules.every(60, relative=True),
        "enabled": False,
    }


RULES = [
    {"freq": "DAILY", "interval": 2},
    {"freq": "WEEKLY", "byweekday": [MO, 2], "wkst": 6},
    {"freq": "MONTHLY", "bymonthday": [1, -1], "byhour": 8, "count": 40},
    {"freq": "YEARLY", "bymonth": [1, 7], "until": datetime(2030, 1, 1, tzinfo=UTC)},
    {"freq": WEEKLY, "bysetpos": 1, "byhour": [1, 2], "byminute": 0, "bysecond": 0},
]


@pytest.mark.parametrize("hours", [0, 5, -3])
@pytest.mark.parametrize("rule", RULES)
def test_a_recurrence_rule_has_the_same_slots(
    app: Any, server: Server, rule: dict[str, Any], hours: int
) -> None:
    begin = datetime.fromisoformat(f"2026-01-05T09:30:00{hours:+03d}:00")
    theirs = rrule(dtstart=begin, app=app, **rule)
    save(app, "it", theirs)
    (one,) = found_at(server).entries
    entries = {"it": one.written}
    config = examine_source(Source("conf", {"beat_schedule": entries})).config
    assert config is not None
    (ours,) = config.entries

    slot: Instant | None = AT
    expected = [*theirs.rrule.xafter(MOMENT, 10)]
    for moment in expected:
        assert slot is not None
        slot = ours.schedule.next_after(slot)
        assert slot == instant_of(moment)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"freq": DAILY, "byeaster": 0}, "byeaster is no part of RFC 5545"),
        (
            {
                "freq": DAILY,
                "dtstart": datetime.fromisoformat("2026-01-05T09:30+05:30"),
            },
            "its clock is 330.0 minutes ahead of UTC, no whole hours",
        ),
    ],
)
def test_a_rule_that_cannot_be_said_is_a_comment_with_its_reason(
    app: Any, server: Server, rule: dict[str, Any], why: str
) -> None:
    save(app, "it", rrule(**{"dtstart": MOMENT, "app": app, **rule}))

    found = found_at(server)

    assert f"    # 'it' is left out: its schedule: {why}\n" in module_text(
        "t", {}, found.entries
    )


@pytest.mark.parametrize(
    ("key", "definition", "meta", "problem"),
    [
        ("gone", None, None, "'gone': its key is gone"),
        ("text", "no JSON", None, "'text': Expecting value"),
        ("list", "[]", None, "'list': "),
        ("dated", "{}", '{"last_run_at": "noon"}', "'dated': "),
        (
            "taskless",
            '{"schedule": {"__type__": "crontab"}}',
            None,
            "'taskless': 'task'",
        ),
    ],
)
def test_what_cannot_be_read_is_named(
    server: Server, key: str, definition: str | None, meta: str | None, problem: str
) -> None:
    values = {"definition": definition, "meta": meta}
    with server.client() as client:
        client.zadd("redbeat::schedule", {f"redbeat:{key}": 1})
        if definition:
            given = {name: text for name, text in values.items() if text}
            client.hset(f"redbeat:{key}", mapping=given)

    found = found_at(server)

    assert found.entries == []
    assert found.problems[0].startswith(problem)


def test_prefix_and_address_are_those_of_its_settings(server: Server) -> None:
    app = Celery("proj", broker=server.url(), set_as_current=False)
    app.conf.redbeat_redis_url = server.url(3)
    app.conf.redbeat_key_prefix = "mine:"
    save(app, "it", schedule(60))
    get_redis(app).close()

    upper = found_by(REDBEAT_REDIS_URL=server.url(3), REDBEAT_KEY_PREFIX="mine:")
    with server.client() as client:
        client.select(3)
        client.flushdb()

    assert [one.name for one in upper.entries] == ["it"]
    assert upper.source == f"RedBeat (mine:* in {server.url(3)})"
    with pytest.raises(ConfigError, match="no address of Redis"):
        found_by(redbeat_redis_url="sqlite:///x.db")
    with pytest.raises(BrokerUnavailable):
        found_by(redbeat_redis_url="redis://127.0.0.1:1/0")


@pytest.mark.parametrize(
    ("key", "said"),
    [(None, "redbeat::lock"), ("redbeat:mine", "redbeat:mine"), (":x", "redbeat::x")],
)
def test_a_lock_that_is_held_says_that_redbeat_runs(
    server: Server, key: str | None, said: str
) -> None:
    with server.client() as client:
        client.set(said, "token", px=90_000)

    found = found_by(redbeat_redis_url=server.url(), redbeat_lock_key=key)

    assert f"its lock {said} is held, and ends in 89 s" in found.in_use


PROJECT = """
    from celery import Celery
    app = Celery("proj", broker="{url}")
    app.conf.beat_scheduler = "redbeat.RedBeatScheduler"
    app.conf.redbeat_redis_url = "{url}"
    app.conf.beat_schedule = {{"often": {{"task": "t", "schedule": 1.0}}}}
    """
ADD = """
    import sys
    from celery.schedules import crontab
    from redbeat import RedBeatSchedulerEntry
    from proj import app
    RedBeatSchedulerEntry("added", "t", crontab(minute="7"), [1], app=app).save()
    """


def test_last_runs_are_taken_over_once_redbeat_has_stopped(
    tmp_path: Path, app: Any, server: Server
) -> None:
    text = PROJECT.format(url=server.url()).replace("redbeat.RedBeat", "celery.beat:")
    write(tmp_path, {"proj.py": text.replace(":Scheduler", ":PersistentScheduler")})
    save(app, "often", schedule(1), MOMENT)
    words = ("import", "redbeat", "-A", "proj")

    with server.client() as client:
        client.set("redbeat::lock", "token", px=90_000)
        while_it_runs = ended(*words, "--yes", cwd=tmp_path)
        client.delete("redbeat::lock")
    done = ended(*words, "--yes", "--json", cwd=tmp_path)
    nothing = ended(*words, "--config-out", "more.py", cwd=tmp_path)

    assert while_it_runs.returncode == 1
    assert "its lock redbeat::lock is held" in while_it_runs.stderr
    said = json.loads(done.stdout)
    assert said["written"]
    by_name = {one["name"]: one for one in said["entries"]}
    assert by_name["often"]["step"] == "taken"
    assert nothing.returncode == 3
    assert "and the config lacks none" in nothing.stderr


def test_a_module_has_what_the_config_lacks_and_replaces_no_file(
    tmp_path: Path, app: Any, server: Server
) -> None:
    save(app, "added", crontab(minute="7"), args=[1])
    words = ("import", "redbeat", "-b", server.url(), "--config-out", "entries.py")

    out = ended(*words, cwd=tmp_path)
    again = ended(*words, cwd=tmp_path)

    assert "wrote entries.py: 1 entry" in out.stdout
    module = runpy.run_path(str(tmp_path / "entries.py"))
    assert module["beat_schedule"] == {
        "added": {"task": "t", "schedule": schedules.crontab(minute="7"), "args": [1]}
    }
    assert again.returncode == 1
    assert "entries.py is there already, and is left as it is" in again.stderr
