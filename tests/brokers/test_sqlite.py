"""What only the SQLite broker does: files, locks, processes of one host."""

import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import pytest

from beatd.brokers.items import Acknowledge, SetAside, Term
from beatd.brokers.sqlite import LARGEST_WAL, SQL, SQLiteBroker
from beatd.brokers.sqlite.statements import LATER_COLUMNS
from beatd.errors import BrokerRefused, BrokerUnavailable, ConfigError, TermOver
from beatd.instant import MINUTE, SECOND
from beatd.scheduler.schedule_file import ScheduleFile
from beatd.storage.file_lock import FileLock
from beatd.storage.sqlite_file import BROKER, make
from beatd.timetable.imprint import Imprint
from beatd.timetable.ledger import ERA_UNKNOWN, Edition, LedgerCopy
from tests.brokers.making import (
    NOON,
    emission,
    lead,
    lying_in,
    mark,
    messages,
    outgoing,
    settle,
    take_all,
)
from tests.fakes import FakeClock
from tests.rights import full_disk, umask
from tests.servers import PATIENCE

LONG = int(PATIENCE) * SECOND

Connect = Callable[..., SQLiteBroker]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def connect(path: Path) -> Iterator[Connect]:
    """Yield one more broker object on the file, as another process would have."""
    made: list[SQLiteBroker] = []

    def connect(namespace: str = "test", **options: object) -> SQLiteBroker:
        made.append(SQLiteBroker(path, namespace=namespace, **options))  # type: ignore[arg-type]  # options of many types
        return made[-1]

    yield connect
    for broker in made:
        broker.close()


@pytest.fixture
def broker(connect: Connect) -> SQLiteBroker:
    return connect()


