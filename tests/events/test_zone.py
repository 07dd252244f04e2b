"""The zone of tasks, and that of the machine."""

import subprocess
import sys

from tests.processes import environment

LOOK = """
import time
from beatd.events.zone import local_time, machine_zone

local_time("Asia/Kathmandu")
print(time.strftime("%z"), machine_zone())
"""


def test_the_machine_s_zone_is_known_after_tasks_have_been_given_another() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env=environment(TZ="America/New_York"),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["+0545", "America/New_York"]
