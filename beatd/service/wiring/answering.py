"""What a scheduler has beside it to answer questions about itself."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from beatd.background import OnCrash
from beatd.brokers.base import Broker
from beatd.config.loading import Config
from beatd.config.settings import mask_url
from beatd.instant import span_of
from beatd.scheduler.loop import Scheduler
from beatd.service.facts import Published
from beatd.service.http import Server
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
    server: Server

    def start(self, on_crash: OnCrash) -> None:
        """Begin to answer."""
        self.looker.start(on_crash)
        self.server.start(on_crash)

    def stop(self) -> None:
        """Answer no more, and leave no socket behind."""
        self.looker.leave()
        self.server.stop()


def answering_of(
    config: Config, taken: Taken, scheduler: Scheduler, passed: Sequence[socket.socket]
) -> Answering:
    """Return what answers questions about a scheduler; `passed` are systemd's sockets.

    Raises ConfigError.
    """
    settings, clock = config.settings, scheduler.clock
    published = Published.from_now_on(scheduler)

    def queues() -> Sequence[str]:
        return [*dict.fromkeys(queue.name for queue in reporter.taken.queues)]

    # It was made as one of all ports (`wiring/scheduler`).
    looker = Looker(cast("Broker", scheduler.broker), queues, clock)
    place = Place(
        config=config.source.name,
        state_file=settings.beat_schedule_filename,
        namespace=settings.beat_namespace,
        broker=mask_url(settings.write_urls[0]),
        max_late=span_of(settings.beat_max_late),
    )
    reporter = Reporter(place, published, looker, clock, taken, clock.now())
    listeners = listeners_of(
        Path(settings.beat_schedule_filename),
        settings.beat_http,
        passed,
        os.environ.get("RUNTIME_DIRECTORY"),
    )
    server = Server(listeners, Site(reporter).respond, clock)
    return Answering(published, reporter, looker, server)
