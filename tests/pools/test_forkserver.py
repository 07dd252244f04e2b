"""What a fork server does at its end of the socket, whatever comes or does not come."""

import gc
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from beatd.pools.prefork.forkserver import forked
from beatd.pools.prefork.forkserver_main import FORK, GONE, READY, RECORD, Server
from tests.servers import PATIENCE


class Line:
    """The pool's end of the socket, in the hands of a test."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self._control = control
        self.pid = pid
        control.settimeout(PATIENCE)

    def receive(self) -> tuple[bytes, int, int]:
        record = self._control.recv(RECORD.size, socket.MSG_WAITALL)
        verb, number, status = RECORD.unpack(record)
        return verb, number, status

    def ask_for(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            record = RECORD.pack(FORK, number, 0)
            fds = [theirs.fileno(), theirs.fileno()]  # it works without claims, too
            socket.send_fds(self._control, [record], fds)


@contextmanager
def fork_server(run: Callable[[socket.socket, int], object]) -> Iterator[Line]:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):  # as little room as there can be
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    with theirs:
        process = forked(run)(ours, theirs)
    line = Line(ours, process.pid)
    assert line.receive() == (READY, 0, 0)
    try:
        yield line
    finally:
        ours.close()
        process.kill()
        process.wait()


def test_what_is_there_at_the_fork_is_collected_no_more_so_its_pages_stay_shared() -> (
    None
):
    of_both: list[object] = []
    try:
        with fork_server(lambda channel, claims: os._exit(3)):
            assert not any(one is of_both for one in gc.get_objects())
    finally:
        gc.unfreeze()


def test_ends_that_nobody_hears_yet_keep_no_child_from_being_forked() -> None:
    with fork_server(lambda channel, claims: os._exit(3)) as line:
        for number in range(100):
            line.ask_for(number)

        received = [line.receive() for _ in range(100)]

    assert sorted(received) == [(GONE, number, 3 << 8) for number in range(100)]


def test_a_fork_server_that_runs_out_of_files_says_that_there_is_no_child() -> None:
    with fork_server(lambda channel, claims: os._exit(3)) as line:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.prlimit(line.pid, resource.RLIMIT_NOFILE, (3, hard))
        line.ask_for(1)
        assert line.receive() == (GONE, 1, os.EX_OSERR << 8)

        resource.prlimit(line.pid, resource.RLIMIT_NOFILE, (100, hard))
        line.ask_for(2)
        assert line.receive() == (GONE, 2, 3 << 8)


def test_no_end_of_a_child_is_heard_of_once_the_server_has_ended() -> None:
    ours, theirs = socket.socketpair()
    if (pid := os.fork()) == 0:
        ours.close()
        Server(theirs, lambda channel, claims: None, b"").run()
        # A signal that comes now would be written to a descriptor that is closed.
        os._exit(0 if signal.set_wakeup_fd(-1) == -1 else 1)
    theirs.close()
    Line(ours, pid).receive()
    ours.close()

    assert os.waitpid(pid, 0)[1] == 0
