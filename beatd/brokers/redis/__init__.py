"""Redis 6.2 and later, and Valkey: queues as Celery has them, all steps in Lua.

Queues, bindings and channels have Celery's names. What is beatd's own lies under
`{beatd:<namespace>}:`, after `global_keyprefix` if there is one:

lead             text      "<number> <nonce> <holder>", expires with the lead
term             number    the largest number of a term
config           hash      the leader's term, and in short what it emits
standbys         hash      who stands by -> "<ms of that server's clock> <digest>";
                           expires with the last of them
ledger           hash      entry -> mark, "<slot> <runs> <last or ->[^<high>]
                           <fingerprint>"; and under "\\xff" the ledger's edition,
                           "<lineage> <version> <terms>"
era              number    the clock era
runs             hash      entry -> task id of its current run
pages            list      what each batch of emissions did, as zlib and MessagePack,
                           with a letter for each emission before it
history          hash      entry -> what became of its last slots, as MessagePack; under
                           "" what is known of the history itself; and under "\\xff"
                           the number of the last page
notes:<book>     hash      name -> what else has to outlive who leads
workers          sorted    worker -> end of its lease, ms of the server's clock; a
                           worker that moved here is "<worker>/<number of moves>"
leases           hash      worker -> length of its lease, ms
queues           hash      worker -> the queues that it takes from, in JSON, for people
inflight:<w>     hash      token -> held message (prelude.lua has its form); and of
                           deliveries that were acknowledged before their runs,
                           "begun:<token>" -> entry and task id of a current run
answered:<w>     text      the number of the worker's last request to settle
                           something, and the answers
took:<w>         text      the number of its last request to take, and its stamp
ended:<w>        text      the tokens in flight, among others, whose runs have ended
serial           number    counts all messages that were ever taken
deliveries       hash      SHA-1 of a message -> how often a worker died with it
delayed          sorted    id of a delayed message -> when it is due, by that clock
late             hash      id of a delayed message -> held message
dead             hash      id of a dead letter -> JSON record of how it came to that
dead_messages    hash      id of a dead letter -> held message
dead_serial      number    the last id of a dead letter
unreadable:held  hash      what was held and is no held message, by key and field
unreadable:<...> any       a key of beatd's own that was of another type
resigned         text      the last term that was given back, "<number> <nonce> "
released         channel   tells that the lead was given back

Each script begins with what it guarantees; prelude.lua stands before each of them. None
encodes a message anew: Lua would change numbers and empty lists in it.
"""

from beatd.brokers.redis.broker import RedisBroker

__all__ = ["RedisBroker"]
