"""What every result backend promises."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from beatd import results
from beatd.config.settings import read
from beatd.errors import MessageError, ResultRefused, ResultUnavailable
from beatd.instant import SECOND
from beatd.results.base import Meta, ResultBackend, State, Stored
from tests.servers import PATIENCE, Server, eventually

DONE = datetime(2026, 11, 23, 12, tzinfo=UTC)

Connect = Callable[..., ResultBackend]


@pytest.fixture(params=["sqlite", "redis"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Return connections to one and the same place, with these settings."""
    if request.param == "redis":
        server: Server = request.getfixturevalue("server")
        url = server.url()
    else:
        url = f"sqlite:///{tmp_path}/results.db"
    opened: list[ResultBackend] = []

    def connect(**settings: object) -> ResultBackend:
        found = read({"result_backend": url, **settings}).settings
        opened.append(results.connect(found))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


@pytest.fixture
def backend(connect: Connect) -> ResultBackend:
    return connect()


@pytest.fixture
def refuse(
    request: pytest.FixtureRequest, connect: Connect, tmp_path: Path
) -> Callable[[str], object]:
    """Have the backend refuse to store results of some runs, and of no other."""
    if request.node.callspec.params["connect"] == "redis":
        server: Server = request.getfixturevalue("server")

        def take_key(task_id: str) -> None:
            with server.client() as client:
                client.sadd(f"celery-task-meta-{task_id}", "another program's")

        return take_key
    connect().store([success("first")])  # it makes the file

    def forbid(task_id: str) -> None:
        with closing(sqlite3.connect(tmp_path / "results.db")) as db:
            db.execute(
                f"CREATE TRIGGER no_{task_id} BEFORE INSERT ON results"
                f" WHEN NEW.task_id = '{task_id}'"
                " BEGIN SELECT RAISE(ROLLBACK, 'it is not to be'); END"
            )

    return forbid


def success(task_id: str, value: object = 42) -> Meta:
    return Meta(task_id, State.SUCCESS, value, date_done=DONE)


def failure(task_id: str) -> Meta:
    return Meta(task_id, State.FAILURE, ValueError("no"), "a traceback", date_done=DONE)


def test_what_was_stored_is_loaded_by_others(connect: Connect) -> None:
    meta = Meta(
        "a",
        State.SUCCESS,
        {"sum": [1, 2.5, None, "ü"], "at": DONE},
        None,
        [[["child", None], None]],
        DONE.isoformat(),
        "group",
        "parent",
        {"name": "shop.add", "retries": 0},
        12.5,
    )

    connect().store([meta])

    assert connect().load(["a"]) == {"a": meta}


@pytest.mark.parametrize("odd", ["12", -1, None, True, [3]])
def test_a_run_time_that_is_none_is_passed_over(
    backend: ResultBackend, odd: object
) -> None:
    backend.store([Meta("a", State.SUCCESS, 1, extended={"runtime": odd})])

    assert backend.load(["a"])["a"].runtime is None


def test_an_unknown_run_is_left_out(backend: ResultBackend) -> None:
    backend.store([success("a")])

    assert list(backend.load(["b", "a", "c"])) == ["a"]
    assert backend.load([]) == {}


def test_an_exception_comes_back_as_what_it_was(backend: ResultBackend) -> None:
    backend.store([failure("a")])

    meta = backend.load(["a"])["a"]

    assert repr(meta.result) == "ValueError('no')"
    assert meta.traceback == "a traceback"


@pytest.mark.parametrize("later", [failure("a"), success("a", 43)])
def test_success_is_final(backend: ResultBackend, later: Meta) -> None:
    backend.store([success("a", 42)])

    backend.store([later])

    assert backend.load(["a"])["a"].result == 42


def test_a_success_that_could_not_be_passed_on_is_corrected(
    backend: ResultBackend,
) -> None:
    backend.store([success("a", 42)])

    backend.correct([failure("a")])

    assert backend.load(["a"])["a"].status == State.FAILURE


@pytest.mark.parametrize(
    "settings",
    [
        {"result_serializer": "msgpack", "accept_content": ["msgpack"]},
        {"result_serializer": "yaml", "accept_content": ["yaml"]},
        {"result_serializer": "pickle", "accept_content": ["pickle"]},
        {"result_compression": "gzip"},
    ],
    ids=lambda settings: next(iter(settings.values())),
)
def test_success_is_final_in_every_form(
    connect: Connect, settings: dict[str, object]
) -> None:
    backend = connect(**settings)

    backend.store([failure("a"), success("b")])
    backend.store([success("a"), failure("b")])

    found = backend.load(["a", "b"])
    assert [meta.status for meta in found.values()] == [State.SUCCESS, State.SUCCESS]


@pytest.mark.parametrize("together", [True, False])
def test_other_states_give_way_to_later_ones(
    backend: ResultBackend, together: bool
) -> None:
    states = [State.STARTED, State.RETRY, "HALFWAY", State.FAILURE, State.SUCCESS]
    metas = [Meta("a", state) for state in states]

    for batch in [metas] if together else [[meta] for meta in metas]:
        backend.store(batch)

    assert backend.load(["a"])["a"].status == State.SUCCESS


