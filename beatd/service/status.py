"""How a scheduler is: one snapshot, and what is wrong in it, in words.

The snapshot is data, as `beatd status --json` shows it: points in time are seconds
since the epoch in names that end in `_ts`, lengths are seconds.
"""

from collections.abc import Iterator, Sequence
from shlex import quote
from typing import Any, Literal

import msgspec

from beatd.instant import SECOND, Span
from beatd.service.clocks import off_in_words
from beatd.text import counted, listed

SCHEMA = "beatd.status/1"

OLDEST_TICK: Span = 15 * SECOND
"""A loop that has not turned for so long is at fault: it turns once a second."""

MOST_NAMED = 100
"""Entries, queues and workers that a snapshot names of each kind, at most."""

_IN_WORDS = 3
"""Names that one problem has."""


class HealthProblem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, and the command that helps."""

    kind: str
    text: str
    command: str = ""
    unhealthy: bool = False
    """Whether the service does not do what it is there for."""


class Leader(msgspec.Struct, frozen=True, kw_only=True):
    """The scheduler that leads, here or elsewhere."""

    name: str
    """Its host and its process, for people."""
    term: int | None = None
    since_ts: float | None = None
    """Since when this process leads, or knows that one."""


class Standby(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduler that stands by."""

    name: str
    """Its host and its process, for people."""
    heard: float
    """Seconds since it told the broker so; it does every five."""
    digest: str = ""
    """What stands for its entries; empty if that was not known yet."""


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """The loop of a scheduler that runs."""

    age: float
    """Seconds since it turned last."""
    started_ts: float
    has_begun: bool = True
    """Whether it has ever led or stood by."""


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """How late the emissions of the last hour were, in seconds."""

    emitted: int
    p50: float
    p99: float


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """What the results tell of the last runs."""

    sent: int
    """How many were looked at."""
    ended: int
    failed: int
    """Of those that ended, how many not well."""
    p50: float | None = None
    """Seconds that half of them ran at most; None if no result tells a run time."""


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """An entry, and when it is due."""

    entry: str
    at_ts: float


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """An entry, and why it is as it is."""

    entry: str
    reason: str = ""


class Entries(msgspec.Struct, frozen=True, kw_only=True):
    """How many entries there are, and which are not as they should be.

    Of very many in one state only the first are named.
    """

    total: int
    paused: int = 0
    over: int = 0
    bad: Sequence[Named] = ()
    refused: Sequence[Named] = ()
    held: Sequence[Named] = ()


class ConfigStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler goes by."""

    name: str
    state_file: str
    namespace: str
    zone: str
    digest: str = ""
    loaded_ts: float | None = None
    problem: str = ""
    """Why a later config cannot be used; empty if there is none."""


class BrokerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The broker, and what it may do to what lies there."""

    url: str
    """Without its password."""
    answers: bool
    server: str = ""
    """What server it is, with its version."""
    promise: str = ""
    """`exactly-once` or `at-least-once`: how often it has each slot; empty if nobody
    has looked yet."""
    round_trip: float | None = None
    risks: Sequence[str] = ()
    away_since_ts: float | None = None
    reason: str = ""
    """Why it does not answer."""
    seen_ts: float | None = None
    """When it was asked."""
    dead_letters: int | None = None


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A queue, and who takes from it."""

    name: str
    length: int | None
    """None: the broker does not say."""
    oldest: float | None = None
    """How long ago the message was made that is taken next; None if nobody can tell."""
    workers: Sequence[str] = ()


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that has a lease."""

    name: str
    queues: Sequence[str]
    holds: int
    lease_over: bool = False
    """Whether it was not heard of for longer than its lease."""


