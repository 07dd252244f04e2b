"""Which commands a pidbox receives and delivers, and how it answers them."""

import json
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import pytest

from beatd.brokers.items import Outgoing
from beatd.brokers.memory import MemoryBroker
from beatd.brokers.redis import RedisBroker
from beatd.config.settings import Settings
from beatd.control.pidbox import Command, Later, Pidbox
from beatd.errors import BrokerUnavailable, ResultUnavailable
from beatd.events.lamport import LamportClock
from beatd.message import Notice, read_notice, write_notice
from beatd.routing import Queue, Route
from tests.servers import PATIENCE, Server

ROUTE = Route("", "celery.pidbox", "", "fanout")
REPLY = {"exchange": "reply.celery.pidbox", "routing_key": "me"}


class Post:
    """A pidbox, and somebody who writes to it."""

    def __init__(self, broker: MemoryBroker | None = None) -> None:
        self.broker = broker or MemoryBroker()
        self.lamport = LamportClock()
        self.received: list[Command] = []
        self.box = Pidbox(
            self.broker, "w1@here", Settings(), self.lamport, self.received.append
        )
        self.box.turn(0)
        self.broker.declare([Queue("me.reply", "reply.celery.pidbox", "direct", "me")])
        self.broker.join("me", 10_000)

    def send(self, raw: bytes) -> None:
        self.broker.send([Outgoing(ROUTE, raw)])
        self.box.turn(0)

    def say(self, clock: object = 0, **body: Any) -> None:
        self.send(write_notice(Notice({"clock": clock}, body), ROUTE, tag="t"))

    def answers(self) -> list[Notice]:
        self.box.answering.turn()
        taken = self.broker.take("me", ["me.reply"], 10, len(self.received) + 1)
        return [read_notice(one.message) for one in taken]


@pytest.fixture
def post() -> Post:
    return Post()


def test_a_command_is_handed_on_and_its_answer_goes_to_the_asker(post: Post) -> None:
    post.say(method="ping", arguments={"a": 1}, ticket="7", reply_to=REPLY)
    (command,) = post.received
    assert (command.method, command.arguments) == ("ping", {"a": 1})

    command.answer({"ok": "pong"})
    (answer,) = post.answers()
    assert answer.body == {"w1@here": {"ok": "pong"}}
    assert answer.headers["ticket"] == "7"


def test_who_wants_no_answer_gets_none(post: Post) -> None:
    post.say(method="ping")
    post.received[0].answer({"ok": "pong"})

    assert post.answers() == []


@pytest.mark.parametrize(
    ("addressed", "is_delivered"),
    [
        ({}, True),
        ({"destination": None}, True),
        ({"destination": []}, True),
        ({"destination": ["w1@here"]}, True),
        ({"destination": ["w2@here", "w1@here"]}, True),
        ({"destination": ["w2@here"]}, False),
        ({"destination": ["w2@here"], "pattern": "*", "matcher": "glob"}, False),
        ({"pattern": "w*", "matcher": "glob"}, True),
        ({"pattern": "x*", "matcher": "glob"}, False),
        ({"pattern": r"w\d@", "matcher": "pcre"}, True),
        ({"pattern": r"\d", "matcher": "pcre"}, False),
        ({"pattern": "(", "matcher": "pcre"}, False),
        ({"pattern": "w*", "matcher": "unheard"}, False),
        ({"pattern": "w*" * 1000, "matcher": "glob"}, False),
    ],
)
def test_a_command_is_for_some(
    post: Post, addressed: dict[str, Any], is_delivered: bool
) -> None:
    post.say(method="ping", **addressed)

    assert bool(post.received) is is_delivered


