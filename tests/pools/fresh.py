"""A new interpreter from which a pool's children are forked, for the tests."""

import os
import signal
import subprocess
import sys

import msgspec

from beatd.pools.prefork.child import Child
from beatd.pools.prefork.forkserver import Birth, answer_the_call, spawned
from beatd.pools.prefork.forkserver_main import refuse, tend
from tests.pools import desk

BROKEN, NEVER_READY, BUSY = "broken", "never ready", "with a program beside it"


class Code:
    """What the next interpreter finds on the disk, as it were."""

    def __init__(self, text: str) -> None:
        self.text = text

    def birth(self) -> Birth:
        return spawned([sys.executable, "-m", __name__], lambda: self.text)


if __name__ == "__main__":
    control, words = answer_the_call(int(sys.argv[1]))
    text = msgspec.msgpack.decode(words, type=str)
    if text == BROKEN:
        refuse(control, "no such luck", os.EX_CONFIG)
    if text == NEVER_READY:
        signal.pause()
    if text == BUSY:
        program = subprocess.Popen(["true"])
    os.environ["CODE"] = text
    tend(control, Child(desk.runner, None, None, None).live)
