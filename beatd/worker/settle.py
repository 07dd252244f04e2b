"""Settling: results are stored first, then the broker settles the deliveries.

Each step has a thread of its own: a result backend that is away holds up only the
deliveries that have something to store.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Protocol

from beatd.background import Backoff, BatchWorker, OnCrash, Outage
from beatd.brokers.base import (
    Acknowledge,
    Act,
    Begin,
    Consumer,
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
class Continue:
    """Leave the delivery as it is: the run goes on."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is to be stored of a run, and what then becomes of its delivery."""

    token: str
    act: Act | Continue
    kept: Meta | Stored | None = None
    sends: Sequence[Outgoing] = ()
    """Messages that follow from the run; sent when the result is stored."""
    end: Bookkeeping | Failed | None = None
    """What is to be stored for other runs: chords, and calls that will not run."""
    joined: Sequence[Joined] = ()
    """Chords whose bodies are among `sends`."""


@dataclass(frozen=True, slots=True)
class _SettleRequest:
    """A request to the broker; it keeps its number until the broker answers."""

    number: int
    acts: Sequence[Act]
    sends: Sequence[Outgoing]


class WorkerBroker(Consumer, Sender, Protocol):
    """The broker, as the worker uses it."""


class EndRecorder(Protocol):
    """Stores what follows from the ends of runs: runs/chords.py."""

    def record_end(self, message: bytes, end: Bookkeeping | Failed) -> Recorded:
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
        renew: Callable[[], object],
        chord_keeper: EndRecorder | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """`renew` renews the lease, and reports a lost one before it returns.

        Without a chord keeper nothing is stored for other runs. `backoff` is for tries
        to store.
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
        """Settle what was put in, for up to `patience` each; return whether all is."""
        kept = self.keeping.stop(patience)
        settled = self.settling.stop(patience)
        # Chords that are not forgotten here expire in the backend.
        self.forgetting.stop(patience)
        return settled and kept

    def _keep(self, batch: Sequence[Settlement]) -> None:
        if self._results is not None:
            self._results.store([one.kept for one in batch if one.kept is not None])
        # Nothing is handed on before all is stored: on a failure all is stored again.
        for settlement in [self._with_chords(one) for one in batch]:
            self.settling.put(settlement)

    def _with_chords(self, settlement: Settlement) -> Settlement:
        """Store what a run's end means for chords; add the messages that follow.

        Only with Acknowledge or SetAside has the run ended for good.
        """
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
        """Have the broker settle a batch; the whole batch again if no answer came."""
        # The broker does it once: a request that is repeated keeps its number.
        self._request = self._request or self._request_of(batch)
        self._ask(self._request)
        # If what follows fails, the broker is not asked again: it could be another
        # server by then, or have forgotten a worker whose lease it took for over.
        self._request = _SettleRequest(self._request.number, (), ())
        if any(isinstance(one.act, Begin) for one in batch):
            # To acknowledge what another worker has by now does nothing, and such a run
            # must not begin here. If our lease still lasts, all of them were ours.
            self._renew()
        self._request = None
        self._settled(batch)
        for settlement in batch:
            for joined in settlement.joined:
                self.forgetting.put(joined)

    def _request_of(self, batch: Sequence[Settlement]) -> _SettleRequest:
        acts = [one.act for one in batch if not isinstance(one.act, Continue)]
        sends = [outgoing for one in batch for outgoing in one.sends]
        return _SettleRequest(next(self._numbers), acts, sends)

    def _ask(self, request: _SettleRequest) -> None:
        """Send a request to the broker. Raises BrokerRefused if some acts are left."""
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
            # The other acts are done, and the messages are sent.
            acts = [act for act, _ in refused]
            self._request = _SettleRequest(next(self._numbers), acts, ())
            raise BrokerRefused(refused[0][1])
