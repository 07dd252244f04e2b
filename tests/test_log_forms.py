"""The log for programs: JSON, an object a line, and records of systemd's journal."""

import io
import json
import logging
import math
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.cli.log_page import PACKAGE, Event, events_of
from beatd.errors import ConfigError
from beatd.event_log import EventLog
from beatd.instant import SECOND
from beatd.log_fields import FIELDS
from beatd.logs import Form, JSONFormatter, message_id
from beatd.service.log_handlers import LogJournal
from beatd.service.log_setup import Log
from beatd.tasks import Request, running
from tests.fakes import NOON, times_shown_in
from tests.processes import ROOT, beatd, ended

# JSON


def parsed(line: str) -> dict[str, Any]:
    """Read a line as a strict reader of JSON does."""
    assert line.splitlines() == [line]
    assert line.isascii()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    read = json.loads(line, parse_constant=refuse)
    assert isinstance(read, dict)
    json.dumps(read, ensure_ascii=False).encode()  # no lone surrogate is in it
    return read


def as_json(**fields: object) -> dict[str, Any]:
    return parsed(JSONFormatter().format(logging.makeLogRecord(fields)))


def raised(error: BaseException) -> object:
    try:
        raise error
    except BaseException:
        return sys.exc_info()


class Hostile:
    """What a task may hand to a logger: nothing that is asked of it works."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


WORDS = st.text(st.characters(), max_size=20) | st.binary(max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | WORDS
    | st.datetimes()
    | st.builds(Hostile)
    | st.builds(lambda: 10**5000),
    lambda some: (
        st.lists(some, max_size=3)
        | st.dictionaries(WORDS, some, max_size=3)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)


@given(msg=VALUES, args=st.tuples() | st.tuples(VALUES), extra=VALUES, fault=WORDS)
def test_json_is_valid_whatever_is_in_a_record(
    msg: object, args: tuple[object, ...], extra: object, fault: str | bytes
) -> None:
    read = as_json(
        msg=msg,
        args=args,
        name=str(fault),
        exc_info=raised(ValueError(fault)),
        entry=extra,
        slot=extra,
        late=extra,
        time=extra,
    )

    assert {"time", "level", "logger", "event", "message", "exception"} <= read.keys()


def test_json_has_the_event_its_fields_and_when_it_was() -> None:
    with times_shown_in(ZoneInfo("Europe/Berlin")):
        read = as_json(
            msg="%s queued",
            args=("tick",),
            name="beatd.here",
            levelname="INFO",
            created=NOON / SECOND + 0.004,
            process=812,
            event="emit.queued",
            entry="tick",
            slot=NOON,
            late=27_900,
        )

    assert read == {
        "time": "2027-01-15T13:00:00.004+01:00",
        "level": "INFO",
        "logger": "beatd.here",
        "event": "emit.queued",
        "message": "tick queued",
        "entry": "tick",
        "slot": "2027-01-15T13:00:00.000+01:00",
        "slot_ts": NOON / SECOND,
        "late": 27.9,
        "pid": 812,
    }


def test_json_of_a_task_says_of_which_run_it_is() -> None:
    with running(Request(task="shop.add", id="an-id")):
        fields = {"level": "mine", "event": "lead.taken"}
        read = as_json(msg="words", user={"id": 7, "score": math.nan}, **fields)

    assert (read["task"], read["id"], read["event"]) == ("shop.add", "an-id", None)
    assert read["level_"] == "mine"  # its own field never stands for the log's
    assert read["event_"] == "lead.taken"
    assert read["user"] == {"id": 7, "score": "nan"}


CONF = """
from beatd import Beatd

app = Beatd("proj", broker="sqlite:///b.db", backend="sqlite:///r.db")
app.conf.beat_schedule_filename = "schedule.db"
app.conf.beat_schedule = {
    "said": {"task": "proj.say", "schedule": 3600, "run_on_start": True},
}


@app.task(name="proj.say")
def say():
    print("printed \\x1b[2K \\u2028 \\u00e9", "\\n" + "long " * 3000)
    raise ValueError("told\\nwhy \\u2028")
