"""The snapshot of a scheduler that runs: what its loop tells, and its broker has."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from beatd.brokers.items import Overview
from beatd.clock import Clock
from beatd.instant import SECOND, Instant, Span
from beatd.scheduler.file_view import uncertain_in
from beatd.scheduler.pulse import quantile
from beatd.service.clocks import ClockWatch
from beatd.service.facts import Facts, Published, Tick
from beatd.service.look import Look, Looker, made_at
from beatd.service.rereading import Taken
from beatd.service.status import (
    MOST_NAMED,
    Alerts,
    BrokerStatus,
    ConfigStatus,
    Entries,
    Lag,
    Leader,
    Loop,
    Moment,
    Named,
    QueueStatus,
    Standby,
    Status,
    WorkerStatus,
    judged,
)
from beatd.version import __version__


@dataclass(frozen=True, slots=True)
class Place:
    """What stays as it is for as long as a scheduler runs."""

    config: str
    state_file: str
    namespace: str
    broker: str
    max_late: Span


@dataclass
class Reporter:
    """Puts snapshots together; any thread may ask, and waits for nobody."""

    place: Place
    published: Published
    looker: Looker
    clocks: ClockWatch
    clock: Clock
    taken: Taken
    loaded: Instant
    problem: str = ""
    """Why a later config cannot be used; empty if there is none."""
    _paused: tuple[Taken, int] | None = field(default=None, init=False)
    _read: tuple[Look | None, int] | None = field(default=None, init=False)

    def take(self, taken: Taken, loaded: Instant) -> None:
        """Note that the scheduler goes by this config now."""
        self.taken, self.loaded, self.problem = taken, loaded, ""

    def loop_age(self) -> Span:
        """Return how long ago the loop turned last."""
        return self.clock.elapsed() - self.published.tick.elapsed

    def status(self) -> tuple[Status, bool]:
        """Return the snapshot, and whether its look at the broker is fresh."""
        look, is_fresh = self.looker.ask()
        return self._status(look), is_fresh

    def _status(self, look: Look | None) -> Status:
        now, tick, facts = self.clock.now(), self.published.tick, self.published.facts
        published = self.published
        leader = None
        if tick.leader:
            since = seconds(published.since)
            leader = Leader(name=tick.leader, term=tick.term, since_ts=since)
        first, is_due = None, False
        if tick.first is not None:
            entry, at = tick.first
            first, is_due = Moment(entry=entry, at_ts=at / SECOND), at <= now
        look_at, off = look or Look(now), self.clocks.off
        whole = Status(
            generated_ts=now / SECOND,
            source="scheduler",
            version=__version__,
            role=tick.role,
            host=published.host,
            pid=published.pid,
            leader=leader,
            standbys=standbys_of(look_at.seen, tick.leader),
            differs=facts.differs,
            loop=Loop(
                age=self.loop_age() / SECOND,
                started_ts=published.began / SECOND,
                has_begun=published.has_begun,
            ),
            lag=self._lag(),
            next=None if is_due else first,
            overdue=first if is_due else None,
            entries=self._entries(facts),
            alerts=self._alerts(),
            uncertain=self._uncertain(look),
            config=ConfigStatus(
                name=self.place.config,
                state_file=self.place.state_file,
                namespace=self.place.namespace,
                zone=self.taken.zone,
                digest=facts.digest,
                loaded_ts=self.loaded / SECOND,
                problem=self.problem,
            ),
            broker=self._broker(tick, look),
            clock_off=None if off is None else off / SECOND,
            queues=queues_of(look_at, now),
            workers=workers_of(look_at.seen),
        )
        return judged(whole, self.place.max_late)

    def _alerts(self) -> Alerts:
        pulse = self.published.pulse
        return Alerts(
            told=sum([*pulse.alerts.values()]),
            waiting=pulse.alerts_waiting,
            dropped=pulse.alerts_dropped,
            failed=pulse.alerts_failed,
        )

    def _uncertain(self, look: Look | None) -> int:
        """Return what the file says; it is read again with each look at the broker."""
        if self._read is None or self._read[0] is not look:
            self._read = look, uncertain_in(Path(self.place.state_file))
        return self._read[1]

    def _lag(self) -> Lag | None:
        counts = self.published.pulse.lags.of_hour(self.clock.elapsed())
        half, most = quantile(counts, 0.5), quantile(counts, 0.99)
        if half is None or most is None:
            return None
        return Lag(emitted=sum(counts), p50=half / SECOND, p99=most / SECOND)

    def _entries(self, facts: Facts) -> Entries:
        taken = self.taken
        if self._paused is None or self._paused[0] is not taken:
            paused = sum(not one.policy.enabled for one in taken.entries)
            self._paused = taken, paused
        return Entries(
            total=len(taken.entries) + len(taken.bad),
            paused=self._paused[1] + facts.paused,
            over=facts.over,
            bad=named((one.name, one.why) for one in taken.bad[:MOST_NAMED]),
            refused=named(facts.refused),
            held=named(facts.held),
        )

    def _broker(self, tick: Tick, look: Look | None) -> BrokerStatus:
        found = broker_of(self.place.broker, look)
        if not tick.outage:
            return found
        return BrokerStatus(
            url=found.url,
            answers=False,
            server=found.server,
            promise=found.promise,
            away_since_ts=seconds(self.published.away_since),
            reason=tick.outage,
            seen_ts=found.seen_ts,
        )


def broker_of(url: str, look: Look | None) -> BrokerStatus:
    """Return what a look has found of a broker; None: nobody has looked yet."""
    if look is None:
        return BrokerStatus(url=url, answers=True)
    if look.reason:
        at = look.at / SECOND
        return BrokerStatus(url=url, answers=False, reason=look.reason, seen_ts=at)
    return BrokerStatus(
        url=url,
        answers=True,
        server=look.server,
        promise=look.promise,
        round_trip=look.round_trip / 1_000_000,
        risks=look.risks,
        seen_ts=look.at / SECOND,
        dead_letters=look.seen.dead,
    )


def queues_of(look: Look, now: Instant) -> Sequence[QueueStatus]:
    """Return queues with those who take from them; those with messages first."""
    seen = look.seen
    takers: dict[str, list[str]] = {}
    taking = [(one.name, one.queues) for one in seen.alive]
    # A worker of beatd answers remote control, too, by the first part of its name.
    known = {name.rsplit(":", 2)[0] for name, _ in taking}
    others = [one for one in look.others.items() if one[0] not in known]
    for worker, queues in [*taking, *others]:
        for name in queues:
            takers.setdefault(name, []).append(worker)
    found = []
    for queue in sorted(seen.queues, key=lambda one: -(one.length or 0)):
        made = made_at(queue.first)
        found.append(
            QueueStatus(
                name=queue.name,
                length=queue.length,
                oldest=None if made is None else max(now - made, 0) / SECOND,
                workers=takers.get(queue.name, [])[:MOST_NAMED],
            )
        )
    return found[:MOST_NAMED]


def workers_of(seen: Overview) -> Sequence[WorkerStatus]:
    """Return the workers that have leases."""
    return [
        WorkerStatus(
            name=one.name,
            queues=[*one.queues][:MOST_NAMED],
            holds=one.held,
            lease_over=not one.left,
        )
        for one in seen.workers[:MOST_NAMED]
    ]


def standbys_of(seen: Overview, leader: str | None) -> Sequence[Standby]:
    """Return the schedulers that stand by; one that leads by now is left out."""
    return [
        Standby(name=one.name, heard=one.heard / SECOND, digest=one.digest)
        for one in seen.standbys[:MOST_NAMED]
        if one.name != leader
    ]


def named(pairs: Iterable[tuple[str, str]]) -> list[Named]:
    """Return entries with their reasons."""
    return [Named(entry=entry, reason=reason) for entry, reason in pairs]


def seconds(instant: Instant | None) -> float | None:
    """Return an instant in seconds."""
    return None if instant is None else instant / SECOND
