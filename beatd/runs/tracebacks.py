"""Tracebacks of tasks as text."""

import traceback
from pathlib import Path
from types import TracebackType

from beatd.text import encodable

LONGEST_TRACEBACK = 100_000
"""Characters; an exception may carry a text of any length."""

PACKAGE = str(Path(__file__).parent.parent)


def traceback_of(error: BaseException) -> str:
    """Return the traceback as text, without the frames of beatd that it begins with."""
    frames: TracebackType | None = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename.startswith(PACKAGE):
        frames = frames.tb_next
    try:
        lines = traceback.format_exception(type(error), error, frames)
    except BaseException:  # foreign code again: `__str__`, `__notes__`
        return f"{type(error).__name__}, whose traceback cannot be shown\n"
    return encodable("".join(lines)[-LONGEST_TRACEBACK:])
