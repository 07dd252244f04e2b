"""The code that runs in a child of the prefork pool."""

import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from beatd import signals
from beatd.clock import SystemClock
from beatd.pools.base import Finished, Job, Runner
from beatd.pools.prefork.frames import Frames, JobEnded, Ready, claim, pack

CHUNK = 1 << 18
"""Bytes to read at once."""

_jobs = msgspec.msgpack.Decoder(list[Job])


class ChildMain:
    """Runs the jobs that come through its channel, one after the other."""

    def __init__(
        self,
        runner: Runner,
        initialise: Callable[[], object] | None,
        max_tasks: int | None,
        max_memory: int | None,
    ) -> None:
        self._runner = runner
        self._initialise = initialise
        self._max_tasks = max_tasks
        self._max_memory = max_memory
        self._clock = SystemClock()
        self._tasks = 0
        self._leaving = False

    def run(self, channel: socket.socket, claims: int) -> None:
        """Run jobs until the channel ends, or this child has reached a maximum."""
        if self._initialise:
            self._initialise()
        self._pid = os.getpid()
        self._work(channel, claims)
        if os.getpid() == self._pid:
            signals.worker_process_shutdown.send(pid=self._pid, exitcode=os.EX_OK)

    def _work(self, channel: socket.socket, claims: int) -> None:
        channel.sendall(pack(Ready(self._pid)))
        frames = Frames()
        while not self._leaving and (received := channel.recv(CHUNK)):
            for content in frames.feed(received):
                self._run_chunk(_jobs.decode(content), channel, claims)

    def _run_chunk(
        self, jobs: Sequence[Job], channel: socket.socket, claims: int
    ) -> None:
        """Run these jobs, until the pool takes back the rest."""
        last = len(jobs) - 1
        for place, job in enumerate(jobs):
            began = self._clock.elapsed()
            report = self._runner(job)
            if os.getpid() != self._pid:
                # The task forked, and its copy came back here as well. The copy is no
                # child of the pool, and must not send anything.
                self._leaving = True
                return
            self._tasks += 1
            self._leaving = self._has_had_enough()
            # The next job is claimed before the end of this one is sent: so the pool
            # knows of each job before it begins.
            goes_on = place < last and not self._leaving and claim(claims)
            finished = Finished(job.token, report)
            took = self._clock.elapsed() - began
            channel.sendall(pack(JobEnded(finished, self._leaving, goes_on, took)))
            if not goes_on:
                return

    def _has_had_enough(self) -> bool:
        if self._max_tasks is not None and self._tasks >= self._max_tasks:
            return True
        return self._max_memory is not None and resident() > self._max_memory


def resident() -> int:
    """Return the KiB that this process has in memory; if unknown, the most it had."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        pages = int(statm.read_text().split()[1])
        return pages * resource.getpagesize() // 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // 1024 if sys.platform == "darwin" else most  # macOS: in bytes
