"""Jobs run in child processes, under supervision: start, hand out, end, replace.

One thread owns all that follows; the methods of the pool only leave it something to do.
What a child does is in child.py, how it comes into the world in forkserver.py.
"""

import logging
import os
import selectors
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from queue import Empty, SimpleQueue

import msgspec

from beatd.clock import Clock, SystemClock
from beatd.instant import DAY, SECOND, Span, span_of
from beatd.pools.base import (
    Job,
    Lost,
    PoolEvent,
    Returned,
    Runner,
    Started,
    TimedOut,
)
from beatd.pools.prefork.child import CHUNK, Child
from beatd.pools.prefork.forkserver import Birth, Nursery, NurseryDied, forked
from beatd.pools.prefork.frames import BrokenFrame, Claims, Frames, Ready, Report, pack

logger = logging.getLogger(__name__)

GRACE = 5 * SECOND
"""How long a child may take to leave when it was asked to."""

PAUSE = 1 * SECOND
"""Between births, while children die before they are ready."""

QUICK: Span = 5
"""No job waits in a child for longer than this behind another."""

MOST_JOBS, MOST_BYTES = 32, 1 << 18
"""What goes to a child in one chunk at most; one job may be larger."""

_words = msgspec.msgpack.Decoder(Ready | Report)


@dataclass(eq=False)
class _Ward:
    """What the supervisor knows of one child."""

    number: int
    place: int
    nursery: Nursery
    channel: socket.socket
    claims: Claims
    pid: int = 0
    """0 until the child says that it is ready."""
    jobs: deque[Job] = field(default_factory=deque)
    """Its chunk: the first one runs, the others may be taken back."""
    began: Span = 0
    """When the first one began."""
    pace: int = 1
    """How many jobs it is given at a time: more while they are quick."""
    deadline: Span | None = None
    """When it will be killed: its start takes too long, its job, or its leaving."""
    late: bool = False
    """Condemned because of that deadline."""
    retired: bool = False
    """Gets no more jobs."""
    leaving: bool = False
    """Ends by itself: it said so, or was asked to."""
    condemned: bool = False
    """Is being killed."""
    fault: str = ""
    """Why it had to be killed, when that says more than its wait status."""
    said: Frames = field(default_factory=Frames)
    unsent: bytearray = field(default_factory=bytearray)

    @property
    def staying(self) -> bool:
        return not self.leaving and not self.condemned and not self.retired

    @property
    def slow_from(self) -> Span | None:
        """When its job will have run for too long to have others wait for it."""
        hopeful = bool(self.jobs) and (self.pace > 1 or len(self.jobs) > 1)
        hopeful = hopeful and not self.condemned
        return self.began + QUICK if hopeful else None

    @property
    def idle(self) -> bool:
        return bool(self.pid) and not self.jobs and self.staying


