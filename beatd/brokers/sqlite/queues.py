"""Queues, deliveries under leases and dead letters, in one SQLite file."""

import json
import secrets
import sqlite3
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from pathlib import Path

from beatd.brokers.current_runs import names_in
from beatd.brokers.items import (
    DONE,
    GONE,
    STANDBY_LASTS,
    Acknowledge,
    Act,
    Answer,
    Begin,
    DeadLetter,
    Delay,
    Delayed,
    Delivery,
    Effect,
    GiveBack,
    Outgoing,
    Overview,
    QueueState,
    SetAside,
    StandbyState,
    Suspects,
    WorkerState,
    as_new,
    do_in_turn,
    idle,
    letter_of,
    number_together,
    pass_over,
    turns,
)
from beatd.brokers.sqlite.file import UNDONE, PartKnown, text, texts_as_bytes
from beatd.brokers.sqlite.lead import SQLiteLead
from beatd.brokers.sqlite.routes import Ways
from beatd.brokers.sqlite.statements import SQL, Row, write_rows
from beatd.clock import Clock, SystemClock
from beatd.errors import ItemRefused
from beatd.instant import HOUR, Span
from beatd.routing import PRIORITY_STEPS, Queue, binding_of, step_of
from beatd.storage.sqlite_file import BUSY_TIMEOUT, ROW_REFUSALS
from beatd.text import counted

REMEMBER_REQUESTS: Span = HOUR
"""How long after the end of a worker's lease its last requests are known."""

STAMP_BITS = 20
"""Of the number that names what one request took: random ones, below its own number."""

LARGEST = 2**63 - 1
"""The largest number in SQLite."""

_LETTER = (
    "queue",
    "reason",
    "at",
    "deliveries",
    "worker",
    "size",
    "task",
    "task_id",
)
"""The fields of a dead letter after its id, as the statement `letters` returns them."""

_LETTERS = {DONE: "d", GONE: "g"}
_REFUSED = "r"
_ANSWERS = {letter: answer for answer, letter in _LETTERS.items()} | {
    _REFUSED: Answer(Effect.REFUSED, "it was refused when it was asked for first")
}