@contextmanager
def process(path: Path, *lines: str) -> Iterator["subprocess.Popen[str]"]:
    """Let another process, with a broker on the file, run these lines."""
    code = [
        "import os, signal",
        "from tests.brokers.making import *",
        "from pathlib import Path",
        "from beatd.brokers.sqlite import SQLiteBroker",
        f"broker = SQLiteBroker(Path({str(path)!r}), namespace='test')",
        *lines,
    ]
    command = [sys.executable, "-c", "\n".join(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def line_of(running: "subprocess.Popen[str]") -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


# The file


def test_files_are_for_their_owner_only_whatever_the_umask(
    broker: SQLiteBroker, path: Path
) -> None:
    with umask(0):
        lead(broker)
        modes = {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()}

    assert modes == dict.fromkeys(
        ["broker.db", "broker.db-shm", "broker.db-wal", "broker.db.test.lock"], 0o600
    )


def test_nothing_is_made_before_the_first_use(broker: SQLiteBroker, path: Path) -> None:
    assert list(path.parent.iterdir()) == []

    assert str(path) in broker.ping()

    assert path.exists()


def test_a_file_that_is_made_is_said_once(
    broker: SQLiteBroker, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        broker.send([outgoing(b"1")])
        broker.send([outgoing(b"2")])

    made = (
        f"made {path.absolute()}: a new broker, to which nobody has sent anything yet"
    )
    assert [record.getMessage() for record in caplog.records] == [made]


def test_a_file_is_made_and_said_by_one_of_those_who_need_it(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # As in a worker with a scheduler: both have looked before either has made it.
    brokers = [SQLiteBroker(path, namespace="test") for _ in "ab"]

    with caplog.at_level("INFO"), ThreadPoolExecutor() as threads:
        assert len(list(threads.map(SQLiteBroker.ping, brokers))) == 2

    assert [vars(record)["event"] for record in caplog.records] == ["broker.made"]
    for broker in brokers:
        broker.close()


def another_programs(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE messages (id INTEGER)")
    db.close()


def a_schedule_file(path: Path) -> None:
    file = ScheduleFile(path, namespace="x", timezone="UTC", clock=FakeClock())
    file.try_lock()
    file.unlock()


def of_a_later_version(path: Path) -> None:
    of_ours(path)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def cut_off(path: Path) -> None:
    of_ours(path)
    os.truncate(path, 3000)


def of_ours(path: Path) -> None:
    broker = SQLiteBroker(path, namespace="test")
    broker.send([outgoing(b"x" * 10_000)])
    broker.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (another_programs, "an SQLite database of something else"),
        (a_schedule_file, "its schedule file"),
        (of_a_later_version, "its format is 99"),
        (cut_off, "is damaged"),
        (Path.mkdir, "is a directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_left_as_it_was(
    path: Path, make: Callable[[Path], None], words: str
) -> None:
    make(path)
    before = {one: one.is_file() and one.read_bytes() for one in path.parent.iterdir()}

    with pytest.raises(ConfigError, match=words) as refused:
        SQLiteBroker(path, namespace="test")

    assert str(path) in str(refused.value)
    after = {one: one.is_file() and one.read_bytes() for one in path.parent.iterdir()}
    assert after == before


def test_a_file_whose_wal_was_half_moved_into_it_is_no_damaged_file(
    path: Path, connect: Connect
) -> None:
    """As a process leaves it that is killed then, or meets the end of the disk."""
    before, wal = path.with_name("before"), path.with_name(f"{path.name}-wal")
    messages = [bytes([n]) * 9000 for n in range(99)]
    broker = connect()
    broker.send([outgoing(message) for message in messages[:1]])
    shutil.copy(path, before)
    broker.send([outgoing(message) for message in messages[1:]])
    shutil.copy(wal, path.with_name("before-wal"))
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with before.open("r+b") as file:
        file.write(path.read_bytes()[:4096])  # its first page

    after = SQLiteBroker(before, namespace="test")
    after.join("w", MINUTE)
    taken = after.take("w", ["celery"], 200, 1)
    after.close()

    assert [delivery.message for delivery in taken] == messages


def test_many_may_make_the_file_at_once(path: Path, connect: Connect) -> None:
    brokers = [connect() for _ in range(8)]
    together = threading.Barrier(len(brokers))

    def first_use(number: int) -> None:
        together.wait()
        brokers[number].send([outgoing(b"%d" % number)])

    with ThreadPoolExecutor(len(brokers)) as threads:
        list(threads.map(first_use, range(len(brokers))))

    assert sorted(lying_in(brokers[0])) == [b"%d" % n for n in range(8)]


def test_a_file_removed_in_use_is_made_anew_and_the_term_is_over(
    broker: SQLiteBroker, path: Path
) -> None:
    term = lead(broker)
    broker.emit(term, [emission("a")], MINUTE)
    path.unlink()

    with pytest.raises(TermOver):
        broker.emit(term, [emission("a")], MINUTE)

    term = lead(broker)
    broker.emit(term, [emission("b")], MINUTE)
    assert lying_in(broker) == [b"b@0"]
    assert broker.read_ledger().marks == {"b": mark(NOON)}


def test_a_foreign_file_put_in_its_place_is_refused_and_left_as_it_was(
    broker: SQLiteBroker, path: Path
) -> None:
    lead(broker)
    path.unlink()
    path.write_text("mine")

    with pytest.raises(BrokerRefused, match="a text file"):
        broker.send([outgoing(b"1")])

    assert path.read_text() == "mine"


def test_a_database_locked_for_too_long_is_unavailable(
    connect: Connect, path: Path
) -> None:
    broker = connect(busy_timeout=0.02)
    broker.ping()
    rude = sqlite3.connect(path, isolation_level=None)
    rude.execute("BEGIN IMMEDIATE")

    with pytest.raises(BrokerUnavailable, match="locked by another process"):
        broker.send([outgoing(b"1")])

    rude.close()
    broker.send([outgoing(b"2")])
    assert lying_in(broker) == [b"2"]


def test_a_standby_whose_mark_cannot_be_written_hears_what_the_leader_announces(
    connect: Connect, path: Path
) -> None:
    broker, standby = connect(), connect(busy_timeout=0.02)
    broker.announce(lead(broker), Imprint("d1", b"entries"))
    rude = sqlite3.connect(path, isolation_level=None)
    rude.execute("BEGIN IMMEDIATE")

    assert standby.stand_by("host-b pid 4", "d2") == Imprint("d1", b"entries")

    rude.close()
    assert broker.overview([]).standbys == []


def test_a_full_disk_refuses_the_whole_batch_and_nothing_is_lost(
    broker: SQLiteBroker,
) -> None:
    term = lead(broker)
    batch = [emission(f"entry-{n}", message=b"x" * 1000) for n in range(500)]

    with full_disk(room=50_000), pytest.raises(BrokerRefused, match=r"broker\.db"):
        broker.emit(term, batch, MINUTE)
    assert broker.read_ledger().marks == {}

    assert len(broker.emit(term, batch, MINUTE)) == 500
    assert len(lying_in(broker)) == 500


def test_a_trigger_that_undoes_the_whole_step_refuses_it_and_nothing_is_done(
    broker: SQLiteBroker, path: Path
) -> None:
    term = lead(broker)
    broker.join("w", LONG)
    broker.send([outgoing(b"taken"), outgoing(b"\x1b")])
    one, two = take_all(broker, "w", ["celery"])
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "CREATE TRIGGER one BEFORE INSERT ON messages WHEN NEW.message = x'bad0'"
            " BEGIN SELECT RAISE(ROLLBACK, 'not this'); END"
        )
        db.execute(
            "CREATE TRIGGER two BEFORE DELETE ON messages WHEN OLD.message = x'1b'"
            " BEGIN SELECT RAISE(ROLLBACK, 'not this'); END"
        )
    batch = [emission("bad", message=b"\xba\xd0"), emission("good")]

    with pytest.raises(BrokerRefused, match=r"broker\.db .*ABORT.*not this"):
        broker.emit(term, batch, LONG)
    with pytest.raises(BrokerRefused, match="not this"):
        settle(broker, "w", Acknowledge(one), Acknowledge(two))

    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM ledger").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM messages").fetchone() == (2,)


def test_the_wal_that_a_long_reader_let_grow_is_cut_again(
    broker: SQLiteBroker, path: Path
) -> None:
    wal = path.with_name(f"{path.name}-wal")
    large = outgoing(b"x" * 1024 * 1024)
    broker.send([large])
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchall()
        for _ in range(12):
            broker.send([large])
        while_reading = wal.stat().st_size

    for _ in range(3):  # the first writes all of it back, the next begins anew
        broker.send([outgoing(b"x")])

    assert while_reading > LARGEST_WAL
    assert wal.stat().st_size <= LARGEST_WAL


# Rows that are none of ours


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("entry", "CAST(x'ff' AS TEXT)"),
        ("slot", "'noon'"),
        ("slot", str(10**18)),
        ("slot", str(-(10**18))),
        ("fingerprint", "17.5"),
        ("fingerprint", "CAST(x'ff' AS TEXT)"),
        ("runs", "'many'"),
        ("runs", "-1"),
        ("last", "x'00'"),
        ("last", str(10**18)),
    ],
)
def test_a_row_of_the_ledger_that_is_no_mark_is_passed_over(
    broker: SQLiteBroker,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    column: str,
    value: str,
) -> None:
    marks = {"a": mark(NOON), "b": mark(NOON)}
    broker.write_ledger(lead(broker), marks, (), 0)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE ledger SET {column} = {value} WHERE entry = 'a'")
        if column == "fingerprint" and value == "17.5":
            db.execute("UPDATE ledger SET slot = 1.5 WHERE entry = 'a'")

    assert broker.read_ledger().marks == {"b": mark(NOON)}
    assert broker.read_ledger().marks == {"b": mark(NOON)}

    assert [r.__dict__["event"] for r in caplog.records] == ["ledger.unreadable"]
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE ledger SET slot = 'another scribble'")
    broker.read_ledger()
    assert "another scribble" in caplog.records[-1].getMessage()


def test_a_run_and_a_message_that_are_no_text_and_no_bytes_are_read(
    broker: SQLiteBroker, path: Path
) -> None:
    lead(broker)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO runs VALUES ('test', 'a', CAST(x'ff' AS TEXT))")
        db.execute("INSERT INTO runs VALUES ('test', 'b', 17)")
        db.execute(
            "INSERT INTO dead VALUES (1, 'q', 1, 'why', 1, 1, 'w', '', '', 1, 'text')"
        )

    assert broker.running(["a", "b"]) == {"a": "\ufffd", "b": "17"}
    assert broker.dead_message("1") == b"text"


@pytest.mark.parametrize("value", ["'text'", "x'ff'", "-1", str(2**60), "1.5"])
def test_a_term_and_an_era_that_are_no_numbers_are_passed_over(
    broker: SQLiteBroker, path: Path, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    broker.write_ledger(lead(broker), {"a": mark(NOON)}, (), 3)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE lead SET era = {value}, number = {value}")

    assert broker.read_ledger() == LedgerCopy({"a": mark(NOON)}, ERA_UNKNOWN)
    term = broker.acquire("we", MINUTE, 41)

    assert isinstance(term, Term)
    assert term.number == 42
    assert broker.renew(term, MINUTE)
    events = [r.__dict__["event"] for r in caplog.records]
    assert events == ["era.unreadable", "term.unreadable"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("buried", "'today'"),
        ("buried", str(10**18)),
        ("deliveries", "x'ff'"),
        ("task", "CAST(x'ff' AS TEXT)"),
        ("size", "1.5"),
    ],
)
def test_a_dead_letter_that_is_none_is_passed_over_and_kept(
    broker: SQLiteBroker,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    column: str,
    value: str,
) -> None:
    broker.send([outgoing(b"1"), outgoing(b"2")])
    broker.join("w1", MINUTE)
    for one in broker.take("w1", ["celery"], 2, 1):
        settle(broker, "w1", SetAside(one, "why"))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE dead SET {column} = {value} WHERE id = 1")

    assert [letter.id for letter in broker.dead_letters()] == ["2"]
    assert [letter.id for letter in broker.dead_letters()] == ["2"]

    assert [r.__dict__["event"] for r in caplog.records] == ["dead.unreadable"]
    assert broker.dead_message("1") == b"1"


# Leading


def test_a_stopped_leader_keeps_the_lead_and_a_killed_one_does_not(
    broker: SQLiteBroker, path: Path
) -> None:
    lines = ["term = broker.acquire('the other', 1, 7)", "print(term.number, flush=1)"]
    with process(path, *lines, "signal.pause()") as running:
        assert line_of(running) == "8"
        running.send_signal(signal.SIGSTOP)
        assert not isinstance(broker.acquire("we", MINUTE, 0), Term)
        assert broker.leader() == "the other"

        with ThreadPoolExecutor() as threads:
            released = threads.submit(broker.await_release, LONG)
            running.kill()
            assert released.result() is True

    term = broker.acquire("we", MINUTE, 0)
    assert isinstance(term, Term)
    assert term.number == 9


def test_a_leader_whose_lock_file_was_removed_is_fenced_off_by_the_term(
    connect: Connect, path: Path
) -> None:
    old, new = connect(), connect()
    old_term = lead(old)
    path.with_name("broker.db.test.lock").unlink()

    new_term = lead(new)

    assert not old.renew(old_term, MINUTE)
    with pytest.raises(TermOver):
        old.emit(old_term, [emission("a")], MINUTE)
    assert new.emit(new_term, [emission("a")], MINUTE)


def test_two_do_not_take_the_lead_from_each_other_once_the_lock_file_was_removed(
    connect: Connect, path: Path
) -> None:
    old, new = connect(), connect()
    lead(old)
    path.with_name("broker.db.test.lock").unlink()
    new_term = lead(new)

    assert not isinstance(old.acquire("the old one", MINUTE, 0), Term)

    assert new.renew(new_term, MINUTE)
    assert new.emit(new_term, [emission("a")], MINUTE)


def test_a_leader_whose_lock_file_was_removed_locks_anew(
    connect: Connect, path: Path
) -> None:
    old, new = connect(), connect()
    term = lead(old)
    path.with_name("broker.db.test.lock").unlink()

    assert not old.renew(term, MINUTE)
    assert lead(old).number == term.number + 1

    assert not isinstance(new.acquire("the new one", MINUTE, 0), Term)


def test_a_lock_file_that_is_a_link_is_refused_with_its_path(
    broker: SQLiteBroker, path: Path
) -> None:
    lock = path.with_name("broker.db.test.lock")
    lock.symlink_to(path.with_name("elsewhere"))

    with pytest.raises(BrokerRefused, match=rf"{lock} is a symbolic link"):
        broker.acquire("we", MINUTE, 0)

    assert not lock.exists()


def test_who_waits_for_the_file_to_be_made_says_for_whom_and_not_for_ever(
    path: Path,
) -> None:
    guard = FileLock(path.with_name("broker.db.new.lock"))
    guard.try_lock("pid 17")

    with pytest.raises(TimeoutError, match=r"pid 17 is making it.*broker\.db"):
        make(path, BROKER, [], patience=0.04)

    assert not path.exists()
    guard.remove()
    make(path, BROKER, [])
    assert [file.name for file in path.parent.iterdir()] == ["broker.db"]


def test_who_may_read_the_folder_cannot_keep_the_file_from_being_made(
    broker: SQLiteBroker, path: Path
) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)

    try:
        assert lead(broker)
    finally:
        os.close(folder)


