"""`python -m beatd`, and the `beatd` command."""

import os
import sys

from beatd import greenlets


def main() -> None:
    """Run the command line and exit with its status."""
    if os.getpid() == 1:
        from beatd.process_one import stay_behind

        stay_behind()
    # `beatd worker -P gevent` replaces parts of the standard library: before anything
    # is imported that takes a name from there, as nearly all that follows does.
    greenlets.patch_for(sys.argv[1:])
    from beatd.cli import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
