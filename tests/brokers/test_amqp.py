"""RabbitMQ as a broker of schedulers and clients, at a real server."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from beatd import brokers
from beatd.brokers.amqp import AMQPBroker
from beatd.brokers.amqp.line import Line, address_of
from beatd.brokers.amqp.records import Ledger, Record, Row, decoded, encoded
from beatd.brokers.items import (
    Emission,
    HeldLead,
    Outcome,
    Outgoing,
    Promise,
    QueueState,
    Refused,
    Term,
)
from beatd.config.settings import Settings
from beatd.errors import (
    BrokerRefused,
    BrokerUnavailable,
    ConfigError,
    ItemRefused,
    LedgerMoved,
    TermOver,
)
from beatd.routing import Queue, Route
from beatd.timetable.imprint import Imprint
from beatd.timetable.ledger import Edition, Mark
from tests.processes import ROOT
from tests.rabbitmq import VHost
from tests.servers import eventually

pytestmark = pytest.mark.xdist_group("rabbitmq")

TTL = 5_000
CELERY = Queue("celery", "celery", "direct", "celery")


@pytest.fixture
def broker(vhost: VHost) -> Iterator[AMQPBroker]:
    made = AMQPBroker(vhost.url, namespace="test")
    yield made
    made.close()


@pytest.fixture
def other(vhost: VHost) -> Iterator[AMQPBroker]:
    """Another process's broker object."""
    made = AMQPBroker(vhost.url, namespace="test")
    yield made
    made.close()


def envelope(task_id: str) -> bytes:
    return json.dumps(
        {
            "body": "W10=",
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"id": task_id, "task": "t"},
            "properties": {
                "correlation_id": task_id,
                "delivery_mode": 2,
                "priority": 0,
                "body_encoding": "base64",
            },
        }
    ).encode()


def emission(entry: str, slot: int = 1, route: Route | None = None) -> Emission:
    route = route or Route("celery", "", "celery")
    mark = Mark(slot, "f", slot, slot)
    return Emission(entry, mark, route, envelope(f"{entry} {slot}"))


def led(broker: AMQPBroker, queue: Queue = CELERY) -> Term:
    term = broker.acquire("me", TTL, 0)
    assert isinstance(term, Term)
    broker.declare([queue])
    return term


def ids(vhost: VHost, queue: str = "celery") -> list[str]:
    return [one.properties["correlation_id"] for one in vhost.messages(queue)]


# The lead


def test_one_leads_and_all_others_are_told_who(
    broker: AMQPBroker, other: AMQPBroker
) -> None:
    led(broker)

    assert isinstance(other.acquire("you", TTL, 0), HeldLead)
    assert (broker.leader(), other.leader()) == ("me", "me")


def test_to_ask_for_the_lead_again_and_again_leaves_no_error_in_the_servers_log(
    broker: AMQPBroker, other: AMQPBroker, vhost: VHost
) -> None:
    led(broker)
    before = vhost.rabbit.log.count("[error]")

    for _ in range(5):
        other.acquire("you", TTL, 0)

    assert vhost.rabbit.log.count("[error]") == before


def test_a_lead_that_is_given_back_wakes_who_waits_and_the_terms_grow(
    broker: AMQPBroker, other: AMQPBroker
) -> None:
    term = led(broker)
    other.acquire("you", TTL, 0)
    assert other.await_release(1) is False  # it listens from now on
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(other.await_release, TTL * 6)
        broker.resign(term)
        assert waiting.result() is True

    later = other.acquire("you", TTL, floor=40)

    assert isinstance(later, Term)
    assert later.number == 41
    assert other.last_resigned() == term
    with pytest.raises(TermOver):
        broker.emit(term, [emission("a")], TTL)


def test_a_term_ends_with_its_connection_and_is_never_led_on_quietly(
    broker: AMQPBroker, other: AMQPBroker, vhost: VHost
) -> None:
    term = led(broker)

    vhost.rabbit.close_connections(vhost.name, "an operator")

    with pytest.raises(BrokerUnavailable):
        broker.emit(term, [emission("a")], TTL)
    assert broker.renew(term, TTL) is False
    later = other.acquire("you", TTL, 0)
    assert isinstance(later, Term)
    assert later.number > term.number


