"""What becomes of deliveries: results are kept first, then the broker is told.

Two stages, each with a thread of its own: a result backend that is away holds up those
whose results it is to keep, and no one else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from beatd.brokers.base import Consumer, Delivery, Done, Outgoing, Sender
from beatd.errors import BrokerUnavailable, ResultUnavailable
from beatd.instant import Instant, Span
from beatd.results.base import Keeper, Meta, Stored
from beatd.worker.stage import OnCrash, Stage, Trouble


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """It is done with; what follows from it is sent in the same step."""

    done: Done
    sends: Sequence[Outgoing] = ()


@dataclass(frozen=True, slots=True)
class Begin:
    """It is acknowledged, and its run may begin then: at most once."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Bury:
    """It goes to the dead-letter queue."""

    delivery: Delivery
    reason: str
    task: str = ""
    task_id: str = ""
    """Task and id, where they could be read."""


@dataclass(frozen=True, slots=True)
class Delay:
    """It waits in the broker for its time."""

    delivery: Delivery
    until: Instant


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Others may have it."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Continue:
    """Nothing: its run goes on."""


Act: TypeAlias = Acknowledge | Begin | Bury | Delay | GiveBack | Continue


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is to be kept of a run, and what then becomes of its delivery."""

    token: str
    act: Act
    kept: Meta | Stored | None = None
    ended: tuple[str, str] | None = None
    """Entry and task id of a run that ends, where no acknowledgement tells it."""


class Source(Consumer, Sender, Protocol):
    """The broker, as the worker uses it."""

    def end_runs(self, runs: Mapping[str, str]) -> None:
        """Forget these runs (entry to task id) where they are still current."""
        ...


class Settler:
    """Settles deliveries, in order, until both backend and broker have answered."""

    def __init__(
        self,
        broker: Source,
        worker: str,
        results: Keeper | None,
        settled: Callable[[Sequence[Settlement]], object],
        away: Trouble,
    ) -> None:
        self._broker = broker
        self._worker = worker
        self._results = results
        self._settled = settled
        results_away = Trouble("the result backend is away", "results")
        self.keeping = Stage(self._keep, ResultUnavailable, results_away)
        self.settling = Stage(self._settle, BrokerUnavailable, away)

    def put(self, settlement: Settlement) -> None:
        """Have this settled; `settled` is called with it when it is."""
        keeps = settlement.kept is not None and self._results is not None
        (self.keeping if keeps else self.settling).put(settlement)

    def start(self, on_crash: OnCrash) -> None:
        """Begin to settle, in two threads."""
        self.keeping.start("beatd-keep", on_crash)
        self.settling.start("beatd-settle", on_crash)

    def stop(self, patience: Span) -> bool:
        """Settle what was put in before, as far as `patience` goes; say if all is."""
        kept = self.keeping.stop(patience)
        return self.settling.stop(patience) and kept

    def _keep(self, batch: Sequence[Settlement]) -> None:
        if self._results is not None:
            self._results.store([one.kept for one in batch if one.kept is not None])
        for settlement in batch:
            self.settling.put(settlement)

    def _settle(self, batch: Sequence[Settlement]) -> None:
        """Tell the broker. All of it may be told again, when an answer is lost."""
        begun: list[Done] = []
        done: list[Done] = []
        sends: list[Outgoing] = []
        back: list[Delivery] = []
        for settlement in batch:
            match settlement.act:
                case Acknowledge(one, following):
                    done.append(one)
                    sends += following
                case Begin(delivery):
                    begun.append(Done(delivery))
                case GiveBack(delivery):
                    back.append(delivery)
                case Bury(delivery, reason, task, task_id):
                    self._broker.bury(self._worker, delivery, reason, task, task_id)
                case Delay(delivery, until):
                    self._broker.delay(self._worker, delivery, until)
        # Not in one step with `done`: a broker knows a request that is made again by
        # its first delivery, and one that begins comes here a second time.
        if begun:
            self._broker.acknowledge(self._worker, begun)
        if done:
            self._broker.acknowledge(self._worker, done, sends)
        if back:
            self._broker.give_back(self._worker, back)
        if ended := dict(one.ended for one in batch if one.ended):
            self._broker.end_runs(ended)
        self._settled(batch)
