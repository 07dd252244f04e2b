"""What beatd needs to be permitted on a server, tried without leaving anything there.

A server checks each command of a transaction when it comes, and does nothing of it
before its end; this one has none.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import redis

from beatd.brokers.items import Forbidden
from beatd.brokers.redis.failover import Server
from beatd.brokers.redis.listening import pattern_of
from beatd.brokers.redis.wire import WireNames
from beatd.errors import BrokerRefused
from beatd.routing import Queue
from beatd.text import quoted

Words: TypeAlias = Sequence[Any]

KEY, CHANNEL, PATTERN = object(), object(), object()
"""Stand for a key, a channel, and a pattern of channels."""

SCRIPTS: Mapping[str, Words] = {"EVAL": ("", 0), "EVALSHA": ("0" * 40, 0)}

SCHEDULER: Mapping[str, Words] = {
    **SCRIPTS,
    **dict.fromkeys(("DEL", "EXISTS", "GET", "HKEYS", "LPOP", "PTTL"), (KEY,)),
    **dict.fromkeys(("HGETALL", "LLEN", "SMEMBERS", "TYPE"), (KEY,)),
    **dict.fromkeys(("HDEL", "HGET", "HMGET", "HSCAN", "LPUSH"), (KEY, 0)),
    **dict.fromkeys(("PEXPIRE", "RPUSH", "SADD", "SET"), (KEY, 0)),
    **dict.fromkeys(("HINCRBY", "HSET", "LRANGE", "LTRIM"), (KEY, 0, 0)),
    **dict.fromkeys(("ZADD", "ZRANGEBYSCORE"), (KEY, 0, 0)),
    "PUBLISH": (CHANNEL, ""),
    "PING": (),
    "RENAME": (KEY, KEY),
    "TIME": (),
    "ZREVRANGEBYSCORE": (KEY, 0, 0),
}
"""By command, words with which it is whole."""

WORKER: Mapping[str, Words] = {
    **SCRIPTS,
    **dict.fromkeys(("DEL", "GET", "HKEYS", "HLEN", "INCR", "LLEN"), (KEY,)),
    **dict.fromkeys(("LPOP", "RPOP", "SMEMBERS", "TYPE", "UNLINK"), (KEY,)),
    **dict.fromkeys(("HDEL", "HEXISTS", "HGET", "HMGET", "HSCAN"), (KEY, 0)),
    **dict.fromkeys(("INCRBY", "LPUSH", "PEXPIRE", "RPUSH", "SADD"), (KEY, 0)),
    **dict.fromkeys(("SET", "ZREM", "ZSCORE"), (KEY, 0)),
    **dict.fromkeys(("HINCRBY", "HSET", "LRANGE", "LTRIM"), (KEY, 0, 0)),
    **dict.fromkeys(("ZADD", "ZRANGE", "ZRANGEBYSCORE"), (KEY, 0, 0)),
    "PING": (),
    "RENAME": (KEY, KEY),
    "TIME": (),
    "ZREVRANGEBYSCORE": (KEY, 0, 0),
}

EVENTS_AND_CONTROL: Mapping[str, Words] = {
    "BRPOP": (KEY, 0),
    "PSUBSCRIBE": (PATTERN,),
    "PUBLISH": (CHANNEL, ""),
    "SREM": (KEY, 0),
    "SUBSCRIBE": (CHANNEL,),
}

STATUS: Mapping[str, Words] = {
    **dict.fromkeys(("HGETALL", "HLEN", "LLEN"), (KEY,)),
    "LINDEX": (KEY, 0),
    "LRANGE": (KEY, 0, 0),
    "TIME": (),
    "ZREVRANGE": (KEY, 0, 0),
}

RESULTS: Mapping[str, Words] = {
    **SCRIPTS,
    **dict.fromkeys(("DEL", "GET", "LLEN", "MGET", "ZCARD"), (KEY,)),
    **dict.fromkeys(("EXPIRE", "RPUSH", "SADD", "SET"), (KEY, 0)),
    **dict.fromkeys(("LRANGE", "ZADD", "ZRANGE"), (KEY, 0, 0)),
    "SCRIPT|LOAD": ("",),
    "SETEX": (KEY, 1, 0),
    "PUBLISH": (CHANNEL, ""),
    "SUBSCRIBE": (CHANNEL,),
}

TRANSACTIONS = ("MULTI", "EXEC", "DISCARD")

BETTER = ("CLIENT|ID", "CLIENT|TRACKING", "CONFIG|GET", "INFO")
"""Commands without which beatd does as well, but more slowly, or knows less."""


class Need(NamedTuple):
    """What one part of beatd has to do."""

    part: str
    commands: Mapping[str, Words]
    keys: Mapping[str, str]
    """By key, the pattern that permits it and those like it. The first one stands for
    all when commands are tried."""
    channels: Mapping[str, str]
    touch: Words
    """A command for each of the keys: one that would do no harm, whatever lies there.
    """


class _Try(NamedTuple):
    part: str
    name: str
    command: Words
    rule: str
    """What permits the key or the channel that the command names."""


def needs_of(
    own: str, wire: WireNames, unacked: Sequence[str], queues: Collection[Queue]
) -> list[Need]:
    """Return what all that works with a broker needs there.

    `own` is the prefix of beatd's own keys, `unacked` those of Celery's workers. The
    fan-out exchanges among the queues are those of events and of remote control.
    """
    audiences = [one for one in queues if one.exchange_type == "fanout"]
    lists = wire.lists([one.name for one in queues if one not in audiences])
    keys = {
        f"{own}check": f"{own}*",
        wire.bindings("check"): f"{wire.prefix}_kombu*",
        **{key: f"{wire.prefix}{name}*" for key, name in lists.items()},
    }
    held = dict.fromkeys(unacked, f"{wire.prefix}unacked*")
    controls = [one.exchange for one in audiences if one.exchange.endswith(".pidbox")]
    answers = {
        wire.list_of(f"check.reply.{one}", step): f"{wire.prefix}*.reply.{one}*"
        for one in controls
        for step in wire.steps
    }
    released = {f"{own}released": f"{own}*"}
    patterns = [pattern_of(wire, one) for one in audiences]
    heard = {one.replace("*", "check"): one for one in patterns} | released
    return [
        Need("a scheduler", SCHEDULER, keys, released, ("HDEL", KEY, "")),
        Need("a worker", WORKER, keys | held, released, ("HDEL", KEY, "")),
        Need("beatd status", STATUS, keys, released, ("HLEN", KEY)),
        Need(
            "events and remote control",
            EVENTS_AND_CONTROL,
            keys | answers,
            heard,
            ("SREM", KEY, ""),
        ),
    ]


def forbidden(server: Server, needs: Iterable[Need]) -> list[Forbidden]:
    """Return what the server forbids our user of these needs."""
    with server.answering():
        connection = server.present.connect()
        try:
            if _is_forbidden(connection, ["MULTI"], b"OK"):
                # Without it the rest is not known.
                rules = " ".join(f"+{name.lower()}" for name in TRANSACTIONS)
                return [Forbidden("chords, and this check", "MULTI", rules)]
            tried = [(one, _refusal(connection, one)) for one in _tries(needs)]
            return [*dict.fromkeys(found for _, found in tried if found)]
        finally:
            connection.disconnect()


def _tries(needs: Iterable[Need]) -> Iterable[_Try]:
    for part, commands, keys, channels, touch in needs:
        key, channel = next(iter(keys)), next(iter(channels))
        own = {KEY: key, CHANNEL: channel, PATTERN: channels[channel]}
        for name, words in commands.items():
            filled = [own.get(word, word) for word in words]
            about_key = KEY in words or not words
            rule = f"~{keys[key]}" if about_key else f"&{channels[channel]}"
            yield _Try(part, name, [*name.split("|"), *filled], rule)
        for key, pattern in keys.items():
            words = [key if word is KEY else word for word in touch]
            yield _Try(part, str(touch[0]), words, f"~{pattern}")
        for channel, pattern in channels.items():
            yield _Try(part, "PUBLISH", ["PUBLISH", channel, ""], f"&{pattern}")


def _refusal(connection: Any, one: _Try) -> Forbidden | None:
    words = _is_forbidden(connection, one.command, b"QUEUED")
    if not words:
        return None
    if "to run" in words:
        return Forbidden(one.part, one.name, f"+{one.name.lower()}")
    return Forbidden(one.part, one.rule[1:], one.rule)


def _is_forbidden(connection: Any, command: Words, expected: bytes) -> str:
    """Return the server's words if it forbids a command; empty if it does not.

    Raises BrokerRefused if it answers as in no transaction: then the next command would
    be carried out.
    """
    connection.send_command(*command)
    try:
        answer = connection.read_response()
    except redis.exceptions.NoPermissionError as error:
        return str(error)
    except redis.exceptions.ResponseError as error:
        if expected == b"QUEUED":
            return ""  # it knows no such command, say
        answer = error
    if answer != expected:
        raise BrokerRefused(
            f"it has no transactions (MULTI), which chords need: {quoted(answer)}"
        )
    return ""
