"""Where log lines go and how they look: in real workers, and what tasks log and print.

A worker is started for each way to configure it, and told apart by its own output.
"""

import io
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from celery import Celery

from beatd import Beatd
from beatd.instant import MINUTE, SECOND
from beatd.logs import (
    STAMP,
    TASKS,
    ColourFormatter,
    JournalFormatter,
    TaskFormatter,
    get_task_logger,
)
from beatd.pools import NAMES
from beatd.service.log_handlers import LogFile, LogStream
from beatd.tasks import Request, running
from tests.fakes import NOON, FakeClock, times_shown_in
from tests.processes import Running, beatd, ended
from tests.rights import full_disk
from tests.servers import Server, eventually

WAIT = 15.0

CHORES = """
import asyncio
import os
import sys
import time
import warnings
from pathlib import Path

from beatd import shared_task
from beatd.logs import get_task_logger

logger = get_task_logger(__name__)
HERE = Path(__file__).parent


@shared_task(name="chores.say")
def say(text):
    logger.warning("%s", text)
    return os.getpid()


@shared_task(name="chores.put")
def put(text):
    print("to", "standard output:", text)
    print("to standard error:", text, file=sys.stderr)
    print("without an end:", text, end="")
    return os.getpid()


@shared_task(name="chores.put_later")
async def put_later(text):
    await asyncio.sleep(0)
    print("from a coroutine:", text, end="")


@shared_task(name="chores.close")
def close():
    sys.stdout.close()
    sys.stderr.close()
    print("printed all the same")


@shared_task(name="chores.wait_here")
def wait_here():
    (HERE / "waits").write_text(str(os.getpid()))
    while not (HERE / "go").exists():
        time.sleep(0.01)
"""


class Shop:
    """A config with its tasks, on SQLite, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        broker, results = (f"sqlite:///{folder}/{name}.db" for name in ("b", "r"))
        self.settings = f"""
