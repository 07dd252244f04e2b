"""What only Redis can do to a broker: networks, refusals, other clients."""

import hashlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis

from beatd.brokers import connect
from beatd.brokers.base import Broker
from beatd.brokers.items import (
    DONE,
    ENOUGH,
    Acknowledge,
    Act,
    Delay,
    Emission,
    GiveBack,
    Outcome,
    Outgoing,
    Refused,
    SetAside,
    Term,
)
from beatd.brokers.redis import RedisBroker, requests
from beatd.clock import SystemClock
from beatd.errors import BrokerRefused, BrokerUnavailable, ConfigError
from beatd.instant import HOUR, MINUTE, SECOND
from beatd.routing import Queue, Route
from beatd.timetable.ledger import Finding, LedgerCopy, settled
from tests.brokers.making import (
    CELERY,
    NOON,
    emission,
    lead,
    lying_in,
    mark,
    outgoing,
    settle,
    take_all,
)
from tests.fakes import FakeClock
from tests.proxy import Fault, Proxy
from tests.servers import PATIENCE, Server, emptied, eventually

QUEUED, KNOWN = Outcome.QUEUED, Outcome.KNOWN
LONG = int(PATIENCE) * SECOND


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with server.client() as client:
        yield client


@pytest.fixture
def broker(server: Server) -> Iterator[RedisBroker]:
    broker = RedisBroker(server.url(), namespace="test")
    yield broker
    broker.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def far(proxy: Proxy) -> Iterator[RedisBroker]:
    """A broker that reaches the server through the proxy."""
    broker = RedisBroker(proxy.url(), namespace="test", options=waiting(PATIENCE))
    yield broker
    proxy.let_through()
    broker.close()


SHORT = 2.0
"""Seconds that the impatient wait for an answer: enough for one that comes."""


@pytest.fixture
def impatient(proxy: Proxy) -> Iterator[RedisBroker]:
    """The same, and it gives up soon."""
    broker = RedisBroker(proxy.url(), namespace="test", options=waiting(SHORT))
    yield broker
    proxy.let_through()
    broker.close()


def waiting(seconds: float) -> dict[str, object]:
    """Return the options of a broker that waits for so long."""
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds}


@pytest.fixture(scope="module")
def _spoilt() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def spoilt(_spoilt: Server) -> Iterator[Server]:
    """A server of this module's own, to be reconfigured and killed."""
    with emptied(_spoilt) as server:
        yield server


@pytest.fixture
def user(server: Server, client: Any) -> Iterator[str]:
    """A user who may do everything, until a test takes it away."""
    client.execute_command("ACL", "SETUSER", "u", "on", ">s3cret", "~*", "&*", "+@all")
    yield "u:s3cret"
    client.execute_command("ACL", "DELUSER", "u")


# Answers that are lost


@pytest.mark.parametrize("fault", Fault)
def test_whatever_is_cut_each_slot_is_queued_once(
    proxy: Proxy, far: RedisBroker, broker: Broker, fault: Fault
) -> None:
    term = lead(far)
    far.emit(term, [], MINUTE)  # the server knows the script from now on
    batch = [emission(f"entry-{i}", message=b"x" * 900) for i in range(100)]
    proxy.arm(fault, b"entry-7")

    with pytest.raises(BrokerUnavailable):
        far.emit(term, batch, MINUTE)
    outcomes = far.emit(term, batch, MINUTE)

    assert not proxy.armed
    assert outcomes == [KNOWN if fault is Fault.LOSE_REPLY else QUEUED] * 100
    assert len(lying_in(broker)) == 100


@pytest.mark.parametrize("fault", Fault)
def test_whatever_is_cut_the_lead_is_had_by_asking_again(
    proxy: Proxy, far: RedisBroker, fault: Fault
) -> None:
    far.resign(lead(far))  # the server knows the scripts from now on
    proxy.arm(fault, b"the test")

    with pytest.raises(BrokerUnavailable):
        lead(far)

    term = lead(far)
    assert not proxy.armed
    assert term.number == 2
    assert far.renew(term, MINUTE)


@pytest.mark.parametrize("fault", Fault)
def test_whatever_is_cut_a_message_is_taken_and_followed_once(
    proxy: Proxy, far: RedisBroker, broker: Broker, fault: Fault
) -> None:
    broker.send([outgoing(b"0"), outgoing(b"1"), outgoing(b"2")])
    far.join("w", MINUTE)
    # The server knows the scripts after that.
    [zero] = far.take("w", ["celery"], 1, 1)
    far.settle("w", [Acknowledge(zero)], [outgoing(b"after 0")], request=1)

    proxy.arm(fault, b"7654321")
    with pytest.raises(BrokerUnavailable):
        far.take("w", ["celery"], 1, 7654321)
    [one] = far.take("w", ["celery"], 1, 7654321)

    proxy.arm(fault, b"follows")
    for _ in range(2):
        try:
            far.settle("w", [Acknowledge(one)], [outgoing(b"follows")], request=2)
        except BrokerUnavailable:
            continue
    far.leave("w")

    assert not proxy.armed
    assert lying_in(broker) == [b"2", b"after 0", b"follows"]


def test_a_late_request_takes_nothing_under_a_later_lease_either(
    broker: RedisBroker, far: RedisBroker
) -> None:
    broker.join("w1", 20)
    assert broker.take("w1", ["celery"], 1, 5) == []
    eventually(lambda: (far.recover(), not far.stay("w1", 0))[1])
    broker.join("w1", MINUTE)
    broker.send([outgoing(b"1")])

    assert far.take("w1", ["celery"], 1, 4) == []
    [one] = broker.take("w1", ["celery"], 1, 6)
    assert one.message == b"1"


def test_a_late_answer_is_not_taken_for_that_of_another_request(
    proxy: Proxy, impatient: RedisBroker
) -> None:
    term = lead(impatient)
    proxy.hold()
    with pytest.raises(BrokerUnavailable):
        impatient.emit(term, [emission("late")], MINUTE)
    proxy.let_through()

    assert impatient.leader() == "the test"
    assert impatient.emit(term, [emission("other")], MINUTE) == [QUEUED]


def test_connections_that_died_without_a_sound_are_replaced(
    proxy: Proxy, impatient: RedisBroker
) -> None:
    with ThreadPoolExecutor(3) as threads:  # several connections in the pool
        assert all(threads.map(lambda _: impatient.ping(), range(9)))
    proxy.hold()
    with pytest.raises(BrokerUnavailable):
        impatient.ping()
    proxy.cut()
    proxy.let_through()

    assert impatient.ping(), "at the first try"


# A server that comes and goes


