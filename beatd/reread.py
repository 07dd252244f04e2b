"""A new interpreter that reads a scheduler's config again.

Only a scheduler starts it, as `python -m beatd.reread FD`.
"""

import os
import sys
from functools import partial

from beatd.service.rereading import answer

if __name__ == "__main__":
    with open(int(sys.argv[1]), "wb") as answered:  # noqa: PTH123  (a descriptor)
        answer(sys.stdin.buffer, answered, partial(os._exit, 0))
    # Threads that the project's modules have started are no reason to stay.
    sys.stdout.flush()
    os._exit(0)
