"""One way to log an event: words for people, a name and data for programs."""

import logging
from datetime import UTC, tzinfo
from typing import Any

from beatd.instant import Instant, datetime_of

_zone: tzinfo = UTC


def show_times_in(zone: tzinfo) -> None:
    """Have all times in the log of this process shown in this zone from now on."""
    global _zone
    _zone = zone


def zone() -> tzinfo:
    """Return the zone in which the log shows times."""
    return _zone


def stamp(instant: Instant) -> str:
    """Return an instant as the words of a log line name it, with its offset."""
    return datetime_of(instant, _zone).isoformat(" ", "seconds")


class EventLog:
    """Logs the events of one module, by the logger of that name.

    Each record carries the event's name (`emit.known`) as its attribute `event`, and
    each further keyword as an attribute of that name. `words` take their arguments as
    those of `logging` do.
    """

    def __init__(self, module: str) -> None:
        self._logger = logging.getLogger(module)

    def logs_at(self, level: int) -> bool:
        """Return whether this level is logged; asked before work for the log alone."""
        return self._logger.isEnabledFor(level)

    def debug(self, event: str, words: str, *args: object, **data: object) -> None:
        """Log what is of use only in the search for a fault."""
        self._log(logging.DEBUG, event, words, args, data)

    def info(self, event: str, words: str, *args: object, **data: object) -> None:
        """Log what an operator wants to see on a calm day."""
        self._log(logging.INFO, event, words, args, data)

    def warning(self, event: str, words: str, *args: object, **data: object) -> None:
        """Log what works, but not as it should."""
        self._log(logging.WARNING, event, words, args, data)

    def error(self, event: str, words: str, *args: object, **data: object) -> None:
        """Log what an operator has to look after."""
        self._log(logging.ERROR, event, words, args, data)

    def critical(self, event: str, words: str, *args: object, **data: object) -> None:
        """Log why the process ends."""
        self._log(logging.CRITICAL, event, words, args, data)

    def exception(self, event: str, words: str, *args: object, **data: object) -> None:
        """Log an error with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, event, words, args, {"exc_info": True, **data})

    def log(
        self, level: int, event: str, words: str, *args: object, **data: object
    ) -> None:
        """Log at a level that is known only now."""
        self._log(level, event, words, args, data)

    def _log(
        self,
        level: int,
        event: str,
        words: str,
        args: tuple[object, ...],
        data: dict[str, Any],
    ) -> None:
        if self.logs_at(level):
            exc_info = data.pop("exc_info", None)
            extra = {"event": event, **data}
            # The record names the line of the caller, two calls above.
            self._logger.log(
                level, words, *args, exc_info=exc_info, extra=extra, stacklevel=3
            )
