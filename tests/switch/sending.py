"""Sends what the entries of apps of Celery send, and says what lay in Redis then.

A process of its own, since Celery leaves much behind: run in the project's folder, with
`celery` or `beatd`, the address of an empty server and the names of apps.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

Sent = dict[str, Any]
"""By key or channel, the messages that came there; and the members of bindings."""


class Unsent(Exception):
    """An entry cannot be sent."""


class Listener:
    """Hears what is published by fan-out, up to a word of its own."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._pubsub: Any = client.pubsub(ignore_subscribe_messages=False)
        self._pubsub.psubscribe("*")
        self._pubsub.get_message(timeout=60)

    def heard(self) -> Iterator[tuple[str, str]]:
        self._client.publish("the end", "")
        while True:
            found = self._pubsub.get_message(timeout=60)
            assert found is not None
            channel = found["channel"].decode()
            if channel == "the end":
                return
            if "celeryev" not in channel:
                yield channel, found["data"].decode()


def sent_by(send: Callable[[], object], client: Any) -> Sent:
    """Return what lies in Redis after `send`; the lists are empty after that."""
    listener = Listener(client)
    found: Sent = {}
    try:
        send()
    except Unsent as error:
        return {"unsent": str(error)}
    for channel, data in listener.heard():
        found.setdefault(channel, []).append(data)
    for key in client.keys("*"):
        name = key.decode()
        if name.startswith("{beatd"):
            continue
        if client.type(key) == b"list":
            found[name] = [text.decode() for text in client.lrange(key, 0, -1)]
            found[f"life of {name}"] = round(client.pttl(key), -5)
            client.delete(key)
        elif client.type(key) == b"set":
            found[name] = sorted(text.decode() for text in client.smembers(key))
    return found


def by_celery(app: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield for each entry what Celery's beat does in its time."""
    from celery.beat import Scheduler, SchedulingError

    app.loader.init_worker()
    app.finalize()
    scheduler = Scheduler(app, lazy=True)
    scheduler.merge_inplace(app.conf.beat_schedule)
    scheduler.install_default_entries(app.conf.beat_schedule)
    for name in dict.fromkeys([*app.conf.beat_schedule, *scheduler.schedule]):
        entry = scheduler.schedule[name]

        def send(entry: Any = entry) -> None:
            producer = scheduler.producer
            try:
                scheduler.apply_async(entry, producer=producer, advance=False)
            except SchedulingError as error:
                raise Unsent(str(error)) from error

        yield name, send


def by_beatd(name: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield for each entry how its message comes to the broker."""
    from beatd import brokers
    from beatd.brokers.items import Emission, Outcome, Term
    from beatd.clock import SystemClock
    from beatd.config.loading import Wanted, load
    from beatd.errors import MessageError
    from beatd.timetable.ledger import Mark

    config = load(Wanted(app=name))
    broker = brokers.of_settings(config.settings, config.settings.write_urls)
    broker.declare(config.queues)
    term = broker.acquire("the test", 60_000, 0)
    assert isinstance(term, Term)
    for entry in config.entries:

        def send(entry: Any = entry) -> None:
            now = SystemClock().now()
            id = "018f0000-0000-8000-8000-000000000000"
            try:
                made = entry.message.made(id=id, now=now, slot=now, expires=None)
            except MessageError as error:
                raise Unsent(str(error)) from error
            mark = Mark(now, "", 1, now)
            emission = Emission(entry.name, mark, made.route, made.message)
            (outcome,) = broker.emit(term, [emission], 60_000)
            assert outcome in (Outcome.QUEUED, Outcome.DROPPED)

        yield entry.name, send
    for bad in config.bad:

        def refuse(bad: Any = bad) -> None:
            raise Unsent("; ".join(map(str, bad.problems)))

        yield bad.name, refuse
    broker.close()


def main(kind: str, url: str, *apps: str) -> None:
    sys.path.insert(0, str(Path.cwd()))
    client = redis.Redis.from_url(url)
    found = {}
    for name in apps:
        client.flushall()
        if kind == "celery":
            from celery.app.utils import find_app

            sends = by_celery(find_app(name))
        else:
            sends = by_beatd(name)
        found[name] = {entry: sent_by(send, client) for entry, send in sends}
    Path(f"{kind}.json").write_text(json.dumps(found))
    names = [thread.name for thread in threading.enumerate()]
    assert names == ["MainThread"], names
    os._exit(0)  # without what Celery does at an end: there is much to close


if __name__ == "__main__":
    main(*sys.argv[1:])
