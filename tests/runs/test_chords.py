"""Chords on one worker: each body once, whatever is told twice, lost, or away."""

import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beatd import results
from beatd.brokers.items import Delivery
from beatd.errors import ResultUnavailable, TimeLimitExceeded
from beatd.message import Chord, read_envelope
from beatd.pools.base import Finished, Job, Lost, TimedOut
from beatd.results.base import State
from beatd.results.chords import Joined, Part
from beatd.runs.chords import LARGEST, ChordKeeper, Failed, Unsent, in_a_thread
from beatd.runs.report import read_report
from beatd.tasks import Task, chord
from tests.worker.bench import Bench, Header, with_held_pool


def signature(task: str, **options: Any) -> dict[str, Any]:
    return {"task": task, "args": [], "kwargs": {}, "options": options}


class Kitchen:
    """A bench with tasks for chords: what their bodies got is kept."""

    def __init__(self, **settings: Any) -> None:
        self.bench = Bench(**settings)
        self.served: list[Any] = []
        self.complaints: list[Any] = []
        task = self.bench.app.task

        @task(name="cook")
        def cook(dish: Any) -> Any:
            if dish == "burnt":
                raise ValueError(dish)
            return dish

        @task(name="serve")
        def serve(dishes: Any) -> Any:
            self.served.append(dishes)
            return len(dishes)

        @task(name="complain")
        def complain(task_id: str) -> None:
            self.complaints.append(task_id)

        @task(name="shout")
        def shout(request: Any, error: BaseException, traceback: Any) -> None:
            self.complaints.append((request.id, str(error), bool(traceback)))

        @task(name="mumble")
        async def mumble(request: Any, *_: Any) -> None:
            self.complaints.append(("mumbled", request.id))

        self.cook: Task[..., Any] = cook
        self.body = signature("serve", task_id="body")

    def order(self, *dishes: Any, **options: Any) -> None:
        """Send the header of a chord."""
        self.bench.results.begin_chords([Chord("g", len(dishes))])
        for index, dish in enumerate(dishes):
            self.order_one(dish, index, **options)

    def order_one(self, dish: Any, index: int, **options: Any) -> None:
        options |= {"group_id": "g", "group_index": index, "chord": self.body}
        self.cook.apply_async([dish], task_id=f"dish-{index}", **options)

    def state(self, task_id: str) -> tuple[str, str]:
        meta = self.bench.results.metas[task_id]
        return meta.status, str(meta.result)

    def chord_keeper(self) -> ChordKeeper:
        return self.bench.chord_keeper


@pytest.fixture
def kitchen() -> Kitchen:
    return Kitchen()


def take(kitchen: Kitchen) -> Delivery:
    """Take one message away from the worker."""
    kitchen.bench.broker.join("thief", 1000)
    (delivery,) = kitchen.bench.broker.take("thief", ["celery"], 1, 1)
    return delivery


# Once


def test_the_body_gets_the_values_of_the_header_in_order(kitchen: Kitchen) -> None:
    kitchen.order("soup", "fish", "cake")

    kitchen.bench.run()

    assert kitchen.served == [["soup", "fish", "cake"]]
    assert kitchen.state("body") == ("SUCCESS", "3")
    assert kitchen.bench.results.chords == {}, "it is forgotten"
    assert kitchen.bench.left() == 0


def test_a_header_whose_results_are_ignored_counts_too(kitchen: Kitchen) -> None:
    kitchen.order("soup", "fish", ignore_result=True)

    kitchen.bench.run()

    assert kitchen.served == [["soup", "fish"]]
    assert "dish-0" not in kitchen.bench.results.metas


def test_a_retry_that_cannot_be_sent_fails_the_body(kitchen: Kitchen) -> None:
    @kitchen.bench.app.task(bind=True)
    def stir(self: Task[..., Any], dish: str) -> None:
        self.retry(countdown=1e308)

    kitchen.cook = stir
    kitchen.order("soup", "fish")
    kitchen.bench.run()

    assert kitchen.state("dish-0")[0] == "FAILURE"
    assert "countdown: expected at most" in kitchen.state("dish-0")[1]
    assert kitchen.state("body")[0] == "FAILURE"
    assert kitchen.bench.left() == 0


def test_a_run_that_its_process_cannot_report_fails_the_body(kitchen: Kitchen) -> None:
    pool = with_held_pool(kitchen.bench)
    kitchen.order("soup")
    kitchen.bench.run()
    (job,) = pool.jobs

    without_the_task = Bench().execute
    kitchen.bench.inbox.put(Finished(job.token, without_the_task(job)))
    kitchen.bench.run()

    assert kitchen.state("dish-0")[0] == "FAILURE"
    assert kitchen.state("body")[0] == "FAILURE"


