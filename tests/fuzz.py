"""`python -m tests.fuzz --minutes 10`: bad input of all kinds for that long.

The tests that hypothesis draws input for, over and over with other seeds: entries,
settings, task options, messages, and commands of remote control. Each of them has the
real code go on with something good after each bad thing.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count

TESTS = [
    "tests/test_any_entry.py",
    "tests/test_task_options.py",
    "tests/test_codec.py",
    "tests/test_message.py",
    "tests/test_patterns.py",
    "tests/worker/test_any_command.py",
    "tests/worker/test_bad_input.py::test_no_message_ends_the_worker_or_holds_up_the_queue",
]

_DRAWN = re.compile(r"- (\d+) passing\D+(\d+) failing\D+(\d+) invalid")
_WORDS = ["-q", "-p", "no:cacheprovider", "--hypothesis-show-statistics"]


def main(arguments: Sequence[str]) -> int:
    """Fuzz as the arguments say; return 1 at the first fault, with how to replay it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--seed", type=int, default=int(time.time()), help="the first")
    chosen = options.parse_args(arguments)
    began = time.monotonic()
    drawn = 0
    for seed in count(chosen.seed):
        words = [*TESTS, *_WORDS, f"--hypothesis-seed={seed}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        drawn += sum(sum(map(int, one)) for one in _DRAWN.findall(done.stdout))
        minutes = (time.monotonic() - began) / 60
        print(f"seed {seed}: {drawn} examples in {minutes:.1f} min", flush=True)
        if done.returncode:
            print(done.stdout[-20_000:], done.stderr[-2000:])
            print(f"again: python -m tests.fuzz --seed {seed} --minutes 0")
            return 1
        if minutes >= chosen.minutes:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
