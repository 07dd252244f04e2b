"""Tasks of the example."""

from beatd import shared_task


@shared_task
def say(text: str) -> None:
    """Print a text, which becomes a line of the worker's log."""
    print(text)
