"""The limit for who emits: a loop that puts messages on a queue and promises nothing.

    python -m benchmarks.bare_loop ENTRIES redis://... | FILE

A heap of what is due, a template join, and for each 1,000 messages one Lua call, or for
a file of SQLite one transaction with the messages and a row of a ledger for each,
durable (synchronous FULL). Prints messages a second, and seconds of processor time for
1,000 messages.
"""

import heapq
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import redis

PUSH = """
for first = 1, #ARGV, 500 do
    redis.call('LPUSH', KEYS[1], unpack(ARGV, first, math.min(first + 499, #ARGV)))
end
"""
PARTS = (
    b'{"body": "W1sxMjM0XSwge30sIHt9XQ==", "headers": {"task": "tasks.run", "id": "',
    b'", "lang": "py", "retries": 0, "root_id": "',
    b'", "origin": "beatd", "ignore_result": false}, "properties": {'
    b'"correlation_id": "',
    b'", "delivery_mode": 2, "delivery_tag": "',
    b'", "delivery_info": {"exchange": "", "routing_key": "celery"}}}',
)
BATCH = 1000

Batch: TypeAlias = Sequence[tuple[int, bytes]]
Push: TypeAlias = Callable[[Batch], object]


def into_redis(url: str) -> Push:
    push = redis.Redis.from_url(url).register_script(PUSH)
    return lambda batch: push(keys=["celery"], args=[message for _, message in batch])


def into_file(path: str) -> Push:
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("PRAGMA journal_mode = WAL")
    file.execute("PRAGMA synchronous = FULL")
    file.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, message BLOB)")
    file.execute("CREATE TABLE ledger (entry INTEGER PRIMARY KEY, slot INTEGER)")

    def push(batch: Batch) -> None:
        file.execute("BEGIN IMMEDIATE")
        file.executemany(
            "INSERT INTO messages (message) VALUES (?)",
            [(message,) for _, message in batch],
        )
        file.executemany(
            "INSERT OR REPLACE INTO ledger VALUES (?, 0)",
            [(number,) for number, _ in batch],
        )
        file.execute("COMMIT")

    return push


def loop(entries: int, push: Push) -> None:
    """Push a message for each entry of a heap, and put the entry back for later."""
    now = 1_800_000_000_000
    heap = [(now, number) for number in range(entries)]
    push([])  # the connection is made, the script loaded
    began, effort = time.perf_counter(), time.process_time()
    batch: list[tuple[int, bytes]] = []
    while heap[0][0] <= now:
        _, number = heapq.heappop(heap)
        own = b"%032x" % number
        batch.append((number, own.join(PARTS)))
        heapq.heappush(heap, (now + 60_000, number))
        if len(batch) == BATCH:
            push(batch)
            batch = []
    push(batch)
    rate = entries / (time.perf_counter() - began)
    print(rate, (time.process_time() - effort) / entries * 1000)


if __name__ == "__main__":
    number, where = sys.argv[1:]
    loop(int(number), (into_redis if "://" in where else into_file)(where))