def test_a_leader_that_lost_sight_of_its_term_may_begin_another(
    broker: SQLiteBroker,
) -> None:
    first = lead(broker)

    second = lead(broker)

    assert second.number == first.number + 1
    assert not broker.renew(first, MINUTE)


def test_who_closes_gives_the_lead_back(connect: Connect) -> None:
    first, second = connect(), connect()
    lead(first)

    first.close()

    assert second.leader() is None
    assert lead(second)


def test_who_lets_go_of_the_lead_leaves_it_to_others(connect: Connect) -> None:
    first, second = connect(), connect()
    lead(first)

    first.let_go()

    assert lead(second)


def test_each_namespace_has_its_own_lead_and_ledger(connect: Connect) -> None:
    shop, blog = connect("shop"), connect("a/b")
    in_shop, in_blog = lead(shop), lead(blog)

    shop.emit(in_shop, [emission("a", run="id-1")], MINUTE)
    blog.emit(in_blog, [emission("a"), emission("b")], MINUTE)

    assert shop.read_ledger().marks.keys() == {"a"}
    assert blog.read_ledger().marks.keys() == {"a", "b"}
    assert blog.running(["a"]) == {}
    assert lying_in(shop) == [b"a@0", b"a@0", b"b@0"]


def test_ledger_and_messages_agree_after_a_kill(
    broker: SQLiteBroker, path: Path
) -> None:
    for round_ in range(3):
        lines = [
            "term = lead(broker)",
            f"slot = {NOON + round_ * 10**6}",
            "while True:",
            "    slot += 1",
            "    batch = [emission(f'entry-{n}', slot) for n in range(50)]",
            "    broker.emit(term, batch, MINUTE)",
            "    print(slot, flush=True)",
        ]
        with process(path, *lines) as running:
            for _ in range(5 + round_):
                answered = int(line_of(running))
            running.kill()

    marks = broker.read_ledger().marks
    lying = set(lying_in_full(broker))
    assert len(lying) == len(lying_in_full(broker))
    for n in range(50):
        last = marks[f"entry-{n}"].slot
        assert last >= answered
        slots = {s for name, s in lying if name == f"entry-{n}"}
        assert max(slots) == last
        in_last_round = {s for s in slots if s > NOON + 2 * 10**6}
        assert in_last_round == set(range(NOON + 2 * 10**6 + 1, last + 1))


