"""Histories of faults, an hour each: every slot comes to the queues once."""

import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from beatd.brokers.items import Acknowledge
from beatd.instant import HOUR, MINUTE, SECOND
from tests.brokers.making import outgoing
from tests.simulation.checker import Evidence, Far, Rewind, judge, slots_of
from tests.simulation.faults import OF_WORKERS, YEAR, Kind
from tests.simulation.mutations import MUTATIONS, RIGHT_CLOCKS, SEARCHED, without
from tests.simulation.network import Network, Server
from tests.simulation.plan import Fact
from tests.simulation.run import Result, simulate
from tests.simulation.world import World

HOURS = 300
DENSE = 180
PART = 20
"""Histories in one test, so that all processes of a run have their share."""

SMALL_GAPS = (15 * SECOND,)
"""A third of an hour with faults so close to one another shows what a whole hour with
the usual ones does: of the seeds, as many miss a part that is taken out."""

CLOCKS = {Kind.STEP, Kind.AHEAD, Kind.FAR}

KNOWING_BROKER = RIGHT_CLOCKS | CLOCKS
"""Whatever clocks show and hosts forget, the broker has its ledger."""

BEGIN = 1_800_000_000_000


@pytest.mark.parametrize("first", range(0, HOURS, PART))
def test_each_slot_comes_once_whatever_the_seed_draws(first: int) -> None:
    # Without another process, for an error of the simulation shows here as it is.
    seeds = range(first, first + PART)
    results = [simulate(seed, HOUR, KNOWING_BROKER) for seed in seeds]

    _each_slot_came_once(results, 500)


