"""Notes each request that reaches the broker in memory, with its answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from beatd.brokers.items import Delivery, Suspects, pass_over
from beatd.errors import BeatdError
from beatd.instant import HOUR, Instant
from beatd.timetable.ledger import LedgerCopy
from tests.simulation.network import FOLLOWING, Network

SNAPSHOT, SET_BACK, LOSE_ALL = "snapshot", "set_back", "lose_all"
"""Names of what is done to all data at once, and is no request."""

_WAITS = frozenset({"await_message", "await_release"})
"""These change nothing, and are answered when time has passed."""

_LAST = "last"
"""The worker that takes what is left at the end."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as it was executed."""

    at: Instant
    is_led: bool
    """Whether anybody held the lead when it came."""
    name: str
    """That of the port's method, or of what was done to all data."""
    args: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)
    answer: Any = None
    """What was returned, or the type of the error that was raised."""
    held_back: bool = False
    """Whether `take` said that it holds suspects back."""

    def __str__(self) -> str:
        words = ", ".join(map(repr, [*self.args, *self.named.items()]))
        return f"{self.name}({words})"


class Recorder:
    """Notes the calls of one simulation, and looks at all data now and then."""

    def __init__(self, network: Network) -> None:
        self.calls: list[Call] = []
        self._world = network.world
        self._server = network.server
        self._execute = network.execute
        network.execute = self.execute
        self._workers: set[str] = set()
        self._following: list[bytes] = []
        """The messages that follow from runs: the server itself keeps none."""
        self._kept: list[bytes] = []
        """Those of the last snapshot."""

    def execute(self, name: str, *args: Any, **named: Any) -> Any:
        """Have the server execute a request, and note it."""
        if name in _WAITS:
            return self._execute(name, *args, **named)
        if name in (SNAPSHOT, SET_BACK, LOSE_ALL):
            return self._meet(name, *args)
        if name == "join":
            self._workers.add(args[0])
        followed = len(self._server.followed)
        call = self._call(name, args, named)
        held_back: list[None] = []
        if name == "take":
            args = (*args[:-1], _noting(held_back, args[-1]))
        try:
            answer = self._execute(name, *args, **named)
        except BeatdError as error:
            self.calls.append(replace(call, answer=type(error)))
            raise
        self._following += [one for _, one in self._server.followed[followed:]]
        noted = replace(call, answer=_copied(answer), held_back=bool(held_back))
        self.calls.append(noted)
        return answer

    def finish(self) -> list[Call]:
        """Have all messages taken at the end, and return all that was noted."""
        self._look()
        for worker in sorted(self._workers):
            self.execute("leave", worker)
        self.execute("join", _LAST, HOUR)
        how = pass_over, Suspects.IN_COMPANY, 1, lambda: None
        request = 1
        while self.execute("take", _LAST, ["celery"], 1000, request, *how):
            request += 1
        there = [Delivery("", FOLLOWING, message) for message in self._following]
        asked = _LAST, [FOLLOWING], len(there) + 1, request + 1, *how
        self.calls.append(replace(self._call("take", asked, {}), answer=there))
        return self.calls

    def _meet(self, name: str, *data: Any) -> Any:
        """Note what is done to all data."""
        if name == SNAPSHOT:
            self._kept = [*self._following]
        else:
            self._look()
            self._following = [*self._kept] if name == SET_BACK else []
        self.calls.append(self._call(name, (), {}))
        return self._execute(name, *data)

    def _look(self) -> None:
        """Note what can be seen of all data without changing them."""
        entries = sorted(self.execute("read_ledger").marks)
        runs = self.execute("running", entries)
        self.execute("held_runs", sorted(runs.values()))
        self.execute("delayed", ["celery"], 1000)
        self.execute("dead_letters")

    def _call(self, name: str, args: tuple[Any, ...], named: Mapping[str, Any]) -> Call:
        kept = tuple(map(_copied, args))
        more = {key: _copied(value) for key, value in named.items()}
        is_led = self._server.leader() is not None
        return Call(self._world.now, is_led, name, kept, more)


def _noting(told: list[None], on_held_back: Callable[[], object]) -> Callable[[], None]:
    def tell() -> None:
        told.append(None)
        on_held_back()

    return tell


def _copied(value: Any) -> Any:
    """Return a copy of what may be changed later."""
    match value:
        case dict() | list() | set():
            return value.copy()
        case LedgerCopy(marks):
            return replace(value, marks=dict(marks))
    return value