_looks = count(1)


def lying_in_full(broker: SQLiteBroker) -> list[tuple[str, int]]:
    """Return entry and slot of every message, without limit."""
    broker.join("looker", MINUTE)
    taken = broker.take("looker", ["celery"], 10**6, next(_looks))
    broker.leave("looker")
    parts = [one.message.decode().split("@") for one in taken]
    return [(name, NOON + int(slot)) for name, slot in parts]


# Workers


def test_priority_steps_are_the_ones_given(connect: Connect) -> None:
    broker = connect(priority_steps=[0, 5])

    order = [9, 4, 5, 0]
    broker.send([outgoing(str(n).encode(), priority=n) for n in order])

    assert lying_in(broker) == [b"4", b"0", b"9", b"5"]


def test_messages_of_other_priority_steps_are_taken_as_well(connect: Connect) -> None:
    connect(priority_steps=[0, 7]).send([outgoing(b"7", priority=7), outgoing(b"0")])

    assert lying_in(connect()) == [b"0", b"7"]


def test_a_lease_from_before_the_machines_start_has_run_out(connect: Connect) -> None:
    before, after = FakeClock(), FakeClock()
    before.passed = 90 * MINUTE  # up for long
    worker = connect(clock=before)
    worker.join("w1", MINUTE)
    worker.send([outgoing(b"1")])
    worker.take("w1", ["celery"], 1, 1)
    after.passed = MINUTE  # just started

    assert connect(clock=after).recover() == 1