def test_a_killed_server_is_found_again(spoilt: Server) -> None:
    broker = RedisBroker(spoilt.url(), namespace="test")
    term = lead(broker)
    spoilt.kill()
    with pytest.raises(BrokerUnavailable, match=str(spoilt.port)):
        broker.emit(term, [emission("a")], MINUTE)

    spoilt.start()

    again = lead(broker)
    assert again != term  # it forgot all, and the number may be the same
    assert broker.emit(again, [emission("a")], MINUTE) == [QUEUED]
    broker.close()


def test_who_waits_learns_that_the_server_is_gone(spoilt: Server) -> None:
    broker = RedisBroker(spoilt.url(), namespace="test")
    waits: list[Callable[[], bool]] = [
        lambda: broker.await_message(["celery"], LONG),
        lambda: broker.await_release(LONG),
    ]
    for wait in waits:
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(wait)
            eventually(lambda: _subscribers(spoilt))
            spoilt.kill()
            with pytest.raises(BrokerUnavailable):
                waiting.result(PATIENCE)
        with pytest.raises(BrokerUnavailable):
            wait()
        spoilt.start()

    broker.send([outgoing(b"1")])
    assert broker.await_message(["celery"], LONG) is True
    broker.close()


def test_a_frozen_server_holds_nobody_for_long(spoilt: Server) -> None:
    broker = RedisBroker(spoilt.url(), namespace="test", options=waiting(SHORT))
    broker.ping()
    spoilt.freeze()
    try:
        begin = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            broker.ping()
        with pytest.raises(BrokerUnavailable):
            broker.await_message(["celery"], LONG)
        assert time.monotonic() - begin < PATIENCE / 2
    finally:
        spoilt.thaw()
    assert broker.ping()
    broker.close()


def test_a_server_that_lost_its_scripts_is_given_them_again(
    broker: RedisBroker, client: Any
) -> None:
    term = lead(broker)
    client.script_flush()

    assert broker.renew(term, MINUTE)


def test_closing_ends_what_waits(server: Server) -> None:
    broker = RedisBroker(server.url(), namespace="test")
    with ThreadPoolExecutor() as threads:
        waits = [
            threads.submit(broker.await_message, ["celery"], LONG),
            threads.submit(broker.await_release, LONG),
        ]
        eventually(lambda: _subscribers(server) == 2)
        broker.close()

    assert [waiting.result() for waiting in waits] == [False, False]


# Refusals


def test_a_wrong_password_is_refused_without_being_shown(
    server: Server, user: str
) -> None:
    broker = RedisBroker(server.url(user="u:wr0ng"), namespace="test")

    with pytest.raises(BrokerRefused, match="correct broker_url") as refusal:
        broker.ping()

    assert "wr0ng" not in str(refusal.value)
    broker.close()


def test_a_missing_password_is_asked_for(spoilt: Server) -> None:
    with spoilt.client() as admin:
        admin.config_set("requirepass", "s3cret")
    broker = RedisBroker(spoilt.url(), namespace="test")

    with pytest.raises(BrokerRefused, match="wants a password"):
        broker.ping()

    with redis.Redis(port=spoilt.port, password="s3cret") as admin:
        admin.config_set("requirepass", "")
    broker.close()


def test_a_replica_is_refused_and_nothing_is_done(spoilt: Server) -> None:
    broker = RedisBroker(spoilt.url(), namespace="test")
    with spoilt.client() as admin:
        term = lead(broker)
        admin.replicaof("127.0.0.1", 1)
        try:
            with pytest.raises(BrokerRefused, match="primary"):
                broker.emit(term, [emission("a")], MINUTE)
        finally:
            admin.replicaof("NO", "ONE")

    assert broker.emit(term, [emission("a")], MINUTE) == [QUEUED]
    broker.close()


def test_a_full_server_refuses_and_the_slot_is_queued_once_later(
    spoilt: Server,
) -> None:
    broker = RedisBroker(spoilt.url(), namespace="test")
    with spoilt.client() as admin:
        term = lead(broker)
        broker.emit(term, [emission("a")], MINUTE)
        broker.join("w", MINUTE)
        [one] = broker.take("w", ["celery"], 1, 1)
        admin.config_set("maxmemory", "1")
        try:
            with pytest.raises(BrokerRefused, match="out of memory"):
                broker.emit(term, [emission("a", NOON + 1)], MINUTE)
            with pytest.raises(BrokerRefused, match="out of memory"):
                settle(broker, "w", Acknowledge(one), sends=[outgoing(b"next")])
        finally:
            admin.config_set("maxmemory", "0")

    assert broker.emit(term, [emission("a", NOON + 1)], MINUTE) == [QUEUED]
    settle(broker, "w", Acknowledge(one), sends=[outgoing(b"next")])
    assert lying_in(broker) == [b"a@1", b"next"]
    broker.close()


@pytest.mark.parametrize("command", ["lpush", "hset", "hmget", "pexpire"])
def test_a_missing_permission_neither_loses_nor_doubles(
    server: Server, client: Any, user: str, command: str
) -> None:
    broker = RedisBroker(server.url(user=user), namespace="test")
    term = lead(broker)
    broker.emit(term, [emission("known")], MINUTE)
    batch = [emission("known", NOON + 1), emission("new"), emission("known", NOON + 2)]

    client.execute_command("ACL", "SETUSER", "u", f"-{command}")
    for _ in range(3):
        with pytest.raises(BrokerRefused, match="ACL"):
            broker.emit(term, batch, MINUTE)
    client.execute_command("ACL", "SETUSER", "u", f"+{command}")
    broker.emit(term, batch, MINUTE)

    assert lying_in(broker) == [b"known@0", b"known@1", b"new@0", b"known@2"]
    broker.close()


@pytest.mark.parametrize(
    "rights",
    [
        ["resetkeys", "~{beatd:test}:*", "~celery*"],
        ["resetkeys", "~{beatd:test}:*", "~celery*", "%R~private*"],
    ],
)
def test_a_queue_that_the_acl_forbids_holds_up_no_other(
    server: Server, client: Any, user: str, rights: list[str]
) -> None:
    broker = RedisBroker(server.url(user=user), namespace="test")
    client.execute_command("ACL", "SETUSER", "u", *rights)
    term = lead(broker)
    private = emission("b", route=Route("private"))

    first, refused = broker.emit(term, [emission("a"), private], MINUTE)
    alone = broker.emit(term, [private], MINUTE)

    assert first is QUEUED
    assert isinstance(refused, Refused)
    assert "private: " in refused.reason
    assert "its ACL forbids us this: permit it" in refused.reason
    assert alone == [refused]
    assert broker.read_ledger().marks == {"a": mark(NOON)}
    client.execute_command("ACL", "SETUSER", "u", "~*")
    assert broker.emit(term, [private], MINUTE) == [QUEUED]
    assert client.lrange("private", 0, -1) == [b"b@0"]
    broker.close()


