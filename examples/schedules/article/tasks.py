"""What workers do."""

from .celery import app


@app.task
def add(x: int, y: int) -> int:
    """Give the sum."""
    return x + y


@app.task
def sub(x: int, y: int) -> int:
    """Give the difference."""
    return x - y
