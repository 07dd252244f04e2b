"""What is handed on to the broker, and how often, when a backend answers late."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from beatd.background import Outage
from beatd.brokers.items import (
    ENOUGH,
    Acknowledge,
    Act,
    Answer,
    Begin,
    Delivery,
    Effect,
    GiveBack,
    Outgoing,
)
from beatd.brokers.memory import MemoryBroker
from beatd.clock import Clock
from beatd.errors import BrokerUnavailable, ResultUnavailable
from beatd.instant import SECOND, Span
from beatd.results.base import Meta, State, Stored
from beatd.results.chords import Joined
from beatd.results.disabled import NoResults
from beatd.runs.chords import Failed, Recorded, Unsent
from beatd.runs.report import Bookkeeping
from beatd.worker.settle import Settler
from beatd.worker.settlement import Continue, Settlement
from tests.brokers.making import outgoing
from tests.fakes import FakeClock

FAILED = Failed(State.FAILURE, ValueError("no"), False)


class Hesitant:
    """Keeps what follows from one run, and for the next one is away at first."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def record_end(
        self, message: bytes, end: Bookkeeping | Failed | Unsent
    ) -> Recorded:
        self.asked.append(message)
        if len(self.asked) == 2:
            raise ResultUnavailable("nobody answers")
        return Recorded([outgoing(b"after " + message)], [])

    def forget(self, joined: Sequence[Joined]) -> None: ...


def test_nothing_is_handed_on_twice_when_a_part_of_a_batch_cannot_be_kept() -> None:
    broker = MemoryBroker()
    broker.join("me", 60_000)
    broker.send([outgoing(b"1"), outgoing(b"2")])
    deliveries = broker.take("me", ["celery"], 2, 1)
    settled: list[Settlement] = []
    away = Outage("the broker is away", "broker")
    settler = Settler(
        broker, "me", None, settled.extend, away, FakeClock(), keeper := Hesitant()
    )
    for one in deliveries:
        settler.put(settlement_of(one))

    with pytest.raises(ResultUnavailable):
        settler.keeping.turn()
    settler.settling.turn()
    settler.keeping.turn()  # the same batch once more
    settler.settling.turn()

    assert [one.token for one in settled] == [one.token for one in deliveries]
    sent = broker.take("me", ["celery"], 9, 2)
    assert [one.message for one in sent] == [b"after 1", b"after 2"]
    assert keeper.asked == [b"1", b"2", b"2"], "errbacks are called there"


class Storing(NoResults):
    """Remembers of which runs it was to store anything, again and again."""

    def __init__(self) -> None:
        self.stored: list[str] = []

    def store(self, metas: Sequence[Meta | Stored]) -> None:
        self.stored += [one.task_id for one in metas]


def test_a_state_is_not_stored_again_once_its_run_is_handed_on() -> None:
    broker = MemoryBroker()
    broker.join("me", 60_000)
    broker.send([outgoing(b"1"), outgoing(b"2")])
    deliveries = broker.take("me", ["celery"], 2, 1)
    results, away = Storing(), Outage("the broker is away", "broker")
    settler = Settler(
        broker, "me", results, lambda _: None, away, FakeClock(), Hesitant()
    )
    for one in deliveries:
        kept = Meta(one.message.decode(), State.RETRY)
        settler.put(replace(settlement_of(one), kept=kept))

    with pytest.raises(ResultUnavailable):
        settler.keeping.turn()
    settler.settling.turn()  # now others may run it, and store how it goes on
    settler.keeping.turn()

    assert results.stored == ["1", "2", "2"]