def test_in_one_batch_what_comes_after_success_is_dropped(
    backend: ResultBackend,
) -> None:
    backend.store([Meta("a", State.STARTED), success("a"), failure("a")])

    assert backend.load(["a"])["a"].status == State.SUCCESS


def test_many_results_are_stored_at_once(backend: ResultBackend) -> None:
    metas = [success(f"id-{number}", number) for number in range(1200)]

    backend.store(metas)

    found = backend.load([meta.task_id for meta in metas])
    assert [meta.result for meta in found.values()] == list(range(1200))


@pytest.mark.parametrize("correct", [False, True])
def test_what_is_refused_is_named_and_all_others_are_stored(
    backend: ResultBackend, refuse: Callable[[str], object], correct: bool
) -> None:
    refuse("b")
    refuse("d")
    store = backend.correct if correct else backend.store

    with pytest.raises(ResultRefused) as refused:
        store([success(name) for name in "abcdefg"])

    assert list(refused.value.reasons) == [1, 3]
    found = backend.load([*"acefg"])
    assert [meta.status for meta in found.values()] == [State.SUCCESS] * 5


def test_what_is_refused_is_refused_again_and_waits_for_nothing(
    backend: ResultBackend, refuse: Callable[[str], object]
) -> None:
    refuse("b")

    for _ in range(2):
        with pytest.raises(ResultRefused, match=r"not to be|another program"):
            backend.store([failure("b")])


def test_a_result_encoded_elsewhere_is_kept_as_it_is(backend: ResultBackend) -> None:
    encoding = results.encoding_of(read({}).settings)

    backend.store([Stored("a", State.SUCCESS, encoding.encode(success("a")))])
    backend.store([failure("a")])

    assert backend.load(["a"])["a"].result == 42


def test_a_value_that_cannot_be_encoded_is_refused(backend: ResultBackend) -> None:
    with pytest.raises(MessageError, match="object"):
        backend.store([success("a", object())])

    assert backend.load(["a"]) == {}


def test_a_result_in_a_serializer_that_is_not_accepted_is_not_read(
    connect: Connect,
) -> None:
    trusting = {"result_serializer": "pickle", "accept_content": ["pickle"]}
    connect(**trusting).store([success("a")])

    with pytest.raises(MessageError, match="task a: pickle is refused"):
        connect(result_serializer="pickle").load(["a"])


def test_a_forgotten_run_is_unknown(backend: ResultBackend) -> None:
    backend.store([success("a")])

    backend.forget("a")
    backend.forget("never known")

    assert backend.load(["a"]) == {}


def test_waiting_for_a_run_that_has_ended_gives_it(backend: ResultBackend) -> None:
    backend.store([success("a")])

    meta = backend.wait("a", timeout=0)

    assert meta
    assert meta.result == 42


def test_waiting_gives_up_at_its_end(backend: ResultBackend) -> None:
    backend.store([Meta("a", State.STARTED)])

    assert backend.wait("a", timeout=0) is None
    assert backend.wait("a", timeout=30) is None


@pytest.mark.parametrize("meta", [success("a"), failure("a")])
def test_waiting_ends_when_another_process_stores_the_end(
    connect: Connect, meta: Meta
) -> None:
    waiting, storing = connect(), connect()
    storing.store([Meta("a", State.STARTED)])
    found: list[Meta | None] = []
    thread = threading.Thread(
        target=lambda: found.append(waiting.wait("a", int(PATIENCE * SECOND)))
    )
    thread.start()

    storing.store([Meta("a", State.RETRY), success("another")])
    assert thread.is_alive()
    storing.store([meta])
    thread.join(PATIENCE)

    assert [one and one.status for one in found] == [meta.status]


def test_a_closed_backend_can_be_closed_again(backend: ResultBackend) -> None:
    backend.store([success("a")])

    backend.close()
    backend.close()


def test_without_a_backend_reading_says_what_to_set() -> None:
    # A broker elsewhere: on beatd's own files results are kept by default.
    backend = results.connect(read({"broker_url": "redis://x"}).settings)

    backend.store([success("a")])
    backend.forget("a")
    backend.close()

    for reading in (lambda: backend.load(["a"]), lambda: backend.wait("a", None)):
        with pytest.raises(ResultUnavailable, match="set result_backend"):
            reading()


# Groups


def test_the_ids_of_a_group_are_kept_until_they_are_removed(connect: Connect) -> None:
    first, second = connect(), connect()
    first.save_group("g", [["g", None], [[["a", None], None]]])
    first.save_group("g", [["g", None], [[["b", None], None]]])

    assert second.load_group("g") == [["g", None], [[["b", None], None]]]
    assert second.load(["g"]) == {}
    second.forget_group("g")
    assert first.load_group("g") is None
    first.forget_group("g")


def test_the_ids_of_a_group_are_kept_no_longer_than_results(connect: Connect) -> None:
    backend = connect(result_expires=1)
    backend.save_group("g", [["g", None], []])

    eventually(lambda: backend.load_group("g") is None, "the group to expire")