def test_a_worker_that_has_gone_is_forgotten_after_an_hour(
    connect: Connect, path: Path
) -> None:
    clock = FakeClock()
    broker = connect(clock=clock)
    for name in ("w1", "w2"):
        broker.join(name, MINUTE)
        broker.leave(name)
        clock.go_to(clock.now() + 61 * MINUTE)
    broker.join("w3", MINUTE)

    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT worker FROM workers").fetchall() == [("w3",)]


def test_a_step_of_the_wall_clock_ends_no_lease(connect: Connect) -> None:
    clock = FakeClock()
    broker = connect(clock=clock)
    broker.join("w1", MINUTE)
    broker.send([outgoing(b"1")])
    broker.take("w1", ["celery"], 1, 1)

    clock.step(120 * MINUTE)

    assert broker.recover() == 0


def test_waiting_costs_next_to_nothing(broker: SQLiteBroker) -> None:
    broker.ping()
    started, used = time.monotonic(), time.thread_time()

    assert broker.await_message(["celery"], 500) is False

    assert time.thread_time() - used < 0.1 * (time.monotonic() - started)


def test_threads_and_forked_children_share_the_broker(
    broker: SQLiteBroker, path: Path
) -> None:
    lines = [
        "broker.send([outgoing(b'parent')])",
        "child = os.fork()",
        "broker.send([outgoing(b'child' if child == 0 else b'after')])",
        "if child == 0: os._exit(0)",
        "assert os.waitpid(child, 0)[1] == 0",
        "broker.send([outgoing(b'end')])",
    ]
    with process(path, *lines) as running:
        assert running.wait(PATIENCE) == 0

    lying = lying_in(broker)
    assert (lying[0], set(lying[1:3]), lying[3]) == (
        b"parent",
        {b"child", b"after"},
        b"end",
    )


