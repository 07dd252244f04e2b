"""The tests' own way to start programs."""

import subprocess
import sys

from tests.processes import ROOT, environment

INTERRUPTED = """
import subprocess
import tests.conftest

print(subprocess.run(["sh", "-c", "kill -INT $$"]).returncode)
"""


def test_programs_can_be_interrupted_where_the_tests_ignore_interrupts() -> None:
    in_background = ["sh", "-c", """trap "" INT; exec "$@" """, "sh"]
    ran = subprocess.run(
        [*in_background, sys.executable, "-c", INTERRUPTED],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.stdout == "-2\n", ran.stderr