class Prefork:
    """`size` child processes, each with one job at a time.

    A child that is idle is given a job, or several at once if its last ones were quick;
    those that would wait behind one that is not are taken back. The end of a child,
    whatever brings it about, costs the one job that it runs, and another child takes
    its place.

    `start` should be called while the process has no other thread and no connection
    yet, and all task modules are imported: the children are copies of that moment. Or
    they are copies of a new interpreter that `spawn` starts: from the beginning, if
    there is no `fork`, and in any case after `renew(fresh=True)`.

    Invariant: each job is in `_waiting` or among the jobs of one ward until its outcome
    is told, or its return. New children come from `_nursery`; those of `_former` ones
    work to their ends.
    """

    def __init__(
        self,
        runner: Runner,
        on_event: Callable[[PoolEvent], object],
        *,
        size: int,
        initialise: Callable[[], object] | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        alive_timeout: float | None = None,
        spawn: Birth | None = None,
        fork: bool = True,
        on_renewed: Callable[[bytes], object] = lambda about: None,
        on_crash: Callable[[BaseException], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`max_memory_per_child` is in KiB, looked at after each job.

        A child that is not ready `alive_timeout` seconds after it was asked for, what
        `initialise` takes included, is killed, and another takes its place.
        `on_renewed` hears what a new interpreter says of its code, before its children
        run any job, and `on_crash` of an end of the pool that nobody foresaw; both only
        take note.
        """
        self.size = size
        self._on_event = on_event
        self._alive_timeout = alive_timeout
        self._clock = clock or SystemClock()
        self._spawn = spawn
        self._on_renewed = on_renewed
        self._on_crash = on_crash or _say_crash
        child = Child(runner, initialise, max_tasks_per_child, max_memory_per_child)
        self._nursery = Nursery(spawn if spawn and not fork else forked(child.live))
        self._next: Nursery | None = None
        """Takes the place of the other when it is ready."""
        self._former: list[Nursery] = []
        self._wards: dict[int, _Ward] = {}
        self._waiting: deque[Job] = deque()
        self._numbers = count(1)
        self._failed_births = 0
        self._no_birth_before: Span = 0
        self._stopping = False
        self._killed = False
        self._patient_until: Span | None = None
        """When those will be ended by force that did not end when they were killed."""
        self._to_do: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._live, name="prefork", daemon=True)

    @property
    def demand(self) -> int:
        wards = list(self._wards.values())
        return max(self.size, sum(ward.pace for ward in wards if ward.staying))

    def start(self) -> None:
        # The nursery comes first, so that it inherits nothing of what follows.
        self._nursery.open()
        self._bell, self._clapper = socket.socketpair()
        self._bell.setblocking(False)
        self._clapper.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ, self._answer_bell)
        self._listen_to(self._nursery)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        self._do(partial(self._waiting.extend, tuple(jobs)))

    def recall(self) -> None:
        self._do(self._return_all)

    def resize(self, size: int) -> None:
        self.size = size
        self._ring()

    def processes(self) -> list[int]:
        return [ward.pid for ward in list(self._wards.values()) if ward.pid]

    def terminate(self, token: str, number: int) -> bool:
        self._do(partial(self._signal, token, number))
        return True

    def renew(self, *, fresh: bool) -> bool:
        if fresh and not self._spawn:
            return False
        self._do(self._begin_afresh if fresh else self._retire_all)
        return True

    def stop(self) -> None:
        self._do(self._wind_down)
        self._thread.join()

    def kill(self) -> None:
        self._do(self._end_now)
        self._thread.join()

    def _do(self, task: Callable[[], None]) -> None:
        self._to_do.put(task)
        self._ring()

    def _ring(self) -> None:
        """Have the supervising thread take another turn."""
        with suppress(OSError):  # full: it rings already; closed: nobody is there
            self._clapper.send(b"!")

    # All that follows runs in the supervising thread.

    def _live(self) -> None:
        try:
            self._supervise()
        except BaseException as error:
            self._on_crash(error)
        finally:
            self._let_go()

    def _supervise(self) -> None:
        while not self._is_over():
            self._raise_children()
            self._dismiss_surplus()
            self._dismiss_retired()
            self._close_former()
            self._hand_out()
            for key, events in self._selector.select(self._patience()):
                key.data(events)
            self._end_the_late()
            self._relieve_the_slow()
        for job in self._waiting:
            self._on_event(Lost(job.token, "the pool was stopped before it began"))

    def _let_go(self) -> None:
        for ward in self._wards.values():
            ward.channel.close()
        self._wards.clear()
        for nursery in self._nurseries():
            nursery.close()
        self._selector.close()
        self._bell.close()
        self._clapper.close()

    def _is_over(self) -> bool:
        if not self._stopping or self._wards:
            return False
        return self._killed or not self._waiting or self._no_birth_before > self._now()

    def _patience(self) -> float | None:
        """Give the seconds until something is to be done that nobody will tell."""
        now = self._now()
        wards = self._wards.values()
        times = [ward.deadline for ward in wards if ward.deadline]
        times += [ward.slow_from for ward in wards if ward.slow_from]
        if self._no_birth_before > now:
            times.append(self._no_birth_before)
        if self._patient_until:
            times.append(self._patient_until)
        # Selectors know no time-out of more than some weeks.
        return min(max(0, min(times) - now), DAY) / SECOND if times else None

    def _now(self) -> Span:
        return self._clock.elapsed()

    # What the pool's methods ask for.

    def _answer_bell(self, events: int) -> None:
        self._bell.recv(4096)
        with suppress(Empty):
            while True:
                self._to_do.get_nowait()()

    def _wind_down(self) -> None:
        self._stopping = True

    def _return_all(self) -> None:
        for ward in self._wards.values():
            self._reclaim(ward)
        self._return_behind(0)

    def _signal(self, token: str, number: int) -> None:
        for ward in self._wards.values():
            if token in [job.token for job in ward.jobs]:
                self._reclaim(ward)
                # The last one left is what runs, though its beginning may not be told.
                if ward.jobs and ward.jobs[-1].token == token:
                    ward.retired = True  # nothing else shall be hit
                    ward.nursery.kill(ward.number, number)
        for job in self._waiting:
            if job.token == token:
                self._waiting.remove(job)
                self._on_event(Lost(token, "ended before it began"))
                break
        self._return_surplus()

    def _retire_all(self) -> None:
        for ward in self._wards.values():
            ward.retired = True
            self._reclaim(ward)
        self._return_surplus()

    def _end_now(self) -> None:
        self._stopping = self._killed = True
        self._patient_until = self._now() + GRACE
        for ward in self._wards.values():
            self._condemn(ward)

    # Births and ends.

    def _raise_children(self) -> None:
        """Have as many children as are wanted: none any more when all work is done."""
        if self._stopping and not self._has_work():
            self._dismiss_all()
        elif not self._killed and self._no_birth_before <= self._now():
            try:
                self._fill_up()
            except OSError as error:  # of processes, files or memory there are no more
                self._pause_births(f"cannot fork: {error}")

    def _has_work(self) -> bool:
        return bool(self._waiting) or any(ward.jobs for ward in self._wards.values())

    def _fill_up(self) -> None:
        if not self._nursery.alive:
            self._nursery.open()
            self._listen_to(self._nursery)
        if self._nursery.ready:
            for _ in range(self.size - self._staying()):
                self._bear()

    def _staying(self) -> int:
        return sum(ward.staying for ward in self._wards.values())

    def _bear(self) -> None:
        number, place = next(self._numbers), self._free_place()
        claims = Claims()
        try:
            channel = self._nursery.fork(number, place, claims.reader)
        except OSError:
            claims.close()
            raise
        channel.setblocking(False)
        ward = _Ward(number, place, self._nursery, channel, claims)
        self._wards[number] = ward
        if self._alive_timeout:
            ward.deadline = self._now() + span_of(self._alive_timeout)
        self._selector.register(
            channel, selectors.EVENT_READ, partial(self._attend, ward)
        )

    def _free_place(self) -> int:
        # One that leaves has no job any more, or a last one: whoever counts on places
        # (one device for each) would rather share one than see a number beyond them.
        taken = {ward.place for ward in self._wards.values() if ward.staying}
        return next(place for place in count(1) if place not in taken)

    def _dismiss_surplus(self) -> None:
        """Let go of idle children while there are too many; of others once idle."""
        surplus = self._staying() - self.size
        if surplus > 0:
            idle = (ward for ward in self._wards.values() if ward.idle)
            for ward in islice(idle, surplus):
                self._dismiss(ward)

    def _dismiss_retired(self) -> None:
        for ward in self._wards.values():
            done = ward.retired and ward.pid and not ward.jobs
            if done and not ward.leaving and not ward.condemned:
                self._dismiss(ward)

    def _dismiss_all(self) -> None:
        for ward in self._wards.values():
            if ward.staying:
                self._dismiss(ward)

    def _dismiss(self, ward: _Ward) -> None:
        """Ask a child that has nothing to do to leave."""
        self._expect_to_leave(ward)
        with suppress(OSError):
            ward.channel.shutdown(socket.SHUT_WR)

    def _expect_to_leave(self, ward: _Ward) -> None:
        ward.leaving = True
        ward.deadline = self._now() + GRACE

    def _end_the_late(self) -> None:
        now = self._now()
        for ward in self._wards.values():
            if ward.deadline and ward.deadline <= now:
                if self._has_gone_on(ward):
                    continue
                ward.late = True
                if not ward.pid:
                    self._give_up(ward, "it took too long")
                self._condemn(ward)
        if self._patient_until and self._patient_until <= now:
            self._patient_until = None
            self._end_by_force()

    def _has_gone_on(self, ward: _Ward) -> bool:
        """Say whether its late job has ended, and only the word of that is missing."""
        self._reclaim(ward)
        if len(ward.jobs) < 2:
            return False
        now = self._now()
        limit = span_of(ward.jobs[0].time_limit or 0)
        ward.deadline = now + GRACE
        return now - ward.began - limit < GRACE

    def _end_by_force(self) -> None:
        """Wait no longer for those who outlive even SIGKILL, or do not pass it on."""
        words = "%d processes did not end when they were killed"
        logger.error(words, len(self._wards), extra={"event": "pool.forced"})
        for nursery in self._nurseries():
            nursery.kill_all()

    def _give_up(self, ward: _Ward, fault: str) -> None:
        """Hear no more of what the child says, if it says anything."""
        ward.fault = fault
        self._turn_away(ward)

    def _condemn(self, ward: _Ward) -> None:
        """Have the child killed; what it said until then still counts."""
        ward.deadline = None
        if not ward.condemned:
            ward.condemned = True
            self._reclaim(ward)  # or the blow may hit another job than the one meant
            ward.nursery.kill(ward.number)

    def _bury(self, number: int, how: str) -> None:
        """Take the child's last words, and tell what became of its job otherwise."""
        ward = self._wards.pop(number)
        while self._listen(ward):
            pass
        self._turn_away(ward)
        ward.channel.close()
        ward.claims.close()
        if ward.jobs:
            # It says what it begins before it does, so nothing but this one had begun.
            begun = ward.jobs.popleft()
            self._take_over(ward.jobs)
            self._tell_end(begun, ward, how)
            self._return_surplus()
        elif self._killed or ward.leaving:
            pass  # as it should be
        elif not ward.pid:
            how = ward.fault or how
            self._pause_births(f"a child ended before it was ready: {how}")
        else:
            words = "an idle child ended: %s"
            logger.warning(words, how, extra={"event": "pool.idle_end"})

    def _tell_end(self, job: Job, ward: _Ward, how: str) -> None:
        if ward.late and job.time_limit:
            self._on_event(TimedOut(job.token, job.time_limit))
        else:
            self._on_event(Lost(job.token, ward.fault or how))

    def _pause_births(self, why: str) -> None:
        self._no_birth_before = self._now() + PAUSE
        self._failed_births += 1
        if self._failed_births == 1:
            words = "%s; trying again every %d s"
            event = {"event": "pool.stillborn"}
            logger.warning(words, why, PAUSE // SECOND, extra=event)

    # The nursery, the one before and the one that comes.

    def _nurseries(self) -> list[Nursery]:
        known = [*self._former, self._nursery, self._next]
        return [nursery for nursery in known if nursery and nursery.alive]

    def _listen_to(self, nursery: Nursery) -> None:
        hear = partial(self._hear_nursery, nursery)
        self._selector.register(nursery, selectors.EVENT_READ, hear)

    def _close(self, nursery: Nursery) -> None:
        self._selector.unregister(nursery)
        nursery.close()

    def _hear_nursery(self, nursery: Nursery, events: int) -> None:
        if not nursery.alive:
            return  # closed a moment ago
        was_ready = nursery.ready
        try:
            for number, status in nursery.gone():
                self._bury(number, words_of(status))
        except NurseryDied:
            self._selector.unregister(nursery)
            self._mourn(nursery, was_ready)
        else:
            if nursery.ready and not was_ready:
                self._welcome(nursery)

    def _welcome(self, nursery: Nursery) -> None:
        if nursery is self._next:
            self._move_to(nursery)
        if nursery.about:
            self._on_renewed(nursery.about)

    def _mourn(self, nursery: Nursery, was_ready: bool) -> None:
        """Do what follows from the end of a nursery."""
        if nursery is self._next:
            self._next = None
            self._keep_old(nursery.fault)
        elif self._killed:
            pass  # as it should be
        elif was_ready:
            words = "the process that forks children died, and they with it"
            logger.error(words, extra={"event": "pool.nursery"})
        else:
            self._pause_births(f"no process to fork children from: {nursery.fault}")
        for ward in list(self._wards.values()):
            if ward.nursery is nursery:
                self._bury(ward.number, words_of(signal.SIGKILL))

    def _begin_afresh(self) -> None:
        """Have a new interpreter load the code as it is now; meanwhile all goes on."""
        if self._next:
            self._close(self._next)  # the code may have changed since
        assert self._spawn
        self._next = Nursery(self._spawn)
        try:
            self._next.open()
        except OSError as error:
            self._next = None
            self._keep_old(str(error))
        else:
            self._listen_to(self._next)

    def _keep_old(self, why: str) -> None:
        words = "went on with the old code: %s"
        logger.error(words, why, extra={"event": "pool.kept"})

    def _move_to(self, nursery: Nursery) -> None:
        """Have this nursery's children do all that has not begun."""
        self._former.append(self._nursery)
        self._nursery, self._next = nursery, None
        self._retire_all()
        words = "new processes run what follows, with the code as it is now"
        logger.info(words, extra={"event": "pool.renewed"})

    def _close_former(self) -> None:
        needed = {id(ward.nursery) for ward in self._wards.values()}
        for nursery in self._former:
            if nursery.alive and id(nursery) not in needed:
                self._close(nursery)
        self._former = [nursery for nursery in self._former if nursery.alive]

    # What goes to a child and what comes from it.

    def _hand_out(self) -> None:
        idle = [ward for ward in self._wards.values() if ward.idle]
        for left, ward in zip(range(len(idle), 0, -1), idle, strict=True):
            if not self._waiting:
                return
            share = -(-len(self._waiting) // left)
            ward.jobs.extend(self._next_chunk(min(share, ward.pace)))
            ward.claims.offer(len(ward.jobs) - 1)
            self._begin(ward)
            ward.unsent += pack(list(ward.jobs))
            self._send(ward)

    def _next_chunk(self, most: int) -> Iterator[Job]:
        room = MOST_BYTES
        for _ in range(most):
            room -= len(self._waiting[0].message)
            yield self._waiting.popleft()
            if not self._waiting or room < len(self._waiting[0].message):
                return

    def _begin(self, ward: _Ward) -> None:
        """Take note that the first job of its chunk runs now."""
        job = ward.jobs[0]
        ward.began = self._now()
        if job.time_limit:
            ward.deadline = ward.began + span_of(job.time_limit)
        self._on_event(Started(job.token, ward.pid))

    def _reclaim(self, ward: _Ward) -> None:
        """Take back, to the head of the line, what the child has not begun."""
        number = ward.claims.take_back()
        self._take_over([ward.jobs.pop() for _ in range(number)][::-1])

    def _take_over(self, jobs: Sequence[Job]) -> None:
        self._waiting.extendleft(reversed(jobs))

    def _relieve_the_slow(self) -> None:
        """Give back what waits for jobs that turn out to take their time."""
        now = self._now()
        wards = reversed(self._wards.values())  # so that the oldest comes first again
        slow = [ward for ward in wards if ward.slow_from and ward.slow_from <= now]
        for ward in slow:
            ward.pace = 1
            self._reclaim(ward)
        if slow:
            self._return_surplus()

    def _return_surplus(self) -> None:
        """Give back what there is no place for, taken or about to be."""
        wards = self._wards.values()
        busy = sum(bool(ward.jobs) and ward.staying for ward in wards)
        self._return_behind(max(self.size - busy, 0))

    def _return_behind(self, number: int) -> None:
        # Whoever stops a pool has it run all that it was given.
        if len(self._waiting) > number and not self._stopping:
            back = [self._waiting.pop() for _ in range(len(self._waiting) - number)]
            self._on_event(Returned([job.token for job in reversed(back)]))

    def _attend(self, ward: _Ward, events: int) -> None:
        if ward.number not in self._wards:
            return  # buried a moment ago
        if events & selectors.EVENT_WRITE:
            self._send(ward)
        if events & selectors.EVENT_READ:
            self._listen(ward)

    def _send(self, ward: _Ward) -> None:
        """Write what the channel takes now, and the rest when it takes more."""
        try:
            del ward.unsent[: ward.channel.send(ward.unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it is dead, and its end about to be told
            ward.unsent.clear()
        key = self._selector.get_key(ward.channel)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if ward.unsent else 0)
        if events != key.events:
            self._selector.modify(ward.channel, events, key.data)

    def _listen(self, ward: _Ward) -> bool:
        """Hear what the child has said; False when there is nothing, now or ever."""
        if ward.fault:
            return False
        try:
            received = ward.channel.recv(CHUNK)
            for content in ward.said.feed(received):
                self._take(ward, _words.decode(content))
        except BlockingIOError:
            return False
        except ConnectionResetError:
            received = b""
        except (BrokenFrame, msgspec.DecodeError, RecursionError) as error:
            ward.fault = f"it sent a broken frame: {error}"
            received = b""
        if not received:
            # It is dead, or cannot be talked to any more: both end it.
            self._turn_away(ward)
            self._condemn(ward)
        return bool(received)

    def _take(self, ward: _Ward, words: Ready | Report) -> None:
        if isinstance(words, Ready):
            ward.pid = words.pid
            if not ward.leaving:
                ward.deadline = None
            self._failed_births = 0
            return
        finished = words.finished
        if not ward.jobs or ward.jobs[0].token != finished.token:
            raise BrokenFrame("it reports a job that it does not run")
        if words.goes_on and len(ward.jobs) < 2:
            raise BrokenFrame("it begins a job that it does not have")
        ward.jobs.popleft()
        ward.deadline = None
        was_quick = self._now() - ward.began < QUICK
        ward.pace = min(2 * ward.pace, MOST_JOBS) if was_quick else 1
        self._on_event(finished)
        if words.goes_on:
            self._begin(ward)
        if words.leaving:
            self._reclaim(ward)
            self._expect_to_leave(ward)
            self._return_surplus()

    def _turn_away(self, ward: _Ward) -> None:
        with suppress(KeyError):  # done already
            self._selector.unregister(ward.channel)


def _say_crash(error: BaseException) -> None:
    words = "the pool ended: nobody supervises its processes any more"
    logger.critical(words, exc_info=error, extra={"event": "pool.crash"})


def words_of(status: int) -> str:
    """Say how a process ended, from its wait status."""
    if not os.WIFSIGNALED(status):
        return f"exit status {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return f"signal {number}"
