"""The snapshot where no scheduler answers: from the broker's ledger and the file."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from beatd.brokers.base import SendingBroker
from beatd.clock import Clock
from beatd.config.loading import Config
from beatd.config.settings import mask_url
from beatd.errors import BrokerUnavailable
from beatd.instant import SECOND, Instant, span_of
from beatd.scheduler.file_view import View, uncertain_in
from beatd.service.look import AskWorkers, Look, Looker
from beatd.service.snapshot import (
    broker_of,
    named,
    queues_of,
    standbys_of,
    workers_of,
)
from beatd.service.status import ConfigStatus, Entries, Leader, Moment, Status, judged
from beatd.timetable.entry import Entry
from beatd.timetable.imprint import compare, imprint_of, in_words, trace_of
from beatd.timetable.ledger import Mark
from beatd.version import __version__


def offline_status(
    config: Config,
    file: View | None,
    broker: SendingBroker | None,
    clock: Clock,
    ask_workers: AskWorkers = dict,
) -> Status:
    """Return what can be told of the schedulers of a config; none answers here.

    `broker` is None where there is no file of its yet. A leader on another host is
    known by its lead, and judged by the ledger.
    """
    seen = _Seen(Look(clock.now()))
    if broker is not None:
        seen = _see(config, broker, clock, ask_workers)
    look, leader, marks, differs = seen
    marks = marks or (file.marks if file else {})
    now = clock.now()
    going = [one for one in config.entries if one.policy.enabled]
    due = [*_due(going, marks, now)]
    first = min(due, default=None)
    moment = Moment(entry=first[1], at_ts=first[0] / SECOND) if first else None
    is_due = first is not None and first[0] <= now
    settings = config.settings
    state_file = settings.beat_schedule_filename
    whole = Status(
        generated_ts=now / SECOND,
        source="broker and state file" if not look.reason else "state file",
        version=__version__,
        role="none",
        leader=Leader(name=leader) if leader else None,
        standbys=standbys_of(look.seen, leader),
        differs=differs,
        next=None if is_due else moment,
        overdue=moment if is_due else None,
        entries=Entries(
            total=len(config.entries) + len(config.bad),
            paused=len(config.entries) - len(going),
            over=len(going) - len(due),
            bad=named((one.name, one.why) for one in config.bad),
            refused=named(file.refused.items() if file else ()),
            held=named(file.held.items() if file else ()),
        ),
        uncertain=uncertain_in(Path(state_file)),
        config=ConfigStatus(
            name=config.source.name,
            state_file=state_file,
            namespace=settings.beat_namespace,
            zone=str(settings.zone),
            digest=imprint_of(map(trace_of, config.entries)).digest,
        ),
        broker=broker_of(mask_url(settings.write_urls[0]), look),
        queues=queues_of(look, now),
        workers=workers_of(look.seen),
    )
    return judged(whole, span_of(settings.beat_max_late))


class _Seen(NamedTuple):
    """What a broker has of its schedulers."""

    look: Look
    leader: str | None = None
    marks: Mapping[str, Mark] = {}
    differs: str = ""


def _see(
    config: Config, broker: SendingBroker, clock: Clock, ask_workers: AskWorkers
) -> _Seen:
    """Return what the broker has; if it does not answer, the reason why."""
    look = Looker(broker, lambda: config.queue_names, clock, ask_workers).look()
    if look.reason:
        return _Seen(look)
    try:
        leader, marks = broker.leader(), broker.read_ledger().marks
        return _Seen(look, leader, marks, _difference(config, broker))
    except BrokerUnavailable as error:
        return _Seen(Look(look.at, reason=str(error)))


def _due(
    entries: Iterable[Entry], marks: Mapping[str, Mark], now: Instant
) -> Iterator[tuple[Instant, str]]:
    """Yield when each entry is due next, by the ledger; those that are over are not."""
    for entry in entries:
        mark = entry.mark_from(marks.get(entry.name), now)
        slot = entry.first_after(mark)
        if slot is not None:
            yield slot + entry.offset, entry.name


def _difference(config: Config, broker: SendingBroker) -> str:
    """Return in words what the scheduler that leads emits otherwise."""
    theirs = broker.announced()
    own = imprint_of(map(trace_of, config.entries))
    if theirs is None or theirs.digest == own.digest:
        return ""
    return in_words(compare({one.name: one for one in config.entries}, theirs))
