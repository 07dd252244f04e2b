"""Makes the calls of a simulation again, to real brokers: their answers are the same.

So Lua and SQL are held to the broker in memory by histories that no rule of a test
draws: held requests, ends of leases, losses of all data, in the order in which the real
scheduler and the real worker met them.
"""

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from msgspec import structs

from beatd.brokers.items import Act, HeldLead, Outgoing, Suspects, Term
from beatd.errors import BeatdError
from beatd.instant import HOUR, Span
from tests.servers import Server
from tests.simulation.faults import GAPS, Kind
from tests.simulation.network import Network
from tests.simulation.real import Changes, OnRedis, OnSQLite, Real
from tests.simulation.record import LOSE_ALL, SET_BACK, SNAPSHOT, Call, Recorder
from tests.simulation.run import ALL, Result, directory_in_memory, simulate

LONGEST = 3000
"""The most characters that are shown of a call, and of an answer."""


def simulate_and_replay(
    seed: int,
    span: Span = HOUR,
    kinds: Collection[Kind] = ALL,
    *,
    gaps: Sequence[Span] = GAPS,
    verbose: bool = False,
) -> Result:
    """Simulate, make the calls again to Redis and SQLite, and judge all of it."""
    result, calls = record(seed, span, kinds, gaps=gaps, verbose=verbose)
    with Server() as server:
        found = [replayed_on_redis(calls, server), replayed_on_sqlite(calls)]
    result.verdict.differing += filter(None, found)
    result.command += " --replay"
    return result


def record(
    seed: int,
    span: Span,
    kinds: Collection[Kind],
    *,
    gaps: Sequence[Span] = GAPS,
    verbose: bool = False,
) -> tuple[Result, list[Call]]:
    """Simulate; return what that showed, and the calls that the broker got."""
    recorders: list[Recorder] = []

    def listen(network: Network) -> None:
        recorders.append(Recorder(network))

    result = simulate(seed, span, kinds, gaps=gaps, verbose=verbose, on_network=listen)
    return result, recorders[0].finish()


def replayed_on_redis(
    calls: Sequence[Call], server: Server, changes: Changes | None = None
) -> str:
    """Return the first difference between memory and a Redis server."""
    with closing(OnRedis(server, changes or {})) as real:
        return _difference(calls, real)


def replayed_on_sqlite(calls: Sequence[Call]) -> str:
    """Return the first difference between memory and SQLite."""
    with directory_in_memory() as directory, closing(OnSQLite(directory)) as real:
        return _difference(calls, real)


def _difference(calls: Sequence[Call], real: Real) -> str:
    """Return the first call that is answered otherwise; empty if there is none."""
    replay = _Replay(real)
    for number, call in enumerate(calls):
        answer = replay.make(call)
        expected = (call.answer, call.held_back) if call.name == "take" else call.answer
        if answer != expected:
            return (
                f"call {number} of {len(calls)}, {call!s:.{LONGEST}}\n"
                f"    memory: {expected!r:.{LONGEST}}\n"
                f"    {real.broker.ping()}: {answer!r:.{LONGEST}}"
            )
    return ""


class _Replay:
    """Makes calls to a real broker, which gives terms and deliveries other names.

    What is asked for by a name that memory gave is asked for by the real one, and what
    is answered is named as in memory.
    """

    def __init__(self, real: Real) -> None:
        self._real = real
        self._terms: dict[Term, Term] = {}
        """By the term that memory gave, the real one."""
        self._tokens: dict[tuple[str, str], str] = {}
        """By worker and the token that memory gave, the real one."""
        self._losses = {
            SNAPSHOT: real.keep,
            SET_BACK: real.set_back,
            LOSE_ALL: real.lose_all,
        }

    def make(self, call: Call) -> Any:
        """Make a call; return the answer, or the type of the error that was raised."""
        self._real.clock.instant = call.at
        if not call.is_led:
            self._real.end_lead()
        if done_to_all := self._losses.get(call.name):
            return done_to_all()
        if own := getattr(self, f"_{call.name}", None):
            return own(call, *call.args, **call.named)
        args = map(self._here, call.args)
        return self._request(call.name, *args, **call.named)

    def _request(self, name: str, *args: Any, **named: Any) -> Any:
        try:
            return getattr(self._real.broker, name)(*args, **named)
        except BeatdError as error:
            return type(error)

    def _here(self, value: Any) -> Any:
        """Return the real term for one that memory gave; all else as it is."""
        return self._terms.get(value, value) if isinstance(value, Term) else value

    # Those whose arguments or answers are not the same everywhere

    def _acquire(self, call: Call, *args: Any) -> Term | HeldLead:
        answer, expected = self._real.acquire(*args), call.answer
        if isinstance(answer, Term) and isinstance(expected, Term):
            self._terms[expected] = answer
            return expected._replace(number=answer.number)
        if isinstance(answer, HeldLead) and isinstance(expected, HeldLead):
            is_same = answer.term == self._here(expected.term)
            term = expected.term if is_same else answer.term
            left = answer.left or expected.left  # 0: the broker does not know
            return answer._replace(term=term, left=left)
        return answer

    def _last_resigned(self, call: Call) -> Term | None:
        broker, expected = self._real.broker, call.answer
        answer = broker.last_resigned()
        # Where the lead outlives the data, nobody needs to know.
        is_same = broker.lead_outlives_data or answer == self._here(expected)
        return expected if is_same else answer

    def _read_ledger(self, call: Call, *on_part: Any) -> Any:
        return self._request("read_ledger")

    def _dead_letters(self, call: Call) -> Any:
        found = self._real.broker.dead_letters()
        return [
            replace(letter, id=expected.id)
            for letter, expected in zip(found, call.answer, strict=False)
        ]

    def _take(
        self,
        call: Call,
        worker: str,
        queues: Sequence[str],
        limit: int,
        request: int,
        on_refused: object,
        suspects: Suspects,
        together: int,
        on_held_back: object,
    ) -> Any:
        held_back: list[None] = []
        taken = self._real.broker.take(
            worker,
            queues,
            limit,
            request,
            suspects=suspects,
            together=together,
            on_held_back=lambda: held_back.append(None),
        )
        for index, expected in enumerate(call.answer[: len(taken)]):
            self._tokens[worker, expected.token] = taken[index].token
            taken[index] = structs.replace(taken[index], token=expected.token)
        return taken, bool(held_back)

    def _reclaim(
        self,
        call: Call,
        worker: str,
        held: Collection[str],
        request: int,
        ended: Collection[str],
    ) -> Any:
        known, over = (
            {self._token(worker, token) for token in tokens} for tokens in (held, ended)
        )
        return self._request("reclaim", worker, known, request, over)

    def _settle(
        self,
        call: Call,
        worker: str,
        acts: Sequence[Act],
        sends: Sequence[Outgoing],
        request: int,
    ) -> Any:
        real_acts = [self._act(worker, act) for act in acts]
        return self._request("settle", worker, real_acts, sends, request)

    def _act(self, worker: str, act: Act) -> Act:
        token = self._token(worker, act.delivery.token)
        return structs.replace(act, delivery=structs.replace(act.delivery, token=token))

    def _token(self, worker: str, token: str) -> str:
        return self._tokens.get((worker, token), token)