def test_a_call_that_is_delivered_twice_counts_once(kitchen: Kitchen) -> None:
    kitchen.order("soup", "fish")
    kitchen.order_one("soup", 0)

    kitchen.bench.run()

    assert kitchen.served == [["soup", "fish"]]


def test_what_is_kept_again_gives_the_same_body(kitchen: Kitchen) -> None:
    kitchen.order("soup")
    delivery = take(kitchen)
    job = Job("token", delivery.message, 1, None, None)
    report = read_report(kitchen.bench.execute(job))

    first = kitchen.chord_keeper().record_end(delivery.message, report.bookkeeping)
    again = kitchen.chord_keeper().record_end(delivery.message, report.bookkeeping)

    ids = [read_envelope(one.sends[0].message).id for one in (first, again)]
    assert ids == ["body", "body"]
    kitchen.chord_keeper().forget(first.joined)
    over = kitchen.chord_keeper().record_end(delivery.message, report.bookkeeping)
    assert (over.sends, over.joined) == ([], [])


def test_a_backend_that_is_away_holds_up_the_chord_and_loses_nothing(
    kitchen: Kitchen,
) -> None:
    kitchen.order("soup", "fish")
    kitchen.bench.results.away = True
    with pytest.raises(ResultUnavailable):
        kitchen.bench.run()
    assert kitchen.bench.broker.take("other", ["celery"], 9, 1) == []

    kitchen.bench.results.away = False
    kitchen.bench.run()

    assert kitchen.served == [["soup", "fish"]]


# Failures


def test_a_failure_in_the_header_is_the_bodys(
    kitchen: Kitchen, caplog: pytest.LogCaptureFixture
) -> None:
    kitchen.order("soup", "burnt", "cake")

    with caplog.at_level(logging.ERROR, logger="beatd.runs.continuations"):
        kitchen.bench.run()

    assert kitchen.served == []
    told = "Dependency dish-1 raised ValueError('burnt')"
    assert kitchen.state("body") == ("FAILURE", told)
    (record,) = (one for one in caplog.records if one.name.endswith("continuations"))
    assert record.__dict__["event"] == "chord.failed"
    assert told in record.message


def test_errbacks_of_a_body_are_told_once(kitchen: Kitchen) -> None:
    errbacks = [signature("complain"), signature("shout"), signature("mumble")]
    kitchen.body["options"] |= {"link_error": errbacks}
    kitchen.order("burnt", "burnt")

    kitchen.bench.run()

    told = "Dependency dish-0 raised ValueError('burnt')"
    assert kitchen.complaints == [
        ("body", told, False),
        ("mumbled", "body"),
        "body",
    ]


def test_an_errback_of_a_chord_and_of_the_one_around_it_is_called_once(
    kitchen: Kitchen,
) -> None:
    call, app = kitchen.cook.s, kitchen.bench.app
    inner = chord([call("burnt"), call("soup")], app.signature("serve"))
    outer = chord([call("cake"), inner], app.signature("serve"), app=app)
    outer.link_error(app.signature("complain"))
    outer.apply_async(task_id="outer")

    kitchen.bench.run()

    assert kitchen.complaints == ["outer"]
    assert kitchen.state("outer")[0] == "FAILURE"


def test_errbacks_and_hooks_are_called_once_however_long_the_backend_is_away(
    kitchen: Kitchen,
) -> None:
    kitchen.order("soup", ignore_result=True, link_error=[signature("shout")])
    kitchen.cook.reject_on_worker_lost = False
    told: list[str] = []
    hook = {"on_failure": lambda task, error, task_id, *_: told.append(task_id)}
    kitchen.cook.amend(hook)
    pool = with_held_pool(kitchen.bench)
    kitchen.bench.run()
    (job,) = pool.jobs
    kitchen.bench.inbox.put(Lost(job.token, "SIGKILL"))
    kitchen.bench.results.away = True
    for _ in range(3):
        with pytest.raises(ResultUnavailable):
            kitchen.bench.run()
    kitchen.bench.results.away = False
    kitchen.bench.run()

    assert [one[0] for one in kitchen.complaints] == ["dish-0"]
    assert told == ["dish-0"]


def test_a_chord_that_fails_is_said_once_however_long_the_backend_is_away(
    kitchen: Kitchen, caplog: pytest.LogCaptureFixture
) -> None:
    kitchen.body["options"] |= {"link_error": signature("complain", priority="high")}
    kitchen.order("soup")
    message = take(kitchen).message
    joined = Joined(Part("g", "dish-0", 0, b""), [], None)
    end = Unsent([joined], ValueError("no room"))
    kitchen.bench.results.away = True
    for _ in range(3):
        with pytest.raises(ResultUnavailable):
            kitchen.chord_keeper().record_end(message, end)
    said_while_away = [*caplog.records]
    kitchen.bench.results.away = False
    kitchen.chord_keeper().record_end(message, end)

    assert said_while_away == []
    events = [vars(one)["event"] for one in caplog.records]
    assert events == ["chord.failed", "errback.unsent"]
    assert "no room" in caplog.messages[0]
    assert caplog.records[1].exc_info


