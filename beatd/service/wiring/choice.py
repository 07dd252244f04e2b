"""What one worker is told beside the settings that all share, and its queues."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from beatd.config.loading import Config
from beatd.config.switches import HEARTBEAT_INTERVAL, WORKER_NODE
from beatd.errors import ConfigError, MessageError
from beatd.routing import Queue, Router, worker_direct
from beatd.service.nodes import node_name
from beatd.worker.autoscale import Autoscale


@dataclass(frozen=True, slots=True)
class WorkerChoice:
    """What one worker is told beside the settings that all share."""

    hostname: str = WORKER_NODE
    queues: Sequence[str] = ()
    """Empty: all that are declared."""
    exclude: Collection[str] = ()
    include: Sequence[str] = ()
    """Modules to import besides those of the settings."""
    autoscale: Autoscale | None = None
    heartbeat_interval: float = HEARTBEAT_INTERVAL
    """Seconds between heartbeats."""


def queues_of(config: Config, choice: WorkerChoice) -> Sequence[str]:
    """Name the queues that a worker takes from.

    Raises ConfigError when that is none, or one that is unknown and must be known.
    """
    declared = list(config.router.queues)
    wanted = [name for name in choice.queues or declared if name not in choice.exclude]
    try:
        for name in wanted:
            config.router.queue(name)
    except MessageError as error:
        raise ConfigError("-Q", [str(error)]) from error
    if own := _own_queue(config, choice):
        wanted.append(own.name)
    if not wanted:
        raise ConfigError("-Q, -X", ["no queue is left to take from"])
    return wanted


def router_of(config: Config, choice: WorkerChoice) -> Router:
    """Return the router of all queues, with the one that is the worker's own."""
    own = _own_queue(config, choice)
    return config.router.including(own) if own else config.router


def _own_queue(config: Config, choice: WorkerChoice) -> Queue | None:
    if not config.settings.worker_direct:
        return None
    return worker_direct(node_name(choice.hostname))
