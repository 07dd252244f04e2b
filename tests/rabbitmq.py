"""A real RabbitMQ of our own on free ports of 127.0.0.1, and what tests do to it.

One node serves the whole run, and each test has a virtual host of its own: a node
takes seconds to start, and a virtual host a moment. The programs are those of Debian's
package `rabbitmq-server`, started without its service.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import amqp

from tests.servers import PATIENCE, eventually, number_of, reserved_port

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
"""Those of /usr/sbin would run as another user."""

MISSING = "" if (PROGRAMS / "rabbitmq-server").exists() else "no rabbitmq-server here"
"""Why there is no RabbitMQ for tests; empty if there is."""

PASSWORD = "only of tests"

GUARD = 'read -r _; kill -KILL "-$1" "$2"; rm -rf "$3"'
"""Ends a node, a process group, and what belongs to it: once its input ends, as it does
when the tests are killed."""


class Rabbit:
    """A node of our own; its ports stay the same when it is started again."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="beatd-rabbitmq-"))
        self._reserved = [reserved_port() for _ in range(3)]
        self._epmd, self.port, self._dist = map(number_of, self._reserved)
        self._node = f"test{self.port}@localhost"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._names: subprocess.Popen[bytes] | None = None
        """The daemon that knows where nodes are: they begin it, and never end it."""
        self._numbers = count(1)
        (self._folder / "plugins").write_text("[].\n")
        (self._folder / "rabbitmq.conf").write_text(
            "vm_memory_high_watermark.absolute = 1500MB\n"
            "disk_free_limit.absolute = 50MB\n"
        )

    def __enter__(self) -> "Rabbit":
        try:
            self._names = subprocess.Popen(
                ["epmd"], env=self._environment, stderr=subprocess.DEVNULL
            )
            eventually(lambda: _listens(self._epmd), "epmd to start")
            self.start()
        except BaseException:  # it would outlive the tests
            self.__exit__()
            raise
        self.evaluate(
            "rabbit_auth_backend_internal:change_password("
            f'<<"guest">>, <<"{PASSWORD}">>, <<"tests">>)'
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._names:
            self._names.kill()
            self._names.wait(PATIENCE)
        for port in self._reserved:
            port.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def log(self) -> str:
        return (self._folder / "log" / "node.log").read_text(errors="replace")

    def url(self, vhost: str, port: int = 0, user: str = f"guest:{PASSWORD}") -> str:
        """Return the address; `port` is that of a proxy before it."""
        user = user.replace(" ", "%20")
        return f"amqp://{user}@127.0.0.1:{port or self.port}/{vhost}"

    def start(self) -> None:
        out = (self._folder / "out").open("ab")
        with out:
            self._process = subprocess.Popen(
                [PROGRAMS / "rabbitmq-server"],
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, "sh", *self._belongings],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        eventually(self._answers, "RabbitMQ to start")

    @property
    def _belongings(self) -> tuple[str, str, str]:
        assert self._process is not None
        assert self._names is not None
        return str(self._process.pid), str(self._names.pid), str(self._folder)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "out").read_text()
        with contextlib.suppress(OSError):
            return (
                _listens(self.port) and self.evaluate("rabbit:is_running()") == "true"
            )
        return False

    def kill(self) -> None:
        """Kill the node as `kill -9` does; what it was to keep is there again after."""
        if self._process is None:
            return
        if self._guard:
            self._guard.kill()
            self._guard.communicate()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop_app(self) -> None:
        """Close all connections and serve nobody, as for an upgrade."""
        self.evaluate("rabbit:stop()")

    def start_app(self) -> None:
        self.evaluate("rabbit:start()")
        eventually(self._answers, "RabbitMQ to start")

    def evaluate(self, erlang: str) -> str:
        """Return what the node answers to an expression."""
        # A node refuses a caller whose name it has not yet let go of.
        name = f"call{next(self._numbers)}"
        done = subprocess.run(
            ["erl_call", "-sname", self._node, "-h", name, "-c", self._cookie, "-e"],
            env=self._environment,
            input=f"{erlang}.\n".encode(),
            capture_output=True,
            timeout=PATIENCE,
        )
        text = done.stdout.decode().strip()
        if not text.startswith("{ok, "):
            raise OSError(f"{erlang}: {text} {done.stderr.decode()}")
        return text.removeprefix("{ok, ").removesuffix("}")

    # What a test does to it

    def new_vhost(self) -> str:
        """Return the name of a virtual host that is empty, and all `guest`'s."""
        name = f"v{next(self._numbers)}"
        self.evaluate(f'ok = rabbit_vhost:add(<<"{name}">>, <<"tests">>)')
        self.permit(name)
        return name

    def drop_vhost(self, name: str) -> None:
        self.evaluate(f'ok = rabbit_vhost:delete(<<"{name}">>, <<"tests">>)')

    def permit(
        self, vhost: str, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> None:
        """Let `guest` do this there, from now on and for new connections."""
        rules = ", ".join(f'<<"{rule}">>' for rule in (configure, write, read))
        self.evaluate(
            "ok = rabbit_auth_backend_internal:set_permissions("
            f'<<"guest">>, <<"{vhost}">>, {rules}, <<"tests">>)'
        )

    def close_connections(self, vhost: str, reason: str) -> None:
        """Close all that are to this virtual host, as an operator does."""
        self.evaluate(
            "[rabbit_networking:close_connection(proplists:get_value(pid, C),"
            f' "{reason}") || C <- rabbit_networking:connection_info_all([pid, vhost]),'
            f' proplists:get_value(vhost, C) =:= <<"{vhost}">>]'
        )

    @contextmanager
    def alarm(self) -> Iterator[None]:
        """Have the node run out of memory, as it believes."""
        self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.00001)")
        try:
            yield
        finally:
            self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.9)")

    @property
    def _cookie(self) -> str:
        return (self._folder / ".erlang.cookie").read_text()

    @property
    def _environment(self) -> dict[str, str]:
        folder = self._folder
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": str(folder / "log" / "node.log"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none"
            ),
        }


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


class VHost:
    """A virtual host of one test, and what lies there."""

    def __init__(self, rabbit: Rabbit) -> None:
        self.rabbit = rabbit
        self.name = rabbit.new_vhost()

    @property
    def url(self) -> str:
        return self.rabbit.url(self.name)

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """Lend a channel of the test's own."""
        connection = amqp.Connection(
            f"127.0.0.1:{self.rabbit.port}",
            "guest",
            PASSWORD,
            virtual_host=self.name,
            connect_timeout=PATIENCE,
        )
        connection.connect()
        with closing(connection):
            yield connection.channel()

    def messages(self, queue: str = "celery") -> list[Any]:
        """Return what lies in a queue, if there is one; all of it stays there."""
        with self.channel() as channel, contextlib.suppress(amqp.exceptions.NotFound):
            found: list[Any] = []
            while message := channel.basic_get(queue):
                found.append(message)
            return found
        return []

    def length(self, queue: str = "celery") -> int:
        """Return how much lies ready in a queue."""
        with self.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)