def test_a_queue_that_a_worker_may_not_take_from_holds_up_no_other(
    server: Server, client: Any, user: str
) -> None:
    broker = RedisBroker(server.url(user=user), namespace="test")
    rights = ["resetkeys", "~{beatd:test}:*", "~celery*"]
    client.execute_command("ACL", "SETUSER", "u", *rights)
    broker.send([outgoing(b"1")])
    broker.join("w", MINUTE)
    refused: dict[str, str] = {}

    queues = ["private", "celery"]
    [taken] = broker.take("w", queues, 10, 1, refused.__setitem__)
    again = broker.take("w", queues, 10, 1, refused.__setitem__)

    assert again == [taken]
    assert refused.keys() == {"private"}
    assert "its ACL forbids us this: permit it" in refused["private"]
    client.execute_command("ACL", "SETUSER", "u", "resetkeys", "~celery*")
    with pytest.raises(BrokerRefused, match="ACL"):
        broker.take("w", ["celery"], 10, 2)
    broker.close()


def test_a_list_of_one_priority_that_is_refused_names_its_queue(
    broker: RedisBroker, client: Any
) -> None:
    client.set("celery\x06\x163", "by another program")
    broker.send([outgoing(b"1"), outgoing(b"2", priority=9)])
    broker.join("w", MINUTE)
    refused: dict[str, str] = {}

    taken = broker.take("w", ["celery"], 10, 1, refused.__setitem__)

    assert [one.message for one in taken] == [b"1", b"2"]
    assert refused.keys() == {"celery"}
    assert "another program uses our key" in refused["celery"]


def test_a_user_who_may_not_touch_the_ledger_is_refused_as_a_whole(
    server: Server, client: Any, user: str
) -> None:
    broker = RedisBroker(server.url(user=user), namespace="test")
    term = lead(broker)
    client.execute_command("ACL", "SETUSER", "u", "resetkeys", "~celery*")

    with pytest.raises(BrokerRefused, match="ACL"):
        broker.emit(term, [emission("a")], MINUTE)
    with pytest.raises(BrokerRefused, match="ACL"):
        broker.emit(term, [emission("b", route=Route("private"))], MINUTE)

    assert client.llen("celery") == 0
    broker.close()


def test_a_message_that_is_too_large_holds_up_no_other(spoilt: Server) -> None:
    broker = RedisBroker(spoilt.url(), namespace="test")
    with spoilt.client() as admin:
        usual = admin.config_get("proto-max-bulk-len")["proto-max-bulk-len"]
        term = lead(broker)
        large = emission("b", message=b"x" * (2 * 1024 * 1024))
        batch = [emission("a"), large, emission("c")]
        admin.config_set("proto-max-bulk-len", 1024 * 1024)
        try:
            first, refused, last = broker.emit(term, batch, MINUTE)
            again = broker.emit(term, batch, MINUTE)
        finally:
            admin.config_set("proto-max-bulk-len", usual)

        assert (first, last) == (QUEUED, QUEUED)
        assert isinstance(refused, Refused)
        assert "2097152 bytes is too large, its server takes 1048576" in refused.reason
        assert again == [KNOWN, refused, KNOWN]
        assert broker.emit(term, batch, MINUTE) == [KNOWN, QUEUED, KNOWN]
        assert admin.llen("celery") == 3
    broker.close()


def test_a_queue_that_cannot_be_declared_holds_up_no_other(
    broker: RedisBroker, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client.set("_kombu.binding.media", "of another program")
    queues = [Queue("q", "media", "topic", "#"), Queue("other", "news", "topic", "#")]

    broker.declare(queues)
    broker.declare(queues)

    [said] = caplog.records
    assert getattr(said, "event", "") == "declare.refused"
    assert "queue q cannot be bound" in said.getMessage()
    assert "_kombu.binding.media" in said.getMessage()
    assert "another program uses our key" in said.getMessage()
    assert client.scard("_kombu.binding.news") == 1
    assert client.get("_kombu.binding.media") == b"of another program"


def test_bindings_of_a_wrong_type_hold_up_no_other_emission(
    broker: RedisBroker, client: Any
) -> None:
    term = lead(broker)
    client.set("_kombu.binding.news", "of another program")
    to_news = emission("b", route=Route("", "news", "sports", "topic"))
    to_bindings = emission("c", route=Route("_kombu.binding.media"))
    client.sadd("_kombu.binding.media", "x")

    first, *refused = broker.emit(
        term, [emission("a"), to_news, to_bindings, emission("d", NOON)], MINUTE
    )

    assert first is QUEUED
    assert refused.pop() is QUEUED
    for one, key in zip(refused, ("news", "media"), strict=True):
        assert isinstance(one, Refused)
        assert f"_kombu.binding.{key}" in one.reason
        assert "another program uses our key" in one.reason
    assert broker.read_ledger().marks.keys() == {"a", "d"}


def test_a_key_of_another_program_does_not_expire_with_our_queue(
    broker: RedisBroker, client: Any
) -> None:
    term = lead(broker)
    broker.declare([Queue("taken", expires=60)])
    client.set("taken", "by another program")

    [refused] = broker.emit(term, [emission("a", route=Route("taken"))], MINUTE)

    assert isinstance(refused, Refused)
    assert client.ttl("taken") == -1


def test_beside_a_channel_that_is_refused_another_one_gets_its_message_once(
    server: Server, client: Any, user: str
) -> None:
    broker = RedisBroker(server.url(user=user), namespace="test")
    term = lead(broker)
    batch = [
        emission("news", route=Route("", "news", "", "fanout")),
        emission("secrets", route=Route("", "secrets", "", "fanout")),
    ]

    client.execute_command("ACL", "SETUSER", "u", "resetchannels", "&*news*")
    with client.pubsub() as listener:
        listener.psubscribe("*")
        listener.get_message(timeout=PATIENCE)
        outcomes = broker.emit(term, batch, MINUTE)
        heard = listener.get_message(timeout=PATIENCE)
        again = listener.get_message(timeout=0.05)

    assert outcomes[0] is QUEUED
    assert isinstance(outcomes[1], Refused)
    assert "its ACL forbids us this: permit it" in outcomes[1].reason
    assert heard["data"] == b"news@0"
    assert again is None
    broker.close()


def test_a_channel_that_is_refused_holds_up_no_other_emission(
    server: Server, client: Any, user: str
) -> None:
    broker = RedisBroker(server.url(user=user), namespace="test")
    term = lead(broker)
    broker.emit(term, [emission("known")], MINUTE)
    channel = Route("", "news", "", "fanout")
    other = Route("other", "", "other")
    batch = [
        *(emission(f"report-{i}") for i in range(1500)),
        emission("news", route=channel),
        emission("known", NOON + 1, route=other),
    ]

    client.execute_command("ACL", "SETUSER", "u", "resetchannels")
    first = broker.emit(term, batch, MINUTE)
    again = [broker.emit(term, batch, MINUTE) for _ in range(2)]
    refused = first[1500]
    before = broker.read_ledger().marks
    client.execute_command("ACL", "SETUSER", "u", "allchannels")
    outcomes = broker.emit(term, batch, MINUTE)

    assert isinstance(refused, Refused)
    assert "channel" in refused.reason
    assert first == [QUEUED] * 1500 + [refused, QUEUED]
    assert again == [[KNOWN] * 1500 + [refused, KNOWN]] * 2
    assert "news" not in before
    assert outcomes == [KNOWN] * 1500 + [QUEUED, KNOWN]
    assert (client.llen("celery"), client.llen("other")) == (1501, 1)
    broker.close()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("noeviction", []),
        ("allkeys-lru", ["allkeys-lru: when it is full it throws keys away, messages"]),
        (
            "volatile-ttl",
            ["volatile-ttl: when it is full it throws keys away, the lead"],
        ),
    ],
)
def test_a_server_that_throws_keys_away_is_a_risk(
    spoilt: Server, policy: str, expected: list[str]
) -> None:
    broker = RedisBroker(spoilt.url(), namespace="test")
    with spoilt.client() as admin:
        admin.config_set("maxmemory-policy", policy)
        risks = broker.risks()
        admin.config_set("maxmemory-policy", "noeviction")

    assert len(risks) == len(expected)
    assert all(words in risk for words, risk in zip(expected, risks, strict=True))
    broker.close()