"""


def objects(output: str) -> list[dict[str, Any]]:
    return [parsed(line) for line in output.split("\n") if line]


def test_a_worker_with_a_scheduler_logs_nothing_but_json(tmp_path: Path) -> None:
    (tmp_path / "proj.py").write_text(CONF)
    options = ("-A", "proj", "-B", "-c", "2", "-l", "INFO", "--log-format", "json")
    with beatd("worker", *options, cwd=tmp_path) as worker:
        worker.until('"task.failed"')
        assert worker.stop() == 0

    by_event = {one["event"]: one for one in objects(worker.output)}
    emitted, failed = by_event["emit.queued"], by_event["task.failed"]
    assert (emitted["entry"], emitted["task"]) == ("said", "proj.say")
    assert emitted["id"] == failed["id"] == by_event["printed"]["id"]
    assert "told\nwhy" in failed["message"]
    assert {"start", "lead.taken", "worker.ready", "stop"} <= by_event.keys()


@pytest.mark.parametrize("words", [(), ("worker",)])
def test_why_it_does_not_start_is_json_too(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "proj.py").write_text("import logging\n1 / 0\n")

    done = ended(*words, "-A", "proj", "--log-format", "json", cwd=tmp_path)

    assert done.returncode == 78
    [failed] = objects(done.stderr)
    assert (failed["event"], failed["level"]) == ("failed", "CRITICAL")
    assert "ZeroDivisionError" in failed["message"]


def test_a_thread_that_ends_itself_has_not_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    Log("", form=Form.JSON).begin()

    for end in (sys.exit, lambda: 1 / 0):
        thread = threading.Thread(target=end)
        thread.start()
        thread.join()

    [failed] = objects(capsys.readouterr().err)
    assert "ZeroDivisionError" in failed["message"]


# The journal


class Journal:
    """Takes records as systemd's journal does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(10)

    def close(self) -> None:
        self._socket.close()

    def take(self) -> dict[str, str]:
        """Return the fields of the record that comes next."""
        data, fds, _, _ = socket.recv_fds(self._socket, 2**20, 1)
        if fds:
            with os.fdopen(fds[0], "rb") as file:
                file.seek(0)
                data = file.read()
        return dict(_fields(data))