def test_a_term_that_could_not_begin_begins_at_the_next_try(
    broker: AMQPBroker, vhost: VHost
) -> None:
    """The queue is had by then, and its own process is not to wait for it."""
    led(broker)
    vhost.rabbit.close_connections(vhost.name, "an operator")

    found = [one for one in (attempt(broker) for _ in range(9)) if one is not None]

    assert isinstance(found[0], Term)


def attempt(broker: AMQPBroker) -> Term | HeldLead | None:
    try:
        return broker.acquire("me", TTL, 0)
    except BrokerUnavailable:
        return None


def test_what_a_leader_announces_is_read_by_others(
    broker: AMQPBroker, other: AMQPBroker
) -> None:
    term = led(broker)

    broker.announce(term, Imprint("d1", b"\x00\xff"))

    assert other.announced() == Imprint("d1", b"\x00\xff")
    assert other.announced(unless="d1") is None


# Emissions


def emit_again_and_again(broker: AMQPBroker, term: Term) -> None:
    for slot in range(1, 1000):
        broker.emit(term, [emission("a", slot)], TTL)


def test_a_slot_is_queued_once_and_known_after_that(
    broker: AMQPBroker, other: AMQPBroker, vhost: VHost
) -> None:
    term = led(broker)

    first = broker.emit(term, [emission("a"), emission("b")], TTL)
    again = broker.emit(term, [emission("a"), emission("b", slot=2)], TTL)

    assert first == [Outcome.QUEUED, Outcome.QUEUED]
    assert again == [Outcome.KNOWN, Outcome.QUEUED]
    assert ids(vhost) == ["a 1", "b 1", "b 2"]
    assert other.read_ledger().marks == {
        "a": Mark(1, "f", 1, 1),
        "b": Mark(2, "f", 2, 2),
    }


def test_what_reaches_no_queue_is_dropped_and_no_run(
    broker: AMQPBroker, vhost: VHost
) -> None:
    term = led(broker, Queue("q", "topics", "topic", "a.#"))
    nowhere = Route("", "topics", "b", "topic")

    assert broker.emit(term, [emission("a", route=nowhere)], TTL) == [Outcome.DROPPED]

    assert broker.read_ledger().marks["a"] == Mark(1, "f", 0, None)


def test_a_queue_that_was_deleted_is_made_again_and_nothing_is_lost(
    broker: AMQPBroker, vhost: VHost
) -> None:
    term = led(broker)
    with vhost.channel() as channel:
        channel.queue_delete("celery")

    outcomes = broker.emit(term, [emission("a"), emission("b")], TTL)

    assert outcomes == [Outcome.QUEUED, Outcome.QUEUED]
    assert ids(vhost) == ["a 1", "b 1"]


def test_a_full_queue_holds_up_no_other(broker: AMQPBroker, vhost: VHost) -> None:
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    small = Queue("small", "small", "direct", "small", arguments=limits)
    term = led(broker, small)
    broker.declare([CELERY])
    full = Route("small", "", "small")
    broker.emit(term, [emission("first", route=full)], TTL)

    batch = [
        emission("a", 1, full),
        emission("a", 2, Route("celery", "", "celery")),
        emission("b"),
    ]
    refused, behind, queued = broker.emit(term, batch, TTL)

    assert isinstance(refused, Refused)
    assert "queue 'small' is full" in refused.reason
    assert isinstance(behind, Refused)  # the row must not pass the first
    assert queued is Outcome.QUEUED
    with vhost.channel() as channel:
        channel.queue_purge("small")
    assert broker.emit(term, batch[:2], TTL) == [Outcome.QUEUED, Outcome.QUEUED]
    assert sorted(ids(vhost)) == ["a 2", "b 1"]  # what was confirmed is not sent again


