"""Tells people and dead-man's switches of events, beside all else."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from beatd.alerts.event import ENDED, FAIL, FAILING, STARTED, Event, document, variables
from beatd.alerts.ways import (
    Limited,
    NotTold,
    call_address,
    call_function,
    run_command,
)
from beatd.background import Faults, OnCrash, Service
from beatd.clock import Clock
from beatd.config.alert_rules import AlertRule, AlertRules
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span
from beatd.scheduler.pulse import Pulse
from beatd.text import counted

tell = EventLog(__name__)

MOST_WAITING = 1_000
"""Parcels that wait, at most: more are dropped, and counted."""

RESTS: Sequence[Span] = (SECOND, 5 * SECOND, 25 * SECOND, 60 * SECOND, 60 * SECOND)
"""How long to rest after each failed try; after one more the parcel is given up."""

SLOW: Span = SECOND
"""A try that took so long is the last one at its place in a turn."""

START, OK, FAILED, COMMAND, FUNCTION = "start", "ok", "fail", "command", "function"
"""Ways: three calls of a dead-man's switch, a command and a function."""


class Parcel(msgspec.Struct, array_like=True):
    """One event on one way to somebody."""

    way: str
    event: Event
    tries: int = 0


def ways_of(event: Event, rule: AlertRule) -> list[str]:
    """Return on which ways somebody is to be told of an event."""
    ways = []
    if rule.ping:
        call = _CALLS.get(event.kind, FAILED if event.kind in FAIL else "")
        if call and getattr(rule.ping, call):
            ways.append(call)
    if event.is_alert:
        ways += [COMMAND] if rule.command else []
        ways += [FUNCTION] if rule.function else []
    return ways


_CALLS = {STARTED: START, ENDED: OK, FAILING: FAILED}


_BETWEEN_WORDS = "\0"
"""Between the words of a command, none of which has one."""


def target_of(way: str, rule: AlertRule) -> str:
    """Return what a parcel goes to, if the rule has that way."""
    if way == COMMAND:
        return _BETWEEN_WORDS.join(rule.command or ())
    if way == FUNCTION:
        return rule.function or ""
    return str(getattr(rule.ping, way, ""))


@dataclass
class Lane:
    """The parcels to one target, in order, and when to try the first one."""

    place: str
    """What many targets may share: the host of an address, the program of a command."""
    parcels: deque[Parcel] = field(default_factory=deque)
    due: Span = 0


