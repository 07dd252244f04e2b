"""What a server may do to our data, and which channels its ACL keeps from us."""

from collections.abc import Collection, Mapping

import redis

from beatd.brokers.redis.failover import Server
from beatd.brokers.redis.listening import INVALIDATIONS, POLL


def refused_channels(server: Server, channels: Collection[str]) -> dict[str, str]:
    """Return the channels on which our user may not listen, with the server's words.

    A server tells of that only when it is asked to, before Redis 7 also for publishing.
    """
    refused = {}
    with server.answering():
        connection = server.present.connect()
        try:
            for channel in channels:
                connection.send_command("SUBSCRIBE", channel)
                try:
                    connection.read_response()
                except redis.exceptions.NoPermissionError as error:
                    refused[channel] = str(error)
        finally:
            connection.disconnect()
    return refused


def channel_risks(refused: Mapping[str, str], released: str) -> list[str]:
    """Return what it costs that channels of our own are refused, for people.

    `refused` has the server's words by channel; `released` is the channel that tells
    that the lead was given back.
    """
    costs = {
        released: "standbys are not told when the lead is given back, and ask for it"
        " four times a second",
        INVALIDATIONS: "workers are not told of new messages, and look for them every"
        f" {POLL} ms",
    }
    return [
        f"its ACL forbids us the channel {channel} ({words}): {costs[channel]}; permit"
        f" +subscribe, +publish and '&{channel}' to the user of broker_url"
        for channel, words in refused.items()
    ]


def eviction_risks(server: Server) -> list[str]:
    """Return what the server throws away when it is full."""
    with server.answering() as client:
        try:
            policy = client.info("memory").get("maxmemory_policy", "noeviction")
        except redis.exceptions.NoPermissionError:
            return []  # the user may not change it either
    if policy == "noeviction":
        return []
    lost = "the lead and results" if policy.startswith("volatile") else "messages"
    return [
        f"its maxmemory-policy is {policy}: when it is full it throws keys away,"
        f" {lost} among them; set it to noeviction"
    ]
