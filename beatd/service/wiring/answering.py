"""What a scheduler has beside it to answer questions about itself."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from beatd.brokers.base import Broadcast, SendingBroker
from beatd.config.loading import Config
from beatd.config.settings import Settings, mask_url
from beatd.instant import span_of
from beatd.scheduler.loop import Scheduler
from beatd.service.clocks import ClockWatch
from beatd.service.facts import Published
from beatd.service.http import Server, say_ended
from beatd.service.look import Looker
from beatd.service.rereading import Taken
from beatd.service.site import Site
from beatd.service.snapshot import Place, Reporter
from beatd.service.sockets import listeners_of


@dataclass(frozen=True, slots=True)
class Answering:
    """Publishes what the loop does, and answers questions in threads of its own."""

    published: Published
    reporter: Reporter
    looker: Looker
    clocks: ClockWatch
    site: Site
    server: Server

    def start(self) -> None:
        """Begin to answer; a thread that ends by an error does not end the process."""
        self.looker.start(say_ended)
        self.clocks.start(say_ended)
        self.server.start(say_ended)

    def stop(self) -> None:
        """Answer no more, and leave no socket behind."""
        self.looker.leave()
        self.clocks.leave()
        self.server.stop()


def ask_workers(
    settings: Settings, broker: SendingBroker
) -> Mapping[str, Sequence[str]]:
    """Return by worker, Celery's too, from which queues it takes, as it answers.

    Workers without remote control do not; on a broker that has none, nobody does.
    """
    if not isinstance(broker, Broadcast):
        return {}
    # Imported here: a scheduler of whose queues all are taken does not need it.
    from beatd.app.connections import Connections
    from beatd.app.remote_control import Control

    connections = Connections(settings, broker)
    answers = Control(lambda: connections).inspect().active_queues() or {}
    return {
        str(worker): [one["name"] for one in queues if isinstance(one, dict)]
        for worker, queues in answers.items()
        if isinstance(queues, list)
    }


def answering_of(
    config: Config,
    taken: Taken,
    scheduler: Scheduler,
    passed: Sequence[socket.socket],
    also: str | None,
) -> Answering:
    """Return what answers questions about a scheduler.

    `passed` are systemd's sockets, and `also` the address of a worker beside it.
    Raises ConfigError.
    """
    settings, clock = config.settings, scheduler.clock
    published = Published.from_now_on(scheduler)

    def queues() -> Sequence[str]:
        return reporter.taken.queue_names

    # It was made as one of all ports (`wiring/scheduler`).
    broker = cast("SendingBroker", scheduler.broker)
    looker = Looker(broker, queues, clock, partial(ask_workers, settings, broker))
    clocks = ClockWatch(broker, clock)
    place = Place(
        config=config.source.name,
        state_file=settings.beat_schedule_filename,
        namespace=settings.beat_namespace,
        broker=mask_url(settings.write_urls[0]),
        max_late=span_of(settings.beat_max_late),
    )
    reporter = Reporter(place, published, looker, clocks, clock, taken, clock.now())
    listeners = listeners_of(
        Path(settings.beat_schedule_filename),
        [*dict.fromkeys(filter(None, (settings.beat_http, also)))],
        passed,
        os.environ.get("RUNTIME_DIRECTORY"),
    )
    site = Site(reporter)
    server = Server(listeners, site.respond, clock)
    return Answering(published, reporter, looker, clocks, site, server)
