"""What is told of an entry: a case for each rule of docs/alerts.md."""

from collections.abc import Collection, Sequence

import pytest

from beatd.alerts.event import Event
from beatd.alerts.state import Seen
from beatd.alerts.watch import LOOK, MOST_OF_ENTRY, REFUSED, Watch
from beatd.config.alert_rules import AlertRules
from beatd.ids import run_id
from beatd.instant import HOUR, MINUTE, SECOND, Instant, Span
from beatd.timetable.pages import Record, What
from tests.alerts.making import dropped, kinds, sent, watch
from tests.fakes import NOON


def look(
    found: Watch,
    states: Sequence[str],
    *,
    after: Span = LOOK,
    held: bool | None = None,
    waiting: bool = False,
) -> list[Event]:
    """Look at the runs of `tick`, in the order of their slots, with these states."""
    runs = sorted(found.states["tick"].runs, key=lambda one: one.slot)
    ids = [found.id_of("tick", run) for run in runs]
    now = max(run.sent for run in runs) + after
    told = {id: state for id, state in zip(ids, states, strict=False) if state}
    holders: Collection[str] | None = None if held is None else ids if held else ()
    why = {id: "ValueError('no')" for id, state in told.items() if state == "FAILURE"}
    return [*found.look(Seen(told, holders, ids if waiting else (), why), now)]


def ends(found: Watch, *states: str, first: Instant = NOON) -> list[Event]:
    """Send a slot and have it end, once for each state."""
    events: list[Event] = []
    for number, state in enumerate(states):
        events += found.take("tick", sent(first + number * MINUTE))
        events += look(found, [state])
    return events


# late --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("late", "offset", "told"),
    [
        pytest.param(10_000, 0, [], id="as late as it may be"),
        pytest.param(10_001, 0, ["late"], id="later"),
        pytest.param(25_000, 15_000, [], id="its jitter is no lateness"),
        pytest.param(25_001, 15_000, ["late"], id="later than with its jitter"),
    ],
)
def test_late_is_what_is_sent_later_than_max_late(
    late: Span, offset: Span, told: list[str]
) -> None:
    found = watch({"tick": offset}, max_late=10)

    assert kinds([*found.take("tick", sent(NOON, late))]) == told


def test_late_is_told_once_until_a_slot_is_sent_in_time() -> None:
    found = watch(max_late=10)
    lates = [11, 12, 3, 11]

    told = [
        kinds([*found.take("tick", sent(NOON + at * MINUTE, late * SECOND))])
        for at, late in enumerate(lates)
    ]

    assert told == [["late"], [], [], ["late"]]


def test_late_says_how_late_it_was() -> None:
    [event] = watch(max_late=10).take("tick", sent(NOON, 27_900))

    assert event.line == (
        "tick: slot 15 Jan 12:00:00 UTC was sent 27.9 s late; max_late is 10 s"
    )
    assert (event.slot, event.at) == (NOON, NOON + 27_900)


# missed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("misfire", ["missed"]),
        ("coalesced", ["missed"]),
        ("overlap", ["missed"]),
        ("unroutable", ["missed"]),
        ("paused", []),
        ("replaced", []),
        ("nothing", []),
    ],
)
def test_missed_is_what_is_not_sent_and_nobody_wanted_that(
    why: str, told: list[str]
) -> None:
    assert kinds([*watch().take("tick", dropped(NOON, why))]) == told


def test_missed_is_told_once_until_a_slot_is_sent() -> None:
    found = watch()
    records = [
        dropped(NOON, "misfire", NOON + MINUTE),
        dropped(NOON + 2 * MINUTE, "misfire"),
        sent(NOON + 3 * MINUTE),
        dropped(NOON + 4 * MINUTE, "overlap"),
    ]

    told = [[event.words for event in found.take("tick", one)] for one in records]

    assert told == [
        [
            "2 slots from 15 Jan 12:00:00 UTC to 15 Jan 12:01:00 UTC were not sent:"
            " misfire"
        ],
        [],
        [],
        ["slot 15 Jan 12:04:00 UTC was not sent: overlap"],
    ]


