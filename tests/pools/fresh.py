"""A new interpreter from which a pool's children are forked, for the tests."""

import os
import signal
import subprocess
import sys

import msgspec

from beatd.pools.prefork.child import ChildMain
from beatd.pools.prefork.forkserver import Starter, handshake, spawned
from beatd.pools.prefork.forkserver_main import refuse, serve
from tests.pools import desk

BROKEN, NEVER_READY, BUSY = "broken", "never ready", "with a program beside it"


class Code:
    """What the next interpreter finds on the disk, as it were."""

    def __init__(self, text: str) -> None:
        self.text = text

    def starter(self) -> Starter:
        return spawned([sys.executable, "-m", __name__], lambda: self.text)


if __name__ == "__main__":
    control, words = handshake(int(sys.argv[1]))
    text = msgspec.msgpack.decode(words, type=str)
    if text == BROKEN:
        refuse(control, "no such luck", os.EX_CONFIG)
    if text == NEVER_READY:
        signal.pause()
    if text == BUSY:
        program = subprocess.Popen(["true"])
    os.environ["CODE"] = text
    serve(control, ChildMain(desk.runner, None, None, None).run)
