"""What lies in a broker and is none of ours: named once."""

from beatd.event_log import EventLog

tell = EventLog(__name__)


class Oddities:
    """Logs what is stored under a name and cannot be understood, each value once."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, object], object] = {}

    def tell(self, event: str, words: str, name: object, what: object) -> None:
        """Log these words with the name and the value, unless they were before."""
        if self._told.get((event, name)) != what:
            self._told[event, name] = what
            tell.error(event, words, name, what)
