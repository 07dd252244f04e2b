"""Redis 6.2 and later, and Valkey: queues as Celery has them, all steps in Lua.

Queues, bindings and channels have Celery's names. What is beatd's own lies under
`{beatd:<namespace>}:`, after `global_keyprefix` if there is one:

lead             text      "<number> <nonce> <holder>", expires with the lead
term             number    the largest number of a term
ledger           hash      entry -> mark, "<slot> <runs> <last or -> <fingerprint>"
era              number    the clock era
runs             hash      entry -> task id of its current run
workers          sorted    worker -> end of its lease, ms of the server's clock; a
                           worker that moved here is "<worker>/<number of moves>"
inflight:<w>     hash      token -> held message (prelude.lua says its form)
answered:<w>     text      the number of the worker's last request to settle
                           something, and what was answered
serial           number    counts what was ever taken
deliveries       hash      SHA-1 of a message -> how often a worker died with it
delayed, late    sorted, hash   id -> when it is due, by the same; id -> held message
dead             hash      id of a dead letter -> how it came to that, in JSON
dead_messages    hash      the same -> held message
dead_serial      number    the last id
released         channel   someone gave the lead back

Each script says what it guarantees; prelude.lua is what they share. None decodes a
message: Lua would change numbers and empty lists in it.
"""

from beatd.brokers.redis.broker import RedisBroker

__all__ = ["RedisBroker"]
