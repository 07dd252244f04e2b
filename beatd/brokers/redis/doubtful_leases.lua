-- Finds workers whose lease may have run out: it ends in the past, or later than it can;
-- and the worker whose lease ends next.
--
-- KEYS  1 workers  sorted set: worker -> end of its lease, ms of the server's clock
--       2 lengths  hash: worker -> length of its lease, ms
-- ARGV  1 ms that leases may last on; only those that last longer can end too late
--
-- Returns the server's time, and for each worker its name, the end of its lease and its
-- length: a hundred at most of either kind, which is in doubt.

local now = server_time()
local found = {now}
local function add(rows)
  for at = 1, #rows, 2 do
    found[#found + 1], found[#found + 2] = rows[at], rows[at + 1]
    found[#found + 1] = redis.call('HGET', KEYS[2], rows[at]) or '0'
  end
end

local latest = whole(now + ARGV[1])
add(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, 100))
add(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. whole(now), latest, 'WITHSCORES', 'LIMIT', 0, 1))
add(redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', '(' .. latest, 'WITHSCORES', 'LIMIT', 0, 100))
return found
