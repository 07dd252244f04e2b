"""Lead and ledger in Redis: one step queues messages and moves the ledger on."""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from beatd.brokers.items import (
    MOST_PAGES,
    STANDBY_LASTS,
    Emission,
    Emitted,
    HeldLead,
    Outcome,
    Promise,
    Refused,
    Term,
    idle,
    ledger_moved,
)
from beatd.brokers.leases import WorkerLease
from beatd.brokers.oddities import Oddities
from beatd.brokers.redis.connection import Address
from beatd.brokers.redis.failover import (
    SMALLEST_LARGEST,
    Server,
    is_about_a_key,
    too_large,
)
from beatd.brokers.redis.history import RedisHistory, over, text_of
from beatd.brokers.redis.leases import ServerLeases
from beatd.brokers.redis.listening import ReleaseWait
from beatd.brokers.redis.requests import CHANNEL, CHUNK, Wait, in_chunks
from beatd.brokers.redis.rights import refused_channels
from beatd.brokers.redis.wire import WireNames
from beatd.clock import Clock
from beatd.errors import BrokerRefused
from beatd.instant import SECOND, Instant, Span
from beatd.routing import Route
from beatd.timetable.imprint import Imprint
from beatd.timetable.ledger import (
    ERA_UNKNOWN,
    NO_EDITION,
    Edition,
    LedgerCopy,
    Mark,
    edition_of,
    is_count,
    mark_of,
)

LONGEST_WAIT: Span = SECOND
"""How long an emission waits at most until replicas have it."""

_OUTCOMES = {
    ord("q"): Outcome.QUEUED,
    ord("d"): Outcome.DROPPED,
    ord("k"): Outcome.KNOWN,
}