def test_what_the_server_does_not_let_us_see_is_no_risk(
    server: Server, client: Any, user: str
) -> None:
    client.execute_command("ACL", "SETUSER", "u", "-info")
    broker = RedisBroker(server.url(user=user), namespace="test")

    assert broker.risks() == []
    broker.close()


def test_a_queue_name_that_is_no_list_is_refused_with_the_way_out(
    broker: RedisBroker, client: Any
) -> None:
    term = lead(broker)
    client.set("taken", "by another program")
    to_taken = emission("b", route=Route("taken"))

    first, refused = broker.emit(term, [emission("a"), to_taken], MINUTE)

    assert first is QUEUED
    assert isinstance(refused, Refused)
    assert "taken is a string" in refused.reason
    assert "rename the queue" in refused.reason
    assert broker.read_ledger().marks == {"a": mark(NOON)}
    assert lying_in(broker) == [b"a@0"]
    assert client.get("taken") == b"by another program"


def test_who_reads_a_large_ledger_can_do_something_in_between(
    broker: RedisBroker,
) -> None:
    term = lead(broker)
    marks = {f"entry-{i}": emission("a").mark for i in range(3000)}
    broker.write_ledger(term, marks, (), 0)
    parts: list[bool] = []

    def renew() -> None:
        parts.append(broker.renew(term, MINUTE))

    assert broker.read_ledger(renew).marks == marks
    assert parts == [True] * 3


@pytest.mark.parametrize(
    "row",
    [
        "scribble",
        "",
        "9" * 5000 + " 1 - f",
        "9" * 18 + " 1 - f",
        f"-{'9' * 18} 1 - f",
        f"{NOON - 1} one - f",
        f"{NOON - 1} -1 - f",
        f"{NOON - 1} 1 {'9' * 18} f",
        b"1 1 - \xff",
    ],
)
def test_a_row_of_the_ledger_that_is_no_mark_is_passed_over(
    broker: RedisBroker, client: Any, caplog: pytest.LogCaptureFixture, row: str
) -> None:
    term = lead(broker)
    client.hset("{beatd:test}:ledger", "a", row)

    assert broker.read_ledger().marks == {}
    assert broker.read_ledger().marks == {}
    assert [r.__dict__["event"] for r in caplog.records] == ["ledger.unreadable"]
    assert broker.emit(term, [emission("a")], MINUTE) == [QUEUED]


@pytest.mark.parametrize(
    "answer",
    [
        "-LOADING Redis is loading the dataset in memory",
        "-BUSY Redis is busy running a script",
        "-MISCONF Errors writing to the AOF file",
        "-MASTERDOWN Link with MASTER is down",
        "-NOREPLICAS Not enough good replicas to write",
        "-CLUSTERDOWN The cluster is down",
        "-MOVED 1234 127.0.0.1:1",
        "-CROSSSLOT Keys in request do not hash to the same slot",
        "-NOSCRIPT No matching script",
        "-ERR max number of clients reached",
        "-ERR unknown command",
        "-",
        "HTTP/1.1 400 Bad Request",
    ],
)
def test_whatever_a_server_says_is_no_reason_to_end(answer: str) -> None:
    with _FakeServer("7.2.0", answer) as port:
        patience = {"socket_timeout": 0.5}
        url = f"redis://127.0.0.1:{port}/0"
        broker = RedisBroker(url, namespace="test", options=patience)
        for ask in (
            lambda: broker.take("w", ["celery"], 1, 1),
            lambda: broker.send([outgoing(b"1")]),
            lambda: broker.await_message(["celery"], 1),
            lambda: broker.leave("w"),
            broker.recover,
            broker.read_ledger,
        ):
            with pytest.raises(BrokerUnavailable, match=str(port)):
                ask()
        broker.close()


def test_a_server_that_is_too_old_is_named() -> None:
    with _FakeServer("5.0.7", "+OK") as port:
        broker = RedisBroker(f"redis://127.0.0.1:{port}/0", namespace="test")

        with pytest.raises(BrokerRefused, match=r"Redis 5\.0\.7.*6\.2 or later"):
            broker.leader()
        broker.close()


@pytest.mark.parametrize(
    ("version", "is_too_old"),
    [
        ("7.rc1", False),
        ("8", False),
        ("6.10.1", False),
        ("6.2-rc3", False),
        ("6.rc1", True),
        ("5.unstable", True),
        ("unstable", False),
        ("1" * 5000, False),
        ("", False),
    ],
)
def test_a_version_is_read_as_far_as_it_has_numbers(
    version: str, is_too_old: bool
) -> None:
    with _FakeServer(version, "$-1") as port:
        broker = RedisBroker(f"redis://127.0.0.1:{port}/0", namespace="test")

        if is_too_old:
            with pytest.raises(BrokerRefused, match=f"Redis {version}.*6.2 or later"):
                broker.ping()
        else:
            assert broker.ping().startswith(f"redis {version}"[:40])
        broker.close()


