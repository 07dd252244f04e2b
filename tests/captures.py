"""What each command that only reads shows on a terminal, to be looked at.

    python -m tests.captures

starts a server, a scheduler and a worker on entries of all kinds, some of them in
trouble, runs each command in a pseudo-terminal of 80 and of 120 columns, in ASCII and
in UTF-8, and writes what it shows to build/captures. It names the lines that are wider
than their terminal.
"""

import fcntl
import os
import pty
import struct
import sys
import tempfile
import termios
import unicodedata
from pathlib import Path

import click

from tests.processes import ROOT, beatd, environment
from tests.servers import Server, eventually

CONFIG = """\
from datetime import UTC, datetime, timedelta

from beatd import crontab, every, once

timezone = "Europe/Berlin"
include = ["tasks"]
broker_url = result_backend = "{url}"
beat_history_per_entry = 50

beat_schedule = {{
    "tick": {{"task": "tasks.tick", "schedule": every(2)}},
    "flaky-import": {{"task": "tasks.flaky", "schedule": every(3), "args": [7]}},
    "slow": {{"task": "tasks.slow", "schedule": every(2), "overlap": "skip"}},
    "too-late": {{
        "task": "tasks.tick", "schedule": every(4), "misfire_grace_time": 2,
    }},
    "nobody-takes-it": {{
        "task": "tasks.tick", "schedule": every(10), "options": {{"queue": "reports"}},
    }},
    "quarterly-reconciliation-of-all-foreign-accounts": {{
        "task": "tasks.tick",
        "schedule": crontab(minute=0, hour=6, day_of_month=1, month_of_year="*/3"),
        "kwargs": {{"kind": "sales", "api_token": "hush", "accounts": [*range(12)]}},
        "description": "all accounts abroad, for those who keep the books",
    }},
    "nightly-backup": {{"task": "tasks.tick", "schedule": crontab(minute=30, hour=2)}},
    "first-monday": {{"task": "tasks.tick", "schedule": "0 9 * * mon#1"}},
    "in-new-york": {{
        "task": "tasks.tick", "schedule": "30 8 * * 1-5",
        "timezone": "America/New_York", "jitter": 60,
    }},
    "日報": {{"task": "tasks.tick", "schedule": every(minutes=30)}},
    "paused": {{"task": "tasks.tick", "schedule": every(5), "enabled": False}},
    "over": {{"task": "tasks.tick", "schedule": once("2026-01-01T06:00")}},
    "bad": {{"task": "tasks.tick", "schedule": "0 6 31 2 *"}},
}}
"""

TASKS = """\
import time

from beatd import shared_task


@shared_task
def tick(**_):
    return "tock"


@shared_task
def flaky(number):
    if int(time.time() / 3) % 3:
        raise ValueError(f"no row {number}")


@shared_task
def slow():
    time.sleep(5)
"""

COMMANDS = {
    "list": "list",
    "list-wide": "list --wide",
    "list-utc": "list --utc --sort last",
    "list-none": "list nightly",
    "next": "next",
    "next-one": "next nightly-backup --limit 3",
    "next-clocks": "next --at '2027-03-28 00:00' --until '2027-03-28 06:00'",
    "status": "status",
    "show-tick": "show tick",
    "show-flaky": "show flaky-import",
    "show-slow": "show slow",
    "show-long": "show 'quarterly*'",
    "show-new-york": "show in-new-york",
    "show-paused": "show paused",
    "show-bad": "show bad",
    "history": "history",
    "history-one": "history too-late --limit 8",
    "audit": "audit",
    "audit-one": "audit tick",
    "dead": "dead list",
    "dead-show": "dead show 1",
    "check": "check --import --broker",
    "explain": "explain '30 2 * * 1-5' --tz Europe/Berlin",
    "explain-wrong": "explain '61 * * * *'",
    "export-json": "export json --days 1 --limit 3",
    "systemd-install": "systemd install --prefix /opt/beatd",
    "systemd-print": "systemd print beatd.socket",
    "help": "--help",
    "help-list": "list --help",
    "wrong-option": "list --sorted",
    "wrong-command": "lst",
}


def shown(words: str, cwd: Path, columns: int, locale: str) -> str:
    """Run `beatd` in a terminal of so many columns; return what it shows."""
    pid, terminal = pty.fork()
    if pid == 0:  # the child, with the terminal
        size = struct.pack("HHHH", 50, columns, 0, 0)
        fcntl.ioctl(0, termios.TIOCSWINSZ, size)
        os.chdir(cwd)
        plain = environment(LANG=locale, LC_ALL=locale, TERM="xterm-256color")
        plain.pop("PYTHONUTF8", None)
        line = f"exec {sys.executable} -m beatd {words}"
        os.execve("/bin/sh", ["sh", "-c", line], plain | {"PYTHONCOERCECLOCALE": "0"})
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # it has ended
            break
        if not part:
            break
        parts.append(part)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    text = b"".join(parts).decode(errors="replace").replace("\r\n", "\n")
    return f"$ beatd {words}\n{text}[exit status {os.waitstatus_to_exitcode(status)}]\n"


def columns_of(line: str) -> int:
    """Return how many columns a line takes on a terminal."""
    wide = (unicodedata.east_asian_width(sign) in "WF" for sign in click.unstyle(line))
    return sum(2 if one else 1 for one in wide)


def capture(cwd: Path, target: Path) -> None:
    """Write what each command shows; name the lines that are too wide."""
    for columns in (80, 120):
        for locale, kind in (("C", "ascii"), ("C.UTF-8", "utf8")):
            folder = target / f"{columns}-{kind}"
            folder.mkdir(parents=True, exist_ok=True)
            for name, words in COMMANDS.items():
                text = shown(words, cwd, columns, locale)
                (folder / f"{name}.txt").write_text(text)
                for line in text.splitlines()[1:]:
                    if columns_of(line) > columns:
                        print(f"{folder.name}/{name}: {columns_of(line)}: {line}")


def main() -> None:
    """Make the example live, and capture."""
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        (cwd / "celeryconfig.py").write_text(CONFIG.format(url=server.url()))
        (cwd / "tasks.py").write_text(TASKS)
        with beatd("worker", "-l", "INFO", "-c", "4", cwd=cwd) as worker:
            with beatd("-l", "INFO", cwd=cwd) as scheduler:
                scheduler.until("tick queued", times=8)
                with server.client() as client:
                    client.lpush("celery", "not a message")
                worker.until("set aside")
                scheduler.stop()
            # Nobody schedules for a while: what is due then is late.
            gone = worker.output.count("succeeded")
            eventually(lambda: worker.output.count("succeeded") >= gone, "what runs")
            shown("next --limit 1", cwd, 80, "C.UTF-8")
            with beatd("-l", "INFO", cwd=cwd) as scheduler:
                scheduler.until("tick queued", times=4)
                capture(cwd, ROOT / "build" / "captures")


if __name__ == "__main__":
    main()
