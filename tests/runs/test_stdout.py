"""What is printed becomes records of the log, one for each line."""

import io
import logging
import os
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from beatd.runs import stdout as printed
from beatd.runs.stdout import LONGEST_LINE, LoggedStream

REDIRECTED = logging.getLogger("beatd.redirected")


class Ear(logging.Handler):
    """Remembers what was logged; does `also` each time."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.levels: set[int] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.levels.add(record.levelno)


@contextmanager
def connected(handler: logging.Handler) -> Iterator[None]:
    REDIRECTED.addHandler(handler)
    REDIRECTED.propagate = False  # pytest would keep all records
    REDIRECTED.setLevel(logging.INFO)
    try:
        yield
    finally:
        REDIRECTED.removeHandler(handler)
        REDIRECTED.propagate = True
        REDIRECTED.setLevel(logging.NOTSET)


@contextmanager
def redirected() -> Iterator[None]:
    printed.redirect(logging.INFO)
    try:
        yield
    finally:
        printed.restore()


@pytest.fixture
def ear() -> Iterator[Ear]:
    made = Ear()
    with connected(made):
        yield made


@pytest.fixture
def real() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def stream(real: io.StringIO) -> LoggedStream:
    return LoggedStream(cast(io.TextIOWrapper, real), logging.WARNING)


def in_thread(*works: object) -> None:
    threads = [threading.Thread(target=work) for work in works]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_each_line_is_a_record(stream: LoggedStream, ear: Ear) -> None:
    print("one", 1, file=stream)
    print("two\n  three\n\nfour", file=stream)

    assert ear.lines == ["one 1", "two", "  three", "four"]
    assert ear.levels == {logging.WARNING}


def test_a_line_waits_for_its_end_unless_it_is_flushed(
    stream: LoggedStream, ear: Ear
) -> None:
    print("so ", end="", file=stream)
    assert ear.lines == []
    print("far", end="", flush=True, file=stream)
    print("done", file=stream)

    assert ear.lines == ["so far", "done"]


def test_threads_do_not_get_into_each_others_lines(
    stream: LoggedStream, ear: Ear
) -> None:
    meeting = threading.Barrier(2)

    def say(words: list[str]) -> None:
        for word in words:
            meeting.wait(10)
            print(word, end=" ", file=stream)
        print(file=stream)

    in_thread(lambda: say(["a", "b", "c"]), lambda: say(["1", "2", "3"]))

    assert sorted(ear.lines) == ["1 2 3 ", "a b c "]


def test_what_a_thread_leaves_without_an_end_is_not_lost(
    stream: LoggedStream, ear: Ear
) -> None:
    in_thread(lambda: print("last words", end="", file=stream))
    stream.flush()

    assert ear.lines == ["last words"]


def test_a_flush_leaves_alone_what_others_have_begun(
    stream: LoggedStream, ear: Ear
) -> None:
    begun, flushed = threading.Event(), threading.Event()

    def say() -> None:
        print("be", end="", file=stream)
        begun.set()
        assert flushed.wait(10)
        print("gun", file=stream)

    thread = threading.Thread(target=say)
    thread.start()
    assert begun.wait(10)
    stream.flush()
    flushed.set()
    thread.join()

    assert ear.lines == ["begun"]


def test_a_line_without_end_goes_on_in_pieces_and_is_not_kept(
    stream: LoggedStream,
) -> None:
    lengths: list[int] = []

    class Scales(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lengths.append(len(record.getMessage()))

    megabyte = "x" * 1_000_000
    with connected(Scales()):
        stream.write(megabyte)
        tracemalloc.start()
        for _ in range(50):
            stream.write(megabyte)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        stream.flush()

    assert sum(lengths) == 51_000_000
    assert max(lengths) < 2 * LONGEST_LINE
    assert most < len(megabyte)


def test_of_a_line_that_writes_over_itself_its_end_is_logged(
    stream: LoggedStream, ear: Ear
) -> None:
    print("\r 10%\r 50%\r100%", file=stream)
    stream.write("as in a file of Windows\r\n")

    assert ear.lines == ["100%", "as in a file of Windows"]


def test_a_log_in_trouble_says_so_on_the_real_stream(
    stream: LoggedStream, real: io.StringIO, ear: Ear
) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print("no space left", file=stream)

    with connected(Broken()):
        print("words", file=stream)
        print("more words", file=stream)

    assert real.getvalue() == "no space left\n" * 2
    assert ear.lines == ["words", "more words"]


def test_a_real_stream_that_is_closed_is_not_missed(
    stream: LoggedStream, real: io.StringIO
) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print("no space left", file=stream, flush=True)

    real.close()
    with connected(Broken()):
        assert stream.write("words\n") == len("words\n")


def test_nobody_closes_it_for_the_others(stream: LoggedStream, ear: Ear) -> None:
    print("begun", end="", file=stream)
    stream.close()
    print("and on", file=stream)

    assert ear.lines == ["begun", "and on"]
    assert not stream.closed


def test_it_is_a_stream_like_the_one_it_stands_for(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with redirected():
        assert sys.stdout.writable()
        assert not sys.stdout.isatty()
        assert sys.stdout.encoding == "utf-8"
        os.write(sys.stdout.fileno(), b"by number\n")
        sys.stdout.buffer.write(b"as bytes\n")
        sys.stdout.buffer.flush()
        with pytest.raises(TypeError):
            sys.stdout.write(b"bytes")  # type: ignore[arg-type]

    assert "by number\n" in capfd.readouterr().out


def test_during_the_block_what_is_printed_is_logged_and_then_no_more(ear: Ear) -> None:
    before = sys.stdout, sys.stderr
    with redirected():
        print("out")
        print("err", file=sys.stderr)
        print("left", end="")

    assert (sys.stdout, sys.stderr) == before
    assert ear.lines == ["out", "err", "left"]
    assert ear.levels == {logging.INFO}


def test_a_flush_fails_for_nothing_that_a_task_did_to_the_streams() -> None:
    before = sys.stdout
    closed = io.StringIO()
    closed.close()
    try:
        for stream in (closed, None, "nonsense"):
            sys.stdout = stream
            printed.flush()
    finally:
        sys.stdout = before