@pytest.mark.parametrize("end", ["timed out", "lost"])
def test_a_run_that_could_not_tell_its_end_fails_the_chord(
    kitchen: Kitchen, end: str
) -> None:
    kitchen.order("soup")
    kitchen.cook.reject_on_worker_lost = False
    pool = with_held_pool(kitchen.bench)
    kitchen.bench.run()

    (job,) = pool.jobs
    event = TimedOut(job.token, 2) if end == "timed out" else Lost(job.token, "SIGKILL")
    kitchen.bench.inbox.put(event)
    kitchen.bench.run()

    status, told = kitchen.state("body")
    assert status == "FAILURE"
    assert told.startswith("Dependency dish-0 raised ")
    assert ("TimeLimitExceeded" in told) == (end == "timed out")


def test_a_task_that_nobody_has_fails_the_chord_and_the_chain_after_it(
    kitchen: Kitchen,
) -> None:
    kitchen.bench.results.begin_chords([Chord("g", 1)])
    kitchen.body["options"] |= {"chain": [signature("serve", task_id="after")]}
    kitchen.bench.app.send_task(
        "nobody", group_id="g", group_index=0, chord=kitchen.body
    )

    kitchen.bench.run()

    assert kitchen.state("body")[0] == "FAILURE"
    assert kitchen.state("after")[0] == "FAILURE"


def test_steps_after_a_failed_one_fail_with_it(kitchen: Kitchen) -> None:
    rest = [signature("serve", task_id="third"), signature("cook", task_id="second")]
    kitchen.cook.apply_async(["burnt"], chain=rest, ignore_result=False)

    kitchen.bench.run()

    assert kitchen.state("second") == kitchen.state("third") == ("FAILURE", "burnt")
    second = kitchen.bench.results.metas["second"]
    assert second.traceback
    assert "raise ValueError(dish)" in second.traceback


def test_an_ignored_failure_is_not_told_to_the_steps_after_it(kitchen: Kitchen) -> None:
    rest = [signature("cook", task_id="second")]
    kitchen.cook.apply_async(["burnt"], chain=rest, ignore_result=True)

    kitchen.bench.run()

    assert kitchen.bench.results.metas == {}


@pytest.mark.parametrize(
    "options",
    [{"priority": "high"}, {"link": 5}, {"eta": "soon"}, {"queue": 7}],
    ids=str,
)
def test_a_body_that_cannot_be_sent_fails(
    kitchen: Kitchen, options: dict[str, Any]
) -> None:
    kitchen.body["options"] |= options
    kitchen.order("soup")

    kitchen.bench.run()

    assert kitchen.state("body")[0] == "FAILURE"
    assert kitchen.served == []


@pytest.mark.parametrize("part", [b"", b"5", b'[1, "a", "SUCCESS"]', b"\xff"])
def test_what_others_put_into_a_chord_cannot_harm_the_worker(
    kitchen: Kitchen, part: bytes
) -> None:
    kitchen.order("soup")
    chord = kitchen.bench.results.chords["g"] = Header(Chord("g", 2))
    chord.parts["theirs"] = Part("g", "theirs", 1, part)

    kitchen.bench.run()

    status, told = kitchen.state("body")
    assert status == "FAILURE"
    assert told.startswith("Join error: ")


@pytest.mark.parametrize(
    "chain",
    [
        [{"task": "celery.chain", "kwargs": {"tasks": 5}, "subtask_type": "chain"}],
        [{"task": "a", "options": {"task_id": 5, "chord": 7, "group_id": {}}}],
        [{"task": "a", "options": {"task_id": "x", "chain": [3]}}],
    ],
    ids=str,
)
@pytest.mark.parametrize("dish", ["soup", "burnt"])
def test_what_others_wrote_into_a_chain_cannot_harm_the_worker(
    kitchen: Kitchen, chain: list[Any], dish: str
) -> None:
    kitchen.cook.apply_async([dish], chain=chain, task_id="dish")

    kitchen.bench.run()

    assert kitchen.bench.results.metas["dish"].status in ("SUCCESS", "FAILURE")
    after = kitchen.cook.delay("cake")
    kitchen.bench.run()
    assert after.get(timeout=0) == "cake"


