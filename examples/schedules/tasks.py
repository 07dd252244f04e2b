"""The tasks that the schedules beside this file call.

A worker finds them by `include = ["tasks"]`: a config file's folder is on its path.
"""

import asyncio
import time

from beatd import shared_task


@shared_task
def tick() -> str:
    """Do next to nothing."""
    return "tock"


@shared_task
def add(x: float, y: float) -> float:
    """Give the sum of two numbers."""
    return x + y


@shared_task
def report(kind: str = "sales", day: str = "") -> str:
    """Write a report; `day` is the slot that this run is for."""
    return f"{kind} report for {day or 'now'}"


@shared_task
def slow(seconds: float = 3) -> float:
    """Take long, to show what an entry's `overlap` does."""
    time.sleep(seconds)
    return seconds


@shared_task
async def fetch(url: str) -> str:
    """Wait for others, as coroutines do."""
    await asyncio.sleep(0.1)
    return f"fetched {url}"
