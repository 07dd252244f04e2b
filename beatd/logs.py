"""Log lines for whoever reads them: a person at a terminal, a file, the journal."""

import logging
import os
import sys
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import TextIO

LINE = "%(asctime)s %(levelname)-7s %(message)s"
SECONDS = "%Y-%m-%d %H:%M:%S"

# sd-daemon(3): a line that begins so carries its priority to the journal.
_PRIORITY = {
    logging.DEBUG: "<7>",
    logging.INFO: "<6>",
    logging.WARNING: "<4>",
    logging.ERROR: "<3>",
    logging.CRITICAL: "<2>",
}

# Blue, orange, bold red: apart from each other for every eye; the word says it anyway.
_COLOUR = {
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[1;31m",
    logging.CRITICAL: "\x1b[1;31m",
}


class _Journal(logging.Formatter):
    """One line with its priority; the journal knows the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).replace("\n", "\n  ")
        return _PRIORITY.get(record.levelno, "<6>") + text


class _Colour(logging.Formatter):
    """Plain lines, those that ask for attention in colour."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        colour = _COLOUR.get(record.levelno)
        return f"{colour}{text}\x1b[0m" if colour else text


def set_up(
    level: int,
    *,
    file: Path | None = None,
    line: str | None = None,
    date: str | None = None,
    colour: bool | None = None,
) -> None:
    """Send all log records of this process to `file`, or else to standard error.

    Raises OSError for a file that cannot be opened.
    """
    # Watched: a rotated file is opened anew.
    handler = WatchedFileHandler(file) if file else logging.StreamHandler()
    handler.setFormatter(_formatter(file, line, date, colour))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)


def wants_colour(stream: TextIO) -> bool:
    """Say whether people will see colour there, by the common conventions."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") != "0":
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _formatter(
    file: Path | None, line: str | None, date: str | None, colour: bool | None
) -> logging.Formatter:
    if file is None and line is None and _is_journal(sys.stderr):
        return _Journal("%(message)s")
    if colour is None:
        colour = wants_colour(sys.stderr)
    kind = _Colour if colour and file is None else logging.Formatter
    return kind(line or LINE, date or SECONDS)


def _is_journal(stream: TextIO) -> bool:
    """Say whether the stream is the one that systemd connected to the journal."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))
