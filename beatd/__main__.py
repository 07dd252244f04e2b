"""`python -m beatd`, and the `beatd` command."""

import sys

from beatd.cli import main as run


def main() -> None:
    """Run the command line and exit with its status."""
    sys.exit(run())


if __name__ == "__main__":
    main()