class RedisLead(RedisHistory):
    """The ports Lead, Emitter and HistoryKeeper."""

    promise = Promise.EXACTLY_ONCE
    lead_outlives_data = False

    def __init__(
        self,
        server: Server,
        wires: Mapping[Address, WireNames],
        namespace: str,
        clock: Clock,
    ) -> None:
        super().__init__(server, wires, namespace, clock)
        self._min_replicas = 0
        """So many replicas have to have an emission before it counts as done."""
        self._nonce = secrets.token_hex(8)
        self._leases = ServerLeases()
        self._longest_lease: Span = 0
        """The longest one that was asked for here."""
        self._oddities = Oddities()
        self._releases = ReleaseWait(
            self._server, self._key("released"), self._key("lead"), self._clock
        )

    # Lead

    def acquire(self, holder: str, ttl: Span, floor: int) -> Term | HeldLead:
        aside = f"unreadable:{self._nonce}:"
        own = ("lead", "term", f"{aside}lead", f"{aside}term", "ledger")
        number, *odd = self._run(
            "acquire",
            [self._key(name) for name in own],
            [holder, ttl, floor, self._nonce],
        )
        if not number:
            edition, held, by, left = odd
            term = Term(int(held), by.decode(errors="replace"))
            return HeldLead(self._edition(edition), term, left)
        # What the term begins with is asked of who is the master now.
        self._server.ask_again()
        # Only now: after a lost answer, the same nonce finds the term that it took.
        nonce, self._nonce = self._nonce, secrets.token_hex(8)
        for name in odd:
            self._oddities.tell(
                f"{name.decode()}.unreadable",
                "the key %s was none that beatd writes: it is kept as %s",
                self._key(name.decode()),
                self._key(aside + name.decode()),
            )
        return Term(number, nonce)

    def renew(self, term: Term, ttl: Span) -> bool:
        return bool(self._run("renew", [self._key("lead")], [text_of(term), ttl]))

    def resign(self, term: Term) -> None:
        keys = [self._key("lead"), self._key("resigned")]
        self._run("resign", keys, [text_of(term), self._key("released")])

    def last_resigned(self) -> Term | None:
        last: bytes | None = self._ask("GET", self._key("resigned"))
        number, _, nonce = (last or b"").decode(errors="replace").partition(" ")
        return Term(int(number), nonce.rstrip()) if number.isdecimal() else None

    def let_go(self) -> None:
        """Leave the lead to run out: only Redis has the lock."""

    def time(self) -> Instant:
        seconds, micros = self._ask("TIME")
        return int(seconds) * SECOND + int(micros) // 1000

    def leader(self) -> str | None:
        held: bytes | None = self._ask("GET", self._key("lead"))
        return held.decode(errors="replace").split(" ", 2)[-1] if held else None

    def announce(self, term: Term, imprint: Imprint) -> None:
        keys = [self._key("lead"), self._key("config")]
        if not self._run("announce", keys, [text_of(term), *imprint]):
            raise over(term)

    def announced(self, unless: str = "") -> Imprint | None:
        return self._announced([unless, "", "", 0])

    def stand_by(self, holder: str, digest: str, unless: str = "") -> Imprint | None:
        return self._announced([unless, holder, digest, STANDBY_LASTS])

    def _announced(self, asked: Sequence[str | int]) -> Imprint | None:
        keys = [self._key(name) for name in ("lead", "config", "standbys")]
        answer = self._run("announced", keys, asked)
        if not answer:
            return None
        digest, entries = answer
        return Imprint(digest.decode(errors="replace"), entries)

    def await_release(self, timeout: Span) -> bool:
        with self._server.answering():
            return self._releases.wait(timeout)

    # Emitter

    def emit(
        self,
        term: Term,
        batch: Sequence[Emission],
        ttl: Span,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> list[Emitted]:
        asked = self._ways(batch)
        try:
            return self._emit(term, batch, ttl, edition, asked, page)
        except BrokerRefused as refusal:
            forbidden = self._forbidden(asked.places) if is_about_a_key(refusal) else {}
            if not forbidden:
                raise
        refused = {place: _refused(reason) for place, reason in forbidden.items()}
        asked = asked._replace(places=asked.places | refused)
        return self._emit(term, batch, ttl, edition, asked, page)

    def _emit(
        self,
        term: Term,
        batch: Sequence[Emission],
        ttl: Span,
        edition: Edition | None,
        asked: "_Ways",
        page: bytes,
    ) -> list[Emitted]:
        places, ways, way_of, messages = asked
        # Entries that are due alike share one mark.
        rows = [emission.mark for emission in batch]
        marks = dict(zip(map(id, rows), rows, strict=True))
        own = ("lead", "ledger", "runs", "pages", "history")
        lead, ledger, *others = map(self._key, own)
        # A script that only names a forbidden key is refused as a whole.
        keys = [ledger if _is_refused(kind) else key for key, kind in places.items()]
        run = self._run
        if self._min_replicas:
            wait = Wait(self._min_replicas, max(1, min(LONGEST_WAIT, ttl // 4)))
            run = partial(self._run_and_wait, wait=wait)
        answer: bytes | list[bytes] | int | None = run(
            "emit",
            [lead, ledger, *others, *keys],
            [
                text_of(term),
                ttl,
                len(batch),
                way_of,
                len(ways),
                _numbers([*map(id, rows)]),
                len(marks),
                *(_before_and_after(edition) if edition else ("", "")),
                *[emission.entry for emission in batch],
                *messages,
                *map(_row, marks.values()),
                *places.values(),
                *ways,
                *[
                    part
                    for number, emission in enumerate(batch, 1)
                    if emission.run
                    for part in (number, emission.run)
                ],
                page,
                MOST_PAGES,
            ],
        )
        if answer is None:
            raise over(term)
        if isinstance(answer, int):
            assert edition is not None
            raise ledger_moved(edition)
        if isinstance(answer, bytes):
            return [_OUTCOMES[letter] for letter in answer]
        letters, *reasons = answer
        given = (self._reason(reason.decode()) for reason in reasons)
        return [_OUTCOMES.get(letter) or next(given) for letter in letters]

    def _forbidden(self, places: Mapping[str, str]) -> dict[str, str]:
        """Return the places that our user may not use, with the reason."""
        forbidden = {}
        for place, kind in places.items():
            try:
                if not _is_refused(kind):
                    self._run("may", [place], [kind])
            except BrokerRefused as refusal:
                if not is_about_a_key(refusal):
                    raise
                forbidden[place] = f"{place}: {refusal}"
        # Before Redis 7 scripts cannot tell which channels are forbidden.
        unsure = [
            place
            for place, kind in places.items()
            if kind == CHANNEL and place not in forbidden
        ]
        for channel, words in refused_channels(self._server, unsure).items():
            if "channel" in words:  # and it is not the command that is forbidden
                reason = self._server.refusal(f"NOPERM {words}")
                forbidden[channel] = f"{channel}: {reason}"
        return forbidden

    def _reason(self, words: str) -> Refused:
        """Return for people what the server says, or what was made of it before."""
        known = words.removeprefix(_KNOWN)
        return Refused(known if known != words else self._server.refusal(words))

    def read_ledger(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        # First of all: the rows, read in parts, are as new as this or newer.
        edition = self._edition(self._ask("HGET", self._key("ledger"), _EDITION))
        marks: dict[str, Mark] = {}
        unreadable = []
        # Entries of one schedule mostly have equal rows: they share one mark.
        known: dict[bytes, Mark] = {}
        for number, (name, row) in enumerate(self._rows_of("ledger")):
            if number % CHUNK == 0:
                on_part()
            if name == _EDITION:
                continue
            try:
                mark = known.get(row)
                if mark is None:
                    mark = known[row] = _mark(row)
                marks[name.decode()] = mark
            except ValueError:
                unreadable.append(name.decode(errors="replace"))
                self._oddities.tell(
                    "ledger.unreadable",
                    "the ledger's row for %r is none of ours, and passed over: %r",
                    name,
                    row[:80],
                )
        return LedgerCopy(marks, self._era(), edition, tuple(unreadable))

    def _edition(self, stored: bytes | None) -> Edition:
        try:
            return _edition_in(stored) if stored else NO_EDITION
        except ValueError:
            words = "the ledger %s says no edition, and counts as one without: %r"
            self._oddities.tell(
                "edition.unreadable", words, self._key("ledger"), stored
            )
            return NO_EDITION

    def _era(self) -> int:
        stored: bytes | None = self._ask("GET", self._key("era"))
        if stored is None:
            return 0
        try:
            era = int(stored)
        except ValueError:
            era = ERA_UNKNOWN
        if is_count(era):
            return era
        words = "the key %s is no clock era, and passed over: %r"
        self._oddities.tell("era.unreadable", words, self._key("era"), stored[:80])
        return ERA_UNKNOWN

    def write_ledger(
        self,
        term: Term,
        marks: Mapping[str, Mark],
        gone: Collection[str],
        era: int,
        edition: Edition | None = None,
        page: bytes = b"",
    ) -> None:
        own = ("lead", "ledger", "era", "runs", "pages", "history")
        keys = [self._key(name) for name in own]
        removed = set(gone)
        steps: list[list[Any]] = []
        for names in in_chunks([*{**marks, **dict.fromkeys(gone)}]):
            rows = [(name, _row(marks[name])) for name in names if name in marks]
            flat = [part for row in rows for part in row]
            steps.append([len(rows), *flat, *(n for n in names if n in removed)])
        steps = steps or [[0]]
        for left, step in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
            made = _edition_text(edition) if edition and not left else ""
            add = b"" if left else page
            asked = [text_of(term), era, made, add, MOST_PAGES, *step]
            if not self._run("write_ledger", keys, asked):
                raise over(term)

    def running(self, entries: Collection[str]) -> dict[str, str]:
        current: dict[str, str] = {}
        for names in in_chunks(list(entries)):
            runs = self._ask("HMGET", self._key("runs"), *names)
            found = zip(names, runs, strict=True)
            current.update(
                (name, run.decode(errors="replace")) for name, run in found if run
            )
        return current

    def end_runs(self, runs: Mapping[str, str]) -> None:
        for ended in in_chunks(list(runs.items())):
            self._run(
                "end_runs", [self._key("runs")], [x for run in ended for x in run]
            )

    def held_runs(self, runs: Collection[str]) -> set[str]:
        found: set[str] = set()
        if runs:
            dead = {one.worker for one in self._leases_run_out()}
            names = self._ask("ZRANGE", self._key("workers"), 0, -1)
            workers = set(filter(None, map(self._worker, names)))
            for worker in workers - dead:
                key = self._key(f"inflight:{worker}")
                found.update(map(bytes.decode, self._run("held_runs", [key], [*runs])))
        return found

    @property
    def _workers(self) -> list[str]:
        """The keys of all workers' leases: their ends, their lengths."""
        return [self._key("workers"), self._key("leases")]

    def _leases_run_out(self) -> list[WorkerLease]:
        """Return the leases of workers that are dead by now."""
        asked, longest = self._clock.elapsed(), [self._longest_lease]
        server, *about = self._run("doubtful_leases", self._workers, longest)
        rows = [iter(about)] * 3
        read = (self._lease_of(*row) for row in zip(*rows, strict=True))
        leases = [lease for lease in read if lease]
        answered, faults = self._clock.elapsed(), self._server.faults
        return self._leases.run_out(leases, server, asked, answered, faults)

    def _lease_of(self, name: bytes, ends: bytes, length: bytes) -> WorkerLease | None:
        """Return a worker's lease; None for a row that no worker of ours has written.

        A length that is none is 0.
        """
        worker = self._worker(name)
        try:
            instant = int(float(ends))
        except OverflowError:  # infinite
            words = "the lease of worker %r is none of ours, and passed over: %r"
            self._oddities.tell("lease.unreadable", words, name, ends)
            return None
        span = int(length) if length.isdigit() else 0
        return WorkerLease(worker, instant, span) if worker else None

    def _worker(self, name: bytes) -> str | None:
        """Return a worker's name; None for what is no text."""
        try:
            return name.decode()
        except UnicodeDecodeError:
            words = "a worker's name under %s is none of ours, and passed over: %r"
            self._oddities.tell("worker.unreadable", words, self._key("workers"), name)
            return None

    def _ways(self, batch: Sequence[Emission]) -> "_Ways":
        """Number the places that a batch goes to, and the ways to them."""
        messages = [emission.message for emission in batch]
        routes = [emission.route for emission in batch]
        keys = [*map(id, routes)]  # by identity: hashing a Route costs too much
        size = max(map(len, messages), default=0)
        largest = self._server.largest_text() if size > SMALLEST_LARGEST else size
        if size > largest:
            for index, message in enumerate(messages):
                if len(message) > largest:
                    keys[index] = -len(message)
                    messages[index] = b""  # the server would close the connection
        places: dict[str, str] = {}
        numbers: dict[str, int] = {}
        ways: list[str] = []
        for key, route in dict(zip(keys, routes, strict=True)).items():
            if key < 0:
                refusal = _refused(too_large(-key, largest))
                destinations = [(f"{-key} bytes", refusal)]
            else:
                destinations = self._places(route) if route else []
            places.update(destinations)
            for place, _ in destinations:
                numbers.setdefault(place, len(numbers) + 1)
            reached = ",".join(str(numbers[place]) for place, _ in destinations)
            ways.append(reached or ("-" if route else ""))
        for place in numbers:
            if not _is_refused(places[place]):
                places.update(self._expiring.get(place, {}))
        return _Ways(places, ways, _numbers(keys), messages)

    def _places(self, route: Route) -> list[tuple[str, str]]:
        """Return the places of a route, with their kinds; one may be refused."""
        try:
            return self._destinations(route)
        except BrokerRefused as refusal:
            if not is_about_a_key(refusal):
                raise
            bindings = self._wire.bindings(route.exchange)
            return [(bindings, _refused(f"{bindings}: {refusal}"))]


class _Ways(NamedTuple):
    """Where the messages of a batch go, as emit.lua reads it."""

    places: dict[str, str]
    """Each list or channel with its kind."""
    ways: list[str]
    """For each way the numbers of its places."""
    way_of: bytes
    """For each emission the number of its way, in two bytes."""
    messages: list[bytes]


def _numbers(keys: Sequence[int]) -> bytes:
    """Return for each key the number of its first place among them, in two bytes."""
    numbers = {
        key: n.to_bytes(2, "big") for n, key in enumerate(dict.fromkeys(keys), 1)
    }
    return b"".join(map(numbers.__getitem__, keys))


_KNOWN = "beatd: "
"""Before a reason that is already in words for people."""


def _refused(reason: str) -> str:
    """Return the kind of a place that is refused, as emit.lua reads it."""
    return f"!{_KNOWN}{reason}"


def _is_refused(kind: str) -> bool:
    return kind.startswith("!")


_EDITION = b"\xff"
"""The ledger's field for its edition: no entry's name in UTF-8 is this."""


def _edition_text(edition: Edition) -> str:
    return f"{edition.lineage} {edition.version} {edition.terms}"


def _before_and_after(edition: Edition) -> tuple[str, str]:
    """Return what the ledger's edition is to be before a write, and after it."""
    before = edition._replace(version=edition.version - 1)
    return _edition_text(before), _edition_text(edition)


def _edition_in(stored: bytes) -> Edition:
    lineage, version, *terms = stored.decode().split(" ")
    return edition_of(lineage, int(version), " ".join(terms))


def _row(mark: Mark) -> str:
    """Return the ledger's text for a mark; scripts read only the slot in it."""
    last = "-" if mark.last is None else mark.last
    high = "" if mark.high is None else f"^{mark.high}"
    return f"{mark.slot} {mark.runs} {last}{high} {mark.fingerprint}"


def _mark(row: bytes) -> Mark:
    slot, runs, last, fingerprint = row.decode().split(" ", 3)
    last, _, high = last.partition("^")
    emitted = None if last == "-" else int(last)
    before = int(high) if high else None
    return mark_of(int(slot), fingerprint, int(runs), emitted, before)
