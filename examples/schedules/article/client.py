"""The main program: asks for a sum, or reads a result by its task id.

cd examples/schedules
mkdir -p log
beatd -A article --schedule-filename log/celery.db &
beatd worker -A article &
python -m article.client          # prints the task id
python -m article.client ID       # prints state and result, in another process
"""

import sys

from .celery import app
from .tasks import add


def main() -> None:
    """Send a task, or look at one."""
    if len(sys.argv) > 1:
        result = app.AsyncResult(sys.argv[1])
        print(result.get(timeout=10), result.state)
    else:
        print(add.delay(2, 3).id)


if __name__ == "__main__":
    main()