def test_a_server_of_a_test_ends_though_a_client_is_connected() -> None:
    with _FakeServer("7.0", "+OK") as port:
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"*1\r\n$4\r\nPING\r\n")
        assert client.recv(100) == b"+OK\r\n"

    assert client.recv(100) == b""
    client.close()


def test_what_is_refused_in_part_is_not_sent_in_part(
    broker: RedisBroker, client: Any
) -> None:
    client.set("taken", "by another program")
    broker.send([outgoing(b"1")])
    broker.join("w", MINUTE)
    [one] = broker.take("w", ["celery"], 1, 1)
    late = Outgoing(CELERY, b"late", due=2**45)
    sends = [outgoing(b"next"), outgoing(b"more", "b"), late, outgoing(b"x", "taken")]

    for _ in range(3):
        with pytest.raises(BrokerRefused, match="rename the queue"):
            settle(broker, "w", Acknowledge(one), sends=sends)
        with pytest.raises(BrokerRefused, match="rename the queue"):
            broker.send(sends)

    assert broker.delayed(["celery"], 9) == []
    client.delete("taken")
    settle(broker, "w", Acknowledge(one), sends=sends)
    assert lying_in(broker, "celery", "b", "taken") == [b"next", b"more", b"x"]


def test_an_act_that_is_refused_holds_up_no_other(
    broker: RedisBroker, client: Any
) -> None:
    broker.send([outgoing(b"1"), outgoing(b"2", "taken"), outgoing(b"3")])
    broker.join("w", MINUTE)
    one, three, two = broker.take("w", ["celery", "taken"], 3, 1)
    client.set("taken", "by another program")
    acts: list[Act] = [GiveBack(one), GiveBack(two), Acknowledge(three)]

    first = broker.settle("w", acts, [outgoing(b"next")], 1)
    again = broker.settle("w", acts, [outgoing(b"next")], 1)

    assert first == again
    assert [answer.effect.value for answer in first] == ["done", "refused", "done"]
    assert "rename the queue" in first[1].reason
    client.delete("taken")
    assert broker.settle("w", [GiveBack(two)], [], 2) == [DONE]
    assert lying_in(broker, "celery", "taken") == [b"1", b"next", b"2"]


def test_what_may_not_be_remembered_is_not_sent(
    server: Server, client: Any, user: str
) -> None:
    broker = RedisBroker(server.url(user=user), namespace="test")
    broker.send([outgoing(b"1")])
    broker.join("w", MINUTE)
    [one] = broker.take("w", ["celery"], 1, 1)

    client.execute_command("ACL", "SETUSER", "u", "-set")
    for _ in range(3):
        with pytest.raises(BrokerRefused, match="ACL"):
            broker.settle("w", [Acknowledge(one)], [outgoing(b"next")], 1)
    client.execute_command("ACL", "SETUSER", "u", "+set")
    broker.settle("w", [Acknowledge(one)], [outgoing(b"next")], 1)

    assert lying_in(broker) == [b"next"]
    broker.close()


@pytest.mark.parametrize("command", ["hdel", "hget", "hset", "zadd", "incr"])
def test_what_may_not_be_done_is_not_sent_for_twice(
    server: Server, client: Any, user: str, command: str
) -> None:
    broker = RedisBroker(server.url(user=user), namespace="test")
    broker.send([outgoing(b"1"), outgoing(b"2")])
    broker.join("w", MINUTE)
    one, two = broker.take("w", ["celery"], 2, 1)
    acts: list[Act] = [Delay(one, 2**45), SetAside(two, "bad")]

    client.execute_command("ACL", "SETUSER", "u", f"-{command}")
    answers = broker.settle("w", acts, [outgoing(b"next")], 1)
    client.execute_command("ACL", "SETUSER", "u", f"+{command}")
    left = [act for act, answer in zip(acts, answers, strict=True) if answer != DONE]
    broker.settle("w", left, [], 2)

    assert left
    assert all("ACL" in answer.reason for answer in answers if answer != DONE)
    assert lying_in(broker) == [b"next"]
    assert [late.message for late in broker.delayed(["celery"], 9)] == [b"1"]
    assert [letter.reason for letter in broker.dead_letters()] == ["bad"]
    broker.close()


def test_a_full_server_lets_work_be_moved(spoilt: Server) -> None:
    broker = RedisBroker(spoilt.url(), namespace="test")
    broker.send([outgoing(b"%d" % number) for number in range(1, 8)])
    broker.send([Outgoing(CELERY, b"late", due=1)])
    broker.join("w", MINUTE)
    with spoilt.client() as admin:
        admin.config_set("maxmemory", "1")
        try:
            late, one, two, three = broker.take("w", ["celery"], 4, 1)
            settle(broker, "w", Acknowledge(late))
            settle(broker, "w", GiveBack(one))
            settle(broker, "w", SetAside(two, "why"))
            settle(broker, "w", Delay(three, 2**45))
            again = broker.take("w", ["celery"], 2, 2)
            broker.leave("w")
        finally:
            admin.config_set("maxmemory", "0")

    assert late.message == b"late"
    assert [delivery.message for delivery in again] == [b"1", b"4"]
    assert lying_in(broker) == [b"1", b"4", b"5", b"6", b"7"]
    assert [one.message for one in broker.delayed(["celery"], 9)] == [b"3"]
    assert len(broker.dead_letters()) == 1
    broker.close()


def test_of_large_messages_no_more_are_looked_at_than_taken(
    broker: RedisBroker, client: Any
) -> None:
    large = b"x" * ENOUGH
    for _ in range(3):
        broker.send([outgoing(large)])
    broker.join("w", MINUTE)
    client.config_resetstat()

    assert len(broker.take("w", ["celery"], 9, 1)) == 1

    assert "cmdstat_rpush" not in client.info("commandstats")  # nothing went back


def test_a_dead_worker_s_message_that_cannot_go_back_is_kept_and_the_others_do(
    broker: RedisBroker, client: Any
) -> None:
    broker.send([outgoing(b"1"), outgoing(b"2"), outgoing(b"3", "taken")])
    broker.join("w", 1)
    broker.take("w", ["celery", "taken"], 3, 1)
    client.set("taken", "by another program")

    assert eventually(broker.recover) == 2
    assert [broker.recover() for _ in range(3)] == [0, 0, 0]
    assert client.lrange("celery", 0, -1) == [b"2", b"1"]
    client.delete("taken")
    assert broker.recover() == 1
    assert lying_in(broker, "celery", "taken") == [b"1", b"2", b"3"]