def test_what_the_broker_lost_is_missed() -> None:
    [event] = watch().take("tick", Record(NOON, 0, What.UNCERTAIN))

    assert (event.kind, "the broker lost" in event.words) == ("missed", True)


def test_what_is_refused_is_missed_once_until_it_is_accepted() -> None:
    found = watch()
    told = [
        kinds([*found.refused(reasons, NOON)])
        for reasons in ({"tick": "too large"}, {"tick": "too large"}, {}, {"tick": "x"})
    ]

    assert told == [["missed"], [], [], ["missed"]]
    assert found.states["tick"].said == [REFUSED]


# failed, recovered -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "states", "told"),
    [
        (1, "F", ["failed"]),
        (1, "FF", ["failed"]),
        (3, "FF", []),
        (3, "FFF", ["failed"]),
        (3, "FFSF", []),
        (3, "FFRF", ["failed"]),  # one that was cancelled does not count
        (2, "FFS", ["failed", "recovered"]),
        (2, "FS", []),
        (1, "FSSF", ["failed", "recovered", "failed"]),
        (1, "FR", ["failed"]),
        (1, "S", []),
        (1, "R", []),
    ],
)
def test_failed_is_told_after_so_many_failures_in_a_row(
    failures: int, states: str, told: list[str]
) -> None:
    words = {"F": "FAILURE", "S": "SUCCESS", "R": "REVOKED"}
    found = watch(failures=failures)

    events = ends(found, *(words[one] for one in states))

    assert kinds([event for event in events if event.is_alert]) == told


def test_failed_says_which_run_and_how_many() -> None:
    events = ends(watch(failures=2), "FAILURE", "FAILURE")

    assert events[-1].words == (
        "the run of slot 15 Jan 12:01:00 UTC failed, the 2nd in a row: ValueError('no')"
    )
    assert events[-1].reason == "ValueError('no')"
    assert events[-1].run == run_id("test", "tick", 0, NOON + MINUTE)
    assert events[-1].number == 2


def test_an_entry_that_is_well_takes_no_room() -> None:
    found = watch()

    ends(found, "FAILURE", "SUCCESS")

    assert (found.states, found.open) == ({}, 0)
    assert found.changed == {"tick"}


def test_a_run_that_is_told_twice_counts_once() -> None:
    found = watch(failures=2)
    for _ in range(2):
        assert [*found.take("tick", sent(NOON))] == []

    assert look(found, ["FAILURE"])[0].number == 1
    assert found.open == 0


def test_a_state_that_is_no_end_is_asked_for_again_and_more_seldom() -> None:
    found = watch()
    assert [*found.take("tick", sent(NOON))] == []

    asked = []
    for second in range(600):
        now = NOON + second * SECOND
        if [*found.to_ask(now)]:
            asked.append(second)
            assert [*found.look(Seen({}), now)] == []

    assert asked[:4] == [0, 5, 10, 15]
    assert len(asked) < 25


def test_runs_that_nobody_tells_of_are_given_up_and_named() -> None:
    found = watch()
    for number in range(MOST_OF_ENTRY + 2):
        assert [*found.take("tick", sent(NOON + number * MINUTE))] == []

    assert (found.open, found.unknown) == (MOST_OF_ENTRY, {"tick"})


# not_taken, too_long -----------------------------------------------------------------


def test_not_taken_is_told_once_its_message_lies_in_its_queue_for_max_wait() -> None:
    found = watch(max_wait=60)
    assert [*found.take("tick", sent(NOON))] == []

    assert look(found, [""], after=59 * SECOND, waiting=True) == []
    [event] = look(found, [""], after=70 * SECOND, waiting=True)
    assert look(found, [""], after=200 * SECOND, waiting=True) == []

    assert event.kind == "not_taken"
    assert event.words == (
        "nobody has taken the message of slot 15 Jan 12:00:00 UTC for 1m 10s;"
        " max_wait is 60 s"
    )
    assert kinds(look(found, ["SUCCESS"], after=HOUR)) == ["ended", "recovered"]


