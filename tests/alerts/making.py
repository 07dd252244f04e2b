"""Rules, watches and desks for the tests of alerts."""

from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from beatd.alerts.desk import Desk, Setting
from beatd.alerts.event import Event
from beatd.alerts.watch import Watch
from beatd.config.alert_rules import AlertRule, AlertRules
from beatd.config.settings.alerts import read_rule
from beatd.instant import SECOND, Instant, Span
from beatd.results.base import Meta
from beatd.scheduler.loop import Scheduler
from beatd.timetable.pages import Record, What
from tests.fakes import FakeClock, FlakyBroker

UTC = ZoneInfo("UTC")


def rules(**written: Any) -> AlertRules:
    """Return rules that hold for all entries: keys as they are written."""
    return AlertRules(AlertRule(), [("*", read_rule(written))])


def watch(offsets: Mapping[str, Span] | None = None, /, **written: Any) -> Watch:
    return Watch(rules(**written), "test", UTC, offsets or {})


def sent(slot: Instant, late: Span = 0) -> Record:
    return Record(slot, late)


def dropped(slot: Instant, why: str, last: Instant | None = None) -> Record:
    return Record(slot, 0, What.DROPPED, 0, last, 1 if last is None else 2, why)


def kinds(events: Sequence[Event]) -> list[str]:
    return [str(event.kind) for event in events]


class FakeResults:
    """Results in memory, of which a test says what they are."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.asked: list[Sequence[str]] = []

    def load(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        self.asked.append(task_ids)
        return {id: Meta(id, self.states[id]) for id in task_ids if id in self.states}

    def store(self, metas: Sequence[object]) -> None:
        raise NotImplementedError

    correct = store


def setting(
    rules: AlertRules, results: FakeResults | None = None, timeout: Span = 10 * SECOND
) -> Setting:
    connect = (lambda: results) if results else None
    names = ("tick", "tock")
    queues = dict.fromkeys(names, "celery")
    return Setting(rules, "test", UTC, timeout, {}, queues, connect)


def desk_of(
    scheduler: Scheduler, rules: AlertRules, results: FakeResults | None = None
) -> Desk:
    """Return a desk for the scheduler; a test calls `turn` in place of its thread."""
    broker = scheduler.broker
    assert isinstance(broker, FlakyBroker)
    desk = Desk(
        setting(rules, results),
        broker,
        lambda: scheduler.leadership.term,
        lambda: scheduler.refused,
        lambda name: name in scheduler.takeover.configs.entries,
        scheduler.clock,
        scheduler.pulse,
        scheduler.pauses,
    )
    scheduler.have_pages_read(desk)
    return desk


def live(scheduler: Scheduler, desk: Desk, until: Instant) -> None:
    """Let the scheduler tick, and the desk look, once a second until then."""
    clock = scheduler.clock
    assert isinstance(clock, FakeClock)
    while clock.now() < until:
        scheduler.tick(clock.now())
        desk.turn()
        clock.go_to(clock.now() + SECOND)