@pytest.mark.parametrize(
    "addressed",
    [
        {"pattern": "(a?){999}" * 100, "matcher": "pcre"},
        {"pattern": "(" * 300 + "w" + ")" * 300, "matcher": "pcre"},
        {"pattern": "w(?=1)", "matcher": "pcre"},
        {"pattern": "(", "matcher": "pcre"},
        {"pattern": "w*", "matcher": "unheard"},
        {"pattern": "w*" * 1000, "matcher": "glob"},
    ],
    ids=lambda addressed: addressed["pattern"][:9],
)
def test_a_pattern_that_is_refused_is_said_and_costs_nothing(
    post: Post, addressed: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    post.say(method="ping", **addressed)
    post.say(method="clock")

    assert [command.method for command in post.received] == ["clock"]
    events = [getattr(record, "event", "") for record in caplog.records]
    assert events == ["control.pattern"]


@pytest.mark.parametrize(
    "reply_to",
    [
        {"exchange": "\ud800", "routing_key": "me"},
        {"exchange": "reply.celery.pidbox", "routing_key": "\udfff"},
        {"exchange": "x" * 256, "routing_key": "me"},
    ],
    ids=["exchange", "key", "length"],
)
def test_an_asker_whose_address_cannot_be_written_to_is_passed_over(
    post: Post, reply_to: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    post.say(method="ping", reply_to=reply_to)

    assert post.received == []
    events = [getattr(record, "event", "") for record in caplog.records]
    assert events == ["control.garbage"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\x00",
        b"{}",
        b"[" * 100_000,
        b'{"body": 7, "properties": {}}',
        b'{"body": "!", "properties": {"body_encoding": "base64"}}',
        b'{"body": "[]", "properties": {}}',
        b'{"body": "\\ud800", "properties": {}}',
        b'{"body": "{}", "properties": {}, "content-type": "application/x-pickle"}',
        b'{"body": "{\\"method\\": 7}", "properties": {}}',
        b'{"body": "{\\"method\\": \\"a\\", \\"arguments\\": []}", "properties": {}}',
        b'{"body": "{\\"method\\": \\"a\\", \\"reply_to\\": 7}", "properties": {}}',
        b" " * 5_000_000,
    ],
    ids=lambda raw: repr(raw[:30]),
)
def test_garbage_is_passed_over_and_said(
    post: Post, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    post.send(raw)
    post.say(method="ping")

    assert [command.method for command in post.received] == ["ping"]
    events = [getattr(record, "event", "") for record in caplog.records]
    assert events == ["control.garbage"]


def test_the_logical_clock_follows_what_is_received(post: Post) -> None:
    post.say(method="ping", clock=41)
    assert post.lamport.value == 42

    for odd in (-1, "many", None, 10**30, 1.5, True):
        post.say(method="ping", clock=odd)
    assert post.lamport.value <= 44


def test_what_takes_time_is_done_when_the_answer_is_made(post: Post) -> None:
    done: list[str] = []

    def look() -> object:
        done.append("looked")
        return ["found"]

    post.say(method="scheduled", ticket="7", reply_to=REPLY)
    post.received[0].answer(Later(look))
    assert done == []

    assert post.answers()[0].body == {"w1@here": ["found"]}
    assert done == ["looked"]


def raising() -> object:
    raise ResultUnavailable("nobody answers")


@pytest.mark.parametrize(
    ("answer", "words"),
    [(Later(raising), "ResultUnavailable"), ({"a": {1, 2}}, "MessageError")],
)
def test_an_answer_that_cannot_be_given_is_an_error_for_the_asker(
    post: Post, answer: object, words: str
) -> None:
    post.say(method="ping", ticket="7", reply_to=REPLY)
    post.received[0].answer(answer)

    assert words in post.answers()[0].body["w1@here"]["error"]


def test_an_asker_who_is_gone_harms_nobody(post: Post) -> None:
    gone = {**REPLY, "routing_key": "gone"}
    post.say(method="ping", ticket="7", reply_to=gone)
    post.say(method="ping", ticket="8", reply_to=REPLY)
    for command in post.received:
        command.answer({"ok": "pong"})

    assert [answer.headers["ticket"] for answer in post.answers()] == ["8"]


def answered_by(*bodies: object) -> Callable[..., list[bytes]]:
    """Return an `ask` of a broker by which other workers answer these bodies."""
    notices = [Notice({"clock": 3}, body) for body in bodies]
    raws = [write_notice(notice, ROUTE, tag="t") for notice in notices]
    return lambda *_: [*raws, b"garbage"]


def test_others_are_asked_what_they_know_as_revoked() -> None:
    post = Post()
    asked: list[Any] = []

    class Asking(MemoryBroker):
        def ask(self, question: Outgoing, answers: Queue, timeout: int) -> list[bytes]:
            asked.append(json.loads(question.message))
            return answered_by(
                {"w2@here": {"revoked": ["a", "b"], "clock": 7}},
                {"w3@here": {"revoked": ["c", 4], "clock": 7}},
                {"w1@here": None},
                {"w4@here": {"error": "no"}},
                ["nonsense"],
            )()

    box = Pidbox(Asking(), "w1@here", Settings(), post.lamport, post.received.append)

    assert box.ask_for_revoked(["mine"]) == ["a", "b", "c"]
    body = read_notice(json.dumps(asked[0]).encode()).body
    assert body["method"] == "hello"
    assert body["arguments"] == {"from_node": "w1@here", "revoked": ["mine"]}


# Readiness


def started(box: Pidbox) -> list[BaseException]:
    """Start it and stop it again; give what crashed."""
    crashes: list[BaseException] = []
    box.start(crashes.append)
    box.stop()
    return crashes


def test_it_hears_as_soon_as_it_has_started(post: Post) -> None:
    came: SimpleQueue[Command] = SimpleQueue()
    box = Pidbox(post.broker, "w2@here", Settings(), post.lamport, came.put)
    box.start(lambda error: None)
    post.say(method="ping")

    assert came.get(timeout=PATIENCE).method == "ping"
    box.stop()


def test_it_starts_where_the_broker_is_away(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(MemoryBroker):
        def receive(self, *_: object) -> list[bytes]:
            raise BrokerUnavailable("nobody answers")

    assert started(Pidbox(Away(), "w2@here", Settings(), post.lamport, print)) == []
    assert [getattr(record, "event", "") for record in caplog.records] == [
        "control.lost"
    ]


def test_a_start_that_fails_is_told_and_waits_for_nothing(post: Post) -> None:
    class Broken(MemoryBroker):
        def receive(self, *_: object) -> list[bytes]:
            raise AssertionError("a mistake of ours")

    (error,) = started(Pidbox(Broken(), "w2@here", Settings(), post.lamport, print))
    assert isinstance(error, AssertionError)


def test_an_answer_that_is_refused_is_dropped_and_holds_up_no_other(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    post.broker.declare([Queue("taken", "theirs", "direct", "me")])
    post.broker.closed["taken"] = "it is another program's"
    theirs = {"exchange": "theirs", "routing_key": "me"}
    for reply_to in (REPLY, theirs, theirs, REPLY, theirs):
        post.say(method="ping", reply_to=reply_to)
    for command in post.received:
        command.answer({"ok": "pong"})

    assert [one.body for one in post.answers()] == [{"w1@here": {"ok": "pong"}}] * 2
    assert not post.box.answering.turn(), "nothing is tried again"
    [said] = [r for r in caplog.records if r.__dict__["event"] == "control.refused"]
    assert "theirs" in said.getMessage()
    assert "another program" in said.getMessage()


def test_an_answer_is_refused_where_a_key_is_of_another_type(server: Server) -> None:
    broker = RedisBroker(server.url(), namespace="test")
    received: list[Command] = []
    box = Pidbox(broker, "w1@here", Settings(), LamportClock(), received.append)
    box.turn(0)
    broker.declare([Queue("good", "replies", "direct", "good")])
    broker.declare([Queue("taken", "replies", "direct", "taken")])
    with server.client() as client:
        client.sadd("taken", "a")
        for key in ("taken", "good"):
            reply = {"exchange": "replies", "routing_key": key}
            notice = Notice({}, {"method": "ping", "reply_to": reply})
            broker.send([Outgoing(ROUTE, write_notice(notice, ROUTE, tag="t"))])
        while len(received) < 2:
            box.turn(1000)
        for command in received:
            command.answer({"ok": "pong"})

        box.answering.turn()

        assert client.llen("good") == 1
    broker.close()


def test_an_answer_goes_once_when_the_broker_goes_away_after_a_refusal() -> None:
    class Cut(MemoryBroker):
        requests = 99

        def send(self, batch: Sequence[Outgoing]) -> None:
            self.requests -= 1
            if not self.requests:
                raise BrokerUnavailable("nobody answers")
            super().send(batch)

    broker = Cut()
    broker.declare([Queue("taken", "theirs", "direct", "me")])
    broker.closed["taken"] = "it is another program's"
    post, given = Post(broker), []
    for reply_to in (REPLY, {"exchange": "theirs", "routing_key": "me"}):
        post.say(method="ping", reply_to=reply_to)
    for command in post.received:
        command.answer(Later(lambda: given.append(1)))

    broker.requests = 3  # the batch, its first half, and then the second
    with pytest.raises(BrokerUnavailable):
        post.answers()
    assert len(post.answers()) == 1
    assert len(given) == 2