def _fields(data: bytes) -> Iterator[tuple[str, str]]:
    while data:
        name, _, rest = data.partition(b"\n")
        assert b"=" not in name
        size = int.from_bytes(rest[:8], "little")
        yield name.decode(), rest[8 : 8 + size].decode()
        assert rest[8 + size : 9 + size] == b"\n"
        data = rest[9 + size :]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "socket")
    yield made
    made.close()


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Have what a test sets up undone."""
    loggers = [logging.getLogger(name) for name in ("", "beatd.task", "celery.task")]
    before = [(one, one.handlers[:], one.level, one.propagate) for one in loggers]
    yield loggers[0]
    for one, handlers, level, propagate in before:
        for handler in one.handlers[:]:
            if handler not in handlers:
                one.removeHandler(handler)
                handler.close()
        one.handlers[:] = handlers
        one.setLevel(level)
        one.propagate = propagate
    logging.captureWarnings(False)


def logged(journal: Journal, **more: object) -> dict[str, str]:
    """Log an event to the journal, and return its record."""
    handler = handler_to(str(journal.path))
    record = logging.makeLogRecord(
        {"msg": "tick\nqueued", "levelno": logging.WARNING, "lineno": 7, **more}
    )
    handler.handle(record)
    handler.close()
    return journal.take()


def handler_to(address: str, stream: io.StringIO | None = None) -> LogJournal:
    log = Log("here", form=None, journal=address)
    handler = log._to_journal("%(message)s")
    assert isinstance(handler, LogJournal)
    if stream is not None:
        handler.setStream(stream)
    return handler


def test_the_journal_is_given_fields(journal: Journal) -> None:
    with times_shown_in(ZoneInfo("Europe/Berlin")):
        about: Mapping[str, object] = {"entry": "tick", "id": "x", "queue": "a=b\nc"}
        own = {"name": "beatd.here", "event": "emit.queued"}
        read = logged(journal, slot=NOON, late=1500, **own, **about)

    assert read["MESSAGE"] == "tick\n  queued"
    assert (read["PRIORITY"], read["SYSLOG_IDENTIFIER"]) == ("4", "beatd")
    assert (read["BEATD_EVENT"], read["BEATD_ENTRY"]) == ("emit.queued", "tick")
    assert (read["BEATD_TASK_ID"], read["BEATD_QUEUE"]) == ("x", "a=b\nc")
    assert read["BEATD_SLOT"] == "2027-01-15T13:00:00.000+01:00"
    assert (read["BEATD_LATE_MS"], read["CODE_LINE"]) == ("1500", "7")
    assert read["MESSAGE_ID"] == message_id("emit.queued")
    assert re.fullmatch("[0-9a-f]{32}", read["MESSAGE_ID"])


def test_a_record_that_no_datagram_takes_comes_as_a_file(journal: Journal) -> None:
    read = logged(journal, msg="x" * 10_000_000, entry="tick")

    assert len(read["MESSAGE"]) == 10_000_000
    assert read["BEATD_ENTRY"] == "tick"


def test_a_field_whose_name_the_journal_does_not_take_is_left_out(
    journal: Journal,
) -> None:
    read = logged(journal, **{"naïve": 1, "with space": 2, "fine": 3, "n" * 80: 4})

    assert {name for name in read if name.startswith("BEATD_")} == {
        "BEATD_LOGGER",
        "BEATD_FINE",
    }


def test_lines_go_to_standard_error_while_no_journal_listens(tmp_path: Path) -> None:
    stream = io.StringIO()
    handler = handler_to(str(tmp_path / "nobody"), stream)
    handler.handle(logging.makeLogRecord({"msg": "kept", "levelno": logging.ERROR}))
    handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("wrong",)}))
    handler.close()

    assert stream.getvalue() == "<3>kept\n"


def test_the_journal_is_chosen_where_standard_error_goes_there(
    journal: Journal,
    root: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with (tmp_path / "err").open("w") as err:
        monkeypatch.setattr(sys, "stderr", err)
        about = os.fstat(err.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{about.st_ino}")
        Log("here", level=logging.INFO, journal=str(journal.path)).set_up()
        EventLog("beatd.here").info("emit.queued", "%s queued", "tick", entry="tick")
        assert journal.take()["BEATD_ENTRY"] == "tick"

        # Who wants another form has it.
        line = "MINE %(message)s"
        Log("here", line=line, journal=str(journal.path)).set_up()
        EventLog("beatd.here").warning("emit.queued", "in a format of mine")
        Log("here", form=Form.TEXT, journal=str(journal.path)).set_up()
        EventLog("beatd.here").warning("emit.queued", "for people")

    mine, people = (tmp_path / "err").read_text().splitlines()
    assert mine == "MINE in a format of mine"
    assert people.endswith(" WARNING for people")


@pytest.mark.parametrize(
    ("file", "words"),
    [("w.log", "leave out --logfile w.log"), (None, "no journal of systemd's")],
)
def test_a_journal_that_is_asked_for_and_cannot_be_had_is_an_error(
    tmp_path: Path, file: str | None, words: str, root: logging.Logger
) -> None:
    log = Log("here", form=Form.JOURNAL, file=file, journal=str(tmp_path / "nobody"))

    with pytest.raises(ConfigError, match=words):
        log.set_up()


# What is documented


@cache
def events() -> Sequence[Event]:
    """Return the events of the code: reading it takes a while."""
    return [*events_of(PACKAGE)]


def test_every_event_and_field_of_the_code_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "logs.md").read_text()

    assert len(events()) > 130
    assert [one.name for one in events() if f"| `{one.name}` |" not in page] == []
    fields = {name for one in events() for name in one.fields}
    assert fields - FIELDS.keys() == set()


def test_what_an_outage_logs_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "logs.md").read_text()
    named = {
        name
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(
            r"\bOutage\(\s*\"[^\"]+\",\s*\"([\w.]+)\"", path.read_text()
        )
    }

    assert "results.unreadable" in named
    assert [one for one in sorted(named) if f"| `{one}.lost` |" not in page] == []


def test_no_event_is_logged_past_the_documentation() -> None:
    """What the page reads by its syntax, a search by eye finds, too."""
    known = {one.name for one in events()}
    telling = re.compile(
        r"\btell\.(?:debug|info|warning|error|critical|exception)\(\s*\"([\w.]+)\""
    )
    found = {
        name
        for path in PACKAGE.rglob("*.py")
        for name in telling.findall(path.read_text())
    }

    assert len(found) > 100
    assert found - known == set()
