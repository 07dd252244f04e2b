"""Calls that are made later, alone and put together: what users hold, and what is sent.

Their values, as workers find them: tests/wire/test_canvas.py.
"""

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from beatd import Beatd
from beatd.brokers.memory import MemoryBroker
from beatd.errors import ChordError, MessageError
from beatd.instant import HOUR
from beatd.message import Call, read_body, read_envelope
from beatd.results import encoding_of
from beatd.results.base import Meta, State
from beatd.results.disabled import NoResults
from beatd.tasks import (
    AsyncResult,
    GroupResult,
    Signature,
    StampingVisitor,
    Task,
    chain,
    chord,
    chunks,
    group,
    maybe_signature,
    signature,
    xmap,
)
from tests.fakes import FakeClock
from tests.worker.bench import FakeResults


class Wired:
    """An application in front of a broker and results in memory."""

    def __init__(self, **settings: Any) -> None:
        clock = FakeClock()
        self.broker = MemoryBroker(clock)
        self.app = Beatd("proj", clock=clock, set_as_current=False, **settings)
        self.results = FakeResults(encoding_of(self.app.settings))
        self.app.use(self.app.settings, self.broker, self.results)

    def sent(self) -> list[Call]:
        """Return the calls that lie on the queue, in order."""
        self.broker.join("reader", HOUR)
        return [
            read_body(read_envelope(one.message))
            for one in self.broker.take("reader", ["celery"], 99, 1)
        ]


@pytest.fixture
def wired() -> Wired:
    return Wired()


@pytest.fixture
def add(wired: Wired) -> Task[..., Any]:
    return wired.app.task(name="add")(plus)


@pytest.fixture
def eager() -> Iterator[Beatd]:
    app = Beatd("proj", set_as_current=False, task_always_eager=True)
    app.task(name="add")(plus)
    yield app
    app.close()


def plus(x: Any, y: Any = 0, z: Any = 0) -> Any:
    return x + y + z


def calls(wired: Wired) -> list[tuple[Any, ...]]:
    return [(call.envelope.task, *call.args) for call in wired.sent()]


# One call


def test_a_signature_is_the_dict_that_messages_carry(add: Task[..., Any]) -> None:
    assert add.s(1, y=2).set(countdown=9) == {
        "task": "add",
        "args": (1,),
        "kwargs": {"y": 2},
        "options": {"countdown": 9},
        "subtask_type": None,
        "immutable": False,
    }


def test_a_sent_signature_gets_what_is_added_before_its_own(
    wired: Wired, add: Task[..., Any]
) -> None:
    add.s(2).apply_async((1,), countdown=None, shadow="addition")
    add.si(5).delay(4)

    first, second = wired.sent()
    assert (first.args, first.envelope.shadow) == ([1, 2], "addition")
    assert second.args == [5]


def test_a_task_that_is_not_known_is_called_by_its_name(wired: Wired) -> None:
    wired.app.signature("elsewhere", (1,)).delay()

    assert calls(wired) == [("elsewhere", 1)]


def test_a_copy_is_changed_alone(add: Task[..., Any]) -> None:
    first = add.s(1).set(link=add.s(2))
    other = first.clone((0,), y=7, priority=5)
    other.link(add.s(3))
    other.kwargs["z"] = 1

    assert (first.args, first.kwargs) == ((1,), {})
    assert first.options == {"link": add.s(2)}
    assert (other.args, other.options["priority"]) == ((0, 1), 5)
    assert other.options["link"] == [add.s(2), add.s(3)]


def test_parts_are_replaced(add: Task[..., Any]) -> None:
    assert add.s(1).replace(args=(5,), options={"queue": "q"}) == add.s(5).set(
        queue="q"
    )


def test_stamps_and_the_group_are_not_overridden(add: Task[..., Any]) -> None:
    stamped = add.s(1).set(group_id="g", stamped_headers=["by"], by="me")

    assert stamped.clone(group_id="other", by="you", queue="q").options == {
        "group_id": "g", "stamped_headers": ["by"], "by": "me", "queue": "q",
    }  # fmt: skip


