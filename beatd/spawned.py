"""A new interpreter from which the children of a worker's pool are forked.

Only a worker starts it, as `python -m beatd.spawned FD`.
"""

import os
import sys
import traceback
from typing import NoReturn

import msgspec

from beatd.config.options import Told
from beatd.errors import ConfigError
from beatd.pools.prefork.forkserver import handshake
from beatd.pools.prefork.forkserver_main import refuse, serve
from beatd.service.worker import become_fork_server


def main(fd: int) -> NoReturn:
    """Load the tasks of the worker at the other end of this socket; fork children."""
    try:
        control, words = handshake(fd)
    except ConnectionResetError:
        os._exit(os.EX_OK)  # the worker is dead
    try:
        told = msgspec.msgpack.decode(words, type=Told)
        sys.path[:] = told.path
        run_child, about = become_fork_server(told)
    except ConfigError as error:
        refuse(control, str(error), os.EX_CONFIG)
    except BaseException as error:  # whatever the user's handlers of signals may raise
        traceback.print_exc()
        refuse(control, f"it raised {error!r}", os.EX_SOFTWARE)
    serve(control, run_child, about)


if __name__ == "__main__":
    main(int(sys.argv[1]))
