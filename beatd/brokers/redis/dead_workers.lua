-- Finds workers whose lease ran out.
--
-- KEYS  1 workers  sorted set: worker -> end of its lease, ms of the server's clock
--
-- Gives each with the end of its lease, a hundred at most.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, 100)
