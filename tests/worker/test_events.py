"""Events on their way to monitors, and when nobody takes them."""

import base64
import json
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from beatd.background import BATCH
from beatd.brokers.items import Outgoing
from beatd.brokers.memory import MemoryBroker
from beatd.clock import SystemClock
from beatd.config.settings import Settings
from beatd.errors import BrokerUnavailable, ItemRefused
from beatd.events.event import EventFactory
from beatd.events.lamport import LamportClock
from beatd.events.sender import MOST
from beatd.message import Envelope, read_notice
from beatd.message.codec import loads
from beatd.worker.events import Load, WorkerEvents
from tests.fakes import FakeClock
from tests.servers import eventually


class Ether(MemoryBroker):
    """A broker that keeps what is sent; it can be away, or slow."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, Any]] = []
        self.down = False
        self.refused: set[str] = set()
        self.requests = 1_000_000
        """After how many requests it goes away, for the last of them."""
        self.open = threading.Event()
        self.open.set()

    def send(self, batch: Sequence[Outgoing]) -> None:
        self.open.wait()
        self.requests -= 1
        if self.down or not self.requests:
            raise BrokerUnavailable("nobody answers")
        if self.refused & {one.route.routing_key for one in batch}:
            raise ItemRefused("no permission")
        for one in batch:
            body = read_notice(one.message).body
            self.sent.append((one.route.routing_key, body))

    def kinds(self) -> list[str]:
        """Return the types of all events, in order."""
        listed = [body if isinstance(body, list) else [body] for _, body in self.sent]
        return [event["type"] for events in listed for event in events]


@pytest.fixture
def ether() -> Iterator[Ether]:
    ether = Ether()
    yield ether
    ether.open.set()


def events_on(
    ether: Ether, *, interval: float | None = None, zone: tzinfo = UTC
) -> WorkerEvents:
    return WorkerEvents(
        ether, "w1@here", Settings(), LamportClock(), FakeClock(), zone, interval, True
    )


def task(number: int = 0, retries: int = 0, eta: str | None = None) -> Envelope:
    return Envelope(
        task="proj.add", id=f"id-{number}", raw=b"", retries=retries, eta_text=eta,
        content_type="", body="", base64=True,
    )  # fmt: skip


def crashed(error: BaseException) -> None:
    raise AssertionError from error


def test_events_of_tasks_go_together_and_those_of_the_worker_alone(
    ether: Ether,
) -> None:
    events = events_on(ether)
    events.task("started", task(1))
    events.task("started", task(2))
    events.heartbeat()
    events.task("started", task(3))
    events.turn()

    assert [(key, type(body)) for key, body in ether.sent] == [
        ("task.multi", list),
        ("worker.heartbeat", dict),
        ("task.multi", list),
    ]
    assert len(ether.sent[0][1]) == 2


def test_one_message_holds_a_bounded_number_of_events(ether: Ether) -> None:
    events = events_on(ether)
    for number in range(BATCH + 1):
        events.task("started", task(number))
    events.turn()

    assert [len(body) for _, body in ether.sent] == [BATCH, 1]


def test_events_are_numbered_in_order(ether: Ether) -> None:
    events = events_on(ether)
    for number in range(3):
        events.task("started", task(number))
    events.turn()

    assert [event["clock"] for event in ether.sent[0][1]] == [1, 2, 3]


def test_nothing_is_said_of_tasks_unless_asked_for(ether: Ether) -> None:
    events = events_on(ether)
    events.enabled = False
    events.task("started", task())

    assert events.turn() is False


def test_what_is_for_later_is_received_once(ether: Ether) -> None:
    events = events_on(ether)
    late = task(eta="2027-01-15T12:00:00")
    events.task("delayed", late)
    events.task("received", late)
    events.task("received", late)  # delivered once more
    events.task("received", task(retries=1))
    events.turn()

    received = ether.sent[0][1]
    assert [event["type"] for event in received] == ["task-received"] * 3
    assert received[0]["eta"] == "2027-01-15T12:00:00+00:00"


def test_a_broker_that_is_away_hears_it_later_in_order(ether: Ether) -> None:
    events = events_on(ether)
    events.task("started", task(1))
    ether.down = True
    with pytest.raises(BrokerUnavailable):
        events.turn()
    events.task("succeeded", task(1), result="1", runtime=0.5)
    ether.down = False
    events.turn()

    assert ether.kinds() == ["task-started", "task-succeeded"]


def test_what_is_too_much_is_dropped_counted_and_said(
    ether: Ether, caplog: pytest.LogCaptureFixture
) -> None:
    events = events_on(ether)
    for number in range(MOST + 7):
        events.task("started", task(number))
    events.turn()

    assert len(ether.kinds()) == MOST
    assert [record.getMessage() for record in caplog.records] == [
        "dropped 7 events: monitors do not know all"
    ]


def test_a_broker_that_does_not_answer_holds_nobody_up(ether: Ether) -> None:
    events = WorkerEvents(ether, "w1@here", Settings(), LamportClock(), enabled=True)
    ether.open.clear()
    events.start(lambda: Load(0, 0), crashed)
    began = SystemClock().elapsed()
    for number in range(1000):
        events.task("started", task(number))
    took = SystemClock().elapsed() - began
    ether.open.set()
    events.stop()

    assert took < 1000
    kinds = ether.kinds()
    assert kinds.count("task-started") == 1000
    assert (kinds[0], kinds[-1]) == ("worker-online", "worker-offline")


def test_heartbeats_come_at_their_interval_with_the_load(ether: Ether) -> None:
    events = WorkerEvents(ether, "w1@here", Settings(), LamportClock(), interval=0.02)
    events.start(lambda: Load(3, 8), crashed)
    eventually(lambda: ether.kinds().count("worker-heartbeat") >= 3)
    events.stop()

    _, beat = ether.sent[1]
    assert (beat["freq"], beat["active"], beat["processed"]) == (0.02, 3, 8)


def test_without_heartbeats_the_worker_says_nothing_of_itself(ether: Ether) -> None:
    events = WorkerEvents(ether, "w1@here", Settings(), LamportClock(), interval=None)
    events.start(lambda: Load(0, 0), crashed)
    events.stop()

    assert ether.sent == []


@pytest.mark.parametrize(
    ("zone", "hours"),
    [(UTC, 0.0), (ZoneInfo("America/New_York"), 5.0), (ZoneInfo("Asia/Kolkata"), -5.5)],
)
def test_the_offset_is_that_of_the_machine(
    ether: Ether, zone: tzinfo, hours: float
) -> None:
    events = events_on(ether, zone=zone)
    events.heartbeat()
    events.turn()

    assert ether.sent[0][1]["utcoffset"] == hours


@pytest.mark.parametrize(
    ("serializer", "content_type"),
    [("json", "application/json"), ("msgpack", "application/x-msgpack")],
)
def test_events_are_encoded_as_the_settings_say(
    serializer: str, content_type: str
) -> None:
    factory = EventFactory("w1@here", Settings(event_serializer=serializer))
    event = factory.event("task-started", {"uuid": "an-id"})

    envelope = json.loads(factory.message("task.started", event).message)

    assert envelope["content-type"] == content_type
    body = base64.b64decode(envelope["body"])
    assert loads(body, content_type, frozenset({content_type})) == event


def test_events_that_are_refused_are_dropped_and_said_once_a_minute(
    ether: Ether, caplog: pytest.LogCaptureFixture
) -> None:
    events = events_on(ether, interval=2.0)
    ether.refused = {"task.multi"}

    for number in range(3):
        events.task("started", task(number))
        events.heartbeat()
        events.turn()

    assert ether.kinds() == ["worker-heartbeat"] * 3
    said = [r for r in caplog.records if r.__dict__["event"] == "events.refused"]
    assert [one.getMessage() for one in said] == [
        "events are dropped (1 message), monitors do not know all: no permission"
    ]


def test_an_event_goes_once_when_the_broker_goes_away_after_a_refusal(
    ether: Ether,
) -> None:
    events = events_on(ether, interval=2.0)
    ether.refused = {"task.multi"}
    events.heartbeat()
    events.task("started", task(1))

    ether.requests = 3  # the batch, its first half, and then the second
    with pytest.raises(BrokerUnavailable):
        events.turn()
    events.turn()

    assert ether.kinds() == ["worker-heartbeat"]