def test_an_exchange_that_is_not_there_holds_up_no_other(
    broker: AMQPBroker, vhost: VHost
) -> None:
    term = led(broker)
    nowhere = Route("", "nowhere", "key")

    for slot in (1, 2):
        lost, queued = broker.emit(
            term, [emission("a", route=nowhere), emission("b", slot)], TTL
        )
        assert isinstance(lost, Refused)
        assert "no exchange 'nowhere'" in lost.reason
        assert queued is Outcome.QUEUED
    assert ids(vhost)[-1] == "b 2"


def test_what_amqp_cannot_carry_is_refused_alone(
    broker: AMQPBroker, vhost: VHost
) -> None:
    term = led(broker)
    bad = Emission("a", Mark(1, "f"), Route("celery"), envelope("é" * 200))

    refused, queued = broker.emit(term, [bad, emission("b")], TTL)

    assert isinstance(refused, Refused)
    assert "correlation_id" in refused.reason
    assert queued is Outcome.QUEUED


def test_an_alarm_is_said_and_what_waited_through_it_is_queued_once(
    broker: AMQPBroker, vhost: VHost
) -> None:
    term = led(broker)
    with vhost.rabbit.alarm():
        with pytest.raises(BrokerRefused, match="low on memory or disk"):
            emit_again_and_again(broker, term)
        last = broker.ledger.marks["a"].slot if broker.ledger.marks else 0
    eventually(lambda: not broker._line.blocked)

    outcomes = broker.emit(term, [emission("a", last + 1)], TTL)

    assert outcomes == [Outcome.QUEUED]
    assert ids(vhost) == [f"a {slot}" for slot in range(1, last + 2)]


