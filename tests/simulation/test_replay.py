"""Redis and SQLite answer each call of a simulation as memory does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import pytest

from beatd.brokers.redis.requests import script
from beatd.brokers.sqlite import SQL
from beatd.instant import HOUR
from tests.servers import Server
from tests.simulation.faults import Kind
from tests.simulation.record import Call
from tests.simulation.replay import record, replayed_on_redis, replayed_on_sqlite

ALL = frozenset(Kind)
"""With workers; most calls are their heartbeats."""

LEADS = frozenset({Kind.FLAKY, Kind.SLOW, Kind.SET_BACK})
"""Without workers; the lead goes from one scheduler to another all the time."""

SEEDS = {ALL: range(3), LEADS: range(7)}

TRIES = 30
"""So many seeds are tried until one shows that a part is missing."""


@lru_cache(maxsize=6)  # a history is large, and the first ones are asked for most
def calls_of(seed: int, kinds: frozenset[Kind]) -> Sequence[Call]:
    """Return the calls of a quarter of an hour."""
    return record(seed, HOUR // 4, kinds)[1]


def param(name: str, kinds: frozenset[Kind], *values: Any) -> Any:
    """Return a case for the process that has recorded calls with these faults."""
    group = pytest.mark.xdist_group(f"replay of {len(kinds)} kinds of faults")
    return pytest.param(*values, marks=group, id=name)


@pytest.mark.parametrize(
    ("kinds", "seed"),
    [
        param(f"{len(kinds)} kinds, {seed}", kinds, kinds, seed)
        for kinds, seeds in SEEDS.items()
        for seed in seeds
    ],
)
def test_redis_and_sqlite_answer_as_memory_does(
    kinds: frozenset[Kind], seed: int, server: Server
) -> None:
    calls = calls_of(seed, kinds)

    assert len(calls) > 500
    assert replayed_on_redis(calls, server) == ""
    assert replayed_on_sqlite(calls) == ""


class Change(NamedTuple):
    """A part of a script or a statement that is taken out."""

    kinds: frozenset[Kind]
    """With these faults its absence shows."""
    name: str
    part: str
    instead: str
    hint: int = 0
    """The first seed to try."""

    def seeds(self) -> Iterator[int]:
        """Yield all seeds to try, beginning with the one that showed it of late."""
        return chain(range(self.hint, TRIES), range(self.hint))


TERM = "not leads(KEYS[1], ARGV[1])"

LUA = {
    "a term that is over emits": Change(LEADS, "emit", TERM, "false"),
    "a term that is over writes": Change(LEADS, "write_ledger", TERM, "false"),
    "a term that is over is renewed": Change(LEADS, "renew", TERM, "false"),
    "a term that is over gives the lead back": Change(
        LEADS, "resign", "leads(KEYS[1], ARGV[1])", "true"
    ),
    "a ledger that was set back is written to": Change(
        LEADS, "emit", "edition ~= before and edition ~= after", "false"
    ),
    "a slot is emitted again": Change(LEADS, "emit", "last >= slot", "false", 9),
    "an emission does not renew the lead": Change(
        LEADS, "emit", "call('PEXPIRE', KEYS[1], ARGV[2])", ""
    ),
    "what was settled is settled again": Change(
        ALL, "settle", "last and request <= tonumber(last)", "false"
    ),
    "what is not in flight is done": Change(
        ALL,
        "settle",
        "redis.call('HDEL', KEYS[1], token, begun(token)) == 0",
        "redis.call('HDEL', KEYS[1], token, begun(token)) < 0",
    ),
    "a run that began is forgotten": Change(
        ALL, "settle", "redis.call('HSET', KEYS[1], begun(token)", "tostring((token)"
    ),
    "a late request takes": Change(ALL, "take", "request < last", "false", 25),
    "a request takes again": Change(ALL, "take", "request == last", "false"),
    "a death is not counted": Change(
        ALL, "leave", "redis.pcall('HINCRBY', KEYS[4], digest, 1)", "0", 7
    ),
    "what was just taken goes back": Change(
        ALL, "reclaim", "request >= tonumber(ARGV[2])", "false"
    ),
    "a lease does not run out": Change(
        ALL, "doubtful_leases", "'-inf', now", "'-inf', 0"
    ),
    "a lease that is over goes on": Change(
        ALL, "stay", "not redis.call('ZSCORE', KEYS[1], ARGV[1])", "false"
    ),
}

STATEMENTS = {
    "a slot is emitted again": Change(
        LEADS, "advance", "excluded.slot > ledger.slot", "true", 9
    ),
    "a lease that is over goes on": Change(ALL, "stay", "AND lease > 0", ""),
    "a death is not counted": Change(ALL, "count_death", "deaths + 1", "deaths", 7),
}


@pytest.mark.parametrize(
    "change", [param(name, change.kinds, change) for name, change in LUA.items()]
)
def test_a_part_that_is_taken_out_of_a_script_is_missed(
    change: Change, server: Server
) -> None:
    assert change.part in script(change.name)[0]
    changes = {change.name: (change.part, change.instead)}

    assert any(
        replayed_on_redis(calls_of(seed, change.kinds), server, changes)
        for seed in change.seeds()
    )


@pytest.mark.parametrize(
    "change", [param(name, change.kinds, change) for name, change in STATEMENTS.items()]
)
def test_a_part_that_is_taken_out_of_a_statement_is_missed(change: Change) -> None:
    with changed(change):
        assert any(
            replayed_on_sqlite(calls_of(seed, change.kinds)) for seed in change.seeds()
        )


@contextmanager
def changed(change: Change) -> Iterator[None]:
    """Change a statement for a while."""
    before = SQL[change.name]
    assert change.part in before
    SQL[change.name] = before.replace(change.part, change.instead)
    try:
        yield
    finally:
        SQL[change.name] = before
