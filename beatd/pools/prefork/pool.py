"""Jobs run in child processes, under supervision: start, hand out, end, replace.

One thread owns all that follows; the methods of the pool only leave it something to do.
What a child does is in child.py, how it is forked in forkserver.py.
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
from beatd.pools.options import PoolOptions
from beatd.pools.prefork.child import CHUNK, ChildMain
from beatd.pools.prefork.child_state import Change, ChildState, after
from beatd.pools.prefork.forkserver import ForkServer, ForkServerDied, forked
from beatd.pools.prefork.frames import BrokenFrame, Claims, Frames, Ready, Report, pack

logger = logging.getLogger(__name__)

GRACE = 5 * SECOND
"""How long a child may take to leave when it was asked to."""

PAUSE = 1 * SECOND
"""Between starts, while children die before they are ready."""

QUICK: Span = 5
"""No job waits in a child for longer than this behind another."""

MOST_JOBS, MOST_BYTES = 32, 1 << 18
"""What goes to a child in one chunk at most; one job may be larger."""

_words = msgspec.msgpack.Decoder(Ready | Report)


@dataclass(eq=False)
class _Child:
    """What the supervisor knows of one child."""

    number: int
    place: int
    server: ForkServer
    channel: socket.socket
    claims: Claims
    state: ChildState = ChildState.STARTING
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
    fault: str = ""
    """Why it had to be killed, when that says more than its wait status."""
    said: Frames = field(default_factory=Frames)
    unsent: bytearray = field(default_factory=bytearray)

    def change(self, change: Change) -> None:
        self.state = after(self.state, change)

    @property
    def slow_from(self) -> Span | None:
        """When its job will have run for too long to have others wait for it."""
        hopeful = bool(self.jobs) and (self.pace > 1 or len(self.jobs) > 1)
        hopeful = hopeful and not self.state.dies
        return self.began + QUICK if hopeful else None


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

    Invariant: each job is in `_waiting` or among the jobs of one child until its
    outcome is told, or its return. New children come from `_fork_server`; those of
    `_former` ones work to their ends.
    """

    def __init__(
        self,
        runner: Runner,
        on_event: Callable[[PoolEvent], object],
        *,
        options: PoolOptions,
        clock: Clock | None = None,
    ) -> None:
        self.size = options.size
        self._on_event = on_event
        self._alive_timeout = options.alive_timeout
        self._clock = clock or SystemClock()
        self._spawn = options.spawn
        self._on_renewed = options.on_renewed
        self._on_crash = options.on_crash or _say_crash
        child = ChildMain(
            runner,
            options.initialise,
            options.max_tasks_per_child,
            options.max_memory_per_child,
        )
        spawns = options.spawn if not options.fork else None
        self._fork_server = ForkServer(spawns or forked(child.run))
        self._next: ForkServer | None = None
        """Takes the place of the other when it is ready."""
        self._former: list[ForkServer] = []
        self._children: dict[int, _Child] = {}
        self._waiting: deque[Job] = deque()
        self._numbers = count(1)
        self._failed_starts = 0
        self._no_start_before: Span = 0
        self._stopping = False
        self._killed = False
        self._patient_until: Span | None = None
        """When those will be ended by force that did not end when they were killed."""
        self._to_do: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="prefork", daemon=True)

    @property
    def demand(self) -> int:
        children = list(self._children.values())
        return max(
            self.size, sum(child.pace for child in children if child.state.stays)
        )

    def start(self) -> None:
        # The fork server comes first, so that it inherits nothing of what follows.
        self._fork_server.open()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ, self._answer_wake)
        self._listen_to(self._fork_server)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        self._do(partial(self._waiting.extend, tuple(jobs)))

    def recall(self) -> None:
        self._do(self._return_all)

    def resize(self, size: int) -> None:
        self.size = size
        self._wake()

    def processes(self) -> list[int]:
        return [child.pid for child in list(self._children.values()) if child.pid]

    def terminate(self, token: str, number: int) -> None:
        self._do(partial(self._signal, token, number))

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
        self._wake()

    def _wake(self) -> None:
        """Have the supervising thread take another turn."""
        with suppress(OSError):  # full: it wakes up anyway; closed: nobody is there
            self._waker.send(b"!")

    # All that follows runs in the supervising thread.

    def _run(self) -> None:
        try:
            self._supervise()
        except BaseException as error:
            self._on_crash(error)
        finally:
            self._let_go()

    def _supervise(self) -> None:
        while not self._is_over():
            self._spawn_children()
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
        for child in self._children.values():
            child.channel.close()
        self._children.clear()
        for server in self._fork_servers():
            server.close()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _is_over(self) -> bool:
        if not self._stopping or self._children:
            return False
        return self._killed or not self._waiting or self._no_start_before > self._now()

    def _patience(self) -> float | None:
        """Give the seconds until something is to be done that nobody will tell."""
        now = self._now()
        children = self._children.values()
        times = [child.deadline for child in children if child.deadline]
        times += [child.slow_from for child in children if child.slow_from]
        if self._no_start_before > now:
            times.append(self._no_start_before)
        if self._patient_until:
            times.append(self._patient_until)
        # Selectors know no time-out of more than some weeks.
        return min(max(0, min(times) - now), DAY) / SECOND if times else None

    def _now(self) -> Span:
        return self._clock.elapsed()

    # What the pool's methods ask for.

    def _answer_wake(self, events: int) -> None:
        self._woken.recv(4096)
        with suppress(Empty):
            while True:
                self._to_do.get_nowait()()

    def _wind_down(self) -> None:
        self._stopping = True

    def _return_all(self) -> None:
        for child in self._children.values():
            self._reclaim(child)
        self._return_behind(0)

    def _signal(self, token: str, number: int) -> None:
        for child in self._children.values():
            if token in [job.token for job in child.jobs]:
                self._reclaim(child)
                # The last one left is what runs, though its beginning may not be told.
                if child.jobs and child.jobs[-1].token == token:
                    child.change(Change.RETIRE)  # nothing else shall be hit
                    child.server.kill(child.number, number)
        for job in self._waiting:
            if job.token == token:
                self._waiting.remove(job)
                self._on_event(Lost(token, "ended before it began"))
                break
        self._return_surplus()

    def _retire_all(self) -> None:
        for child in self._children.values():
            child.change(Change.RETIRE)
            self._reclaim(child)
        self._return_surplus()

    def _end_now(self) -> None:
        self._stopping = self._killed = True
        self._patient_until = self._now() + GRACE
        for child in self._children.values():
            self._kill(child)

    # Starts and ends.

    def _spawn_children(self) -> None:
        """Have as many children as are wanted: none any more when all work is done."""
        if self._stopping and not self._has_work():
            self._dismiss_all()
        elif not self._killed and self._no_start_before <= self._now():
            try:
                self._fill_up()
            except OSError as error:  # of processes, files or memory there are no more
                self._pause_starts(f"cannot fork: {error}")

    def _has_work(self) -> bool:
        return bool(self._waiting) or any(
            child.jobs for child in self._children.values()
        )

    def _fill_up(self) -> None:
        if not self._fork_server.alive:
            self._fork_server.open()
            self._listen_to(self._fork_server)
        if self._fork_server.ready:
            for _ in range(self.size - self._staying()):
                self._spawn_child()

    def _staying(self) -> int:
        return sum(child.state.stays for child in self._children.values())

    def _spawn_child(self) -> None:
        number, place = next(self._numbers), self._free_place()
        claims = Claims()
        try:
            channel = self._fork_server.fork(number, place, claims.reader)
        except OSError:
            claims.close()
            raise
        channel.setblocking(False)
        child = _Child(number, place, self._fork_server, channel, claims)
        self._children[number] = child
        if self._alive_timeout:
            child.deadline = self._now() + span_of(self._alive_timeout)
        self._selector.register(
            channel, selectors.EVENT_READ, partial(self._attend, child)
        )

    def _free_place(self) -> int:
        # One that leaves has no job any more, or a last one: whoever counts on places
        # (one device for each) would rather share one than see a number beyond them.
        taken = {child.place for child in self._children.values() if child.state.stays}
        return next(place for place in count(1) if place not in taken)

    def _dismiss_surplus(self) -> None:
        """Let go of idle children while there are too many; of others once idle."""
        surplus = self._staying() - self.size
        if surplus > 0:
            idle = (
                child
                for child in self._children.values()
                if child.state is ChildState.IDLE
            )
            for child in islice(idle, surplus):
                self._dismiss(child)

    def _dismiss_retired(self) -> None:
        for child in self._children.values():
            retires = child.state is ChildState.RETIRING
            if retires and child.pid and not child.jobs:
                self._dismiss(child)

    def _dismiss_all(self) -> None:
        for child in self._children.values():
            if child.state.stays:
                self._dismiss(child)

    def _dismiss(self, child: _Child) -> None:
        """Ask a child that has nothing to do to leave."""
        self._expect_to_leave(child)
        with suppress(OSError):
            child.channel.shutdown(socket.SHUT_WR)

    def _expect_to_leave(self, child: _Child) -> None:
        child.change(Change.LEAVE)
        child.deadline = self._now() + GRACE

    def _end_the_late(self) -> None:
        now = self._now()
        for child in self._children.values():
            if child.deadline and child.deadline <= now:
                if self._has_gone_on(child):
                    continue
                if not child.pid:
                    self._give_up(child, "it took too long")
                self._kill(child, Change.EXPIRE)
        if self._patient_until and self._patient_until <= now:
            self._patient_until = None
            self._end_by_force()

    def _has_gone_on(self, child: _Child) -> bool:
        """Say whether its late job has ended, and only the word of that is missing."""
        self._reclaim(child)
        if len(child.jobs) < 2:
            return False
        now = self._now()
        limit = span_of(child.jobs[0].time_limit or 0)
        child.deadline = now + GRACE
        return now - child.began - limit < GRACE

    def _end_by_force(self) -> None:
        """Wait no longer for those who outlive even SIGKILL, or do not pass it on."""
        words = "%d processes did not end when they were killed"
        logger.error(words, len(self._children), extra={"event": "pool.forced"})
        for server in self._fork_servers():
            server.kill_all()

    def _give_up(self, child: _Child, fault: str) -> None:
        """Hear no more of what the child says, if it says anything."""
        child.fault = fault
        self._turn_away(child)

    def _kill(self, child: _Child, why: Change = Change.KILL) -> None:
        """Have the child killed; what it said until then still counts."""
        child.deadline = None
        dies = child.state.dies
        child.change(why)
        if not dies:
            self._reclaim(child)  # or the blow may hit another job than the one meant
            child.server.kill(child.number)

    def _reap(self, number: int, how: str) -> None:
        """Take the child's last words, and tell what became of its job otherwise."""
        child = self._children.pop(number)
        while self._listen(child):
            pass
        self._turn_away(child)
        child.channel.close()
        child.claims.close()
        if child.jobs:
            # It says what it begins before it does, so nothing but this one had begun.
            begun = child.jobs.popleft()
            self._take_over(child.jobs)
            self._tell_end(begun, child, how)
            self._return_surplus()
        elif self._killed or child.state is ChildState.LEAVING:
            pass  # as it should be
        elif not child.pid:
            how = child.fault or how
            self._pause_starts(f"a child ended before it was ready: {how}")
        else:
            words = "an idle child ended: %s"
            logger.warning(words, how, extra={"event": "pool.idle_end"})

    def _tell_end(self, job: Job, child: _Child, how: str) -> None:
        if child.state is ChildState.OVERDUE and job.time_limit:
            self._on_event(TimedOut(job.token, job.time_limit))
        else:
            self._on_event(Lost(job.token, child.fault or how))

    def _pause_starts(self, why: str) -> None:
        self._no_start_before = self._now() + PAUSE
        self._failed_starts += 1
        if self._failed_starts == 1:
            words = "%s; trying again every %d s"
            event = {"event": "pool.start_failed"}
            logger.warning(words, why, PAUSE // SECOND, extra=event)

    # The fork server, the one before and the one that comes.

    def _fork_servers(self) -> list[ForkServer]:
        known = [*self._former, self._fork_server, self._next]
        return [server for server in known if server and server.alive]

    def _listen_to(self, server: ForkServer) -> None:
        hear = partial(self._hear_fork_server, server)
        self._selector.register(server, selectors.EVENT_READ, hear)

    def _close(self, server: ForkServer) -> None:
        self._selector.unregister(server)
        server.close()

    def _hear_fork_server(self, server: ForkServer, events: int) -> None:
        if not server.alive:
            return  # closed a moment ago
        was_ready = server.ready
        try:
            for number, status in server.gone():
                self._reap(number, words_of(status))
        except ForkServerDied:
            self._selector.unregister(server)
            self._reap_fork_server(server, was_ready)
        else:
            if server.ready and not was_ready:
                self._welcome(server)

    def _welcome(self, server: ForkServer) -> None:
        if server is self._next:
            self._move_to(server)
        if server.about:
            self._on_renewed(server.about)

    def _reap_fork_server(self, server: ForkServer, was_ready: bool) -> None:
        """Do what follows from the end of a fork server."""
        if server is self._next:
            self._next = None
            self._keep_old(server.fault)
        elif self._killed:
            pass  # as it should be
        elif was_ready:
            words = "the process that forks children died, and they with it"
            logger.error(words, extra={"event": "pool.forkserver"})
        else:
            self._pause_starts(f"no process to fork children from: {server.fault}")
        for child in list(self._children.values()):
            if child.server is server:
                self._reap(child.number, words_of(signal.SIGKILL))

    def _begin_afresh(self) -> None:
        """Have a new interpreter load the code as it is now; meanwhile all goes on."""
        if self._next:
            self._close(self._next)  # the code may have changed since
        assert self._spawn
        self._next = ForkServer(self._spawn)
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

    def _move_to(self, server: ForkServer) -> None:
        """Have this fork server's children do all that has not begun."""
        self._former.append(self._fork_server)
        self._fork_server, self._next = server, None
        self._retire_all()
        words = "new processes run what follows, with the code as it is now"
        logger.info(words, extra={"event": "pool.renewed"})

    def _close_former(self) -> None:
        needed = {id(child.server) for child in self._children.values()}
        for server in self._former:
            if server.alive and id(server) not in needed:
                self._close(server)
        self._former = [server for server in self._former if server.alive]

    # What goes to a child and what comes from it.

    def _hand_out(self) -> None:
        idle = [
            child for child in self._children.values() if child.state is ChildState.IDLE
        ]
        for left, child in zip(range(len(idle), 0, -1), idle, strict=True):
            if not self._waiting:
                return
            share = -(-len(self._waiting) // left)
            child.jobs.extend(self._next_chunk(min(share, child.pace)))
            child.change(Change.JOBS)
            child.claims.offer(len(child.jobs) - 1)
            self._begin(child)
            child.unsent += pack(list(child.jobs))
            self._send(child)

    def _next_chunk(self, most: int) -> Iterator[Job]:
        room = MOST_BYTES
        for _ in range(most):
            room -= len(self._waiting[0].message)
            yield self._waiting.popleft()
            if not self._waiting or room < len(self._waiting[0].message):
                return

    def _begin(self, child: _Child) -> None:
        """Take note that the first job of its chunk runs now."""
        job = child.jobs[0]
        child.began = self._now()
        if job.time_limit:
            child.deadline = child.began + span_of(job.time_limit)
        self._on_event(Started(job.token, child.pid))

    def _reclaim(self, child: _Child) -> None:
        """Take back, to the head of the line, what the child has not begun."""
        number = child.claims.take_back()
        self._take_over([child.jobs.pop() for _ in range(number)][::-1])

    def _take_over(self, jobs: Sequence[Job]) -> None:
        self._waiting.extendleft(reversed(jobs))

    def _relieve_the_slow(self) -> None:
        """Give back what waits for jobs that turn out to take their time."""
        now = self._now()
        children = reversed(
            self._children.values()
        )  # so that the oldest comes first again
        slow = [
            child for child in children if child.slow_from and child.slow_from <= now
        ]
        for child in slow:
            child.pace = 1
            self._reclaim(child)
        if slow:
            self._return_surplus()

    def _return_surplus(self) -> None:
        """Give back what there is no place for, taken or about to be."""
        children = self._children.values()
        busy = sum(bool(child.jobs) and child.state.stays for child in children)
        self._return_behind(max(self.size - busy, 0))

    def _return_behind(self, number: int) -> None:
        # Whoever stops a pool has it run all that it was given.
        if len(self._waiting) > number and not self._stopping:
            back = [self._waiting.pop() for _ in range(len(self._waiting) - number)]
            self._on_event(Returned([job.token for job in reversed(back)]))

    def _attend(self, child: _Child, events: int) -> None:
        if child.number not in self._children:
            return  # reaped a moment ago
        if events & selectors.EVENT_WRITE:
            self._send(child)
        if events & selectors.EVENT_READ:
            self._listen(child)

    def _send(self, child: _Child) -> None:
        """Write what the channel takes now, and the rest when it takes more."""
        try:
            del child.unsent[: child.channel.send(child.unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it is dead, and its end about to be told
            child.unsent.clear()
        key = self._selector.get_key(child.channel)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.unsent else 0)
        if events != key.events:
            self._selector.modify(child.channel, events, key.data)

    def _listen(self, child: _Child) -> bool:
        """Hear what the child has said; False when there is nothing, now or ever."""
        if child.fault:
            return False
        try:
            received = child.channel.recv(CHUNK)
            for content in child.said.feed(received):
                self._take(child, _words.decode(content))
        except BlockingIOError:
            return False
        except ConnectionResetError:
            received = b""
        except (BrokenFrame, msgspec.DecodeError, RecursionError) as error:
            child.fault = f"it sent a broken frame: {error}"
            received = b""
        if not received:
            # It is dead, or cannot be talked to any more: both end it.
            self._turn_away(child)
            self._kill(child)
        return bool(received)

    def _take(self, child: _Child, words: Ready | Report) -> None:
        if isinstance(words, Ready):
            child.pid = words.pid
            child.change(Change.READY)
            if child.state is not ChildState.LEAVING:
                child.deadline = None
            self._failed_starts = 0
            return
        finished = words.finished
        if not child.jobs or child.jobs[0].token != finished.token:
            raise BrokenFrame("it reports a job that it does not run")
        if words.goes_on and len(child.jobs) < 2:
            raise BrokenFrame("it begins a job that it does not have")
        child.jobs.popleft()
        child.deadline = None
        was_quick = self._now() - child.began < QUICK
        child.pace = min(2 * child.pace, MOST_JOBS) if was_quick else 1
        self._on_event(finished)
        if words.goes_on:
            self._begin(child)
        elif not child.jobs:
            child.change(Change.DONE)
        if words.leaving:
            self._reclaim(child)
            self._expect_to_leave(child)
            self._return_surplus()

    def _turn_away(self, child: _Child) -> None:
        with suppress(KeyError):  # done already
            self._selector.unregister(child.channel)


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