WORDS = st.sampled_from(["g", "dish", "body", "\ud800", "a\0b", "", "x" * 2000])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
    ),
    max_leaves=5,
)
OPTIONS = (
    *("task_id", "group_id", "group_index", "chord", "chain", "link", "link_error"),
    *("queue", "priority", "countdown", "stamped_headers", "parent_id"),
)


@st.composite
def signatures(draw: st.DrawFn, depth: int = 2) -> Any:
    """Make something like a signature of any kind."""

    def one() -> Any:
        return (
            draw(signatures(depth - 1)) if depth and draw(st.booleans()) else draw(JUNK)
        )

    def some() -> Any:
        return [one() for _ in range(draw(st.integers(0, 3)))]

    options = {name: draw(JUNK) for name in draw(st.sets(st.sampled_from(OPTIONS)))}
    for name in options.keys() & {"chain", "link", "link_error"}:
        options[name] = some()
    return {
        "task": draw(st.sampled_from(["cook", "complain", "shout", "nobody"])),
        "args": draw(st.lists(JUNK, max_size=2)),
        "kwargs": {"tasks": some(), "header": some(), "body": one()},
        "options": options,
        "subtask_type": draw(st.sampled_from([None, "chain", "group", "chord", 7])),
        "immutable": draw(st.booleans()),
    }


@given(
    signatures(),
    st.sampled_from(["link", "link_error", "chain", "chord"]),
    st.sampled_from(["soup", "burnt"]),
    st.booleans(),
)
@settings(max_examples=60)
def test_whatever_follows_a_call_the_worker_lives_and_the_queue_moves(
    signature: Any, place: str, dish: str, lost: bool
) -> None:
    logging.disable()
    kitchen = Kitchen(task_reject_on_worker_lost=False)
    kitchen.bench.results.begin_chords([Chord("g", 1)])
    what: Any = {place: [signature] if place == "chain" else signature}
    kitchen.cook.apply_async([dish], task_id="dish", group_id="g", **what)
    if lost:
        mend = kitchen.bench.pool.pool
        pool = with_held_pool(kitchen.bench)
        kitchen.bench.run()
        kitchen.bench.inbox.put(Lost(pool.jobs[0].token, "SIGKILL"))
        kitchen.bench.pool.pool = mend

    kitchen.bench.run()

    logging.disable(logging.NOTSET)
    assert kitchen.bench.results.metas["dish"].status in ("SUCCESS", "FAILURE")
    for task_id in kitchen.bench.results.metas:
        assert task_id.encode()


def test_an_errback_that_cannot_be_sent_or_raises_is_logged(
    kitchen: Kitchen, caplog: pytest.LogCaptureFixture
) -> None:
    bad = signature("complain", priority="high")
    wrong = {**signature("shout"), "kwargs": {"no": "such argument"}}
    kitchen.cook.apply_async(["burnt"], link_error=[bad, wrong], task_id="dish")

    with caplog.at_level(logging.ERROR, logger="beatd.runs.continuations"):
        kitchen.bench.run()

    assert kitchen.state("dish") == ("FAILURE", "burnt")
    events = [one.__dict__["event"] for one in caplog.records]
    assert events[:2] == ["errback.unsent", "errback.failed"]


def test_an_errback_for_which_there_is_no_thread_is_passed_over_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = threading.stack_size(1 << 46)  # no machine has memory for that
    try:
        in_a_thread(lambda: None)
    finally:
        threading.stack_size(before)

    assert [one.__dict__["event"] for one in caplog.records] == ["errback.uncalled"]


def test_a_backend_without_chords_says_so(tmp_path: Path) -> None:
    kitchen = Kitchen(result_backend=f"sqlite:///{tmp_path}/results.db")
    backend = results.connect(kitchen.bench.settings)
    kitchen.order("soup")
    delivery = take(kitchen)
    report = read_report(
        kitchen.bench.execute(Job("token", delivery.message, 1, None, None))
    )

    replace(kitchen.chord_keeper(), results=backend).record_end(
        delivery.message, report.bookkeeping
    )

    body = backend.load(["body"])["body"]
    backend.close()
    assert body.status == "FAILURE"
    assert str(body.result).startswith("chords need result_backend at redis://")


# What is looked into


def test_a_body_that_may_have_killed_its_process_is_not_decoded_again(
    kitchen: Kitchen, caplog: pytest.LogCaptureFixture
) -> None:
    kitchen.order("x" * 3 * LARGEST)
    delivery = take(kitchen)
    end = Failed(State.FAILURE, TimeLimitExceeded(1), keep=True)

    done = kitchen.chord_keeper().record_end(delivery.message, end)

    assert (done.sends, done.joined) == ([], [])
    assert [one.__dict__["event"] for one in caplog.records] == ["task.unfollowed"]
