"""Every error that beatd raises on purpose.

BeatdError
├── ConfigError            settings or entries that cannot be used, all of them at once
├── ScheduleError          one schedule that cannot be used (also a ValueError)
├── MessageError           a call that cannot be encoded, or bytes that are no message
├── BrokerUnavailable      the answer is lost: the same request may be sent again
├── BrokerRefused          the broker answered, and will not until someone mends it
├── ItemRefused            the broker answered, and refuses this one request alone
├── CallsNotSent           of many calls some could not be sent; all others were
├── TermOver               someone else leads: nothing of the request was done
├── LedgerMoved            the ledger is not as it was left: nothing was done
├── ScheduleFileError      a schedule file that cannot be used, and was left as it was
├── ResultUnavailable      the result backend did not answer
├── ResultRefused          the result backend answered, and refuses some of the items
├── NoThread               the system starts no more threads (also a RuntimeError)
├── SoftTimeLimitExceeded  raised inside a task that runs too long: clean up and end
├── TimeLimitExceeded      what a run that was ended by force leaves as its result
├── WorkerLost             the result of a run whose process died
├── NotRegistered          no task of this name was imported (also a KeyError)
├── MaxRetriesExceeded     what a run leaves that may not be tried again
├── Revoked                what a run leaves that was never to begin
├── CommandFailed          a command of beatd.run that failed or could not be started
├── RequestFailed          a request of beatd.http that was not answered as expected
├── ChordError             what a chord's body leaves that cannot run
└── Verdict                raised by a task to say itself what becomes of its run
    ├── Ignore             it ended, and nothing is stored
    ├── Reject             its message goes back to the queue, or to the dead letters
    └── Retry              it is tried again later
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any


class BeatdError(Exception):
    """An error that beatd raises on purpose; its text is for people."""


class ConfigError(BeatdError):
    """Settings that cannot be used, all of them at once.

    `source` is where they are: a config, or the one setting or option that is wrong.
    """

    def __init__(self, source: str, problems: list[str]) -> None:
        super().__init__("\n  ".join([f"cannot use {source}", *problems]))
        self.source = source
        self.problems = problems


class ScheduleError(BeatdError, ValueError):
    """A schedule that cannot be read or can never occur; `field` says which part."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class MessageError(BeatdError, ValueError):
    """A call that cannot be encoded, or bytes that are not a task message."""


class BrokerUnavailable(BeatdError):
    """No answer arrived: whether the request was done is unknown."""


class BrokerRefused(BrokerUnavailable):
    """The broker refuses for now: read-only, out of memory, no permission."""


class ItemRefused(BrokerRefused):
    """The broker refuses this one request, and may take others.

    A key of another type, no permission for it, or a message that is too large.
    """


class CallsNotSent(BeatdError):
    """Of many calls some were not sent, and all others were.

    `problems` has the reason of each by its place among the calls, from 0 on;
    `results` the result of each call that was sent, and None for the others. Calls
    whose reason is BrokerUnavailable may be on their queue: the answer was lost.
    """

    def __init__(
        self, problems: Mapping[int, Exception], results: Sequence[Any]
    ) -> None:
        named = [f"call {at}: {why}" for at, why in islice(problems.items(), 5)]
        if len(problems) > len(named):
            named.append(f"and {len(problems) - len(named)} more")
        text = f"{len(problems)} of {len(results)} calls were not sent"
        super().__init__("\n  ".join([text, *named]))
        self.problems = problems
        self.results = results


class TermOver(BeatdError):
    """The term is not the leader's any more; nothing was queued."""


class LedgerMoved(BeatdError):
    """The ledger is not as this process left it; nothing was queued.

    The broker's data were set back, or replaced: the term has to begin anew.
    """


class ScheduleFileError(BeatdError):
    """The schedule file cannot be used; not one byte of it was changed."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ResultUnavailable(BeatdError):
    """The result backend gave no answer."""


class ResultRefused(ResultUnavailable):
    """The result backend refuses some of what it was to store, and has stored the rest.

    A key of another type, no permission for it, or a value that is too large.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons
        """By place in what was to be stored, for people."""


class NoThread(BeatdError, RuntimeError):
    """The system starts no more threads for this process."""


class SoftTimeLimitExceeded(BeatdError):
    """The soft time limit passed: the task may clean up before it is ended by force."""


class TimeLimitExceeded(BeatdError):
    """The time limit passed, and the run was ended by force."""

    def __init__(self, time_limit: float) -> None:
        super().__init__(time_limit)
        self.time_limit = time_limit


class WorkerLost(BeatdError):
    """The process that ran the task died; the text says how."""


class NotRegistered(BeatdError, KeyError):
    """No task of this name was imported here."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        text = f"no task named {self.name!r} was imported"
        if self.name.startswith("beatd."):
            return f"{text}; a worker has it with builtin_tasks = [{self.name!r}]"
        return text


class MaxRetriesExceeded(BeatdError):
    """The task asked for one more try than its `max_retries`."""

    def __init__(
        self,
        *args: object,
        task_args: Sequence[Any] = (),
        task_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(*args)
        self.task_args = task_args
        self.task_kwargs = task_kwargs or {}


class Revoked(BeatdError):
    """The run was not to begin any more; the text says why: `expired`."""


class CommandFailed(BeatdError):
    """A command failed, took too long or could not be started; the text says how."""


class RequestFailed(BeatdError):
    """A request had no answer, or not the one expected; the text says which."""


class ChordError(BeatdError):
    """The body of a chord cannot run; the text says why: a failure in its header."""


class Verdict(BeatdError):
    """Raised by a task to decide itself what becomes of its run; not a failure."""


class Ignore(Verdict):
    """The run has ended; its state stays as it is."""


class Reject(Verdict):
    """The message is refused: to the end of its queue with `requeue`, else set aside.

    A message that is set aside lies on the dead-letter queue. One that goes back is
    marked as redelivered, and set aside after `task_max_deliveries` deliveries.
    """

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        super().__init__(reason, requeue)
        self.reason = reason
        self.requeue = requeue


class Retry(Verdict):
    """The task is tried again; `Task.retry` makes and raises it."""

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | None = None,
        when: datetime | float | None = None,
    ) -> None:
        super().__init__(message, exc, when)
        self.message = message
        self.exc = exc
        """Why the run before failed."""
        self.when = when
        """An instant, or seconds from now."""

    def __str__(self) -> str:
        when = "" if self.when is None else f" at {self.when}"
        if isinstance(self.when, int | float):
            when = f" in {self.when}s"
        cause = "" if self.exc is None else f": {self.exc!r}"
        return self.message or f"Retry{when}{cause}"