@pytest.mark.promise
@pytest.mark.parametrize("first", range(0, DENSE, PART))
def test_each_slot_comes_once_where_faults_are_dense(first: int) -> None:
    seeds = range(first, first + PART)
    results = [
        simulate(seed, HOUR // 3, KNOWING_BROKER, gaps=SMALL_GAPS) for seed in seeds
    ]

    _each_slot_came_once(results, 150)


def _each_slot_came_once(results: Sequence[Result], slots: int) -> None:
    wrong = [result for result in results if result.verdict.wrong]
    assert not wrong, "\n".join(map(str, wrong))
    assert sum(result.verdict.slots for result in results) > len(results) * slots
    assert {kind for result in results for kind in result.drawn} >= KNOWING_BROKER
    # Nothing is in doubt while the broker keeps what it was told.
    assert not any(result.verdict.uncertain for result in results)


@pytest.mark.parametrize("first", range(0, 8, 4))
def test_each_message_runs_whatever_befalls_workers(first: int) -> None:
    kinds = RIGHT_CLOCKS | OF_WORKERS
    results = [simulate(seed, HOUR // 2, kinds) for seed in range(first, first + 4)]

    wrong = [result for result in results if result.verdict.wrong]
    assert not wrong, "\n".join(map(str, wrong))
    assert all(result.verdict.runs > 500 for result in results)
    assert {kind for result in results for kind in result.drawn} >= OF_WORKERS
    # The broker lost nothing.
    assert not any(result.verdict.gone for result in results)


@pytest.mark.parametrize("seed", range(2))
def test_workers_outlive_a_broker_that_loses_its_data(seed: int) -> None:
    kinds = OF_WORKERS | {Kind.EMPTIED, Kind.SET_BACK}

    result = simulate(seed, HOUR // 2, kinds)

    assert not result.verdict.wrong, result


CLOCKS_AND_LOSSES = CLOCKS | {
    Kind.EMPTIED,
    Kind.SET_BACK,
    Kind.CRASH,
    Kind.PAUSE,
    Kind.DEPLOY,
}


@pytest.mark.parametrize("seed", range(20))
def test_what_a_broker_loses_is_named_whatever_the_clocks_show(seed: int) -> None:
    result = simulate(seed, HOUR // 2, CLOCKS_AND_LOSSES)

    assert not result.verdict.wrong, result


@pytest.mark.parametrize("part", MUTATIONS)
@pytest.mark.filterwarnings("default:seed:UserWarning")
def test_a_part_that_is_taken_out_is_missed(part: str) -> None:
    hint, kinds = MUTATIONS[part].hint, MUTATIONS[part].kinds

    def wrong_of(seed: int) -> Sequence[str]:
        return simulate(seed, HOUR // 4, kinds).verdict.wrong

    with without(part):
        found = next(filter(wrong_of, range(hint, hint + SEARCHED)), None)

    assert found is not None, f"no seed misses {part}: {hint} to {hint + SEARCHED - 1}"
    if found != hint:
        warnings.warn(f"seed {found} finds {part}, no longer {hint}", stacklevel=1)
    assert not wrong_of(found)


def test_a_broker_is_set_back_to_a_ledger() -> None:
    # Without one it is emptied, and that is a fault of its own.
    found: list[bool] = []

    def note(network: Network) -> None:
        set_back = network.server.set_back

        def set_back_noted(data: Mapping[str, Any]) -> None:
            set_back(data)
            found.append(bool(network.server.read_ledger().edition.lineage))

        network.server.set_back = set_back_noted  # type: ignore[method-assign]

    for seed in range(20):
        simulate(seed, HOUR // 6, {Kind.SET_BACK}, on_network=note)

    assert found
    assert all(found)


def test_a_seed_always_has_the_same_history() -> None:
    once, again, other = (simulate(seed, HOUR, RIGHT_CLOCKS) for seed in (7, 7, 8))

    assert _trace(once) == _trace(again)
    assert _trace(once) != _trace(other)


def test_a_seed_with_workers_always_has_the_same_calls() -> None:
    once, again, other = _calls_of(7), _calls_of(7), _calls_of(8)

    assert once == again
    assert once != other
    assert {"take", "settle", "stay", "emit"} <= {call[1] for call in once}


def _calls_of(seed: int) -> Sequence[tuple[object, ...]]:
    """Return what the broker did when and for whom, with every kind of fault."""
    calls: list[tuple[object, ...]] = []

    def note(network: Network) -> None:
        execute = network.execute

        def execute_noted(name: str, *args: Any, **named: Any) -> Any:
            # Workers, holders, requests' numbers; other things have no name.
            words = [one for one in args if isinstance(one, str | int)]
            calls.append((network.world.now, name, *words))
            return execute(name, *args, **named)

        network.execute = execute_noted

    simulate(seed, HOUR // 4, on_network=note)
    return calls


def _trace(result: Result) -> object:
    return result.drawn, result.verdict


def verdict_on(queued: Sequence[int], *, coalesce: bool = False) -> Sequence[str]:
    """Return what is wrong when these minutes of ten were queued, each in time."""
    slots = [BEGIN + minute * MINUTE for minute in queued]
    fact = Fact("tick", every=MINUTE, coalesce=coalesce)
    came = [(slot, message(slot, "one"), slot) for slot in slots]
    found = judge(Evidence(BEGIN, BEGIN + 10 * MINUTE, [fact], came, ()))
    return [words.partition(":")[0] for words in found.wrong]


def instant(minute: float) -> int:
    return BEGIN + round(minute * MINUTE)


def message(slot: int, task_id: str) -> bytes:
    named = datetime.fromtimestamp(slot / 1000, UTC).isoformat()
    headers = {"beatd_entry": "tick", "beatd_slot": named, "id": task_id}
    return json.dumps({"headers": headers}).encode()


def test_the_checker_sees_what_is_wrong() -> None:
    assert verdict_on(range(1, 10)) == []
    assert verdict_on([1, 2, 3, 5, 6, 7, 8]) == ["lost"]
    # Nothing was wrong that could have made it late.
    assert verdict_on([1, 2, 3, 5, 6, 7, 8], coalesce=True) == ["lost"]
    assert verdict_on([*range(1, 10), 4]) == ["doubled"]


def test_the_server_notes_an_act_that_is_done_to_another_message() -> None:
    server = Server(World(0, BEGIN))
    server.send([outgoing(b"1"), outgoing(b"2"), outgoing(b"3")])
    server.join("w", MINUTE)
    one, two, three = server.take("w", ["celery"], 3, 1)

    mistaken = structs.replace(one, token=two.token)
    server.settle("w", [Acknowledge(mistaken), Acknowledge(three)], [], 1)

    assert server.mistaken == [(BEGIN, "Acknowledge", b"1")]


def test_the_checker_allows_one_run_more_for_each_uncertain_slot() -> None:
    slots = [instant(minute) for minute in range(1, 5)]
    fact = Fact("tick", every=MINUTE, coalesce=False, max_runs=2)
    came = [(slot, message(slot, "one"), slot) for slot in slots]

    def wrong_of(*uncertain: int) -> int:
        named = {("tick", slot) for slot in uncertain}
        evidence = Evidence(BEGIN, instant(10), [fact], came, (), uncertain=named)
        return len(judge(evidence).wrong)

    assert wrong_of() == wrong_of(slots[0]) == 1
    assert wrong_of(*slots[:2]) == 0


def verdict_of_clocks(
    queued: Sequence[tuple[float, int]],
    *,
    rewound: Sequence[tuple[float, float, float]],
    far: Sequence[tuple[float, float]] = (),
) -> Sequence[str]:
    """Return what is wrong with slots that came at these minutes, each time anew.

    The ledger was set back at a minute, to a minute, from a minute.
    """
    came = [
        (instant(at), message(instant(slot), f"{number}"), instant(at))
        for number, (at, slot) in enumerate(queued)
    ]
    evidence = Evidence(
        BEGIN,
        instant(10),
        [Fact("tick", every=MINUTE, coalesce=False)],
        came,
        troubles=[(BEGIN, instant(10))],
        rewound=[Rewind(*map(instant, one)) for one in rewound],
        far=[Far(instant(first), instant(last), 70 * YEAR) for first, last in far],
    )
    return judge(evidence).wrong


def test_the_checker_excuses_what_a_far_year_made_overdue_and_nothing_else() -> None:
    in_time = [(slot, slot) for slot in (1, 2, 3, 4, 7, 8)]
    far = [(4.5, 4.6)]

    assert verdict_of_clocks(in_time, far=far, rewound=[(6.2, 6.1, 999)]) == []
    # Set back to an instant before the slot, it is to come.
    for to in (5.5, 4.5):
        lost = verdict_of_clocks(in_time, far=far, rewound=[(6.2, to, 999)])
        assert [words.partition(",")[0] for words in lost][-1:] == [
            "lost: tick 01-15T08:06:00.000Z"
        ]
        assert len(lost) == (1 if to == 5.5 else 2)
    # One that another slot came after was not overdue any more.
    earlier = [(slot, slot) for slot in (1, 2, 4, 7, 8)]
    assert len(verdict_of_clocks(earlier, far=far, rewound=[(6.2, 6.1, 999)])) == 1
    # It had gone on already when the ledger was set back.
    assert len(verdict_of_clocks(in_time, far=far, rewound=[(7.2, 7.1, 999)])) == 2


def test_the_checker_wants_a_rewind_for_each_time_that_a_slot_comes_again() -> None:
    first = [(slot, slot) for slot in (1, 2, 3, 4, 5)]
    rest = [(slot, slot) for slot in (6, 7, 8)]
    again = [*first, (5.5, 4), (5.6, 5), *rest]

    assert verdict_of_clocks(again, rewound=[(5.4, 3.5, 5)]) == []
    for rewind, doubled in {
        (3.5, 3.5, 5): 2,  # said before both had come
        (5.55, 3.5, 5): 1,  # said after one had come again
        (5.4, 3.5, 4): 1,  # not from the last one
        (5.4, 4.5, 5): 2,  # to where nothing is to do before the one that came last
    }.items():
        assert len(verdict_of_clocks(again, rewound=[rewind])) == doubled
    thrice = [*first, (5.5, 4), (5.6, 5), (5.7, 5), *rest]
    assert len(verdict_of_clocks(thrice, rewound=[(5.4, 3.5, 5)])) == 1


def test_the_checker_knows_what_a_far_year_names() -> None:
    in_time = [(slot, slot) for slot in (1, 2, 3, 4, 5, 6, 7, 8)]
    far, named = [(4.5, 4.6)], 70 * YEAR // MINUTE + 4

    assert verdict_of_clocks([*in_time, (4.55, named)], far=far, rewound=[]) == []
    for wrong in ((4.4, named), (4.55, named + 1)):
        assert len(verdict_of_clocks([*in_time, wrong], far=far, rewound=[])) == 1


@pytest.mark.parametrize(
    ("fact", "day", "minutes"),
    [
        # At 01:00 UTC Paris goes from 02:00 to 03:00, in autumn from 03:00 to 02:00.
        (Fact("x", minutes=[30], hour=2, zone="Europe/Paris"), "2027-03-28", [60]),
        (Fact("x", minutes=[30], hour=2, zone="Europe/Paris"), "2027-10-31", [30]),
        (
            Fact("x", minutes=[0, 30], zone="Europe/Paris"),
            "2027-10-31",
            [0, 30, 60, 90],
        ),
        (Fact("x", every=40 * MINUTE, offset=MINUTE), "2027-10-31", [1, 41, 81]),
    ],
)
def test_the_checker_knows_what_clock_changes_do(
    fact: Fact, day: str, minutes: list[int]
) -> None:
    begin = round(datetime.fromisoformat(f"{day}T00:00Z").timestamp() * 1000)

    assert slots_of(fact, begin, begin + 2 * HOUR) == [
        begin + minute * MINUTE for minute in minutes
    ]
