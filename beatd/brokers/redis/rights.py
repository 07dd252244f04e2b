"""What a server may do to our data, and which channels its ACL keeps from us."""

from collections.abc import Collection, Mapping

import redis

from beatd.brokers.redis.failover import Server
from beatd.brokers.redis.listening import INVALIDATIONS, POLL
from beatd.text import counted


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


def replication_risks(server: Server, min_replicas: int) -> list[str]:
    """Return how emissions may be lost, or be held up, when the server is replaced."""
    with server.answering() as client:
        try:
            replicas = int(client.info("replication").get("connected_slaves", 0))
            name = "min-replicas-to-write"
            needed = int(client.config_get(name).get(name, 0))
        except redis.exceptions.ResponseError:
            return []  # it does not tell everybody, or has no such setting
    risks = []
    if replicas < min_replicas:
        risks.append(
            f"beat_min_replicas is {min_replicas}, and it has"
            f" {counted(replicas, 'replica')}: while that is so, no emission is done"
        )
    sentinels = server.present.sentinels
    if sentinels is None:
        return risks
    if not (needed or min_replicas):
        risks.append(
            "its min-replicas-to-write is 0: while it is cut off from its replicas, it"
            " goes on to take what is lost when another one replaces it; set it to 1 on"
            " all servers of the group, or beat_min_replicas to 1"
        )
    if sentinels < 3:
        risks.append(
            f"{counted(sentinels, 'sentinel')} in all: when one is lost, nobody may"
            " replace the master; let there be three, on hosts of their own"
        )
    return risks