class SQLiteBroker(SQLiteLead):
    """All ports of a broker, on one SQLite file that the processes of a host share."""

    def __init__(
        self,
        path: Path,
        *,
        namespace: str,
        priority_steps: Sequence[int] = PRIORITY_STEPS,
        busy_timeout: float = BUSY_TIMEOUT,
        clock: Clock | None = None,
    ) -> None:
        """Look at the file; it is made when it is first used.

        `busy_timeout` is how many seconds a step waits for the steps of other
        processes. Raises ConfigError for a file that is not ours, is damaged, or cannot
        be written.
        """
        clock = clock or SystemClock()
        super().__init__(path, namespace, priority_steps, busy_timeout, clock)

    # Sender

    def declare(self, queues: Collection[Queue]) -> None:
        rows = [(w.exchange, *binding_of(w)) for queue in queues for w in queue.ways]
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO bindings VALUES (?, ?, ?, ?)", rows)

    def purge(self, queues: Collection[str]) -> int:
        if not self._is_there():
            return 0
        with self._transaction() as db:
            for name in queues:
                self._end_runs_of(db, db.execute(SQL["runs_to_purge"], (name,)))
            gone = [db.execute(SQL["purge"], (name,)).rowcount for name in queues]
        return sum(gone)

    def send(self, batch: Sequence[Outgoing]) -> None:
        with self._transaction() as db:
            self._send(db, batch)
        self._rest.call()

    # Consumer

    def join(self, worker: str, lease: Span, queues: Collection[str] = ()) -> None:
        now = self._clock.elapsed()
        with self._transaction() as db:
            db.execute(SQL["forget_workers"], (now, now + REMEMBER_REQUESTS))
            told = json.dumps([*queues])
            db.execute(SQL["join"], (worker, lease, now + lease, told))

    def stay(self, worker: str, lease: Span) -> bool:
        ends = self._clock.elapsed() + lease
        with self._transaction() as db:
            return db.execute(SQL["stay"], (lease, ends, worker)).rowcount == 1

    def reclaim(
        self,
        worker: str,
        held: Collection[str],
        request: int,
        ended: Collection[str] = (),
    ) -> int:
        def is_known(number: int, attempt: str) -> bool:
            is_held = f"{attempt}:{number}" in held
            return is_held or int(attempt) >> STAMP_BITS >= request

        def unknown(db: sqlite3.Connection) -> list[tuple[int, bool]]:
            """Return ids, and whether the run has begun; the last one taken first."""
            rows = db.execute(SQL["under"], (worker,)).fetchall()
            return [
                (number, not attempt)
                for number, attempt, place in rows
                if not is_known(number, attempt or place)
            ]

        with self._connection() as db:
            if not unknown(db) and self._ended(db, worker) == {*ended}:
                return 0  # as nearly always: without a lock on the file
        with self._transaction() as db:
            db.execute(SQL["note_ended"], (" ".join(ended), worker))
            found = unknown(db)
            for number in [number for number, has_begun in found if has_begun]:
                row = (number, worker, "")
                self._end_runs_of(db, db.execute(SQL["message"], row))
                db.execute(SQL["acknowledge"], row)
            strays = [(number,) for number, has_begun in found if not has_begun]
            self._put_in_front(db, strays)
        if strays:
            self._rest.call()
        return len(strays)

    def leave(self, worker: str) -> None:
        with self._transaction() as db:
            self._release(db, worker, died=False)
        self._rest.call()

    def take(
        self,
        worker: str,
        queues: Sequence[str],
        limit: int,
        request: int,
        on_refused: Callable[[str, str], object] = pass_over,
        suspects: Suspects = Suspects.ALONE,
        together: int = 1,
        on_held_back: Callable[[], object] = idle,
    ) -> list[Delivery]:
        with self._transaction() as db:
            held_back = False
            last = self._last_take(db, worker)
            if last is None or request < last:
                return []
            if request > last:
                db.execute(SQL["note_take"], (request, worker))
            ready: Sequence[Row] = []
            if request > last:
                self._put_in_front(db, self._over(db, queues, limit))
                lying = self._lying(db, queues, limit)
                found = bool(lying)
                if suspects is Suspects.PASSED_OVER:
                    lying = self._lying(db, queues, limit, most_deaths=0)
                elif suspects is Suspects.ALONE and found and lying[0][3]:
                    lying = [] if self._is_busy(db, worker) else lying
                sizes = [(deaths, length) for _, _, length, deaths in lying]
                ready = lying[: number_together(sizes, suspects, together)]
                held_back = found and not ready
            before = 0
            if ready:
                sql = "SELECT coalesce(max(place), 0) FROM messages WHERE worker = ?"
                (before,) = db.execute(sql, (worker,)).fetchone()
                places = enumerate(ready, start=before + 1)
                attempt = str(request << STAMP_BITS | secrets.randbits(STAMP_BITS))
                flights = [(worker, attempt, place, row[0]) for place, row in places]
                db.executemany(SQL["take"], flights)
            taken = (worker, before, STAMP_BITS, request)
            rows = db.execute(SQL["taken"], taken).fetchall()
        if held_back:
            on_held_back()
        return [
            Delivery(f"{attempt}:{number}", queue, message, deaths + 1)
            for number, attempt, queue, message, deaths in rows
        ]

    def await_message(self, queues: Sequence[str], timeout: Span) -> bool:
        end = self._clock.elapsed() + timeout
        with self._connection() as db, self._rest.begun():
            return self._await_message(db, queues, end)

    def interrupt(self) -> None:
        self._rest.interrupt()

    def settle(
        self,
        worker: str,
        acts: Sequence[Act],
        sends: Sequence[Outgoing],
        request: int,
    ) -> list[Answer]:
        with self._transaction() as db:
            last, answers = self._last_request(db, worker)
            if request == last:
                return answers
            if request < last:
                return [GONE] * len(acts)
            self._send(db, sends)
            answers = self._do_all(db, worker, acts)
            letters = "".join(_LETTERS.get(answer, _REFUSED) for answer in answers)
            until = self._clock.elapsed() + REMEMBER_REQUESTS
            db.execute(SQL["remember"], (worker, until, f"{request} {letters}"))
        if sends or not all(isinstance(act, Acknowledge) for act in acts):
            self._rest.call()
        return answers

    def is_unattended(self) -> bool:
        if not self._is_there():
            return False
        with self._connection() as db:
            now = self._clock.elapsed()
            (found,) = db.execute(SQL["is_unattended"], (now,)).fetchone()
        return bool(found)

    def delayed(self, queues: Collection[str], limit: int) -> list[Delayed]:
        names = json.dumps(list(queues))
        with self._connection() as db:
            rows = db.execute(SQL["delayed"], (names, limit)).fetchall()
        return [Delayed(*row) for row in rows]

    def recover(self) -> int:
        with self._transaction() as db:
            dead = [one.worker for one in self._leases_run_out(db)]
            given = sum(self._release(db, worker, died=True) for worker in dead)
        if given:
            self._rest.call()
        return given

    # Observed

    def overview(self, queues: Collection[str]) -> Overview:
        if not self._is_there():
            return Overview([QueueState(name, 0) for name in queues], [], 0, [])
        now = self._clock.elapsed()
        with self._connection() as db, texts_as_bytes(db):
            workers = db.execute(SQL["observed"]).fetchall()
            (dead,) = db.execute("SELECT count(*) FROM dead").fetchone()
            states = [self._state_of(db, name) for name in queues]
            asked = (self._namespace, now - STANDBY_LASTS, now)
            told = db.execute(SQL["standbys"], asked).fetchall()
        standbys = [
            StandbyState(_shown(holder), _shown(digest), now - heard)
            for holder, digest, heard in told
        ]
        found = []
        for name, lease, ends, taken, held in workers:
            # From before the machine's start, nothing is known of the length.
            left = ends - now if ends - now <= lease else 0
            state = WorkerState(_shown(name), names_in(taken), held, max(left, 0))
            found.append(state)
        return Overview(states, found, dead, standbys)

    def waiting(self, queue: str, limit: int) -> list[bytes]:
        if not self._is_there():
            return []
        with self._connection() as db:
            return [row for (row,) in db.execute(SQL["waiting"], (queue, limit))]

    def _state_of(self, db: sqlite3.Connection, queue: str) -> QueueState:
        (length,) = db.execute(SQL["length"], (queue,)).fetchone()
        row = db.execute(SQL["first"], (queue,)).fetchone() if length else None
        return QueueState(queue, length, row[0] if row else b"")

    # Dead letters

    def dead_letters(self) -> list[DeadLetter]:
        if not self._is_there():
            return []
        with self._connection() as db, texts_as_bytes(db):
            rows = db.execute(SQL["letters"]).fetchall()
        letters = []
        for number, *about in rows:
            try:
                record = dict(zip(_LETTER, map(text, about), strict=True))
                letters.append(letter_of({**record, "id": str(number)}))
            except ValueError:
                words = "the dead letter %r is none of ours, and passed over: %r"
                self._oddities.tell("dead.unreadable", words, number, about)
        return letters

    def dead_message(self, letter: str) -> bytes | None:
        with self._connection() as db:
            row = db.execute(SQL["dead_message"], (letter,)).fetchone()
        return row[0] if row else None

    def retry_dead(
        self,
        letters: Collection[str],
        on_refused: Callable[[str, str], object] = pass_over,
    ) -> int:
        refused: dict[str, str] = {}
        with self._transaction() as db:
            for letter in letters:
                try:
                    with self._savepoint(db):
                        self._retry_dead(db, letter)
                except ROW_REFUSALS as error:
                    refused[letter] = f"{self._path} refuses: {error}"
            found = self._forget(db, [one for one in letters if one not in refused])
        self._rest.call()
        for letter, reason in refused.items():
            on_refused(letter, reason)
        return found

    def _retry_dead(self, db: sqlite3.Connection, letter: str) -> None:
        for (message,) in db.execute(SQL["dead_message"], (letter,)).fetchall():
            db.execute(SQL["retry_dead"], (as_new(message), letter))

    def drop_dead(self, letters: Collection[str]) -> int:
        with self._transaction() as db:
            return self._forget(db, letters)

    def _forget(self, db: sqlite3.Connection, letters: Collection[str]) -> int:
        rows = [(letter,) for letter in letters]
        return db.executemany("DELETE FROM dead WHERE id = ?", rows).rowcount

    # All

    def ping(self) -> str:
        with self._connection() as db:
            self._term(db)
        return f"sqlite {sqlite3.sqlite_version}, {self._path.absolute()}"

    def risks(self) -> list[str]:
        return []

    # Messages

    def _send(self, db: sqlite3.Connection, batch: Sequence[Outgoing]) -> None:
        ways = Ways(db, self._steps)
        rows = [
            (place, one.message)
            for one in batch
            for place in ways.of(one.route, one.due)
        ]
        try:
            write_rows(db, "push", rows)
        except ROW_REFUSALS as error:
            largest = max(len(outgoing.message) for outgoing in batch)
            words = (
                f"{counted(len(batch), 'message')} of up to {largest} bytes: {error}"
            )
            raise ItemRefused(f"{self._path} refuses {words}") from error

    def _lying(
        self,
        db: sqlite3.Connection,
        queues: Sequence[str],
        limit: int,
        most_deaths: int = LARGEST,
    ) -> list[Row]:
        """Return the next messages: by step, then by the order of queues."""
        rows: list[Row] = []
        for queue in queues:
            rows += db.execute(SQL["ready"], (queue, most_deaths, limit))
        # The sort is stable: within a step and queue they stay as they lie.
        rows.sort(key=lambda row: row[1])
        return rows[:limit]

    def _is_busy(self, db: sqlite3.Connection, worker: str) -> bool:
        """Return whether the worker has anything in flight that may be running."""
        rows = db.execute(SQL["under"], (worker,)).fetchall()
        tokens = {f"{attempt}:{number}" for number, attempt, _ in rows if attempt}
        return not tokens <= self._ended(db, worker)

    def _ended(self, db: sqlite3.Connection, worker: str) -> set[str]:
        """Return the deliveries whose runs have ended, as the worker said last."""
        row = db.execute(SQL["ended"], (worker,)).fetchone()
        return set(row[0].split()) if row else set()

    def _over(
        self, db: sqlite3.Connection, queues: Sequence[str], limit: int
    ) -> list[Row]:
        """Return delayed messages that are due, the last one first.

        Of these queues there are at most `limit`: if more were put back than are taken
        next, those that come due later would be put in front of them.
        """
        over: list[Row] = []
        for number, queue in db.execute(SQL["over"], (self._clock.now(),)):
            if queue in queues:
                if limit == 0:
                    break
                limit -= 1
            over.append((number,))
        return over[::-1]

    def _release(self, db: sqlite3.Connection, worker: str, *, died: bool) -> int:
        """End a lease, put back the messages under it, and return their number."""
        until = self._clock.elapsed() + REMEMBER_REQUESTS
        db.execute(SQL["end_lease"], (until, worker))
        self._end_runs_of(db, db.execute(SQL["begun_by"], (worker,)))
        db.execute(SQL["forget_begun_by"], (worker,))
        held = db.execute(SQL["under"], (worker,)).fetchall()
        if died:
            ended = self._ended(db, worker)
            tokens = [(number, f"{attempt}:{number}") for number, attempt, _ in held]
            counted = [(number,) for number, token in tokens if token not in ended]
            db.executemany(SQL["count_death"], counted)
        self._put_in_front(db, [(number,) for number, *_ in held])
        return len(held)

    def _put_in_front(self, db: sqlite3.Connection, messages: Sequence[Row]) -> None:
        """Put these, one after the other, to the fronts of their queues."""
        db.executemany(SQL["put_in_front"], messages)

    def _last_take(self, db: sqlite3.Connection, worker: str) -> int | None:
        """Return the number of the worker's last `take`; None if it has no lease."""
        row = db.execute(SQL["last_take"], (worker,)).fetchone()
        return int(row[0]) if row else None

    # Settling

    def _last_request(
        self, db: sqlite3.Connection, worker: str
    ) -> tuple[int, list[Answer]]:
        """Return the number of the worker's last request, and the answers to it."""
        sql = "SELECT sent FROM workers WHERE worker = ?"
        row = db.execute(sql, (worker,)).fetchone()
        number, _, letters = (row[0] if row else "").partition(" ")
        # Earlier versions kept a text here; the worker that it was for has ended.
        last = int(number) if number.isdecimal() else 0
        return last, [_ANSWERS[letter] for letter in letters]

    def _do_all(
        self, db: sqlite3.Connection, worker: str, acts: Sequence[Act]
    ) -> list[Answer]:
        try:
            with self._savepoint(db):
                return self._do_together(db, worker, acts)
        except UNDONE:
            # Something in it is refused, or in flight no more: each stands alone.
            return do_in_turn(acts, lambda act: self._try(db, worker, act))

    def _do_together(
        self, db: sqlite3.Connection, worker: str, acts: Sequence[Act]
    ) -> list[Answer]:
        """Do all acts, those that acknowledge together.

        Raises PartKnown, to be undone, when one of these is in flight no more.
        """
        answers = [DONE] * len(acts)
        for is_simple, places in groupby(
            turns(acts), lambda at: isinstance(acts[at], Acknowledge)
        ):
            if is_simple:
                self._acknowledge(db, worker, [acts[at] for at in places])
            else:
                for at in places:
                    answers[at] = self._do(db, worker, acts[at])
        return answers

    def _acknowledge(
        self, db: sqlite3.Connection, worker: str, acts: Sequence[Act]
    ) -> None:
        flights = [_flight(worker, act.delivery) for act in acts]
        if db.executemany(SQL["acknowledge"], flights).rowcount < len(flights):
            raise PartKnown
        runs = [
            (act.entry, act.run)
            for act in acts
            if isinstance(act, Acknowledge) and act.run and not act.goes_on
        ]
        self._end_runs(db, runs)

    def _try(self, db: sqlite3.Connection, worker: str, act: Act) -> Answer:
        try:
            with self._savepoint(db):
                return self._do(db, worker, act)
        except ROW_REFUSALS as error:
            return Answer(Effect.REFUSED, f"{self._path} refuses: {error}")

    def _do(self, db: sqlite3.Connection, worker: str, act: Act) -> Answer:
        """Do one act; return what became of it."""
        flight = _flight(worker, act.delivery)
        match act:
            case Begin(_, entry, run):
                current = (self._namespace, entry, run)
                found = run and db.execute(SQL["begin"], (*flight, *current)).rowcount
                found = found or db.execute(SQL["acknowledge"], flight).rowcount
            case Acknowledge(_, entry, run, goes_on):
                found = db.execute(SQL["acknowledge"], flight).rowcount
                if run and not found:
                    found = db.execute(SQL["end_begun"], flight).rowcount
                if found and run and not goes_on:
                    self._end_runs(db, [(entry, run)])
            case Delay(_, until):
                found = db.execute(SQL["delay"], (until, *flight)).rowcount
            case SetAside(delivery, reason, task, task_id, way_back):
                number, message = delivery.deliveries, delivery.message
                about = (reason, self._clock.now(), number, task, task_id)
                found = db.execute(SQL["in_flight"], flight).fetchone()
                if way_back:
                    step = step_of(way_back.priority, self._steps)
                    row = (way_back.queue, step, worker, len(message), message)
                    found = db.execute(SQL["set_aside_anew"], (*about, *row)).rowcount
                    db.execute(SQL["end_begun"], flight)
                elif found:
                    db.execute(SQL["set_aside"], (*about, *flight))
                if found:
                    self._end_runs_of(db, [(message,)])
                db.execute(SQL["acknowledge"], flight)
            case GiveBack():
                rows = db.execute(SQL["in_flight"], flight).fetchall()
                self._put_in_front(db, rows)
                found = len(rows)
        return DONE if found else GONE

    # Waiting

    def _await_message(
        self, db: sqlite3.Connection, queues: Sequence[str], end: Span
    ) -> bool:
        # SQLite's data_version tells whether another connection wrote.
        seen = due = None
        while True:
            (version,) = db.execute("PRAGMA data_version").fetchone()
            if version != seen:
                if any(self._is_ready(db, queue) for queue in queues):
                    self._rest.look_soon()
                    return True
                seen, (due,) = version, db.execute(SQL["next_due"]).fetchone()
            if due is not None and due <= self._clock.now():
                return True
            left = end - self._clock.elapsed()
            if left <= 0:
                return False
            if due is not None:
                left = min(left, due - self._clock.now())
            if not self._rest.wait(left):
                return False

    def _is_ready(self, db: sqlite3.Connection, queue: str) -> bool:
        (ready,) = db.execute(SQL["is_ready"], (queue,)).fetchone()
        return bool(ready)


def _shown(stored: bytes) -> str:
    return str(stored, "utf-8", "replace")


def _flight(worker: str, delivery: Delivery) -> tuple[str, str, str]:
    """Return id, worker and attempt, which name a message in flight."""
    attempt, _, number = delivery.token.rpartition(":")
    return number, worker, attempt