def test_what_is_not_in_its_queue_is_not_told_as_not_taken() -> None:
    found = watch(max_wait=60)
    assert [*found.take("tick", sent(NOON))] == []

    assert look(found, [""], after=HOUR) == []


@pytest.mark.parametrize("state", ["", "STARTED"])
def test_too_long_counts_from_when_a_worker_was_seen_with_it(state: str) -> None:
    found = watch(max_run=60)
    assert [*found.take("tick", sent(NOON))] == []
    assert look(found, [""], after=HOUR, held=False, waiting=True) == []

    is_held = not state
    assert look(found, [state], after=2 * HOUR, held=is_held) == []
    assert look(found, [state], after=2 * HOUR + 59 * SECOND, held=is_held) == []
    [event] = look(found, [state], after=2 * HOUR + 90 * SECOND, held=is_held)
    assert look(found, [state], after=3 * HOUR, held=is_held) == []

    assert event.words == (
        "the run of slot 15 Jan 12:00:00 UTC goes on for 1m 30s; max_run is 60 s"
    )
    assert kinds(look(found, ["FAILURE"], after=4 * HOUR)) == ["failed"]


def test_a_run_that_no_worker_holds_any_more_has_ended_somehow() -> None:
    found = watch(max_run=60)
    assert [*found.take("tick", sent(NOON))] == []
    look(found, [""], held=True)

    for hours in (1, 2):
        assert look(found, [""], after=hours * HOUR, held=False) == []

    assert (found.open, found.unknown) == (0, {"tick"})


# What rules want ---------------------------------------------------------------------


def test_only_the_kinds_that_are_wanted_are_told() -> None:
    found = watch(on=["failed"], max_late=1)

    assert [*found.take("tick", sent(NOON, MINUTE))] == []
    assert [*found.take("tick", dropped(NOON + MINUTE, "misfire"))] == []
    assert kinds(look(found, ["FAILURE"], after=HOUR)) == ["failed"]


def test_nothing_is_told_of_an_entry_without_a_rule() -> None:
    found = watch()
    found.rules = AlertRules()

    assert [*found.take("tick", sent(NOON, HOUR))] == []
    assert (found.states, found.open) == ({}, 0)


def test_a_dead_mans_switch_is_told_of_each_run() -> None:
    found = watch(ping="https://hc.example/secret", failures=2)

    events = ends(found, "SUCCESS", "FAILURE", "FAILURE", "FAILURE", "SUCCESS")

    assert kinds(events) == [
        *("started", "ended"),
        *("started", "ended"),  # the first failure is no alert yet
        *("started", "failed"),
        *("started", "failing"),
        *("started", "ended", "recovered"),
    ]


def test_without_results_a_dead_mans_switch_is_told_what_is_sent() -> None:
    found = watch(ping="https://hc.example/secret")
    found.knows_ends = False

    [event] = found.take("tick", sent(NOON))

    assert (event.kind, found.open) == ("ended", 0)
    assert "how it ends is not known" in event.words


# pause_after_failures ----------------------------------------------------------------


def test_an_entry_is_paused_after_so_many_failures() -> None:
    found = watch(failures=1, pause_after_failures=3)

    events = ends(found, *["FAILURE"] * 4)

    assert kinds(events) == ["failed", "failing", "failing", "paused", "failing"]
    why = "3 failures in a row, the last one of slot 15 Jan 12:02:00 UTC"
    assert events[3].words == f"it is paused until `beatd resume`: {why}"
    assert events[3].reason == why
    assert found.paused() == ["tick"]


def test_the_count_begins_anew_once_an_entry_is_resumed() -> None:
    found = watch(failures=9, pause_after_failures=2)
    ends(found, "FAILURE", "FAILURE")

    found.resumed("tick")

    assert found.states == {}
    later = NOON + HOUR
    assert kinds(ends(found, "FAILURE", "FAILURE", first=later)) == [
        *("ended", "ended", "paused")
    ]
