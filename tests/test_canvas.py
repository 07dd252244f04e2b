"""Signatures as the calls that they stand for."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from beatd.errors import MessageError
from beatd.message import Canvas, Sending, awaited, doomed


def task(name: str, *args: Any, **options: Any) -> dict[str, Any]:
    return {
        "task": name,
        "args": list(args),
        "kwargs": {},
        "options": options,
        "subtask_type": None,
        "immutable": False,
    }


def chain(*steps: Any, **options: Any) -> dict[str, Any]:
    own = task("celery.chain", **options)
    return {**own, "kwargs": {"tasks": list(steps)}, "subtask_type": "chain"}


def group(*members: Any, **options: Any) -> dict[str, Any]:
    own = task("celery.group", **options)
    return {**own, "kwargs": {"tasks": list(members)}, "subtask_type": "group"}


def chord(header: list[Any], body: Any, **options: Any) -> dict[str, Any]:
    own = task("celery.chord", **options)
    kwargs = {"header": header, "body": body, "kwargs": {}}
    return {**own, "kwargs": kwargs, "subtask_type": "chord"}


def sent(signature: Mapping[str, Any], *values: Any, **options: Any) -> Canvas:
    """Return the canvas with this on it; ids are drawn in order."""
    numbers = itertools.count(1)
    canvas = Canvas(lambda: f"id-{next(numbers)}", root_id="root", parent_id="parent")
    canvas.add(signature, values, **options)
    return canvas


def calls(canvas: Canvas) -> list[tuple[Any, ...]]:
    return [(one.task, *one.args) for one in canvas.sends]


def only(canvas: Canvas) -> Sending:
    (sending,) = canvas.sends
    return sending


# Tasks


def test_a_call_gets_the_values_in_front_of_its_arguments() -> None:
    sending = only(sent(task("a", "own", queue="low"), 42))

    assert (sending.task, sending.args) == ("a", (42, "own"))
    assert sending.options == {
        "queue": "low",
        "root_id": "root",
        "parent_id": "parent",
        "task_id": "id-1",
    }


def test_an_immutable_call_gets_its_own_arguments_only() -> None:
    assert calls(sent({**task("a", "own"), "immutable": True}, 42)) == [("a", "own")]


def test_a_call_keeps_its_id_and_its_group() -> None:
    own = task("a", task_id="mine", group_id="g")

    canvas = sent(own, group_id="another")

    assert only(canvas).options["task_id"] == "mine"
    assert only(canvas).options["group_id"] == "g"
    assert canvas.results == [[["mine", None], None]]


# Chains


def test_the_first_step_of_a_chain_carries_the_rest_the_next_one_last() -> None:
    canvas = sent(chain(task("a"), task("b"), task("c")), 1)

    sending = only(canvas)
    assert (sending.task, sending.args) == ("a", (1,))
    assert [step["task"] for step in sending.options["chain"]] == ["c", "b"]
    ids = [step["options"]["task_id"] for step in sending.options["chain"]]
    assert None not in ids, "whoever waits for a step that is never sent is told so"


def test_a_chain_within_a_chain_is_part_of_it() -> None:
    canvas = sent(chain(chain(task("a"), task("b")), task("c")), chain=[task("d")])

    rest = only(canvas).options["chain"]
    assert [step["task"] for step in rest] == ["d", "c", "b"]


def test_links_of_a_chain_are_its_last_steps_and_its_errbacks_every_ones() -> None:
    canvas = sent(chain(task("a"), task("b"), link=task("l"), link_error=[task("e")]))

    first, (last,) = only(canvas).options, only(canvas).options["chain"]
    assert "link" not in first
    assert [one["task"] for one in last["options"]["link"]] == ["l"]
    for options in (first, last["options"]):
        assert [one["task"] for one in options["link_error"]] == ["e"]


def test_the_id_of_a_chain_is_its_last_steps() -> None:
    (last,) = only(sent(chain(task("a"), task("b"), task_id="mine"))).options["chain"]

    assert last["options"]["task_id"] == "mine"


def test_a_group_in_a_chain_becomes_the_header_of_what_follows() -> None:
    canvas = sent(chain(group(task("a"), task("b")), task("c"), task("d")), 1)

    assert calls(canvas) == [("a", 1), ("b", 1)]
    (begun,) = canvas.chords
    assert (begun.size, begun.shape) == (2, None)
    for index, sending in enumerate(canvas.sends):
        body = sending.options["chord"]
        assert body["task"] == "c"
        assert [step["task"] for step in body["options"]["chain"]] == ["d"]
        assert sending.options["group_id"] == begun.group
        assert sending.options["group_index"] == index
        assert "chain" not in sending.options


def test_empty_groups_and_groups_of_one_are_no_chords() -> None:
    canvas = sent(chain(group(), group(task("a")), task("b")), 1)

    assert calls(canvas) == [("a", 1)]
    assert canvas.chords == []


def test_an_empty_group_is_left_out_of_a_chain_unless_it_is_all_there_is() -> None:
    canvas = sent(chain(group(task("a"), task("b")), group(), group()))

    assert calls(canvas) == [("a",), ("b",)]
    assert canvas.chords == []
    (((_, _), members),) = canvas.results
    assert len(members) == 2
    assert sent(chain(group())).results == [[["id-1", None], []]]


def test_what_follows_a_chord_gets_all_values_of_a_body_that_is_a_group() -> None:
    of_two = group(task("b"), task("c"))
    canvas = sent(chain(chord([task("a")], of_two), task("d"), task("e")))

    assert calls(canvas) == [("a",)]
    again = sent(only(canvas).options["chord"], [1])
    assert calls(again) == [("b", [1]), ("c", [1])]
    for sending in again.sends:
        assert sending.options["chord"]["task"] == "d"
        rest = sending.options["chord"]["options"]["chain"]
        assert [step["task"] for step in rest] == ["e"]
        assert "chain" not in sending.options


def test_an_empty_chain_sends_nothing() -> None:
    assert sent(chain()).sends == []


# Groups


def test_all_members_of_a_group_are_sent_with_its_id_and_their_places() -> None:
    canvas = sent(group(task("a"), group(task("b"), task("c"))), 1, chain=[task("d")])

    assert calls(canvas) == [("a", 1), ("b", 1), ("c", 1)]
    places = [
        (one.options["group_id"], one.options["group_index"]) for one in canvas.sends
    ]
    assert places == [("id-1", 0), ("id-1", 1), ("id-1", 2)]
    assert all(one.options["chain"] == [task("d")] for one in canvas.sends)
    assert canvas.results == [
        [["id-1", None], [[[f"id-{n}", None], None] for n in (2, 3, 4)]]
    ]


def test_the_id_of_a_group_may_be_given() -> None:
    canvas = sent(group(task("a"), task("b")), task_id="mine")

    assert [one.options["group_id"] for one in canvas.sends] == ["mine", "mine"]
    assert len({one.options["task_id"] for one in canvas.sends} | {"mine"}) == 3


# Chords


def test_a_group_with_errbacks_of_its_own_has_those_of_the_chord_too() -> None:
    body = {**group(task("b"), task("c")), "options": {"link_error": task("own")}}
    canvas = sent(chord([task("a")], body), link_error=[task("chords")])

    again = sent(only(canvas).options["chord"], [1])
    for sending in again.sends:
        names = [one["task"] for one in sending.options["link_error"]]
        assert names == ["own", "chords"]


def test_the_calls_of_a_header_carry_one_and_the_same_body() -> None:
    canvas = sent(chord([task("a"), task("b")], task("body", "own"), task_id="g"), 1)

    assert calls(canvas) == [("a", 1), ("b", 1)]
    first, second = (one.options for one in canvas.sends)
    assert first["chord"] == second["chord"]
    assert first["chord"]["options"]["task_id"]
    assert (first["group_id"], second["group_id"]) == ("g", "g")
    assert [(one.group, one.size) for one in canvas.chords] == [("g", 2)]


def test_calls_of_chords_that_begin_later_have_no_group_yet() -> None:
    later = chord([task("b"), task("c")], chord([task("d")], task("body")))
    first = only(sent(chain(task("a"), later)))

    (waiting,) = first.options["chain"]
    inner = waiting["kwargs"]["body"]
    for one in (*waiting["kwargs"]["header"], *inner["kwargs"]["header"]):
        assert one["options"].keys() == {"task_id", "group_index"}
    begun = sent(waiting, 1)
    assert {one.options["group_id"] for one in begun.sends} == {begun.chords[0].group}


def test_what_goes_with_a_chord_goes_with_its_body() -> None:
    own = chord([task("a")], task("body"), link=task("l"), queue="low")

    canvas = sent(own, chain=[task("next")])

    options = only(canvas).options
    body = options["chord"]["options"]
    assert body["chain"] == [task("next")]
    assert [one["task"] for one in body["link"]] == ["l"]
    assert (options["queue"], body["queue"]) == ("low", "low")
    assert {"chain", "link"}.isdisjoint(options)
    assert "parent_id" not in body, "that is who ends the header"


@pytest.mark.parametrize(
    "body",
    [
        chain(task("total"), task("last")),
        chord([task("total")], task("last")),
        chord([task("total")], chord([task("b")], task("last"))),
    ],
)
def test_a_body_of_several_calls_has_the_id_of_the_one_that_is_awaited(
    body: dict[str, Any],
) -> None:
    errback = task("told")
    canvas = sent(chord([task("a")], body), link_error=errback)

    carried = only(canvas).options["chord"]
    (last,) = awaited(carried)
    assert carried["options"]["task_id"] == last["options"]["task_id"]
    assert carried["options"]["link_error"] == [errback]


def test_the_header_of_such_a_body_keeps_its_ids_when_it_is_sent() -> None:
    inner = chord([task("total")], task("last"), task_id="inner")
    carried = only(sent(chord([task("a")], inner))).options["chord"]

    member = only(sent(carried))
    (held,) = carried["kwargs"]["header"]["kwargs"]["tasks"]
    assert member.options["group_id"] == "inner"
    assert member.options["task_id"] == held["options"]["task_id"]
    assert (
        member.options["chord"]["options"]["task_id"] == (carried["options"]["task_id"])
    )


def test_a_body_that_another_chord_counts_keeps_its_own_id() -> None:
    inner = chord([task("total")], task("last"), task_id="inner")
    around = chord([chord([task("a")], inner)], task("after"))

    carried = only(sent(around)).options["chord"]
    assert carried["options"]["task_id"] == "inner"


def test_a_chord_without_a_header_is_its_body() -> None:
    canvas = sent(chord([], task("body")), chain=[task("next")])

    assert calls(canvas) == [("body", [])]
    assert only(canvas).options["chain"] == [task("next")]
    assert canvas.chords == []


def test_the_last_step_of_a_chain_counts_for_the_chord_around_it() -> None:
    canvas = sent(chord([chain(task("a"), task("b")), task("c")], task("body")))

    (begun,) = canvas.chords
    chained, plain = (one.options for one in canvas.sends)
    assert begun.size == 2
    assert {"chord", "group_id"}.isdisjoint(chained)
    (last,) = chained["chain"]
    assert last["options"]["chord"]["task"] == plain["chord"]["task"] == "body"
    assert (last["options"]["group_id"], last["options"]["group_index"]) == (
        begun.group,
        0,
    )


def test_the_body_of_a_chord_counts_for_the_chord_around_it() -> None:
    canvas = sent(chord([chord([task("a")], task("inner"))], task("outer")))

    inner, outer = canvas.chords[1], canvas.chords[0]
    body = only(canvas).options["chord"]
    assert body["task"] == "inner"
    assert body["options"]["chord"]["task"] == "outer"
    assert body["options"]["group_id"] == outer.group
    assert only(canvas).options["group_id"] == inner.group
    assert (inner.size, outer.size) == (1, 1)


def test_a_header_with_groups_in_it_has_a_shape() -> None:
    within = chain(task("a"), group(task("b", task_id="b"), task("c", task_id="c")))
    canvas = sent(chord([within, task("d", task_id="d")], task("body"), task_id="g"))

    (begun,) = canvas.chords
    assert begun.size == 3
    assert begun.shape is not None
    (name, _), (inner, last) = begun.shape
    assert name == "g"
    assert inner[1] == [[["b", None], None], [["c", None], None]]
    assert last == [["d", None], None]


@pytest.mark.parametrize(
    "body", [chain(task("x"), task("y")), group(task("x"), task("y"))], ids=str
)
def test_a_body_may_stand_for_several_calls(body: dict[str, Any]) -> None:
    header = only(sent(chord([task("a")], body))).options["chord"]

    canvas = sent(header, [1])

    assert calls(canvas)[0] == ("x", [1])
    waited_for = [one["options"]["task_id"] for one in awaited(header)]
    last = [one.options["task_id"] for one in canvas.sends]
    chained = canvas.sends[0].options.get("chain") or []
    last = [one["options"]["task_id"] for one in chained] or last
    assert waited_for == last, "the ids are those that were told before"


# What is never sent


def test_all_that_is_waited_for_in_the_rest_of_a_chain_is_doomed() -> None:
    rest = [
        task("a", chain=[task("after")]),
        chord([task("header")], task("body")),
        group(task("b"), task("c")),
        chain(task("d"), task("e")),
    ]

    assert [one["task"] for one in doomed(rest)] == [
        *("a", "after", "body", "b", "c", "d", "e")
    ]


# What others wrote


@pytest.mark.parametrize(
    "signature",
    [
        chain(task("a"), 5),
        group("a"),
        {**group(), "kwargs": {"tasks": 7}},
        chord([task("a"), {}], task("body")),
        chord([task("a")], None),
        chain(task("a"), chord([task("b")], "c")),
    ],
    ids=str,
)
def test_what_is_no_signature_is_refused_and_awaited_by_nobody(
    signature: dict[str, Any],
) -> None:
    with pytest.raises(MessageError, match="expected"):
        sent(signature)

    assert list(awaited(signature)) == list(awaited(signature))
    assert {one["task"] for one in doomed([signature])} <= {"a", "b", "body"}
