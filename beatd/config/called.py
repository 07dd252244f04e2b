"""What entries of an app send: a call of the app's code for each slot, if need be."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from beatd.config.calls import EntryCall
from beatd.config.faults import raised_by_calling
from beatd.errors import MessageError
from beatd.instant import Instant, datetime_of
from beatd.message import Made, Template
from beatd.message.timing import Timing, iso
from beatd.routing import Route
from beatd.text import without_addresses


class AppCode(Protocol):
    """The code of an app and its tasks."""

    def listened_to(self) -> str:
        """Return who takes part in each call just now; empty if nobody does."""
        ...

    def publish(
        self,
        call: EntryCall,
        id: str,
        headers: Mapping[str, Any],
        arguments: Mapping[str, Any],
        more: Mapping[str, Any],
    ) -> Sequence[Made]:
        """Make a call under this task id, with more headers, arguments and options.

        Returns what it would send of the entry. Raises MessageError.
        """
        ...


@dataclass(frozen=True, slots=True)
class CalledMessage:
    """What an entry of an app sends.

    It is made by a call for each slot where code of others takes part.
    """

    code: AppCode
    call: EntryCall
    timing: Timing
    route: Route
    template: Template | None
    why: str
    """Why there is no template; empty with one."""

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.call.task

    @property
    def made_anew(self) -> str:
        """Why each message is made when its slot has come; empty if it is not."""
        return self.code.listened_to() or self.why

    def expires_of(self, sent: Instant) -> Instant | None:
        """Return when a message that was `sent` then expires, by the options."""
        return self.timing.expires_when_sent(sent)

    def made(
        self, *, id: str, now: Instant, slot: Instant, expires: Instant | None
    ) -> Made:
        """Return the message for one slot; its call is made now, if it has to be.

        Raises MessageError with what the code that is called has raised.
        """
        if self.template is not None and not self.code.listened_to():
            return self.template.made(id=id, now=now, slot=slot, expires=expires)
        call = self.call
        text = iso(slot, call.zone)
        arguments = {} if call.slot_argument is None else {call.slot_argument: text}
        more = {}
        if expires is not None:
            more["expires"] = datetime_of(expires, self.timing.zone)
        headers = {"beatd_entry": call.entry, "beatd_slot": text}
        made = self.code.publish(call, id, headers, arguments, more)
        if len(made) > 1:
            raise MessageError(
                f"{call.task}: its code sends {len(made)} messages by the producer"
                " of the scheduler, which takes one for each slot"
            )
        return made[0] if made else Made(b"", None, id)

    def essence(self) -> str:
        """Return what stands for all that is sent, whatever process sends it."""
        if self.template is not None:
            return self.template.essence()
        call = self.call
        parts = (call.task, call.args, call.kwargs, sorted(call.options.items()))
        return without_addresses(repr(parts))


def check_sender(call: EntryCall) -> None:
    """Raise MessageError for options that belong to who sends."""
    for name in _OF_THE_SENDER & call.options.keys():
        raise MessageError(f"options[{name!r}]: the scheduler has a connection already")


_OF_THE_SENDER = {"connection", "producer", "publisher"}


@contextmanager
def calling(task: str) -> Iterator[None]:
    """Raise MessageError with what the code of a task, or of its app, raises."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's code may raise SystemExit, say
        raise MessageError(raised_by_calling(task, error)) from error
