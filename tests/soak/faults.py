"""The faults of a soak, drawn from its seed: what each does, and what ends it."""

import heapq
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.servers import Server
from tests.soak.stage import Deployed, Host, Stage

OFTEN = (2.0, 6.0)
"""Seconds from one fault to the next: at least, at most."""

LONGEST = 9.0
"""Seconds that one lasts, at most: longer than a lead and a worker's lease."""


STOPS_WITHIN = 40.0
"""Seconds in which a process that is told to stop has stopped."""


@dataclass
class Faults:
    """Does one fault after the other, and ends each in its time."""

    stage: Stage
    draw: random.Random
    done: Counter[str] = field(default_factory=Counter)
    _ends: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: int = 0
    _redis_is_hurt: bool = False

    def next(self) -> float:
        """Do a fault; return the seconds until the next one."""
        kinds: list[tuple[int, Callable[[], str]]] = [
            (5, self._kill),
            (5, self._pause),
            (2, self._restart),
            (4, self._cut),
            (4, self._hold),
            (2, self._swallow),
            (2, self._kill_redis),
            (2, self._pause_clients),
            (2, self._deploy),
        ]
        weights = [weight for weight, _ in kinds]
        (_, fault), *_ = self.draw.choices(kinds, weights)
        if kind := fault():
            self.done[kind] += 1
        return self.draw.uniform(*OFTEN)

    def end_due(self) -> None:
        """End the faults whose time is over."""
        while self._ends and self._ends[0][0] <= time.monotonic():
            heapq.heappop(self._ends)[2]()

    def end_all(self) -> None:
        """End every fault, at its time."""
        while self._ends:
            time.sleep(max(0.0, self._ends[0][0] - time.monotonic()))
            self.end_due()

    def _in(self, seconds: float, end: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._ends, (time.monotonic() + seconds, self._number, end))

    def _one(self, *, workers: bool | None = None) -> Host | None:
        free = self.stage.free(workers=workers)
        return self.draw.choice(free) if free else None

    def _seize(self, host: Host, seconds: float, end: Callable[[], None]) -> None:
        """Have no other fault befall the host until `end` is called."""
        host.is_busy = True
        self.stage.hurt(host.name, seconds)

        def release() -> None:
            host.is_busy = False
            end()

        self._in(seconds, release)

    # Processes

    def _kill(self) -> str:
        host = self._one()
        if host is None:
            return ""
        host.kill(whole=self.draw.random() < 0.5)
        self._start_later(host)
        return f"kill -9 {_kind(host)}"

    def _restart(self) -> str:
        host = self._one()
        if host is None:
            return ""
        host.is_busy = host.is_down = True
        host.beatd.send(signal.SIGTERM)
        hurt = self.stage.hurt(host.name, STOPS_WITHIN)

        def look() -> None:
            process = host.beatd.process
            status = process.poll() if process else 0
            if status == 0:
                hurt.end = time.time()
                self._start_later(host)
            elif status is not None:
                raise Wrong(f"{host.name} ended with {status} when told to stop")
            elif time.time() > hurt.end:
                raise Wrong(f"{host.name} did not stop in {STOPS_WITHIN:.0f} s")
            else:
                self._in(0.2, look)

        self._in(0.2, look)
        return f"restart {_kind(host)}"

    def _start_later(self, host: Host) -> None:
        host.is_down = True

        def start() -> None:
            host.beatd.start()
            host.is_busy = True
            self._in(0.1, look)

        def look() -> None:
            """Leave it alone until it says that it has begun."""
            process = host.beatd.process
            if process and (status := process.poll()) is not None:
                raise Wrong(f"{host.name} ended with {status} as it started")
            if host.beatd.said(f"pid {host.beatd.pid} "):
                host.is_busy = host.is_down = False
            else:
                self._in(0.2, look)

        self._seize(host, self.draw.uniform(0, 5), start)

    def _pause(self) -> str:
        host = self._one()
        if host is None:
            return ""
        host.pause()
        self._seize(host, self.draw.uniform(1, LONGEST), host.go_on)
        return f"pause {_kind(host)}"

    # Connections

    def _cut(self) -> str:
        cut = self.stage.hosts if self.draw.random() < 0.2 else [self._any()]
        for host in cut:
            host.proxy.cut()
            self.stage.hurt(host.name, 0)
        return "cut connections"

    def _swallow(self) -> str:
        host = self._any()
        host.proxy.swallow()
        self.stage.hurt(host.name, LONGEST)
        return "connections die without a word"

    def _hold(self) -> str:
        host = self._one()
        if host is None:
            return ""
        host.proxy.hold()
        self._seize(host, self.draw.uniform(1, LONGEST), host.proxy.let_through)
        return f"hold connections of {_kind(host)}"

    def _any(self) -> Host:
        return self.draw.choice(self.stage.hosts)

    # Redis

    def _kill_redis(self) -> str:
        server = self._redis(self.draw.uniform(0, 4), Server.start)
        if server is None:
            return ""
        server.kill()
        return "kill -9 Redis, restart from its AOF"

    def _pause_clients(self) -> str:
        seconds = self.draw.uniform(0.5, 4)
        server = self._redis(seconds, lambda _: None)
        if server is None:
            return ""
        kind = self.draw.choice(["ALL", "WRITE"])
        with server.client() as client:
            client.execute_command("CLIENT", "PAUSE", int(seconds * 1000), kind)
        return "CLIENT PAUSE"

    def _redis(self, seconds: float, end: Callable[[Server], None]) -> Server | None:
        if self._redis_is_hurt:
            return None
        self._redis_is_hurt = True
        self.stage.hurt("redis", seconds)
        server = self.stage.server

        def release() -> None:
            end(server)
            self._redis_is_hurt = False

        self._in(seconds, release)
        return server

    # The config

    def _deploy(self) -> str:
        """Change the config, or change it back, and have all schedulers read it.

        One that is starting may have read it, and does not know signals yet.
        """
        stage = self.stage
        is_under_way = bool(stage.deployed) and stage.deployed[-1].end == NEVER
        if is_under_way or any(host.is_down for host in stage.schedulers):
            return ""
        change = Deployed(time.time(), NEVER, not stage.is_changed)
        stage.deployed.append(change)
        stage.write_config(is_changed=change.is_changed)
        told = {host.name: host.beatd.said("reloaded: ") for host in stage.schedulers}
        pids = {host.name: host.beatd.pid for host in stage.schedulers}
        for host in stage.schedulers:
            host.beatd.send(signal.SIGHUP)

        def look() -> None:
            """See whether each has read it, or begun anew since."""
            is_done = all(
                host.beatd.pid != pids[host.name]
                or host.beatd.said("reloaded: ") > told[host.name]
                for host in stage.schedulers
            )
            if is_done:
                change.end = time.time()
            else:
                self._in(0.5, look)

        self._in(0.5, look)
        return "SIGHUP with another config"


NEVER = float("inf")


class Wrong(Exception):
    """What ends a soak early."""


def _kind(host: Host) -> str:
    return "a worker" if host.is_worker else "a scheduler"
