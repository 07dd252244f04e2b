"""Tasks as a user writes them: only type-checked."""

from typing import assert_type

from beatd import AsyncResult, Beatd, shared_task
from beatd.tasks import Task

app = Beatd("proj")


@app.task
def add(x: int, y: int) -> int:
    """A plain task keeps its types."""
    return x + y


@app.task(bind=True, max_retries=5)
def fetch(self: Task[[str], str], url: str) -> str:
    """A bound one is called without itself."""
    if self.request.retries:
        raise self.retry(countdown=1)
    return url


@shared_task(name="other.name", queue="slow")
def shared(word: str) -> None:
    """So is a shared one."""


assert_type(add(1, 2), int)
assert_type(add.delay(1, 2), AsyncResult[int])
assert_type(add.delay(1, y=2).get(timeout=1), int)
assert_type(fetch.delay("http://example.org").get(), str)
assert_type(shared.apply_async(("word",), countdown=3), AsyncResult[None])

add.delay("1", 2)  # type: ignore[arg-type]  # must be refused
fetch.delay()  # type: ignore[call-arg]  # must be refused