class Alerts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of alerts since the process began."""

    told: int = 0
    waiting: int = 0
    dropped: int = 0
    failed: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a scheduler is, or what can be told where none runs."""

    generated_ts: float
    source: str
    """Where this comes from: `scheduler`, or `broker and state file`."""
    version: str
    role: Literal["leader", "standby", "neither", "none"]
    """`neither` leads nor stands by yet, or any more; `none`: there is no scheduler."""
    host: str = ""
    pid: int | None = None
    leader: Leader | None = None
    standbys: Sequence[Standby] = ()
    """Of the last 20 s: one that has ended is among them for so long."""
    differs: str = ""
    """What nobody emits, as a scheduler with another config leads."""
    loop: Loop | None = None
    lag: Lag | None = None
    runs: Runs | None = None
    """Only `beatd status` looks at the results; None: they tell nothing."""
    next: Moment | None = None
    overdue: Moment | None = None
    """The entry that has been due for longest."""
    entries: Entries
    alerts: Alerts | None = None
    uncertain: int = 0
    """Slots of which it is uncertain whether they ran."""
    config: ConfigStatus
    broker: BrokerStatus
    clock_off: float | None = None
    """Seconds by which this host's clock is ahead of the broker's; None: not known."""
    queues: Sequence[QueueStatus] = ()
    workers: Sequence[WorkerStatus] = ()
    problems: Sequence[HealthProblem] = ()

    @property
    def healthy(self) -> bool:
        """Whether the service does what it is there for."""
        return not any(one.unhealthy for one in self.problems)

    @property
    def state(self) -> str:
        """`healthy`, `degraded` (something is to be looked after) or `unhealthy`."""
        if not self.healthy:
            return "unhealthy"
        return "degraded" if self.problems else "healthy"


def judged(status: Status, max_late: Span) -> Status:
    """Return the snapshot with what is wrong in it, the worst first.

    A slot that is due for longer than `max_late` is too late.
    """
    found = sorted(_problems(status, max_late), key=lambda one: not one.unhealthy)
    return msgspec.structs.replace(status, problems=found)


def with_failing(status: Status, names: Sequence[str]) -> Status:
    """Return the snapshot with entries among the problems whose last run failed."""
    found = [
        _odd("failing", f"{name}: its last run failed", f"beatd show {quote(name)}")
        for name in names[:_IN_WORDS]
    ]
    if more := names[_IN_WORDS:]:
        text = f"the last run failed as well of: {listed(more, _IN_WORDS)}"
        found.append(_odd("failing", text, "beatd list"))
    return msgspec.structs.replace(status, problems=[*status.problems, *found])


def as_data(status: Status) -> dict[str, Any]:
    """Return a snapshot as plain data, with what follows from it."""
    data = msgspec.to_builtins(status)
    return {"state": status.state, "healthy": status.healthy, **data}


def status_of(data: bytes) -> Status:
    """Return the snapshot in a JSON document. Raises ValueError for what is none."""
    return msgspec.json.decode(data, type=Status)


def _problems(status: Status, max_late: Span) -> Iterator[HealthProblem]:
    yield from _of_process(status)
    yield from _of_slots(status, max_late)
    yield from _of_broker(status, max_late)
    yield from _of_queues(status)
    yield from _of_workers(status)
    yield from _of_entries(status)
    yield from _of_alerts(status)


def _of_process(status: Status) -> Iterator[HealthProblem]:
    if status.role == "none" and status.leader is None:
        text = "no scheduler runs: nothing is emitted"
        yield _bad("no_scheduler", text, "beatd")
    if status.loop and not status.loop.has_begun:
        why = status.broker.reason or "it has just begun"
        text = f"the scheduler neither leads nor stands by yet: {why}"
        yield _bad("starting", text)
    if status.loop and status.loop.age * SECOND > OLDEST_TICK:
        yield _bad(
            "loop",
            f"the loop has not turned for {status.loop.age:.0f} s: it hangs, or a"
            " task's own code that makes messages takes so long",
            f"kill -USR1 {status.pid}   # its log then says where",
        )
    if status.differs:
        leads = f" ({status.leader.name})" if status.leader else ""
        text = f"the scheduler that leads{leads} goes by other entries"
        yield _odd("differs", f"{text}: {status.differs}", "beatd check --broker")
    yield from _of_standbys(status)
    if status.config.problem:
        text = f"the config cannot be read again: {status.config.problem}"
        yield _odd("config", f"{text}; the one before it goes on", "beatd check")


def differing(status: Status) -> list[str]:
    """Return who stands by with other entries than the scheduler that leads here."""
    digest = status.config.digest
    if status.role != "leader" or not digest:
        return []
    return [one.name for one in status.standbys if one.digest not in ("", digest)]


