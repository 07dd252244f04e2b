"""Supervises the children of a prefork pool: starts, ends and replaces them.

All of it runs in one thread; other threads only put requests for it.
"""

import selectors
import signal
import socket
from contextlib import suppress
from functools import partial
from itertools import count

from beatd.clock import Clock
from beatd.event_log import EventLog
from beatd.instant import DAY, MINUTE, SECOND, Span, span_of
from beatd.pools.prefork.child_state import Change, ChildState
from beatd.pools.prefork.children import ChannelEnded, Child, Children, words_of
from beatd.pools.prefork.dispatch import Dispatcher
from beatd.pools.prefork.forkserver import ForkServer
from beatd.pools.prefork.forkservers import ForkServers
from beatd.pools.prefork.frames import BrokenFrame, Claims, JobEnded, Ready
from beatd.pools.prefork.requests import SupervisorRequests
from beatd.text import counted

tell = EventLog(__name__)

GRACE = 5 * SECOND
"""After how long it is said that a child, asked to leave, has not ended."""

LONGEST_LEAVE = MINUTE
"""How long a child may take to leave while the worker goes on."""

PAUSE = 1 * SECOND
"""The time between starts, while children die before they are ready."""


class Supervisor:
    """Keeps as many children as the pool is to have, and has them run its jobs."""

    def __init__(
        self,
        requests: SupervisorRequests,
        children: Children,
        dispatcher: Dispatcher,
        servers: ForkServers,
        clock: Clock,
        alive_timeout: float | None,
    ) -> None:
        self._requests = requests
        self._children = children
        self._dispatcher = dispatcher
        self._servers = servers
        self._clock = clock
        self._alive_timeout = alive_timeout
        self._numbers = count(1)
        self._failed_starts = 0
        self._no_start_before: Span = 0
        self._stopping = False
        self._killed = False
        self._patient_until: Span | None = None
        """When the fork servers are killed, too, as children outlived their SIGKILL."""

    def open(self) -> None:
        """Start the fork server; called before there is any thread."""
        # The fork server comes first, so that it inherits nothing of what follows.
        self._servers.open()
        self._requests.open()
        self._selector = selectors.DefaultSelector()
        self._selector.register(
            self._requests, selectors.EVENT_READ, lambda events: self._requests.answer()
        )
        self._servers.attach(self._selector, self)

    def run(self) -> None:
        """Supervise until the pool was stopped and all children have ended."""
        while not self._is_over():
            self._spawn_children()
            self._dismiss_surplus()
            self._dismiss_retired()
            self._servers.close_former(self._is_needed)
            for child in self._dispatcher.hand_out():
                child.send()
            self._dispatcher.tell()
            self._watch_children()
            for key, events in self._selector.select(self._patience()):
                key.data(events)
            self._look_at_children()
            self._end_the_late()
            self._dispatcher.relieve_the_slow()
        self._dispatcher.lose_waiting("the pool was stopped before it began")
        self._dispatcher.tell()

    def close(self) -> None:
        """Close everything, which ends all processes that are left."""
        for child in self._children:
            self._children.remove(child.number).close()
        self._servers.close()
        self._selector.close()
        self._requests.close()

    def _is_over(self) -> bool:
        if not self._stopping or len(self._children):
            return False
        if self._killed or not self._dispatcher.has_waiting:
            return True
        return self._no_start_before > self._now()

    def _patience(self) -> float | None:
        """Return the seconds until something is due that no event will announce."""
        now = self._now()
        times = [
            time
            for child in self._children
            for time in (child.deadline, child.slow_from, child.look_at)
            if time
        ]
        if self._no_start_before > now:
            times.append(self._no_start_before)
        if self._patient_until:
            times.append(self._patient_until)
        # Selectors know no time-out of more than some weeks.
        return min(max(0, min(times) - now), DAY) / SECOND if times else None

    def _now(self) -> Span:
        return self._clock.elapsed()

    # Requests of other threads.

    def wind_down(self) -> None:
        """Run all jobs that the pool has, and end then."""
        self._stopping = True
        self._dispatcher.returns = False

    def end_now(self) -> None:
        """Kill all children, and end then."""
        self.wind_down()
        self._killed = True
        self._patient_until = self._now() + GRACE
        for child in self._children:
            self._kill(child)

    def signal_job(self, token: str, number: int) -> None:
        """Send a signal to the child that runs this job; end the job if it waits."""
        for child in self._children:
            if token in [job.token for job in child.jobs]:
                self._dispatcher.reclaim(child)
                # The last job that is left is the one that runs, though the child may
                # not have reported it yet.
                if child.jobs and child.jobs[-1].token == token:
                    child.change(Change.RETIRE)  # the signal must not hit another job
                    child.server.kill(child.number, number)
        self._dispatcher.drop(token)
        self._dispatcher.return_surplus()

    def retire_all(self) -> None:
        """Have new children run all jobs that have not begun."""
        for child in self._children:
            child.change(Change.RETIRE)
            self._dispatcher.reclaim(child)
        self._dispatcher.return_surplus()

    # Ends of fork servers and children.

    def child_ended(self, number: int, status: int) -> None:
        """Reap the child of this number."""
        self._reap(number, words_of(status))

    def server_died(self, server: ForkServer, *, was_ready: bool) -> None:
        """Reap all children of this fork server."""
        if self._killed:
            pass  # as it should be
        elif was_ready:
            words = "the process that forks children died, and they with it"
            tell.error("pool.forkserver", words)
        else:
            self._pause_starts(f"no process to fork children from: {server.fault}")
        for child in self._children:
            if child.server is server:
                self._reap(child.number, words_of(signal.SIGKILL))

    def server_replaced(self) -> None:
        """Have children of the new fork server run all jobs that have not begun."""
        self.retire_all()

    def _is_needed(self, server: ForkServer) -> bool:
        return any(child.server is server for child in self._children)

    # Starting children.

    def _spawn_children(self) -> None:
        """Fork the children that are missing; dismiss all when all work is done."""
        if self._stopping and not self._dispatcher.has_work:
            self._dismiss_all()
        elif not self._killed and self._no_start_before <= self._now():
            try:
                self._fill_up()
            except (
                OSError
            ) as error:  # the system has no more processes, files or memory
                self._pause_starts(f"cannot fork: {error}")

    def _fill_up(self) -> None:
        if server := self._servers.ready():
            for _ in range(self._children.size - self._children.staying):
                self._spawn_child(server)

    def _spawn_child(self, server: ForkServer) -> None:
        number, place = next(self._numbers), self._children.free_place()
        claims = Claims()
        try:
            channel = server.fork(number, place, claims.reader)
        except OSError:
            claims.close()
            raise
        channel.setblocking(False)
        child = Child(number, place, server, channel, claims)
        self._children.add(child)
        if self._alive_timeout:
            child.deadline = self._now() + span_of(self._alive_timeout)

    def _pause_starts(self, why: str) -> None:
        self._no_start_before = self._now() + PAUSE
        self._failed_starts += 1
        if self._failed_starts == 1:
            words = "%s; trying again every %d s"
            tell.warning("pool.start_failed", words, why, PAUSE // SECOND)

    # Dismissing and killing children.

    def _dismiss_surplus(self) -> None:
        """Dismiss idle children while there are too many; others when they are idle."""
        surplus = self._children.staying - self._children.size
        if surplus > 0:
            for child in self._children.idle[:surplus]:
                self._dismiss(child)

    def _dismiss_retired(self) -> None:
        for child in self._children:
            retires = child.state is ChildState.RETIRING
            if retires and child.pid and not child.jobs:
                self._dismiss(child)

    def _dismiss_all(self) -> None:
        for child in self._children:
            if child.state.stays:
                self._dismiss(child)

    def _dismiss(self, child: Child) -> None:
        """Ask a child that has nothing to do to leave."""
        self._expect_to_leave(child)
        with suppress(OSError):
            child.channel.shutdown(socket.SHUT_WR)

    def _expect_to_leave(self, child: Child) -> None:
        child.change(Change.LEAVE)
        child.deadline = self._now() + GRACE

    def _end_the_late(self) -> None:
        now = self._now()
        for child in self._children:
            if child.deadline and child.deadline <= now:
                if self._has_gone_on(child) or self._may_take_its_time(child):
                    continue
                if not child.pid:
                    self._give_up(child, "it took too long")
                self._kill(child, Change.EXPIRE)
        if self._patient_until and self._patient_until <= now:
            self._patient_until = None
            self._end_by_force()

    def _may_take_its_time(self, child: Child) -> bool:
        """Return whether a child that leaves has more time; say what it has.

        Its handlers of `worker_process_shutdown` may send what nobody else has. A warm
        stop waits for them as it would wait for a task.
        """
        if self._killed or child.state is not ChildState.LEAVING:
            return False
        if child.late and not self._stopping:
            words = "process %d is killed: it did not end within a minute"
            tell.error("pool.left", words, child.pid, pid=child.pid)
            return False
        most = LONGEST_LEAVE - GRACE
        child.deadline = None if self._stopping else self._now() + most
        if not child.late:
            words = "process %d does not end: waiting for its handlers of"
            words += " worker_process_shutdown, %s"
            limit = "until a cold stop" if self._stopping else "for up to a minute"
            tell.warning("pool.leaving", words, child.pid, limit, pid=child.pid)
        child.late = True
        return True

    def _has_gone_on(self, child: Child) -> bool:
        """Return whether the late job has ended, and its report is still on its way."""
        self._dispatcher.reclaim(child)
        if len(child.jobs) < 2:
            return False
        now = self._now()
        limit = span_of(child.jobs[0].time_limit or 0)
        child.deadline = now + GRACE
        return now - child.began - limit < GRACE

    def _end_by_force(self) -> None:
        """Kill fork servers, too: a child outlived SIGKILL, or was not sent it."""
        words = "killed, and did not end: %s"
        tell.error("pool.forced", words, counted(len(self._children), "process"))
        self._servers.kill_all()

    def _give_up(self, child: Child, fault: str) -> None:
        """Read no more from the child, because of this fault."""
        child.fault = fault
        self._turn_away(child)

    def _kill(self, child: Child, why: Change = Change.KILL) -> None:
        """Have the child killed; what it reported until then still counts."""
        child.deadline = None
        dies = child.state.dies
        child.change(why)
        if not dies:
            # Otherwise the signal might hit another job than the one meant.
            self._dispatcher.reclaim(child)
            child.server.kill(child.number)

    def _reap(self, number: int, how: str) -> None:
        """Read the child's last reports; report what became of the job that it ran."""
        child = self._children.remove(number)
        while self._listen(child):
            pass
        self._turn_away(child)
        child.close()
        if child.jobs:
            self._dispatcher.lose(child, how)
        elif self._killed or child.state is ChildState.LEAVING:
            pass  # as it should be
        elif not child.pid:
            how = child.fault or how
            self._pause_starts(f"a child ended before it was ready: {how}")
        else:
            words = "an idle child ended: %s"
            tell.warning("pool.idle_end", words, how)

    # Frames to and from a child.

    def _attend(self, child: Child, events: int) -> None:
        if child not in self._children:
            return  # reaped a moment ago
        if events & selectors.EVENT_WRITE:
            child.send()
        if events & selectors.EVENT_READ:
            self._listen(child)

    def _watch_children(self) -> None:
        """Wait for what children report, but not for each word amid a chunk."""
        for child in self._children:
            events = selectors.EVENT_READ if child.look_at is None else 0
            events |= selectors.EVENT_WRITE if child.has_unsent else 0
            if events == child.events or child.is_over:
                continue
            if child.events:
                self._selector.unregister(child.channel)
            if events:
                attend = partial(self._attend, child)
                self._selector.register(child.channel, events, attend)
            child.events = events

    def _look_at_children(self) -> None:
        """Read what children have reported that nobody waits for, if it is time."""
        now = self._now()
        for child in self._children:
            times = [time for time in (child.look_at, child.slow_from) if time]
            if not child.events and times and min(times) <= now:
                self._listen(child)

    def _listen(self, child: Child) -> bool:
        """Read the child's reports; return False if there are none, now or ever."""
        if child.fault:
            return False
        child.read = self._now()
        try:
            for words in child.receive():
                self._take(child, words)
        except BlockingIOError:
            return False
        except ChannelEnded:
            fault = ""
        except BrokenFrame as error:
            fault = f"it sent a broken frame: {error}"
        else:
            return True
        # The child is dead or broken: in both cases it is killed.
        self._give_up(child, fault)
        self._kill(child)
        return False

    def _take(self, child: Child, words: Ready | JobEnded) -> None:
        if isinstance(words, Ready):
            child.become_ready(words.pid)
            self._failed_starts = 0
            return
        self._dispatcher.end(child, words)
        if words.leaving:
            self._dispatcher.reclaim(child)
            self._expect_to_leave(child)
            self._dispatcher.return_surplus()

    def _turn_away(self, child: Child) -> None:
        child.is_over = True
        if child.events:
            self._selector.unregister(child.channel)
            child.events = 0