class Choosy(MemoryBroker):
    """Refuses to take the first message back, as long as `refuses`; counts requests."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = False
        self.asked: list[tuple[int, list[bytes], int]] = []

    def settle(
        self,
        worker: str,
        acts: Sequence[Act],
        sends: Sequence[Outgoing],
        request: int,
    ) -> list[Answer]:
        refused = [act for act in acts if self.refuses and isinstance(act, GiveBack)]
        done = [act for act in acts if act not in refused]
        answers = iter(super().settle(worker, done, sends, request))
        self.asked.append(
            (request, [act.delivery.message for act in acts], len(sends)),
        )
        refusal = Answer(Effect.REFUSED, "not this one")
        return [refusal if act in refused else next(answers) for act in acts]


def settler_of(
    broker: MemoryBroker, settled: list[Settlement], clock: Clock | None = None
) -> Settler:
    away = Outage("the broker is away", "broker")
    clock = clock or FakeClock()
    return Settler(broker, "me", None, settled.extend, away, clock)


def test_what_is_refused_is_asked_for_again_alone_and_holds_up_no_other() -> None:
    broker = Choosy()
    broker.join("me", 60_000)
    broker.send([outgoing(b"1"), outgoing(b"2")])
    one, two = broker.take("me", ["celery"], 2, 1)
    settled: list[Settlement] = []
    settler = settler_of(broker, settled)
    settler.put(Settlement(one.token, GiveBack(one)))
    settler.put(Settlement(two.token, Acknowledge(two), sends=[outgoing(b"next")]))

    broker.refuses = True
    for _ in range(2):
        settler.settling.turn()
        settler.refused.turn()
    assert [one.token for one in settled] == [two.token]
    broker.refuses = False
    settler.settling.turn()

    assert [one.token for one in settled] == [two.token, one.token]
    asked = [(1, [b"1", b"2"], 1), (2, [b"1"], 0), (3, [b"1"], 0)]
    assert broker.asked == asked
    left = broker.take("me", ["celery"], 9, 2)
    assert [one.message for one in left] == [b"1", b"next"]


def test_what_is_refused_for_ever_is_said_and_left_in_flight(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Choosy()
    broker.join("me", 60_000)
    broker.send([outgoing(b"1")])
    [one] = broker.take("me", ["celery"], 1, 1)
    settled: list[Settlement] = []
    settler = settler_of(broker, settled)
    settler.put(Settlement(one.token, GiveBack(one)))

    broker.refuses = True
    while settler.settling.turn() | settler.refused.turn():
        pass

    assert [getattr(said, "event", "") for said in caplog.records] == ["settle.refused"]
    assert "not this one" in caplog.text
    assert [one.token for one in settled] == [one.token]


def test_a_stop_says_so_when_what_is_refused_rests_on() -> None:
    broker = Choosy()
    broker.join("me", 60_000)
    broker.send([outgoing(b"1")])
    [one] = broker.take("me", ["celery"], 1, 1)
    settler = settler_of(broker, [])
    settler.put(Settlement(one.token, GiveBack(one)))

    broker.refuses = True
    crashes: list[BaseException] = []
    settler.start(crashes.append)

    assert not settler.stop(SECOND)
    assert crashes == []


class Stuck:
    """A stage that is at work for longer than anybody waits for it."""

    waiting = 0

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.waited: list[Span] = []

    def stop(self, patience: Span) -> bool:
        self.waited.append(patience)
        self.clock.go_to(self.clock.now() + patience)
        return False


def test_a_stop_waits_for_all_stages_together_no_longer_than_it_was_told() -> None:
    clock = FakeClock()
    settler: Any = settler_of(MemoryBroker(), [], clock)
    stages = [Stuck(clock) for _ in range(4)]
    settler.keeping, settler.refused, settler.settling, settler.forgetting = stages

    assert not settler.stop(5 * SECOND)

    assert [stage.waited for stage in stages] == [[5 * SECOND], [0], [0], [0]]


def test_a_request_is_bounded_by_the_bytes_of_its_messages() -> None:
    broker = Choosy()
    settled: list[Settlement] = []
    settler = settler_of(broker, settled)
    large = outgoing(b"x" * (ENOUGH // 2))
    for token in "abcd":
        settler.put(Settlement(token, Continue(), sends=[large]))
    settler.put(Settlement("e", Continue(), sends=[large, large, large]))

    settler.settling.turn()

    assert [one.token for one in settled] == [*"abcde"]
    assert [sends for _, _, sends in broker.asked] == [2, 1, 1, 3]


class Away(MemoryBroker):
    """Settles, and then gives no answer, for some times."""

    lost = 2

    def settle(
        self,
        worker: str,
        acts: Sequence[Act],
        sends: Sequence[Outgoing],
        request: int,
    ) -> list[Answer]:
        answers = super().settle(worker, acts, sends, request)
        if self.lost > 0:
            self.lost -= 1
            raise BrokerUnavailable("the answer was lost")
        return answers


def test_what_follows_is_sent_once_whatever_answers_are_lost() -> None:
    broker = Away()
    settled: list[Settlement] = []
    settler = settler_of(broker, settled)
    settler.put(Settlement("1", Continue(), sends=[outgoing(b"next")]))

    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            settler.settling.turn()
    settler.settling.turn()

    broker.join("me", 60_000)
    left = broker.take("me", ["celery"], 9, 1)
    assert [one.message for one in left] == [b"next"]
    assert len(settled) == 1


def test_each_settlement_has_its_own_answer_of_the_broker() -> None:
    broker = MemoryBroker()
    broker.join("me", 60_000)
    broker.send([outgoing(b"1"), outgoing(b"2")])
    one, two = broker.take("me", ["celery"], 2, 1)
    broker.reclaim("me", [two.token], 2)  # one is back in the queue
    settled: list[Settlement] = []
    settler = settler_of(broker, settled)
    settler.put(Settlement(one.token, Continue(), sends=[outgoing(b"next")]))
    settler.put(Settlement(one.token, Begin(one)))
    settler.put(Settlement(two.token, Begin(two)))

    settler.settling.turn()

    assert [one.effect for one in settled] == [Effect.DONE, Effect.GONE, Effect.DONE]


def settlement_of(delivery: Delivery) -> Settlement:
    return Settlement(delivery.token, Acknowledge(delivery), end=FAILED)
