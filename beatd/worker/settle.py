"""Settling: results are stored first, then the broker settles the deliveries.

Each step has a thread of its own: a result backend that is away holds up only the
deliveries that have something to store.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol

import msgspec
from msgspec.structs import replace

from beatd.background import Backoff, BatchWorker, Faults, OnCrash, Outage
from beatd.brokers.base import Consumer, Sender
from beatd.brokers.items import (
    DONE,
    ENOUGH,
    Acknowledge,
    Act,
    Answer,
    Delivery,
    Effect,
    Outgoing,
    SetAside,
)
from beatd.clock import Clock
from beatd.errors import (
    BeatdError,
    BrokerUnavailable,
    ItemRefused,
    ResultRefused,
    ResultUnavailable,
)
from beatd.event_log import EventLog
from beatd.events.sender import say_refused
from beatd.instant import SECOND, Span
from beatd.results.base import Keeper, State
from beatd.results.chords import Joined
from beatd.results.refusals import Store, store_in_short, store_what_is_taken
from beatd.runs.chords import Failed, Recorded, Unsent
from beatd.runs.report import Bookkeeping
from beatd.text import quoted
from beatd.worker.settlement import Continue, Settlement

tell = EventLog(__name__)

TRIES = 5
"""How often an act that the broker refuses is tried again."""

REST: Span = SECOND
"""How long such an act rests between two tries."""


class _SettleRequest(msgspec.Struct, frozen=True):
    """A request to the broker; it keeps its number until the broker answers."""

    number: int
    acts: Sequence[Act]
    sends: Sequence[Outgoing]

    @property
    def size(self) -> int:
        """Bytes of all messages."""
        return sum(len(outgoing.message) for outgoing in self.sends)


class WorkerBroker(Consumer, Sender, Protocol):
    """The broker, as the worker uses it."""


class EndRecorder(Protocol):
    """Stores what follows from the ends of runs: runs/chords.py."""

    def record_end(
        self, message: bytes, end: Bookkeeping | Failed | Unsent
    ) -> Recorded:
        """Store what follows from the end of this message's run; return what to send.

        Raises ResultUnavailable: then it may be called again with the same arguments.
        """
        ...

    def forget(self, joined: Sequence[Joined]) -> None:
        """Forget chords whose bodies are sent. Raises ResultUnavailable."""
        ...


class Settler:
    """Settles deliveries, in order, until both backend and broker have answered."""

    def __init__(
        self,
        broker: WorkerBroker,
        worker: str,
        results: Keeper | None,
        settled: Callable[[Sequence[Settlement]], object],
        away: Outage,
        clock: Clock,
        chord_keeper: EndRecorder | None = None,
        backoff: Backoff | None = None,
        left: Callable[[str], object] = lambda token: None,
        unkept: Callable[[Sequence[Settlement]], object] = lambda settlements: None,
    ) -> None:
        """Without a chord keeper nothing is stored for other runs.

        `backoff` is for tries to store. `left` is called with the token of what cannot
        be settled: it is to stay in flight. `unkept` is called, also repeatedly, with
        what waits for a backend that is away.
        """
        self._broker = broker
        self._worker = worker
        self._results = results
        self._settled = settled
        self._clock = clock
        self._left = left
        self._unkept = unkept
        self._is_away = False
        """Whether the backend did not answer when it was asked last."""
        self._chord_keeper = chord_keeper
        self._numbers = count(1)
        self._request: _SettleRequest | None = None
        self._kept = 0
        """How many settlements of the batch that is being kept are handed on."""
        self._parts: list[Sequence[Settlement]] = []
        self._refused_events = Faults()
        results_away = Outage("the result backend is away", "results")
        self.keeping = BatchWorker(self._keep, ResultUnavailable, results_away, backoff)
        self.settling = BatchWorker(self._settle, BrokerUnavailable, away)
        self.refused = BatchWorker(
            self._try_again, BrokerUnavailable, away, linger=REST
        )
        """Acts that are refused rest here, then they are tried again."""
        self.forgetting = BatchWorker(self._forget, ResultUnavailable, results_away)

    def put(self, *settlements: Settlement) -> None:
        """Have these settled; `settled` is called with them when they are."""
        kept = [one for one in settlements if self._keeps(one)]
        if kept and self._is_away:
            self._unkept(kept)  # first: they are not settled yet
        if kept:
            self.keeping.put(*kept)
        if len(kept) < len(settlements):
            self.settling.put(*(one for one in settlements if not self._keeps(one)))

    def _keeps(self, settlement: Settlement) -> bool:
        """Return whether there is something to store."""
        if settlement.kept is not None and self._results is not None:
            return True
        return bool(settlement.end and self._chord_keeper)

    def start(self, on_crash: OnCrash) -> None:
        """Begin to settle, in threads."""
        self.keeping.start("beatd-keep", on_crash)
        self.settling.start("beatd-settle", on_crash)
        self.refused.start("beatd-refused", on_crash)
        self.forgetting.start("beatd-forget", on_crash)

    def stop(self, patience: Span) -> bool:
        """Settle what was put in, for up to `patience`; return whether all is."""
        until = self._clock.elapsed() + patience

        def left_of_it() -> Span:
            return max(until - self._clock.elapsed(), 0)

        # In the order in which they hand on; all of them go on working meanwhile.
        kept = self.keeping.stop(left_of_it())
        self.refused.stop(left_of_it())
        settled = self.settling.stop(left_of_it())
        # Chords that are not forgotten here expire in the backend.
        self.forgetting.stop(left_of_it())
        # What is refused to the last is put where nobody works any more.
        left = self.keeping.waiting + self.refused.waiting
        return settled and kept and not left

    def _keep(self, batch: Sequence[Settlement]) -> None:
        # After a failure it goes on where it was: errbacks are not called again, and of
        # what is handed on, others may store the next states by now.
        try:
            self._keep_rest(batch[self._kept :])
        except ResultUnavailable:
            self._is_away = True  # first: what is put from now on is not gathered
            self._unkept(self.keeping.gather()[self._kept :])
            raise
        self._is_away, self._kept = False, 0

    def _keep_rest(self, left: Sequence[Settlement]) -> None:
        refused = self._store(left)
        kept: list[Settlement] = []
        try:
            for at, one in enumerate(left):
                end = self._keep_one(one, refused.get(at))
                if isinstance(end, Settlement):
                    kept.append(end)
                elif one.fail:
                    self.put(one.fail(end, False))
                self._kept += 1
        finally:
            if kept:
                self.settling.put(*kept)

    def _store(self, batch: Sequence[Settlement]) -> dict[int, str]:
        """Store results; return, by place in the batch, why some are refused."""
        refused: dict[int, str] = {}
        for corrects in (False, True):
            kept = {
                at: one.kept
                for at, one in enumerate(batch)
                if one.kept and one.is_correction is corrects
            }
            if self._results and kept:
                places, store = list(kept), self._way_to_store(corrects)
                reasons = store_what_is_taken(store, list(kept.values()))
                refused |= {places[at]: reason for at, reason in reasons.items()}
        return refused

    def _keep_one(
        self, one: Settlement, refused: str | None
    ) -> Settlement | BeatdError:
        """Store what else is to be stored; return what to settle, or why it must fail.

        `refused` is why the result is not stored, if it is not.
        """
        if one.kept and refused:
            if one.fail and one.kept.status == State.SUCCESS:
                return BeatdError(f"its result cannot be stored: {refused}")
            store_in_short(self._way_to_store(one.is_correction), one.kept, refused)
        try:
            return self._with_chords(one)
        except ResultRefused as refusal:
            if one.fail:
                return BeatdError(f"the chord to follow cannot begin: {refusal}")
            words = "chords of errbacks cannot begin, and their bodies do not run: %s"
            tell.error("chord.refused", words, refusal)
            assert isinstance(one.end, Bookkeeping)  # which alone begins chords
            end = replace(one.end, begun=[])
            return self._with_chords(replace(one, end=end))

    def _way_to_store(self, corrects: bool) -> Store:
        assert self._results
        return self._results.correct if corrects else self._results.store

    def _with_chords(self, settlement: Settlement) -> Settlement:
        """Store what a run's end means for chords; add the messages that follow.

        Only with Acknowledge or SetAside has the run ended for good.
        """
        end, message = settlement.end, b""
        match settlement.act:
            case Acknowledge(delivery) | SetAside(delivery):
                message = delivery.message
            case Continue(Delivery() as delivery):
                message = delivery.message
        if not (self._chord_keeper and end and message):
            return settlement
        more = self._chord_keeper.record_end(message, end)
        return replace(settlement, after=more.sends, joined=more.joined)

    def _forget(self, batch: Sequence[Joined]) -> None:
        if self._chord_keeper:
            self._chord_keeper.forget(batch)

    def _settle(self, batch: Sequence[Settlement]) -> None:
        """Have the broker settle a batch; what is refused holds up nothing else."""
        # One part, unless it is large or something is refused: then it is halved.
        self._parts = self._parts or [batch]
        while self._parts:
            self._parts[:1] = self._settle_part(self._parts[0])

    def _settle_part(self, part: Sequence[Settlement]) -> list[Sequence[Settlement]]:
        """Settle a part; return the parts that are to be settled in its place.

        Raises BrokerUnavailable: then it is called again with the same part.
        """
        # The broker does it once: a request that is repeated keeps its number.
        if self._request is None:
            request = self._request_of(part)
            if len(part) > 1 and request.size > ENOUGH:
                return _halves(part)
            self._request = request
        try:
            answers = self._answers_to(self._request)
        except ItemRefused as refusal:
            if not self._request.sends:
                raise  # no message is at fault
            self._request = None
            return self._split(part, refusal)
        self._request = None
        if answers.count(DONE) < len(answers):
            part = self._answered(part, answers)
        self._settled(part)
        for settlement in part:
            for joined in settlement.joined:
                self.forgetting.put(joined)
        return []

    def _request_of(self, part: Sequence[Settlement]) -> _SettleRequest:
        acts = [one.act for one in part if not isinstance(one.act, Continue)]
        sends = [outgoing for one in part for outgoing in one.all_sends]
        return _SettleRequest(next(self._numbers), acts, sends)

    def _answers_to(self, request: _SettleRequest) -> Sequence[Answer]:
        if not request.acts and not request.sends:
            return []
        return self._broker.settle(
            self._worker, request.acts, request.sends, request.number
        )

    def _answered(
        self, part: Sequence[Settlement], answers: Sequence[Answer]
    ) -> Sequence[Settlement]:
        """Return what is settled, with what became of it; have the rest tried again."""
        settled, each = [], iter(answers)
        for one in part:
            answer = DONE if isinstance(one.act, Continue) else next(each)
            if answer.effect is not Effect.REFUSED:
                settled.append(replace(one, effect=answer.effect))
            elif one.tries < TRIES:
                again = replace(
                    one, kept=None, sends=(), after=(), end=None, tries=one.tries + 1
                )
                self.refused.put(again)
            else:
                self._left(one.token)
                self._say_left(one, answer.reason)
                settled.append(replace(one, effect=Effect.REFUSED))
        return settled

    # What is refused

    def _split(
        self, part: Sequence[Settlement], refusal: ItemRefused
    ) -> list[Sequence[Settlement]]:
        """Return smaller parts of one in which a message is refused."""
        if len(part) > 1:
            return _halves(part)
        # If nothing is permitted at all, this raises: no message is at fault then.
        self._broker.settle(self._worker, (), (), next(self._numbers))
        [one] = part
        if any(message.is_event for message in one.all_sends):
            # Perhaps only these are refused; if not, what is left is refused again.
            say_refused(self._refused_events, refusal)
            calls = {"sends": _calls(one.sends), "after": _calls(one.after)}
            return [[replace(one, **calls)]]
        if one.sends and one.after:
            delivery = one.act.delivery
            after = replace(one, act=Continue(delivery), sends=(), fail=None)
            return [[after], [replace(one, after=(), joined=())]]
        if one.joined:
            without = Unsent(one.joined, refusal)
            self.put(replace(one, kept=None, after=(), joined=(), end=without))
        elif one.fail and one.sends:
            error = BeatdError(f"what was to follow cannot be sent: {refusal}")
            is_counted = isinstance(one.end, Bookkeeping) and bool(one.end.parts)
            self.put(one.fail(error, is_counted))
        elif one.all_sends[1:] or not isinstance(one.act, Continue):
            alone = Settlement(one.token, Continue())
            singles = [replace(alone, sends=[message]) for message in one.all_sends]
            act = replace(one, kept=None, sends=(), after=(), end=None)
            return [*([single] for single in singles), [act]]
        else:
            self._on_dropped(one.all_sends[0], refusal)
        return []

    def _try_again(self, batch: Sequence[Settlement]) -> None:
        self.settling.put(*batch)

    def _say_left(self, one: Settlement, reason: str) -> None:
        tell.error(
            "settle.refused",
            "a delivery (%s) cannot be settled: %s; it stays in flight, and is"
            " delivered again when the worker has ended",
            one.token,
            reason,
        )

    def _on_dropped(self, message: Outgoing, refusal: ItemRefused) -> None:
        route = message.route
        tell.error(
            "follow_up.refused",
            "a message to %s that was to follow from a run is dropped: %s",
            quoted(route.queue or route.exchange),
            refusal,
        )


def _halves(part: Sequence[Settlement]) -> list[Sequence[Settlement]]:
    half = len(part) // 2
    return [part[:half], part[half:]]


def _calls(sends: Sequence[Outgoing]) -> list[Outgoing]:
    """Return these messages without the events among them."""
    return [one for one in sends if not one.is_event]