def _of_standbys(status: Status) -> Iterator[HealthProblem]:
    names = differing(status)
    # This host's config is the leader's: only there it can be compared with it.
    command = "beatd check --broker   # on the host of the one that stands by"
    for one in names[:_IN_WORDS]:
        text = f"{one} stands by with other entries: its log says which"
        yield _odd("standby_differs", text, command)
    if more := names[_IN_WORDS:]:
        text = f"other entries as well: {listed(more, _IN_WORDS)}"
        yield _odd("standby_differs", text, command)


def _of_slots(status: Status, max_late: Span) -> Iterator[HealthProblem]:
    overdue = status.overdue
    if overdue is not None:
        late = (status.generated_ts - overdue.at_ts) * SECOND
        if late > max_late:
            yield _bad(
                "overdue",
                f"{overdue.entry} is due for {late / SECOND:.0f} s, and not emitted",
                "beatd list",
            )


def _of_broker(status: Status, max_late: Span) -> Iterator[HealthProblem]:
    broker = status.broker
    if not broker.answers:
        since = broker.away_since_ts
        length = 0.0 if since is None else status.generated_ts - since
        lasts = f" for {length:.0f} s" if since is not None else ""
        # A standby has no slots of its own that could be late.
        is_long = status.role == "standby" and length * SECOND >= max_late
        yield HealthProblem(
            kind="broker",
            text=f"the broker does not answer{lasts}: {broker.reason}",
            command="beatd check --broker",
            unhealthy=is_long or status.role == "none",
        )
    off = None if status.clock_off is None else round(status.clock_off * SECOND)
    if words := off_in_words(off):
        yield _odd("clock", words, "timedatectl")
    for risk in broker.risks:
        yield _odd("risk", f"broker: {risk}", "beatd check --broker")
    if broker.dead_letters:
        text = f"workers have set aside {counted(broker.dead_letters, 'message')}"
        yield _odd("dead_letters", text, "beatd dead list")


def _of_queues(status: Status) -> Iterator[HealthProblem]:
    for queue in status.queues:
        if queue.length and not queue.workers:
            lie = counted(queue.length, "message")
            lie = f"{lie} {'lies' if queue.length == 1 else 'lie'}"
            yield _bad(
                "not_taken",
                f"{lie} in queue {queue.name}, and nobody takes from it",
                f"beatd worker -Q {queue.name}",
            )
        if queue.length is None:
            text = f"the broker does not let beatd look into queue {queue.name}"
            yield _odd("queue", text, "beatd check --broker")


def _of_workers(status: Status) -> Iterator[HealthProblem]:
    if lost := [one.name for one in status.workers if one.lease_over]:
        one = len(lost) == 1
        text = (
            f"not heard of for longer than {'its lease' if one else 'their leases'}:"
            f" {listed(lost, _IN_WORDS)};"
            f" {'it has died or is' if one else 'they have died or are'} cut off, and"
            f" what {'it holds' if one else 'they hold'} is run by others once a worker"
            " runs"
        )
        yield _odd("worker_lost", text, "beatd worker")


def _of_entries(status: Status) -> Iterator[HealthProblem]:
    entries = status.entries
    for text in _said_of(entries.refused, "refused"):
        yield _bad("refused", text, "beatd list")
    for text in _said_of(entries.bad, "left out"):
        yield _odd("bad", text, "beatd check")
    for text in _said_of(entries.held, "held"):
        yield _odd("held", text, "beatd list")


def _of_alerts(status: Status) -> Iterator[HealthProblem]:
    alerts = status.alerts or Alerts()
    for number, words in (
        (alerts.failed, "could not be told: the log says why"),
        (alerts.dropped, "lost, as too many waited to be told"),
    ):
        if number:
            text = f"{counted(number, 'alert')} {words}"
            yield _odd("alerts", text, "beatd alert test")


def _said_of(named: Sequence[Named], state: str) -> Iterator[str]:
    """Yield what is said of entries in one state: of the first ones with reasons."""
    for one in named[:_IN_WORDS]:
        yield f"{one.entry} is {state}: {one.reason}"
    if more := named[_IN_WORDS:]:
        names = listed([one.entry for one in more], _IN_WORDS)
        yield f"{state} as well: {names}"


def _bad(kind: str, text: str, command: str = "") -> HealthProblem:
    return HealthProblem(kind=kind, text=text, command=command, unhealthy=True)


def _odd(kind: str, text: str, command: str = "") -> HealthProblem:
    return HealthProblem(kind=kind, text=text, command=command)