def test_a_delayed_message_that_cannot_go_back_holds_up_nobody(
    broker: RedisBroker, client: Any
) -> None:
    client.set("taken", "by another program")
    broker.send([Outgoing(Route("taken"), b"stuck", due=1), outgoing(b"1")])
    broker.send([Outgoing(CELERY, b"2", due=2)])
    broker.join("w", MINUTE)

    taken = broker.take("w", ["celery"], 9, 1)

    assert [delivery.message for delivery in taken] == [b"2", b"1"]
    assert broker.await_message(["celery"], 1) is False
    assert [one.message for one in broker.delayed(["taken"], 9)] == [b"stuck"]


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_a_delay_is_as_long_as_asked_whatever_the_server_s_clock_says(
    server: Server, skew: int
) -> None:
    clock = FakeClock(SystemClock().now() + skew)
    broker = RedisBroker(server.url(), namespace="test", clock=clock)
    broker.send([outgoing(b"1")])
    broker.join("w", MINUTE)
    [one] = broker.take("w", ["celery"], 1, 1)
    broker.send([Outgoing(CELERY, b"soon", due=clock.now() + 50)])
    broker.send([Outgoing(CELERY, b"later", due=clock.now() + MINUTE)])
    settle(broker, "w", Delay(one, clock.now() + MINUTE))
    waits = [one.due - clock.now() for one in broker.delayed(["celery"], 9)]

    requests = count(2)
    [soon] = eventually(lambda: broker.take("w", ["celery"], 9, next(requests)))

    assert soon.message == b"soon"
    assert [round(wait / MINUTE) for wait in waits] == [0, 1, 1]
    broker.close()


# Waiting


def test_who_waits_asks_the_server_nothing(broker: RedisBroker, client: Any) -> None:
    with ThreadPoolExecutor() as threads:
        waits = [
            threads.submit(broker.await_message, ["celery"], LONG),
            threads.submit(broker.await_release, LONG),
        ]
        eventually(lambda: client.info("clients")["tracking_clients"] == 1)
        eventually(lambda: client.pubsub_numsub("{beatd:test}:released")[0][1] == 1)
        eventually(lambda: _asked(client, 0.3) == 1, "nothing but our own look")
        broker.close()

    assert [waiting.result() for waiting in waits] == [False, False]


@contextmanager
def as_before_redis_7() -> Iterator[None]:
    """Have scripts find no way to ask what the ACL permits."""
    before = requests.script
    hidden = "local redis = setmetatable({acl_check_cmd = false}, {__index = redis})\n"

    def older(name: str) -> tuple[str, str]:
        text = hidden + before(name)[0]
        return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    requests.script = older  # type: ignore[assignment] # a function with a cache
    try:
        yield
    finally:
        requests.script = before


def test_before_redis_7_a_channel_that_is_refused_holds_up_no_other_emission(
    server: Server, client: Any, user: str
) -> None:
    broker = RedisBroker(server.url(user=user), namespace="test")
    term = lead(broker)
    client.execute_command("ACL", "SETUSER", "u", "resetchannels")
    news = emission("news", route=Route("", "news", "", "fanout"))

    with as_before_redis_7():
        outcomes = broker.emit(term, [emission("report"), news], MINUTE)

    assert outcomes[0] is QUEUED
    assert isinstance(outcomes[1], Refused)
    assert "/0.news: " in outcomes[1].reason
    assert "its ACL forbids us this: permit it" in outcomes[1].reason
    broker.close()


def test_channels_that_the_acl_keeps_from_us_are_a_risk(
    server: Server, client: Any, user: str
) -> None:
    client.execute_command("ACL", "SETUSER", "u", "resetchannels")
    broker = RedisBroker(server.url(user=user), namespace="test")

    told, look = broker.risks()
    client.execute_command("ACL", "SETUSER", "u", "allchannels", "-publish")
    [publish] = broker.risks()
    client.execute_command("ACL", "SETUSER", "u", "+publish")

    released = "{beatd:test}:released"
    assert f"its ACL forbids us the channel {released} (No permission" in told
    assert f"+publish and '&{released}' to the user of broker_url" in told
    assert "workers are not told of new messages" in look
    assert "'&__redis__:invalidate'" in look
    assert f"forbids us the channel {released} (to publish on it)" in publish
    assert broker.risks() == []
    broker.close()


@pytest.mark.parametrize("rights", [["-client|tracking"], ["resetchannels", "&/0.*"]])
def test_where_changes_cannot_be_told_the_lists_are_looked_at(
    server: Server,
    client: Any,
    user: str,
    caplog: pytest.LogCaptureFixture,
    rights: list[str],
) -> None:
    client.execute_command("ACL", "SETUSER", "u", *rights)
    broker = RedisBroker(server.url(user=user), namespace="test")
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor() as threads:
        assert broker.await_message(["celery"], 1) is False
        waiting = threads.submit(broker.await_message, ["celery"], LONG)
        threading.Event().wait(0.05)
        client.lpush("celery", b"1")
        assert waiting.result() is True

    assert [r.__dict__["event"] for r in caplog.records] == ["broker.poll"]
    broker.close()


def test_a_subscription_that_was_closed_by_the_server_is_made_anew(
    broker: RedisBroker, client: Any
) -> None:
    assert broker.await_message(["celery"], 1) is False
    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    with pytest.raises(BrokerUnavailable):
        broker.await_message(["celery"], LONG)

    assert broker.await_message(["celery"], 1) is False


# What others see


def test_what_a_celery_client_pushes_is_delivered(
    broker: RedisBroker, client: Any
) -> None:
    client.lpush("celery", b'{"n": 1.0}')
    client.lpush("celery\x06\x163", b'{"args": []}')

    assert lying_in(broker) == [b'{"n": 1.0}', b'{"args": []}']


def test_what_celery_workers_hold_is_restored_by_nothing_but_the_timer(
    broker: RedisBroker, client: Any
) -> None:
    held = json.dumps([{"body": "", "properties": {"delivery_tag": "t"}}, "", "celery"])
    client.hset("unacked", "t", held)
    client.zadd("unacked_index", {"t": 0})  # held for ages
    client.set("unacked_mutex", "somebody's")
    celerys = ["unacked", "unacked_index", "unacked_mutex"]
    before = [client.dump(key) for key in celerys]

    broker.send([outgoing(b"%d" % n) for n in range(5)])
    broker.join("dead", 1)
    broker.take("dead", ["celery"], 1, 1)
    recovered = eventually(broker.recover)
    broker.join("w", MINUTE)
    [later, back, bad, good, rest] = take_all(broker, "w", ["celery"])
    settle(broker, "w", Delay(later, NOON))  # long ago: it comes back at once
    settle(broker, "w", GiveBack(back))
    settle(broker, "w", SetAside(bad, "why"))
    settle(broker, "w", Acknowledge(good), sends=[outgoing(b"next")])
    broker.stay("w", MINUTE)
    taken = take_all(broker, "w", ["celery"])
    broker.leave("w")
    purged = broker.purge(["celery"])

    assert recovered == 1
    assert {one.message for one in taken} == {later.message, back.message, b"next"}
    assert purged == len([*taken, rest])
    assert [client.dump(key) for key in celerys] == before


