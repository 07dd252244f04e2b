-- Finds workers whose lease ran out.
--
-- KEYS  1 workers  sorted set: worker -> end of its lease, ms of the server's clock
--
-- Returns each with the end of its lease, a hundred at most.

local now = server_time()
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, 100)