class Courier:
    """Delivers parcels in a thread of its own: each is tried a few times.

    Those to one target keep their order, since "all is well" must not be overtaken by
    an older failure; a target that hangs or fails rests, and the others go on. Hundreds
    that hang at one host cost each turn no more than one of them.
    """

    def __init__(
        self,
        rules: AlertRules,
        namespace: str,
        zone: ZoneInfo,
        timeout: Span,
        clock: Clock,
        pulse: Pulse,
        on_told: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_told` is called when one parcel less waits."""
        self._on_told = on_told
        self.rules = rules
        self._namespace = namespace
        self._zone = zone
        self._timeout = timeout
        self._clock = clock
        self._pulse = pulse
        self._lock = threading.Lock()
        self._lanes: dict[str, Lane] = {}
        self._waiting = 0
        self._bell = threading.Event()
        self._limited = Limited()
        self._drops = Faults(clock)
        self.changed = False
        """Whether parcels came or went since this was last set to False."""
        self._service = Service(self._step, self._bell.set)

    def start(self, on_crash: OnCrash) -> None:
        """Begin to deliver."""
        self._service.start("beatd-courier", on_crash)

    def leave(self) -> None:
        """Deliver no more; a try under way is not waited for."""
        self._service.leave()

    def put(self, event: Event) -> None:
        """Have this event told on each way that its entry's rule has."""
        rule = self.rules.of(event.entry)
        if rule:
            self.put_back([Parcel(way, event) for way in ways_of(event, rule)])

    def put_back(self, parcels: Sequence[Parcel]) -> None:
        """Have parcels delivered that may have waited elsewhere."""
        for parcel in parcels:
            rule = self.rules.of(parcel.event.entry)
            target = target_of(parcel.way, rule) if rule else ""
            if not target:
                continue  # the config has changed since
            with self._lock:
                is_full = self._waiting >= MOST_WAITING
                if not is_full:
                    new = Lane(_place_of(parcel, target))
                    lane = self._lanes.setdefault(_lane_of(parcel, target), new)
                    lane.parcels.append(parcel)
                    self._waiting += 1
                    self.changed = True
            if is_full:
                self._drop(parcel)
        self._pulse.alerts_waiting = self._waiting
        self._bell.set()

    def clear(self) -> None:
        """Forget all that waits: another process tells of it."""
        with self._lock:
            self._lanes.clear()
            self._waiting = 0
        self._pulse.alerts_waiting = 0

    def waiting(self, most: int) -> list[Parcel]:
        """Return up to so many of the parcels that are not delivered."""
        with self._lock:
            found = [one for lane in self._lanes.values() for one in lane.parcels]
        return sorted(found, key=lambda one: one.event.at)[:most]

    def turn(self) -> Span | None:
        """Try what is due; return how long to rest; None if nothing waits."""
        slow: set[str] = set()
        for name in [*self._lanes]:
            lane, before = self._lanes.get(name), self._clock.elapsed()
            if lane is None or lane.due > before or lane.place in slow:
                continue
            self._try(name, lane)
            if self._clock.elapsed() - before >= SLOW:
                slow.add(lane.place)  # the rest of these have the next turns
        with self._lock:
            due = min((lane.due for lane in self._lanes.values()), default=None)
        return None if due is None else max(due - self._clock.elapsed(), 0)

    def _try(self, name: str, lane: Lane) -> None:
        parcel = lane.parcels[0]
        parcel.tries += 1
        try:
            self.deliver(parcel)
        except NotTold as error:
            if parcel.tries <= len(RESTS):
                lane.due = self._clock.elapsed() + RESTS[parcel.tries - 1]
                words = "%s: not told yet by %s, trying again: %s"
                about = parcel.event.line, parcel.way, error
                tell.info("alert.again", words, *about, entry=parcel.event.entry)
                return
            self._give_up(parcel, error)
        with self._lock:
            if self._lanes.get(name) is not lane:
                return  # cleared meanwhile
            lane.parcels.popleft()
            self._waiting -= 1
            if not lane.parcels:
                del self._lanes[name]
            self.changed = True
            self._pulse.alerts_waiting = self._waiting
        self._on_told()

    def deliver(self, parcel: Parcel) -> None:
        """Try to deliver a parcel, once. Raises NotTold."""
        event = parcel.event
        rule = self.rules.of(event.entry)
        target = target_of(parcel.way, rule) if rule else ""
        if rule is None or not target:
            return
        told = document(event, self._zone, self._namespace)
        timeout = self._timeout
        if parcel.way == COMMAND:
            more = variables(event, self._zone, self._namespace)
            run_command(rule.command or (), told, more, timeout)
        elif parcel.way == FUNCTION:
            self._limited.call(lambda: call_function(target, told), timeout)
        else:
            self._limited.call(
                lambda: call_address(target, event.line, timeout), timeout
            )

    def _give_up(self, parcel: Parcel, error: NotTold) -> None:
        self._pulse.alerts_failed += 1
        tell.warning(
            "alert.untold",
            "could not be told by %s, after %s: %s (%s)",
            parcel.way,
            counted(parcel.tries, "try"),
            error,
            parcel.event.line,
            entry=parcel.event.entry,
            kind=parcel.event.kind,
        )

    def _drop(self, parcel: Parcel) -> None:
        self._pulse.alerts_dropped += 1
        if number := self._drops.meet():
            tell.warning(
                "alert.dropped",
                "%s of alerts dropped, as %d wait to be told already; the last: %s",
                counted(number, "telling"),
                MOST_WAITING,
                parcel.event.line,
                number=number,
            )

    def _step(self) -> Span | None:
        self._bell.clear()
        rest = self.turn()
        # A parcel that comes meanwhile rings.
        self._bell.wait(None if rest is None else rest / SECOND)
        return 0


def _lane_of(parcel: Parcel, target: str) -> str:
    """Return the name of the lane: a dead-man's switch has one for its three calls."""
    if parcel.way in (COMMAND, FUNCTION):
        return f"{parcel.way} {target}"
    return f"ping {parcel.event.entry}"


def _place_of(parcel: Parcel, target: str) -> str:
    """Return what hangs for all targets if it does for one."""
    if parcel.way == COMMAND:
        return f"command {target.partition(_BETWEEN_WORDS)[0]}"
    return target if parcel.way == FUNCTION else urlsplit(target).netloc