broker_url = {broker!r}
result_backend = {results!r}
include = ["chores"]
"""
        self.write()
        self.client = Beatd(
            "client", broker=broker, backend=results, set_as_current=False
        )

    def write(self, settings: str = "", code: str = "") -> None:
        """Configure it; `code` is what its tasks' module begins with."""
        (self.folder / "conf.py").write_text(self.settings + settings)
        (self.folder / "chores.py").write_text(code + CHORES)

    def worker(self, *options: str, **env: str) -> AbstractContextManager[Running]:
        words = ("worker", "--config", "conf", "-n", "w1@here", "-c", "1", *options)
        return beatd(*words, cwd=self.folder, **env)

    def run(self, task: str, *args: object) -> tuple[str, object]:
        """Have a task run to its end; give its id and its value."""
        sent = self.client.send_task(f"chores.{task}", args)
        return sent.id, sent.get(timeout=WAIT)

    def text(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.client.close()


def lines_with(words: str, output: str) -> list[str]:
    return [line for line in output.splitlines() if words in line]


# Loggers of tasks


@pytest.mark.parametrize("name", ["", "root", "beatd", "beatd.task"])
def test_a_logger_that_is_no_modules_is_no_tasks_logger(name: str) -> None:
    with pytest.raises(ValueError, match="__name__"):
        get_task_logger(name)


def test_a_tasks_logger_has_its_name_and_stands_below_that_of_all_tasks() -> None:
    logger = get_task_logger("a.module.of.mine")

    assert logger.name == "a.module.of.mine"
    assert logger.parent is TASKS
    assert get_task_logger("a.module.of.mine") is logger
    assert get_task_logger("a.module.of.mine.below").parent is logger


def test_a_line_says_which_run_it_is_of_where_there_is_one() -> None:
    formatter = TaskFormatter("%(task_name)s[%(task_id)s]: %(message)s")

    def shown() -> str:
        record = logging.makeLogRecord({"msg": "words"})
        return formatter.format(record)

    assert shown() == "???[???]: words"
    with running(Request(task="shop.add", id="an-id")):
        assert shown() == "shop.add[an-id]: words"


# Records that pretend to be others

FORGERY = "2026-11-30 08:00:00 ERROR   all is lost"

BREAKS = {
    "line feed": "\n",
    "carriage return": "\r",
    "both": "\r\n",
    "erase the line": "\x1b[2K\x1b[G",
    "control sequence of C1": "\x9b2K\x9bG",
    "next line": "\x85",
    "vertical tab": "\v",
    "form feed": "\f",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "right to left": "\u202e",
    "bell": "\a",
    "backspaces": "\b" * 80,
    "NUL": "\0",
    "lone surrogates": "\ud83d\udfff",
}


def record_of(words: str, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    fields = {"levelno": logging.ERROR, "levelname": "ERROR", "exc_info": info}
    return logging.makeLogRecord({"msg": "it says %s", "args": (words,), **fields})


def forged(formatter: logging.Formatter, broken: str) -> Iterator[str]:
    """Return what is logged when each foreign text of a record holds `broken`."""
    yield formatter.format(record_of(broken))
    yield formatter.format(record_of("hello", ValueError(broken)))
    with running(Request(task=broken, id=broken)):
        yield formatter.format(record_of("hello"))


@pytest.mark.parametrize("broken", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("kind", [None, ColourFormatter, JournalFormatter])
def test_no_text_begins_a_line_of_the_log_or_moves_a_cursor(
    broken: str, kind: Callable[[logging.Formatter], logging.Formatter] | None
) -> None:
    plain = TaskFormatter("%(levelname)s %(task_name)s[%(task_id)s]: %(message)s")
    for text in forged(kind(plain) if kind else plain, f"hello{broken}{FORGERY}"):
        shown = text.removeprefix("\x1b[1;31m").removesuffix("\x1b[0m")
        _, *further = shown.splitlines()
        assert all(line.startswith("  ") for line in further)
        assert shown.replace("\n", "").isprintable()
        assert "all is lost" in shown
        shown.encode()


def test_what_is_no_forgery_stays_readable() -> None:
    formatter = TaskFormatter("%(levelname)s\t%(message)s")

    def failed() -> str:
        try:
            raise ValueError("caf\xe9\n\N{ROCKET}, and\tso\xa0on")
        except ValueError as error:
            return formatter.format(record_of("why:\n", error))

    first, *lines = failed().splitlines()
    assert first == "ERROR\tit says why:"
    assert lines[0] == "  Traceback (most recent call last):"
    assert lines[1].startswith('    File "')
    assert lines[-2:] == ["  ValueError: caf\xe9", "  \N{ROCKET}, and\tso\xa0on"]


# When it was


def test_each_line_has_the_time_in_the_zone_of_the_log_with_its_offset() -> None:
    formatter = TaskFormatter("%(asctime)s %(message)s", STAMP)
    record = logging.makeLogRecord({"msg": "words", "created": NOON / SECOND})

    with times_shown_in(ZoneInfo("Asia/Kolkata")):
        assert formatter.format(record) == "2027-01-15 17:30:00+05:30 words"
    with times_shown_in(UTC):
        assert formatter.format(record) == "2027-01-15 12:00:00+00:00 words"


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (None, "2027-01-15 13:00:00,025"),  # as in Celery
        ("%d.%m. %H:%M %z", "15.01. 13:00 +0100"),
        ("%H:%M%:z", "13:00+01:00"),
    ],
)
def test_times_of_a_format_of_ones_own_are_in_that_zone_too(
    date: str | None, expected: str
) -> None:
    formatter = TaskFormatter("%(asctime)s", date)
    record = logging.makeLogRecord({"created": (NOON + 25) / SECOND})

    with times_shown_in(ZoneInfo("Europe/Berlin")):
        assert formatter.format(record) == expected


@pytest.mark.parametrize("words", [(), ("worker",)])
def test_both_programs_log_in_the_zone_of_the_settings(
    shop: Shop, words: Sequence[str]
) -> None:
    shop.write("timezone = 'Asia/Kolkata'\nimport chores")
    options = (*words, "--config", "conf", "-l", "INFO")
    code = "import logging\nlogging.getLogger('mine').warning('before it is read')\n"
    (shop.folder / "chores.py").write_text(code)

    with beatd(*options, cwd=shop.folder, TZ="America/Lima") as running:
        running.until("config conf, broker")

    (start,) = lines_with("config conf, broker", running.output)
    assert re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\+05:30 INFO ", start)
    (early,) = lines_with("before it is read", running.output)
    assert re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d-05:00 WARNING ", early)


# Formats


FORMATS = """
worker_log_format = "M %(levelname)s %(processName)s %(message)s"
worker_task_log_format = "T %(asctime)s %(processName)s" \\
    " %(task_name)s %(task_id)s %(message)s"
worker_task_log_datefmt = "%Y!"
"""


def test_what_a_task_logs_has_the_format_of_tasks(shop: Shop) -> None:
    shop.write(FORMATS)
    with shop.worker("-l", "INFO") as worker:
        task_id, _ = shop.run("say", "something")
        worker.until("succeeded")

    (line,) = lines_with("something", worker.output)
    assert line.startswith("T 20")
    words = f"! ForkPoolWorker-1 chores.say {task_id} something"
    assert line.endswith(words)
    assert "M INFO MainProcess w1@here is ready" in worker.output


def test_without_formats_each_line_says_when_how_grave_and_of_which_run(
    shop: Shop,
) -> None:
    with shop.worker("-l", "INFO") as worker:
        task_id, _ = shop.run("say", "something")

    (line,) = lines_with("something", worker.output)
    assert line[4] == "-"
    assert line.endswith(f" WARNING chores.say[{task_id}]: something")
    assert lines_with(" INFO    w1@here is ready", worker.output)


@pytest.mark.parametrize(
    ("settings", "options", "env", "coloured"),
    [
        ("worker_log_color = True", (), {}, False),  # no terminal, as in Celery
        ("", (), {"CLICOLOR_FORCE": "1"}, True),
        ("", ("-C",), {"CLICOLOR_FORCE": "1"}, False),
        ("", ("-f", "w.log"), {"CLICOLOR_FORCE": "1"}, False),
    ],
)
def test_colours_are_for_terminals_and_for_who_wants_them(
    shop: Shop,
    settings: str,
    options: tuple[str, ...],
    env: dict[str, str],
    coloured: bool,
) -> None:
    shop.write(settings)
    with shop.worker(*options, **env) as worker:
        shop.run("say", "something")

    (line,) = lines_with("something", worker.output + shop.text("w.log"))
    assert ("\x1b[" in line) is coloured


def test_a_format_that_is_none_is_an_error_of_the_config(shop: Shop) -> None:
    shop.write("worker_log_format = '{message}'")

    result = ended("worker", "--config", "conf", cwd=shop.folder)

    assert result.returncode == 78
    assert "log format '{message}'" in result.stderr
    assert "Traceback" not in result.stderr


CELERY = """
from celery import Celery
from celery.signals import after_setup_logger, after_setup_task_logger
from celery.utils.log import get_task_logger

app = Celery("proj", broker={url!r}, backend={url!r})
app.conf.worker_task_log_format = "T %(task_name)s %(task_id)s %(message)s"
logger = get_task_logger(__name__)


@after_setup_logger.connect
def on_logger(logger, loglevel, **_):
    logger.handlers[0].addFilter(lambda record: "no-one" not in record.getMessage())


@after_setup_task_logger.connect
def on_task_logger(logger, format, **_):
    logger.info("task logger %s, %s", logger.name, format)


@app.task
def say(text):
    logger.warning(text)
    print("printed", text)
"""


def test_a_celery_apps_own_loggers_of_tasks_go_the_same_way(
    server: Server, tmp_path: Path
) -> None:
    url = server.url(0)
    (tmp_path / "proj.py").write_text(CELERY.format(url=url))
    client = Celery("client", broker=url, backend=url, set_as_current=False)
    options = ("worker", "-A", "proj", "-c", "1", "-l", "INFO")
    with beatd(*options, cwd=tmp_path) as worker:
        sent = client.send_task("proj.say", ["something"])
        sent.get(timeout=WAIT)
        client.send_task("proj.say", ["no-one"]).get(timeout=WAIT)
        worker.until("succeeded", times=2)
    client.close()

    assert f"T proj.say {sent.id} something\n" in worker.output
    assert " WARNING printed something\n" in worker.output
    assert "printed no-one" not in worker.output
    assert "task logger celery.task, T %(task_name)s" in worker.output


# Lines that cannot be written


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[LogFile]:
    handler = LogFile(str(tmp_path / "w.log"), TaskFormatter("%(message)s"), CLOCK)
    yield handler
    handler.close()


CLOCK = FakeClock()


def write(handler: logging.Handler, *lines: str, **fields: object) -> None:
    for line in lines:
        handler.handle(logging.makeLogRecord({"msg": line, **fields}))


def test_lines_that_a_full_disk_refuses_are_counted_and_said_once_a_minute(
    log_file: LogFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", told)
    write(log_file, "before")

    with full_disk(room=7):
        write(log_file, *["lost"] * 1000)
        assert told.getvalue().count("\n") == 1
        assert "cannot write log lines: File too large; 1 lost" in told.getvalue()
        CLOCK.go_to(CLOCK.now() + MINUTE)
        write(log_file, "lost", "lost")
    write(log_file, "after", "after that")

    assert told.getvalue().count("\n") == 2
    assert "1000 lost so far" in told.getvalue()
    assert (tmp_path / "w.log").read_text().splitlines() == [
        "before",
        "1002 log lines before this one could not be written",
        "after",
        "after that",
    ]


def test_a_log_whose_folder_is_gone_stops_nobody_and_goes_on_where_it_is_back(
    log_file: LogFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = LogFile(str(folder / "w.log"), TaskFormatter("%(message)s"), CLOCK)
    write(handler, "before")
    shutil.rmtree(folder)
    write(handler, "lost", "lost")
    folder.mkdir()

    write(handler, "after")
    handler.close()

    notice = "2 log lines before this one could not be written"
    assert (folder / "w.log").read_text() == f"{notice}\nafter\n"


def test_a_format_with_an_unknown_field_loses_no_line_and_is_said_once_a_minute(
    log_file: LogFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_file.setFormatter(logging.Formatter("%(nope)s %(message)s"))

    write(log_file, *["kept"] * 1000)
    CLOCK.go_to(CLOCK.now() + MINUTE)
    write(log_file, "kept")
    write(log_file, "filled", nope="yes")

    lines = (tmp_path / "w.log").read_text().splitlines()
    notices = [line for line in lines if "cannot be filled in" in line]
    assert len(notices) == 2
    assert "not found in record: 'nope'): 1 so far" in notices[0]
    assert "1000 so far" in notices[1]
    assert lines.count("kept") == 1001
    assert lines[-1] == "yes filled"
    assert capsys.readouterr().err == ""


def test_a_stream_that_breaks_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    handler = LogStream(stream, TaskFormatter("%(message)s"), CLOCK)
    monkeypatch.setattr(sys, "__stderr__", stream)
    stream.close()

    write(handler, "lost", "lost")

    handler.setStream(again := io.StringIO())
    write(handler, "after")
    notice = "2 log lines before this one could not be written"
    assert again.getvalue() == f"{notice}\nafter\n"


def test_a_worker_goes_on_whatever_its_format_lacks(shop: Shop) -> None:
    shop.write("worker_log_format = '%(nope)s %(message)s'")
    with shop.worker("-l", "INFO") as worker:
        shop.run("say", "something")
        worker.until("is ready")

    assert len(lines_with("cannot be filled in", worker.output)) == 1
    assert "Traceback" not in worker.output


# Whose handlers


OWN_HANDLER = """
import logging

logging.basicConfig(filename="own.log", format="OWN %(message)s")
"""


def test_the_root_loggers_own_handlers_give_way(shop: Shop) -> None:
    shop.write(code=OWN_HANDLER)
    with shop.worker("-l", "INFO") as worker:
        worker.until("is ready")

    assert shop.text("own.log") == ""


def test_the_root_loggers_own_handlers_stay_when_the_settings_say_so(
    shop: Shop,
) -> None:
    shop.write("worker_hijack_root_logger = False", OWN_HANDLER)
    with shop.worker("-l", "INFO") as worker:
        shop.run("put", "this")
        eventually(lambda: "is ready" in shop.text("own.log"))
        shop.run("say", "something")

    assert "OWN to standard output: this" in shop.text("own.log")
    assert "is ready" not in worker.output
    assert lines_with("something", worker.output)  # as in Celery: tasks have their own


SIGNALS = """
import logging

from beatd.logs import TaskFormatter
from beatd.signals import after_setup_logger, after_setup_task_logger, setup_logging


@after_setup_logger.connect
def on_logger(logger, **_):
    logger.handlers[0].setFormatter(logging.Formatter("MINE %(message)s"))


@after_setup_task_logger.connect
def on_task_logger(logger, **_):
    logger.handlers[0].setFormatter(TaskFormatter("%(task_name)s: MINE %(message)s"))
"""


def test_receivers_may_change_what_was_set_up(shop: Shop) -> None:
    shop.write(code=SIGNALS)
    with shop.worker("-l", "INFO") as worker:
        shop.run("say", "something")

    assert "MINE w1@here is ready" in worker.output
    assert "chores.say: MINE something\n" in worker.output


def test_a_receiver_may_set_up_the_log_alone(shop: Shop) -> None:
    shop.write(
        code=SIGNALS
        + """
@setup_logging.connect
def on_setup(loglevel, logfile, **_):
    logging.basicConfig(level=loglevel, filename=logfile, format="ALONE %(message)s")
"""
    )
    with shop.worker("-l", "INFO", "-f", "%n.log") as worker:
        shop.run("put", "this")

    assert "ALONE w1@here is ready" in shop.text("w1.log")
    assert "MINE" not in shop.text("w1.log")
    assert "to standard output: this\n" in worker.output  # nor is it redirected


def test_a_receiver_that_fails_to_set_up_the_log_is_an_error(shop: Shop) -> None:
    shop.write(code=SIGNALS + "setup_logging.connect(lambda **_: 1 / 0)\n")

    result = ended("worker", "--config", "conf", cwd=shop.folder)

    assert result.returncode == 78
    assert "setup_logging" in result.stderr
    assert "ZeroDivisionError" in result.stderr


# Files


SET_UP = """
import logging, os, sys
from beatd.service.log_setup import Log

def opened():
    names = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum(os.path.exists(n) and os.path.samefile(n, "w.log") for n in names)

for handler in eval(sys.argv[1]):
    logging.getLogger().addHandler(handler)
Log("w1@here", file="w.log", hijack=False).set_up()
first = opened()
Log("w1@here", file="w.log", hijack=False).set_up()
print(first, opened())
"""


@pytest.mark.parametrize(
    ("handlers", "said"),
    [
        ("[]", "3 3"),  # the root logger, tasks, stacks
        ("[logging.StreamHandler()]", "2 2"),  # tasks and stacks
    ],
)
def test_a_log_file_is_open_for_who_writes_to_it_alone(
    tmp_path: Path, handlers: str, said: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "default", "-c", SET_UP, handlers],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout.strip() == said
    assert "unclosed" not in ran.stderr + (tmp_path / "w.log").read_text()


def test_a_file_is_named_after_the_node(shop: Shop) -> None:
    with shop.worker("-l", "INFO", "-f", "%n-%h-%i.log", "--pidfile", "%n.pid"):
        eventually(lambda: "is ready" in shop.text("w1-here-0.log"))
        assert shop.text("w1.pid")


def test_each_place_of_the_pool_has_a_file_of_its_own(shop: Shop) -> None:
    options = ("-l", "INFO", "-f", "%n%I.log", "--max-tasks-per-child", "1")
    with shop.worker(*options):
        pids = [shop.run(task, f"{n}")[1] for n in range(2) for task in ("say", "put")]
        eventually(lambda: shop.text("w1.log").count("succeeded") == 4)

    assert len(set(pids)) == 4
    assert sorted(path.name for path in shop.folder.glob("w1*.log")) == [
        "w1-1.log",
        "w1.log",
    ]
    assert "chores.say" in shop.text("w1-1.log")
    assert "to standard output: 1\n" in shop.text("w1-1.log")
    assert "without an end: 1\n" in shop.text("w1-1.log")
    assert "is ready" not in shop.text("w1-1.log")


def test_children_of_a_new_interpreter_log_as_others_do(shop: Shop) -> None:
    shop.write(FORMATS)
    with shop.worker("-f", "%n%I.log", "--pool-start-method", "spawn"):
        task_id, _ = shop.run("say", "something")
        shop.run("put", "this")

    text = shop.text("w1-1.log")
    assert f"! ForkPoolWorker-1 chores.say {task_id} something\n" in text
    assert "M WARNING ForkPoolWorker-1 to standard output: this\n" in text
    assert "M WARNING ForkPoolWorker-1 without an end: this\n" in text


def test_the_schedulers_log_is_named_after_it(shop: Shop) -> None:
    with beatd("--config", "conf", "-l", "INFO", "-f", "%n.log", cwd=shop.folder):
        eventually(lambda: "config conf" in shop.text("celerybeat.log"))


def test_a_pattern_that_stands_for_nothing_is_an_error(shop: Shop) -> None:
    result = ended("worker", "--config", "conf", "-f", "%x.log", cwd=shop.folder)

    assert result.returncode == 78
    assert "%x stands for nothing" in result.stderr


# Stacks


def test_a_signal_writes_all_stacks_where_the_log_goes(shop: Shop) -> None:
    with shop.worker("-l", "INFO", "-f", "w.log") as worker:
        eventually(lambda: "is ready" in shop.text("w.log"))
        worker.send(signal.SIGUSR1)
        # The stacks are written thread by thread.
        eventually(lambda: shop.text("w.log").count("Thread 0x") >= 2)

        (shop.folder / "w.log").rename(shop.folder / "old.log")
        shop.run("say", "to the new file")
        eventually(lambda: "succeeded" in shop.text("w.log"))
        worker.send(signal.SIGUSR1)
        eventually(lambda: "most recent call first" in shop.text("w.log"))
    assert shop.text("old.log").count("Current thread") == 1


@pytest.mark.parametrize("options", [(), ("-f", "w.log"), ("-f", "w%I.log")])
def test_a_signal_to_a_child_says_what_its_task_is_at(
    shop: Shop, options: tuple[str, ...]
) -> None:
    def said() -> str:
        return "".join([worker.output, *map(shop.text, ("w.log", "w-1.log"))])

    with shop.worker("-l", "INFO", *options) as worker:
        sent = shop.client.send_task("chores.wait_here")
        pid = eventually(lambda: shop.text("waits"), "the task to run")
        os.kill(int(pid), signal.SIGUSR1)
        eventually(lambda: "in wait_here" in said(), "its stack")
        (shop.folder / "go").touch()
        sent.get(timeout=WAIT)


# What tasks print


@pytest.mark.parametrize("pool", NAMES)
def test_what_a_task_prints_goes_to_the_log_line_by_line(shop: Shop, pool: str) -> None:
    with shop.worker("-P", pool) as worker:
        shop.run("put", pool)
        shop.run("put_later", pool)
        worker.until("from a coroutine")

    for words in ("to standard output:", "to standard error:", "without an end:"):
        (line,) = lines_with(words, worker.output)
        assert line.endswith(f" WARNING {words} {pool}")
    (line,) = lines_with("from a coroutine", worker.output)
    assert line.endswith(f" WARNING from a coroutine: {pool}")


def test_the_level_of_what_is_printed_is_a_setting(shop: Shop) -> None:
    shop.write("worker_redirect_stdouts_level = 'info'")
    with shop.worker() as worker:
        shop.run("put", "quiet")
        shop.run("say", "after it")
        worker.until("after it")

    assert "quiet" not in worker.output


def test_a_level_that_is_none_is_an_error_of_the_config(shop: Shop) -> None:
    shop.write("worker_redirect_stdouts_level = 'loud'")

    result = ended("worker", "--config", "conf", cwd=shop.folder)

    assert result.returncode == 78
    assert "worker_redirect_stdouts_level" in result.stderr


def test_what_a_task_prints_stays_as_it_is_when_the_settings_say_so(
    shop: Shop,
) -> None:
    shop.write("worker_redirect_stdouts = False")
    with shop.worker("-f", "w.log") as worker:
        shop.run("put", "this")
        # At the end of the task, and not when some buffer is full.
        worker.until("without an end: this")

    assert "\nto standard output: this\n" in "\n" + worker.output
    assert "this" not in shop.text("w.log")


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_task_that_closes_the_streams_closes_them_for_nobody(
    shop: Shop, pool: str
) -> None:
    with shop.worker("-P", pool) as worker:
        shop.run("close")
        shop.run("put", "after it")
        worker.until("to standard output: after it")

        assert worker.stop() == 0
    assert "printed all the same" in worker.output
    assert "Traceback" not in worker.output