def test_links_are_listed_once_each(add: Task[..., Any]) -> None:
    one = add.s(1)
    assert one.link(add.s(2)) is not one
    one.link(add.s(2))
    assert one.on_error(add.s(3)) is one

    assert one.options == {"link": [add.s(2)], "link_error": [add.s(3)]}
    assert one.flatten_links() == [one, add.s(2)]


def test_what_is_no_signature_is_refused(add: Task[..., Any]) -> None:
    for wrong in (5, {"no": "task"}, [add.s(1)]):
        with pytest.raises(MessageError, match="expected a signature"):
            add.s(1).link(wrong)  # type: ignore[arg-type] # a user's mistake
    with pytest.raises(MessageError, match="expected a signature, got \\{'no'"):
        signature({"no": "task"})
    others: list[Any] = [{"a": 1}, None, add]
    for other in others:
        with pytest.raises(TypeError, match=r"\| puts signatures together"):
            add.s(1) | other
        with pytest.raises(TypeError, match=r"\| puts signatures together"):
            other | add.s(1)


# Written and read


WAYS: dict[str, Callable[[Any], Any]] = {
    "json": lambda one: signature(json.loads(json.dumps(one))),
    "pickle": lambda one: pickle.loads(pickle.dumps(one)),
    "copy": copy.deepcopy,
    "clone": lambda one: one.clone(),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_signature_comes_back_with_its_kind(way: str, add: Task[..., Any]) -> None:
    whole = chord([add.s(1, 1), add.s(1) | add.s(2)], group(add.s(3), add.s(4)))

    back = WAYS[way](whole)

    assert json.dumps(back) == json.dumps(whole)
    assert type(back) is chord
    assert [type(one) for one in back.tasks] == [Signature, chain]
    assert type(back.body) is group


def test_a_signature_stays_and_none_is_none(add: Task[..., Any]) -> None:
    one = add.s(1)

    assert maybe_signature(one) is one
    assert maybe_signature(None) is None
    assert type(maybe_signature(dict(chain(one)))) is chain


# Put together


def test_a_bar_makes_chains_and_chords(add: Task[..., Any]) -> None:
    a, b, c = add.s(1), add.s(2), add.s(3)

    assert (a | b | c) == chain(a, b, c) == chain([a, b, c]) == chain(a, b | c)
    assert (group(a, b) | c) == chord([a, b], c)
    assert (chord([a], b) | c) == chord([a], b | c)
    assert (dict(a) | b) == chain(a, b)
    kept = a
    a |= b
    assert (a, kept) == (chain(add.s(1), b), add.s(1))


def test_links_of_a_chain_go_to_its_steps(add: Task[..., Any]) -> None:
    inner = chain(add.s(1), add.s(2))
    inner.link(add.s(7))
    inner.link_error(add.s(8))

    first, second, third = (inner | add.s(3)).tasks

    assert first.options == {"link_error": [add.s(8)]}
    assert second.options == {"link": [add.s(7)], "link_error": [add.s(8)]}
    assert third.options == {}


def test_links_of_groups_and_chords_go_where_celery_has_them(
    add: Task[..., Any],
) -> None:
    both = group(add.s(1), add.s(2))
    both.link(add.s(7))
    both.link_error(add.s(8))
    after = chord([add.s(1)], add.s(2))
    after.link(add.s(7))
    after.link_error(add.s(8))

    assert both.tasks[0].options["link"] == [add.si(7)]
    assert [one.options["link_error"] for one in both.tasks] == [[add.s(8)]] * 2
    assert after.body.options == {"link": [add.s(7)], "link_error": [add.s(8)]}
    assert after.tasks[0].options == {}


def test_a_chord_shows_its_errors_on_its_header_if_that_is_set() -> None:
    app = Beatd(set_as_current=False, task_allow_error_cb_on_chord_header=True)
    add = app.task(name="add")(lambda x: x)
    after = chord([add.s(1)], add.s(2))
    after.link_error(add.s(8))

    assert after.tasks[0].options == {"link_error": [add.s(8)]}


def test_chunks_are_lists_of_arguments(add: Task[..., Any]) -> None:
    parts = add.chunks([(n, n) for n in range(5)], 2).group().tasks

    assert [one.kwargs["it"] for one in parts] == [
        [(0, 0), (1, 1)], [(2, 2), (3, 3)], [(4, 4)],
    ]  # fmt: skip
    assert type(signature(dict(add.chunks([(1, 1)], 1)))) is chunks
    assert type(signature(dict(add.map([1])))) is xmap


# Sent


def test_a_chain_goes_with_its_first_call(wired: Wired, add: Task[..., Any]) -> None:
    sent = (add.s(1) | add.s(2) | add.s(3)).apply_async((9,))

    (first,) = wired.sent()
    assert first.args == [9, 1]
    assert [step["args"] for step in first.chain or ()] == [[3], [2]]
    assert [sent.parent.parent.id, sent.parent.id, sent.id] == [
        first.envelope.id,
        *(step["options"]["task_id"] for step in reversed(first.chain or ())),
    ]


def test_a_group_is_sent_at_once(wired: Wired, add: Task[..., Any]) -> None:
    members = [add.s(0), add.si(1), add.s(2)]
    sent = group(members).apply_async((5,), {"z": 1}, priority=4)

    found = wired.sent()
    assert [call.args for call in found] == [[5, 0], [1], [5, 2]]
    assert [call.kwargs for call in found] == [{"z": 1}, {}, {"z": 1}]
    assert {call.envelope.group for call in found} == {sent.id}
    assert [call.envelope.group_index for call in found] == [0, 1, 2]
    assert [call.envelope.priority for call in found] == [4] * 3
    assert [one.id for one in sent] == [call.envelope.id for call in found]


def test_a_sent_canvas_may_be_sent_again(wired: Wired, add: Task[..., Any]) -> None:
    canvas = chain(add.s(1), group(add.s(2), add.s(3)))

    assert canvas().id != canvas().id
    assert json.dumps(canvas) == json.dumps(chain(add.s(1), group(add.s(2), add.s(3))))


def test_the_task_s_own_options_are_sent(wired: Wired) -> None:
    slow = wired.app.task(name="slow", priority=7, time_limit=5)(lambda: None)
    group(slow.s(), slow.s().set(time_limit=1)).delay()

    found = wired.sent()
    assert [call.envelope.priority for call in found] == [7, 7]
    assert [call.envelope.time_limit for call in found] == [5, 1]


def test_nothing_is_sent_if_a_part_cannot_be(wired: Wired, add: Task[..., Any]) -> None:
    for wrong in (add.s(object()), add.s(1).set(priority="high"), add.s(1, 2, 3, 4)):
        with pytest.raises((MessageError, TypeError)):
            group(add.s(1), wrong).delay()

    assert wired.sent() == []


def test_no_chord_begins_where_nobody_counts_it(
    wired: Wired, add: Task[..., Any]
) -> None:
    wired.app.use(wired.app.settings, wired.broker, NoResults())

    with pytest.raises(ChordError, match="chords need result_backend"):
        chord([add.s(1)], add.s())()

    assert wired.sent() == []


def test_a_chord_without_a_body_says_so(wired: Wired, add: Task[..., Any]) -> None:
    with pytest.raises(MessageError, match="chord: expected a signature as its body"):
        chord([add.s(1)]).delay()


def test_what_a_task_sends_has_the_task_as_its_parent(wired: Wired) -> None:
    app = wired.app
    inner = app.task(name="inner")(lambda: None)

    @app.task(name="outer", bind=True)
    def outer(self: Any) -> list[Any]:
        (inner.si() | inner.si()).delay()
        group(inner.si(), inner.si()).delay()
        return [one.as_tuple() for one in self.request.children]

    meta = outer.apply()

    first, second, third = wired.sent()
    assert {call.envelope.parent_id for call in (first, second, third)} == {meta.id}
    assert {call.envelope.root_id for call in (first, second, third)} == {meta.id}
    chained, grouped = meta.get()
    assert chained == [[first.envelope.id, None], None]
    assert [ids for (ids, _), _ in grouped[1]] == [
        second.envelope.id,
        third.envelope.id,
    ]


def test_a_canvas_is_sent_through_the_application_of_any_of_its_tasks(
    wired: Wired, add: Task[..., Any]
) -> None:
    by_name = signature("elsewhere")

    for one in (
        chord([by_name], add.s()),
        chord([], add.s()),
        chord([by_name], by_name | add.s()),
        chain(by_name, group(by_name, add.s())),
    ):
        assert one.app is wired.app
        assert one.clone().app is wired.app
    assert group(add.s(1), add.s(2)).delay()[0]._app() is wired.app


def test_the_id_given_to_a_canvas_is_that_of_its_value(
    wired: Wired, add: Task[..., Any]
) -> None:
    one, two = add.s(1, 1), add.s(2, 2)

    assert chord([one, two], add.s()).apply_async(task_id="body").id == "body"
    assert (one | two).apply_async(task_id="last").id == "last"
    assert group(one, two).apply_async(task_id="both").id == "both"
    steps = one | two
    assert steps.id is None
    assert steps.freeze("mine").id == steps.id == "mine"
    assert steps.delay().id == "mine"


def test_a_group_alone_in_a_chain_stays_a_group(
    wired: Wired, add: Task[..., Any]
) -> None:
    result = chain(group(add.s(1), add.s(2)))(5)

    assert calls(wired) == [("add", 5, 1), ("add", 5, 2)]
    assert isinstance(result, GroupResult)


def test_a_group_of_one_that_ends_in_a_group_has_its_result(
    wired: Wired, add: Task[..., Any]
) -> None:
    result = group(add.s(1, 1) | group(add.s(1), add.s(2))).delay()

    assert [type(one) for one in result] == [AsyncResult, AsyncResult]


@pytest.mark.parametrize("name", ["link", "link_error"])
def test_a_group_has_no_end_of_its_own_to_link_to(
    wired: Wired, add: Task[..., Any], name: str
) -> None:
    with pytest.raises(TypeError, match="use a chord"):
        group(add.s(1), add.s(2)).apply_async((), {}, **{name: add.s()})

    assert wired.sent() == []


def test_the_calls_of_a_group_are_changed_together(add: Task[..., Any]) -> None:
    several = group(add.s(n) for n in range(5)).skew(start=1, stop=10, step=4)
    several.set_immutable(True)

    assert [one.options["countdown"] for one in several.tasks] == [1, 5, 9, 9, 9]
    assert all(one.immutable for one in several.tasks)


def test_errbacks_of_a_chain_are_its_headers_too_when_asked(
    wired: Wired, add: Task[..., Any]
) -> None:
    wired.app.conf.task_allow_error_cb_on_chord_header = True
    whole = chain(group(add.s(1), add.s(2)), chord([add.s(3)], add.s()), add.s(4))
    whole.link_error(add.s(9))

    members: list[Any] = whole.tasks[:2]
    for one in (call for member in members for call in member.tasks):
        assert one.options["link_error"] == [add.s(9)]
    assert whole.options["link_error"] == [add.s(9)]


def test_what_is_no_signature_is_no_part_of_a_canvas(add: Task[..., Any]) -> None:
    with pytest.raises(TypeError, match="expected a task, its name or a signature"):
        chain(add.s(1), object())


# Stamps


def stamps_of(one: Signature) -> dict[str, Any]:
    return {name: one.options[name] for name in one.options["stamped_headers"]}


def test_a_stamp_is_given_to_all_calls_and_what_is_linked_to_them(
    wired: Wired, add: Task[..., Any]
) -> None:
    last = add.s(9)
    last.link(add.s(10))
    whole = chain(
        add.s(1), group(add.s(2), add.s(3)), chord([add.s(4)], add.s(5)), last
    )
    whole.stamp(by="me").delay()

    (sent,) = wired.sent()
    assert sent.envelope.stamped_headers == ["by"]
    assert sent.envelope.stamps == {"by": "me"}
    first, several, both, last = whole.tasks
    assert isinstance(several, group)
    assert isinstance(both, chord)
    everything = (first, *several.tasks, *both.tasks, both.body, last)
    for one in (*everything, *last.options["link"]):
        assert stamps_of(one) == {"by": "me"}


def test_a_visitor_says_which_call_gets_which_stamp(add: Task[..., Any]) -> None:
    seen: list[str] = []

    class Visitor(StampingVisitor):
        def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
            return {"number": sig.args[0], "queue": "q", "stamped_headers": ["number"]}

        def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:
            seen.append("group")
            return {"of": "group"}

        def on_group_end(self, group: Any, **headers: Any) -> None:
            seen.append(f"ended {headers['of']}")

        def on_callback(self, callback: Any, **headers: Any) -> dict[str, Any]:
            return {"is_callback": True}

    one = add.s(1)
    one.link(add.s(2))
    several = group(one, add.s(3)).stamp(Visitor())

    assert isinstance(several, group)
    first, second = several.tasks
    assert stamps_of(first) == {"of": "group", "number": 1}
    assert stamps_of(second) == {"of": "group", "number": 3}
    assert second.options["queue"] == "q"
    (linked,) = first.options["link"]
    assert stamps_of(linked) == {"of": "group", "is_callback": True, "number": 2}
    assert seen == ["group", "ended group"]
    with pytest.raises(TypeError, match="on_signature"):
        StampingVisitor()  # type: ignore[abstract]  # that is the case


def test_a_stamp_given_twice_has_the_last_value_or_both(add: Task[..., Any]) -> None:
    one = add.s(1).stamp(by="me", at="noon")

    assert stamps_of(one.clone().stamp(by="you")) == {"by": "you", "at": "noon"}
    both = one.clone().stamp(append_stamps=True, by="you")
    assert stamps_of(both) == {"by": ["you", "me"], "at": "noon"}


# Here and now


def test_a_chain_run_here_leaves_empty_groups_out(eager: Beatd) -> None:
    add = eager.tasks["add"]

    assert chain(add.s(2, 2), group(), add.s(2), group()).apply().get() == 6
    assert chain(group()).apply().get() == []


def test_what_is_linked_to_a_chain_run_here_is_called_once(eager: Beatd) -> None:
    add, seen = eager.tasks["add"], list[Any]()
    note = eager.task(name="note")(seen.append)
    total = eager.task(name="total")(lambda numbers: sum(numbers))

    (add.s(4, 4) | add.s(8)).apply_async(link=note.s())
    (add.s(1, 1) | chord([add.s(1), add.s(2)], total.s())).apply_async(link=note.s())

    assert seen == [16, 7]


def test_canvases_run_eagerly(eager: Beatd) -> None:
    add = eager.tasks["add"]
    total = eager.task(name="total")(lambda numbers: sum(numbers))

    assert (add.s(1, 1) | add.s(2) | add.s(3)).delay().get() == 7
    assert group(add.s(n) for n in range(3))(10).get() == [10, 11, 12]
    assert chord([add.s(1, 1), add.s(2, 2)])(total.s()).get() == 6
    sent = (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s()).apply()
    assert (sent.get(), sent.parent.get(), sent.parent.parent.get()) == (7, [3, 4], 2)
    assert add.chunks([(1, 1), (2, 2), (3, 3)], 2)().get() == [[2, 4], [6]]
    assert ~add.s(1, 2) == 3


def test_a_chain_run_here_stops_where_it_fails(eager: Beatd) -> None:
    boom = eager.task(name="boom")(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        (boom.si() | eager.tasks["add"].si(1, 1)).apply()


# Replaced


def test_a_task_is_replaced_by_what_has_its_id(eager: Beatd) -> None:
    add = eager.tasks["add"]

    @eager.task(name="again", bind=True)
    def again(self: Any, number: int) -> Any:
        return self.replace(add.s(number, number) | add.s(1))

    result = again.apply((4,), task_id="the-id")

    assert (result.id, result.get()) == ("the-id", 9)
    assert (again.s(4) | add.s(100)).delay().get() == 109


def test_a_class_of_tasks_may_change_what_takes_their_place(eager: Beatd) -> None:
    class Hurried(Task[..., Any]):
        def on_replace(self, sig: Signature) -> NoReturn:
            sig.kwargs["z"] = 100
            super().on_replace(sig)

    @eager.task(name="again", bind=True, base=Hurried)
    def again(self: Any) -> Any:
        return self.replace(eager.tasks["add"].s(1, 1))

    assert again.apply().get() == 102


def test_what_takes_the_place_of_a_task_keeps_its_own_callbacks(eager: Beatd) -> None:
    add, seen = eager.tasks["add"], list[str]()
    boom = eager.task(name="boom")(lambda *_: 1 / 0)

    @eager.task(name="note")
    def note(*args: Any, of: str) -> None:
        seen.append(of)

    @eager.task(name="again", bind=True)
    def again(self: Any, last: Any) -> Any:
        steps = add.s(1, 1) | signature(last)
        steps.link(note.s(of="own"))
        steps.link_error(note.s(of="own error"))
        return self.replace(steps)

    for last in (add.s(1), boom.s()):
        call = again.s(last)
        call.link(note.s(of="the call's"))
        call.link_error(note.s(of="the call's error"))
        call.apply()

    assert seen[:2] == ["own", "the call's"]
    assert seen[2:] == ["own error", "the call's error"]


def test_a_task_called_like_a_function_cannot_be_replaced(
    add: Task[..., Any],
) -> None:
    with pytest.raises(MessageError, match="called directly"):
        add.replace(add.s(1))


def test_nothing_cannot_take_the_place_of_a_task(eager: Beatd) -> None:
    @eager.task(name="again", bind=True)
    def again(self: Any) -> Any:
        return self.replace(chain())

    with pytest.raises(MessageError, match="an empty chain"):
        (again.s() | eager.tasks["add"].s(1)).apply().get()


# Results


def test_a_result_is_its_id_where_that_is_asked_for(wired: Wired) -> None:
    assert AsyncResult("an-id") == "an-id"
    assert "an-id" in [AsyncResult("an-id")]
    assert AsyncResult("an-id") != "another"


def test_a_group_is_saved_and_restored(wired: Wired, add: Task[..., Any]) -> None:
    sent = group(add.s(1), add.s(2) | group(add.s(3), add.s(4))).delay()

    assert sent.save() is sent
    found = GroupResult.restore(sent.id, app=wired.app)
    assert found == sent
    assert found.as_tuple() == sent.as_tuple()
    sent.delete()
    assert GroupResult.restore(sent.id, app=wired.app) is None


def test_values_are_given_to_a_callback(wired: Wired) -> None:
    for task_id, value in (("one", 1), ("two", 2)):
        wired.results.store([Meta(task_id, State.SUCCESS, value)])
    first, second = map(wired.app.AsyncResult, ("one", "two"))
    seen: list[Any] = []

    def keep(task_id: str, value: Any) -> None:
        seen.append((task_id, value))

    assert first.get(callback=keep) == 1
    assert wired.app.ResultSet([first, second]).get(callback=keep) == []
    assert seen == [("one", 1), ("one", 1), ("two", 2)]


def test_the_results_of_a_group_are_asked_together(wired: Wired) -> None:
    app = wired.app
    done = Meta("one", State.SUCCESS, 1)
    lost = Meta("two", State.FAILURE, ValueError("no"))
    one, two = app.AsyncResult("one"), app.AsyncResult("two")
    both = app.GroupResult("g", [one, two])

    assert (both.ready(), both.waiting(), both.completed_count()) == (False, True, 0)
    app.store_meta(done)
    assert (both.completed_count(), both.ready(), both.failed()) == (1, False, False)
    app.store_meta(lost)
    assert (both.ready(), both.successful(), both.failed()) == (True, False, True)
    with pytest.raises(ValueError, match="no"):
        both.get(timeout=1)
    with pytest.raises(ValueError, match="no"):
        both.maybe_throw()
    values = both.get(timeout=1, propagate=False)
    assert (values[0], str(values[1])) == (1, "no")
    assert (len(both), both[0], list(both)) == (2, one, [one, two])


def test_a_timeout_counts_for_all_results_together(wired: Wired) -> None:
    both = wired.app.ResultSet([wired.app.AsyncResult(name) for name in "ab"])

    with pytest.raises(TimeoutError, match="task a has not ended"):
        both.get(timeout=0)


def test_a_set_of_results_is_changed(wired: Wired) -> None:
    one, two = wired.app.AsyncResult("one"), wired.app.AsyncResult("two")
    some = wired.app.ResultSet([one])
    some.add(one)
    some.update([one, two])
    assert list(some) == [one, two]
    some.discard(one)
    some.discard(one)
    some.remove("two")
    assert list(some) == []
    with pytest.raises(KeyError, match="two"):
        some.remove("two")


def test_what_failed_first_is_raised(wired: Wired) -> None:
    app = wired.app
    first, last = app.AsyncResult("first"), app.AsyncResult("last")
    last.parent = app.GroupResult("g", [first])
    app.store_meta(Meta("first", State.FAILURE, ValueError("the cause")))
    app.store_meta(Meta("last", State.FAILURE, ChordError("its effect")))

    with pytest.raises(ValueError, match="the cause"):
        last.get(timeout=1)
    with pytest.raises(ChordError, match="its effect"):
        last.get(timeout=1, follow_parents=False)


def test_a_callback_is_called_when_the_end_is_known(wired: Wired) -> None:
    result = wired.app.AsyncResult("one")
    heard: list[Any] = []
    result.then(heard.append)
    assert heard == []

    wired.app.store_meta(Meta("one", State.SUCCESS, 1))
    assert result.ready()
    assert result.ready()
    result.then(heard.append)

    assert heard == [result, result]


def test_children_are_results_of_runs_and_of_groups(wired: Wired) -> None:
    app = wired.app
    members = [[["b", None], None], [["c", None], None]]
    children = [[["a", None], None], [["g", None], members]]
    app.store_meta(Meta("parent", State.SUCCESS, 0, children=children))
    for name, value in zip("abc", (1, 2, 3), strict=True):
        app.store_meta(Meta(name, State.SUCCESS, value))

    parent = app.AsyncResult("parent")

    alone, grouped = parent.children
    assert isinstance(alone, AsyncResult)
    assert isinstance(grouped, GroupResult)
    assert (alone.id, grouped.id, grouped.as_list()) == ("a", "g", ["b", "c"])
    assert [value for _, value in parent.collect(timeout=1)] == [0, 1, [2, 3], 2, 3]
    assert parent.get_leaf() == 3


def test_what_is_stored_of_a_call_is_told(wired: Wired) -> None:
    known = {"name": "add", "args": [1], "kwargs": {}, "worker": "w1", "retries": 2}
    wired.app.store_meta(Meta("one", State.SUCCESS, 1, extended=known))

    one = wired.app.AsyncResult("one")

    assert (one.name, one.args, one.kwargs, one.worker, one.retries, one.queue) == (
        *known.values(),
        None,
    )