def test_of_a_worker_that_has_gone_is_left_only_what_expires(
    broker: RedisBroker, client: Any
) -> None:
    broker.send([outgoing(b"1")])
    broker.join("w", 1)
    broker.take("w", ["celery"], 1, 1)
    eventually(broker.recover)
    broker.join("w", MINUTE)
    [one] = broker.take("w", ["celery"], 1, 2)
    settle(broker, "w", Acknowledge(one), sends=[outgoing(b"next")])
    broker.leave("w")

    client.delete("celery", "{beatd:default}:ledger")
    lives = {key: client.pttl(key) for key in client.scan_iter()}
    assert lives.pop(b"{beatd:test}:serial") == -1
    assert lives.keys() == {b"{beatd:test}:answered:w", b"{beatd:test}:took:w"}
    assert all(0 < life <= HOUR for life in lives.values())


def test_a_worker_that_renewed_its_lease_meanwhile_keeps_what_it_holds(
    broker: RedisBroker, server: Server
) -> None:
    renewed = threading.Event()

    class Late(RedisBroker):
        """Sees who is dead, and is late to end their leases."""

        def _run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
            if name == "leave":
                broker.join("w", MINUTE)
                renewed.set()
            return super()._run(name, keys, arguments)

    broker.send([outgoing(b"1")])
    broker.join("w", 1)
    [one] = broker.take("w", ["celery"], 1, 1)
    late = Late(server.url(), namespace="test")

    given_back = 0
    while not renewed.is_set():
        given_back += late.recover()
    late.close()

    assert given_back == 0
    assert broker.take("w", ["celery"], 1, 1) == [one]


def test_every_key_and_channel_begins_with_the_global_prefix(
    server: Server, client: Any
) -> None:
    options = {"global_keyprefix": "app1:"}
    broker = RedisBroker(server.url(), namespace="n", options=options)
    term = lead(broker)
    broker.emit(term, [emission("a", run="id")], MINUTE)
    broker.declare([Queue("q", "x", "topic", "k.*", 60), Queue("r", "x", "topic", "k")])
    broker.send([Outgoing(Route("", "x", "k.v", "topic"), b"1")])
    broker.send([Outgoing(CELERY, b"2", due=2**45)])
    broker.join("w", MINUTE)
    [one, two] = broker.take("w", ["celery", "q"], 2, 1)
    settle(broker, "w", SetAside(one, "why"))
    with client.pubsub() as news:
        news.psubscribe("*")
        news.get_message(timeout=PATIENCE)
        broker.send([Outgoing(Route("", "news", "k", "fanout"), b"heard")])
        heard = news.get_message(timeout=PATIENCE)
        broker.resign(term)
        free = news.get_message(timeout=PATIENCE)

    assert two.queue == "q"
    assert heard["channel"] == b"app1:/0.news/k"
    assert heard["data"] == b"heard"
    assert free["channel"] == b"app1:{beatd:n}:released"
    client.delete("{beatd:default}:ledger")
    keys = client.keys()
    assert [key for key in keys if not key.startswith(b"app1:")] == []
    assert len(keys) >= 8
    broker.close()


def test_a_fanout_emission_is_published_once(broker: RedisBroker, client: Any) -> None:
    term = lead(broker)
    batch = [emission("a", route=Route("", "news", "", "fanout"))]
    with client.pubsub() as news:
        news.subscribe("/0.news")
        news.get_message(timeout=PATIENCE)

        assert broker.emit(term, batch, MINUTE) == [QUEUED]
        assert broker.emit(term, batch, MINUTE) == [KNOWN]

        assert news.get_message(timeout=PATIENCE)["data"] == b"a@0"
        assert news.get_message(timeout=0.05) is None


def test_a_batch_costs_the_server_as_many_commands_as_ten_emissions(
    broker: RedisBroker, client: Any
) -> None:
    term = lead(broker)
    calls = []
    broker.emit(term, [emission("first")], MINUTE)  # now the server has the script
    for slot, number in ((NOON, 10), (NOON + MINUTE, 500)):
        # Half of them have another mark than the others.
        marks = mark(slot, 2), mark(slot, 3)
        batch = [Emission(f"e{n}", marks[n % 2], CELERY, b"") for n in range(number)]
        client.config_resetstat()
        assert broker.emit(term, batch, MINUTE) == [QUEUED] * number
        stats = client.info("commandstats")
        calls.append({name: stat["calls"] for name, stat in stats.items()})

    assert calls[0] == calls[1]
    rows = broker.read_ledger().marks
    assert [rows[f"e{n}"].runs for n in (0, 1, 498, 499)] == [2, 3, 2, 3]


def test_the_lists_of_an_expiring_queue_expire_after_each_push(
    broker: RedisBroker, client: Any
) -> None:
    term = lead(broker)
    broker.declare([Queue("reports", "media", "direct", "key", expires=60)])
    broker.send([outgoing(b"1", "reports", 6)])
    client.persist("reports\x06\x166")

    broker.emit(term, [emission("a", route=Route("reports"))], MINUTE)

    for key in ("reports", "reports\x06\x166"):
        assert 0 < client.pttl(key) <= 60_000
    assert client.ttl("celery") == -2
    assert client.zscore("_kombu.binding_deadlines", "media") > time.time() * 1000
    assert client.exists("_kombu.binding_permanent.media") == 0


@pytest.mark.parametrize(
    ("number", "record"),
    [
        ("two", "{}"),
        (b"\xff", "{}"),
        ("2", "scribble"),
        ("2", "{}"),
        ("2", "[1]"),
        ("2", "[" * 100_000),
        ("2", b"\xff"),
        ("2", '{"at":"now"}'),
        ("2", '{"at":1e30}'),
        ("2", '{"at":999999999999999999}'),
    ],
)
def test_a_dead_letter_that_is_none_is_passed_over_and_kept(
    broker: RedisBroker,
    client: Any,
    caplog: pytest.LogCaptureFixture,
    number: str,
    record: str,
) -> None:
    broker.send([outgoing(b"1")])
    broker.join("w1", MINUTE)
    (delivery,) = broker.take("w1", ["celery"], 1, 1)
    settle(broker, "w1", SetAside(delivery, "why"))
    key = "{beatd:test}:dead"
    if isinstance(record, str) and "at" in record:
        known = json.loads(client.hget(key, "1"))
        record = json.dumps(known | json.loads(record))
    client.hset(key, number, record)

    assert [letter.id for letter in broker.dead_letters()] == ["1"]
    assert [letter.id for letter in broker.dead_letters()] == ["1"]

    assert [r.__dict__["event"] for r in caplog.records] == ["dead.unreadable"]
    assert client.hexists(key, number)


