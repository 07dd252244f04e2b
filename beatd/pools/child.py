"""What a child of the prefork pool does with its life."""

import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from beatd.pools.base import Finished, Job, Runner
from beatd.pools.frames import Frames, Ready, Report, pack

CHUNK = 1 << 18
"""Bytes to read at once."""

_jobs = msgspec.msgpack.Decoder(list[Job])


class Child:
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

    def live(self, channel: socket.socket) -> None:
        """Run what comes until the channel ends or a bound of this life is reached."""
        if self._initialise:
            self._initialise()
        pid = os.getpid()
        channel.sendall(pack(Ready(pid)))
        frames = Frames()
        tasks = 0
        while received := channel.recv(CHUNK):
            for content in frames.feed(received):
                for job in _jobs.decode(content):
                    report = self._runner(job)
                    if os.getpid() != pid:
                        # The task forked, and its copy came back here as well: it is
                        # no child of the pool, and has nothing to say.
                        return
                    tasks += 1
                    leaving = self._has_had_enough(tasks)
                    finished = [Finished(job.token, report)]
                    channel.sendall(pack(Report(finished, leaving)))
                    if leaving:
                        return

    def _has_had_enough(self, tasks: int) -> bool:
        if self._max_tasks is not None and tasks >= self._max_tasks:
            return True
        return self._max_memory is not None and resident() > self._max_memory


def resident() -> int:
    """Give the KiB that this process has in memory; where unknown, had at most."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        pages = int(statm.read_text().split()[1])
        return pages * resource.getpagesize() // 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // 1024 if sys.platform == "darwin" else most  # there it is in bytes