def test_a_batch_of_a_thousand_waits_for_the_server_twice(
    broker: AMQPBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for the messages, and once for the record of the ledger."""
    from beatd.brokers.amqp.stream import Confirmed

    term = led(broker)
    waited = []
    usual = Confirmed.await_all

    def counted(channel: Confirmed) -> None:
        waited.append(channel)
        usual(channel)

    monkeypatch.setattr(Confirmed, "await_all", counted)

    broker.emit(term, [emission(str(number)) for number in range(1000)], TTL)

    assert len(waited) == 2


def test_a_ledger_that_is_not_as_it_was_left_is_not_written_to(
    broker: AMQPBroker, vhost: VHost
) -> None:
    term = led(broker)
    broker.write_ledger(term, {}, (), 0, Edition("line", 7))

    with pytest.raises(LedgerMoved):
        broker.emit(term, [emission("a")], TTL, Edition("line", 9))

    assert ids(vhost) == []


# The ledger


def test_a_ledger_is_read_by_others_as_it_was_written(
    broker: AMQPBroker, other: AMQPBroker
) -> None:
    term = led(broker)
    edition = Edition("line", 3, "1:abc")
    marks = {f"e{number}": Mark(number, "f", 1, None, 9) for number in range(3)}

    broker.write_ledger(term, marks, (), 2, edition, b"told")
    broker.write_ledger(term, {"e0": Mark(0, "g")}, ["e1"], 2)
    broker.write_notes("book", {"a": b"1", "b": b"\xff"})
    broker.write_notes("book", {"c": b"3"}, gone=["a"])

    found = other.read_ledger()
    assert found.marks == {"e0": Mark(0, "g"), "e2": marks["e2"]}
    assert (found.era, found.edition) == (2, edition)
    assert other.read_notes("book") == {"b": b"\xff", "c": b"3"}
    ((number, page),) = other.read_pages(9)
    assert (number, page) == (1, b" told")
    broker.fold_pages(term, 1, {"e0": b"row"}, ["e1"])
    assert other.read_history() == ({"e0": b"row"}, [])


def test_a_process_without_the_lead_writes_notes(
    broker: AMQPBroker, other: AMQPBroker
) -> None:
    other.write_notes("paused", {"a": b"why"})

    assert broker.read_notes("paused") == {"a": b"why"}


def test_who_leads_reads_the_notes_of_others_and_keeps_its_ledger(
    broker: AMQPBroker, other: AMQPBroker, vhost: VHost
) -> None:
    term = led(broker)
    broker.write_ledger(term, {"a": Mark(0, "f")}, (), 0)
    broker.emit(term, [emission("a", 3)], TTL)
    other.write_notes("paused", {"a": b"why"})

    assert broker.read_notes("paused") == {"a": b"why"}
    other.write_notes("paused", {}, gone=["a"])
    assert broker.read_notes("paused") == {}

    assert broker.emit(term, [emission("a", 3)], TTL) == [Outcome.KNOWN]
    assert other.read_ledger().marks["a"].slot == 3
    with vhost.channel() as channel:
        channel.queue_delete("beatd.ledger.test")
    broker.emit(term, [emission("b")], TTL)
    other.write_notes("paused", {"b": b"why"})
    assert broker.read_notes("paused") == {"b": b"why"}
    assert sorted(broker.read_ledger().marks) == ["a", "b"]


def test_a_stream_that_was_deleted_is_founded_anew_by_who_leads(
    broker: AMQPBroker, other: AMQPBroker, vhost: VHost
) -> None:
    term = led(broker)
    broker.emit(term, [emission("a")], TTL)
    with vhost.channel() as channel:
        channel.queue_delete("beatd.ledger.test")

    broker.emit(term, [emission("b")], TTL)

    assert sorted(other.read_ledger().marks) == ["a", "b"]


def test_a_snapshot_gives_the_same_ledger() -> None:
    ledger = Ledger()
    for record in (
        Record(term=4, nonce="n", holder="me", announced=("d", b"e")),
        Record(
            moved=[Row("a", 5, "f", 1, 5, None)], page=1, told=b"q p", runs={"a": "i"}
        ),
        Record(rows=[Row("b", 6, "g", 0, None, None)], era=1, edition=("l", 2, "")),
        Record(book="x", notes={"y": b"z"}, history={"a": b"h"}),
    ):
        ledger.apply(decoded(encoded(record)))

    copy = Ledger()
    for record in ledger.snapshot():
        copy.apply(decoded(encoded(record)))

    assert vars(copy) == vars(ledger)


def test_rows_of_an_earlier_term_only_ever_move_on() -> None:
    ledger = Ledger()
    ledger.apply(Record(term=2, nonce="b", rows=[Row("a", 5, "f", 1, 5, None)]))

    ledger.apply(Record(term=1, nonce="a", rows=[Row("a", 9, "f", 1, 9, None)]))
    ledger.apply(Record(term=1, nonce="a", moved=[Row("a", 7, "f", 2, 7, None)]))

    assert ledger.marks["a"].slot == 7


def test_what_is_no_record_is_passed_over(
    broker: AMQPBroker, other: AMQPBroker, vhost: VHost
) -> None:
    import amqp

    term = led(broker)
    broker.emit(term, [emission("a")], TTL)
    with vhost.channel() as channel:
        for body in (b"\xff", b'{"rows": [["a", "noon", "f", 0, null, null]]}'):
            channel.basic_publish(amqp.Message(body), "", "beatd.ledger.test")
    broker.emit(term, [emission("b")], TTL)

    assert sorted(other.read_ledger().marks) == ["a", "b"]


# What is wrong from the start


def test_a_wrong_password_is_an_error_of_the_config(vhost: VHost) -> None:
    url = vhost.rabbit.url(vhost.name, user="guest:secret-and-wrong")

    with pytest.raises(ConfigError, match="wrong password") as caught:
        AMQPBroker(url, namespace="test").acquire("me", TTL, 0)

    assert "secret" not in str(caught.value)


def test_a_virtual_host_that_is_not_there_is_an_error_of_the_config(
    vhost: VHost,
) -> None:
    url = vhost.rabbit.url("nosuch")

    with pytest.raises(ConfigError, match="virtual host 'nosuch'"):
        AMQPBroker(url, namespace="test").ping()


def test_a_permission_that_is_missing_is_an_error_of_the_config(
    broker: AMQPBroker, vhost: VHost
) -> None:
    vhost.rabbit.permit(vhost.name, configure="^other$")

    with pytest.raises(ConfigError, match="lacks a permission"):
        broker.acquire("me", TTL, 0)


def test_a_server_that_is_away_is_waited_for(vhost: VHost) -> None:
    away = AMQPBroker("amqp://guest@127.0.0.1:1/", namespace="test")

    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
        away.ping()


def test_a_queue_with_other_arguments_is_an_error_at_the_start_and_said_later(
    broker: AMQPBroker, vhost: VHost, caplog: pytest.LogCaptureFixture
) -> None:
    with vhost.channel() as channel:
        channel.queue_declare("celery", durable=True, arguments={"x-max-priority": 9})

    with pytest.raises(ConfigError, match="with other arguments than the config"):
        broker.declare([CELERY])
    broker.declare([Queue("fine", "fine", "direct", "fine")])
    broker.declare([CELERY])

    assert "with other arguments" in caplog.text
    term = broker.acquire("me", TTL, 0)
    assert isinstance(term, Term)
    assert broker.emit(term, [emission("a")], TTL) == [Outcome.QUEUED]


@pytest.mark.parametrize(
    ("url", "place", "vhost"),
    [
        ("amqp://", "localhost:5672", "/"),
        ("amqp://u:p@h//", "h:5672", "/"),
        ("pyamqp://u:p@h:7/v", "h:7", "v"),
        ("amqps://h/%2fteam", "h:5671", "/team"),
    ],
)
def test_addresses_are_read_as_celery_does(url: str, place: str, vhost: str) -> None:
    address = address_of(url, {}, False)

    assert (address.place, address.vhost) == (place, vhost)
    assert (address.tls is not None) == url.startswith("amqps")


def test_a_worker_is_refused_in_words(vhost: VHost) -> None:
    with pytest.raises(ConfigError, match="does not take messages from RabbitMQ yet"):
        brokers.for_workers(Settings(), [vhost.url])


# Clients, and people


def test_calls_are_sent_and_what_cannot_be_is_refused(
    broker: AMQPBroker, vhost: VHost
) -> None:
    broker.declare([CELERY])
    route = Route("celery", "", "celery")

    broker.send([Outgoing(route, envelope("x")), Outgoing(route, envelope("y"))])

    assert ids(vhost) == ["x", "y"]
    with pytest.raises(ItemRefused, match="no exchange 'nowhere'"):
        broker.send([Outgoing(Route("", "nowhere", "k"), envelope("z"))])
    with vhost.channel() as channel:
        channel.queue_delete("celery")
    broker.send([Outgoing(route, envelope("z"))])
    assert ids(vhost) == ["z"]
    assert broker.purge(["celery", "none"]) == 1


def test_people_are_told_what_lies_there(broker: AMQPBroker) -> None:
    broker.declare([CELERY])
    broker.send([Outgoing(Route("celery"), envelope("x"))])

    seen = broker.overview(["celery", "none"])

    assert seen.queues == [QueueState("celery", 1), QueueState("none", 0)]
    assert broker.ping().startswith("RabbitMQ ")
    assert broker.promise is Promise.AT_LEAST_ONCE
    assert "at least once" in broker.promise.words


def test_a_connection_that_is_idle_sends_heartbeats(
    broker: AMQPBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    usual = Line._beat

    def noted(line: Line, connection: object) -> None:
        usual(line, connection)
        sent.append(line.number)

    monkeypatch.setattr(Line, "_beat", noted)
    term = led(broker)

    eventually(lambda: len(sent) >= 3)

    assert broker.renew(term, TTL)


def test_the_permissions_that_the_guide_names_are_enough(
    broker: AMQPBroker, other: AMQPBroker, vhost: VHost
) -> None:
    guide = (ROOT / "docs" / "brokers.md").read_text()
    (line,) = re.findall("rabbitmqctl set_permissions -p production .*", guide)
    rules = re.findall("'(.*?)'", line)
    vhost.rabbit.permit(vhost.name, *(rule.replace("\\", "\\\\") for rule in rules))

    term = led(broker)
    assert broker.emit(term, [emission("a")], TTL) == [Outcome.QUEUED]
    assert isinstance(other.acquire("you", TTL, 0), HeldLead)
    assert other.await_release(1) is False
    assert other.read_ledger().marks.keys() == {"a"}
    broker.resign(term)
    assert other.await_release(TTL) is True