def test_many_threads_send_and_take_without_losing_a_message(
    broker: SQLiteBroker,
) -> None:
    def send(number: int) -> None:
        for n in range(20):
            broker.send([outgoing(b"%d" % (number * 20 + n))])

    def take(number: int) -> list[bytes]:
        broker.join(f"w{number}", MINUTE)
        taken: list[bytes] = []
        for attempt in range(40):
            taken += messages(broker.take(f"w{number}", ["celery"], 3, attempt))
        return taken

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(send, range(3)))
        taken = list(threads.map(take, range(3)))

    assert sorted(int(one) for part in taken for one in part) == list(range(60))


def test_no_statement_looks_at_more_than_it_gives(
    broker: SQLiteBroker, path: Path
) -> None:
    broker.ping()
    with sqlite3.connect(path) as db:
        plans = {
            name: db.execute(f"EXPLAIN QUERY PLAN {sql}", ["0"] * sql.count("?"))
            for name, sql in SQL.items()
            if not name.startswith("make_")
        }
        steps = {f"{name}: {row[3]}" for name, plan in plans.items() for row in plan}
    db.close()

    assert {step for step in steps if "SCAN" in step or "TEMP" in step} == {
        # One row for each worker that has lived within the last hour.
        "forget_workers: SCAN workers",
        "leases: SCAN workers",
        "observed: SCAN workers",
        "leased: SCAN workers",
        "is_unattended: SCAN workers",
        # One row for each of these workers that is dead.
        "leased: SCAN json_each VIRTUAL TABLE INDEX 1:",
        # Whether there is a first one.
        "runs_to_purge: SCAN runs",
        "is_unattended: SCAN messages USING INDEX ready",
        "is_unattended: SCAN CONSTANT ROW",
        # All are asked for.
        "letters: SCAN dead",
        # One row for each queue that is asked for.
        "delayed: SCAN json_each VIRTUAL TABLE INDEX 1:",
        "is_ready: SCAN CONSTANT ROW",
        # The rows that are written.
        "advance: SCAN CONSTANT ROW",
        "advance: SCAN (subquery-1)",
        "push: SCAN CONSTANT ROW",
        "push: SCAN (subquery-1)",
    }


def test_a_file_of_an_earlier_build_gets_the_columns_that_it_lacks(
    broker: SQLiteBroker, path: Path
) -> None:
    term = lead(broker)
    broker.write_ledger(term, {"a": mark(NOON)}, (), 3)
    broker.close()
    with closing(sqlite3.connect(path)) as db, db:
        for table, column in LATER_COLUMNS:
            db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")

    later = SQLiteBroker(path, namespace="test")
    ledger = later.read_ledger()
    later.write_ledger(lead(later), {}, (), 3, Edition("lineage", 1))

    assert ledger == LedgerCopy({"a": mark(NOON)}, 3)
    assert later.read_ledger().edition == Edition("lineage", 1)
    later.close()


def test_who_only_looks_or_empties_queues_makes_no_file(
    connect: Connect, path: Path
) -> None:
    # It might belong to the wrong user: root, who is not the one that runs beatd.
    broker = connect()

    assert broker.dead_letters() == []
    assert broker.purge(["celery"]) == 0

    assert not path.exists()
