"""Many calls, sent together: what cannot be sent is named, and holds up no other."""

from collections.abc import Callable
from typing import Any

from beatd.app.sending import CallMessage, CallSender, NewIds
from beatd.clock import Clock
from beatd.errors import BrokerUnavailable, CallsNotSent, ItemRefused, MessageError
from beatd.message import Sending

MOST = 1000
"""Calls that are sent in one step, at most."""

LARGEST = 1 << 20
"""Bytes of messages from which on those that wait are sent."""


class Bulk:
    """Sends calls in the order in which they are added, in bounded parts.

    `results` has one for each call that was added; `end` says which were not sent.
    """

    def __init__(
        self, sender: CallSender, clock: Clock, sent: Callable[[str], Any]
    ) -> None:
        """`sent` returns the result of the call that was sent under an id."""
        self._sender = sender
        self._clock = clock
        self._sent = sent
        self._results: list[Any] = []
        self._problems: dict[int, Exception] = {}
        self._part: list[CallMessage] = []
        self._ids: list[tuple[int, str]] = []
        """The place and the task id of each call that waits in the part."""
        self._size = 0
        self._new_ids = NewIds()
        self._away: BrokerUnavailable | None = None
        """Why the broker was given up; what follows is not sent."""

    def add(self, make: Callable[[], Sending], registered: bool) -> None:
        """Send the call that `make` returns, with complete options, or note why not.

        `registered` says that its task is known here.
        """
        place = len(self._results)
        self._results.append(None)
        if self._away:
            self._problems[place] = self._away
            return
        now = self._clock.now()
        try:
            sending = make()
            task_id = sending.options.get("task_id") or self._new_ids.draw(now)
            made = self._sender.message(sending, task_id, now, registered=registered)
        except (TypeError, MessageError) as error:
            self._problems[place] = error
            return
        self._part.append(made)
        self._ids.append((place, task_id))
        self._size += len(made.message.message)
        if len(self._part) == MOST or self._size >= LARGEST:
            self._send()

    def call(self, own: Callable[[], Any]) -> None:
        """Have a call sent by its own way, which is the user's code, after the others.

        `own` returns its result. What it raises is noted.
        """
        self._send()
        place = len(self._results)
        self._results.append(None)
        if self._away:
            self._problems[place] = self._away
            return
        try:
            self._results[place] = own()
        except Exception as error:  # foreign code
            self._problems[place] = error

    def end(self) -> list[Any]:
        """Send what waits, and return the results of all calls, in their order.

        Raises CallsNotSent.
        """
        self._send()
        if self._problems:
            problems = dict(sorted(self._problems.items()))
            raise CallsNotSent(problems, self._results)
        return self._results

    def _send(self) -> None:
        part, ids = self._part, self._ids
        self._part, self._ids, self._size = [], [], 0
        if not part:
            return
        left = dict(enumerate(ids))

        def note_sent(number: int) -> None:
            place, task_id = left.pop(number)
            self._results[place] = self._sent(task_id)

        def note_refused(number: int, refusal: ItemRefused) -> None:
            place, _ = left.pop(number)
            self._problems[place] = refusal

        try:
            self._sender.send_each(part, note_sent, note_refused)
        except BrokerUnavailable as error:
            self._away = error
            self._problems.update((place, error) for place, _ in left.values())