def test_a_dead_letter_without_a_message_of_ours_is_shown_and_holds_up_no_other(
    broker: RedisBroker, client: Any
) -> None:
    broker.send([outgoing(b"1"), outgoing(b"2")])
    broker.join("w1", MINUTE)
    for one in broker.take("w1", ["celery"], 2, 1):
        settle(broker, "w1", SetAside(one, "why"))
    client.hset("{beatd:test}:dead_messages", "1", "scribble")

    assert broker.dead_message("1") == b"scribble"
    refused: dict[str, str] = {}
    assert broker.retry_dead(["1", "2"], refused.__setitem__) == 1

    assert refused.keys() == {"1"}
    assert "no message that beatd kept" in refused["1"]
    assert [letter.id for letter in broker.dead_letters()] == ["1"]
    assert lying_in(broker) == [b"2"]


def test_what_is_delayed_and_none_of_ours_holds_up_no_other(
    broker: RedisBroker, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    due = SystemClock().now() + HOUR
    broker.send([Outgoing(CELERY, b"1", due)])
    client.zadd("{beatd:test}:delayed", {"odd": due - MINUTE})
    client.hset("{beatd:test}:late", "odd", "scribble")

    for _ in range(2):
        assert [one.message for one in broker.delayed(["celery"], 9)] == [b"1"]

    assert [r.__dict__["event"] for r in caplog.records] == ["delayed.unreadable"]


def test_a_run_whose_id_is_no_text_is_read(broker: RedisBroker, client: Any) -> None:
    client.hset("{beatd:test}:runs", "a", b"\xff")

    assert broker.running(["a"]) == {"a": "\ufffd"}


@pytest.mark.parametrize("stored", ["scribble", "", "1.5", "-3", "9" * 30, b"\xff"])
def test_an_era_that_is_no_number_is_passed_over(
    broker: RedisBroker, client: Any, caplog: pytest.LogCaptureFixture, stored: str
) -> None:
    term = lead(broker)
    broker.write_ledger(term, {"a": mark(NOON)}, (), 0)
    client.set("{beatd:test}:era", stored)

    ledger = broker.read_ledger()
    broker.read_ledger()

    file = LedgerCopy({"a": mark(NOON - MINUTE), "b": mark(NOON)}, 3)
    right = settled(ledger, file, Finding.RIGHT)
    assert right == LedgerCopy({"a": mark(NOON)}, 3)
    assert [r.__dict__["event"] for r in caplog.records] == ["era.unreadable"]
    client.set("{beatd:test}:era", "another scribble")
    broker.read_ledger()
    assert "another scribble" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("stored", ["scribble", "", "9" * 30, b"\xff"])
def test_a_lead_and_a_term_that_are_none_hold_up_nobody_and_are_kept(
    broker: RedisBroker, client: Any, caplog: pytest.LogCaptureFixture, stored: str
) -> None:
    client.set("{beatd:test}:lead", stored)
    client.set("{beatd:test}:term", stored)

    assert broker.leader() != "nobody"
    term = broker.acquire("we", MINUTE, 41)

    assert isinstance(term, Term)
    assert term.number == 42
    assert broker.renew(term, MINUTE)
    events = [r.__dict__["event"] for r in caplog.records]
    assert events == ["lead.unreadable", "term.unreadable"]
    kept = client.keys("{beatd:test}:unreadable:*")
    expected = stored if isinstance(stored, bytes) else stored.encode()
    assert [client.get(key) for key in kept] == [expected] * 2


def test_a_dead_letter_says_everything_in_json(
    broker: RedisBroker, client: Any
) -> None:
    broker.send([outgoing(b"\xff")])
    broker.join("w1", MINUTE)
    [one] = broker.take("w1", ["celery"], 1, 1)

    settle(broker, "w1", SetAside(one, "not a task message"))

    [(number, raw)] = client.hgetall("{beatd:test}:dead").items()
    record = json.loads(raw)
    assert abs(record.pop("at") - time.time() * 1000) < LONG
    assert record == {
        "queue": "celery",
        "reason": "not a task message",
        "deliveries": 1,
        "worker": "w1",
        "size": 1,
        "task": "",
        "task_id": "",
    }
    held = client.hget("{beatd:test}:dead_messages", number)
    assert held.endswith(b":6:celery\xff")


# Addresses


def test_ping_names_the_server(broker: RedisBroker) -> None:
    assert broker.ping().startswith("valkey ")


@pytest.mark.parametrize("form", ["redis+socket://{}?virtual_host=2", "unix://{}?db=2"])
def test_a_unix_socket_is_reached(tmp_path: Path, form: str) -> None:
    path = tmp_path / "s"
    with Server(unixsocket=str(path)) as server:
        broker = connect(form.format(path), namespace="test")
        broker.send([outgoing(b"1")])
        broker.close()

        with redis.Redis(port=server.port, db=2) as client:
            assert client.llen("celery") == 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h/mine", "expected the number of a database, got 'mine'"),
        ("redis:me:s3cret@h/0", "expected the number of a database, got 'me:***@h/0'"),
        ("sqs://me:s3cret@h", "beatd speaks redis://"),
    ],
)
def test_an_address_that_cannot_be_used_is_explained(url: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        connect(url, namespace="test")

    assert expected in str(refusal.value)
    assert "s3cret" not in str(refusal.value)


def _asked(client: Any, seconds: float) -> int:
    """Return how many commands the server hears within so many seconds."""
    before = client.info("stats")["total_commands_processed"]
    threading.Event().wait(seconds)
    return int(client.info("stats")["total_commands_processed"]) - int(before)


def _subscribers(server: Server) -> int:
    with server.client() as client:
        return int(client.info("clients")["pubsub_clients"])


class _FakeServer:
    """Says which version it is, and the same answer to all else."""

    def __init__(self, version: str, answer: str) -> None:
        info = f"redis_version:{version}\r\n"
        self._info = f"${len(info)}\r\n{info}\r\n".encode()
        self._answer = f"{answer}\r\n".encode()

    def __enter__(self) -> int:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        port: int = self._listener.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()  # it accepts no more
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                thread = threading.Thread(target=self._serve, args=[connection])
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while piece := connection.recv(1 << 16):
                if b"INFO\r\n$6\r\nserver" in piece:
                    connection.sendall(self._info)
                elif b"SETINFO" in piece:
                    connection.sendall(b"+OK\r\n" * piece.count(b"*"))
                else:
                    connection.sendall(self._answer * piece.count(b"*"))
