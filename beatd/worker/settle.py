"""What becomes of deliveries: results are kept first, then the broker is told.

Two stages, each with a thread of its own: a result backend that is away holds up those
whose results it is to keep, and no one else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Protocol

from beatd.background import Backoff, BatchWorker, OnCrash, Outage
from beatd.brokers.base import (
    Acknowledge,
    Act,
    Consumer,
    Delivery,
    Effect,
    Outgoing,
    Sender,
    SetAside,
)
from beatd.errors import BrokerRefused, BrokerUnavailable, ResultUnavailable
from beatd.instant import Span
from beatd.results.base import Keeper, Meta, Stored
from beatd.results.chords import Joined
from beatd.runs.chords import Failed, Recorded
from beatd.runs.report import Bookkeeping


@dataclass(frozen=True, slots=True)
class Begin:
    """The delivery is acknowledged, and its run may begin then: at most once."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Continue:
    """Nothing is done: the run goes on."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is to be kept of a run, and what then becomes of its delivery."""

    token: str
    act: Act | Begin | Continue
    kept: Meta | Stored | None = None
    ended: tuple[str, str] | None = None
    """Entry and task id of a run that ends, where no acknowledgement tells it."""
    sends: Sequence[Outgoing] = ()
    """What follows from its run; sent once what is to be kept is kept."""
    end: Bookkeeping | Failed | None = None
    """What else is to be kept, for others than the run itself."""
    joined: Sequence[Joined] = ()
    """Chords whose bodies are among what is sent."""


@dataclass(frozen=True, slots=True)
class _SettleRequest:
    """What the broker is asked for a batch, under the same number until it answers."""

    number: int
    acts: Sequence[Act]
    sends: Sequence[Outgoing]


class WorkerBroker(Consumer, Sender, Protocol):
    """The broker, as the worker uses it."""

    def end_runs(self, runs: Mapping[str, str]) -> None:
        """Forget these runs (entry to task id) where they are still current."""
        ...


class EndRecorder(Protocol):
    """Keeps what follows from the ends of runs: runs/chords.py."""

    def record_end(self, message: bytes, end: Bookkeeping | Failed) -> Recorded:
        """Keep what follows from the end of this message's run.

        Raises ResultUnavailable: called again with the same, it does no more.
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
        renew: Callable[[], object],
        chord_keeper: EndRecorder | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """`renew` tells of a lease that was lost, before it returns.

        Without a chord keeper nothing is kept for others than the runs themselves.
        `backoff` says how long to rest between tries to keep what is to be kept.
        """
        self._broker = broker
        self._worker = worker
        self._results = results
        self._settled = settled
        self._renew = renew
        self._chord_keeper = chord_keeper
        self._numbers = count(1)
        self._request: _SettleRequest | None = None
        results_away = Outage("the result backend is away", "results")
        self.keeping = BatchWorker(self._keep, ResultUnavailable, results_away, backoff)
        self.settling = BatchWorker(self._settle, BrokerUnavailable, away)
        self.forgetting = BatchWorker(self._forget, ResultUnavailable, results_away)

    def put(self, settlement: Settlement) -> None:
        """Have this settled; `settled` is called with it when it is."""
        keeps = settlement.kept is not None and self._results is not None
        keeps = keeps or bool(settlement.end and self._chord_keeper)
        (self.keeping if keeps else self.settling).put(settlement)

    def start(self, on_crash: OnCrash) -> None:
        """Begin to settle, in three threads."""
        self.keeping.start("beatd-keep", on_crash)
        self.settling.start("beatd-settle", on_crash)
        self.forgetting.start("beatd-forget", on_crash)

    def stop(self, patience: Span) -> bool:
        """Settle what was put in before, as far as `patience` goes; say if all is."""
        kept = self.keeping.stop(patience)
        settled = self.settling.stop(patience)
        # What is not forgotten goes by itself, with time.
        self.forgetting.stop(patience)
        return settled and kept

    def _keep(self, batch: Sequence[Settlement]) -> None:
        if self._results is not None:
            self._results.store([one.kept for one in batch if one.kept is not None])
        # All of it before any is handed on: it may be kept again.
        for settlement in [self._with_chords(one) for one in batch]:
            self.settling.put(settlement)

    def _with_chords(self, settlement: Settlement) -> Settlement:
        """Store what the run's end means for chords; return what follows, too."""
        act, end = settlement.act, settlement.end
        if not (self._chord_keeper and end and isinstance(act, Acknowledge | SetAside)):
            return settlement
        more = self._chord_keeper.record_end(act.delivery.message, end)
        sends = [*settlement.sends, *more.sends]
        return replace(settlement, sends=sends, joined=more.joined)

    def _forget(self, batch: Sequence[Joined]) -> None:
        if self._chord_keeper:
            self._chord_keeper.forget(batch)

    def _settle(self, batch: Sequence[Settlement]) -> None:
        """Tell the broker. All of it may be told again, when an answer is lost."""
        # Not told twice: the number, and what else names this request, stay the same.
        self._request = self._request or self._request_of(batch)
        self._ask(self._request)
        if any(isinstance(one.act, Begin) for one in batch):
            # They were ours if they still could be now: one that others have is passed
            # over, and must not run here as well.
            self._renew()
        if ended := dict(one.ended for one in batch if one.ended):
            self._broker.end_runs(ended)
        self._request = None
        self._settled(batch)
        for settlement in batch:
            for joined in settlement.joined:
                self.forgetting.put(joined)

    def _request_of(self, batch: Sequence[Settlement]) -> _SettleRequest:
        acts = [act for one in batch if (act := _asked_of_broker(one.act))]
        sends = [outgoing for one in batch for outgoing in one.sends]
        return _SettleRequest(next(self._numbers), acts, sends)

    def _ask(self, request: _SettleRequest) -> None:
        """Settle what is asked for. Raises BrokerRefused where some of it is left."""
        if not request.acts and not request.sends:
            return
        answers = self._broker.settle(
            self._worker, request.acts, request.sends, request.number
        )
        refused = [
            (act, answer.reason)
            for act, answer in zip(request.acts, answers, strict=True)
            if answer.effect is Effect.REFUSED
        ]
        if refused:
            # The others are settled, and what was to be sent is sent.
            acts = [act for act, _ in refused]
            self._request = _SettleRequest(next(self._numbers), acts, ())
            raise BrokerRefused(refused[0][1])


def _asked_of_broker(act: Act | Begin | Continue) -> Act | None:
    """Return what the broker is to do, if anything."""
    match act:
        case Begin(delivery):
            return Acknowledge(delivery)
        case Continue():
            return None
        case _:
            return act
