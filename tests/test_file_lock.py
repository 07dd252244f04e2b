"""The kernel lock: one has it, and it is gone with its process."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beatd.storage.file_lock import FileLock, NotALock
from tests.servers import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@contextmanager
def process(path: Path, *more: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that takes the lock, does `more`, and says when it is done."""
    code = [
        "import os, signal",
        "from pathlib import Path",
        "from beatd.storage.file_lock import FileLock",
        f"lock = FileLock(Path({str(path)!r}))",
        "assert lock.try_lock('the other process')",
        *more,
        # In one piece: print() may make two, and a child writes here, too.
        "os.write(1, b'%d\\n' % os.getpid())",
        "signal.pause()",
    ]
    command = [sys.executable, "-c", "\n".join(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def pid_said_by(running: "subprocess.Popen[str]") -> int:
    assert running.stdout is not None
    return int(running.stdout.readline())


def test_one_has_the_lock_and_its_words_can_be_read(path: Path) -> None:
    mine, theirs = FileLock(path), FileLock(path)
    assert theirs.is_free()

    assert mine.try_lock("a long line about me")
    assert mine.try_lock("again")

    assert (mine.held, theirs.held) == (True, False)
    assert not theirs.try_lock("they")
    assert not theirs.is_free()
    assert theirs.holder() == "a long line about me"
    mine.unlock()


def test_who_only_looks_whether_a_lock_is_free_keeps_nobody_from_it(path: Path) -> None:
    lock, onlooker = FileLock(path), FileLock(path)
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            onlooker.is_free()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(2000):
            assert lock.try_lock("mine")
            lock.unlock()
    finally:
        done.set()
        thread.join()


def test_an_unlocked_lock_is_free_and_says_nothing(path: Path) -> None:
    mine, theirs = FileLock(path), FileLock(path)
    mine.try_lock("a long line about me")

    mine.unlock()
    mine.unlock()

    assert theirs.is_free()
    assert theirs.holder() == ""
    assert theirs.try_lock("they")
    assert theirs.holder() == "they"
    theirs.unlock()


def test_a_killed_process_has_no_lock_and_a_stopped_one_keeps_it(path: Path) -> None:
    lock = FileLock(path)
    with process(path) as running:
        pid = pid_said_by(running)
        os.kill(pid, signal.SIGSTOP)
        assert not lock.try_lock("we")
        assert lock.holder() == "the other process"

        running.kill()
        running.wait()

    assert lock.try_lock("we")
    lock.unlock()


def test_a_child_does_not_keep_the_lock_of_its_dead_parent(path: Path) -> None:
    lock = FileLock(path)
    with process(path, "os.fork()") as running:
        pids = {pid_said_by(running), pid_said_by(running)}
        assert not lock.try_lock("we")
        [child] = pids - {running.pid}

        running.kill()
        running.wait()

        assert eventually(lambda: lock.try_lock("we"))
        os.kill(child, signal.SIGKILL)
    lock.unlock()


def test_who_holds_a_lock_file_that_was_removed_is_not_in_the_way(path: Path) -> None:
    mine, theirs = FileLock(path), FileLock(path)
    mine.try_lock("me")
    path.unlink()

    assert theirs.is_free()
    assert theirs.try_lock("they")

    assert theirs.holder() == "they"
    mine.unlock()
    theirs.unlock()


def test_who_holds_a_lock_file_that_was_removed_notices_it(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine, theirs = FileLock(path), FileLock(path)
    mine.try_lock("me")
    path.unlink()
    theirs.try_lock("they")

    assert not mine.holds()
    assert not mine.try_lock("me")
    assert [record.event for record in caplog.records] == ["lock.lost"]  # type: ignore[attr-defined]  # of EventLog
    assert (theirs.holds(), theirs.holder()) == (True, "they")

    theirs.unlock()
    assert mine.try_lock("me")
    assert mine.holds()
    mine.unlock()


def test_a_lock_file_that_was_removed_is_locked_anew(path: Path) -> None:
    mine, theirs = FileLock(path), FileLock(path)
    mine.try_lock("me")
    path.unlink()

    assert mine.try_lock("me")

    assert not theirs.try_lock("they")
    mine.unlock()


def make_link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


def make_second_name(path: Path, precious: Path) -> None:
    path.hardlink_to(precious)


def make_pipe(path: Path, precious: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path, precious: Path) -> None:
    path.mkdir()


def make_other_file(path: Path, precious: Path) -> None:
    path.write_text("something\nof value\n")


def make_other_file_of_nuls(path: Path, precious: Path) -> None:
    path.write_bytes(bytes(100_000))


def make_nuls_and_more(path: Path, precious: Path) -> None:
    path.write_bytes(bytes(100) + b"of value")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (make_link, "is a symbolic link"),
        (make_second_name, "has 2 names"),
        (make_pipe, "is not a plain file"),
        (make_folder, "is not a plain file"),
        (make_other_file, "has something else in it"),
        (make_other_file_of_nuls, "has something else in it"),
        (make_nuls_and_more, "has something else in it"),
    ],
)
def test_what_is_not_a_lock_file_of_ours_is_refused_and_left_as_it_is(
    path: Path, make: Callable[[Path, Path], None], problem: str
) -> None:
    precious = path.with_name("precious")
    precious.write_text("something\nof value\n")
    make(path, precious)
    before = path.lstat()
    lock = FileLock(path)

    with pytest.raises(NotALock, match=f"{path} {problem}.*left as it is"):
        lock.try_lock("we")
    lock.unlock()

    now = path.lstat()
    assert (now.st_ino, now.st_size) == (before.st_ino, before.st_size)
    assert precious.read_text() == "something\nof value\n"
    assert not lock.held


def test_a_link_to_nothing_makes_no_file_elsewhere(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.symlink_to(target)

    with pytest.raises(NotALock):
        FileLock(path).try_lock("we")
    with pytest.raises(NotALock):
        FileLock(path).is_free()

    assert not target.exists()


@pytest.mark.parametrize(
    "left",
    [
        *("", "host-a pid 17", "pid 17 on this host, started 2027-01-15 12:00 UTC"),
        *("\0" * 40, "locked by host-a pid 17\0\0", "\0\0pid 17 on this host"),
    ],
)
def test_a_lock_file_that_a_beatd_or_a_crash_left_is_taken(
    path: Path, left: str
) -> None:
    path.write_text(left)
    lock = FileLock(path)

    assert lock.try_lock("we")

    assert lock.holder() == "we"
    lock.unlock()


def test_on_a_full_disk_no_former_holder_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("locked by a former one")

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    lock = FileLock(path)

    assert lock.try_lock("me") is True
    assert lock.holder() == ""
    lock.unlock()
