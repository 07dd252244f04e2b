"""Commands to workers, Celery's too."""

import uuid
from collections.abc import Mapping
from typing import Any

from beatd.app.connections import Connections
from beatd.brokers.base import Broadcast
from beatd.brokers.items import Outgoing
from beatd.errors import ConfigError
from beatd.message import Notice, write_notice
from beatd.routing import Route


def tell_workers(
    connections: Connections, method: str, arguments: Mapping[str, Any]
) -> None:
    """Send a command to all workers; no answer is waited for.

    Raises ConfigError on a broker that carries no remote control.
    """
    broker = connections.broker
    if not isinstance(broker, Broadcast):
        problem = "remote control goes over Redis, and this broker is another one"
        raise ConfigError("broker_url", [problem])
    exchange = connections.settings.control_exchange
    route = Route("", f"{exchange}.pidbox", "", "fanout")
    command = {
        "method": method,
        "arguments": arguments,
        "destination": None,
        "pattern": None,
        "matcher": None,
    }
    notice = Notice({"clock": 0, "expires": 0}, command)
    tag = str(uuid.uuid4())
    message = write_notice(notice, route, tag=tag, delivery_mode=2)
    broker.send([Outgoing(route, message)])
